package host

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/internal/printable"
)

// lsDocument is what ls prints as JSON.
type lsDocument struct {
	Version    int             `json:"version"`
	Topologies []falcon.Listed `json:"topologies"`
}

func newLsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List your labs on this host, with their state folders",
		Args:  wantArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			labs, err := falcon.List(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd, lsDocument{Version: 1, Topologies: labs})
			}
			return printLabs(cmd, labs)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the list as JSON")
	return cmd
}

func printLabs(cmd *cobra.Command, labs []falcon.Listed) error {
	w := tabwriter.NewWriter(printable.Writer(cmd.OutOrStdout()), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TOPOLOGY\tNODES\tRUNNING\tCREATED\tFOLDER")
	for _, l := range labs {
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\n", l.Topology, l.Nodes, l.Running, l.Created.Local().Format(time.DateTime), l.Folder)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, l := range labs {
		if l.Problem != "" {
			printf(cmd, "%s in %s: %s (see: falcon doctor)\n", l.Topology, l.Folder, l.Problem)
		}
	}
	return nil
}
