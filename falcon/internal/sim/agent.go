package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"mvdan.cc/sh/v3/syntax"

	"github.com/falcon-vm/falcon-go/internal/agent"
	"github.com/falcon-vm/falcon-go/internal/mux"
	"github.com/falcon-vm/falcon-go/propolis/server"
)

// A simulated guest has an agent, too. Its clients talk to it as to one behind a
// relay, by the messages of package agent; what is different is who answers: a
// guest of this package in place of a Linux. There is no port in between, and so
// nothing that costs a node memory before somebody calls.

// agentServer serves the agent of a node's guest.
type agentServer struct {
	// guest returns the guest; nil before there is one.
	guest func() *guest

	mu      sync.Mutex
	running map[uint64]context.CancelFunc // commands that can be interrupted
}

// maxAgentFile is the largest file that is copied to a guest: its disk is in
// memory.
const maxAgentFile = 64 << 20

// serve answers clients until ctx ends.
func (s *agentServer) serve(ctx context.Context, l net.Listener) {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			s.call(ctx, conn)
		}()
	}
}

// call answers the call of a connection.
func (s *agentServer) call(ctx context.Context, conn net.Conn) {
	g := s.guest()
	if g == nil {
		mux.Refuse(conn, errors.New("the machine does not run"))
		return
	}
	l := g.current()
	select {
	case <-l.up:
	case <-l.ctx.Done():
		mux.Refuse(conn, errors.New("the machine does not run"))
		return
	case <-ctx.Done():
		return
	}
	if mux.Join(conn) != nil {
		return
	}
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	c := &agentCall{Sender: agent.NewSender(conn), Receiver: agent.NewReceiver(conn), life: l}
	kind, content, err := c.Receive()
	if err != nil {
		return
	}
	switch kind {
	case agent.AskPing:
		boot := fmt.Sprintf("%s-%d", g.cfg.Name, l.start.UnixNano())
		c.done(agent.Info{Version: agent.Version, Boot: boot, PID: 1}.Encode(), nil)
	case agent.AskExec:
		err = s.exec(ctx, c, content)
	case agent.AskInterrupt:
		c.done(nil, s.interrupt(content))
	case agent.AskPut:
		c.done(nil, c.put(content))
	case agent.AskGet:
		err = c.get(content)
	case agent.AskPower:
		end, err := g.power(agent.PowerAction(content))
		c.done(nil, err)
		if end != nil {
			go end()
		}
		return
	case agent.AskFreeze:
		c.freeze()
	default:
		_ = c.Send(agent.Unknown, []byte(agent.Version))
	}
	if err != nil {
		c.done(nil, err)
	}
}

// agentCall is a call under way.
type agentCall struct {
	*agent.Sender
	*agent.Receiver
	life *life
}

// done answers a call. A client that has gone wants no answer.
func (c *agentCall) done(content []byte, err error) {
	if err != nil {
		_ = c.Send(agent.Failed, []byte(err.Error()))
	} else {
		_ = c.Send(agent.Done, content)
	}
}

// exec runs a command and answers when it has ended.
func (s *agentServer) exec(ctx context.Context, c *agentCall, content []byte) error {
	x, err := agent.DecodeExec(content)
	if err != nil {
		return err
	}
	if len(x.Argv) == 0 {
		return errors.New("no command is given")
	}
	dir := absolute("/root", x.Dir)
	if info, err := c.life.files.stat(dir); err != nil || !info.IsDir() {
		return fmt.Errorf("there is no folder %s to run %s in", dir, x.Argv[0])
	}
	var words []string
	for _, a := range x.Argv {
		words = append(words, quoted(a))
	}
	file, err := syntax.NewParser().Parse(strings.NewReader(strings.Join(words, " ")), "sh")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer s.name(x.ID, cancel)()
	over := ctx
	if x.Timeout > 0 {
		var stop context.CancelFunc
		over, stop = context.WithTimeout(ctx, x.Timeout)
		defer stop()
	}
	in, err := c.input(x.Stdin, cancel)
	if err != nil {
		return err
	}
	defer in.Close()
	stdout := &gather{to: output{c, agent.Stdout}}
	var stderr io.Writer = after{stdout, output{c, agent.Stderr}}
	if x.Merge {
		stderr = stdout
	}
	r, err := c.life.newRunner(append(rootEnvironment(), x.Env...), dir, in, stdout, stderr)
	if err != nil {
		return err
	}
	status := c.life.scripted(over, func() int { return statusOf(over, r.Run(over, file)) })
	stdout.flush()
	exit := agent.Exit{Status: status, TimedOut: over.Err() != nil && ctx.Err() == nil}
	_ = c.Send(agent.Exited, exit.Encode())
	return nil
}

// input is a command's input. That the client ends its side of the call, or goes,
// calls gone.
func (c *agentCall) input(follows bool, gone func()) (*os.File, error) {
	r, w, err := os.Pipe() // which a read can be called off on
	if err != nil {
		return nil, err
	}
	if !follows {
		w.Close()
	}
	go func() {
		defer w.Close()
		for {
			kind, content, err := c.Receive()
			switch {
			case err != nil:
				gone()
				return
			case kind == agent.Stdin:
				_, _ = w.Write(content) // a command that does not want more is no failure
			default:
				w.Close()
			}
		}
	}()
	return r, nil
}

// output sends what a command writes.
type output struct {
	c    *agentCall
	kind agent.Kind
}

func (o output) Write(p []byte) (int, error) {
	for part := range slices.Chunk(p, agent.MaxMessage) {
		if err := o.c.Send(o.kind, part); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// name makes a command known to interrupts until the returned function is called.
func (s *agentServer) name(id uint64, cancel context.CancelFunc) (forget func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[id] = cancel
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.running, id)
	}
}

func (s *agentServer) interrupt(content []byte) error {
	id, err := agent.DecodeNumber(content)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	cancel := s.running[id]
	if cancel == nil {
		return errors.New("the command that is to be interrupted does not run")
	}
	cancel()
	return nil
}

// put takes a tree.
func (c *agentCall) put(content []byte) error {
	t, err := agent.DecodeTree(content)
	if err != nil {
		return err
	}
	target, err := c.life.files.target(t)
	if err != nil {
		return err
	}
	in := agent.NewTreeReader(c.Receiver, nil)
	for {
		x, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !filepath.IsLocal(x.Path) {
			return fmt.Errorf("the tree has a file %q outside of itself", x.Path)
		}
		name := path.Join(target, x.Path)
		if err := c.putOne(name, x, in); err != nil {
			if p := (*fs.PathError)(nil); errors.As(err, &p) {
				err = p.Err
			}
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

func (c *agentCall) putOne(name string, x agent.Entry, in *agent.TreeReader) error {
	switch x.Mode.Type() {
	case fs.ModeDir:
		if info, err := c.life.files.stat(name); err == nil && info.IsDir() {
			return nil
		}
		return c.life.files.place(name, file{Mode: fs.ModeDir | x.Mode.Perm(), Time: x.Time})
	case 0:
	default:
		return errors.New("a simulated guest has files and folders only")
	}
	if x.Size > maxAgentFile {
		return fmt.Errorf("it has %d bytes: a simulated guest takes %d at most", x.Size, maxAgentFile)
	}
	var data bytes.Buffer
	for {
		piece, hole, err := in.Content()
		if errors.Is(err, io.EOF) {
			return c.life.files.place(name, file{Mode: x.Mode.Perm(), Time: x.Time, Data: data.Bytes()})
		}
		if err != nil {
			return err
		}
		data.Write(piece)
		data.Write(make([]byte, hole))
	}
}

// target is where a tree goes: to its path, or into the folder that is there.
func (f *files) target(t agent.Tree) (string, error) {
	name := absolute("/root", t.Path)
	info, err := f.stat(name)
	switch {
	case err == nil && info.IsDir():
		if strings.Contains(t.Base, "/") {
			return "", fmt.Errorf("%q is not the name of a file", t.Base)
		}
		return path.Join(name, t.Base), nil
	case err != nil && strings.HasSuffix(t.Path, "/"):
		return "", fmt.Errorf("there is no folder %s", name)
	}
	if info, err := f.stat(path.Dir(name)); err != nil || !info.IsDir() {
		return "", fmt.Errorf("there is no folder %s", path.Dir(name))
	}
	return name, nil
}

// place puts a file or folder with its mode and time in place.
func (f *files) place(name string, x file) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if is := f.at(name); is != nil && is.Mode.IsDir() != x.Mode.IsDir() {
		if is.Mode.IsDir() {
			return syscall.EISDIR
		}
		return syscall.ENOTDIR
	}
	if err := f.put(name, x); err != nil {
		return err
	}
	f.own[name].Time = x.Time.UTC()
	return nil
}

// get sends a tree.
func (c *agentCall) get(content []byte) error {
	t, err := agent.DecodeTree(content)
	if err != nil {
		return err
	}
	root := absolute("/root", t.Path)
	var size int64
	err = c.life.files.walk(root, func(_ string, info fs.FileInfo) error {
		if info.Mode().IsRegular() {
			size += info.Size()
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.Send(agent.Size, agent.Number(uint64(size))); err != nil {
		return err
	}
	w := agent.NewTreeWriter(c.Sender, nil)
	err = c.life.files.walk(root, func(name string, info fs.FileInfo) error { return c.getOne(w, root, name, info) })
	if err != nil {
		return err
	}
	return w.Close()
}

func (c *agentCall) getOne(w *agent.TreeWriter, root, name string, info fs.FileInfo) error {
	rel, err := filepath.Rel(root, name)
	if err != nil {
		return err
	}
	x := agent.Entry{Path: rel, Mode: info.Mode(), Time: info.ModTime()}
	switch {
	case info.IsDir():
		return w.Entry(x)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is neither a file nor a folder, and cannot be copied", name)
	}
	data, err := c.life.files.read(name)
	if err != nil {
		return err
	}
	x.Size = int64(len(data))
	if err := w.Entry(x); err != nil {
		return err
	}
	for part := range slices.Chunk(data, agent.MaxMessage) {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// walk visits what is at a path, folders before what is in them.
func (f *files) walk(name string, visit func(string, fs.FileInfo) error) error {
	info, err := f.stat(name)
	if err == nil {
		err = visit(name, info)
	}
	if err != nil || !info.IsDir() {
		return err
	}
	entries, err := f.list(name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := f.walk(path.Join(name, e.Name()), visit); err != nil {
			return err
		}
	}
	return nil
}

// freeze writes the files to the disk. Nothing else does until the guest itself
// wants to, so there is nothing to hold back.
func (c *agentCall) freeze() {
	if err := c.life.sync(); err != nil {
		c.done(nil, err)
		return
	}
	c.done(agent.EncodeTexts([]string{"/"}), nil)
	_, _, _ = c.Receive() // a message or the end of the call mean the same
	c.done(nil, nil)
}

// power returns what ends the guest in order, unless the script is against it.
// It is called after the answer, which it would cut off.
func (g *guest) power(a agent.PowerAction) (end func(), err error) {
	switch a {
	case agent.Reboot:
		return g.restart, nil
	case agent.PowerOff:
	default:
		return nil, fmt.Errorf("%q is no way to end a guest", a)
	}
	r := g.script.Next(StepStop, g.cfg.Name)
	if r.Effect == Never {
		return nil, fmt.Errorf("the guest does not power off (%w)", ErrScript)
	}
	l := g.current()
	return func() {
		if r.Effect != Delay || Sleep(l.ctx, r.Delay) == nil {
			g.shutDown(server.Event{Kind: server.Shutdown, ByGuest: true})
		}
	}, nil
}
