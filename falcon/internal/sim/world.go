package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/process"
	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/falcon-vm/falcon-go/propolis/server"
)

// firstOrder is how long a world without nodes waits for the one that it was
// started for.
const firstOrder = 30 * time.Second

// lastAnswers bounds the writing of the last answers when the world ends.
const lastAnswers = time.Second

// world is all nodes of one topology.
type world struct {
	self  process.Identity
	links *links

	basesMu sync.Mutex
	bases   map[string]map[string]*file // file trees by image

	mu    sync.Mutex
	nodes map[string]*node // nil when reserved
	conns map[net.Conn]bool
	ended bool
	end   chan struct{} // closed when the last node has gone
}

// node is a node that is served.
type node struct {
	stop context.CancelFunc
	done chan struct{}
}

// Run serves the world of the working folder until its last node has gone or
// ctx ends. ready is closed when it can be reached.
func Run(ctx context.Context, ready io.Closer) error {
	self, err := process.Identify(os.Getpid())
	if err != nil {
		return err
	}
	l, err := listenHere(ControlFile)
	if err != nil {
		return err
	}
	w := &world{
		self: self, links: newLinks(), nodes: make(map[string]*node),
		conns: make(map[net.Conn]bool), bases: make(map[string]map[string]*file), end: make(chan struct{}),
	}
	if err := ready.Close(); err != nil {
		return err
	}
	lonely := time.AfterFunc(firstOrder, w.endIfEmpty)
	defer lonely.Stop()
	var answering sync.WaitGroup
	accepting := make(chan error, 1)
	go func() { accepting <- w.accept(l, &answering) }()
	select {
	case err = <-accepting: // the file is there, for whoever asks what is wrong
	case <-ctx.Done():
	case <-w.end:
		err = nil
	}
	w.close(l)
	done := make(chan struct{})
	go func() { answering.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(lastAnswers):
	}
	return err
}

// base returns the file tree of an image, which all its guests share.
func (w *world) base(system string) map[string]*file {
	w.basesMu.Lock()
	defer w.basesMu.Unlock()
	if w.bases[system] == nil {
		w.bases[system] = baseFiles(system)
	}
	return w.bases[system]
}

// listenHere makes a socket in the working folder that only the user may
// connect to, in the place of one that a dead world has left. Its path is
// relative, and so never too long for an address.
func listenHere(name string) (net.Listener, error) {
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: name})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(name, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (w *world) accept(l net.Listener, answering *sync.WaitGroup) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		w.mu.Lock()
		w.conns[c] = true
		w.mu.Unlock()
		answering.Go(func() { w.serveConn(c) })
	}
}

// close ends all nodes. The control socket goes first: who meets its end may
// start another world at once.
func (w *world) close(l net.Listener) {
	w.mu.Lock()
	if !w.ended {
		w.ended = true
		_ = os.Remove(ControlFile)
	}
	nodes := w.nodes
	w.nodes = nil
	w.mu.Unlock()
	l.Close()
	var gone sync.WaitGroup
	for _, n := range nodes {
		if n != nil {
			gone.Go(n.end)
		}
	}
	gone.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		// Not closed: the answer to the order that ended the world may be
		// on its way.
		_ = c.SetReadDeadline(time.Now())
	}
}

func (n *node) end() {
	n.stop()
	<-n.done
}

// serveConn takes orders from a client until it leaves.
func (w *world) serveConn(c net.Conn) {
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.conns, c)
		c.Close()
	}()
	var sending sync.Mutex
	enc := json.NewEncoder(c)
	send := func(a answer) {
		sending.Lock()
		defer sending.Unlock()
		_ = enc.Encode(a) // a client that is gone needs none
	}
	send(answer{World: &w.self})
	dec := json.NewDecoder(c)
	var working sync.WaitGroup
	reserved := make(map[string]bool) // by this client
	var mu sync.Mutex
	for {
		var o order
		if err := dec.Decode(&o); err != nil {
			break
		}
		working.Go(func() {
			a, err := w.obey(o)
			a.ID = o.ID
			if err != nil {
				a.Error = err.Error()
			}
			mu.Lock()
			switch {
			case o.Op == opReserve && err == nil:
				reserved[o.Name] = true
			case err == nil:
				delete(reserved, o.Name)
			}
			mu.Unlock()
			send(a)
		})
	}
	working.Wait()
	for name := range reserved { // its client died before it was served
		_, _ = w.remove(name)
	}
	w.endIfEmpty()
}

func (w *world) obey(o order) (answer, error) {
	switch o.Op {
	case opReserve:
		return answer{}, w.reserve(o.Name)
	case opServe:
		if o.Node == nil || o.Node.Name != o.Name {
			return answer{}, errors.New("the order has no node")
		}
		return answer{}, w.serve(*o.Node)
	case opRemove:
		last, err := w.remove(o.Name)
		return answer{Last: last}, err
	case opCounters:
		return answer{Counters: w.links.counters()}, nil
	}
	return answer{}, fmt.Errorf("unknown order %q: the world is of another version of this program", o.Op)
}

// errEnded says that a world takes no more orders. Clients start another.
var errEnded = errors.New("the world has ended")

func (w *world) reserve(name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return errEnded
	}
	if n := w.nodes[name]; n != nil {
		return fmt.Errorf("node %s is served already", name)
	}
	w.nodes[name] = nil
	return nil
}

// serve makes a node that is reserved.
func (w *world) serve(cfg NodeConfig) error {
	// Only the words of this run are worth reading in an error.
	if err := os.Remove(cfg.Name + WordsExt); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	words := wordsFile(cfg.Name + WordsExt)
	l, err := listenHere(cfg.Name + SocketExt)
	if err != nil {
		return err
	}
	var agents net.Listener
	if cfg.Agent {
		if agents, err = listenHere(cfg.Name + AgentExt); err != nil {
			l.Close()
			return err
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	n := &node{stop: stop, done: make(chan struct{})}
	w.mu.Lock()
	if _, reserved := w.nodes[cfg.Name]; !reserved || w.ended {
		w.mu.Unlock()
		stop()
		l.Close()
		if agents != nil {
			agents.Close()
		}
		return errEnded
	}
	w.nodes[cfg.Name] = n
	w.mu.Unlock()
	script := NewScript(cfg.Rules) // one for all instances of this server
	var newest atomic.Pointer[guest]
	if agents != nil {
		a := &agentServer{guest: newest.Load, running: make(map[uint64]context.CancelFunc)}
		go a.serve(ctx, agents)
	}
	go func() {
		defer close(n.done)
		err := server.Serve(ctx, l, server.Options{
			Start: func(_ context.Context, _ propolis.InstanceProperties, spec propolis.InstanceSpec) (server.Machine, error) {
				g, err := w.newMachine(cfg, script, spec)
				if err != nil {
					return nil, err // and not a nil machine in an interface
				}
				newest.Store(g)
				return g, nil
			},
			StopGrace: time.Duration(cfg.StopGraceMS) * time.Millisecond, Stderr: words,
			// Only what is worth a file: making one takes longer than all else.
			Log: wordsFile(cfg.Name + LogExt), Level: slog.LevelWarn,
		})
		if err != nil {
			fmt.Fprintln(words, err)
		}
	}()
	return nil
}

// wordsFile is a file that is there once something was said: most nodes never
// say anything.
type wordsFile string

func (name wordsFile) Write(p []byte) (int, error) {
	f, err := os.OpenFile(string(name), os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return 0, err
	}
	n, err := f.Write(p)
	return n, errors.Join(err, f.Close())
}

// remove ends a node, and the world with the last of them.
func (w *world) remove(name string) (last bool, err error) {
	if filepath.Base(name) != name {
		return false, fmt.Errorf("%q is not the name of a node", name)
	}
	w.mu.Lock()
	n := w.nodes[name]
	w.mu.Unlock()
	if n != nil {
		n.end()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.nodes[name] == n {
		delete(w.nodes, name)
	}
	return w.endLocked(), nil
}

func (w *world) endIfEmpty() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.endLocked()
}

// endLocked ends the world when it has no node, and reports whether it has
// ended.
func (w *world) endLocked() bool {
	if len(w.nodes) == 0 && !w.ended {
		w.ended = true
		// Nobody may find the socket once it does not answer.
		_ = os.Remove(ControlFile)
		close(w.end)
	}
	return w.ended
}
