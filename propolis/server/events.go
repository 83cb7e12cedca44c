package server

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/falcon-vm/falcon-go/propolis"
)

const (
	// resetWindow is the time in which resets are one: firmware resets the
	// machine once or twice more before it goes on.
	resetWindow = 2 * time.Second
	// relapse is how soon after it was resumed a machine that stops again has
	// not really gone on.
	relapse = 3 * time.Second
)

// machineState is what became of a machine. It is told to those who wait.
type machineState struct {
	mu      sync.Mutex
	rec     propolis.MachineStatus
	changed chan struct{} // closed and renewed with each change

	cause     *Event // the last error for which the machine stops
	before    propolis.Pause
	resumed   time.Time // when the pause before ended
	lastReset time.Time // of any kind
	// panicked and over are places in the console's output: those of the
	// panic, and of the reset after it.
	panicked, over uint64
}

func newMachineState() *machineState {
	return &machineState{
		rec:     propolis.MachineStatus{Version: propolis.MachineStatusVersion, Gen: 1},
		changed: make(chan struct{}),
	}
}

func (s *machineState) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.rec.Gen++
	close(s.changed)
	s.changed = make(chan struct{})
}

// pause returns why the machine stands still, nil when it does not.
func (s *machineState) pause() *propolis.Pause {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rec.Pause
}

// note records an event. It belongs to run.
func (i *instance) note(ctx context.Context, ev Event) {
	if ev.At.IsZero() {
		ev.At = time.Now()
	}
	switch ev.Kind {
	case DiskError:
		i.noteDiskError(ev)
	case Paused:
		i.notePause(ctx, ev)
	case Resumed:
		i.noteResume(ev)
	case Panicked:
		i.log.Warn("the guest panicked")
		i.notePanic(ev)
	case Reset:
		i.noteReset(ev)
	case Watchdog:
		i.log.Warn("a watchdog has fired", "action", ev.Why)
		i.happened.change(func() { i.happened.rec.Watchdog = ev.At })
	}
}

func (i *instance) noteDiskError(ev Event) {
	path := i.diskPath(ev.Disk)
	i.log.Warn("a disk fails", "disk", ev.Disk, "path", path, "error", ev.Why, "stops", ev.Stops)
	s := i.happened
	if ev.Stops { // the pause that follows tells
		s.cause = &ev
		return
	}
	s.change(func() {
		s.rec.DiskError = &propolis.DiskError{At: ev.At, Disk: ev.Disk, Path: path, Error: ev.Why}
	})
}

// diskPath is the file of a storage backend.
func (i *instance) diskPath(backend string) string {
	file, _ := i.currentSpec().Components[backend].(propolis.FileStorageBackend)
	return file.Path
}

// notePause has the machine go on by itself when what it waits for is room.
func (i *instance) notePause(ctx context.Context, ev Event) {
	s := i.happened
	p := propolis.Pause{Since: ev.At, Reason: propolis.PauseCommand}
	switch {
	case ev.Why == "io-error" && s.cause != nil:
		p.Reason, p.Disk, p.Path, p.Error = propolis.PauseDiskError, s.cause.Disk, i.diskPath(s.cause.Disk), s.cause.Why
		if s.cause.NoSpace {
			p.Reason = propolis.PauseNoSpace
		}
	case ev.Why == "io-error":
		p.Reason = propolis.PauseDiskError
	case ev.Why == "guest-panicked" || ev.Why == "watchdog":
		p.Reason = propolis.PauseGuest
	}
	if p.Reason == s.before.Reason && p.Disk == s.before.Disk && ev.At.Sub(s.resumed) < relapse {
		p.Since = s.before.Since
	}
	s.change(func() { s.rec.Pause = &p })
	i.log.Warn("the guest stands still", "status", ev.Why, "disk", p.Disk, "error", p.Error)
	i.endWait()
	if p.Reason == propolis.PauseNoSpace {
		ctx, i.endWait = context.WithCancel(ctx)
		go i.resumeWithRoom(ctx, p.Path)
	}
}

func (i *instance) noteResume(ev Event) {
	i.endWait()
	s := i.happened
	if s.rec.Pause == nil { // run alone writes it
		return
	}
	i.log.Info("the guest goes on")
	s.change(func() {
		s.before, s.resumed, s.rec.Pause = *s.rec.Pause, ev.At, nil
	})
}

// notePanic keeps the place of a panic in the console. What else the kernel says
// of one panic is of the same.
func (i *instance) notePanic(ev Event) {
	at := i.console.written()
	s := i.happened
	s.change(func() {
		if s.rec.Panic == nil || s.rec.Panic.Over {
			s.rec.Panic, s.panicked, s.over = &propolis.Panic{At: ev.At}, at, 0
		}
	})
}

func (i *instance) noteReset(ev Event) {
	s := i.happened
	at := i.console.written()
	s.change(func() {
		if s.rec.Panic != nil && !s.rec.Panic.Over {
			again := *s.rec.Panic
			again.Over = true
			s.rec.Panic, s.over = &again, at
		}
		if d := ev.At.Sub(s.lastReset); d < resetWindow && d > -resetWindow {
			return
		}
		s.lastReset = ev.At
		if ev.ByGuest {
			s.rec.Resets++
			s.rec.LastReset = ev.At
		}
	})
}

const (
	// roomInterval is how often the host's file system is looked at while a
	// guest waits for room: it has no event for that. The look costs
	// microseconds, and nothing is looked at while all run.
	roomInterval = time.Second
	// enoughRoom is what is worth going on for: a few of a disk's clusters.
	enoughRoom = 1 << 20
)

// resumeWithRoom has the machine go on as soon as there is room for its disk,
// until ctx ends: it does when the machine runs.
func (i *instance) resumeWithRoom(ctx context.Context, disk string) {
	tick := time.NewTicker(roomInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if hasRoom(disk) {
			err := i.command(ctx, func(ctx context.Context, m Machine) error { return m.Run(ctx) })
			if err != nil && ctx.Err() == nil {
				i.log.Warn("the guest cannot go on", "error", err.Error())
			}
		}
	}
}

// resume lets a machine that stands still go on.
func (i *instance) resume(ctx context.Context) error {
	p := i.happened.pause()
	switch {
	case p == nil:
		return nil
	case p.Reason == propolis.PauseNoSpace && !hasRoom(p.Path):
		return &propolis.Error{Status: http.StatusConflict, Message: fmt.Sprintf("it is %s: free some, and it goes on", p)}
	}
	return i.command(ctx, func(ctx context.Context, m Machine) error { return m.Run(ctx) })
}

// wait returns the status of the machine as soon as its generation is gen or
// later.
func (i *instance) waitMachine(ctx context.Context, gen uint64) (propolis.MachineStatus, error) {
	for {
		s := i.happened
		s.mu.Lock()
		rec, changed, from, to := s.rec, s.changed, s.panicked, s.over
		s.mu.Unlock()
		if rec.Gen >= gen {
			if rec.Panic != nil {
				told := *rec.Panic
				told.Console = lastLines(i.console.around(from, cmp.Or(to, from+panicText)), panicLines)
				rec.Panic = &told
			}
			return rec, nil
		}
		select {
		case <-changed:
		case <-i.ended:
			return rec, errNoMoreStates
		case <-ctx.Done():
			return rec, context.Cause(ctx)
		}
	}
}

const (
	// panicText is how much of a console is looked at before and after the
	// report of a panic, which the kernel makes in the middle of what it says.
	panicText = 16 << 10
	// panicLines is how many lines of it are told.
	panicLines = 12
	// panicHeadline is what the line of a Linux kernel says that tells why.
	panicHeadline = "Kernel panic - not syncing"
)

// around returns what the console said shortly before from, and up to to.
func (c *console) around(from, to uint64) []byte {
	from -= min(from, panicText)
	data, _, err := c.read(offset{fromStart: &from}, to-from)
	if err != nil {
		return nil // it has said so much since that it is not held any more
	}
	return data
}

// written is how many bytes the guest has written.
func (c *console) written() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hist.total
}

// lastLines returns the last n lines that say something, the headline of a panic
// in any case, with the control characters of a guest taken out.
func lastLines(text []byte, n int) []string {
	var lines []string
	for line := range strings.Lines(strings.ToValidUTF8(string(text), "?")) {
		line = strings.Map(func(r rune) rune {
			switch {
			case r == '\t':
				return ' '
			case !unicode.IsPrint(r):
				return -1
			}
			return r
		}, line)
		if strings.TrimSpace(line) != "" {
			lines = append(lines, line)
		}
	}
	cut := max(len(lines)-n, 0)
	last := lines[cut:]
	headline := func(line string) bool { return strings.Contains(line, panicHeadline) }
	if i := slices.IndexFunc(lines[:cut], headline); i >= 0 {
		last[0] = lines[i]
	}
	return last
}

func (s *server) getMachine(w http.ResponseWriter, r *request) error {
	gen, err := r.number("gen")
	if err != nil {
		return err
	}
	if gen == nil {
		gen = new(uint64)
	}
	i, err := s.current()
	if err != nil {
		return err
	}
	rec, err := i.waitMachine(r.Context(), *gen)
	if err != nil {
		return errGone(*gen)
	}
	writeJSON(w, http.StatusOK, rec)
	return nil
}

func (s *server) resumeMachine(w http.ResponseWriter, r *request) error {
	i, err := s.current()
	if err != nil {
		return err
	}
	if err := i.resume(r.Context()); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
