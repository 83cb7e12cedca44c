// P4hub is a switch that runs a program of one's own, hub.p4, and three nodes on
// it that share what all say.
//
//	cd examples/p4hub && go build
//	./p4hub launch
//	./p4hub softnpu counters switch
//	./p4hub destroy
package main

import (
	"github.com/spf13/pflag"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/falcon/cli"
)

func main() {
	program := "hub.p4"
	cli.Program{
		Name:  "p4hub",
		Short: "A hub in P4",
		Flags: func(f *pflag.FlagSet) { f.StringVar(&program, "program", program, "P4 source of the switch") },
		Declare: func() (*falcon.Topology, error) {
			topo := falcon.New("p4hub")
			hub := topo.Node("switch", "micro", 1, falcon.MiB(128)).SoftNPUProgram(program)
			for _, name := range []string{"a", "b", "c"} {
				topo.SoftNPULink(hub, topo.Node(name, "micro", 1, falcon.MiB(128)))
			}
			return topo, nil
		},
	}.Main()
}
