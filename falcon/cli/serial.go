package cli

import (
	"errors"

	"github.com/spf13/cobra"
)

func (a *app) serialCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "serial NODE",
		Short: "Attach the terminal to a node's console; Ctrl-q leaves",
		Long: `Attach the terminal to a node's console and show the last screenful of what it
said. Everything that is typed goes to the guest, but for Ctrl-q, which leaves.
Without a terminal, standard input is sent to the guest.`,
		Args:              exactly(1),
		ValidArgsFunction: a.completeNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := a.node(cmd, args[0])
			if err != nil {
				return err
			}
			_ = n
			return errors.New("not yet")
		},
	}
}
