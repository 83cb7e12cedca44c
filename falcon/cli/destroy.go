package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/falcon/internal/state"
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
	before, err := standing(a.dir)
	if err != nil {
		return err
	}
	if asJSON {
		p := a.newProgress(cmd, nil, true)
		a.lab.OnProgress(p.report)
		err := a.lab.Destroy(cmd.Context())
		p.finish(err)
		return err
	}
	if err := a.lab.Destroy(cmd.Context()); err != nil {
		return err
	}
	if len(before) == 0 {
		fmt.Fprintf(cmd.OutOrStdout(), "nothing of %s in %s\n", a.topology.Name(), a.dir)
		return nil
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s is gone: %s\n", a.topology.Name(), inventory(before))
	return nil
}

// standing returns what the journal of a state folder lists.
func standing(dir string) ([]state.Object, error) {
	folder, err := state.Open(dir)
	if err != nil {
		return nil, err
	}
	return folder.Standing()
}

// inventory counts objects for people.
func inventory(objects []state.Object) string {
	count := make(map[state.Kind]int)
	for _, o := range objects {
		count[o.Kind]++
	}
	var parts []string
	for _, kind := range []struct {
		state.Kind
		one, many string
	}{
		{state.Server, "node", "nodes"},
		{state.Disk, "disk", "disks"},
		{state.Links, "network", "networks"},
		{state.External, "external link", "external links"},
	} {
		switch n := count[kind.Kind]; n {
		case 0:
		case 1:
			parts = append(parts, "1 "+kind.one)
		default:
			parts = append(parts, fmt.Sprint(n, " ", kind.many))
		}
	}
	if len(parts) == 0 {
		return "its files"
	}
	return strings.Join(parts, ", ")
}
