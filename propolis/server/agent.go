package server

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/falcon-vm/falcon-go/internal/mux"
)

// agentMachine is a machine with a port for falcon's agent in the guest.
type agentMachine interface {
	// Agent is the host's end of the port, nil where the machine has none.
	Agent() io.ReadWriteCloser
}

// agentRelay shares the one port of the machine among any number of clients,
// each of which has a stream of its own. A nil relay is none.
type agentRelay struct {
	mu      sync.Mutex
	session *mux.Session
	ended   bool          // there was a session
	changed chan struct{} // closed and renewed with the above
}

func newAgentRelay() *agentRelay { return &agentRelay{changed: make(chan struct{})} }

// attach begins a session over the port of a machine that has one.
func (r *agentRelay) attach(m Machine) {
	am, ok := m.(agentMachine)
	if r == nil || !ok {
		return
	}
	if port := am.Agent(); port != nil {
		r.set(mux.Host(port))
	}
}

// detach ends the session: the machine has gone.
func (r *agentRelay) detach() {
	if r != nil {
		r.set(nil)
	}
}

// restart begins a new session: the guest has been reset, and its agent with it.
func (r *agentRelay) restart() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.session != nil {
		r.session.Restart()
	}
}

func (r *agentRelay) set(s *mux.Session) {
	r.mu.Lock()
	old := r.session
	r.session, r.ended = s, s == nil
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	if old != nil {
		old.Close() // its port has ended, or is to
	}
}

// errNoMachine is what clients hear when the machine has ended.
var errNoMachine = errors.New("the machine has ended")

// await returns the session, as soon as there is one.
func (r *agentRelay) await(ctx context.Context) (*mux.Session, error) {
	for {
		r.mu.Lock()
		s, ended, changed := r.session, r.ended, r.changed
		r.mu.Unlock()
		if s != nil {
			return s, nil
		}
		if ended {
			return nil, errNoMachine
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// serve relays the clients of a listener until ctx ends, and closes it.
func (r *agentRelay) serve(ctx context.Context, l net.Listener) {
	acceptAll(ctx, l, func(conn net.Conn) {
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		s, err := r.await(ctx)
		if err != nil {
			mux.Refuse(conn, err)
			return
		}
		s.Relay(ctx, conn)
	})
}
