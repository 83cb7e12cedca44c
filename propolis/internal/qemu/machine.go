package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/falcon-vm/falcon-go/propolis/internal/confine"
	"github.com/falcon-vm/falcon-go/propolis/internal/qmp"
)

const (
	// startLimit bounds the start of QEMU where the caller sets no bound. It
	// takes some 50 ms; a machine that is short of memory may take seconds.
	startLimit = time.Minute
	// commandLimit bounds a QMP command where the caller sets no bound. Most
	// take a millisecond; those on disks wait for writes under way.
	commandLimit = 30 * time.Second
	// lastWords is how long the end of QEMU is waited for once its QMP
	// socket has closed: those two come together.
	lastWords = 2 * time.Second
	// eventBacklog is how many events wait for a reader before QEMU's wait
	// in the QMP client.
	eventBacklog = 16
)

// EventKind says what happened to a machine.
type EventKind int

// The kinds of events.
const (
	// Reset: the machine started over. SeaBIOS resets the machine once or
	// twice more before it goes on, which is reported as done by the guest.
	Reset EventKind = iota + 1
	// Shutdown: the machine turned itself off. QEMU still runs.
	Shutdown
	// Exited: QEMU is gone.
	Exited
	// Panicked: the guest's kernel reported a panic and goes on as it likes.
	Panicked
	// Paused: the vCPUs stand still, by a full host disk or by somebody's
	// command. The stops of this package's own methods are not reported.
	Paused
	// Resumed: the vCPUs run again.
	Resumed
	// DiskError: reading or writing a disk failed.
	DiskError
	// Watchdog: a watchdog of the machine has fired.
	Watchdog
)

// String returns the kind's name.
func (k EventKind) String() string {
	switch k {
	case Reset:
		return "reset"
	case Shutdown:
		return "shutdown"
	case Exited:
		return "exited"
	case Panicked:
		return "panicked"
	case Paused:
		return "paused"
	case Resumed:
		return "resumed"
	case DiskError:
		return "disk error"
	case Watchdog:
		return "watchdog"
	}
	return fmt.Sprintf("event %d", int(k))
}

// Event is a change of a machine that nobody asked this package for, or that
// follows from what was asked.
type Event struct {
	Kind EventKind
	// ByGuest tells what the guest did from what was done to it.
	ByGuest bool
	// Err belongs to Exited: an [*ExitError] with QEMU's status and last
	// words. It is nil after a [Machine.Close] that needed no force.
	Err error
	// At is when QEMU reported it.
	At time.Time
	// Why is QEMU's word for it: the state that a machine is Paused in, the
	// operation and error of a DiskError, what a Watchdog does.
	Why string
	// Disk is the storage backend of a DiskError. NoSpace says that the host
	// has no room for what was to be written, and Stops that the machine
	// stops for it, and repeats it when it runs again.
	Disk           string
	NoSpace, Stops bool
}

// Machine is a QEMU process. Its methods may be called concurrently.
type Machine struct {
	cfg     Config
	proc    *process
	qmp     *qmp.Client
	console net.Conn
	agent   net.Conn // nil without the agent's port
	// switching is what this process does for the machine's frames.
	switching *switching
	events    chan Event
	// migrated gets the end of a migration, that of a template being saved
	// or restored.
	migrated chan error
	undo     func()
	// machine is a template's or a clone's digest, own what it has of its
	// own.
	machine string
	own     marks
	done    chan struct{} // closed once the process is gone and cleaned up after

	mu      sync.Mutex
	closing bool

	overlayMu sync.Mutex // held through SwitchOverlay
	screenMu  sync.Mutex // held while a viewer is handed to QEMU
	stillMu   sync.Mutex // held while this package has the machine stand still
	still     string     // why it is Paused; empty when it is not
	panicked  bool       // since its last reset
	disksMu   sync.Mutex
	disks     map[string]string // current block node by storage backend
	overlay   int               // number of the last overlay
	sets      map[string]int    // of a storage backend's descriptors, held with overlayMu
}

// Start starts QEMU with its vCPUs stopped and QMP negotiated. ctx bounds the
// start only. A spec that cannot be served gives an error that joins
// [*Refusal]s, before anything was made.
func Start(ctx context.Context, cfg Config) (*Machine, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	host, err := survey(cfg)
	if err != nil {
		return nil, err
	}
	undo, err := placeVars(cfg, &host.Firmware)
	if err != nil {
		return nil, err
	}
	m, err := start(ctx, cfg, host, undo)
	if err != nil {
		undo()
		return nil, err
	}
	return m, nil
}

func start(ctx context.Context, cfg Config, host Host, undo func()) (*Machine, error) {
	var digest string
	var err error
	if cfg.Template != nil {
		if digest, err = machineDigest(cfg, host); err != nil {
			return nil, err
		}
	}
	if cfg.Template.making() {
		cfg.ID = placeholderID.String()
	}
	var refusals []error
	for host.Level = cfg.level; host.Level <= confine.Least; host.Level++ {
		m, err := startAt(ctx, cfg, host, digest, undo)
		if !errors.Is(err, confine.ErrUnavailable) {
			return m, err
		}
		cfg.log().Warn("QEMU cannot be confined so", "confinement", host.Level.String(), "error", err.Error())
		refusals = append(refusals, err)
	}
	return nil, errors.Join(refusals...)
}

// startAt starts a QEMU that is confined at the host's level.
func startAt(ctx context.Context, cfg Config, host Host, digest string, undo func()) (*Machine, error) {
	command, err := CommandLine(cfg, host)
	if err != nil {
		return nil, err
	}
	cfg.log().Info("starting QEMU", "by_hand", command.String(), "args", command.Args, "confinement", host.Level.String())
	f, err := openFiles(command)
	if err != nil {
		return nil, err
	}
	sw, err := startSwitching(cfg, command, f)
	if err != nil {
		f.closeAll()
		return nil, err
	}
	proc, err := startProcess(ctx, jail(cfg, host, command, f), cfg.Stderr)
	f.closeChild()
	if err != nil {
		sw.close()
		f.closeAll()
		return nil, err
	}
	client, err := connect(ctx, cfg, proc, f.qmp)
	proc.jail.Close() // it has opened what it needs
	f.closeOpens()
	if err != nil {
		proc.kill()
		removePID(cfg)
		sw.close()
		f.closeAll()
		return nil, err
	}
	m := &Machine{
		cfg: cfg, proc: proc, qmp: client, console: f.console, agent: f.agent, switching: sw, undo: undo, migrated: make(chan error, 1),
		machine: digest, own: command.own,
		events: make(chan Event, eventBacklog), done: make(chan struct{}), disks: blockNodes(cfg.Spec), sets: command.disks,
	}
	go m.watch()
	go m.reap()
	if cfg.Template.cloning() {
		if err := m.restore(ctx, command, f.state); err != nil {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			_ = m.Close(ctx)
			return nil, fmt.Errorf("cloning the template in %s: %w", cfg.Template.Dir, err)
		}
	}
	return m, nil
}

// connect takes a fresh QEMU under control.
func connect(ctx context.Context, cfg Config, proc *process, conn net.Conn) (*qmp.Client, error) {
	if err := writePID(cfg.PIDFile, proc.os.Pid); err != nil {
		return nil, err
	}
	client, err := qmp.New(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("starting QEMU: %w", proc.explain(err))
	}
	if err := setScreenPassword(ctx, client, cfg.ScreenPassword); err != nil {
		client.Close()
		return nil, err
	}
	return client, nil
}

// explain replaces the error of a QMP connection that has closed by the end
// of QEMU itself, which is why.
func (p *process) explain(err error) error {
	if !errors.Is(err, qmp.ErrClosed) {
		return err
	}
	select {
	case <-p.gone:
		return p.err
	case <-time.After(lastWords):
		return err
	}
}

func removePID(cfg Config) {
	if cfg.PIDFile != "" {
		os.Remove(cfg.PIDFile)
	}
}

func blockNodes(spec propolis.InstanceSpec) map[string]string {
	nodes := make(map[string]string)
	for name, c := range spec.Components {
		if _, ok := c.(propolis.FileStorageBackend); ok {
			nodes[name] = blockNode(name)
		}
	}
	return nodes
}

// reap cleans up after QEMU, however it ended.
func (m *Machine) reap() {
	<-m.proc.gone
	removePID(m.cfg)
	m.switching.close()
	m.undo()
	close(m.done)
}

// watch turns QEMU's events into ours until QEMU is gone.
func (m *Machine) watch() {
	defer close(m.events)
	for e := range m.qmp.Events() {
		m.migration(e)
		if event, ok := m.translate(e); ok {
			event.At = e.Time
			m.events <- event
		}
	}
	select {
	case <-m.done:
	case <-time.After(lastWords):
		m.cfg.log().Error("QEMU runs on without its QMP socket; ending it", "why", m.qmp.Err())
		m.proc.kill()
		<-m.done
	}
	m.events <- Event{Kind: Exited, Err: m.exitError()}
}

// exitError is how QEMU ended, or nil if that was wished for.
func (m *Machine) exitError() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var exit *ExitError
	if m.closing && errors.As(m.proc.err, &exit) && exit.Clean {
		return nil
	}
	return m.proc.err
}

// Console returns COM1. Reading must keep up, for QEMU holds the guest up
// when it does not; it ends with io.EOF when QEMU is gone. The caller closes
// it, after the last byte.
func (m *Machine) Console() io.ReadWriteCloser { return console{m.console} }

// Agent returns the host's end of the agent's port, or nil if the machine has
// none. The caller closes it.
func (m *Machine) Agent() io.ReadWriteCloser {
	if m.agent == nil {
		return nil // and not a connection that is nil
	}
	return m.agent
}

type console struct{ net.Conn }

// Read hides how a socket tells that its peer went without reading all.
func (c console) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		err = io.EOF
	}
	return n, err
}

// Run starts the vCPUs.
func (m *Machine) Run(ctx context.Context) error { return m.execute(ctx, "cont", nil) }

// Reset starts the machine over at once, whatever the guest is doing.
func (m *Machine) Reset(ctx context.Context) error { return m.execute(ctx, "system_reset", nil) }

// PowerDown presses the ACPI power button and returns. The guest may obey,
// which ends in a Shutdown event, or not.
func (m *Machine) PowerDown(ctx context.Context) error {
	return m.execute(ctx, "system_powerdown", nil)
}

// NMI sends a non-maskable interrupt to the guest.
func (m *Machine) NMI(ctx context.Context) error { return m.execute(ctx, "inject-nmi", nil) }

// Events returns what happens to the machine. It must be read until it is
// closed, which follows the one Exited event.
func (m *Machine) Events() <-chan Event { return m.events }

// PID returns the process id of QEMU.
func (m *Machine) PID() int { return m.proc.os.Pid }

// Close ends QEMU, by force when ctx ends, and returns when it is reaped. It
// may be called again, and after QEMU has ended by itself.
func (m *Machine) Close(ctx context.Context) error {
	m.mu.Lock()
	m.closing = true
	m.mu.Unlock()
	// The answer tells nothing that the end of the process does not.
	_ = m.execute(ctx, "quit", nil)
	select {
	case <-m.done:
	case <-ctx.Done():
		m.proc.kill()
		<-m.done
	}
	return nil
}

// execute runs a QMP command that has no result of interest.
func (m *Machine) execute(ctx context.Context, cmd string, args any) error {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	return m.proc.explain(m.qmp.Execute(ctx, cmd, args, nil))
}
