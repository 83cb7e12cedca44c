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
	"strings"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/console"
	"github.com/falcon-vm/falcon-go/falcon/internal/image/build"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
	"github.com/falcon-vm/falcon-go/internal/agent"
	"github.com/falcon-vm/falcon-go/internal/mux"
	"github.com/falcon-vm/falcon-go/internal/printable"
	"github.com/falcon-vm/falcon-go/propolis"
)

// agentPatience is how long the agent of a guest that runs may take to answer
// before the console is used in its place. It answers within a millisecond; a
// guest that boots or is very busy takes longer.
const agentPatience = 10 * time.Second

// maxResets is how often a guest may start over while its agent is waited for.
const maxResets = 5

// errAgentSilent says that the agent has not answered. Nothing was asked of it.
var errAgentSilent = errors.New("the guest agent does not answer")

// AgentVersionError says that the guest agent of an image is of another version
// than this program, and cannot do what it is asked for.
type AgentVersionError struct {
	Image string
	Err   error
}

// Error implements error.
func (e *AgentVersionError) Error() string {
	return fmt.Sprintf("image %s has a guest agent that does not fit: %v: %s", e.Image, e.Err, e.cure())
}

// cure says how to come by an image that fits.
func (e *AgentVersionError) cure() string {
	for _, r := range build.Recipes() {
		if r.Name == e.Image {
			return fmt.Sprintf("destroy the topology, then: falcon image rm %[1]s && falcon image build %[1]s", e.Image)
		}
	}
	return fmt.Sprintf("make an image with an agent of this version: falcon image build NAME --agent-into %s", e.Image)
}

// Unwrap returns what does not fit. To those who can do without an agent, one
// that does not fit is as good as silent.
func (e *AgentVersionError) Unwrap() []error { return []error{e.Err, errAgentSilent} }

// agent returns a client of a node's agent, or nil where its server does not
// serve one.
func (l *lab) agent(np *NodePlan) *agent.Client {
	path := l.folder.File(np.Name + agentExt)
	if !l.folder.Has(np.Name + agentExt) {
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
	a, _, err := l.greet(ctx, np, patience)
	return a, err
}

// ownAgent is answeringAgent for a node that is set up. A guest that has reset
// itself may have lost that.
func (l *lab) ownAgent(ctx context.Context, np *NodePlan, patience time.Duration) (*agent.Client, error) {
	r, err := l.load()
	if err != nil {
		return nil, err
	}
	a, info, err := l.greet(ctx, np, patience)
	if a != nil && identified(np) && !info.Is(machineID(r.IDs[np.Name])) {
		return nil, &UnfinishedError{Node: np.Name, Stage: StageSetup, Cure: l.cure("hyperstart", np.Name)}
	}
	return a, err
}

// greet is answeringAgent, with what the agent says of itself.
func (l *lab) greet(ctx context.Context, np *NodePlan, patience time.Duration) (*agent.Client, agent.Info, error) {
	a := l.agent(np)
	if a == nil {
		return nil, agent.Info{}, nil
	}
	if err := l.works(ctx, np.Name); err != nil {
		return nil, agent.Info{}, err // it would not answer
	}
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	info, err := a.Ping(wait)
	for range maxResets { // the guest has started over, and its agent will be there again
		if !errors.Is(err, agent.ErrGone) || wait.Err() != nil {
			break
		}
		info, err = a.Ping(wait)
	}
	switch {
	case err == nil && agent.Fits(info.Version):
		return a, info, nil
	case err == nil:
		return nil, info, &AgentVersionError{Image: np.Image, Err: &agent.UnknownCallError{Version: info.Version}}
	}
	var foreign *mux.VersionError
	switch {
	case errors.As(err, &foreign):
		return nil, info, &AgentVersionError{Image: np.Image, Err: err}
	case ctx.Err() != nil:
		return nil, info, context.Cause(ctx)
	case wait.Err() != nil:
		return nil, info, fmt.Errorf("%w within %v", errAgentSilent, patience)
	}
	l.log.Info("the guest agent cannot be used", "node", np.Name, "error", err)
	return nil, info, nil
}

// execByAgent runs a command by a guest's agent.
func execByAgent(ctx context.Context, a *agent.Client, cmd execCommand) (ExecResult, error) {
	begun := time.Now()
	collected := &collector{max: console.MaxOutput}
	var stdout io.Writer = collected
	if cmd.Output != nil {
		stdout = cmd.Output
	}
	exit, err := a.Exec(ctx, agent.Command{
		Exec:  agent.Exec{Argv: []string{"sh", "-c", cmd.Shell}, Env: cmd.Env, Dir: cmd.dir, Timeout: cmd.Timeout},
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
// the folder at the path if there is one. Permissions, times, holes and owners
// (by number) are kept; a file appears when it is whole. Paths that are not
// absolute are taken from root's home. The node's image must have a guest agent.
func (n *Node) CopyTo(ctx context.Context, source, target string, progress CopyProgress) error {
	return n.withAgent(ctx, "copying", func(ctx context.Context, a *agent.Client) error {
		return a.CopyTo(ctx, source, target, agent.Progress(progress))
	})
}

// CopyFrom copies a file or folder of the node to the host, as CopyTo does the
// other way, but that owners are kept only when this program is root, and the
// bits setuid and setgid never. What the guest sends cannot be written outside
// of the target.
func (n *Node) CopyFrom(ctx context.Context, source, target string, progress CopyProgress) error {
	return n.withAgent(ctx, "copying", func(ctx context.Context, a *agent.Client) error {
		return a.CopyFrom(ctx, source, target, agent.Progress(progress))
	})
}

// withAgent does what only an agent can do.
func (n *Node) withAgent(ctx context.Context, what string, do func(context.Context, *agent.Client) error) error {
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
		if err := l.unfinished(n.name); err != nil {
			return err
		}
		a, err := l.ownAgent(ctx, np, agentPatience)
		if err != nil {
			return err
		}
		if a == nil {
			return fmt.Errorf("%s needs a guest agent: image %s must have one, as those of falcon image build have, and the agent must run", what, np.Image)
		}
		err = l.whileWorking(ctx, n.name, func(ctx context.Context) error { return do(ctx, a) })
		var unknown *agent.UnknownCallError
		if errors.As(err, &unknown) {
			err = &AgentVersionError{Image: np.Image, Err: err}
		}
		return err
	}()
	if err != nil {
		return &NodeError{Node: n.name, Err: err}
	}
	return nil
}

// WaitReady waits until the guest has booted: its agent answers, and where
// systemd runs the guest, it has started all that belongs to the boot. Launch
// waits for the agent alone. Services of systemd's that have failed are no
// error. The node's image must have a guest agent.
func (n *Node) WaitReady(ctx context.Context) error {
	return n.withAgent(ctx, "waiting for the end of its boot", func(ctx context.Context, a *agent.Client) error {
		var said collector
		said.max = console.MaxOutput
		exit, err := a.Exec(ctx, agent.Command{Exec: agent.Exec{Argv: []string{"sh", "-c", bootedScript}}, Stdout: &said})
		if err == nil && exit.Code() != 0 {
			err = fmt.Errorf("waiting for the end of its boot: exit status %d: %s", exit.Code(), printable.Text(strings.TrimSpace(said.String())))
		}
		return err
	})
}

// bootedScript ends when a guest has booted. What systemctl says of a system
// with failed services has a status of its own.
const bootedScript = `[ ! -d /run/systemd/system ] || case $(systemctl is-system-running --wait) in
running | degraded) ;;
*) systemctl is-system-running; exit 1 ;;
esac`

// Freeze has the guest write out its file systems and not write to them until
// thaw is called, or a time limit of at most a minute has passed: then thaw
// returns an error. The node's image must have a guest agent.
func (n *Node) Freeze(ctx context.Context, limit time.Duration) (thaw func() error, err error) {
	err = n.withAgent(ctx, "freezing its file systems", func(_ context.Context, a *agent.Client) error {
		frozen, err := a.Freeze(ctx, limit)
		if err == nil {
			thaw = frozen.Thaw
		}
		return err
	})
	return thaw, err
}

// stopPatience is how long the agent of a guest that is to be stopped may take
// to answer.
const stopPatience = 3 * time.Second

// powerOff has a guest's agent power it off, and waits. It reports whether the
// guest has ended; where it has not, there is the power button.
func (l *lab) powerOff(ctx context.Context, o state.Object, np *NodePlan) bool {
	if np == nil {
		return false
	}
	a, err := l.answeringAgent(ctx, np, stopPatience)
	if a == nil {
		if err != nil {
			l.log.Info("pressing the power button", "node", np.Name, "error", err)
		}
		return false
	}
	client, err := l.host.client(l.folder, o.Name)
	if err != nil {
		return false
	}
	defer client.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, stopGrace-buttonGrace, fmt.Errorf("it has not powered off within %v", stopGrace-buttonGrace))
	defer cancel()
	if err = a.Power(ctx, agent.PowerOff); err == nil {
		err = client.WaitState(ctx, propolis.StateDestroyed)
	}
	if err != nil {
		l.log.Warn("the guest's agent did not power it off", "node", np.Name, "error", err)
	}
	return err == nil
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
