package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	historySize = 64 << 10 // raw bytes kept for error texts and slow waiters
	readSize    = 16 << 10 // one read; must be well below historySize
	tailLines   = 20       // lines of history in an error
)

// Stream is a console as raw bytes: a Propolis serial connection, a pty.
type Stream interface {
	io.ReadWriteCloser // Close must end a Read
	// SetWriteDeadline ends a write to a guest that does not read.
	SetWriteDeadline(time.Time) error
}

// Options are the optional parts of [New].
type Options struct {
	Name    string // the node's name, for errors
	History []byte // console output from before the stream began, if known
}

// Console is one reader of a console stream. Its methods may be called
// concurrently; the operations (WaitLine, Login, Exec) then take turns.
type Console struct {
	name   string
	stream Stream
	turn   chan struct{} // holds a token while an operation runs
	done   chan struct{} // closed when the reader has returned

	mu      sync.Mutex
	room    sync.Cond     // the waiter advanced, or the console was closed
	changed chan struct{} // closed and replaced whenever bytes or an error come
	ring    [historySize]byte
	end     int64  // bytes read since the beginning
	held    int64  // first byte that an operation still needs; -1 for none
	seen    int64  // where the last operation stopped reading
	line    string // the unterminated line there
	screen  lineScanner
	err     error
	closed  bool
}

// New starts reading s. The console owns s; Close closes it.
func New(s Stream, o Options) *Console {
	if o.Name == "" {
		o.Name = "?"
	}
	c := &Console{
		name: o.Name, stream: s, held: -1,
		turn: make(chan struct{}, 1), done: make(chan struct{}), changed: make(chan struct{}),
	}
	c.room.L = &c.mu
	for h := o.History; len(h) > 0; {
		n := min(len(h), readSize)
		c.store(h[:n])
		h = h[n:]
	}
	c.seen, c.line = c.end, c.screen.partial()
	go c.read()
	return c
}

// Close ends the reader and closes the stream.
func (c *Console) Close() error {
	c.mu.Lock()
	c.closed = true
	c.room.Broadcast()
	c.mu.Unlock()
	err := c.stream.Close()
	<-c.done
	return err
}

// Tail gives the last lines of output as text without control characters.
func (c *Console) Tail() string {
	c.mu.Lock()
	raw := c.copyFrom(max(0, c.end-historySize))
	c.mu.Unlock()
	return lastLines(raw, tailLines)
}

func (c *Console) read() {
	defer close(c.done)
	buf := make([]byte, readSize)
	for {
		n, err := c.stream.Read(buf)
		if n > 0 {
			c.store(buf[:n])
		}
		if err != nil {
			c.fail(err)
			return
		}
	}
}

func (c *Console) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = fmt.Errorf("%w: %w", ErrClosed, err)
	if errors.Is(err, io.EOF) || c.closed {
		c.err = ErrClosed
	}
	c.wake()
}

// store appends to the history. It waits while a running operation still needs
// what would be overwritten, so a flood costs the sender time, not us memory.
func (c *Console) store(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.closed && c.held >= 0 && c.end+int64(len(p))-c.held > historySize {
		c.room.Wait()
	}
	at := int(c.end % historySize)
	n := copy(c.ring[at:], p)
	copy(c.ring[:], p[n:])
	c.end += int64(len(p))
	_, _ = c.screen.Write(p)
	c.wake()
}

func (c *Console) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// copyFrom copies the history from offset off on. The lock is held.
func (c *Console) copyFrom(off int64) []byte {
	p := make([]byte, c.end-off)
	at := int(off % historySize)
	n := copy(p, c.ring[at:])
	copy(p[n:], c.ring[:])
	return p
}

// begin takes the turn and fixes the place from which the operation reads: the
// end of the output so far, or with unread the end of the last operation.
func (c *Console) begin(ctx context.Context, unread bool) (*session, error) {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the console of node %s: %w", c.name, ctx.Err())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &session{c: c, off: c.end, line: c.screen.partial()}
	if unread {
		s.off, s.line = c.seen, c.line
		if oldest := c.end - historySize; s.off < oldest {
			s.off, s.line = oldest, ""
		}
	}
	c.held = s.off
	return s, nil
}

// session is one operation's view of the console.
type session struct {
	c    *Console
	off  int64
	line string // the unterminated line at off; empty after a send until bytes come
}

func (s *session) close() {
	s.c.mu.Lock()
	s.c.held, s.c.seen, s.c.line = -1, s.off, s.line
	s.c.room.Broadcast()
	s.c.mu.Unlock()
	<-s.c.turn
}

// next gives the bytes since the last call, waiting for some. A context that is
// over wins against bytes, so a flood cannot postpone a deadline.
func (s *session) next(ctx context.Context) ([]byte, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p, changed, err := s.poll()
		if len(p) > 0 || err != nil {
			return p, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func (s *session) poll() ([]byte, <-chan struct{}, error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.off == c.end {
		return nil, c.changed, c.err
	}
	p := c.copyFrom(s.off)
	s.off, s.line = c.end, c.screen.partial()
	c.held = s.off
	c.room.Broadcast()
	return p, nil, nil
}

// nextWithin is next with a time limit of its own; quiet reports that it passed.
func (s *session) nextWithin(ctx context.Context, d time.Duration) (p []byte, quiet bool, err error) {
	short, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	p, err = s.next(short)
	if err != nil && short.Err() != nil && ctx.Err() == nil {
		return nil, true, nil
	}
	return p, false, err
}

// send writes to the guest, giving up when ctx is over.
func (s *session) send(ctx context.Context, text string) error {
	s.line = "" // what stands there now says nothing about the answer
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = s.c.stream.SetWriteDeadline(time.Unix(1, 0))
		close(cut)
	})
	_, err := io.WriteString(s.c.stream, text)
	if !stop() {
		<-cut
		_ = s.c.stream.SetWriteDeadline(time.Time{})
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("write to the console of node %s: %w: %w", s.c.name, ErrClosed, err)
}

// explain turns a context's end into a TimeoutError, and names the node.
func (s *session) explain(err error, awaited string, since time.Time) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		err = &TimeoutError{Awaited: awaited, After: time.Since(since), Tail: s.c.Tail(), Err: err}
	} else if errors.Is(err, ErrClosed) {
		err = fmt.Errorf("waiting for %s: %w%s", awaited, err, tailText(s.c.Tail()))
	}
	return fmt.Errorf("console of node %s: %w", s.c.name, err)
}

// WaitLine waits until match accepts a line, which is given without control
// characters, first while it may still grow (complete is false) and then whole.
// It sees everything since the last operation. awaited is for the error.
func (c *Console) WaitLine(ctx context.Context, awaited string, match func(line string, complete bool) bool) (string, error) {
	start := time.Now()
	s, err := c.begin(ctx, true)
	if err != nil {
		return "", err
	}
	defer s.close()
	var found string
	ok := false
	lines := lineScanner{onLine: func(l string) {
		if !ok && match(l, true) {
			found, ok = l, true
		}
	}}
	for {
		p, err := s.next(ctx)
		if err != nil {
			return "", s.explain(err, awaited, start)
		}
		_, _ = lines.Write(p)
		if l := lines.partial(); !ok && l != "" && match(l, false) {
			found, ok = l, true
		}
		if ok {
			return found, nil
		}
	}
}
