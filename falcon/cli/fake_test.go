package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/spf13/pflag"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/propolis/softnpu"
)

// fakeLab is a lab without guests. It notes what is asked of it.
type fakeLab struct {
	topology *falcon.Topology

	preflight *falcon.Preflight
	status    *falcon.Status
	dry       []falcon.DryStep
	steps     []falcon.Progress // reported by Launch and Destroy
	err       error             // returned by everything
	nodes     map[string]*fakeNode

	launched launchOptions
	live     bool
	mu       sync.Mutex
	calls    []string
	report   func(falcon.Progress)
}

func (l *fakeLab) note(call string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, call)
	return l.err
}

func (l *fakeLab) OnProgress(report func(falcon.Progress)) { l.report = report }

func (l *fakeLab) Validate(ctx context.Context) error { return l.topology.Validate(ctx) }

func (l *fakeLab) Preflight(context.Context) (*falcon.Preflight, error) {
	return l.preflight, l.note("preflight")
}

func (l *fakeLab) Launch(_ context.Context, o launchOptions) error {
	l.launched = o
	for _, s := range l.steps {
		l.report(s)
	}
	return l.note("launch")
}

func (l *fakeLab) DryRun(context.Context) ([]falcon.DryStep, error) {
	return l.dry, l.note("dry run")
}

func (l *fakeLab) Destroy(context.Context) error {
	for _, s := range l.steps {
		if l.report != nil {
			l.report(s)
		}
	}
	return l.note("destroy")
}

func (l *fakeLab) NetCreate(context.Context) error  { return l.note("netcreate") }
func (l *fakeLab) NetDestroy(context.Context) error { return l.note("netdestroy") }

func (l *fakeLab) Snapshot(_ context.Context, node, image string, live bool) error {
	l.live = live
	return l.note("snapshot " + node + " " + image)
}

func (l *fakeLab) Status(context.Context) (*falcon.Status, error) { return l.status, l.note("status") }

func (l *fakeLab) Node(name string) node {
	if l.topology.Lookup(name) == nil {
		return nil
	}
	n := l.nodes[name]
	if n == nil {
		n = &fakeNode{}
	}
	n.name, n.lab = name, l
	return n
}

type fakeNode struct {
	name    string
	lab     *fakeLab
	result  falcon.ExecResult
	err     error
	options execOptions
	logs    falcon.LogFiles
	console consoleStream
	screen  net.Conn
}

func (n *fakeNode) Name() string { return n.name }

func (n *fakeNode) Exec(_ context.Context, command string, o execOptions) (falcon.ExecResult, error) {
	n.options = o
	if err := n.lab.note("exec " + n.name + " " + command); err != nil {
		return falcon.ExecResult{}, err
	}
	if o.output != nil {
		_, _ = o.output.Write(n.result.Output)
	}
	return n.result, n.err
}

func (n *fakeNode) CopyTo(_ context.Context, source, target string, progress falcon.CopyProgress) error {
	progress(5, 10)
	progress(10, 10)
	return n.do("copy " + source + " to " + target + " of")
}

func (n *fakeNode) CopyFrom(_ context.Context, source, target string, progress falcon.CopyProgress) error {
	progress(10, 10)
	return n.do("copy to " + target + " from " + source + " of")
}

func (n *fakeNode) SoftNPU(context.Context) (*softnpu.Client, error) {
	return nil, errors.Join(n.do("ASIC of"), errors.New("no ASIC"))
}

func (n *fakeNode) Screen(context.Context) (net.Conn, error) { return n.screen, n.do("screen of") }

func (n *fakeNode) do(call string) error { return errors.Join(n.lab.note(call+" "+n.name), n.err) }

func (n *fakeNode) Start(context.Context) error  { return n.do("start") }
func (n *fakeNode) Stop(context.Context) error   { return n.do("stop") }
func (n *fakeNode) Reboot(context.Context) error { return n.do("reboot") }

func (n *fakeNode) Console(context.Context, uint64) (consoleStream, error) {
	return n.console, n.do("console")
}

func (n *fakeNode) Logs() (falcon.LogFiles, error) { return n.logs, n.err }

// testProgram is a ring with a flag for its size and one for its image.
type testProgram struct {
	lab fakeLab
	dir string // of the state folder; a fresh one when empty

	nodes int
	image string
}

func (p *testProgram) app(t *testing.T) *app {
	t.Helper()
	if p.dir == "" {
		p.dir = filepath.Join(t.TempDir(), ".falcon")
	}
	program := Program{
		Name:  "ring",
		Short: "A ring of nodes",
		Flags: func(f *pflag.FlagSet) {
			f.IntVarP(&p.nodes, "nodes", "n", 2, "number of nodes")
			f.StringVar(&p.image, "image", "micro", "base image of the nodes")
		},
		Declare: p.declare,
	}
	return newApp(program, p.dir, func(topo *falcon.Topology) lab {
		p.lab.topology = topo
		return &p.lab
	})
}

func (p *testProgram) declare() (*falcon.Topology, error) {
	if p.nodes < 1 {
		return nil, errors.New("a ring has at least 1 node")
	}
	topo := falcon.New("ring")
	if p.image == "" {
		topo.Node("9lives", "", 0, 0)
	}
	for _, name := range []string{"violin", "piano", "cello", "flute"}[:p.nodes] {
		topo.Node(name, p.image, 1, falcon.MiB(128))
	}
	return topo, nil
}

// outcome is what a command line came to.
type outcome struct {
	status         int
	stdout, stderr string
}

func (p *testProgram) run(t *testing.T, args ...string) outcome {
	t.Helper()
	return p.runContext(t, t.Context(), args...)
}

func (p *testProgram) runContext(t *testing.T, ctx context.Context, args ...string) outcome {
	t.Helper()
	root := p.app(t).root
	var stdout, stderr bytes.Buffer
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	root.SetIn(io.MultiReader())
	status := Execute(ctx, root, args)
	return outcome{status, stdout.String(), stderr.String()}
}

// launchedWith makes the state folder one of a lab launched with flags.
func (p *testProgram) launchedWith(t *testing.T, flags string) {
	t.Helper()
	p.dir = filepath.Join(t.TempDir(), ".falcon")
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	record := `{"version": 1, "topology": "ring", "flags": [` + flags + `], "plan": {"version": 1}}`
	if err := os.WriteFile(filepath.Join(p.dir, "topology.json"), []byte(record), 0o600); err != nil {
		t.Fatal(err)
	}
}
