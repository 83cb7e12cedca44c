package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) destroyCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "destroy",
		Short: "Remove everything that the lab has on this host",
		Long: `Remove everything that the lab has on this host: processes, devices, disks, and
falcon's files in the state folder. Images and snapshots stay. It goes on past
what it cannot remove, and can be repeated.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.destroy(cmd, asJSON) },
	}
	jsonFlag(cmd, &asJSON, "print each step as a line of JSON")
	return cmd
}

func (a *app) destroy(cmd *cobra.Command, asJSON bool) error {
	if asJSON {
		p := a.newProgress(cmd, nil, true)
		a.lab.OnProgress(p.report)
		_, err := a.lab.Destroy(cmd.Context())
		p.finish(err)
		return err
	}
	removed, err := a.lab.Destroy(cmd.Context())
	for _, p := range removed.Problems {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: %s\n", p)
	}
	if err != nil {
		return err
	}
	if what := removed.String(); what != "" {
		fmt.Fprintf(cmd.OutOrStdout(), "%s is gone: %s\n", a.topology.Name(), what)
	} else {
		fmt.Fprintf(cmd.OutOrStdout(), "nothing of %s in %s\n", a.topology.Name(), a.dir)
	}
	return nil
}
