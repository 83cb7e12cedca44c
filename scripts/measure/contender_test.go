//go:build linux

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestEachDoesAllWithinTheLimit(t *testing.T) {
	var now, most, done atomic.Int32
	err := each(t.Context(), 20, 3, func(context.Context, int) error {
		for n := now.Add(1); ; {
			if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		time.Sleep(time.Millisecond) // for others to come
		now.Add(-1)
		done.Add(1)
		return nil
	})
	if err != nil || done.Load() != 20 || most.Load() > 3 {
		t.Errorf("%d done, %d at once, %v", done.Load(), most.Load(), err)
	}
}

func TestEachEndsTheOthersWithTheFirstError(t *testing.T) {
	broken := errors.New("broken")
	err := each(t.Context(), 5, 0, func(ctx context.Context, i int) error {
		if i == 2 {
			return broken
		}
		<-ctx.Done() // it would wait for ever
		return ctx.Err()
	})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "n2") {
		t.Errorf("%v", err)
	}
}

func TestMissingSaysWhyAPackageIsNotThere(t *testing.T) {
	b := &bench{work: t.TempDir()}
	if err := os.MkdirAll(filepath.Join(b.work, "missing"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := b.missing("sh"); err != nil {
		t.Errorf("sh: %v", err)
	}
	if err := b.missing("sh", "no-such-program"); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("a program that nobody has: %v", err)
	}
	why := filepath.Join(b.work, "missing", "no-such-program")
	if err := os.WriteFile(why, []byte("the package does not install\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := b.missing("no-such-program"); err == nil || err.Error() != "the package does not install" {
		t.Errorf("one that could not be installed: %v", err)
	}
}

func TestDaemonThatEndsAtOnceIsToldWithItsWords(t *testing.T) {
	b := &bench{work: t.TempDir()}
	never := func(context.Context) error { return errors.New("not yet") }
	_, err := b.startDaemon(t.Context(), filepath.Join(b.work, "log"), never, "sh", "-c", "echo no room; exit 3")
	if err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("%v", err)
	}
}

func TestMemoryAndTimeOfThisProcess(t *testing.T) {
	self := []int{os.Getpid()}
	mib, err := proportionalMiB(self)
	if err != nil || mib < 1 || mib > 4096 {
		t.Errorf("%v MiB, %v", mib, err)
	}
	begun := time.Now()
	for time.Since(begun) < 100*time.Millisecond {
	}
	if seconds, err := processorTime(self); err != nil || seconds <= 0 {
		t.Errorf("%v s, %v", seconds, err)
	}
	if _, err := proportionalMiB([]int{0}); err == nil {
		t.Error("a process that is not there has memory")
	}
}

func TestSetRings(t *testing.T) {
	b := &bench{plan: full()}
	if err := b.setRings("micro=1,10;debian-12=2"); err != nil {
		t.Fatal(err)
	}
	if got := b.plan.rings; len(got["micro"]) != 2 || got["micro"][1] != 10 || len(got["debian-12"]) != 1 || b.plan.idleAt["micro"] != 10 {
		t.Errorf("%v, idle at %v", got, b.plan.idleAt)
	}
	for _, bad := range []string{"micro", "micro=0", "micro=x", "nix=1", ";"} {
		if err := b.setRings(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
