// Any is a topology of whatever its flags say, for tests that need one that no
// example is.
package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/falcon/cli"
)

// declaration is what the flags say.
type declaration struct {
	name, image                                  string
	nodes, disks, links, mounts, exts, exclusive []string
	sidecars, screens                            []string
}

func main() {
	var d declaration
	cli.Program{
		Name:  "any",
		Short: "The topology that its flags say",
		Flags: func(f *pflag.FlagSet) {
			f.StringVar(&d.name, "name", "any", "name of the topology")
			f.StringVar(&d.image, "image", "micro", "image of nodes that name none")
			f.StringSliceVar(&d.nodes, "node", nil, "a node: NAME[:MEMORY IN MIB[:IMAGE]]")
			f.StringSliceVar(&d.disks, "disk", nil, "the size of a node's disk: NODE:MIB")
			f.StringSliceVar(&d.links, "link", nil, "a link: NODE:NODE[:MAC:MAC, with dashes]")
			f.StringSliceVar(&d.sidecars, "sidecar", nil, "a sidecar link: SWITCH:DRIVER:RADIX:HEADER")
			f.StringSliceVar(&d.mounts, "mount", nil, "a mount: NODE:SOURCE:TARGET")
			f.StringSliceVar(&d.exts, "ext", nil, "an external link: NODE:INTERFACE, or NODE:user")
			f.StringSliceVar(&d.screens, "vnc", nil, "a screen: NODE[:PORT[:PASSWORD FILE]]")
			f.StringSliceVar(&d.exclusive, "exclusive", nil, "an exclusive external link: NODE:INTERFACE")
		},
		Declare: d.declare,
	}.Main()
}

func (d *declaration) declare() (*falcon.Topology, error) {
	topo := falcon.New(d.name)
	for _, words := range split(d.nodes) {
		memory, image := "128", d.image
		if len(words) > 1 {
			memory = words[1]
		}
		if len(words) > 2 {
			image = words[2]
		}
		size, err := mebibytes(memory)
		if err != nil {
			return nil, fmt.Errorf("memory of node %s: %w", words[0], err)
		}
		topo.Node(words[0], image, 1, size)
	}
	for _, words := range split(d.disks) {
		size, err := mebibytes(words[1])
		if err != nil {
			return nil, fmt.Errorf("disk of node %s: %w", words[0], err)
		}
		topo.Lookup(words[0]).DiskSize(size)
	}
	for _, words := range split(d.links) {
		link := topo.Link(topo.Lookup(words[0]), topo.Lookup(words[1]))
		if len(words) > 2 {
			link.A.MAC(words[2])
			link.B.MAC(words[3])
		}
	}
	for _, words := range split(d.sidecars) {
		radix, err := strconv.Atoi(words[2])
		header, herr := strconv.Atoi(words[3])
		if err := errors.Join(err, herr); err != nil {
			return nil, err
		}
		topo.SidecarLink(falcon.Sidecar{Switch: topo.Lookup(words[0]), Driver: topo.Lookup(words[1]), Radix: radix, Header: falcon.SidecarHeader(header)})
	}
	d.declareOutside(topo)
	return topo, d.declareScreens(topo)
}

func (d *declaration) declareScreens(topo *falcon.Topology) error {
	for _, words := range split(d.screens) {
		n := topo.Lookup(words[0]).VNC()
		if len(words) > 1 {
			port, err := strconv.Atoi(words[1])
			if err != nil {
				return err
			}
			n.VNC(port)
		}
		if len(words) > 2 {
			n.VNCPassword(words[2])
		}
	}
	return nil
}

// declareOutside declares what of the host the nodes use.
func (d *declaration) declareOutside(topo *falcon.Topology) {
	for _, words := range split(d.mounts) {
		topo.Lookup(words[0]).Mount(words[1], words[2])
	}
	for _, words := range split(d.exts) {
		if words[1] == "user" {
			topo.Lookup(words[0]).UserExtLink()
		} else {
			topo.Lookup(words[0]).ExtLink(words[1])
		}
	}
	for _, words := range split(d.exclusive) {
		topo.Lookup(words[0]).ExtLinkExclusive(words[1])
	}
}

func split(list []string) [][]string {
	var words [][]string
	for _, s := range list {
		words = append(words, strings.Split(s, ":"))
	}
	return words
}

func mebibytes(s string) (falcon.Bytes, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return falcon.MiB(n), err
}
