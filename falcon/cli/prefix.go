package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// expand replaces prefixes of commands in a command line by the whole names.
// cobra can do so too, by a variable of the whole process, but takes an
// ambiguous prefix for an unknown command.
func expand(root *cobra.Command, args []string) ([]string, error) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd(args...)
	args = slices.Clone(args)
	rest := args
	for cmd := root; cmd.HasSubCommands(); {
		i := commandWord(cmd, rest)
		if i < 0 {
			break
		}
		sub, err := resolve(cmd, rest[i])
		if err != nil {
			return nil, err
		}
		if sub == nil {
			break
		}
		rest[i] = sub.Name()
		rest, cmd = rest[i+1:], sub
	}
	return args, nil
}

// commandWord returns the index of the first word that is neither a flag nor a
// flag's value, -1 when there is none or when the flags have mistakes, about
// which cobra will complain.
func commandWord(cmd *cobra.Command, args []string) int {
	cmd.InitDefaultHelpFlag()
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.SetInterspersed(false)
	flags.AddFlagSet(cmd.InheritedFlags())
	flags.AddFlagSet(cmd.LocalFlags())
	skip := func(*pflag.Flag, string) error { return nil }
	if err := flags.ParseAll(args, skip); err != nil || flags.NArg() == 0 {
		return -1
	}
	i := len(args) - flags.NArg()
	if i > 0 && args[i-1] == "--" {
		return -1
	}
	return i
}

// resolve finds a subcommand by its name, an alias, or an unambiguous prefix of
// its name. It returns nil for the commands that shells use for completion.
func resolve(cmd *cobra.Command, word string) (*cobra.Command, error) {
	if strings.HasPrefix(word, "__") {
		return nil, nil
	}
	var found []*cobra.Command
	for _, sub := range cmd.Commands() {
		switch {
		case sub.Name() == word || sub.HasAlias(word):
			return sub, nil
		case strings.HasPrefix(sub.Name(), word) && (sub.IsAvailableCommand() || sub.Name() == "help"):
			found = append(found, sub)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return nil, UsageError(cmd, "command %q is ambiguous: %s", word, strings.Join(names(found), ", "))
	}
	return nil, UsageError(cmd, "unknown command %q%s", word, didYouMean(word, names(cmd.Commands())))
}

func names(cmds []*cobra.Command) []string {
	var names []string
	for _, c := range cmds {
		names = append(names, c.Name())
	}
	return names
}

// didYouMean proposes what is closest to a word, in brackets for the end of a
// message; it is empty when nothing is close.
func didYouMean(word string, known []string) string {
	best, distance := "", max(2, len(word)/3)+1
	for _, k := range known {
		if d := editDistance(strings.ToLower(word), strings.ToLower(k)); d < distance {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", best)
}

// editDistance counts the letters to insert, delete or replace to make b of a.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
