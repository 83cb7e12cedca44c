package cli

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/falcon"
)

func (a *app) execCommand() *cobra.Command {
	var timeout time.Duration
	var stdin, asJSON bool
	cmd := &cobra.Command{
		Use:   "exec [flags] NODE COMMAND…",
		Short: "Run a command in a node and end with its exit status",
		Long: `Run a command in a node, print its output, and end with its exit status. The
words of the command are joined by spaces and interpreted by the guest's shell,
as ssh does. Flags after NODE belong to the command. Where falcon itself fails,
the exit status is 125.

A node whose image has a guest agent runs any number of commands at once, and
tells their error output from the other. Elsewhere commands go through the
console, one after the other, and all that they print is their output.`,
		Args:              atLeast(2),
		ValidArgsFunction: a.completeNode,
		Annotations:       map[string]string{endsWithAnothersStatus: ""},
		RunE: func(cmd *cobra.Command, args []string) error {
			words := args[1:]
			if words[0] == "--" { // by custom of docker and kubectl
				words = words[1:]
			}
			return a.exec(cmd, args[0], strings.Join(words, " "), timeout, stdin, asJSON)
		},
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().DurationVar(&timeout, "timeout", falcon.DefaultExecTimeout, "how long the command may take")
	cmd.Flags().BoolVarP(&stdin, "stdin", "i", false, "give the command this command's input")
	jsonFlag(cmd, &asJSON, "print output, status and duration as JSON")
	return cmd
}

func (a *app) exec(cmd *cobra.Command, name, command string, timeout time.Duration, stdin, asJSON bool) error {
	n, err := a.node(cmd, name)
	if err != nil {
		return err
	}
	if timeout <= 0 {
		return UsageError(cmd, "--timeout %s is not a time to wait", timeout)
	}
	o := execOptions{timeout: timeout}
	if !asJSON {
		o.output, o.stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
	}
	if stdin {
		o.input = cmd.InOrStdin()
	}
	result, err := n.Exec(cmd.Context(), command, o)
	if err != nil {
		return err
	}
	if asJSON {
		if err := printJSON(cmd, newExecDocument(name, command, result)); err != nil {
			return err
		}
	}
	if result.Status != 0 {
		return &ExitError{Status: result.Status}
	}
	return nil
}

// execDocument is what exec prints as JSON. Output that is not UTF-8 is in
// OutputBase64 instead of Output.
type execDocument struct {
	Node         string  `json:"node"`
	Command      string  `json:"command"`
	Status       int     `json:"status"`
	Seconds      float64 `json:"seconds"`
	Output       *string `json:"output,omitempty"`
	OutputBase64 []byte  `json:"output_base64,omitempty"`
}

func newExecDocument(name, command string, r falcon.ExecResult) execDocument {
	d := execDocument{Node: name, Command: command, Status: r.Status, Seconds: r.Duration.Seconds()}
	if utf8.Valid(r.Output) {
		text := string(r.Output)
		d.Output = &text
	} else {
		d.OutputBase64 = r.Output
	}
	return d
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return UsageError(cmd, "%s takes no arguments, and has %q", cmd.Name(), args[0])
	}
	return nil
}

// exactly wants a number of arguments.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return wrongArgs(cmd)
		}
		return nil
	}
}

// atLeast wants a number of arguments or more.
func atLeast(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			return wrongArgs(cmd)
		}
		return nil
	}
}

func wrongArgs(cmd *cobra.Command) error {
	return UsageError(cmd, "want %s", strings.TrimSuffix(cmd.UseLine(), " [flags]"))
}
