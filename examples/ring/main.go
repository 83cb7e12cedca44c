// Ring is a ring of nodes, as many as you like.
//
//	go build ./examples/ring
//	./ring -n 8 launch
//	./ring info                 # -n is remembered until destroy; this says what leads where
//	./ring exec n0 ip link
//	./ring destroy
package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/falcon/cli"
)

var (
	count int
	image string
)

func main() {
	cli.Program{
		Name:  "ring",
		Short: "A ring of nodes",
		Flags: func(f *pflag.FlagSet) {
			f.IntVarP(&count, "nodes", "n", 3, "number of nodes, at least 2")
			f.StringVar(&image, "image", "micro", "base image of the nodes")
		},
		Declare: declare,
	}.Main()
}

func declare() (*falcon.Topology, error) {
	if count < 2 {
		return nil, fmt.Errorf("a ring has at least 2 nodes, not %d", count)
	}
	topo := falcon.New("ring")
	var nodes []*falcon.Node
	for i := range count {
		nodes = append(nodes, topo.Node(fmt.Sprintf("n%d", i), image, 1, falcon.MiB(128)))
	}
	for i, n := range nodes {
		topo.Link(n, nodes[(i+1)%count])
	}
	return topo, nil
}
