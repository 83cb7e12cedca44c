package guest

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/internal/agent"
	"github.com/falcon-vm/falcon-go/internal/mux"
)

// Serve answers the calls that come over a port until the port is gone.
func Serve(port io.ReadWriteCloser) error {
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", os.DevNull, err)
	}
	defer unix.Close(null)
	// Read once: in a translated guest a file costs as much as a call.
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without /proc there is none
	s := &server{null: null, env: environment(os.Environ()), running: make(map[uint64]*process), info: agent.Info{
		Version: agent.Version, Boot: strings.TrimSpace(string(id)), PID: os.Getpid(),
	}}
	s.boot() // who gets an answer finds the guest set up
	<-mux.Guest(port, func(st *mux.Stream) { go s.serve(st) }).Done()
	return nil
}

// server is what calls have in common.
type server struct {
	null   int // the input of commands that have none
	env    []string
	info   agent.Info
	frozen atomic.Bool // one freeze at a time

	mu      sync.Mutex
	running map[uint64]*process // commands that have a name
	down    []string            // interfaces that were up before prepare
	held    *held               // of a template and its clones, nil of others
	booted  []agent.Mount       // what boot has mounted
	machine string              // whose identity the guest has

	keeping sync.Mutex // of the identity for later boots
}

// ping says who answers.
func (s *server) ping() []byte {
	i := s.info
	s.mu.Lock()
	i.Held, i.Machine = s.held != nil, s.machine
	s.mu.Unlock()
	return i.Encode()
}

// call is a call under way.
type call struct {
	*agent.Sender
	*agent.Receiver
	stream *mux.Stream
}

// done answers a call and ends it.
func (c *call) done(content []byte, err error) {
	// A host that has gone does not want an answer.
	if err != nil {
		_ = c.SendLast(c.stream, agent.Failed, []byte(err.Error()))
	} else {
		_ = c.SendLast(c.stream, agent.Done, content)
	}
}

// serve answers the call of a stream.
func (s *server) serve(st *mux.Stream) {
	defer st.Close()
	c := &call{Sender: agent.NewSender(st), Receiver: agent.NewReceiver(st), stream: st}
	kind, content, err := c.Receive()
	if err != nil {
		return
	}
	switch kind {
	case agent.AskPing:
		c.done(s.ping(), nil)
	case agent.AskIdentity:
		c.done(nil, s.identify(content))
	case agent.AskPower: // also of a guest that is held: to end it is no use of it
		c.done(nil, s.power(agent.PowerAction(content)))
	default:
		if s.isHeld() {
			c.done(nil, errHeld)
			return
		}
		s.serveMore(c, kind, content)
	}
}

// serveMore answers the calls that a guest takes once it is a machine of its own.
func (s *server) serveMore(c *call, kind agent.Kind, content []byte) {
	switch kind {
	case agent.AskExec:
		s.exec(c, content)
	case agent.AskPut:
		c.done(nil, put(c, content))
	case agent.AskGet:
		if err := get(c, content); err != nil {
			c.done(nil, err)
		}
	case agent.AskInterrupt:
		c.done(nil, s.interrupt(content))
	case agent.AskHold:
		c.done(nil, s.hold())
	case agent.AskPrepare:
		c.done(s.prepare(c))
	case agent.AskFreeze:
		s.freeze(c, content)
	default:
		_ = c.SendLast(c.stream, agent.Unknown, []byte(agent.Version))
	}
}

func put(c *call, content []byte) error {
	t, err := agent.DecodeTree(content)
	if err != nil {
		return err
	}
	t.Path = absolute(t.Path)
	root := os.Geteuid() == 0
	return agent.Unpack(agent.NewTreeReader(c.Receiver, nil), t, agent.Keep{Owners: root, Special: true})
}

func get(c *call, content []byte) error {
	t, err := agent.DecodeTree(content)
	if err != nil {
		return err
	}
	t.Path = absolute(t.Path)
	size, err := agent.TreeSize(t.Path)
	if err != nil {
		return err
	}
	if err := c.Send(agent.Size, agent.Number(uint64(size))); err != nil {
		return err
	}
	return agent.SendTree(c.Sender, t.Path, nil)
}

// absolute takes relative paths from root's home, as a shell there does.
func absolute(path string) string {
	if strings.HasPrefix(path, "/") {
		return path
	}
	return home + "/" + path
}

const home = "/root"

// environment adds what a shell of root's has where it is missing.
func environment(env []string) []string {
	for _, v := range []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + home, "USER=root", "LOGNAME=root", "SHELL=/bin/sh",
	} {
		if name, _, _ := strings.Cut(v, "="); variable(env, name) == "" {
			env = append(env, v)
		}
	}
	return env
}

// variable returns the value of an environment's variable.
func variable(env []string, name string) string {
	for _, v := range env {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// with returns an environment with variables set.
func with(env, set []string) []string {
	if len(set) == 0 {
		return env
	}
	merged := make([]string, 0, len(env)+len(set))
	for _, v := range env {
		if name, _, _ := strings.Cut(v, "="); variable(set, name) == "" {
			merged = append(merged, v)
		}
	}
	return append(merged, set...)
}

// How long a command that is ended has from SIGINT to SIGTERM, where it is
// interrupted, and from there to SIGKILL.
const (
	interruptGrace = 2 * time.Second
	killGrace      = time.Second
)
