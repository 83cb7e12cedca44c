// Softnpu is a scrimlet, whose SoftNPU ASIC runs the built-in program, and two
// gimlets on its front ports.
//
//	cd examples/softnpu && go build
//	CGO_ENABLED=0 go build -o cargo-bay ../../cmd/npuadm
//	./softnpu launch
//	./softnpu exec scrimlet sh /opt/cargo-bay/tables
//	./softnpu exec gimlet1 sh /opt/cargo-bay/gimlet 1
//	./softnpu exec gimlet2 sh /opt/cargo-bay/gimlet 2
//	./softnpu exec gimlet1 ping -c 3 10.0.2.2
//	./softnpu softnpu dump scrimlet
//	./softnpu destroy
package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/falcon/cli"
)

func main() {
	image, cargo := "micro", "cargo-bay"
	cli.Program{
		Name:  "softnpu",
		Short: "A switch ASIC with the built-in program",
		Flags: func(f *pflag.FlagSet) {
			f.StringVar(&image, "image", image, "base image of the nodes")
			f.StringVar(&cargo, "cargo-bay", cargo, "folder of the host that the nodes see as /opt/cargo-bay")
		},
		Declare: func() (*falcon.Topology, error) {
			topo := falcon.New("softnpu")
			node := func(name string) *falcon.Node {
				return topo.Node(name, image, 1, falcon.MiB(256)).Mount(cargo, "/opt/cargo-bay")
			}
			scrimlet := node("scrimlet")
			for i := 1; i <= 2; i++ {
				l := topo.SoftNPULink(scrimlet, node(fmt.Sprintf("gimlet%d", i)))
				// The tables have these addresses: see cargo-bay/tables.
				l.A.MAC(fmt.Sprintf("02:00:00:00:01:%02d", i))
				l.B.MAC(fmt.Sprintf("02:00:00:00:02:%02d", i))
			}
			return topo, nil
		},
	}.Main()
}
