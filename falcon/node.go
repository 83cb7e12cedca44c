package falcon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/console"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
	"github.com/falcon-vm/falcon-go/internal/agent"
	"github.com/falcon-vm/falcon-go/propolis"
)

// DefaultExecTimeout bounds a command in a guest that has no other bound.
const DefaultExecTimeout = 10 * time.Minute

// stopGrace is how long a guest may take to power off when it is stopped, whatever
// is tried. A
// Debian guest under TCG has been seen to need eight seconds.
const stopGrace = 20 * time.Second

// flushTimeout bounds the writing out of a guest's file systems before it is
// stopped, getting hold of its console included.
const flushTimeout = 15 * time.Second

// ExecResult is what a command in a guest came to.
type ExecResult struct {
	// Output is what it wrote to stdout and stderr, less what was streamed.
	Output []byte `json:"output"`
	// Status is its exit status, 128 and the signal's number when a signal
	// ended it.
	Status   int           `json:"status"`
	Duration time.Duration `json:"duration"`
}

// ExecOption changes how a command is run.
type ExecOption func(*execCommand)

// execCommand is a command to run, by the agent or through the console.
type execCommand struct {
	console.Command
	dir    string
	stderr io.Writer
	input  io.Reader
}

// WithTimeout bounds the command, DefaultExecTimeout without it. A command
// that takes longer is interrupted.
func WithTimeout(d time.Duration) ExecOption {
	return func(c *execCommand) { c.Timeout = d }
}

// WithOutput streams the output to w as it comes, instead of collecting it.
func WithOutput(w io.Writer) ExecOption {
	return func(c *execCommand) { c.Output = w }
}

// WithStderr streams what the command writes to stderr to w. Through a console,
// which does not tell one from the other, all is output.
func WithStderr(w io.Writer) ExecOption {
	return func(c *execCommand) { c.stderr = w }
}

// WithInput gives the command an input, which is empty without. Only a guest
// agent can do that. When the command ends before its input, a Read of r may
// still be under way.
func WithInput(r io.Reader) ExecOption {
	return func(c *execCommand) { c.input = r }
}

// WithEnv adds variables, each as NAME=value, to the command's environment.
func WithEnv(variables ...string) ExecOption {
	return func(c *execCommand) { c.Env = append(c.Env, variables...) }
}

// WithDir runs the command in a folder of the guest, in place of root's home. It
// is an error if there is none.
func WithDir(dir string) ExecOption {
	return func(c *execCommand) { c.dir = dir }
}

// Exec runs a shell command as root in the guest and waits for it. An exit
// status other than 0 is no error. A command that takes too long is ended, with
// all of its process group. So is one whose context ends, after it was
// interrupted as by Ctrl-C and has had two seconds to heed that; its status is
// then in the result beside the error. The same becomes of a command whose
// program has gone: nothing runs on in the guest but what has left its process
// group (setsid), or was in the background of a command that ended by itself.
//
// Where the image has a guest agent it is the agent who runs the command, beside
// any number of others. Elsewhere it is run through the console: there commands
// for one node run one after the other, whoever sends them.
func (n *Node) Exec(ctx context.Context, command string, opts ...ExecOption) (ExecResult, error) {
	l, err := n.topology.open()
	if err != nil {
		return ExecResult{}, err
	}
	cmd := execCommand{Command: console.Command{Shell: command, Timeout: DefaultExecTimeout}}
	for _, opt := range opts {
		opt(&cmd)
	}
	var r ExecResult
	if err = l.unfinished(n.name); err == nil {
		r, err = l.exec(ctx, n.name, cmd)
	}
	if err != nil {
		return r, &NodeError{Node: n.name, Err: err}
	}
	return r, nil
}

// exec runs a command by the node's agent, or else through its console.
func (l *lab) exec(ctx context.Context, node string, cmd execCommand) (ExecResult, error) {
	r, err := l.load()
	if err != nil {
		return ExecResult{}, err
	}
	if np := r.Plan.Node(node); np != nil {
		begun, patience, asked := time.Now(), agentPatience, cmd.Timeout
		if cmd.Timeout > 0 { // the rest is for the console
			patience = min(patience, cmd.Timeout/2)
		}
		a, err := l.ownAgent(ctx, np, patience)
		if cmd.Timeout > 0 {
			cmd.Timeout = max(cmd.Timeout-time.Since(begun), time.Millisecond)
		}
		switch {
		case a != nil:
			var r ExecResult
			err := l.whileWorking(ctx, node, func(ctx context.Context) (err error) {
				r, err = execByAgent(ctx, a, cmd)
				return err
			})
			if late := (*agent.TimeoutError)(nil); errors.As(err, &late) {
				late.After = asked // of which reaching the agent was a part
			}
			return r, err
		case err != nil && !errors.Is(err, errAgentSilent):
			return ExecResult{}, err
		case err != nil:
			l.log.Warn("using the console", "node", node, "error", err)
		}
	}
	return l.execByConsole(ctx, node, cmd)
}

// execByConsole runs a command through the node's console.
func (l *lab) execByConsole(ctx context.Context, node string, cmd execCommand) (ExecResult, error) {
	np, client, err := l.connect(ctx, node)
	if err != nil {
		return ExecResult{}, err
	}
	defer client.Close()
	if !np.Console.Known {
		return ExecResult{}, fmt.Errorf("image %s has no login that falcon knows, so nothing can be run in it: use serial, or import it again with --user, and --password, --login, --prompt where its console needs them", np.Image)
	}
	if cmd.input != nil {
		return ExecResult{}, fmt.Errorf("a console cannot give a command an input: image %s needs a guest agent for that", np.Image)
	}
	if err := l.works(ctx, node); err != nil {
		return ExecResult{}, err
	}
	unlock, err := l.folder.LockFile(ctx, node+consoleExt, "exec", nil)
	if err != nil {
		return ExecResult{}, err
	}
	defer unlock()
	recent := uint64(consoleRecall)
	stream, err := client.Serial(ctx, propolis.SerialOptions{MostRecent: &recent})
	if err != nil {
		return ExecResult{}, fmt.Errorf("opening the console: %w", err)
	}
	c := console.New(stream, console.Options{Name: node})
	defer c.Close()
	profile, err := consoleProfile(np)
	if err != nil {
		return ExecResult{}, err
	}
	cmd.Login = &profile
	if cmd.dir != "" {
		cmd.Shell = fmt.Sprintf("cd %s || exit %d\n%s", shellQuote(cmd.dir), noDirStatus, cmd.Shell)
	}
	var r console.Result
	err = l.whileWorking(ctx, node, func(ctx context.Context) (err error) {
		r, err = c.Exec(ctx, cmd.Command)
		return err
	})
	return ExecResult{Output: r.Output, Status: r.Status, Duration: r.Duration}, err
}

// noDirStatus is the exit status of a command whose folder is not there, where
// the guest's shell finds that out.
const noDirStatus = 125

// consoleRecall is how much of the console's past an exec looks at, in bytes,
// to find out whether somebody is logged in.
const consoleRecall = 1024

// connect returns a client of a node that runs.
func (l *lab) connect(ctx context.Context, node string) (*NodePlan, *propolis.Client, error) {
	r, err := l.load()
	if err != nil {
		return nil, nil, err
	}
	np := r.Plan.Node(node)
	if np == nil {
		return nil, nil, fmt.Errorf("it is declared and not launched: launch the topology again to add it")
	}
	o, err := l.server(node)
	if err != nil {
		return nil, nil, err
	}
	if s, err := l.instanceState(ctx, o); err != nil {
		return nil, nil, fmt.Errorf("%w%s; start it with: %s", err, l.lastWords(node), l.cure("hyperstart", node))
	} else if s.Terminal() {
		return nil, nil, fmt.Errorf("it does not run (%s)%s; start it with: %s", s, l.lastWords(node), l.cure("hyperstart", node))
	}
	client, err := l.host.client(l.folder, node)
	return np, client, err
}

// server returns the server of a node.
func (l *lab) server(node string) (state.Object, error) {
	written, _ := l.folder.Standing() // what is wrong with it does not matter to one that runs
	for _, o := range written {
		if o.Kind == state.Server && o.Name == node && o.Process != nil && o.Process.Alive() {
			return o, nil
		}
	}
	servers, err := l.servers()
	if err != nil {
		return state.Object{}, err
	}
	if o, ok := servers[node]; ok {
		return o, nil
	}
	return state.Object{}, fmt.Errorf("it is stopped; start it with: %s", l.cure("hyperstart", node))
}

// Serial opens the guest's console, starting with at most recent bytes of what
// it has said. The caller closes it.
func (n *Node) Serial(ctx context.Context, recent uint64) (*propolis.SerialConn, error) {
	l, err := n.topology.open()
	if err != nil {
		return nil, err
	}
	_, client, err := l.connect(ctx, n.name)
	if err != nil {
		return nil, &NodeError{Node: n.name, Err: err}
	}
	stream, err := client.Serial(ctx, propolis.SerialOptions{MostRecent: &recent})
	if err != nil {
		return nil, &NodeError{Node: n.name, Err: fmt.Errorf("opening the console: %w", err)}
	}
	return stream, nil
}

// LogFiles are the files with what was said about a node.
type LogFiles struct {
	// Server is the log of its server, JSON lines in bunyan's form.
	Server string `json:"server"`
	// Stderr is what server and hypervisor wrote to stderr.
	Stderr string `json:"stderr"`
}

// Logs returns the paths of the node's log files.
func (n *Node) Logs() (LogFiles, error) {
	l, err := n.topology.open()
	if err != nil {
		return LogFiles{}, err
	}
	return LogFiles{Server: l.folder.File(n.name + outExt), Stderr: l.folder.File(n.name + errExt)}, nil
}

// Start starts a node that is stopped or failed, on its own disk, and makes
// the links that are missing: also after a restart of the host. A node that
// runs is left alone, but that one that stands still goes on, and one whose kernel
// has panicked is started anew.
func (n *Node) Start(ctx context.Context, opts ...LaunchOption) error {
	o := launchOptions{loginTimeout: DefaultLoginTimeout}
	for _, opt := range opts {
		opt(&o)
	}
	return n.do(ctx, "hyperstart", func(ctx context.Context, l *lab, r *record) error {
		np := r.Plan.Node(n.name)
		if np == nil {
			return errors.New("it is declared and not launched: launch the topology again to add it")
		}
		if err := l.settleDisk(ctx, n.name); err != nil {
			return err
		}
		s := nodeStart{id: r.IDs[n.name], cold: usedDisk, loginTimeout: o.loginTimeout}
		server, err := l.server(n.name)
		runs := err == nil && l.runs(ctx, server)
		if runs {
			// Not under the journal, for which a full disk has no room.
			if runs, err = l.goOn(ctx, n.name); err != nil {
				return err
			}
			if runs && l.isSetUp(ctx, np, s.id) {
				l.stage(n.name, StageRunning, "it runs already")
				return nil
			}
		}
		return l.transact(ctx, r, o.keep, func(tx *transaction) error {
			if runs {
				return l.finishNode(ctx, tx, np, s)
			}
			if !l.host.store().HasDisk(ctx, l.owner(n.name), np.Backing) {
				return fmt.Errorf("its disk %s is gone: destroy the topology and launch it again", np.Disk)
			}
			if err := l.host.store().VerifyDisk(ctx, l.owner(n.name)); err != nil {
				return err
			}
			if err := l.restoreLinks(ctx, tx, r.Plan); err != nil {
				return err
			}
			return l.startNode(ctx, tx, np, s)
		})
	})
}

// restoreLinks makes the links that are missing. Nodes that are started at
// once do it one after the other, and none takes them away again when it fails:
// they are the others' too.
func (l *lab) restoreLinks(ctx context.Context, tx *transaction, p *Plan) error {
	unlock, err := l.folder.LockFile(ctx, linksLock, "making links", nil)
	if err != nil {
		return err
	}
	defer unlock()
	return l.makeLinks(ctx, p, tx.restore)
}

// Stop ends the guest in order: by its agent where it has one, else as if its
// power button were pressed, and by force when it has not ended 20 seconds after
// Stop was called. Where falcon can log in to a guest without an agent, its
// file systems have been written out before. Its disk and links stay. A node that
// is stopped is left alone.
func (n *Node) Stop(ctx context.Context) error {
	l, err := n.topology.open()
	if err != nil {
		return err
	}
	if _, err := l.load(); err != nil {
		return err
	}
	r, unlock, err := l.lockToStop(ctx, n.name)
	if err == nil {
		defer unlock()
		err = l.stop(ctx, n.name, r.Plan.Node(n.name))
	}
	if err != nil {
		return &NodeError{Node: n.name, Err: err}
	}
	return nil
}

// lockPatience is how long a node that is to be stopped may be worked on by
// others before its guest is stopped in their hands.
const lockPatience = 5 * time.Second

// lockToStop is lockNode for a node that is to be stopped. Who holds it, such as a
// snapshot, may wait for a guest that hangs: then the guest is stopped first, which
// ends that. One who starts or stops the node is waited for.
func (l *lab) lockToStop(ctx context.Context, node string) (*record, func(), error) {
	purpose := "hyperstop " + node
	brief, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	r, unlock, err := l.lockNode(brief, node, purpose)
	if err == nil || ctx.Err() != nil || brief.Err() == nil {
		return r, unlock, err
	}
	holder, held := l.folder.Locked(node + lockExt)
	if !held || strings.HasPrefix(holder, "hyperst") {
		return l.lockNode(ctx, node, purpose)
	}
	l.log.Warn("the guest is stopped although somebody works on the node", "node", node, "holder", holder)
	if r, err = l.load(); err != nil {
		return nil, nil, err
	}
	if o, err := l.server(node); err == nil {
		l.stopGuest(ctx, o, r.Plan.Node(node))
	}
	brief, cancel = context.WithTimeout(ctx, lockPatience)
	defer cancel()
	return l.lockNode(brief, node, purpose)
}

// stop stops the guest of a node and ends its server. The caller has the lock.
func (l *lab) stop(ctx context.Context, node string, np *NodePlan) error {
	o, err := l.server(node)
	if err != nil {
		return nil // stopped already
	}
	grace := endGrace
	if !l.stopGuest(ctx, o, np) {
		grace = forceGrace
	}
	j, err := l.folder.Journal()
	if err != nil {
		return err
	}
	defer j.Close()
	if err := l.endServer(ctx, o, false, grace); err != nil {
		return err
	}
	l.stage(node, StageStopped, "")
	return j.Gone(o)
}

// buttonGrace is how long of the stopGrace a guest has at least after its power
// button was pressed.
const buttonGrace = 8 * time.Second

// forceGrace is how long the server of a guest that did not end in time may take
// to end its hypervisor, which may hang as well.
const forceGrace = time.Second

// stopGuest has a guest end within the stopGrace. What it does not do by then is
// done by force, by who ends its server: it returns false.
func (l *lab) stopGuest(ctx context.Context, o state.Object, np *NodePlan) bool {
	begun := time.Now()
	in, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	if l.runs(in, o) && !l.powerOff(in, o, np) { // not every system heeds the power button
		if left := stopGrace - buttonGrace - time.Since(begun); left > 0 {
			flush, cancel := context.WithTimeout(in, left)
			l.flush(flush, np, l.execByConsole)
			cancel()
		}
	}
	err := l.halt(in, o)
	switch {
	case ctx.Err() == nil && (in.Err() != nil || err == nil && time.Since(begun) >= stopGrace):
		l.log.Warn("the guest did not heed its power button and was stopped by force", "node", o.Name, "waited", stopGrace)
		return false
	case err != nil:
		l.log.Warn("the guest did not stop in order", "node", o.Name, "error", err)
	}
	return true
}

// flush has the guest write out its file systems, where falcon can log in to it.
func (l *lab) flush(ctx context.Context, np *NodePlan, exec func(context.Context, string, execCommand) (ExecResult, error)) {
	if np == nil || !np.Setup {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if _, err := exec(ctx, np.Name, execCommand{Command: console.Command{Shell: "sync", Direct: true, Timeout: flushTimeout}}); err != nil {
		l.log.Warn("the guest's file systems could not be written out", "node", np.Name, "error", err)
	}
}

// halt asks the server of a node to stop the guest, and waits.
func (l *lab) halt(ctx context.Context, o state.Object) error {
	s, err := l.instanceState(ctx, o)
	if err != nil || s.Terminal() {
		return err
	}
	client, err := l.host.client(l.folder, o.Name)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.SetState(ctx, propolis.RequestStop); err != nil {
		return err
	}
	return client.WaitState(ctx, propolis.StateDestroyed)
}

// Reboot resets the guest, after its file systems have been written out where
// falcon can log in to it, and sets it up again. A node that stands still is
// refused: what it could not write yet would be lost.
func (n *Node) Reboot(ctx context.Context) error {
	return n.do(ctx, "reboot", func(ctx context.Context, l *lab, r *record) error {
		np, client, err := l.connect(ctx, n.name)
		if err != nil {
			return err
		}
		defer client.Close()
		if err := l.standsStill(ctx, n.name); err != nil {
			return err
		}
		l.flush(ctx, np, l.exec)
		if err := l.standsStill(ctx, n.name); err != nil { // what was flushed may have filled the disk
			return err
		}
		return l.reset(ctx, client, np, r.IDs[n.name])
	})
}

// reset resets a machine and sets the guest up again.
func (l *lab) reset(ctx context.Context, client *propolis.Client, np *NodePlan, id string) error {
	if err := l.noteStage(np.Name, StageBoot); err != nil {
		return err
	}
	if err := resetMachine(ctx, client); err != nil {
		return fmt.Errorf("resetting the machine: %w%s", err, l.lastWords(np.Name))
	}
	// A prompt from before the reset must not be taken for one of the new run.
	h, err := client.History(ctx, propolis.HistoryRequest{MostRecent: new(uint64)})
	if err != nil {
		return fmt.Errorf("reading the console: %w", err)
	}
	begun := time.Now()
	err = l.watched(ctx, client, np.Name, begun, func(ctx context.Context) error {
		return l.setUp(ctx, client, np, id, h.LastByteOffset, DefaultLoginTimeout)
	})
	if err != nil {
		return err
	}
	l.stage(np.Name, StageReady, "")
	return l.noteStage(np.Name, StageReady)
}

// resetMachine resets a machine and waits until it runs anew.
func resetMachine(ctx context.Context, client *propolis.Client) error {
	ctx, cancel := context.WithTimeoutCause(ctx, serverDeadline, fmt.Errorf("its server did not reset it within %v", serverDeadline))
	defer cancel()
	s, err := client.Monitor(ctx, 0)
	if err != nil {
		return err
	}
	if err := client.SetState(ctx, propolis.RequestReboot); err != nil {
		return err
	}
	for {
		if s, err = client.Monitor(ctx, s.Gen+1); err != nil {
			return err
		}
		switch {
		case s.State == propolis.StateRunning:
			return nil
		case s.State.Terminal():
			return fmt.Errorf("it ended (%s)", s.State)
		}
	}
}

// do runs a command on a node of a launched topology under the node's lock.
func (n *Node) do(ctx context.Context, purpose string, f func(context.Context, *lab, *record) error) error {
	l, err := n.topology.open()
	if err != nil {
		return err
	}
	r, unlock, err := l.lockNode(ctx, n.name, purpose+" "+n.name)
	if err != nil {
		return err
	}
	defer unlock()
	if err := f(ctx, l, r); err != nil {
		return &NodeError{Node: n.name, Err: err}
	}
	return nil
}
