package host

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/falcon"
)

func newDestroyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "destroy DIR…",
		Short: "Destroy the labs of state folders, without their programs",
		Long: `Destroy the labs of state folders, without the programs that declared them.
"falcon ls" lists the folders.`,
		Args: wantArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, dirs []string) error {
			var errs []error
			for _, dir := range dirs {
				if err := destroy(cmd, dir); err != nil {
					errs = append(errs, err)
				}
			}
			return errors.Join(errs...)
		},
		ValidArgsFunction: completeFolders,
	}
}

func destroy(cmd *cobra.Command, dir string) error {
	report := func(p falcon.Progress) {
		if p.Node != "" && p.Stage == falcon.StageGone {
			printf(cmd, "%s: node %s is gone\n", dir, p.Node)
		}
	}
	if err := falcon.DestroyFolder(cmd.Context(), dir, report); err != nil {
		return err
	}
	printf(cmd, "%s: destroyed\n", dir)
	return nil
}

// completeFolders completes the state folders of this host's labs.
func completeFolders(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	labs, err := falcon.List(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var dirs []string
	for _, l := range labs {
		dirs = append(dirs, l.Folder)
	}
	return dirs, cobra.ShellCompDirectiveDefault
}
