package state

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

// helperEnv makes the test binary another falcon: its value says which.
const helperEnv = "FALCON_STATE_TEST_HELPER"

// deadline bounds what a test waits for. It only passes when a test fails.
const deadline = 20 * time.Second

func TestMain(m *testing.M) {
	helpers := map[string]func(folder string) error{
		"hold":  holdLock,
		"count": countUp,
		"full":  meetFullDisk,
	}
	helper := os.Getenv(helperEnv)
	if helper == "" {
		os.Exit(m.Run())
	}
	if err := helpers[helper](os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// startHelper runs the test binary as a helper on a folder. The helper is
// killed when the test ends.
func startHelper(t *testing.T, helper string, f *Folder) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0], f.Path())
	// The race detector would have it wait for a second at its end.
	cmd.Env = append(os.Environ(), helperEnv+"="+helper, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, bufio.NewReader(stdout)
}

// holdLock takes the lock, says so, and keeps it until it is killed.
func holdLock(folder string) error {
	f, err := Open(folder)
	if err != nil {
		return err
	}
	if _, err := f.Lock(context.Background(), "helper", nil); err != nil {
		return err
	}
	fmt.Println("locked")
	time.Sleep(2 * deadline)
	return errors.New("nobody killed the holder of the lock")
}

// counterRounds is how often each countUp increments the counter.
const counterRounds = 100

// countUp increments the number in a file of the folder, each time under the
// lock. Without the lock increments of two processes get lost.
func countUp(folder string) error {
	f, err := Open(folder)
	if err != nil {
		return err
	}
	for range counterRounds {
		unlock, err := f.Lock(context.Background(), "counting", nil)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(f.File("counter"))
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(data))
		if err != nil {
			return err
		}
		if err := os.WriteFile(f.File("counter"), strconv.AppendInt(nil, int64(n)+1, 10), 0o600); err != nil {
			return err
		}
		unlock()
	}
	return nil
}

// newFolder returns a state folder that exists.
func newFolder(t *testing.T) *Folder {
	t.Helper()
	f, err := Open(t.TempDir() + "/state")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Create(); err != nil {
		t.Fatal(err)
	}
	return f
}

// entriesOf returns the names in a folder.
func entriesOf(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func readLine(t *testing.T, r io.Reader) string {
	t.Helper()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatalf("reading what the helper says: %v", err)
	}
	return line
}
