package cli

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/falcon/internal/console"
	"github.com/falcon-vm/falcon-go/propolis"
)

// screenful is how much of a console's past serial shows, in bytes: what fits on
// 24 lines of 80 columns.
const screenful = 24 * 80

func (a *app) serialCommand() *cobra.Command {
	var resize bool
	cmd := &cobra.Command{
		Use:   "serial NODE",
		Short: "Attach the terminal to a node's console; Ctrl-q leaves",
		Long: `Attach the terminal to a node's console and show the last screenful of what it
said. Everything that is typed goes to the guest, but for Ctrl-q, which leaves.
At a shell's prompt the guest is told the size of the window, by typing stty.
Without a terminal, standard input is sent to the guest.`,
		Args:              exactly(1),
		ValidArgsFunction: a.completeNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := a.node(cmd, args[0])
			if err != nil {
				return err
			}
			return serial(cmd, n, resize)
		},
	}
	cmd.Flags().BoolVar(&resize, "resize", true, "tell the guest the size of the window")
	return cmd
}

func serial(cmd *cobra.Command, n node, resize bool) error {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok {
		return errors.New("serial reads a terminal, a pipe or a file")
	}
	stream, err := n.Console(cmd.Context(), screenful)
	if err != nil {
		return err
	}
	defer stream.Close()
	err = console.Attach(cmd.Context(), stream, console.TerminalOptions{
		In: in, Out: cmd.OutOrStdout(), Notices: cmd.ErrOrStderr(), Resize: resize, Name: n.Name(),
	})
	switch {
	case errors.Is(err, propolis.ErrVMStopped):
		return nil // and the person has been told so
	case errors.Is(err, console.ErrSignal):
		return &ExitError{interruptedStatus(cmd.Context()), err}
	}
	return err
}
