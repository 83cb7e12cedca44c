package cli

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/falcon"
)

func (a *app) preflightCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "preflight",
		Short: "Show what a launch would make, and whether this host can",
		Long: `Show what a launch would make and whether this host can do it. Nothing is made.
With --json the whole plan is printed, with the Propolis instance of each node.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.preflight(cmd, asJSON) },
	}
	jsonFlag(cmd, &asJSON, "print the plan and the checks as JSON")
	return cmd
}

func (a *app) preflight(cmd *cobra.Command, asJSON bool) error {
	p, err := a.lab.Preflight(cmd.Context())
	if p == nil {
		return err
	}
	if asJSON {
		if perr := printJSON(cmd, p); perr != nil {
			return perr
		}
		return err
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	if p.Plan != nil {
		printPlan(w, p.Plan)
	}
	for _, c := range p.Checks {
		verdict, text := "ok", c.Detail
		switch {
		case c.Err != nil:
			verdict, text = "FAILS", c.Err.Error()
		case c.Warning != "":
			verdict, text = "WARNS", c.Detail+": "+c.Warning
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", verdict, c.Name, text)
	}
	if ferr := w.Flush(); ferr != nil {
		return ferr
	}
	return err
}

func printPlan(w *tabwriter.Writer, p *falcon.Plan) {
	fmt.Fprintln(w, "NODE\tIMAGE\tCORES\tMEMORY\tDISK\tINTERFACES")
	for _, n := range p.Nodes {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%d\n", n.Name, n.Image, n.Cores, n.Memory, n.DiskSize, len(n.Interfaces))
	}
	fmt.Fprintln(w)
	if len(p.Links) == 0 {
		return
	}
	fmt.Fprintln(w, "LINK\tFROM\tTO")
	for _, l := range p.Links {
		fmt.Fprintf(w, "\t%s/%d\t%s/%d\n", l.A.Node, l.A.Index, l.B.Node, l.B.Index)
	}
	fmt.Fprintln(w)
}
