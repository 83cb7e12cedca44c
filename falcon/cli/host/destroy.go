package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/falcon"
)

func newDestroyCommand() *cobra.Command {
	var asJSON, lost bool
	cmd := &cobra.Command{
		Use:   "destroy DIR…",
		Short: "Destroy the labs of state folders, without their programs",
		Long: `Destroy the labs of state folders, without the programs that declared them.
"falcon ls" lists the folders. With --lost they are those in which labs were
launched that are not there any more: what these have left goes, also their disks.`,
		Args:              wantArgs(cobra.MinimumNArgs(1)),
		ValidArgsFunction: completeFolders,
		RunE: func(cmd *cobra.Command, dirs []string) error {
			outcomes, err := destroyAll(cmd.Context(), dirs, lost)
			if asJSON {
				return errors.Join(printJSON(cmd, destroyDocument{outcomes}), err)
			}
			for _, o := range outcomes {
				for _, p := range o.Problems {
					fmt.Fprintf(cmd.ErrOrStderr(), "note: %s\n", p)
				}
				if !o.Destroyed {
					continue
				}
				if what := o.Removed.String(); what != "its files" {
					printf(cmd, "%s is destroyed: %s\n", o.Folder, what)
				} else {
					printf(cmd, "%s is destroyed\n", o.Folder)
				}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&lost, "lost", false, "destroy what is left of labs whose folders are gone for good")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print what became of each as JSON")
	return cmd
}

// destroyDocument is what destroy prints as JSON.
type destroyDocument struct {
	Folders []destroyOutcome `json:"folders"`
}

type destroyOutcome struct {
	Folder    string `json:"folder"`
	Destroyed bool   `json:"destroyed"`
	Error     string `json:"error,omitempty"`
	falcon.Removed
}

// destroyAll destroys labs one after the other, and goes on past those that it
// cannot.
func destroyAll(ctx context.Context, dirs []string, lost bool) ([]destroyOutcome, error) {
	remove := falcon.RemoveFolder
	if lost {
		remove = falcon.RemoveLost
	}
	var outcomes []destroyOutcome
	var errs []error
	for _, dir := range dirs {
		removed, err := remove(ctx, dir, nil)
		o := destroyOutcome{Folder: dir, Destroyed: err == nil, Removed: removed}
		if err != nil {
			o.Error = err.Error()
			errs = append(errs, err)
		}
		outcomes = append(outcomes, o)
	}
	return outcomes, errors.Join(errs...)
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
