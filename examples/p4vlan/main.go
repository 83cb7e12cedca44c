// P4vlan is a switch that runs vlan.p4: nodes a and b are in one VLAN, and c and d
// in another.
//
//	cd examples/p4vlan && go build
//	./p4vlan launch
//	./p4vlan softnpu dump switch
//	./p4vlan destroy
package main

import (
	"github.com/spf13/pflag"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/falcon/cli"
)

func main() {
	program := "vlan.p4"
	cli.Program{
		Name:  "p4vlan",
		Short: "A switch with VLANs in P4",
		Flags: func(f *pflag.FlagSet) { f.StringVar(&program, "program", program, "P4 source of the switch") },
		Declare: func() (*falcon.Topology, error) {
			topo := falcon.New("p4vlan")
			vlans := topo.Node("switch", "micro", 1, falcon.MiB(128)).SoftNPUProgram(program)
			for _, name := range []string{"a", "b", "c", "d"} {
				topo.SoftNPULink(vlans, topo.Node(name, "micro", 1, falcon.MiB(128)))
			}
			return topo, nil
		},
	}.Main()
}
