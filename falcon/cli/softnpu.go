package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

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
	cmd.AddCommand(admin.NodeCommands(func(ctx context.Context, name string) (*softnpu.Client, error) {
		n, err := a.node(cmd, name)
		if err != nil {
			return nil, err
		}
		return n.SoftNPU(ctx)
	})...)
	return cmd
}
