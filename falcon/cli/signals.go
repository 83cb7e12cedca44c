package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/internal/printable"
)

// signalError is the cause of a context that a signal has cancelled.
type signalError struct{ syscall.Signal }

func (e signalError) Error() string { return e.String() + " signal received" }

// status is what shells say of a process that a signal has ended.
func (e signalError) status() int { return 128 + int(e.Signal) }

// interruptedStatus is the exit status of a command whose context has ended.
func interruptedStatus(ctx context.Context) int {
	by := signalError{syscall.SIGINT}
	errors.As(context.Cause(ctx), &by)
	return by.status()
}

// endingSignals are those that cancel a command. A hang-up or a broken pipe that
// whoever started the program has chosen to ignore (nohup) stays ignored.
func endingSignals() []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT}
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGPIPE} {
		if !signal.Ignored(s) {
			signals = append(signals, s)
		}
	}
	return signals
}

// watchSignals returns a context that the first signal cancels. A second one
// ends the process; leaves is what is said then.
func watchSignals(leaves func() string) context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, endingSignals()...)
	go func() {
		w := signalWatch{cancel: cancel, broken: outputIsBroken, end: func(by signalError) {
			if left := leaves(); left != "" {
				fmt.Fprintln(os.Stderr, left)
			}
			os.Exit(by.status())
		}}
		for s := range signals {
			w.take(s.(syscall.Signal), time.Now())
		}
	}()
	return ctx
}

// echo is for how long a signal after another one is taken for the same:
// timeout(1) sends one to its command and to its process group.
const echo = 50 * time.Millisecond

// signalWatch decides what a signal does.
type signalWatch struct {
	cancel context.CancelCauseFunc
	broken func() bool
	end    func(signalError)

	first time.Time // when the command was cancelled
}

func (w *signalWatch) take(s syscall.Signal, now time.Time) {
	switch {
	case s == syscall.SIGPIPE && !w.broken():
		// It is of a connection, whose user knows of it.
	case w.first.IsZero():
		w.first = now
		w.cancel(signalError{s})
	case s == syscall.SIGPIPE || s == syscall.SIGHUP:
		// What is being undone needs no terminal, and nobody asked for haste.
	case now.Sub(w.first) > echo:
		w.end(signalError{s})
	}
}

// outputIsBroken tells whether nobody reads standard output or standard error.
func outputIsBroken() bool {
	fds := []unix.PollFd{{Fd: int32(syscall.Stdout)}, {Fd: int32(syscall.Stderr)}}
	if _, err := unix.Poll(fds, 0); err != nil {
		return false
	}
	const gone = unix.POLLERR | unix.POLLHUP
	return fds[0].Revents&gone != 0 || fds[1].Revents&gone != 0
}

// leaves says what a command leaves that is ended at once, and how to clear it.
// It is empty for one that only looks.
func leaves(root *cobra.Command, args []string) string {
	cmd := root
	if expanded, err := expand(root, args); err == nil {
		if found, _, err := root.Find(expanded); err == nil {
			cmd = found
		}
	}
	switch cmd.Name() {
	case "launch", "destroy", "netcreate", "netdestroy":
		if flag := root.PersistentFlags().Lookup("falcon-dir"); flag != nil {
			if left := labLeft(flag.Value.String()); left != "" {
				return cmd.CommandPath() + ": ended at once: " + left
			}
		}
	case "info", "preflight", "logs", "exec", "serial", "softnpu", "ls", "show", "path", "new", root.Name():
		return ""
	}
	return cmd.CommandPath() + ": ended at once: what it leaves is shown by: falcon doctor, and removed by: falcon doctor --fix"
}

// labLeft says what stands in a state folder; empty if nothing does.
func labLeft(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	left, err := falcon.Standing(dir)
	what := left.String()
	switch {
	case err != nil:
		what = "what the lab has"
	case what == "":
		return ""
	}
	return fmt.Sprintf("it leaves %s in %s: remove that with: falcon destroy %s", what, dir, printable.Word(dir))
}
