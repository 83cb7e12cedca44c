package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/falcon-vm/falcon-go/propolis/internal/qemu"
)

// TestMain fails when the tests leave goroutines of this module behind.
func TestMain(m *testing.M) {
	status := m.Run()
	if status == 0 {
		if left := leftGoroutines(5 * time.Second); left != "" {
			fmt.Fprintf(os.Stderr, "goroutines left behind:\n%s\n", left)
			status = 1
		}
	}
	os.Exit(status)
}

// leftGoroutines returns the stacks of goroutines that run code of this module
// besides the caller's, once there are none or the time is up. There is no
// event to wait for: a goroutine's end is silent.
func leftGoroutines(wait time.Duration) string {
	for deadline := time.Now().Add(wait); ; time.Sleep(10 * time.Millisecond) {
		buf := make([]byte, 1<<20)
		buf = buf[:runtime.Stack(buf, true)]
		var left []string
		for g := range strings.SplitSeq(string(buf), "\n\n") {
			if strings.Contains(g, "falcon-go/propolis") && !strings.Contains(g, "TestMain") {
				left = append(left, g)
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			return strings.Join(left, "\n\n")
		}
	}
}

// fakeMachine is a machine without a QEMU. The test plays the guest.
type fakeMachine struct {
	guest  net.Conn // the guest's end of the serial port
	port   net.Conn
	agent  net.Conn // the host's end of the agent's port, if there is one
	events chan qemu.Event
	calls  chan string // commands in order

	runErr, resetErr, overlayErr, saveErr, closeErr error
	ignorePower                                     bool          // what the guest does about its power button
	hold                                            chan struct{} // if set, Reset waits for it

	screens func(password bool) (net.Conn, error) // nil for no screen

	closeOnce sync.Once
}

func newFakeMachine() *fakeMachine {
	guest, port := net.Pipe()
	return &fakeMachine{guest: guest, port: port, events: make(chan qemu.Event, 16), calls: make(chan string, 64)}
}

func (m *fakeMachine) Console() io.ReadWriteCloser { return m.port }
func (m *fakeMachine) Agent() io.ReadWriteCloser {
	if m.agent == nil {
		return nil
	}
	return m.agent
}

func (m *fakeMachine) Events() <-chan qemu.Event { return m.events }
func (m *fakeMachine) PID() int                  { return 1 }

func (m *fakeMachine) Run(context.Context) error {
	m.calls <- "run"
	return m.runErr
}

func (m *fakeMachine) Reset(context.Context) error {
	m.calls <- "reset"
	if m.hold != nil {
		<-m.hold
	}
	m.events <- qemu.Event{Kind: qemu.Reset}
	return m.resetErr
}

func (m *fakeMachine) PowerDown(context.Context) error {
	m.calls <- "powerdown"
	if !m.ignorePower {
		m.events <- qemu.Event{Kind: qemu.Shutdown, ByGuest: true}
	}
	return nil
}

func (m *fakeMachine) SwitchOverlay(_ context.Context, disk, path string) error {
	m.calls <- "overlay " + disk + " " + path
	return m.overlayErr
}

func (m *fakeMachine) Save(context.Context) error {
	m.calls <- "save"
	return m.saveErr
}

func (m *fakeMachine) Screen(_ context.Context, password bool) (net.Conn, error) {
	if m.screens == nil {
		return nil, qemu.ErrNoScreen
	}
	return m.screens(password)
}

func (m *fakeMachine) NMI(context.Context) error {
	m.calls <- "nmi"
	return nil
}

func (m *fakeMachine) Close(context.Context) error {
	m.die(nil)
	return m.closeErr
}

// die ends the machine as the end of its QEMU does.
func (m *fakeMachine) die(err error) {
	m.closeOnce.Do(func() {
		m.calls <- "close"
		m.guest.Close()
		m.events <- qemu.Event{Kind: qemu.Exited, Err: err}
		close(m.events)
	})
}

// types writes p as the guest's output.
func (m *fakeMachine) types(t *testing.T, p string) {
	t.Helper()
	if _, err := io.WriteString(m.guest, p); err != nil {
		t.Fatal(err)
	}
}

// harness is a server at a Unix socket, its machines fake.
type harness struct {
	*propolis.Client
	t       *testing.T
	server  *server
	addr    string
	machine *fakeMachine // that of the next instance
	log     *lockedBuffer
	stderr  *lockedBuffer

	starts   int
	startErr error
	stop     func() error // ends the server
}

// lockedBuffer is a buffer that may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newHarness(t *testing.T, change ...func(*server)) *harness {
	t.Helper()
	h := &harness{t: t, machine: newFakeMachine(), log: &lockedBuffer{}, stderr: &lockedBuffer{}}
	s := &server{
		log: newLogger(h.log, slog.LevelDebug), stderr: h.stderr,
		grace: 10 * time.Second,
		start: h.start,
	}
	for _, f := range change {
		f(s)
	}
	h.server = s
	h.addr = "unix:" + filepath.Join(shortTempDir(t), "s")
	l, err := listen(t.Context(), h.addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.serve(ctx, l) }()
	h.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	h.Client, err = propolis.NewClient(h.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.Client.Close()
		if err := h.stop(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
		if t.Failed() {
			t.Logf("log of the server:\n%s", h.log)
		}
	})
	return h
}

// shortTempDir is a folder whose path leaves room in a socket address.
func shortTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ps")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (h *harness) start(_ context.Context, _ propolis.InstanceProperties, spec propolis.InstanceSpec) (Machine, error) {
	h.starts++
	if h.startErr != nil {
		return nil, h.startErr
	}
	return h.machine, nil
}

const testID = "3f0c2f4e-58f5-4cbb-9b6e-0a7d3a1f2c11"

// ensureRequest is a request for the least instance with more components.
func ensureRequest(more propolis.Components) propolis.InstanceEnsureRequest {
	components := propolis.Components{"com1": propolis.SerialPort{Num: "com1"}}
	for name, c := range more {
		components[name] = c
	}
	return propolis.InstanceEnsureRequest{
		Properties: propolis.InstanceProperties{ID: testID, Name: "violin"},
		Spec: propolis.InstanceSpec{
			Board:      propolis.Board{CPUs: 1, MemoryMiB: 64, Chipset: propolis.Chipset{Type: "i440_fx"}},
			Components: components,
		},
	}
}

// ctx bounds what a test waits for.
func (h *harness) ctx() context.Context {
	ctx, cancel := context.WithTimeout(h.t.Context(), 20*time.Second)
	h.t.Cleanup(cancel)
	return ctx
}

// created makes an instance.
func (h *harness) created() {
	h.t.Helper()
	if err := h.Ensure(h.ctx(), ensureRequest(nil)); err != nil {
		h.t.Fatal(err)
	}
}

// running makes an instance and starts it.
func (h *harness) running() {
	h.t.Helper()
	h.created()
	h.request(propolis.RequestRun)
	h.wait(propolis.StateRunning)
	h.called("run")
}

func (h *harness) request(req propolis.StateRequest) {
	h.t.Helper()
	if err := h.SetState(h.ctx(), req); err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) wait(want propolis.InstanceState) {
	h.t.Helper()
	if err := h.WaitState(h.ctx(), want); err != nil {
		h.t.Fatal(err)
	}
}

// called waits for the next command to the machine.
func (h *harness) called(want string) {
	h.t.Helper()
	select {
	case got := <-h.machine.calls:
		if got != want {
			h.t.Fatalf("the machine was told to %s, want %s", got, want)
		}
	case <-h.ctx().Done():
		h.t.Fatalf("the machine was not told to %s", want)
	}
}

// states returns the states that the server logged, in order.
func (h *harness) states() []string {
	var states []string
	for line := range strings.SplitSeq(h.log.String(), "\n") {
		if _, rest, ok := strings.Cut(line, `"state":"`); ok {
			state, _, _ := strings.Cut(rest, `"`)
			states = append(states, state)
		}
	}
	return states
}

// refused checks that err is the server's refusal of a status and code.
func refused(t *testing.T, err error, status int, code string) *propolis.Error {
	t.Helper()
	var e *propolis.Error
	if !errors.As(err, &e) || e.Status != status || e.Code != code {
		t.Fatalf("got %v, want status %d and code %q", err, status, code)
	}
	return e
}
