// Solo is the smallest lab: one node, with a folder of the host in it.
//
//	go build ./examples/solo
//	./solo launch
//	./solo exec violin cat /opt/cargo-bay/readme.txt
//	./solo serial violin        # Ctrl-q leaves
//	./solo destroy
package main

import (
	"path/filepath"
	"runtime"

	"github.com/spf13/pflag"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/falcon/cli"
)

func main() {
	var image, cargo string
	cli.Program{
		Name:  "solo",
		Short: "One node with a folder of the host in it",
		Flags: func(f *pflag.FlagSet) {
			f.StringVar(&image, "image", "micro", "base image of the node")
			f.StringVar(&cargo, "cargo-bay", cargoBay(), "folder that the node gets as /opt/cargo-bay")
		},
		Declare: func() (*falcon.Topology, error) {
			topo := falcon.New("solo")
			topo.Node("violin", image, 1, falcon.MiB(256)).Mount(cargo, "/opt/cargo-bay")
			return topo, nil
		},
	}.Main()
}

// cargoBay is the folder beside this source, wherever the program is run from.
func cargoBay() string {
	_, source, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(source), "cargo-bay")
}
