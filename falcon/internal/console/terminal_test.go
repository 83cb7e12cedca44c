package console

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"
)

// watched is a writer whose text can be waited for.
type watched struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func newWatched() *watched { return &watched{more: make(chan struct{}, 1)} }

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(p)
	select {
	case w.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

func (w *watched) waitFor(t *testing.T, text string) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for !strings.Contains(w.String(), text) {
		select {
		case <-w.more:
		case <-limit:
			t.Fatalf("%q did not come; seen: %q", text, w.String())
		}
	}
}

// person is one who sits at a terminal that is attached to a guest.
type person struct {
	keys, tty    *os.File
	seen, notice *watched
	left         chan error
	before       *term.State
	cancel       context.CancelFunc
}

// sitDown attaches a new terminal to s.
func sitDown(t *testing.T, s Stream, o TerminalOptions) *person {
	t.Helper()
	keys, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	p := &person{keys: keys, tty: tty, seen: newWatched(), notice: newWatched(), left: make(chan error, 1)}
	if p.before, err = term.GetState(int(tty.Fd())); err != nil {
		t.Fatal(err)
	}
	if err := pty.Setsize(keys, &pty.Winsize{Rows: 33, Cols: 111}); err != nil {
		t.Fatal(err)
	}
	o.In, o.Out, o.Notices, o.Name = tty, p.seen, p.notice, "violin"
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	var attached sync.WaitGroup
	attached.Go(func() { p.left <- Attach(ctx, s, o) })
	t.Cleanup(func() {
		cancel()
		attached.Wait()
		_ = keys.Close()
		_ = tty.Close()
	})
	p.notice.waitFor(t, "leave with Ctrl-q")
	return p
}

func (p *person) press(t *testing.T, keys string) {
	t.Helper()
	if _, err := io.WriteString(p.keys, keys); err != nil {
		t.Fatal(err)
	}
}

// leave waits for the end and checks that the terminal is as it was.
func (p *person) leave(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.left:
		after, e := term.GetState(int(p.tty.Fd()))
		if e != nil || *after != *p.before {
			t.Errorf("the terminal was not restored (%v)", e)
		}
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("the session did not end")
		return nil
	}
}

func TestATerminalIsJoinedToTheGuestAndLeftWithCtrlQ(t *testing.T) {
	guest := startPty(t, t.TempDir(), shells["bash"]...)
	p := sitDown(t, guest, TerminalOptions{Replay: []byte("earlier\r\nnode# \x1b[6n")})
	p.seen.waitFor(t, "earlier\r\nnode# ")
	p.press(t, "echo $((6*7))\r")
	p.seen.waitFor(t, "\r42\r\n")
	// Ctrl-C only once the command runs: bash, on its way to start one, swallows the key.
	p.press(t, "sh -c 'echo up; exec cat'\r")
	p.seen.waitFor(t, "\rup\r\n")
	p.press(t, "\x03")
	p.seen.waitFor(t, "^C")
	p.press(t, "\x11")
	if err := p.leave(t); err != nil {
		t.Errorf("error %v", err)
	}
	if s := p.seen.String(); strings.Contains(s, "\x1b[6n") {
		t.Errorf("a query was replayed: %q", s)
	}
}

func TestKeysBeforeTheDetachKeyReachTheGuest(t *testing.T) {
	ours, guest := net.Pipe()
	defer ours.Close()
	got := make(chan string, 1)
	go func() {
		buf := make([]byte, 10)
		n, _ := guest.Read(buf)
		got <- string(buf[:n])
	}()
	p := sitDown(t, ours, TerminalOptions{})
	p.press(t, "ab\x11cd")
	if err := p.leave(t); err != nil || <-got != "ab" {
		t.Errorf("error %v", err)
	}
}

func TestTheWindowSizeIsTypedAtAPromptOnly(t *testing.T) {
	guest := startPty(t, t.TempDir(), "sh", "-c", "echo booting; read go; exec bash --norc --noprofile -i")
	p := sitDown(t, guest, TerminalOptions{Resize: true})
	p.seen.waitFor(t, "booting")
	time.Sleep(5 * settleTime) // nothing must come, which no event tells
	if s := p.seen.String(); strings.Contains(s, "stty") {
		t.Fatalf("the size was typed at no prompt: %q", s)
	}
	p.press(t, "\r")
	p.seen.waitFor(t, "stty rows 33 cols 111")
	p.press(t, "stty size\r")
	p.seen.waitFor(t, "\r33 111\r\n")
	if err := pty.Setsize(p.keys, &pty.Winsize{Rows: 44, Cols: 122}); err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGWINCH)
	p.seen.waitFor(t, "stty rows 44 cols 122")
	p.press(t, "\x11")
	_ = p.leave(t)
}

func TestTheTerminalIsRestoredHoweverTheSessionEnds(t *testing.T) {
	ends := map[string]struct {
		do   func(p *person, guest net.Conn)
		want error
	}{
		"machine stopped": {func(_ *person, guest net.Conn) { _ = guest.Close() }, ErrClosed},
		"context":         {func(p *person, _ net.Conn) { p.cancel() }, context.Canceled},
		"SIGTERM":         {func(*person, net.Conn) { _ = syscall.Kill(os.Getpid(), syscall.SIGTERM) }, ErrSignal},
		"SIGHUP":          {func(*person, net.Conn) { _ = syscall.Kill(os.Getpid(), syscall.SIGHUP) }, ErrSignal},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			ours, guest := net.Pipe()
			defer ours.Close()
			defer guest.Close()
			p := sitDown(t, ours, TerminalOptions{})
			_, _ = io.WriteString(guest, "hello")
			p.seen.waitFor(t, "hello")
			end.do(p, guest)
			if err := p.leave(t); !errors.Is(err, end.want) {
				t.Errorf("error %v, want %v", err, end.want)
			}
			if name == "machine stopped" && !strings.Contains(p.notice.String(), "the console of violin ended") {
				t.Errorf("notice %q", p.notice.String())
			}
		})
	}
}

func TestPipedInputIsSentWholeAndThenTheSessionEnds(t *testing.T) {
	dir := t.TempDir()
	guest := startPty(t, dir, shells["dash"]...)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	line := "echo " + strings.Repeat("x", 60) + " >>out\n"
	go func() {
		_, _ = io.WriteString(w, strings.Repeat(line, 300)+"echo \x11 | wc -c; wc -l <out\n")
		_ = w.Close()
	}()
	seen := newWatched()
	if err := Attach(within(t, 60*time.Second), guest, TerminalOptions{In: r, Out: seen, Name: "violin"}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(seen.String(), "\n300\r\n") {
		s := seen.String()
		t.Errorf("not all lines arrived: %q", s[max(0, len(s)-300):])
	}
}
