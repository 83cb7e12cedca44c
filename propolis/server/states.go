package server

import (
	"context"
	"errors"
	"sync"

	"github.com/falcon-vm/falcon-go/propolis"
)

// errNoMoreStates says that an instance has ended before the generation that
// was waited for.
var errNoMoreStates = errors.New("the instance has ended")

// states publishes the states of an instance to those who wait for them.
type states struct {
	mu      sync.Mutex
	rec     propolis.StateRecord
	closed  bool
	changed chan struct{} // closed and renewed with each change
	// tell is called with each change before anybody else learns of it.
	tell func(propolis.StateRecord)
}

// newStates starts with generation 1 in state Creating.
func newStates(tell func(propolis.StateRecord)) *states {
	rec := propolis.StateRecord{Gen: 1, State: propolis.StateCreating}
	return &states{rec: rec, changed: make(chan struct{}), tell: tell}
}

// publish makes s the current state.
func (p *states) publish(s propolis.InstanceState) {
	p.change(func() { p.rec.State = s })
}

// finish makes s the last state. failure says why, if it is Failed.
func (p *states) finish(s propolis.InstanceState, failure string) {
	p.change(func() {
		p.rec.State, p.rec.Failure = s, failure
		p.closed = true
	})
}

func (p *states) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rec.Gen++
	f()
	p.tell(p.rec)
	close(p.changed)
	p.changed = make(chan struct{})
}

// current returns the newest record.
func (p *states) current() propolis.StateRecord {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rec
}

// wait returns the current record as soon as its generation is gen or later.
func (p *states) wait(ctx context.Context, gen uint64) (propolis.StateRecord, error) {
	for {
		p.mu.Lock()
		rec, closed, changed := p.rec, p.closed, p.changed
		p.mu.Unlock()
		switch {
		case rec.Gen >= gen:
			return rec, nil
		case closed:
			return rec, errNoMoreStates
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return rec, context.Cause(ctx)
		}
	}
}
