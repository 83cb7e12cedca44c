package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// noisy inserts kernel messages into what is read, at random places.
type noisy struct {
	Stream
	rng   *rand.Rand
	every int // bytes between messages, on average
	held  []byte
	count atomic.Int64
}

func (n *noisy) Read(p []byte) (int, error) {
	if len(n.held) == 0 {
		buf := make([]byte, 1024)
		k, err := n.Stream.Read(buf)
		if err != nil {
			return 0, err
		}
		for _, b := range buf[:k] {
			if n.rng.IntN(n.every) == 0 {
				i := n.count.Add(1)
				n.held = fmt.Appendf(n.held, "[%5d.%06d] eth0: renamed from veth%x\r\n", i, i, i)
			}
			n.held = append(n.held, b)
		}
	}
	k := copy(p, n.held)
	n.held = n.held[k:]
	return k, nil
}

func TestExecSurvivesKernelMessagesInItsOutput(t *testing.T) {
	want := testBytes(200 << 10)
	file := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(file, want, 0o600); err != nil {
		t.Fatal(err)
	}
	eachShell(t, func(t *testing.T, argv []string) {
		n := &noisy{Stream: startPty(t, t.TempDir(), argv...), rng: rand.New(rand.NewPCG(1, 2)), every: 3000}
		c := consoleOn(t, n)
		for i := range 5 {
			if res := mustExec(t, c, "cat "+file); !bytes.Equal(res.Output, want) {
				t.Fatalf("run %d: %d bytes, want %d", i, len(res.Output), len(want))
			}
			if res := mustExec(t, c, "echo short; exit 3"); string(res.Output) != "short\n" || res.Status != 3 {
				t.Fatalf("run %d: %q status %d", i, res.Output, res.Status)
			}
		}
		if n.count.Load() < 100 {
			t.Errorf("only %d messages were inserted", n.count.Load())
		}
	})
}

// pipeStream is a console whose guest end the test plays.
func pipeStream(t *testing.T) (Stream, net.Conn) {
	t.Helper()
	ours, guest := net.Pipe()
	t.Cleanup(func() { _ = guest.Close(); _ = ours.Close() })
	return ours, guest
}

// flood writes text again and again until the other end is closed.
func flood(w io.Writer, text string) {
	p := []byte(strings.Repeat(text, 1+8192/len(text)))
	for {
		if _, err := w.Write(p); err != nil {
			return
		}
	}
}

func TestAFloodNeitherGrowsMemoryNorStarvesTheDeadline(t *testing.T) {
	s, guest := pipeStream(t)
	c := consoleOn(t, s)
	go flood(guest, "spam and no prompt, spam without end; ")
	go func() { _, _ = io.Copy(io.Discard, guest) }()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	err := c.Login(within(t, 700*time.Millisecond), Profile{})
	var te *TimeoutError
	if !errors.As(err, &te) || !te.Timeout() || !strings.Contains(err.Error(), "spam without end") {
		t.Errorf("error %v", err)
	}
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("the deadline of 0.7 s passed after %v", d)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
}

func TestExecGivesUpOnAFloodedConsole(t *testing.T) {
	s, guest := pipeStream(t)
	c := consoleOn(t, s)
	go flood(guest, "spam\r\n")
	go func() { _, _ = io.Copy(io.Discard, guest) }()
	var busy *BusyError
	if _, err := c.Exec(within(t, 20*time.Second), Command{Shell: "true"}); !errors.As(err, &busy) {
		t.Errorf("error %v", err)
	}
}

func TestAGuestThatDoesNotReadCannotHoldTheCaller(t *testing.T) {
	s, guest := pipeStream(t)
	c := consoleOn(t, s)
	go func() { _, _ = io.WriteString(guest, "violin login: ") }()
	err := c.Login(within(t, 500*time.Millisecond), Profile{Known: true, User: "root"})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestTheEndOfTheStreamEndsEveryWait(t *testing.T) {
	waits := map[string]func(context.Context, *Console) error{
		"login": func(ctx context.Context, c *Console) error { return c.Login(ctx, Profile{}) },
		"exec": func(ctx context.Context, c *Console) error {
			_, err := c.Exec(ctx, Command{Shell: "true"})
			return err
		},
		"line": func(ctx context.Context, c *Console) error {
			_, err := c.WaitLine(ctx, "a line", func(string, bool) bool { return false })
			return err
		},
	}
	for name, wait := range waits {
		t.Run(name, func(t *testing.T) {
			s, guest := pipeStream(t)
			c := consoleOn(t, s)
			go func() {
				_, _ = io.WriteString(guest, "Kernel panic - not syncing\r\n")
				_ = guest.Close()
			}()
			err := wait(within(t, 10*time.Second), c)
			if !errors.Is(err, ErrClosed) || !strings.Contains(err.Error(), "Kernel panic") {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestWaitLineSeesPartialLinesAndThoseFromBefore(t *testing.T) {
	s, guest := pipeStream(t)
	c := consoleOn(t, s)
	_, _ = io.WriteString(guest, "first\r\n\x1b[1mreboot: Power ")
	got, err := c.WaitLine(within(t, 5*time.Second), "first", func(l string, whole bool) bool { return l == "first" && whole })
	if err != nil || got != "first" {
		t.Fatalf("%q, %v", got, err)
	}
	go func() { _, _ = io.WriteString(guest, "down") }()
	got, err = c.WaitLine(within(t, 5*time.Second), "power down", func(l string, whole bool) bool { return strings.HasSuffix(l, "down") })
	if err != nil || !strings.HasSuffix(got, "down") {
		t.Errorf("%q, %v", got, err)
	}
}

func TestOperationsTakeTurns(t *testing.T) {
	c := shellConsole(t, shells["bash"])
	done := make(chan error, 8)
	for i := range 8 {
		go func() {
			res, err := c.Exec(within(t, 60*time.Second), Command{Shell: fmt.Sprint("echo ", i)})
			if want := fmt.Sprintln(i); err == nil && string(res.Output) != want {
				err = fmt.Errorf("got %q, want %q", res.Output, want)
			}
			done <- err
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestExecStopsACommandWhoseCallerGivesUp(t *testing.T) {
	c := shellConsole(t, shells["bash"])
	ctx, cancel := context.WithCancel(within(t, 30*time.Second))
	time.AfterFunc(500*time.Millisecond, cancel)
	_, err := c.Exec(ctx, Command{Shell: "sleep 100"})
	var te *TimeoutError
	if !errors.As(err, &te) || !te.Canceled() || te.Occupied {
		t.Fatalf("error %v", err)
	}
	if res := mustExec(t, c, "echo back"); string(res.Output) != "back\n" {
		t.Errorf("got %q", res.Output)
	}
}

func TestExecSaysSoWhenItsShellWasKilled(t *testing.T) {
	c := shellConsole(t, shells["bash"])
	start := time.Now()
	_, err := c.Exec(within(t, 30*time.Second), Command{Shell: "kill -9 0"})
	if !errors.Is(err, errShellBack) || time.Since(start) > 10*time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
}

func TestLineScannerShowsWhatAPersonSees(t *testing.T) {
	for raw, want := range map[string]string{
		"plain\r\n":                      "plain",
		"\x1b[1;32mgreen\x1b[0m\r\n":     "green",
		"\x1b]0;title\aname\r\n":         "name",
		"\x1b]0;title\x1b\\name\r\n":     "name",
		"10%\r20%\r\n":                   "20%",
		"abc\b\bX\r\n":                   "aX",
		"\x1b[6n# \r\n":                  "# ",
		"bell\a\x00\r\n":                 "bell",
		"\x1b(Bcharset\r\n":              "charset",
		"\x1bPdcs never ended\nnext\r\n": "next",
	} {
		var lines []string
		s := lineScanner{onLine: func(l string) { lines = append(lines, l) }}
		for i := range len(raw) {
			_, _ = s.Write([]byte{raw[i]})
		}
		if len(lines) == 0 || lines[len(lines)-1] != want {
			t.Errorf("%q: %q, want %q", raw, lines, want)
		}
	}
}

func TestPromptsAreToldFromText(t *testing.T) {
	for line, want := range map[string]promptKind{
		"# ": promptShell, "root@violin:~# ": promptShell, "$ ": promptShell, "host% ": promptShell, "~ #": promptShell,
		"root@violin:~# [   12.345678] random: crng init done": promptShell,
		"> ": promptContinued, "violin login: ": promptLogin, "helios console login: ": promptLogin,
		"login: ": promptLogin, "violin login:[   12.345678] eth0: up": promptLogin,
		"": promptNone, "Last login: ": promptNone, "systemd-logind: New login: ro": promptNone,
		"half # typed": promptNone, "Password: ": promptNone,
	} {
		if got := promptOf(line, nil); got != want {
			t.Errorf("%q: %d, want %d", line, got, want)
		}
	}
}

func TestTailIsReadable(t *testing.T) {
	var b strings.Builder
	for i := range 30 {
		fmt.Fprintf(&b, "\x1b[0mline %d\a\r\n", i)
	}
	s, _ := pipeStream(t)
	c := New(s, Options{History: []byte(b.String() + "part\xff")})
	defer func() { _ = c.Close() }()
	lines := strings.Split(c.Tail(), "\n")
	if len(lines) != tailLines || lines[0] != "line 11" || lines[tailLines-1] != "part\uFFFD" {
		t.Errorf("got %q", lines)
	}
}

func FuzzLineScanner(f *testing.F) {
	f.Add([]byte("\x1b[1mhello\r\nworld\b\x1b]0;x\a"))
	f.Fuzz(func(t *testing.T, p []byte) {
		s := lineScanner{onLine: func(l string) {
			if strings.ContainsAny(l, "\n\r\x1b\x00") || len(l) > maxLine {
				t.Errorf("line %q", l)
			}
		}}
		_, _ = s.Write(p)
		_ = promptOf(s.partial(), nil)
	})
}
