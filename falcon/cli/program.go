package cli

import (
	"context"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/falcon-vm/falcon-go/falcon"
)

// Program is a topology program whose topology depends on flags of its own.
type Program struct {
	// Name is what the program is called in its help; the name of its file
	// when empty.
	Name string
	// Short says in a line what the topology is.
	Short string
	// Flags declares the topology's flags; nil for none. They may stand
	// before and after the command's name. Names that falcon's own flags
	// have are refused. A flag called "image" completes names of images.
	Flags func(*pflag.FlagSet)
	// Declare declares the topology. It is called once, when the flags have
	// their values. An error says that they make no topology.
	Declare func() (*falcon.Topology, error)
}

// Main runs the program's command line and ends the process with its status.
func (p Program) Main() { Run(p.Command()) }

// Command returns the program's command tree. Commands that are added to it
// find the topology with [Topology].
func (p Program) Command() *cobra.Command {
	return newApp(p, falcon.DefaultDir, openTopology).root
}

// Main runs the command line of a topology and ends the process with its
// status. The topology is made persistent: it outlives the program.
func Main(topo *falcon.Topology) { Run(Command(topo)) }

// Command returns the command tree of a topology, for a program to add commands
// of its own and to [Run] it.
func Command(topo *falcon.Topology) *cobra.Command {
	dir := topo.Dir
	if dir == "" {
		dir = falcon.DefaultDir
	}
	p := Program{
		Name:    topo.Name(),
		Declare: func() (*falcon.Topology, error) { return topo, nil },
	}
	return newApp(p, dir, openTopology).root
}

type topologyKey struct{}

// Topology returns the topology that a running command works on, for commands
// of a [Program]'s own.
func Topology(cmd *cobra.Command) *falcon.Topology {
	ctx := cmd.Context()
	if ctx == nil {
		return nil
	}
	topo, _ := ctx.Value(topologyKey{}).(*falcon.Topology)
	return topo
}

func withTopology(cmd *cobra.Command, topo *falcon.Topology) {
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	cmd.SetContext(context.WithValue(ctx, topologyKey{}, topo))
}

// programName is the name of the running program's file.
func programName() string { return filepath.Base(os.Args[0]) }
