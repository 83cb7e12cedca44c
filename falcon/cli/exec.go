package cli

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/falcon"
)

func (a *app) execCommand() *cobra.Command {
	var o execFlags
	cmd := &cobra.Command{
		Use:   "exec [flags] NODE COMMAND…",
		Short: "Run a command in a node and end with its exit status",
		Long: `Run a command in a node, print its output, and end with its exit status. The
words of the command are joined by spaces and interpreted by the guest's shell,
as ssh does. Flags after NODE belong to the command. Where falcon itself fails,
the exit status is 125. Ctrl-C interrupts the command; what does not heed that is
ended, and so is a command whose falcon has gone.

A node whose image has a guest agent runs any number of commands at once, and
tells their error output from the other. Elsewhere commands go through the
console, one after the other, and all that they print is their output.`,
		Example:           fmt.Sprintf("  %[1]s exec -e LEVEL=3 -w /var/log violin 'grep -c $LEVEL messages'\n  %[1]s exec -i violin 'tar x' <lab.tar", a.program.Name),
		Args:              atLeast(2),
		ValidArgsFunction: a.completeNode,
		Annotations:       map[string]string{endsWithAnothersStatus: ""},
		RunE: func(cmd *cobra.Command, args []string) error {
			words := args[1:]
			if words[0] == "--" { // by custom of docker and kubectl
				words = words[1:]
			}
			return a.exec(cmd, args[0], strings.Join(words, " "), o)
		},
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().DurationVar(&o.timeout, "timeout", falcon.DefaultExecTimeout, "how long the command may take")
	cmd.Flags().BoolVarP(&o.stdin, "stdin", "i", false, "give the command this command's input")
	cmd.Flags().StringArrayVarP(&o.env, "env", "e", nil, "set a `VARIABLE=value`, or pass one of ours on by its name")
	cmd.Flags().StringVarP(&o.dir, "workdir", "w", "", "`folder` of the guest to run in (default root's home)")
	jsonFlag(cmd, &o.asJSON, "print output, status and duration as JSON")
	return cmd
}

// execFlags are the flags of exec.
type execFlags struct {
	timeout       time.Duration
	stdin, asJSON bool
	env           []string
	dir           string
}

// envName is a name that every shell takes for a variable's.
var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// environment completes variables without a value, as docker does: those that
// this process lacks are left out.
func environment(cmd *cobra.Command, variables []string) ([]string, error) {
	var env []string
	for _, v := range variables {
		name, _, valued := strings.Cut(v, "=")
		if !envName.MatchString(name) {
			return nil, UsageError(cmd, "--env %q is not VARIABLE=value", v)
		}
		if !valued {
			value, set := os.LookupEnv(name)
			if !set {
				continue
			}
			v += "=" + value
		}
		env = append(env, v)
	}
	return env, nil
}

func (a *app) exec(cmd *cobra.Command, name, command string, f execFlags) error {
	n, err := a.node(cmd, name)
	if err != nil {
		return err
	}
	if f.timeout <= 0 {
		return UsageError(cmd, "--timeout %s is not a time to wait", f.timeout)
	}
	env, err := environment(cmd, f.env)
	if err != nil {
		return err
	}
	o := execOptions{timeout: f.timeout, env: env, dir: f.dir}
	if !f.asJSON {
		o.output, o.stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
	}
	if f.stdin {
		o.input = cmd.InOrStdin()
	}
	result, err := n.Exec(cmd.Context(), command, o)
	if err != nil {
		return err
	}
	if f.asJSON {
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
