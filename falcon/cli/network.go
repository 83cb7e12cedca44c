package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) netcreateCommand() *cobra.Command {
	return a.networkCommand("netcreate", "Make the links of the topology, without its nodes", "up",
		func(ctx context.Context) error { return a.lab.NetCreate(ctx) })
}

func (a *app) netdestroyCommand() *cobra.Command {
	return a.networkCommand("netdestroy", "Remove the links of the topology", "gone",
		func(ctx context.Context) error { return a.lab.NetDestroy(ctx) })
}

// networkDocument is what netcreate and netdestroy print as JSON.
type networkDocument struct {
	Topology string `json:"topology"`
	Links    string `json:"links"`
}

func (a *app) networkCommand(name, short, done string, do func(context.Context) error) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: name, Short: short, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := do(cmd.Context()); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd, networkDocument{a.topology.Name(), done})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "the links of %s are %s\n", a.topology.Name(), done)
			return nil
		},
	}
	jsonFlag(cmd, &asJSON, "print the outcome as JSON")
	return cmd
}
