package console

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrClosed is in the chain of every error caused by the end of the stream: the
// virtual machine stopped, or its server closed the connection.
var ErrClosed = errors.New("console stream ended")

// ErrDamaged is in the chain of the error for a command whose output was mixed
// with other console output in a way that could not be undone. The command ran.
var ErrDamaged = errors.New("command output damaged on the console")

// ErrLogin is in the chain of errors of a guest that cannot be logged in to.
var ErrLogin = errors.New("cannot log in")

// ErrTooMuchOutput is in the chain of the error for a command whose collected
// output passed [MaxOutput].
var ErrTooMuchOutput = errors.New("command output too large to collect")

// TimeoutError says what a wait on the console was for. Its cause, a context
// error, is found by [errors.Is].
type TimeoutError struct {
	Awaited string        // what was awaited, e.g. "login prompt"
	After   time.Duration // how long
	Tail    string        // the console's last lines, control characters removed
	// Occupied is set where a command was cut off and the console's shell did
	// not come back after Ctrl-C and Ctrl-\.
	Occupied bool
	Err      error // context.DeadlineExceeded or context.Canceled
}

func (e *TimeoutError) Error() string {
	verb := "timed out"
	if e.Canceled() {
		verb = "cancelled"
	}
	s := fmt.Sprintf("%s after %s waiting for %s", verb, e.After.Round(time.Millisecond), e.Awaited)
	if e.Occupied {
		s += "; it ignores Ctrl-C and still holds the console"
	}
	return s + tailText(e.Tail)
}

// Canceled reports whether the caller gave up, rather than the deadline passed.
func (e *TimeoutError) Canceled() bool { return errors.Is(e.Err, context.Canceled) }

// Timeout is true unless the wait was cancelled; it makes a net.Error-like test work.
func (e *TimeoutError) Timeout() bool { return !e.Canceled() }

func (e *TimeoutError) Unwrap() error { return e.Err }

// BusyError says that something other than a shell holds the console.
type BusyError struct {
	Name string // the node
	Tail string // the console's last lines
}

func (e *BusyError) Error() string {
	seen := "nothing"
	if e.Tail != "" {
		seen = fmt.Sprintf("%q", e.Tail[strings.LastIndexByte(e.Tail, '\n')+1:])
	}
	return fmt.Sprintf("console of node %s is busy, last seen: %s; end what runs there (serial %s), then try again", e.Name, seen, e.Name)
}

func tailText(tail string) string {
	if tail == "" {
		return "; the console showed nothing"
	}
	return "; last seen on the console:\n    " + strings.ReplaceAll(tail, "\n", "\n    ")
}
