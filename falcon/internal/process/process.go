// Package process starts processes that outlive their parent and ends them by
// an identity that cannot be mistaken: a number alone may belong to another
// process by the time that it is used.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Identity is a process: its number, when it started, and in which boot of the
// host. The zero Identity is no process.
type Identity struct {
	PID int `json:"pid"`
	// Start is the start time in the unit of the host's process table.
	Start uint64 `json:"start"`
	// Boot identifies the run of the host's kernel.
	Boot string `json:"boot"`
}

// Config says what to start.
type Config struct {
	// Path is the program, Args its arguments without the name.
	Path string
	// Name is what the process calls itself; Path when empty.
	Name string
	Args []string
	// Env is added to the environment of this process.
	Env []string
	// Dir is the working directory.
	Dir string
	// Stdout and Stderr receive the output.
	Stdout, Stderr *os.File
	// Lower, if set, is called on the thread that starts the process, and that
	// ends with it: what the thread has given up, the process does not have.
	Lower func() error
	// Files are inherited as descriptors 4 and up; 3 is the gate.
	Files []*os.File
}

// GateFD is the descriptor on which a started process finds its gate.
const GateFD = 3

// Process is a process that this one has started.
type Process struct {
	Identity
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Start starts a process in a session of its own, so that no terminal's
// Ctrl-C reaches it. The new process must call [WaitGate] first: it is let
// through only when record has returned, so that whatever moment this process
// dies at, no process runs that is not recorded.
func Start(cfg Config, record func(Identity) error) (*Process, error) {
	gateRead, gateWrite, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", cfg.Path, err)
	}
	defer gateRead.Close()
	defer gateWrite.Close()
	cmd := exec.Command(cfg.Path, cfg.Args...)
	if cfg.Name != "" {
		cmd.Args[0] = cfg.Name
	}
	cmd.Dir, cmd.Stdout, cmd.Stderr = cfg.Dir, cfg.Stdout, cfg.Stderr
	cmd.Env = append(os.Environ(), cfg.Env...)
	cmd.ExtraFiles = append([]*os.File{gateRead}, cfg.Files...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := startLowered(cmd, cfg.Lower); err != nil {
		return nil, fmt.Errorf("starting %s: %w", cfg.Path, err)
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	p.Identity, err = Identify(cmd.Process.Pid)
	go func() {
		// A wait for a child takes a thread as long as the child lives.
		_ = p.Identity.Wait(context.Background())
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err == nil {
		err = record(p.Identity)
	}
	if err == nil {
		_, err = gateWrite.Write([]byte{1})
	}
	if err != nil {
		gateWrite.Close() // the process sees the end and leaves
		<-p.done
		return nil, fmt.Errorf("starting %s: %w", cfg.Path, err)
	}
	return p, nil
}

func startLowered(cmd *exec.Cmd, lower func() error) error {
	if lower == nil {
		return cmd.Start()
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: nobody else is to get this thread
		err := lower()
		if err == nil {
			err = cmd.Start()
		}
		started <- err
	}()
	return <-started
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how an ended process ended; nil for exit status 0.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// ErrNoGate is returned to a process whose starter died before it recorded it.
var ErrNoGate = errors.New("the process that started this one has gone before it recorded it")

// WaitGate waits in a started process until its starter has recorded it.
func WaitGate() error {
	gate := os.NewFile(GateFD, "gate")
	if gate == nil {
		return ErrNoGate
	}
	defer gate.Close()
	// Without a starter the descriptor may be one of the Go runtime's files.
	if info, err := gate.Stat(); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		return ErrNoGate
	}
	if n, _ := gate.Read(make([]byte, 1)); n != 1 {
		return ErrNoGate
	}
	return nil
}

// Kill ends the process with SIGKILL and waits until it is gone. A process
// that is gone already is no error.
func (id Identity) Kill(ctx context.Context) error { return id.signal(ctx, syscall.SIGKILL) }

// Terminate ends the process with SIGTERM and, when it has not ended within
// grace, with SIGKILL, and waits until it is gone. A process that is gone
// already is no error.
func (id Identity) Terminate(ctx context.Context, grace time.Duration) error {
	soft, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if err := id.signal(soft, syscall.SIGTERM); err == nil {
		return nil
	}
	return id.Kill(ctx)
}

// signal sends a signal that is to end the process, and waits for the end.
func (id Identity) signal(ctx context.Context, sig syscall.Signal) error {
	start := time.Now()
	h, err := id.open()
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ending process %d: %w", id.PID, err)
	}
	defer h.Close()
	if err := h.signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("ending process %d: %w", id.PID, err)
	}
	if err := h.wait(ctx); err != nil {
		return fmt.Errorf("process %d has not ended %v after %v: %w", id.PID, time.Since(start).Round(time.Millisecond), sig, err)
	}
	return nil
}

// Alive reports whether the process runs.
func (id Identity) Alive() bool {
	h, err := id.open()
	if err != nil {
		return false
	}
	h.Close()
	return true
}

// Wait returns when the process has ended, or with the error of ctx.
func (id Identity) Wait(ctx context.Context) error {
	h, err := id.open()
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer h.Close()
	return h.wait(ctx)
}
