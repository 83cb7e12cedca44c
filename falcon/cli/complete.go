package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/falcon"
)

// completeNode completes the name of a node as the first argument.
func (a *app) completeNode(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeNodes(cmd, args, begun)
}

// completeNodes completes names of nodes that are not named yet.
func (a *app) completeNodes(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if err := a.load(cmd); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	left := slices.DeleteFunc(a.nodeNames(), func(n string) bool { return slices.Contains(args, n) })
	return beginningWith(begun, left), cobra.ShellCompDirectiveNoFileComp
}

// completeImages completes names of images. What can be listed is proposed,
// also when something about the store is wrong.
func completeImages(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	store, err := falcon.Images()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	images, _ := store.List(cmd.Context())
	var names []string
	for _, i := range images {
		names = append(names, i.Name)
	}
	return beginningWith(begun, names), cobra.ShellCompDirectiveNoFileComp
}

func beginningWith(begun string, names []string) []string {
	return slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, begun) })
}
