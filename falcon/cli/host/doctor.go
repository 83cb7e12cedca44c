package host

import (
	"cmp"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/internal/printable"
)

func newDoctorCommand() *cobra.Command {
	var fix, asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Show what this host can do, what is missing, and what dead labs left behind",
		Long: `Show what this host can do, what is missing with the command that installs it,
and what dead labs left behind. With --fix the leftovers are removed; nothing is
installed. The exit status is 1 while something is missing or left over.`,
		Args: wantArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return doctor(cmd, fix, asJSON) },
	}
	cmd.Flags().BoolVar(&fix, "fix", false, "remove what dead labs left behind")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the findings as JSON")
	return cmd
}

func doctor(cmd *cobra.Command, fix, asJSON bool) error {
	report, err := falcon.Doctor(cmd.Context(), fix)
	if err != nil {
		return err
	}
	print := printReport
	if asJSON {
		print = func(cmd *cobra.Command, r *falcon.DoctorReport) error { return printJSON(cmd, r) }
	}
	if err := print(cmd, report); err != nil {
		return err
	}
	return verdict(report)
}

func printReport(cmd *cobra.Command, report *falcon.DoctorReport) error {
	w := tabwriter.NewWriter(printable.Writer(cmd.OutOrStdout()), 0, 0, 2, ' ', 0)
	for _, c := range report.Checks {
		verdict, text := "ok", c.Detail
		if c.Err != nil {
			verdict, text = "MISSING", c.Err.Error()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", verdict, c.Name, text)
	}
	for _, l := range report.Leftovers {
		verdict := "LEFT"
		if l.Fixed {
			verdict = "removed"
		}
		fmt.Fprintf(w, "%s\t%s %s\t%s\n", verdict, l.Kind, l.Name, cmp.Or(l.Error, l.Reason))
	}
	return w.Flush()
}

// verdict is the error of a report that is not all good. The report itself says
// what is wrong.
func verdict(r *falcon.DoctorReport) error {
	missing, left := 0, 0
	for _, c := range r.Checks {
		if c.Err != nil {
			missing++
		}
	}
	for _, l := range r.Leftovers {
		if !l.Fixed {
			left++
		}
	}
	switch {
	case left > 0:
		return fmt.Errorf("%d leftovers of dead labs: remove them with: falcon doctor --fix", left)
	case missing > 0:
		return fmt.Errorf("%d things that falcon can use are missing", missing)
	}
	return nil
}
