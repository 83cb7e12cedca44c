package cli

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/propolis/softnpu"
)

// lab is what the commands ask of a topology. Tests have one without guests.
type lab interface {
	// OnProgress has a function called with each step of what follows.
	OnProgress(func(falcon.Progress))
	Validate(context.Context) error
	Preflight(context.Context) (*falcon.Preflight, error)
	Launch(context.Context, launchOptions) error
	DryRun(context.Context) ([]falcon.DryStep, error)
	Destroy(context.Context) error
	NetCreate(context.Context) error
	NetDestroy(context.Context) error
	Snapshot(ctx context.Context, node, image string, live bool) error
	Status(context.Context) (*falcon.Status, error)
	// Node returns a node by its name, nil when there is none.
	Node(name string) node
}

type launchOptions struct {
	keep, cold   bool
	loginTimeout time.Duration // the library's when 0
}

// node is what the commands ask of a node.
type node interface {
	Name() string
	Exec(context.Context, string, execOptions) (falcon.ExecResult, error)
	// Start starts the node, Stop ends its guest in order.
	Start(context.Context) error
	Stop(context.Context) error
	Reboot(context.Context) error
	// Console opens the console, with at most recent bytes of its past.
	Console(ctx context.Context, recent uint64) (consoleStream, error)
	Logs() (falcon.LogFiles, error)
	// CopyTo and CopyFrom copy a file or folder to and from the node.
	CopyTo(ctx context.Context, source, target string, progress falcon.CopyProgress) error
	CopyFrom(ctx context.Context, source, target string, progress falcon.CopyProgress) error
	// Screen connects to the node's screen, by VNC.
	Screen(context.Context) (net.Conn, error)
	// SoftNPU opens the management channel of the node's ASIC.
	SoftNPU(context.Context) (*softnpu.Client, error)
}

// consoleStream is a console as bytes.
type consoleStream interface {
	io.ReadWriteCloser
	SetWriteDeadline(time.Time) error
}

type execOptions struct {
	timeout time.Duration // none when 0
	output  io.Writer     // nil to collect
	stderr  io.Writer     // nil to have it with the output
	input   io.Reader     // nil for none
	env     []string      // NAME=value
	dir     string        // root's home when empty
}

// openTopology returns the lab of a real topology.
func openTopology(t *falcon.Topology) lab { return topology{t} }

type topology struct{ *falcon.Topology }

func (t topology) OnProgress(f func(falcon.Progress)) { t.Progress = f }

func (t topology) Launch(ctx context.Context, o launchOptions) error {
	var opts []falcon.LaunchOption
	if o.keep {
		opts = append(opts, falcon.Keep())
	}
	if o.cold {
		opts = append(opts, falcon.Cold())
	}
	if o.loginTimeout > 0 {
		opts = append(opts, falcon.LoginTimeout(o.loginTimeout))
	}
	return t.Topology.Launch(ctx, opts...)
}

func (t topology) Snapshot(ctx context.Context, node, image string, live bool) error {
	return t.Topology.Snapshot(ctx, node, image, falcon.SnapshotOptions{Live: live})
}

func (t topology) Node(name string) node {
	n := t.Lookup(name)
	if n == nil {
		return nil
	}
	return machine{n}
}

type machine struct{ *falcon.Node }

func (m machine) Start(ctx context.Context) error { return m.Node.Start(ctx) }

func (m machine) Console(ctx context.Context, recent uint64) (consoleStream, error) {
	stream, err := m.Serial(ctx, recent)
	if err != nil {
		return nil, err // and not a nil stream in an interface
	}
	return stream, nil
}

func (m machine) Exec(ctx context.Context, command string, o execOptions) (falcon.ExecResult, error) {
	var opts []falcon.ExecOption
	if o.timeout > 0 {
		opts = append(opts, falcon.WithTimeout(o.timeout))
	}
	if o.output != nil {
		opts = append(opts, falcon.WithOutput(o.output))
	}
	if o.stderr != nil {
		opts = append(opts, falcon.WithStderr(o.stderr))
	}
	if o.input != nil {
		opts = append(opts, falcon.WithInput(o.input))
	}
	if o.dir != "" {
		opts = append(opts, falcon.WithDir(o.dir))
	}
	opts = append(opts, falcon.WithEnv(o.env...))
	return m.Node.Exec(ctx, command, opts...)
}
