package sim

import (
	"bytes"
	"io"
	"sync"
)

// terminal is the guest's end of the console: a line discipline between what
// is typed and a session that reads lines.
type terminal struct {
	mu   sync.Mutex
	cond *sync.Cond // something was typed, printed, or the terminal closed

	out    []byte // printed and not yet taken by the host
	lines  []string
	typed  []byte // of the line that has no end yet
	secret bool   // typed characters are not shown
	quiet  bool   // nor are lines: an exchange's payload
	closed bool
	hung   bool // the session has been ended
	// interrupt is called, with mu held, for Ctrl-C.
	interrupt func()
	eof       bool // Ctrl-D at the beginning of a line
	broken    bool // Ctrl-C since the last line was read
}

func newTerminal() *terminal {
	t := &terminal{}
	t.cond = sync.NewCond(&t.mu)
	return t
}

// maxTyped is the longest line, as on Linux.
const maxTyped = 4095

// maxWaiting is how much output waits for the host before the guest must.
const maxWaiting = 1 << 20

// port is the host's end of a terminal.
type port struct{ t *terminal }

// Read takes what the guest has printed.
func (p port) Read(b []byte) (int, error) {
	t := p.t
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.out) == 0 {
		if t.closed {
			return 0, io.EOF
		}
		t.cond.Wait()
	}
	n := copy(b, t.out)
	if t.out = t.out[n:]; len(t.out) == 0 {
		t.out = nil
		t.cond.Broadcast()
	}
	return n, nil
}

// Write types.
func (p port) Write(b []byte) (int, error) {
	t := p.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return 0, io.ErrClosedPipe
	}
	for _, c := range b {
		t.key(c)
	}
	t.cond.Broadcast()
	return len(b), nil
}

// Close takes the terminal away.
func (p port) Close() error {
	p.t.close()
	return nil
}

func (t *terminal) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.cond.Broadcast()
}

// key takes one typed byte.
func (t *terminal) key(c byte) {
	switch {
	case c == '\r' || c == '\n':
		t.echo("\r\n")
		t.lines = append(t.lines, string(t.typed))
		t.typed = t.typed[:0]
	case c == 3: // Ctrl-C
		t.echo("^C\r\n")
		t.typed, t.lines, t.broken = t.typed[:0], nil, true
		if t.interrupt != nil {
			t.interrupt()
		}
	case c == 4: // Ctrl-D
		t.eof = t.eof || len(t.typed) == 0
	case c == 0x15: // Ctrl-U
		t.erase(len(t.typed))
	case c == 0x7f || c == '\b':
		t.erase(min(1, len(t.typed)))
	case c < 0x20 && c != '\t' || len(t.typed) >= maxTyped:
		// What moves a cursor in a line editor has no use here.
	default:
		t.typed = append(t.typed, c)
		if !t.secret {
			t.echo(string([]byte{c}))
		}
	}
}

func (t *terminal) erase(n int) {
	t.typed = t.typed[:len(t.typed)-n]
	if !t.secret {
		t.echo(string(bytes.Repeat([]byte("\b \b"), n)))
	}
}

func (t *terminal) echo(s string) {
	if !t.quiet {
		t.out = append(t.out, s...)
	}
}

// Write prints. A line's end returns the carriage, as terminals do.
func (t *terminal) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.out) > maxWaiting && !t.closed {
		t.cond.Wait()
	}
	if t.closed {
		return 0, io.ErrClosedPipe
	}
	for rest := b; len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte{'\n'})
		t.out = append(t.out, line...)
		if ended {
			t.out = append(t.out, '\r', '\n')
		}
		rest = after
	}
	t.cond.Broadcast()
	return len(b), nil
}

// brokenError says that Ctrl-C was pressed.
type brokenError struct{}

func (brokenError) Error() string { return "interrupted" }

// readLine returns the next typed line. Its error is a brokenError after
// Ctrl-C, io.EOF after Ctrl-D, and io.ErrClosedPipe when the terminal has gone.
func (t *terminal) readLine() (string, error) { return t.readLineUntil(nil) }

// readLineUntil is readLine that returns io.ErrClosedPipe as well once stop is
// set.
func (t *terminal) readLineUntil(stop *bool) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		switch {
		case stop != nil && *stop:
			return "", io.ErrClosedPipe
		case t.closed || t.hung:
			return "", io.ErrClosedPipe
		case t.broken:
			t.broken = false
			return "", brokenError{}
		case len(t.lines) > 0:
			line := t.lines[0]
			t.lines = t.lines[1:]
			return line, nil
		case t.eof:
			t.eof = false
			return "", io.EOF
		}
		t.cond.Wait()
	}
}

// stopReading sets the stop of a readLineUntil.
func (t *terminal) stopReading(stop *bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	*stop = true
	t.cond.Broadcast()
}

// unread makes lines the next ones.
func (t *terminal) unread(lines []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(lines, t.lines...)
}

// hangUp ends the session that reads lines, begin starts another.
func (t *terminal) hangUp() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hung = true
	t.cond.Broadcast()
}

func (t *terminal) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hung, t.secret, t.quiet, t.eof, t.broken = false, false, false, false, false
	t.lines, t.typed, t.interrupt = nil, nil, nil
}

// set changes how the terminal echoes.
func (t *terminal) set(secret, quiet bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.secret, t.quiet = secret, quiet
}

// onInterrupt has f called for Ctrl-C, and forgets one from before.
func (t *terminal) onInterrupt(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.interrupt, t.broken = f, false
}
