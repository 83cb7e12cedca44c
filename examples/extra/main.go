// Extra is a star of nodes, and a program with commands of its own beside
// falcon's: one gives the nodes addresses, one has them ping each other.
//
//	go build ./examples/extra
//	./extra launch && ./extra addresses && ./extra ping-all
//	./extra destroy
package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/falcon/cli"
)

var image string

func main() {
	root := cli.Program{Name: "extra", Short: "A star of nodes, and commands of its own", Flags: flags, Declare: declare}.Command()
	root.AddCommand(
		// Guests' names for interfaces differ with the image: MACs do not.
		command("addresses", "Give both ends of each link an address",
			"d=$(grep -l %[1]s /sys/class/net/*/address | cut -d/ -f5); ip link set $d up && ip addr replace 10.0.%[2]d.%[3]d/24 dev $d"),
		command("ping-all", "Have both ends of each link ping the other", "ping -c 1 -W 10 10.0.%[2]d.%[4]d"),
	)
	cli.Run(root)
}

func flags(f *pflag.FlagSet) { f.StringVar(&image, "image", "micro", "base image of the nodes") }

func declare() (*falcon.Topology, error) {
	topo := falcon.New("extra")
	hub := topo.Node("hub", image, 1, falcon.MiB(128))
	topo.Link(hub, topo.Node("left", image, 1, falcon.MiB(128)))
	topo.Link(hub, topo.Node("right", image, 1, falcon.MiB(128)))
	return topo, nil
}

// command runs a line in the guest at both ends of each link. It is made of the
// end's MAC, the link's number, the end's number, and that of its peer.
func command(name, short, line string) *cobra.Command {
	return &cobra.Command{Use: name, Short: short, RunE: func(cmd *cobra.Command, _ []string) error {
		status, err := cli.Topology(cmd).Status(cmd.Context())
		if err != nil {
			return err
		}
		for _, n := range status.Nodes {
			for _, l := range n.Links {
				link, end := l.Index+l.PeerIndex, 2 // a leaf's interface is its 0th
				if n.Name == "hub" {
					end = 1
				}
				r, err := cli.Topology(cmd).Lookup(n.Name).Exec(cmd.Context(), fmt.Sprintf(line, l.MAC, link, end, 3-end))
				if err == nil && r.Status != 0 {
					err = fmt.Errorf("%s: exit status %d in %s: %s", name, r.Status, n.Name, r.Output)
				}
				if err != nil {
					return err
				}
				fmt.Printf("%s, link %d: done\n%s", n.Name, link, r.Output)
			}
		}
		return nil
	}}
}
