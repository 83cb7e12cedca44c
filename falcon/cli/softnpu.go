package cli

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/propolis/softnpu"
	"github.com/falcon-vm/falcon-go/propolis/softnpu/admin"
)

func (a *app) softNPUCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "softnpu",
		Short: "Set and show the tables of a node's SoftNPU ASIC",
		Long: `Set and show the tables and the program of the SoftNPU ASIC that a node's SoftNPU
links are plugged into. Its front ports are 1, 2 and so on in the order in which
the links were declared, and port 0 is the node's own guest. In the guest npuadm
does the same.`,
		Example: fmt.Sprintf(`  %[1]s softnpu tables violin
  %[1]s softnpu add-route4 violin 10.0.1.0 24 2 10.0.0.1
  %[1]s softnpu dump violin`, a.program.Name),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	commands := admin.NodeCommands(func(ctx context.Context, name string) (*softnpu.Client, error) {
		n, err := a.node(cmd, name)
		if err != nil {
			return nil, err
		}
		return n.SoftNPU(ctx)
	})
	for _, c := range commands {
		check := c.Args
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return UsageError(cmd, "%w", err)
			}
			return nil
		}
	}
	cmd.AddCommand(append(commands, a.softNPUPortsCommand())...)
	return cmd
}

// portDocument is a front port of an ASIC.
type portDocument struct {
	Port int `json:"port"`
	falcon.LinkStatus
}

func (a *app) softNPUPortsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ports NODE",
		Short: "Print where the front ports lead",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := a.node(cmd, args[0]); err != nil {
				return err
			}
			s, err := a.lab.Status(cmd.Context())
			if err != nil {
				return err
			}
			ports := frontPorts(s, args[0])
			if asJSON {
				return printJSON(cmd, ports)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "PORT\tINTERFACE\tMAC\tDEVICE\tPEER\tPEER DEVICE")
			for _, p := range ports {
				fmt.Fprintf(w, "%d\t%s/%d\t%s\t%s\t%s/%d\t%s\n", p.Port, args[0], p.Index, p.MAC, p.Device, p.Peer, p.PeerIndex, p.PeerDevice)
			}
			return w.Flush()
		},
	}
	jsonFlag(cmd, &asJSON, "print the ports as JSON")
	return cmd
}

// frontPorts are the ports of a node's ASIC, which are numbered from 1 in the
// order of the links.
func frontPorts(s *falcon.Status, node string) []portDocument {
	ports := []portDocument{}
	for _, n := range s.Nodes {
		for _, l := range n.Links {
			if n.Name == node && l.Kind == falcon.EndSoftNPU {
				ports = append(ports, portDocument{len(ports) + 1, l})
			}
		}
	}
	return ports
}
