package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/hashicorp/go-multierror"
	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/internal/printable"
)

// Exit statuses of a command line.
const (
	statusFailed     = 1
	statusUsage      = 2
	statusExecFailed = 125 // as docker has it
)

// ExitError ends a command line with a status. Its Err, if any, is printed.
type ExitError struct {
	// Status is the exit status, 0 to 255.
	Status int
	// Err says what failed; nil when the command has said all there is.
	Err error
}

// Error returns the failure's text.
func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit status %d", e.Status)
	}
	return e.Err.Error()
}

// Unwrap returns the failure itself.
func (e *ExitError) Unwrap() error { return e.Err }

// UsageError returns the error of a command line that cannot be understood: its
// message ends with where help is, its exit status is 2.
func UsageError(cmd *cobra.Command, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &ExitError{statusUsage, fmt.Errorf("%w\nsee: %s --help", err, cmd.CommandPath())}
}

// Run runs a command tree on the process's arguments and ends the process with
// the status that comes of it. It is all that a main has to do. A signal that is
// to end the process cancels the command's context, so that the command undoes
// what it has begun; a second one ends it at once, and says what it leaves.
func Run(root *cobra.Command) {
	args := os.Args[1:]
	os.Exit(Execute(watchSignals(func() string { return leaves(root, args) }), root, args))
}

// Execute is Run for callers that go on: it runs a command tree on arguments,
// prints what fails to the tree's standard error, and returns the exit status.
func Execute(ctx context.Context, root *cobra.Command, args []string) int {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return UsageError(cmd, "%w", err)
	})
	cmd := root
	args, err := expand(root, args)
	if err == nil {
		root.SetArgs(args)
		out := watchOutput(root)
		if cmd, err = root.ExecuteContextC(ctx); err == nil {
			err = out.lost()
		}
	}
	if err == nil {
		return 0
	}
	if errors.Is(err, syscall.EPIPE) && ctx.Err() == nil && outputIsBroken() {
		return signalError{syscall.SIGPIPE}.status() // nobody reads what there is to say
	}
	status := exitStatus(ctx, cmd, err)
	if message := describe(err); message != "" {
		fmt.Fprintf(root.ErrOrStderr(), "%s: %s\n", root.Name(), printable.Text(message))
	}
	return status
}

// endsWithAnothersStatus marks a command that ends with the status of a command
// elsewhere. Its own failures have a status that others hardly end with.
const endsWithAnothersStatus = "falcon_ends_with_anothers_status"

func exitStatus(ctx context.Context, cmd *cobra.Command, err error) int {
	var exit *ExitError
	own := !errors.As(err, &exit) || exit.Err != nil
	_, marked := cmd.Annotations[endsWithAnothersStatus]
	switch {
	case interrupted(ctx, err):
		return interruptedStatus(ctx)
	case own && marked:
		return statusExecFailed
	case exit != nil:
		return exit.Status
	}
	return statusFailed
}

// interrupted says whether an error is the end of its context: as such, or by
// the signal that ended it.
func interrupted(ctx context.Context, err error) bool {
	return ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx)))
}

// describe returns the text of an error, a list of errors as a list.
func describe(err error) string {
	if exit, ok := err.(*ExitError); ok {
		if exit.Err == nil {
			return ""
		}
		err = exit.Err
	}
	parts := parts(err)
	if len(parts) == 1 {
		return strings.TrimSpace(parts[0].Error())
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d problems:", len(parts))
	for _, p := range parts {
		fmt.Fprintf(&b, "\n  - %s", strings.ReplaceAll(strings.TrimSpace(p.Error()), "\n", "\n    "))
	}
	return b.String()
}

// parts returns the errors that an error is nothing but a list of.
func parts(err error) []error {
	var list []error
	switch e := err.(type) {
	case *multierror.Error:
		list = e.Errors
	case interface{ Unwrap() []error }:
		if err.Error() == errors.Join(e.Unwrap()...).Error() {
			list = e.Unwrap()
		}
	}
	if len(list) == 0 {
		return []error{err}
	}
	var flat []error
	for _, e := range list {
		flat = append(flat, parts(e)...)
	}
	return flat
}
