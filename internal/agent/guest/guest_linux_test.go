package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/internal/agent"
	"github.com/falcon-vm/falcon-go/internal/mux"
)

// ports returns the two ends of what stands for a virtio-serial port.
func ports(t testing.TB) (host, guest *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fds[0]), "host"), os.NewFile(uintptr(fds[1]), "guest")
}

// start serves a guest on this machine and returns a client of it.
func start(t testing.TB) *agent.Client {
	t.Helper()
	host, guest := ports(t)
	go Serve(guest)
	s := mux.Host(host)
	t.Cleanup(func() { s.Close() })
	return agent.New(func(ctx context.Context) (io.ReadWriteCloser, error) { return s.Open(ctx, nil) })
}

// within is a context that ends before the test's patience does.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// The port is read and written by system calls of its own making.
func TestThePortPassesAllThatIsWritten(t *testing.T) {
	host, guest := ports(t)
	raw, err := guest.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	p := &port{File: guest, raw: raw}
	defer host.Close()
	want := make([]byte, 3<<20)
	for i := range want {
		want[i] = byte(i * 7 >> 8)
	}
	go func() { // back as it comes
		buf := make([]byte, 100_000)
		for {
			n, err := p.Read(buf)
			if err == nil {
				_, err = p.Write(buf[:n])
			}
			if err != nil {
				return
			}
		}
	}()
	go func() { _, _ = host.Write(want) }() // what is missing is seen
	got := make([]byte, len(want))
	if err := host.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := io.ReadFull(host, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", n, len(want), err)
	}
	p.Close()
	if n, err := p.Read(got); err == nil {
		t.Errorf("%d bytes came from a closed port", n)
	}
	if n, err := p.Write(got); err == nil {
		t.Errorf("%d bytes went to a closed port", n)
	}
}

// sh is a command for the shell.
func sh(script string) agent.Exec { return agent.Exec{Argv: []string{"sh", "-c", script}, Dir: "/"} }

func TestExecSeparatesOutputAndReportsHowItEnded(t *testing.T) {
	c := start(t)
	for name, want := range map[string]struct {
		cmd         agent.Exec
		out, err    string
		status, sig int
	}{
		"both":        {cmd: sh("echo out; echo err >&2; exit 3"), out: "out\n", err: "err\n", status: 3},
		"signal":      {cmd: sh("kill -9 $$"), sig: 9},
		"environment": {cmd: agent.Exec{Argv: []string{"sh", "-c", "echo $A $PATH"}, Env: []string{"A=b c", "PATH=/bin"}, Dir: "/"}, out: "b c /bin\n"},
		"folder":      {cmd: agent.Exec{Argv: []string{"pwd"}, Dir: "/usr"}, out: "/usr\n"},
		"background":  {cmd: sh("sleep 60 & echo $!"), out: "*"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			began := time.Now()
			exit, err := c.Exec(within(t, 20*time.Second), agent.Command{Exec: want.cmd, Stdout: &out, Stderr: &errs})
			if err != nil {
				t.Fatal(err)
			}
			if want.out == "*" {
				want.out = out.String()
				var pid int
				if fmt.Sscan(want.out, &pid); unix.Kill(pid, unix.SIGKILL) != nil || time.Since(began) > 10*time.Second {
					t.Errorf("the background process %q has ended, or was waited for", want.out)
				}
			}
			if exit.Status != want.status || exit.Signal != want.sig || out.String() != want.out || errs.String() != want.err {
				t.Errorf("%+v, stdout %q, stderr %q", exit, out.String(), errs.String())
			}
		})
	}
}

func TestExecFailsWithAReason(t *testing.T) {
	c := start(t)
	for want, cmd := range map[string]agent.Exec{
		"there is no program no-such":     {Argv: []string{"no-such"}, Dir: "/"},
		"there is no folder /none":        {Argv: []string{"true"}, Dir: "/none"},
		"no command is given":             {},
		"running /etc/passwd: permission": {Argv: []string{"/etc/passwd"}, Dir: "/"},
	} {
		if _, err := c.Exec(within(t, 10*time.Second), agent.Command{Exec: cmd}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", cmd.Argv, err, want)
		}
	}
}

func TestExecTakesInput(t *testing.T) {
	c := start(t)
	input := bytes.Repeat([]byte("some input\n"), 100_000)
	var out bytes.Buffer
	cmd := agent.Command{Exec: agent.Exec{Argv: []string{"cat"}, Dir: "/"}, Input: bytes.NewReader(input), Stdout: &out}
	if _, err := c.Exec(within(t, 20*time.Second), cmd); err != nil || !bytes.Equal(out.Bytes(), input) {
		t.Errorf("%v, %d bytes of %d", err, out.Len(), len(input))
	}
	// A command that does not read its input ends all the same.
	cmd = agent.Command{Exec: agent.Exec{Argv: []string{"true"}, Dir: "/"}, Input: bytes.NewReader(input)}
	if exit, err := c.Exec(within(t, 20*time.Second), cmd); err != nil || exit.Code() != 0 {
		t.Errorf("%+v, %v", exit, err)
	}
}

func TestTimeoutEndsTheWholeProcessGroup(t *testing.T) {
	c := start(t)
	for name, script := range map[string]string{
		"heeded":  "sleep 61 & echo $!; sleep 61",
		"ignored": "trap '' TERM; sleep 61 & echo $!; sleep 61; sleep 61",
	} {
		t.Run(name, func(t *testing.T) {
			x := sh(script)
			x.Timeout = 300 * time.Millisecond
			var out bytes.Buffer
			_, err := c.Exec(within(t, 20*time.Second), agent.Command{Exec: x, Stdout: &out})
			var timeout *agent.TimeoutError
			if !errors.As(err, &timeout) {
				t.Fatalf("error %v", err)
			}
			var child int
			if n, _ := fmt.Sscan(out.String(), &child); n != 1 {
				t.Fatalf("output %q", out.String())
			}
			awaitGone(t, child)
		})
	}
}

func TestCancelEndsTheWholeProcessGroup(t *testing.T) {
	c := start(t)
	ctx, cancel := context.WithCancel(within(t, 20*time.Second))
	out := make(firstLine, 1)
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(ctx, agent.Command{Exec: sh("sleep 62 & echo $!; wait"), Stdout: out})
		done <- err
	}()
	line := <-out
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	var child int
	fmt.Sscan(line, &child)
	awaitGone(t, child)
}

// Ctrl-C reaches the command, which may still say something; what it started and
// what does not heed it ends all the same.
func TestInterruptReachesTheCommand(t *testing.T) {
	c := start(t)
	for name, want := range map[string]struct {
		script, out string
		code        int
	}{
		"heeded":  {script: "trap 'echo bye; exit 3' INT; sleep 62 & echo $!; wait", out: "bye\n", code: 3},
		"default": {script: "sleep 62 & echo $!; wait", code: 128 + int(unix.SIGINT)},
		"ignored": {script: "trap '' INT TERM; sleep 62 & echo $!; sleep 62; sleep 62", code: 128 + int(unix.SIGKILL)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(within(t, 20*time.Second))
			defer cancel()
			out := &cancelling{cancel: cancel}
			// It does not read its input, which is more than the port holds for it.
			cmd := agent.Command{Exec: sh(want.script), Stdout: out, Input: new(endless)}
			exit, err := c.Exec(ctx, cmd)
			if !errors.Is(err, context.Canceled) || exit.Code() != want.code {
				t.Errorf("%+v, %v", exit, err)
			}
			var child int
			if n, _ := fmt.Sscan(out.String(), &child); n != 1 || !strings.HasSuffix(out.String(), fmt.Sprintln(child)+want.out) {
				t.Fatalf("output %q", out.String())
			}
			awaitGone(t, child)
		})
	}
}

// cancelling cancels something with the first output.
type cancelling struct {
	bytes.Buffer
	cancel func()
}

func (c *cancelling) Write(p []byte) (int, error) {
	c.cancel()
	return c.Buffer.Write(p)
}

// endless is input without end.
type endless struct{ atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.Add(int64(len(p)))
	return len(p), nil
}

// The input of a command that does not read stays where it comes from.
func TestInputWaitsForItsReader(t *testing.T) {
	c := start(t)
	for name, script := range map[string]string{"does not read": "sleep 0.5", "has closed it": "exec <&-; sleep 0.5"} {
		input := new(endless)
		cmd := agent.Command{Exec: sh(script), Input: input}
		if exit, err := c.Exec(within(t, 20*time.Second), cmd); err != nil || exit.Code() != 0 {
			t.Errorf("%s: %+v, %v", name, exit, err)
		}
		if n := input.Load(); n > 1<<20 {
			t.Errorf("%s: %d bytes were taken", name, n)
		}
	}
}

func TestACallThatIsNotKnownIsRefused(t *testing.T) {
	host, guest := ports(t)
	go Serve(guest)
	s := mux.Host(host)
	defer s.Close()
	st, err := s.Open(within(t, 10*time.Second), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if err := agent.NewSender(st).Send(63, nil); err != nil {
		t.Fatal(err)
	}
	if k, content, err := agent.NewReceiver(st).Receive(); k != agent.Unknown || string(content) != agent.Version || err != nil {
		t.Errorf("kind %d, %q, %v", k, content, err)
	}
}

func TestFilesAreCopiedBothWays(t *testing.T) {
	c := start(t)
	dir := t.TempDir()
	source, there, back := filepath.Join(dir, "source"), filepath.Join(dir, "there"), filepath.Join(dir, "back")
	want := bytes.Repeat([]byte("0123456789abcde\n"), 100_000)
	if err := os.MkdirAll(filepath.Join(source, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a/file", "b"} {
		if err := os.WriteFile(filepath.Join(source, name), want, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	var done, total int64
	progress := func(d, t int64) { done, total = d, t }
	if err := c.CopyTo(within(t, 20*time.Second), source, there, progress); err != nil || done != total || total != 2*int64(len(want)) {
		t.Fatalf("%v, %d of %d", err, done, total)
	}
	if err := c.CopyFrom(within(t, 20*time.Second), there, back, progress); err != nil || done != total || total != 2*int64(len(want)) {
		t.Fatalf("%v, %d of %d", err, done, total)
	}
	if got, err := os.ReadFile(filepath.Join(back, "a", "file")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	// What stands in the way in the guest is told, though the host is sending.
	if err := c.CopyTo(within(t, 20*time.Second), source, filepath.Join(there, "none", "x"), nil); err == nil ||
		!strings.Contains(err.Error(), "there is no folder") {
		t.Errorf("error %v", err)
	}
	if err := c.CopyFrom(within(t, 20*time.Second), filepath.Join(dir, "none"), back, nil); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("error %v", err)
	}
}

// firstLine passes on what is written.
type firstLine chan string

func (f firstLine) Write(p []byte) (int, error) {
	f <- string(p)
	return len(p), nil
}

// awaitGone waits until a process that is not ours to reap has ended.
func awaitGone(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 10_000); n != 1 {
		t.Errorf("process %d runs on: %v", pid, err)
	}
}

func BenchmarkPing(b *testing.B) {
	c := start(b)
	for b.Loop() {
		if _, err := c.Ping(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkExecTrue(b *testing.B) {
	c := start(b)
	for b.Loop() {
		if _, err := c.Exec(context.Background(), agent.Command{Exec: agent.Exec{Argv: []string{"/bin/true"}, Dir: "/"}}); err != nil {
			b.Fatal(err)
		}
	}
}
