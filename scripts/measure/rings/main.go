// Rings is the topology that scripts/bench measures: nodes in a ring, or a single
// one without a link.
package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/falcon/cli"
)

var (
	count  int
	image  string
	memory uint64
	boot   bool
)

func main() {
	cli.Program{
		Name:  "rings",
		Short: "A ring of nodes",
		Flags: func(f *pflag.FlagSet) {
			f.IntVarP(&count, "nodes", "n", 1, "number of nodes")
			f.StringVar(&image, "image", "micro", "base image of the nodes")
			f.Uint64Var(&memory, "memory", 128, "memory of each node in `MiB`")
			f.BoolVar(&boot, "boot", false, "boot the nodes, in place of making them clones")
		},
		Declare: declare,
	}.Main()
}

func declare() (*falcon.Topology, error) {
	if count < 1 {
		return nil, fmt.Errorf("a ring has at least 1 node, not %d", count)
	}
	topo := falcon.New("ring")
	var nodes []*falcon.Node
	for i := range count {
		n := topo.Node(fmt.Sprintf("n%d", i), image, 1, falcon.MiB(memory))
		if boot {
			n.Cold()
		}
		nodes = append(nodes, n)
	}
	if count == 1 {
		return topo, nil
	}
	for i, n := range nodes {
		topo.Link(n, nodes[(i+1)%count])
	}
	return topo, nil
}
