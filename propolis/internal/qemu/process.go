package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/propolis/internal/confine"
	"github.com/falcon-vm/falcon-go/propolis/softnpu"
)

// tailSize is how much of QEMU's last output is kept for its obituary.
const tailSize = 4 << 10

// outputGrace is how long QEMU's output is waited for once QEMU is gone.
const outputGrace = time.Second

// process is a running QEMU.
type process struct {
	os   *os.Process
	jail *confine.Jail
	tail *tail
	gone chan struct{} // closed once the process is reaped
	err  error         // how it ended; valid once gone is closed
}

// startProcess runs a command, confined, with the descriptors in f.
//
// On Linux the child dies when the thread that started it ends, which is how
// it dies with its server. So one goroutine starts it, keeps its thread, and
// waits: the thread ends with the child or with us, never earlier.
func startProcess(ctx context.Context, jail confine.Config, stderr io.Writer) (*process, error) {
	p := &process{tail: &tail{}, gone: make(chan struct{})}
	cmd := &exec.Cmd{WaitDelay: outputGrace, Stdout: output(p.tail, stderr)}
	cmd.Stderr = cmd.Stdout
	var err error
	if p.jail, err = confine.Prepare(cmd, jail); err != nil {
		return nil, fmt.Errorf("starting QEMU: %w", err)
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		p.os = cmd.Process
		started <- err
		if err != nil {
			return
		}
		p.err = p.obituary(cmd.Wait())
		close(p.gone)
	}()
	if err := <-started; err != nil {
		p.jail.Close()
		return nil, fmt.Errorf("starting QEMU: %w", confine.StartError(err))
	}
	defer context.AfterFunc(ctx, func() { _ = p.os.Kill() })() // a file system may not answer
	if err := p.jail.Enter(p.os.Pid); err != nil {
		p.kill()
		p.jail.Close()
		return nil, fmt.Errorf("starting QEMU: %w", err)
	}
	return p, nil
}

// output returns a writer to a tail and to w, whose errors are w's own affair.
func output(t *tail, w io.Writer) io.Writer {
	if w == nil {
		return t
	}
	return io.MultiWriter(t, careless{w})
}

type careless struct{ io.Writer }

func (c careless) Write(p []byte) (int, error) {
	_, _ = c.Writer.Write(p)
	return len(p), nil
}

// obituary says how QEMU ended, with its last words.
func (p *process) obituary(err error) error {
	var status *exec.ExitError
	how := "exited with status 0"
	switch {
	case errors.As(err, &status):
		how = "ended: " + status.Error()
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		how = "ended: " + err.Error()
	}
	return &ExitError{How: how, Words: p.tail.String(), Clean: how == "exited with status 0"}
}

// kill ends the process and waits until it is reaped.
func (p *process) kill() {
	// The error says that the process is gone already.
	_ = p.os.Kill()
	<-p.gone
}

// ExitError is the end of a QEMU process.
type ExitError struct {
	// How is its exit status or the signal that ended it.
	How string
	// Words is the end of what it printed.
	Words string
	// Clean tells exit status 0.
	Clean bool
}

// Error implements error.
func (e *ExitError) Error() string {
	if e.Words == "" {
		return "QEMU " + e.How + " without a word"
	}
	return "QEMU " + e.How + "; it said: " + e.Words
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	data []byte
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	if over := len(t.data) - tailSize; over > 0 {
		t.data = append(t.data[:0], t.data[over:]...)
	}
	return len(p), nil
}

// String returns what is kept, without white space at its ends.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.data))
}

// files are the descriptors of a command, both ends.
type files struct {
	child        []*os.File
	opens        map[string]*os.File // what QEMU gets by opening a path
	console, qmp net.Conn
	state        *os.File // to be written to a QEMU that is a clone
	agent        net.Conn // nil without the agent's port
	management   net.Conn // nil without an ASIC
	cpu          softnpu.Wire
	sidecars     []softnpu.Wire
}

// openFiles opens what a command inherits.
func openFiles(c Command) (_ *files, err error) {
	f := &files{opens: make(map[string]*os.File)}
	defer func() {
		if err != nil {
			f.closeAll()
		}
	}()
	for _, fd := range c.FDs {
		var file *os.File
		switch fd.Kind {
		case FDConsole:
			f.console, file, err = socketPair("console")
		case FDQMP:
			f.qmp, file, err = socketPair("qmp")
		case FDAgent:
			f.agent, file, err = socketPair("agent")
		case FDManagement:
			f.management, file, err = socketPair("management")
		case FDCPUPort:
			f.cpu, file, err = softnpu.SocketPair()
		case FDSidecar:
			var w softnpu.Wire
			if w, file, err = softnpu.SocketPair(); err == nil {
				f.sidecars = append(f.sidecars, w)
			}
		case FDLink:
			file, err = openLink(fd.Link)
		case FDLooseTap:
			file, err = openLooseTap()
		case FDFile:
			file, err = fd.File.open()
		case FDState:
			file, f.state, err = os.Pipe()
		default:
			err = fmt.Errorf("descriptor of unknown kind %d", fd.Kind)
		}
		if err != nil {
			return nil, err
		}
		f.child = append(f.child, file)
	}
	for path, o := range c.Opens {
		if f.opens[path], err = o.open(); err != nil {
			delete(f.opens, path)
			return nil, err
		}
	}
	return f, nil
}

func (o OpenFile) open() (*os.File, error) {
	if o.Size != 0 {
		file, err := os.OpenFile(o.Path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
		if err == nil {
			err = file.Truncate(o.Size)
		}
		return file, err
	}
	if o.Writable {
		return os.OpenFile(o.Path, os.O_RDWR, 0)
	}
	return os.Open(o.Path)
}

// closeOpens closes what QEMU has opened, or will not open any more.
func (f *files) closeOpens() {
	for _, file := range f.opens {
		file.Close()
	}
	f.opens = nil
}

// closeChild closes QEMU's ends, which it holds itself.
func (f *files) closeChild() {
	for _, file := range f.child {
		file.Close()
	}
	f.child = nil
}

func (f *files) closeAll() {
	f.closeChild()
	f.closeOpens()
	if f.state != nil {
		f.state.Close()
	}
	for _, conn := range []net.Conn{f.console, f.qmp, f.agent, f.management} {
		if conn != nil {
			conn.Close()
		}
	}
	for _, w := range append(f.sidecars, f.cpu) {
		if w != nil {
			_ = w.Close() // nothing was sent
		}
	}
}

// socketPair returns our end of a pair of Unix stream sockets and the end for
// a child. Neither is inherited by chance.
func socketPair(name string) (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making the %s socket: %w", name, err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name+" of QEMU")
	defer ours.Close() // FileConn has a copy
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("making the %s socket: %w", name, err)
	}
	return conn, theirs, nil
}

// writePID writes a process id to a file, whole or not at all.
func writePID(path string, pid int) error {
	if path == "" {
		return nil
	}
	if err := writeFile(path, []byte(strconv.Itoa(pid)+"\n")); err != nil {
		return fmt.Errorf("writing the pid of QEMU: %w", err)
	}
	return nil
}
