// Duo is two nodes and a link between them. One has a folder of the host in it
// and, if asked for, a link to the outside.
//
//	go build ./examples/duo
//	./duo launch                       # or: ./duo --ext user launch
//	./duo exec violin ip address
//	./duo serial piano                 # Ctrl-q leaves
//	./duo destroy
package main

import (
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/pflag"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/falcon/cli"
)

var (
	image, cargo, ext string
	memory            uint64 // MiB
)

var program = cli.Program{Name: "duo", Short: "Two nodes and a link", Flags: flags, Declare: declare}

func main() { program.Main() }

func flags(f *pflag.FlagSet) {
	_, source, _, _ := runtime.Caller(0) // its folder, wherever the program is run from
	f.StringVar(&image, "image", "micro", "base image of the nodes")
	f.Uint64Var(&memory, "memory", 256, "memory of each node in MiB; other people's images may need 512 or more")
	f.StringVar(&cargo, "cargo-bay", filepath.Join(filepath.Dir(source), "cargo-bay"), "folder that violin gets as /opt/cargo-bay, or none (--cargo-bay=)")
	f.StringVar(&ext, "ext", os.Getenv("FALCON_EXT"), "violin's link to the outside: a host interface, \"default\", \"user\" (no privilege), or none")
}

func declare() (*falcon.Topology, error) {
	topo := falcon.New("duo")

	violin := topo.Node("violin", image, 1, falcon.MiB(memory))
	piano := topo.Node("piano", image, 1, falcon.MiB(memory))

	if cargo != "" {
		violin.Mount(cargo, "/opt/cargo-bay")
	}
	topo.Link(violin, piano)
	switch ext {
	case "":
	case "user":
		violin.UserExtLink()
	case "default":
		violin.DefaultExtLink()
	default:
		violin.ExtLink(ext)
	}
	return topo, nil
}
