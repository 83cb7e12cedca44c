package build

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestFailedCommandTellsItsLastWords(t *testing.T) {
	err := command{tool: shell, args: []string{"-c", "yes first | head -c 9000; echo 'it is broken' >&2; exit 3"}}.run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "it is broken") || !strings.Contains(err.Error(), "exit status 3") || len(err.Error()) > 3000 {
		t.Errorf("run = %.100v…", err)
	}
}

func TestMissingToolNamesItsPackage(t *testing.T) {
	err := require(shell, tool{"no-such-program", "its-package"})
	if err == nil || !strings.Contains(err.Error(), "apt-get install its-package") {
		t.Errorf("require = %v", err)
	}
}

func TestToolsOfTheSystemAreFoundWithoutThemInPath(t *testing.T) {
	if _, err := os.Stat("/usr/sbin/mke2fs"); err != nil {
		t.Skip("mke2fs is not in /usr/sbin")
	}
	t.Setenv("PATH", "/usr/bin:/bin")
	if path, err := mke2fs.find(); err != nil || !strings.HasSuffix(path, "sbin/mke2fs") {
		t.Errorf("find = %q, %v", path, err)
	}
}

func TestStatusDescriptorIsRead(t *testing.T) {
	var status, out bytes.Buffer
	err := command{tool: shell, args: []string{"-c", "echo state >&3; cat"}, stdin: strings.NewReader("in"), stdout: &out, status: &status}.run(t.Context())
	if err != nil || status.String() != "state\n" || out.String() != "in" {
		t.Errorf("status %q, output %q, %v", &status, &out, err)
	}
}

// TestCancelEndsGrandchildren: what a tool has started must not go on.
func TestCancelEndsGrandchildren(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	fifo := filepath.Join(t.TempDir(), "started")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- command{tool: shell, args: []string{"-c", `sleep 600 & echo $! >"$1"; echo >"$2"; wait`, "sh", pidFile, fifo}}.run(ctx)
	}()
	if _, err := os.ReadFile(fifo); err != nil { // waits until the child is there
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("run = %v", err)
	}
	data, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	// An orphan is reaped by process 1, whenever that gets to it.
	for deadline := time.Now().Add(5 * time.Second); running(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d still runs", pid)
		}
	}
}

// running tells whether a process is there and no zombie.
func running(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}
