//go:build linux

package examples_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/propolis"
)

// testSerial is a person at a terminal.
func testSerial(t *testing.T, l *lab) {
	ours, theirs, err := pty.Open()
	check(t, err)
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	before, err := unix.IoctlGetTermios(int(theirs.Fd()), unix.TCGETS)
	check(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := l.command(ctx, "serial", "violin")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
	check(t, cmd.Start())
	screen := watch(ours)
	screen.await(t, "#") // the prompt that was there before
	raw, err := unix.IoctlGetTermios(int(theirs.Fd()), unix.TCGETS)
	if err != nil || raw.Lflag&(unix.ECHO|unix.ICANON|unix.ISIG) != 0 {
		t.Errorf("the terminal is not raw: %+v (%v)", raw, err)
	}
	_, err = ours.WriteString("echo six times seven is $((6*7))\r")
	check(t, err)
	screen.await(t, "six times seven is 42")
	// While somebody is attached, others can run commands.
	if got := l.sh("violin", "echo beside"); got != "beside\n" {
		t.Errorf("exec beside serial: %q", got)
	}
	// Said by the command itself: while bash still starts it, Ctrl-C confuses bash.
	_, err = ours.WriteString("sh -c 'echo sleep\"\"ing; exec sleep 600'\r")
	check(t, err)
	screen.await(t, "sleeping")
	_, err = ours.WriteString("\x03")
	check(t, err)
	screen.await(t, "^C\r\n[") // bash may lose what is typed before its prompt is back
	_, err = ours.WriteString("echo inter''rupted\r")
	check(t, err)
	screen.await(t, "interrupted")
	_, err = ours.WriteString("\x11") // Ctrl-q
	check(t, err)
	if err := cmd.Wait(); err != nil {
		t.Errorf("serial ends with %v: %s", err, screen)
	}
	after, err := unix.IoctlGetTermios(int(theirs.Fd()), unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("the terminal was %+v and is %+v (%v)", before, after, err)
	}
	if got := l.sh("violin", "echo after"); got != "after\n" {
		t.Errorf("exec after serial: %q", got)
	}
}

// screen is what a terminal has shown.
type screen struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func watch(terminal *os.File) *screen {
	s := &screen{changed: make(chan struct{}, 1)}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := terminal.Read(buf)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.text.Write(buf[:n])
			s.mu.Unlock()
			select {
			case s.changed <- struct{}{}:
			default:
			}
		}
	}()
	return s
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *screen) await(t *testing.T, text string) {
	t.Helper()
	limit := time.After(time.Minute)
	for !strings.Contains(s.String(), text) {
		select {
		case <-s.changed:
		case <-limit:
			t.Fatalf("within a minute the terminal does not show %q but %q", text, s)
		}
	}
}

func TestGuestThatNeverReachesLogin(t *testing.T) {
	s := newSite(t)
	out := s.falcon("image", "import", filepath.Join(built.image, "disk.qcow2"), "mute",
		"--kernel", filepath.Join(built.image, "vmlinux"), "--initrd", filepath.Join(built.image, "initrd.img"),
		"--append", "console=ttyS0,115200 root=/dev/vda", // not quiet
		"--login", "password of the day:", "--user", "root", "--prompt", "never> $")
	if out.status != 0 {
		t.Fatal(out)
	}
	l := s.lab("lab", "any")
	l.refuse([]string{"--node", "a:128:mute", "launch", "--timeout", "12s"}, "node a", "after 12", "login", "last seen on the console:\n    ")
	l.gone()
}

// TestConsolesUnderAbuse has one guest flood its console, and a client that
// does not read what it has subscribed to.
func TestConsolesUnderAbuse(t *testing.T) {
	l := newSite(t).lab("pair", "any", "--node", "a,b", "--link", "a:b")
	l.launch()
	l.addresses("a", "b", 1)
	server := l.node("a").ServerPID
	before := resident(t, server)

	client, err := propolis.NewClient("unix:" + l.node("a").Console)
	check(t, err)
	defer client.Close()
	stalled, err := client.Serial(t.Context(), propolis.SerialOptions{})
	check(t, err)
	defer stalled.Close()

	l.sh("a", "{ yes 'the console is flooded without an end' | head -c 3m > /dev/ttyS0; touch /tmp/flooded; } 2>/dev/null &")
	if out := l.run("exec", "--timeout", "15s", "a", "echo through"); out.status != 0 && (out.status != 125 || !strings.Contains(out.stderr, "node a")) {
		t.Errorf("exec on a flooded console neither works nor says why not: %s", out)
	}
	if got := l.sh("b", "echo quiet"); got != "quiet\n" {
		t.Errorf("exec on another node: %q", got)
	}
	l.pings("b", "10.9.1.1")
	if n := l.node("a"); n.State != "running" {
		t.Errorf("the flooded node: %+v", n)
	}
	// What a client has not read, and what is kept for later ones, is bounded.
	if now := resident(t, server); now > before+64 {
		t.Errorf("the server's memory has grown from %d to %d MiB", before, now)
	}
	for limit := time.Now().Add(2 * time.Minute); l.run("exec", "--timeout", "15s", "a", "test -e /tmp/flooded").status != 0; {
		if time.Now().After(limit) {
			t.Fatal("the flood of 3 MiB has not ended within two minutes")
		}
	}
	if now := resident(t, server); now > before+64 {
		t.Errorf("after the flood the server's memory has grown from %d to %d MiB", before, now)
	}
	if got := l.sh("a", "echo calm"); got != "calm\n" {
		t.Errorf("exec after the flood: %q", got)
	}
	l.destroy()
}

// resident is a process's memory in MiB.
func resident(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	check(t, err)
	for line := range strings.Lines(string(status)) {
		var kib int
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kib); n == 1 {
			return kib >> 10
		}
	}
	t.Fatalf("process %d has no VmRSS", pid)
	return 0
}
