// Any is a topology of whatever its flags say, for tests that need one that no
// example is.
package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/falcon/cli"
)

var (
	name, image                           string
	nodes, links, mounts, exts, exclusive []string
)

func main() {
	cli.Program{
		Name:  "any",
		Short: "The topology that its flags say",
		Flags: func(f *pflag.FlagSet) {
			f.StringVar(&name, "name", "any", "name of the topology")
			f.StringVar(&image, "image", "micro", "image of nodes that name none")
			f.StringSliceVar(&nodes, "node", nil, "a node: NAME[:MEMORY IN MIB[:IMAGE]]")
			f.StringSliceVar(&links, "link", nil, "a link: NODE:NODE[:MTU]")
			f.StringSliceVar(&mounts, "mount", nil, "a mount: NODE:SOURCE:TARGET")
			f.StringSliceVar(&exts, "ext", nil, "an external link: NODE:INTERFACE, or NODE:user")
			f.StringSliceVar(&exclusive, "exclusive", nil, "an exclusive external link: NODE:INTERFACE")
		},
		Declare: declare,
	}.Main()
}

func declare() (*falcon.Topology, error) {
	topo := falcon.New(name)
	for _, n := range nodes {
		if err := declareNode(topo, strings.Split(n, ":")); err != nil {
			return nil, err
		}
	}
	for _, l := range links {
		w := strings.Split(l, ":")
		link := topo.Link(topo.Lookup(w[0]), topo.Lookup(w[1]))
		if len(w) == 3 {
			mtu, err := strconv.Atoi(w[2])
			if err != nil {
				return nil, fmt.Errorf("link %s: %w", l, err)
			}
			link.MTU(mtu)
		}
	}
	for _, m := range mounts {
		w := strings.Split(m, ":")
		topo.Lookup(w[0]).Mount(w[1], w[2])
	}
	for _, e := range exts {
		if w := strings.Split(e, ":"); w[1] == "user" {
			topo.Lookup(w[0]).UserExtLink()
		} else {
			topo.Lookup(w[0]).ExtLink(w[1])
		}
	}
	for _, e := range exclusive {
		w := strings.Split(e, ":")
		topo.Lookup(w[0]).ExtLinkExclusive(w[1])
	}
	return topo, nil
}

func declareNode(topo *falcon.Topology, words []string) error {
	memory, from := uint64(128), image
	if len(words) > 1 {
		var err error
		if memory, err = strconv.ParseUint(words[1], 10, 32); err != nil {
			return fmt.Errorf("memory of node %s: %w", words[0], err)
		}
	}
	if len(words) > 2 {
		from = words[2]
	}
	topo.Node(words[0], from, 1, falcon.MiB(memory))
	return nil
}
