package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func TestLockWaitEndsWithTheContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	held, err := acquire(t.Context(), path, true)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := acquire(ctx, path, false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("acquire = %v", err)
	}
	held.release()
	again, err := acquire(t.Context(), path, true) // the one who gave up does not keep it
	if err != nil {
		t.Fatal(err)
	}
	again.release()
}

func TestSharedLocksLeaveNoFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	a, errA := acquire(t.Context(), path, false)
	b, errB := acquire(t.Context(), path, false)
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	a.release()
	if _, busy, err := tryLock(path); !busy || err != nil {
		t.Errorf("with a holder left, tryLock = busy %v, %v", busy, err)
	}
	b.release()
	if exists(path) {
		t.Error("the lock's file is left")
	}
}

// TestLockIsExclusive lets many contend for a lock whose file comes and goes.
func TestLockIsExclusive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	inside, max := 0, 0
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			l, err := acquire(t.Context(), path, true)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			inside++
			if inside > max {
				max = inside
			}
			mu.Unlock()
			time.Sleep(time.Millisecond) // give others the chance to be wrong
			mu.Lock()
			inside--
			mu.Unlock()
			l.release()
		})
	}
	all.Wait()
	if max != 1 {
		t.Errorf("%d held the lock at once", max)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lock's file is left: %v", err)
	}
}
