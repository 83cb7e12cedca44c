package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// DetachKey is Ctrl-q, the key that leaves a terminal unless another is chosen.
const DetachKey = 0x11

// pipeQuiet is how long the guest must be silent after piped input has ended
// until Attach ends too.
const pipeQuiet = time.Second

// pipePace is how long piped input waits for an echo that may never come.
const pipePace = 50 * time.Millisecond

// ErrSignal is in the chain of the error of a session that a signal ended.
var ErrSignal = errors.New("ended by a signal")

// TerminalOptions are the parts of an interactive session.
type TerminalOptions struct {
	// In is the person's terminal, or a pipe or file for scripts.
	In *os.File
	// Out gets the guest's output; what is not the guest's goes to Notices.
	Out, Notices io.Writer
	// Detach is the key that ends the session; 0 means DetachKey. It counts only
	// where In is a terminal: a pipe may hold any byte.
	Detach byte
	// Replay is earlier output to show first, best the last screenful.
	Replay []byte
	// Resize types "stty rows R cols C" to tell the guest the window's size: at
	// the start and after a change, each time only once the guest shows a shell
	// prompt with nothing typed behind it. A serial line has no other way to say
	// it, and the line remains visible, hence the choice.
	Resize bool
	// Name is the node's name, for messages.
	Name string
}

// Attach joins a terminal to a console stream until the detach key (nil), the
// end of piped input and the silence after it (nil), the end of the stream
// ([ErrClosed]), a signal ([ErrSignal]) or the end of ctx. The terminal's
// settings are restored in each case. The caller closes the stream.
func Attach(ctx context.Context, stream Stream, o TerminalOptions) error {
	if o.Detach == 0 {
		o.Detach = DetachKey
	}
	if o.Notices == nil {
		o.Notices = io.Discard
	}
	t := &terminal{
		o: o, stream: stream, person: term.IsTerminal(int(o.In.Fd())),
		events: make(chan event), answered: make(chan struct{}, 1),
	}
	if t.person {
		old, err := term.MakeRaw(int(o.In.Fd()))
		if err != nil {
			return fmt.Errorf("put the terminal in raw mode: %w", err)
		}
		defer func() { _ = term.Restore(int(o.In.Fd()), old) }()
		// Not before: the key means something else to a terminal that is not raw.
		fmt.Fprintf(o.Notices, "attached to %s; leave with %s\r\n", o.Name, keyName(o.Detach))
	}
	err := t.run(ctx)
	switch {
	case errors.Is(err, ErrClosed):
		fmt.Fprintf(o.Notices, "\r\nthe console of %s ended: the machine stopped or its server closed it\r\n", o.Name)
		return fmt.Errorf("console of node %s: %w", o.Name, err)
	case err == nil && t.person:
		fmt.Fprintf(o.Notices, "\r\nleft %s\r\n", o.Name)
	}
	return err
}

// keyName spells a control key.
func keyName(b byte) string {
	if b < 0x20 {
		return "Ctrl-" + string(rune(b|0x60))
	}
	return fmt.Sprintf("%q", rune(b))
}

// event is something that one of the terminal's two readers saw.
type event struct {
	fromGuest bool
	data      []byte
	err       error
}

type terminal struct {
	o      TerminalOptions
	stream Stream
	person bool
	events chan event
	// answered has a token when the guest printed something.
	answered chan struct{}
	screen   lineScanner
	typing   bool // the person typed since the last prompt was shown
	resize   bool // the guest has yet to be told the window's size
}

func (t *terminal) run(ctx context.Context) error {
	// The reader of the input ends before the terminal is restored, so that it
	// takes no key that is meant for the shell the person returns to.
	wakeR, wakeW, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("attach to a console: %w", err)
	}
	defer wakeR.Close()
	var reader sync.WaitGroup
	defer reader.Wait()
	defer wakeW.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGWINCH)
	defer signal.Stop(signals)

	if err := t.show(withoutQueries(t.o.Replay)); err != nil {
		return err
	}
	t.resize = t.o.Resize && t.person
	reader.Go(func() { t.readInput(ctx, wakeR) })
	go t.readGuest(ctx) // ends with the stream, which the caller closes
	return t.loop(ctx, signals)
}

// loop moves bytes between the two sides.
func (t *terminal) loop(ctx context.Context, signals <-chan os.Signal) error {
	quiet := time.NewTimer(time.Hour)
	defer quiet.Stop()
	inputEnded := false
	for {
		quiet.Reset(t.patience(inputEnded))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s := <-signals:
			if s != syscall.SIGWINCH {
				return fmt.Errorf("console of node %s: %w: %v", t.o.Name, ErrSignal, s)
			}
			t.resize = t.o.Resize && t.person
		case <-quiet.C:
			if inputEnded {
				return nil
			}
			if err := t.tellSize(ctx); err != nil {
				return err
			}
		case e := <-t.events:
			done, err := t.handle(ctx, e)
			if done || err != nil {
				return err
			}
			inputEnded = inputEnded || !e.fromGuest && e.err != nil
		}
	}
}

// patience is how long to wait for the next event.
func (t *terminal) patience(inputEnded bool) time.Duration {
	switch {
	case inputEnded:
		return pipeQuiet
	case t.resize && !t.typing && isPrompt(t.screen.partial(), nil):
		return 2 * settleTime
	}
	return time.Hour
}

func (t *terminal) handle(ctx context.Context, e event) (done bool, err error) {
	switch {
	case e.fromGuest && e.err != nil:
		return true, fmt.Errorf("%w: %w", ErrClosed, e.err)
	case e.fromGuest:
		return false, t.show(e.data)
	case e.err != nil:
		// The end of a person's terminal means that the person is gone.
		return t.person, nil
	}
	data := e.data
	if i := bytes.IndexByte(data, t.o.Detach); t.person && i >= 0 {
		data, done = data[:i], true
	}
	t.typing = t.typing || len(data) > 0
	return done, t.write(ctx, data)
}

func (t *terminal) show(p []byte) error {
	t.screen.onLine = func(string) { t.typing = false }
	_, _ = t.screen.Write(p)
	select {
	case t.answered <- struct{}{}:
	default:
	}
	if _, err := t.o.Out.Write(p); err != nil {
		return fmt.Errorf("show the console of node %s: %w", t.o.Name, err)
	}
	return nil
}

// write sends to the guest. A guest that does not read must not keep the person
// from leaving, so a write has a deadline.
func (t *terminal) write(ctx context.Context, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	_ = t.stream.SetWriteDeadline(time.Now().Add(10 * time.Second))
	if _, err := t.stream.Write(p); err != nil && ctx.Err() == nil {
		return fmt.Errorf("%w: write: %w", ErrClosed, err)
	}
	return nil
}

func (t *terminal) tellSize(ctx context.Context) error {
	cols, rows, err := term.GetSize(int(t.o.In.Fd()))
	t.resize = false
	if err != nil || cols < 1 || rows < 1 {
		return nil
	}
	return t.write(ctx, fmt.Appendf(nil, " stty rows %d cols %d\r", rows, cols))
}

func (t *terminal) post(ctx context.Context, e event) bool {
	select {
	case t.events <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

func (t *terminal) readGuest(ctx context.Context) {
	for {
		buf := make([]byte, readSize)
		n, err := t.stream.Read(buf)
		if n > 0 && !t.post(ctx, event{fromGuest: true, data: buf[:n]}) {
			return
		}
		if err != nil {
			t.post(ctx, event{fromGuest: true, err: err})
			return
		}
	}
}

// readInput reads the person's side until it ends or wake is closed. poll(2)
// comes before each read because a read of a terminal cannot be called off.
func (t *terminal) readInput(ctx context.Context, wake *os.File) {
	in := int(t.o.In.Fd())
	fds := []unix.PollFd{{Fd: int32(in), Events: unix.POLLIN}, {Fd: int32(wake.Fd()), Events: unix.POLLIN}}
	buf := make([]byte, 512)
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			t.post(ctx, event{err: err})
			return
		} else if err != nil {
			continue
		}
		if fds[1].Revents != 0 {
			return
		}
		n, err := unix.Read(in, buf)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		if n <= 0 || err != nil {
			t.post(ctx, event{err: io.EOF})
			return
		}
		if !t.post(ctx, event{data: bytes.Clone(buf[:n])}) || !t.pace(ctx) {
			return
		}
	}
}

// pace holds piped input back until the guest has answered the last of it, most
// often with its echo, or pipePace has passed: a guest's terminal drops what it
// has no room for.
func (t *terminal) pace(ctx context.Context) bool {
	if t.person {
		return true
	}
	limit := time.NewTimer(pipePace)
	defer limit.Stop()
	select {
	case <-t.answered:
	case <-limit.C:
	case <-ctx.Done():
		return false
	}
	return true
}

// withoutQueries removes the questions to a terminal from old output (cursor
// position, device attributes): an answer now would be typed at the guest.
func withoutQueries(p []byte) []byte {
	for _, q := range []string{"\x1b[6n", "\x1b[5n", "\x1b[c", "\x1b[0c", "\x1b[>c", "\x1b[>0c", "\x1bZ"} {
		p = bytes.ReplaceAll(p, []byte(q), nil)
	}
	return p
}
