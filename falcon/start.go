package falcon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/process"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
	"github.com/falcon-vm/falcon-go/internal/printable"
	"github.com/falcon-vm/falcon-go/propolis"
)

// Extensions of a node's files in the state folder.
const (
	uuidExt    = ".uuid"       // the instance's UUID
	pidExt     = ".pid"        // the server's process
	vmmPIDExt  = ".qemu.pid"   // the hypervisor's process
	varsExt    = ".qemu.vars"  // what UEFI firmware remembers
	socketExt  = ".sock"       // the server's API
	agentExt   = ".agent.sock" // the guest agent
	asicExt    = ".npu.sock"   // the ASIC's management channel
	vncExt     = ".vnc.sock"   // the screen
	portExt    = ".port"       // the server's API where it is a TCP port
	outExt     = ".out"        // the server's log
	errExt     = ".err"        // what server and hypervisor said on stderr
	consoleExt = ".console"    // lock of the console
	lockExt    = ".lock"       // lock of the node
	startExt   = ".start"      // how it was started
	halfExt    = ".tmp"        // after another one: what the server has not written yet
)

// linksLock is the lock of the links. No file of a node has that name.
const linksLock = "lock.links"

// serverDeadline bounds each request to a node's server: on a busy host QEMU
// has been seen to need seconds to start.
const serverDeadline = time.Minute

// endGrace is how long a node's server may take to end its hypervisor and
// itself; measured under load: below 100 ms.
const endGrace = 5 * time.Second

// nodeStart says how a node is to be started.
type nodeStart struct {
	id string
	// template is what the node is a clone of; it is nil for a node that
	// boots, and cold says why it does.
	template     *image.Template
	cold         string
	loginTimeout time.Duration
}

// startNode starts a node and waits until it is ready.
func (l *lab) startNode(ctx context.Context, tx *transaction, np *NodePlan, s nodeStart) error {
	err := l.startOnce(ctx, tx, np, s)
	if s.template == nil || !errors.Is(err, errNotCloned) || ctx.Err() != nil {
		return err
	}
	// Its disk is that of a guest that was cut off, which can boot.
	l.log.Warn("the node boots instead", "node", np.Name, "error", err)
	if store, _, why := l.templates(); why == "" {
		if derr := store.DistrustTemplate(ctx, s.template.Name); derr != nil {
			l.log.Warn("the template cannot be taken out of use", "folder", s.template.Dir, "error", derr)
		}
	}
	s.template, s.cold = nil, err.Error()
	return l.startOnce(ctx, tx, np, s)
}

func (l *lab) startOnce(ctx context.Context, tx *transaction, np *NodePlan, s nodeStart) error {
	l.stages.forget(np.Name)
	l.stage(np.Name, StageStart, "")
	o := state.Object{Kind: state.Server, Name: np.Name}
	var server nodeServer
	if err := l.endStanding(ctx, tx.journal, np.Name); err != nil {
		return err
	}
	// From here on until it is ready, a node that runs is not to be used.
	if err := l.noteStart(np.Name, s.cold, StageStart); err != nil {
		return err
	}
	serve := serveOptions{id: s.id}
	if s.template != nil {
		serve.template = s.template.Dir
	}
	err := tx.make(o, func() (err error) {
		server, err = l.host.serve(ctx, l, np, serve, func(p process.Identity) error {
			o.Process = &p
			return tx.journal.Make(o)
		})
		return err
	})
	if err != nil {
		return err
	}
	err = l.attend(ctx, server, np, s, func(ctx context.Context, client *propolis.Client) error {
		if s.template != nil {
			return errors.Join(l.noteStage(np.Name, StageSetup), l.setUpClone(ctx, np, s.id))
		}
		if err := l.noteStage(np.Name, StageBoot); err != nil {
			return err
		}
		return l.setUp(ctx, client, np, s.id, 0, s.loginTimeout)
	})
	if err != nil {
		return err
	}
	l.stage(np.Name, StageReady, "")
	return l.noteStart(np.Name, s.cold, StageReady)
}

// endStanding ends the server that an earlier start of the node has left, whether
// the journal still knows of it or not.
func (l *lab) endStanding(ctx context.Context, j *state.Journal, node string) error {
	o, stands := j.Find(state.Server, node)
	if !l.fresh && (!stands || o.Process == nil) {
		servers, err := l.servers()
		if err != nil {
			return err
		}
		o, stands = servers[node]
	}
	if !stands {
		return nil
	}
	if err := l.endServer(ctx, o, false, endGrace); err != nil {
		return err
	}
	return j.Gone(o)
}

// attend has a fresh server create and run the instance, and then does what is
// to be done with it. It fails at once when the server or the instance dies.
func (l *lab) attend(ctx context.Context, server nodeServer, np *NodePlan, s nodeStart, do func(context.Context, *propolis.Client) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-server.Done():
			cancel(fmt.Errorf("its propolis-server ended (%w)%s", errors.Join(server.Err()), l.lastWords(np.Name)))
		case <-ctx.Done():
		}
	}()
	client, err := l.host.client(l.folder, np.Name)
	if err != nil {
		return err
	}
	defer client.Close()
	err = l.runInstance(ctx, client, np, s)
	if err == nil {
		err = l.watched(ctx, client, np.Name, time.Time{}, func(ctx context.Context) error { return do(ctx, client) })
	}
	if err != nil && brokenOff(err) { // its server is about to end, and then its last words say why
		select {
		case <-ctx.Done():
		case <-time.After(endGrace):
		}
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// brokenOff reports whether a server did not answer, but broke the connection off.
func brokenOff(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op) && !op.Timeout()
}

// errNotCloned says that a machine could not be made of its template.
var errNotCloned = errors.New("it cannot be a clone of its template")

func (l *lab) runInstance(ctx context.Context, client *propolis.Client, np *NodePlan, s nodeStart) error {
	ctx, cancel := context.WithTimeoutCause(ctx, serverDeadline, fmt.Errorf("its server did not start the machine within %v", serverDeadline))
	defer cancel()
	err := client.Ensure(ctx, ensureRequest(np, s.id))
	if err != nil {
		err = fmt.Errorf("creating the machine: %w%s", serverFault(err), l.lastWords(np.Name))
		if s.template != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w: %w", errNotCloned, err)
		}
		return err
	}
	if np.Program != "" {
		if err := l.loadProgram(ctx, np); err != nil {
			return err
		}
	}
	if err := client.SetState(ctx, propolis.RequestRun); err != nil {
		return fmt.Errorf("starting the machine: %w", err)
	}
	if err := client.WaitState(ctx, propolis.StateRunning); err != nil {
		return fmt.Errorf("starting the machine: %w%s", err, l.lastWords(np.Name))
	}
	return nil
}

// ensureRequest is what has a server make a node's machine.
func ensureRequest(np *NodePlan, id string) propolis.InstanceEnsureRequest {
	return propolis.InstanceEnsureRequest{
		Properties: propolis.InstanceProperties{
			ID: id, Name: np.Name, Description: "a falcon vm",
			Metadata: propolis.InstanceMetadata{
				SiloID: propolis.NilUUID, ProjectID: propolis.NilUUID, SledID: propolis.NilUUID,
				SledSerial: "falcon", SledModel: "falcon",
			},
		},
		Spec: np.Spec,
	}
}

// watch returns an error when the instance ends, nil when ctx does.
func (l *lab) watch(ctx context.Context, client *propolis.Client, node string) error {
	var gen uint64
	for {
		s, err := client.Monitor(ctx, gen)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("watching the machine: %w", err)
		case s.State.Terminal():
			return fmt.Errorf("the machine ended while it was being set up (%s)%s", s.State, l.lastWords(node))
		}
		gen = s.Gen + 1
	}
}

// runs reports whether the instance of a recorded server is alive and has not
// ended.
func (l *lab) runs(ctx context.Context, o state.Object) bool {
	s, _ := l.instanceState(ctx, o)
	return s != "" && !s.Terminal()
}

// instanceState asks the server of a node; the error says why there is no
// answer.
func (l *lab) instanceState(ctx context.Context, o state.Object) (propolis.InstanceState, error) {
	if o.Process == nil || !o.Process.Alive() {
		return "", errServerGone
	}
	client, err := l.host.client(l.folder, o.Name)
	if err != nil {
		return "", err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, statusDeadline)
	defer cancel()
	instance, err := client.Instance(ctx)
	if err != nil {
		return "", err
	}
	return instance.State, nil
}

// errServerGone says that the process that ran a node is not there.
var errServerGone = errors.New("its propolis-server has gone: killed, or the host was restarted")

// statusDeadline bounds a question for the state of one instance.
const statusDeadline = 5 * time.Second

// lastWords returns the end of what a node's server and hypervisor said on
// stderr, ready to be appended to an error.
func (l *lab) lastWords(node string) string {
	words, err := tail(l.folder, node+errExt, 2048)
	if words = strings.TrimSpace(words); err != nil || words == "" {
		return ""
	}
	lines := strings.Split(words, "\n")
	if len(lines) > 5 {
		lines = lines[len(lines)-5:]
	}
	return "; its last words: " + printable.Text(strings.Join(lines, "\n  "))
}

// tail returns at most n bytes from the end of a file of a folder.
func tail(folder *state.Folder, name string, n int64) (string, error) {
	f, err := folder.OpenFile(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	from := max(info.Size()-n, 0)
	data, err := io.ReadAll(io.NewSectionReader(f, from, n))
	if from > 0 {
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	return string(data), err
}

// vmmPID returns the process number of a node's hypervisor, 0 when there is
// none.
func vmmPID(f *state.Folder, node string) int {
	data, err := f.ReadFile(node + vmmPIDExt)
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return pid
}
