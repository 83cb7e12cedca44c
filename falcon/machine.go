package falcon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/state"
	"github.com/falcon-vm/falcon-go/propolis"
)

// PausedError says that the machine of a node stands still.
type PausedError struct {
	Node  string
	Pause propolis.Pause
	// Cure is the command that has it go on.
	Cure string
}

// Error implements error.
func (e *PausedError) Error() string {
	how := "it goes on with"
	if e.Pause.Reason == propolis.PauseNoSpace {
		how = "free some, and it goes on by itself, at once with"
	}
	return fmt.Sprintf("it is %s; %s: %s", &e.Pause, how, e.Cure)
}

// PanickedError says that the kernel of a node has panicked.
type PanickedError struct {
	Node  string
	Panic propolis.Panic
	// Cure is the command that starts it anew.
	Cure string
}

// Error implements error.
func (e *PanickedError) Error() string {
	text := fmt.Sprintf("its kernel panicked at %s; start it anew with: %s", e.Panic.At.Local().Format(time.DateTime), e.Cure)
	if len(e.Panic.Console) > 0 {
		text += "; the console's last lines:\n  " + strings.Join(e.Panic.Console, "\n  ")
	}
	return text
}

func (l *lab) pausedError(node string, p propolis.Pause) error {
	return &PausedError{node, p, l.cure("hyperstart", node)}
}

func (l *lab) panickedError(node string, p propolis.Panic) error {
	return &PanickedError{node, p, l.cure("reboot", node)}
}

// pausePatience is how long a machine may stand still before those who wait for
// its guest give up.
const pausePatience = 10 * time.Second

// machineStatus asks a node's server what became of the machine. Other servers
// than falcon's own do not know, and report nothing.
func machineStatus(ctx context.Context, client *propolis.Client) (propolis.MachineStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, statusDeadline)
	defer cancel()
	s, err := client.Machine(ctx)
	if notServed(err) {
		return propolis.MachineStatus{}, nil
	}
	return s, err
}

func notServed(err error) bool {
	var e *propolis.Error
	return errors.As(err, &e) && e.Status == http.StatusNotFound
}

// works returns an error when the machine of a node can do nothing for its
// guest now: it stands still, or its kernel has panicked. Whoever cannot be asked
// is no reason.
func (l *lab) works(ctx context.Context, node string) error {
	client, err := l.host.client(l.folder, node)
	if err != nil {
		return nil
	}
	defer client.Close()
	s, err := machineStatus(ctx, client)
	switch {
	case err != nil:
		return nil
	case s.Pause != nil:
		return l.pausedError(node, *s.Pause)
	case s.Panic != nil && !s.Panic.Over:
		return l.panickedError(node, *s.Panic)
	}
	return nil
}

// standsStill returns a PausedError when the machine of a node does.
func (l *lab) standsStill(ctx context.Context, node string) error {
	var paused *PausedError
	if err := l.works(ctx, node); errors.As(err, &paused) {
		return paused
	}
	return nil
}

// whileWorking does something with a guest, and ends its context as soon as that
// has no prospect: the guest panics, or stands still for too long.
func (l *lab) whileWorking(ctx context.Context, node string, do func(context.Context) error) error {
	client, err := l.host.client(l.folder, node)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	begun := time.Now()
	go func() {
		if err := l.watchMachine(ctx, client, node, begun); err != nil {
			cancel(err)
		}
	}()
	err = do(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil && stoodStill(cause) {
		return cause
	}
	return err
}

// stoodStill reports whether an error is one of whileWorking's own.
func stoodStill(err error) bool {
	var paused *PausedError
	var panicked *PanickedError
	return errors.As(err, &paused) || errors.As(err, &panicked)
}

// watchMachine returns an error when the guest panics or stands still for too
// long, and nil when ctx ends or there is nothing to watch. A panic from before
// since is an old one.
func (l *lab) watchMachine(ctx context.Context, client *propolis.Client, node string, since time.Time) error {
	s, err := machineStatus(ctx, client)
	var limit time.Time // for the pause, if it stands still
	for err == nil && s.Gen > 0 {
		if p := s.Panic; p != nil && p.At.After(since) {
			return l.panickedError(node, lastWordsOf(ctx, client, s))
		}
		wait, cancel := ctx, context.CancelFunc(func() {})
		switch {
		case s.Pause == nil:
			limit = time.Time{}
		case limit.IsZero():
			l.log.Warn("the node stands still", "node", node, "why", s.Pause.String())
			limit = time.Now().Add(pausePatience)
			fallthrough
		default:
			wait, cancel = context.WithDeadline(ctx, limit)
		}
		paused := s.Pause
		s, err = client.MonitorMachine(wait, s.Gen+1)
		late := wait.Err() != nil
		cancel()
		if late && ctx.Err() == nil {
			return l.pausedError(node, *paused)
		}
	}
	return nil
}

// panicWords is how long a kernel that panics may take to have said why: what it
// says comes another way than the report.
const panicWords = 500 * time.Millisecond

// lastWordsOf is a panic with all that the kernel had to say.
func lastWordsOf(ctx context.Context, client *propolis.Client, s propolis.MachineStatus) propolis.Panic {
	wait, cancel := context.WithTimeout(ctx, panicWords)
	defer cancel()
	_, _ = client.MonitorMachine(wait, s.Gen+1) // a reset, or nothing more
	if later, err := machineStatus(ctx, client); err == nil && later.Panic != nil {
		return *later.Panic
	}
	return *s.Panic
}

// goOn lets the machine of a node that runs go on if it stands still. It returns
// false for one that cannot, and has to be started anew.
func (l *lab) goOn(ctx context.Context, node string) (bool, error) {
	client, err := l.host.client(l.folder, node)
	if err != nil {
		return false, err
	}
	defer client.Close()
	s, err := machineStatus(ctx, client)
	if err == nil && s.Pause != nil {
		err = l.resume(ctx, client, node, *s.Pause)
	}
	if err != nil || s.Panic == nil || s.Panic.Over {
		return err == nil, err
	}
	l.log.Warn("the node is started anew: its kernel has panicked", "node", node, "at", s.Panic.At.Local().Format(time.DateTime))
	return false, nil
}

// resume lets a machine go on, and returns a PausedError when it cannot yet.
func (l *lab) resume(ctx context.Context, client *propolis.Client, node string, p propolis.Pause) error {
	ctx, cancel := context.WithTimeout(ctx, statusDeadline)
	defer cancel()
	err := client.Resume(ctx)
	var refusal *propolis.Error
	if errors.As(err, &refusal) && refusal.Status == http.StatusConflict {
		return l.pausedError(node, p)
	}
	return err
}

// lookAtMachine fills in what became of a node's machine.
func (l *lab) lookAtMachine(ctx context.Context, n *NodeStatus, o state.Object) {
	client, err := l.host.client(l.folder, o.Name)
	if err != nil {
		return
	}
	defer client.Close()
	s, err := machineStatus(ctx, client)
	if err != nil {
		l.log.Debug("asking what became of a machine", "node", n.Name, "error", err)
		return
	}
	n.Paused, n.Panic, n.DiskError, n.Resets = s.Pause, s.Panic, s.DiskError, s.Resets
	if !s.LastReset.IsZero() {
		n.LastReset = &s.LastReset
	}
	if !s.Watchdog.IsZero() {
		n.Watchdog = &s.Watchdog
	}
	switch n.State {
	case NodeRunning, NodeStarting, NodeUnfinished: // what ends the pause or the panic also finishes it
	default:
		return
	}
	switch {
	case s.Pause != nil:
		n.State, n.Reason = NodePaused, l.pausedError(n.Name, *s.Pause).Error()
	case s.Panic != nil && !s.Panic.Over:
		n.State, n.Reason = NodePanicked, l.panickedError(n.Name, *s.Panic).Error()
	}
}
