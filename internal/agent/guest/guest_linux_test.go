package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
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
