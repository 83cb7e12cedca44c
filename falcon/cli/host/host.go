package host

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/falcon/cli"
	"github.com/falcon-vm/falcon-go/internal/printable"
)

// Main runs the host tool and ends the process with its status.
func Main() { cli.Run(Command()) }

// Command returns the command tree of the host tool.
func Command() *cobra.Command {
	root := &cobra.Command{
		Use:   "falcon",
		Short: "Look after the images and labs of this host",
		Long: `Look after the images and labs of this host. Labs are launched and worked in by
their own programs; "falcon new" writes one.`,
	}
	root.AddCommand(newNewCommand(), newLsCommand(), newDestroyCommand(), newDoctorCommand(), newImageCommand())
	return root
}

// wantArgs wants as many arguments as a command's use line names.
func wantArgs(valid cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if valid(cmd, args) != nil {
			return cli.UsageError(cmd, "want %s", cmd.Parent().CommandPath()+" "+cmd.Use)
		}
		return nil
	}
}

// printJSON prints a document for programs.
func printJSON(cmd *cobra.Command, document any) error {
	enc := json.NewEncoder(printable.JSONWriter(cmd.OutOrStdout()))
	enc.SetIndent("", "  ")
	return enc.Encode(document)
}

// printf prints for people.
func printf(cmd *cobra.Command, format string, args ...any) {
	fmt.Fprintf(printable.Writer(cmd.OutOrStdout()), format, args...)
}
