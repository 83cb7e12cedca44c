package falcon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/console"
	"github.com/falcon-vm/falcon-go/internal/agent"
	"github.com/falcon-vm/falcon-go/internal/mux"
)

// agentPatience is how long the agent of a guest that runs may take to answer
// before the console is used in its place. It answers within a millisecond; a
// guest that boots or is very busy takes longer.
const agentPatience = 10 * time.Second

// errAgentSilent says that the agent has not answered. Nothing was asked of it.
var errAgentSilent = errors.New("the guest agent does not answer")

// agent returns a client of a node's agent, or nil where it has none: its image
// has none, or its server does not serve it.
func (l *lab) agent(np *NodePlan) *agent.Client {
	path := l.folder.File(np.Name + agentExt)
	if np.Agent == "" || !fileExists(path) {
		return nil
	}
	return agent.New(func(ctx context.Context) (io.ReadWriteCloser, error) {
		conn, err := dialSocket(ctx, path)
		if err != nil {
			return nil, err
		}
		return mux.Client(conn), nil
	})
}

// dialSocket connects to a socket whose path may be longer than an address
// holds; see listenSocket.
func dialSocket(ctx context.Context, path string) (net.Conn, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return new(net.Dialer).DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
}

// answeringAgent returns the agent of a node, having heard of it. It is nil
// where the node has none, or cannot have one now, and the error wraps
// errAgentSilent where it does not answer in time.
func (l *lab) answeringAgent(ctx context.Context, np *NodePlan, patience time.Duration) (*agent.Client, error) {
	a := l.agent(np)
	if a == nil {
		return nil, nil
	}
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := a.Ping(wait); err != nil {
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case wait.Err() != nil:
			return nil, fmt.Errorf("%w within %v", errAgentSilent, patience)
		}
		l.log.Info("the guest agent cannot be used", "node", np.Name, "error", err)
		return nil, nil
	}
	return a, nil
}

// execByAgent runs a command by a guest's agent.
func execByAgent(ctx context.Context, a *agent.Client, cmd execCommand) (ExecResult, error) {
	begun := time.Now()
	if cmd.Timeout > 0 {
		// The guest ends the command itself; this is for a guest that cannot.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cmd.Timeout+agentPatience)
		defer cancel()
	}
	collected := &collector{max: console.MaxOutput}
	var stdout io.Writer = collected
	if cmd.Output != nil {
		stdout = cmd.Output
	}
	exit, err := a.Exec(ctx, agent.Command{
		Exec:  agent.Exec{Argv: []string{"sh", "-c", cmd.Shell}, Timeout: cmd.Timeout},
		Input: cmd.input, Stdout: stdout, Stderr: cmd.stderr,
	})
	return ExecResult{Output: collected.Bytes(), Status: exit.Code(), Duration: time.Since(begun)}, err
}

// collector keeps what is written, up to a limit.
type collector struct {
	bytes.Buffer
	max int
}

// Write implements io.Writer.
func (c *collector) Write(p []byte) (int, error) {
	if c.Len()+len(p) > c.max {
		return 0, fmt.Errorf("%w: more than %d bytes", console.ErrTooMuchOutput, c.max)
	}
	return c.Buffer.Write(p)
}

// CopyProgress is told how many bytes of how many have been copied.
type CopyProgress func(done, total int64)

// CopyTo copies a file or folder of the host to the node: to the path, or into
// the folder at the path if there is one. Modes and times are kept, owners are
// not; a file appears when it is whole. Paths that are not absolute are taken
// from root's home. The node's image must have a guest agent.
func (n *Node) CopyTo(ctx context.Context, source, target string, progress CopyProgress) error {
	return n.withAgent(ctx, "copying", func(a *agent.Client) error {
		return a.CopyTo(ctx, source, target, agent.Progress(progress))
	})
}

// CopyFrom copies a file or folder of the node to the host, as CopyTo does the
// other way. What the guest sends cannot be written outside of the target.
func (n *Node) CopyFrom(ctx context.Context, source, target string, progress CopyProgress) error {
	return n.withAgent(ctx, "copying", func(a *agent.Client) error {
		return a.CopyFrom(ctx, source, target, agent.Progress(progress))
	})
}

// withAgent does what only an agent can do.
func (n *Node) withAgent(ctx context.Context, what string, do func(*agent.Client) error) error {
	l, err := n.topology.open()
	if err != nil {
		return err
	}
	err = func() error {
		np, client, err := l.connect(ctx, n.name)
		if err != nil {
			return err
		}
		client.Close()
		a, err := l.answeringAgent(ctx, np, agentPatience)
		if err != nil {
			return err
		}
		if a == nil {
			return fmt.Errorf("%s needs a guest agent: image %s must have one, as those of falcon image build have, and the agent must run", what, np.Image)
		}
		return do(a)
	}()
	if err != nil {
		return &NodeError{Node: n.name, Err: err}
	}
	return nil
}

// freezeLimit bounds the time in which a guest cannot write while a snapshot of
// its disk is taken, which takes a moment.
const freezeLimit = 20 * time.Second

// quiesce has the guest write out its file systems and, where it has an agent,
// not write to them until the returned function is called.
func (l *lab) quiesce(ctx context.Context, np *NodePlan) (release func() error, err error) {
	nothing := func() error { return nil }
	a, err := l.answeringAgent(ctx, np, agentPatience)
	switch {
	case err == nil && a != nil:
		frozen, err := a.Freeze(ctx, freezeLimit)
		if err != nil {
			return nil, fmt.Errorf("freezing the guest's file systems: %w", err)
		}
		return frozen.Thaw, nil
	case err != nil && !errors.Is(err, errAgentSilent):
		return nil, err
	case !np.Setup:
		return nothing, nil
	}
	cmd := execCommand{Command: console.Command{Shell: "sync", Timeout: setupTimeout}}
	if _, err := l.execByConsole(ctx, np.Name, cmd); err != nil {
		return nil, fmt.Errorf("writing out the guest's file systems: %w", err)
	}
	return nothing, nil
}
