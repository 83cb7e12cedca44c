package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
)

// MaxOutput is the most output in bytes that Exec collects. A command with an
// Output writer may print any amount.
const MaxOutput = 64 << 20

// Command is what Exec runs. One of Shell and Argv is set.
type Command struct {
	Shell string   // for sh -c
	Argv  []string // a command and its arguments, taken literally
	Env   []string // "NAME=value", added to the environment of the console's shell
	// Timeout limits the whole exchange; 0 leaves that to the context.
	Timeout time.Duration
	// Output, if set, gets the output as it comes in place of Result.Output.
	// The guest hands it over as soon as the command has written it; programs
	// that buffer because they do not write to a terminal need their own option
	// (tcpdump -l).
	Output io.Writer
	// Direct leaves the output on the console, among whatever else is printed
	// there, and so spares the guest all processes but those of the command. The
	// console's own shell runs it, whichever that is.
	Direct bool
	// Login, if set, is used where the console shows a login prompt. Exec then
	// logs out again.
	Login *Profile
}

// Result is what a command left.
type Result struct {
	Output   []byte        // standard output and error, in order, byte for byte
	Status   int           // exit status; 128+n for signal n
	Duration time.Duration // of the whole exchange
}

const (
	promptWait  = 60 * time.Millisecond // for a prompt that is on its way
	probeWait   = 2 * time.Second       // for a prompt after Enter
	uploadWait  = 10 * time.Second      // for a sign of life while the command is handed over
	uploadTries = 3
	refusalWait = 2 * time.Second // for the child shell, once the prompt is back
	aliveWait   = 2 * time.Second // before a quiet console is looked at
	cleanupWait = 6 * time.Second // for the shell to come back after an interruption
)

// Exec runs a command at the console's shell prompt and returns its exact output
// and exit status. A command that fails is not an error.
//
// The command's input is empty. What it leaves in the background keeps running;
// output of such a process after the command's end is thrown away. When the
// time is over or ctx cancelled the command gets Ctrl-C, and the result holds
// the output so far beside the error ([TimeoutError]). A console that no shell
// holds gives a [BusyError] and nothing has run.
func (c *Console) Exec(ctx context.Context, cmd Command) (Result, error) {
	start := time.Now()
	text, err := cmd.text()
	if err != nil {
		return Result{}, fmt.Errorf("exec on node %s: %w", c.name, err)
	}
	if cmd.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cmd.Timeout)
		defer cancel()
	}
	s, err := c.begin(ctx, false)
	if err != nil {
		return Result{}, err
	}
	defer s.close()
	x := &exchange{s: s, start: start, out: cmd.Output}
	loggedIn, err := s.ready(ctx, cmd.Login)
	x.from = s.off
	if err == nil {
		around := script
		if cmd.Direct {
			around = directScript
		}
		err = x.run(ctx, func(id string) string { return around(id, text) })
	}
	switch {
	case loggedIn:
		s.logout(ctx)
	case err == nil: // whoever comes next finds the console at its prompt
		_, _ = s.waitPrompt(ctx, nil, promptWait)
	}
	return Result{Output: x.collected, Status: x.status, Duration: time.Since(start)}, err
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// text is the command as one text for sh -c.
func (cmd Command) text() (string, error) {
	var b strings.Builder
	for _, e := range cmd.Env {
		name, value, ok := strings.Cut(e, "=")
		if !ok || !envName.MatchString(name) {
			return "", fmt.Errorf("environment %q is not NAME=value", e)
		}
		b.WriteString("export " + name + "=" + quote(value) + "\n")
	}
	switch {
	case cmd.Shell != "" && len(cmd.Argv) > 0:
		return "", errors.New("both a shell text and an argument list are given")
	case len(cmd.Argv) > 0:
		for _, a := range cmd.Argv {
			b.WriteString(quote(a) + " ")
		}
	case cmd.Shell != "":
		b.WriteString(cmd.Shell)
	default:
		return "", errors.New("no command is given")
	}
	if strings.IndexByte(b.String(), 0) >= 0 {
		return "", errors.New("a command cannot hold a NUL byte")
	}
	return b.String(), nil
}

// ready brings the console to a shell prompt without doing harm to anything
// else that may hold it. It reports whether it logged in.
func (s *session) ready(ctx context.Context, login *Profile) (bool, error) {
	start := time.Now()
	var known *regexp.Regexp
	if login != nil {
		known = login.Prompt
	}
	kind, err := s.waitPrompt(ctx, known, promptWait)
	if err == nil && kind == promptNone {
		// A half-typed line is cleared, and a shell shows a new prompt. Anything
		// else gets an empty line.
		if err = s.send(ctx, clearLine+"\n"); err == nil {
			kind, err = s.waitPrompt(ctx, known, probeWait)
		}
	}
	for try := 0; err == nil && kind == promptContinued && try < 3; try++ {
		kind, err = s.breakOff(ctx, known)
	}
	switch {
	case err != nil:
		return false, s.explain(err, "a shell prompt", start)
	case kind == promptShell:
		return false, nil
	case kind == promptLogin && login != nil:
		return s.login(ctx, *login)
	case kind == promptLogin:
		return false, fmt.Errorf("console of node %s: %w: it shows a login prompt and no user is known", s.c.name, ErrLogin)
	}
	return false, &BusyError{Name: s.c.name, Tail: s.c.Tail()}
}

// breakOff ends a half-typed command of several lines, which only Ctrl-C does.
// A shell that is still busy showing its prompt may miss it, so that settles
// first, and the caller tries again.
func (s *session) breakOff(ctx context.Context, known *regexp.Regexp) (promptKind, error) {
	for quiet := false; !quiet; {
		var err error
		if _, quiet, err = s.nextWithin(ctx, promptWait); err != nil {
			return promptNone, err
		}
	}
	if err := s.send(ctx, "\x03"); err != nil {
		return promptNone, err
	}
	kind, err := s.waitPrompt(ctx, known, probeWait/4)
	if kind == promptNone && err == nil {
		kind = promptContinued
	}
	return kind, err
}

type promptKind uint8

const (
	promptNone promptKind = iota
	promptShell
	promptContinued // the secondary prompt, "> "
	promptLogin
)

func promptOf(line string, known *regexp.Regexp) promptKind {
	line = withoutKernel(line)
	switch {
	case line == "> ":
		return promptContinued
	case isLogin(line):
		return promptLogin
	case isPrompt(line, known) || isPrompt(line, nil):
		return promptShell
	}
	return promptNone
}

// waitPrompt waits until the console shows a prompt, at most d. It accepts one
// that a kernel message was printed behind.
func (s *session) waitPrompt(ctx context.Context, known *regexp.Regexp, d time.Duration) (promptKind, error) {
	if kind := promptOf(s.line, known); kind != promptNone {
		return kind, nil
	}
	found := promptNone
	lines := lineScanner{onLine: func(l string) {
		if cut := withoutKernel(l); cut != l && found == promptNone {
			found = promptOf(cut, known)
		}
	}}
	for limit := time.Now().Add(d); ; {
		p, quiet, err := s.nextWithin(ctx, time.Until(limit))
		if err != nil || quiet {
			return found, err
		}
		_, _ = lines.Write(p)
		if kind := promptOf(s.line, known); kind != promptNone {
			return kind, nil
		}
	}
}

// logout ends the shell that Exec started by logging in. It waits for the login
// prompt for a while, so that the next user of the console finds it.
func (s *session) logout(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupWait)
	defer cancel()
	if _, err := s.waitPrompt(ctx, nil, probeWait); err != nil || s.send(ctx, clearLine+"exit\r") != nil {
		return
	}
	for !isLogin(s.line) {
		if _, err := s.next(ctx); err != nil {
			return
		}
	}
}

// exchange is one command on its way.
type exchange struct {
	s         *session
	start     time.Time
	d         *Decoder
	out       io.Writer
	collected []byte
	status    int
	from      int64 // where the console was when the command was sent
}

// run runs the script made for an exchange's identifier.
func (x *exchange) run(ctx context.Context, script func(id string) string) error {
	err := errRetry
	for try := 0; try < uploadTries && errors.Is(err, errRetry); try++ {
		err = x.upload(ctx, script, try > 0)
	}
	if err == nil {
		err = x.receive(ctx)
	}
	x.status = x.d.Status
	switch {
	case err == nil || errors.Is(err, errShellBack):
		return err
	case errors.Is(err, ErrClosed):
		return x.s.explain(err, "the command to end", x.start)
	}
	var busy *BusyError
	if errors.As(err, &busy) {
		return err
	}
	return x.abandon(ctx, err)
}

// errRetry: the command did not arrive whole and has not run.
var errRetry = errors.New("the command did not reach the guest whole")

// upload hands the payloads over. Nothing has run unless it returns nil. own
// asks for a sh of its own.
func (x *exchange) upload(ctx context.Context, script func(id string) string, own bool) error {
	id := newID()
	parts := payloads(script(id))
	x.d = NewDecoder(id)
	if err := x.s.send(ctx, bootstrapLine(id, len(parts[0]), own || len(parts) > 1)); err != nil {
		return err
	}
	if err := x.started(ctx); err != nil {
		return err
	}
	base := 0
	for _, p := range parts {
		if err := x.part(ctx, p, base); err != nil {
			return err
		}
		base += len(p)
	}
	return nil
}

// started waits for the child shell. A secondary prompt in its place means that
// the line was taken as more of a half-typed command, a primary one that it was
// not understood.
func (x *exchange) started(ctx context.Context) error {
	start := time.Now()
	for limit := start.Add(uploadWait); !x.d.Ready; {
		err := x.feed(ctx, promptWait)
		switch {
		case err != nil && !errors.Is(err, errQuiet):
			return err
		case time.Now().After(limit):
			return &BusyError{Name: x.s.c.name, Tail: x.s.c.Tail()}
		case err == nil:
		case promptOf(x.s.line, nil) == promptContinued:
			if _, err := x.s.breakOff(ctx, nil); err != nil {
				return err
			}
			return errRetry
		case promptOf(x.s.line, nil) == promptShell && time.Since(start) > refusalWait:
			return errRetry
		}
	}
	return nil
}

// part sends one payload, base bytes of which others came before, in a window
// that follows the acknowledgements.
func (x *exchange) part(ctx context.Context, p string, base int) error {
	limit, acked := time.Now().Add(uploadWait), 0
	for sent := 0; x.d.Acked < base+len(p); {
		if x.d.Acked > acked {
			limit, acked = time.Now().Add(uploadWait), x.d.Acked
		}
		var lines strings.Builder
		for sent < len(p) && base+sent-x.d.Acked < payloadWindow {
			n := min(payloadLine, len(p)-sent)
			lines.WriteString(p[sent:sent+n] + "\n")
			sent += n
		}
		if lines.Len() > 0 {
			if err := x.s.send(ctx, lines.String()); err != nil {
				return err
			}
		}
		if err := x.feed(ctx, time.Until(limit)); err != nil {
			return x.again(ctx, err)
		}
		if x.d.Mismatch {
			return errRetry
		}
	}
	return nil
}

// again ends a guest that still waits for payload after some was lost.
func (x *exchange) again(ctx context.Context, err error) error {
	if !errors.Is(err, errQuiet) {
		return err
	}
	if !x.s.interrupt(ctx) {
		return &BusyError{Name: x.s.c.name, Tail: x.s.c.Tail()}
	}
	return errRetry
}

// errQuiet: nothing came for the time that was set.
var errQuiet = errors.New("no answer")

// feed waits for some output, at most d, and decodes it.
func (x *exchange) feed(ctx context.Context, d time.Duration) error {
	p, quiet, err := x.s.nextWithin(ctx, d)
	if quiet {
		return errQuiet
	}
	if err != nil {
		return err
	}
	out, err := x.d.Feed(p)
	if e := x.deliver(out); e != nil {
		return e
	}
	return err
}

func (x *exchange) deliver(out []byte) error {
	if x.out != nil && len(out) > 0 {
		if _, err := x.out.Write(out); err != nil {
			return fmt.Errorf("write the command's output: %w", err)
		}
		return nil
	}
	if len(x.collected)+len(out) > MaxOutput {
		return fmt.Errorf("%w: more than %d bytes; redirect it in the guest", ErrTooMuchOutput, MaxOutput)
	}
	x.collected = append(x.collected, out...)
	return nil
}

// errShellBack: a prompt came in place of the command's end.
var errShellBack = errors.New("the console's shell came back without the command's end: it was killed, or the guest restarted")

// receive takes the output until its end.
func (x *exchange) receive(ctx context.Context) error {
	var exited time.Time
	for !x.d.Ended {
		err := x.feed(ctx, aliveWait)
		if x.d.Exited && exited.IsZero() {
			exited = time.Now()
		}
		switch {
		case x.d.Exited && time.Since(exited) > aliveWait:
			// The output is complete; the reader waits for a background process
			// because it did not know the trailer.
			x.s.interrupt(ctx)
			return nil
		case errors.Is(err, errQuiet) && promptOf(x.s.line, nil) != promptNone:
			return fmt.Errorf("exec on node %s: %w%s", x.s.c.name, errShellBack, tailText(x.s.c.Tail()))
		case err != nil && !errors.Is(err, errQuiet):
			return err
		}
	}
	return nil
}

// abandon cleans the console up after err and explains it.
func (x *exchange) abandon(ctx context.Context, err error) error {
	after := time.Since(x.start)
	back := x.stop(ctx)
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		err = &TimeoutError{Awaited: "the command to end", After: after, Tail: x.s.c.Tail(), Occupied: !back, Err: err}
	}
	return fmt.Errorf("console of node %s: %w", x.s.c.name, err)
}

// stop ends the command with Ctrl-C, takes what it had written, and reports
// whether the shell is back. It uses a time of its own, since the caller's is
// over when it is needed.
func (x *exchange) stop(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupWait)
	defer cancel()
	if x.s.send(ctx, "\x03") != nil {
		return false
	}
	if x.s.off == x.from { // it has not even echoed the command
		return false
	}
	for limit := time.Now().Add(cleanupWait / 4); !x.d.Ended; {
		if promptOf(x.s.line, nil) == promptShell {
			return true
		}
		if x.feed(ctx, time.Until(limit)) != nil {
			return x.s.interrupt(ctx)
		}
	}
	kind, _ := x.s.waitPrompt(ctx, nil, cleanupWait/4)
	return kind == promptShell
}

// interrupt brings the shell's prompt back, by force where it must.
func (s *session) interrupt(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupWait)
	defer cancel()
	for _, key := range []string{"\x03", "\x1c"} {
		if s.send(ctx, key) != nil {
			return false
		}
		kind, err := s.waitPrompt(ctx, nil, cleanupWait/4)
		if err != nil {
			return false
		}
		if kind == promptShell {
			return true
		}
	}
	return false
}
