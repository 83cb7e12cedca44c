// Package illumos gives the commands by which falcon changes an illumos host:
// dladm for links, bhyvectl for what a dead virtual machine leaves behind, and
// those that only look. What would change something is first a list of commands
// that pure functions make, so that a dry run prints what a launch runs.
//
// It is compiled and tested on every system; only its commands need illumos.
package illumos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Command is a program and its arguments.
type Command []string

// String is the command as one would type it.
func (c Command) String() string {
	words := make([]string, len(c))
	for i, w := range c {
		words[i] = quote(w)
	}
	return strings.Join(words, " ")
}

// quote quotes a word for a POSIX shell where that is needed.
func quote(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:=@%+,", r)
	}
	if word != "" && strings.TrimFunc(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// Runner runs commands.
type Runner interface {
	// Run returns what the command wrote to stdout. If it fails the error is
	// a *CommandError.
	Run(ctx context.Context, c Command) (stdout string, err error)
}

// CommandError is a command that failed.
type CommandError struct {
	Command Command
	// Said is what it wrote to stderr, or to stdout if that is all.
	Said string
	Err  error
}

// Error gives the command line and the program's own words.
func (e *CommandError) Error() string {
	if e.Said == "" {
		return fmt.Sprintf("%s: %v", e.Command, e.Err)
	}
	return fmt.Sprintf("%s: %s", e.Command, e.Said)
}

// Unwrap returns the reason that the system gives.
func (e *CommandError) Unwrap() error { return e.Err }

// Exec runs commands on this host.
type Exec struct{}

// killWait is how long a command that was killed may keep its output open.
const killWait = 2 * time.Second

// Run implements Runner.
func (Exec) Run(ctx context.Context, c Command) (string, error) {
	path, err := lookPath(c[0])
	if err != nil {
		return "", &CommandError{Command: c, Err: err}
	}
	cmd := exec.CommandContext(ctx, path, c[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C") // their words are compared
	cmd.WaitDelay = killWait
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		said := strings.TrimSpace(stderr.String())
		if said == "" {
			said = strings.TrimSpace(stdout.String())
		}
		return stdout.String(), &CommandError{Command: c, Said: said, Err: err}
	}
	return stdout.String(), nil
}

// lookPath finds a system program, also for users whose PATH is without the
// folder of those.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	if path, err := exec.LookPath("/usr/sbin/" + name); err == nil {
		return path, nil
	}
	return "", err
}

// says reports whether an error is that of a command which wrote one of these
// words, whatever their case.
func says(err error, words ...string) bool {
	var e *CommandError
	if !errors.As(err, &e) {
		return false
	}
	said := strings.ToLower(e.Said)
	for _, w := range words {
		if strings.Contains(said, w) {
			return true
		}
	}
	return false
}

// fields splits a line of parsable output ("dladm … -p -o"), in which a colon
// separates and a backslash quotes.
func fields(line string) []string {
	var all []string
	var b strings.Builder
	quoted := false
	for _, r := range line {
		switch {
		case quoted:
			b.WriteRune(r)
			quoted = false
		case r == '\\':
			quoted = true
		case r == ':':
			all = append(all, b.String())
			b.Reset()
		default:
			b.WriteRune(r)
		}
	}
	return append(all, b.String())
}

// table splits parsable output into lines of n fields.
func table(c Command, out string, n int) ([][]string, error) {
	var rows [][]string
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			continue
		}
		row := fields(line)
		if len(row) != n {
			return nil, fmt.Errorf("%s: its line %q has %d fields, not %d", c, line, len(row), n)
		}
		rows = append(rows, row)
	}
	return rows, nil
}
