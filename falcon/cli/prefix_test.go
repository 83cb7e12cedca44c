package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

func TestPrefixesOfCommandsAreExpanded(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"la", "launch"},
		{"la --keep", "launch --keep"},
		{"-n 8 la", "-n 8 launch"},
		{"-n8 la", "-n8 launch"},
		{"--nodes=8 la", "--nodes=8 launch"},
		{"--nodes 8 -v -f dir in", "--nodes 8 -v -f dir info"},
		{"-vf dir in", "-vf dir info"},
		{"ex violin la", "exec violin la"},
		{"hypersto violin", "hyperstop violin"},
		{"own sec x", "own second x"},
		{"o fi x", "own first x"},
		{"own", "own"},
		{"other", "other"},
		{"netc", "netcreate"},
		{"comp ba", "completion bash"},
		{"hel", "help"},
		{"", ""},
		{"-v", "-v"},
		{"-- la", "-- la"},
		{"--bad la", "--bad la"},
		{"__complete la", "__complete la"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			got, err := expand(treeWithOwn(t), strings.Fields(tt.args))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.Fields(tt.want), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// treeWithOwn is a command tree with commands of the program's own, of which
// one has subcommands, and one's name begins like another's whole name.
func treeWithOwn(t *testing.T) *cobra.Command {
	var p testProgram
	root := p.app(t).root
	nothing := func(*cobra.Command, []string) {}
	own := &cobra.Command{Use: "own", Aliases: []string{"o"}}
	own.AddCommand(&cobra.Command{Use: "first", Run: nothing}, &cobra.Command{Use: "second", Run: nothing})
	root.AddCommand(own, &cobra.Command{Use: "other", Run: nothing}, &cobra.Command{Use: "others", Run: nothing})
	return root
}

func TestAnUnclearCommandIsRefusedWithWhatItCouldBe(t *testing.T) {
	for args, want := range map[string]string{
		"net":        "netcreate, netdestroy",
		"h":          "help, hyperstart, hyperstop",
		"-n 8 hyp":   "hyperstart, hyperstop",
		"own sekond": "did you mean second?",
		"ohter":      "did you mean other?",
	} {
		_, err := expand(treeWithOwn(t), strings.Fields(args))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", args, err, want)
		}
	}
}

func TestEditDistanceCountsLetters(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "", 3}, {"", "abc", 3}, {"abc", "abc", 0}, {"vilin", "violin", 1}, {"kitten", "sitting", 3}} {
		if got := editDistance(tt.a, tt.b); got != tt.want {
			t.Errorf("%q to %q: %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
