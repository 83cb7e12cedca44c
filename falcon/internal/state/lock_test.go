package state

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"
)

// take takes a lock that must be free, or becomes free at once.
func take(t *testing.T, f *Folder, purpose string) (unlock func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	unlock, err := f.Lock(ctx, purpose, nil)
	if err != nil {
		t.Fatal(err)
	}
	return unlock
}

// waiter is a Lock that runs in the background.
type waiter struct {
	waits  chan string // the holder, once it waits
	done   chan error
	unlock func() // valid after done
}

func startWaiter(ctx context.Context, f *Folder) *waiter {
	w := &waiter{waits: make(chan string, 2), done: make(chan error, 1)}
	go func() {
		var err error
		w.unlock, err = f.Lock(ctx, "waiter", func(holder string) { w.waits <- holder })
		w.done <- err
	}()
	return w
}

func within[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(deadline):
		t.Fatalf("waited %v in vain: %s", deadline, what)
	}
	panic("unreachable")
}

func TestLockWaitsForItsHolderAndNamesIt(t *testing.T) {
	f := newFolder(t)
	unlock := take(t, f, "launch")
	w := startWaiter(t.Context(), f)
	holder := within(t, "the second Lock to say that it waits", w.waits)
	if want := fmt.Sprintf("launch (pid %d)", os.Getpid()); holder != want {
		t.Errorf("it waits for %q, want %q", holder, want)
	}
	select {
	case err := <-w.done:
		t.Fatalf("Lock returned (%v) while another held the lock", err)
	default:
	}
	unlock()
	if err := within(t, "the second Lock", w.done); err != nil {
		t.Fatal(err)
	}
	w.unlock()
	if len(w.waits) > 0 {
		t.Error("it said more than once that it waits")
	}
}

func TestLockThatIsFreeDoesNotWait(t *testing.T) {
	f := newFolder(t)
	take(t, f, "a long purpose that a shorter note must not leave a rest of")()
	unlock, err := f.Lock(t.Context(), "exec", func(holder string) { t.Errorf("it waits for %s", holder) })
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	note, err := os.ReadFile(f.File(lockFile))
	if want := fmt.Sprintf("exec (pid %d)", os.Getpid()); err != nil || string(note) != want {
		t.Errorf("the lock file says %q (%v), want %q", note, err, want)
	}
}

func TestLockFilesOfPartsAreIndependent(t *testing.T) {
	f := newFolder(t)
	defer take(t, f, "launch")()
	unlock, err := f.LockFile(t.Context(), "violin.console", "exec", func(holder string) { t.Errorf("it waits for %s", holder) })
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestSharedLocksKeepOnlyTheWholeLockWaiting(t *testing.T) {
	f := newFolder(t)
	var unlocks []func()
	for range 2 {
		unlock, err := f.LockShared(t.Context(), "reboot", func(holder string) { t.Errorf("it waits for %s", holder) })
		if err != nil {
			t.Fatal(err)
		}
		unlocks = append(unlocks, unlock)
	}
	w := startWaiter(t.Context(), f)
	within(t, "Lock to wait for the shared locks", w.waits)
	unlocks[0]()
	select {
	case err := <-w.done:
		t.Fatalf("Lock returned (%v) beside a shared lock", err)
	case <-time.After(20 * time.Millisecond): // no event tells what must not happen
	}
	unlocks[1]()
	if err := within(t, "Lock", w.done); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := f.LockShared(ctx, "reboot", func(string) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("LockShared beside Lock: %v, want to wait until cancelled", err)
	}
	w.unlock()
}

func TestLockMakesItsFolderForItsOwnerAlone(t *testing.T) {
	f, err := Open(t.TempDir() + "/nowhere")
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := f.Lock(t.Context(), "launch", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	info, err := os.Stat(f.Path())
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder is %v (%v), want mode 0700", info, err)
	}
}

func TestLockCancelledWhileWaitingIsNotTakenLater(t *testing.T) {
	f := newFolder(t)
	unlock := take(t, f, "launch")
	ctx, cancel := context.WithCancel(t.Context())
	w := startWaiter(ctx, f)
	within(t, "the second Lock to wait", w.waits)
	cancel()
	err := within(t, "the cancelled Lock", w.done)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled Lock: %v, want %v", err, context.Canceled)
	}
	if !strings.Contains(err.Error(), "held by launch (pid ") {
		t.Errorf("the error does not say who holds the lock: %v", err)
	}
	unlock()
	take(t, f, "after")()
}

// A lock that is freed in the very moment in which its waiter gives up must go
// to the waiter or to nobody.
func TestLockFreedAndCancelledAtOnceIsNotLost(t *testing.T) {
	// The collector would close a lost file, and hide that it was lost.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	f := newFolder(t)
	rounds := 2000
	if testing.Short() {
		rounds = 300
	}
	for range rounds {
		unlock := take(t, f, "launch")
		ctx, cancel := context.WithCancel(t.Context())
		w := startWaiter(ctx, f)
		within(t, "the second Lock to wait", w.waits)
		go unlock()
		go cancel()
		if err := within(t, "the second Lock", w.done); err == nil {
			w.unlock()
		}
		take(t, f, "after")()
	}
}

func TestLockRemovedUnderAWaiterIsTakenAnew(t *testing.T) {
	f := newFolder(t)
	unlock := take(t, f, "destroy")
	w := startWaiter(t.Context(), f)
	within(t, "the second Lock to wait", w.waits)
	if err := errors.Join(f.RemoveLock(), f.Remove()); err != nil {
		t.Fatal(err)
	}
	unlock()
	if err := within(t, "the second Lock", w.done); err != nil {
		t.Fatal(err)
	}
	third := startWaiter(t.Context(), f)
	holder := within(t, "a third Lock to meet the second", third.waits)
	if !strings.HasPrefix(holder, "waiter (pid ") {
		t.Errorf("the third waits for %q", holder)
	}
	w.unlock()
	if err := within(t, "the third Lock", third.done); err != nil {
		t.Fatal(err)
	}
	third.unlock()
}

func TestLockExcludesOtherProcesses(t *testing.T) {
	f := newFolder(t)
	if err := os.WriteFile(f.File("counter"), []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	const processes = 3
	var ends []chan error
	for range processes {
		cmd, _ := startHelper(t, "count", f)
		end := make(chan error, 1)
		go func() { end <- cmd.Wait() }()
		ends = append(ends, end)
	}
	for _, end := range ends {
		if err := within(t, "a process that counts", end); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(f.File("counter"))
	if want := strconv.Itoa(processes * counterRounds); err != nil || string(data) != want {
		t.Errorf("%d processes counted to %s (%v), want %s", processes, data, err, want)
	}
}

func TestLockOfAKilledProcessIsFree(t *testing.T) {
	f := newFolder(t)
	cmd, stdout := startHelper(t, "hold", f)
	readLine(t, stdout)
	w := startWaiter(t.Context(), f)
	holder := within(t, "Lock to wait for the process", w.waits)
	if want := fmt.Sprintf("helper (pid %d)", cmd.Process.Pid); holder != want {
		t.Errorf("it waits for %q, want %q", holder, want)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := within(t, "Lock after the holder's end", w.done); err != nil {
		t.Fatal(err)
	}
	w.unlock()
}
