package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/falcon-vm/falcon-go/propolis"
)

const (
	// commandTimeout bounds each command to a machine, such as a reset.
	commandTimeout = 30 * time.Second
	// closeTimeout is how long a machine may take to quit before it is killed.
	closeTimeout = 5 * time.Second
)

// instance is one virtual machine from its creation to its end. A goroutine of
// its own, run, makes all changes to it.
type instance struct {
	log     *slog.Logger
	stderr  io.Writer // gets a line when the instance fails
	props   propolis.InstanceProperties
	grace   time.Duration // between the power button and the hard stop
	agent   *agentRelay
	asic    *asicDesk
	states  *states
	console *console
	// happened is what became of the machine, and endWait ends the wait for
	// room; run alone writes them.
	happened *machineState
	endWait  context.CancelFunc

	requests chan propolis.StateRequest
	commands chan command
	machine  Machine // set by run's caller
	ran      bool    // whether the vCPUs were ever started; of run

	mu    sync.Mutex
	phase phase
	rules requestRules
	spec  propolis.InstanceSpec

	ended chan struct{} // closed when run has returned
}

// phase is which requests an instance can serve.
type phase int

const (
	initializing phase = iota // its machine is being made
	serving                   // it has a machine
	rundown                   // its machine is gone
)

// command is something to do to a machine between changes of its state.
type command struct {
	do   func(context.Context, Machine) error
	done chan<- error
}

// consoleFile is what the guest of a template had said on its console.
const consoleFile = "console"

// saveTemplate keeps the instance as a template, with what its guest has said.
func (i *instance) saveTemplate(ctx context.Context, dir string) error {
	if err := i.command(ctx, func(ctx context.Context, m Machine) error { return m.Save(ctx) }); err != nil {
		return err
	}
	recent := uint64(historySize)
	said, _, err := i.console.read(offset{mostRecent: &recent}, historySize)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, consoleFile), said, 0o600)
}

func newInstance(s *server, req propolis.InstanceEnsureRequest) *instance {
	i := &instance{
		log:      s.log.With("instance", req.Properties.ID),
		stderr:   s.stderr,
		props:    req.Properties,
		spec:     req.Spec,
		grace:    s.grace,
		agent:    s.agent,
		asic:     s.asic,
		console:  newConsole(),
		happened: newMachineState(),
		endWait:  func() {},
		requests: make(chan propolis.StateRequest, maxOutstanding),
		commands: make(chan command),
		ended:    make(chan struct{}),
	}
	i.states = newStates(i.logState)
	if s.template != "" {
		// What a clone said when it booted. A template that is being made
		// has nothing there yet.
		if past, err := os.ReadFile(filepath.Join(s.template, consoleFile)); err == nil {
			i.console.add(past)
		}
	}
	return i
}

// currentPhase returns the phase.
func (i *instance) currentPhase() phase {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.phase
}

// currentSpec returns the spec, which follows its disks' changes.
func (i *instance) currentSpec() propolis.InstanceSpec {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.spec
}

// request queues a change of state.
func (i *instance) request(req propolis.StateRequest) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch i.phase {
	case initializing:
		return errInitializing()
	case rundown:
		return i.errNoInstance()
	}
	queue, denied := i.rules.admit(req)
	switch {
	case denied != "":
		return errDenied(denied)
	case queue:
		i.requests <- req // never blocks: the rules admit no more than fit
	}
	return nil
}

// command runs do on the machine, in turn with the changes of its state.
func (i *instance) command(ctx context.Context, do func(context.Context, Machine) error) error {
	switch i.currentPhase() {
	case initializing:
		return errInitializing()
	case rundown:
		return i.errNoInstance()
	}
	done := make(chan error, 1)
	select {
	case i.commands <- command{do, done}:
		return <-done
	case <-i.ended:
		return i.errNoInstance()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// errNoInstance is the answer to requests that come after the end. It tells
// how the instance failed, if it did.
func (i *instance) errNoInstance() error {
	err := errNotCreated()
	if rec := i.states.current(); rec.Failure != "" {
		err.Message += "; the last one failed: " + rec.Failure
	}
	return err
}

// begin gives the instance its machine and starts serving it, until ctx ends.
func (i *instance) begin(ctx context.Context, m Machine) {
	i.mu.Lock()
	i.machine, i.phase = m, serving
	i.mu.Unlock()
	i.console.start(m.Console())
	i.agent.attach(m)
	i.asic.attach(m)
	go func() {
		defer close(i.ended)
		i.run(ctx)
	}()
}

// abort ends an instance whose machine could not be made.
func (i *instance) abort(cause error) {
	i.finish(cause)
	close(i.ended)
}

// run serves the instance until its machine has ended.
func (i *instance) run(ctx context.Context) {
	defer func() { i.endWait() }()
	var err error
	for end := false; !end; {
		end, err = i.step(ctx)
	}
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil // the server ended, and not the machine
	}
	i.finish(errors.Join(err, i.release(err)))
}

// step does the next thing. It reports whether the machine is to end, and by
// what failure if by one.
func (i *instance) step(ctx context.Context) (end bool, err error) {
	// What the guest did goes before what clients ask for.
	select {
	case ev, ok := <-i.machine.Events():
		return i.guestEvent(ctx, ev, ok)
	default:
	}
	select {
	case ev, ok := <-i.machine.Events():
		return i.guestEvent(ctx, ev, ok)
	case req := <-i.requests:
		return i.serve(ctx, req)
	case cmd := <-i.commands:
		cmd.done <- i.do(ctx, cmd.do)
		return false, nil
	case <-ctx.Done():
		i.log.Info("stopping with the server")
		i.stopping()
		return true, nil
	}
}

// do runs a command within its time.
func (i *instance) do(ctx context.Context, f func(context.Context, Machine) error) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	return f(ctx, i.machine)
}

func (i *instance) guestEvent(ctx context.Context, ev Event, ok bool) (end bool, err error) {
	i.note(ctx, ev)
	switch {
	case !ok:
		return true, errors.New("qemu is gone")
	case ev.Kind == Exited:
		return true, exitError(ev)
	case ev.Kind == Reset && ev.ByGuest:
		i.log.Info("the guest reset itself")
		i.agent.restart()
		i.states.publish(propolis.StateRebooting)
		i.states.publish(propolis.StateRunning)
	case ev.Kind == Shutdown && ev.ByGuest:
		i.log.Info("the guest powered off")
		i.stopping()
		return true, nil
	}
	return false, nil
}

func exitError(ev Event) error {
	if ev.Err == nil {
		return errors.New("qemu exited")
	}
	return ev.Err
}

func (i *instance) serve(ctx context.Context, req propolis.StateRequest) (end bool, err error) {
	i.log.Info("serving a request for a change of state", "request", req)
	switch req {
	case propolis.RequestRun:
		err = i.start(ctx)
	case propolis.RequestReboot:
		err = i.reboot(ctx)
	case propolis.RequestStop:
		i.stop(ctx)
		return true, nil
	}
	return err != nil, err
}

func (i *instance) start(ctx context.Context) error {
	i.states.publish(propolis.StateStarting)
	if err := i.do(ctx, func(ctx context.Context, m Machine) error { return m.Run(ctx) }); err != nil {
		return fmt.Errorf("start the guest: %w", err)
	}
	i.ran = true
	i.update((*requestRules).started)
	i.states.publish(propolis.StateRunning)
	return nil
}

func (i *instance) reboot(ctx context.Context) error {
	i.states.publish(propolis.StateRebooting)
	if err := i.do(ctx, func(ctx context.Context, m Machine) error { return m.Reset(ctx) }); err != nil {
		return fmt.Errorf("reset the guest: %w", err)
	}
	if i.happened.pause() != nil { // a reset alone would leave it so
		if err := i.do(ctx, func(ctx context.Context, m Machine) error { return m.Run(ctx) }); err != nil {
			return fmt.Errorf("start the guest again: %w", err)
		}
	}
	i.agent.restart()
	i.update((*requestRules).rebooted)
	i.states.publish(propolis.StateRunning)
	return nil
}

// stopping announces the end.
func (i *instance) stopping() {
	i.update(func(r *requestRules) { r.advance(stopPending) })
	if i.ran {
		i.states.publish(propolis.StateStopping)
	}
}

// stop asks the guest to power off and waits until it has, or has had its
// time. A guest that never ran is not asked, nor is one that waits for room: it
// could not heed it.
func (i *instance) stop(ctx context.Context) {
	i.stopping()
	if !i.ran || i.grace <= 0 {
		return
	}
	p := i.happened.pause()
	if p != nil && p.Reason == propolis.PauseNoSpace && !hasRoom(p.Path) {
		i.log.Warn("stopping hard: the guest waits for room on the host", "disk", p.Path)
		return
	}
	err := i.do(ctx, func(ctx context.Context, m Machine) error {
		if p != nil {
			if err := m.Run(ctx); err != nil {
				return err
			}
		}
		return m.PowerDown(ctx)
	})
	if err != nil {
		i.log.Warn("cannot press the power button: stopping hard", "error", err.Error())
		return
	}
	deadline := time.NewTimer(i.grace)
	defer deadline.Stop()
	for {
		select {
		case ev, ok := <-i.machine.Events():
			if !ok || ev.Kind == Exited || ev.Kind == Shutdown {
				return
			}
			i.note(ctx, ev)
		case <-deadline.C:
			i.log.Warn("the guest has not powered off: stopping hard", "waited", i.grace.String())
			return
		case <-ctx.Done():
			return
		}
	}
}

// release ends the machine and the console. It does so also when ctx of run
// has ended, within a time of its own. A machine that cannot be closed is a
// failure unless there is one already.
func (i *instance) release(cause error) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := i.machine.Close(ctx)
	for range i.machine.Events() { // of no interest any more
	}
	select {
	case <-i.console.drained: // the guest's last words are in the history
	case <-ctx.Done():
	}
	i.machine.Console().Close()
	i.agent.detach()
	i.asic.detach()
	i.console.end()
	if err != nil && cause == nil {
		return fmt.Errorf("close the machine: %w", err)
	}
	return nil
}

// finish publishes the end: Destroyed, or Failed for a cause. By then a new
// instance may be made.
func (i *instance) finish(cause error) {
	last, at, failure := propolis.StateDestroyed, halted, ""
	if cause != nil {
		last, at, failure = propolis.StateFailed, failed, cause.Error()
		i.log.Error("the instance failed", "error", failure)
		fmt.Fprintf(i.stderr, "%s: instance %s (%s) failed: %s\n", serverName, i.props.Name, i.props.ID, failure)
	} else {
		i.states.publish(propolis.StateStopped)
	}
	i.mu.Lock()
	i.phase = rundown
	i.rules.advance(at)
	i.mu.Unlock()
	i.states.finish(last, failure)
}

func (i *instance) logState(rec propolis.StateRecord) {
	i.log.Info("publishing new instance state", "gen", rec.Gen, "state", string(rec.State))
}

func (i *instance) update(f func(*requestRules)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	f(&i.rules)
}

// switchOverlay makes the disk of the backend component name write to path.
func (i *instance) switchOverlay(ctx context.Context, name, path string) error {
	return i.command(ctx, func(ctx context.Context, m Machine) error {
		backend, ok := i.currentSpec().Components[name].(propolis.FileStorageBackend)
		if !ok {
			return errNoDisk(name)
		}
		if err := m.SwitchOverlay(ctx, name, path); err != nil {
			return fmt.Errorf("switch disk %s to %s: %w", name, path, err)
		}
		backend.Path = path
		i.setBackend(name, backend)
		return nil
	})
}

// setBackend replaces a component of the spec. The map is replaced as well,
// since others may be reading it.
func (i *instance) setBackend(name string, backend propolis.FileStorageBackend) {
	i.mu.Lock()
	defer i.mu.Unlock()
	components := make(propolis.Components, len(i.spec.Components))
	for n, c := range i.spec.Components {
		components[n] = c
	}
	components[name] = backend
	i.spec.Components = components
}
