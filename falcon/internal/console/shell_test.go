package console

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

// shells are the real ones the tests run on a pty, by name.
var shells = map[string][]string{
	"ash":   {"busybox", "ash", "-i"},
	"dash":  {"dash", "-i"},
	"bash":  {"bash", "--norc", "--noprofile", "-i"},
	"ksh93": {"ksh93", "-i"},
	"mksh":  {"mksh", "-i"},
}

// optional shells are not part of a usual test machine, and not of a short run.
var optional = map[string]bool{"mksh": true, "ksh93": true}

// eachShell runs a test on every shell there is.
func eachShell(t *testing.T, f func(t *testing.T, argv []string)) {
	if testing.Short() { // few shells, which mostly wait
		t.Parallel()
	}
	for name, argv := range shells {
		_, err := exec.LookPath(argv[0])
		if optional[name] && (err != nil || testing.Short()) {
			t.Logf("not run with %s: %v", name, err)
			continue
		}
		t.Run(name, func(t *testing.T) {
			if err != nil {
				t.Skipf("%s is not installed: %v", argv[0], err)
			}
			t.Parallel()
			f(t, argv)
		})
	}
}

// startPty runs argv with a terminal of its own and returns our end of it.
func startPty(t *testing.T, dir string, argv ...string) *os.File {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PS1=node# ", "HOME=" + dir, "TERM=vt220", "HISTFILE=", "LANG=C.UTF-8"}
	f, err := pty.StartWithAttrs(cmd, &pty.Winsize{Rows: 24, Cols: 80}, &syscall.SysProcAttr{Setsid: true, Setctty: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		killSession(cmd.Process.Pid)
		_ = f.Close()
		_ = cmd.Wait()
	})
	return pollable(t, f)
}

// killSession ends the leader of a session and all jobs that it started.
func killSession(leader int) {
	_ = syscall.Kill(leader, syscall.SIGKILL)
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		text, _ := os.ReadFile(name)
		// pid (name) state ppid pgrp session ...; the name may hold anything.
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if len(fields) > 3 && err == nil && fields[3] == strconv.Itoa(leader) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// pollable is f as a file whose Close ends a Read and that has deadlines.
func pollable(t testing.TB, f *os.File) *os.File {
	t.Helper()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), f.Name())
}

// shellConsole is a console with a shell at its prompt.
func shellConsole(t *testing.T, argv []string) *Console {
	t.Helper()
	return consoleOn(t, startPty(t, t.TempDir(), argv...))
}

func consoleOn(t *testing.T, s Stream) *Console {
	t.Helper()
	c := New(s, Options{Name: "violin"})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// mustExec runs a shell text that must not fail to be run.
func mustExec(t *testing.T, c *Console, shell string) Result {
	t.Helper()
	res, err := c.Exec(within(t, 60*time.Second), Command{Shell: shell})
	if err != nil {
		t.Fatalf("exec %.60q: %v", shell, err)
	}
	return res
}

// typed sends text as a person at another terminal would.
func typed(t *testing.T, c *Console, text string) {
	t.Helper()
	if _, err := c.stream.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

// waitFor waits for text on the console.
func waitFor(t *testing.T, c *Console, text string) {
	t.Helper()
	_, err := c.WaitLine(within(t, 20*time.Second), text, func(l string, _ bool) bool { return strings.Contains(l, text) })
	if err != nil {
		t.Fatal(err)
	}
}

// withoutTools is a PATH on which only the named programs are.
func withoutTools(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, n := range names {
		p, err := exec.LookPath(n)
		if err != nil {
			t.Skipf("%s is not installed", n)
		}
		if err := os.Symlink(p, filepath.Join(dir, n)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func mustLook(t *testing.T, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return p
}

func benchNoop(b *testing.B, argv []string) {
	if _, err := exec.LookPath(argv[0]); err != nil {
		b.Skipf("%s is not installed", argv[0])
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "PS1=node# ", "HISTFILE=")
	f, err := pty.Start(cmd)
	if err != nil {
		b.Fatal(err)
	}
	c := New(pollable(b, f), Options{Name: "bench"})
	defer func() { _ = cmd.Process.Kill(); _ = c.Close(); _ = f.Close(); _ = cmd.Wait() }()
	for b.Loop() {
		if _, err := c.Exec(context.Background(), Command{Shell: "true"}); err != nil {
			b.Fatal(err)
		}
	}
}
