// Rings is the topology that scripts/bench measures: nodes in a ring, a single one
// without a link, or nodes on the front ports of one more, whose ASIC joins them.
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

	asic, program string
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
			f.StringVar(&asic, "asic", "", "join the nodes by the ASIC of a node of this `name` and not in a ring")
			f.StringVar(&program, "program", "", "P4 source of the ASIC, in place of its built-in program")
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
	if asic != "" {
		s := topo.Node(asic, image, 1, falcon.MiB(memory))
		if program != "" {
			s.SoftNPUProgram(program)
		}
		for _, n := range nodes {
			topo.SoftNPULink(s, n)
		}
		return topo, nil
	}
	if count == 1 {
		return topo, nil
	}
	for i, n := range nodes {
		topo.Link(n, nodes[(i+1)%count])
	}
	return topo, nil
}
