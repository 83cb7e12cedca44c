package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

// snapshotDocument is what snapshot prints as JSON.
type snapshotDocument struct {
	Node  string `json:"node"`
	Image string `json:"image"`
}

func (a *app) snapshotCommand() *cobra.Command {
	var live, asJSON bool
	cmd := &cobra.Command{
		Use:   "snapshot NODE NAME",
		Short: "Make a base image of a node's disk",
		Long: `Make a base image of a node's disk, for other nodes to be cloned from. The node
goes on with the disk that it has. A node that runs is refused without --live,
because what it has not written yet would be missing.`,
		Args:              exactly(2),
		ValidArgsFunction: a.completeNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := a.node(cmd, args[0]); err != nil {
				return err
			}
			if err := a.lab.Snapshot(cmd.Context(), args[0], args[1], live); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd, snapshotDocument{args[0], args[1]})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "the disk of %s is now the image %s\n", args[0], args[1])
			return nil
		},
	}
	cmd.Flags().BoolVar(&live, "live", false, "pause a running node for the moment that it takes")
	jsonFlag(cmd, &asJSON, "print the image's name as JSON")
	return cmd
}
