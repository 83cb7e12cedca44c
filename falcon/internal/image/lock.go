package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// lock is a held advisory lock on a file of the lock folder. It ends with the
// process that holds it, however that ends.
type lock struct {
	f         *os.File
	exclusive bool
}

// tryLock is acquire without waiting: busy is true if somebody else holds it.
func tryLock(path string) (l *lock, busy bool, err error) {
	for {
		f, err := openLock(path)
		if err != nil {
			return nil, false, err
		}
		err = flock(f, syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, true, f.Close()
		}
		if err != nil {
			return nil, false, errors.Join(err, f.Close())
		}
		if current(f, path) {
			return &lock{f: f, exclusive: true}, false, nil
		}
		_ = f.Close()
	}
}

// acquire waits for the lock, as long as the context allows. A lock file is
// removed by its exclusive holder, so whoever waited for it looks whether what
// it got is still the file of that name.
func acquire(ctx context.Context, path string, exclusive bool) (*lock, error) {
	how := syscall.LOCK_SH
	if exclusive {
		how = syscall.LOCK_EX
	}
	for {
		f, err := openLock(path)
		if err != nil {
			return nil, err
		}
		if err := flockContext(ctx, f, how); err != nil {
			return nil, fmt.Errorf("waiting for %s, which another process holds: %w", path, err)
		}
		if current(f, path) {
			return &lock{f: f, exclusive: exclusive}, nil
		}
		_ = f.Close()
	}
}

// release lets go of the lock. The last holder removes the file, which it may do
// only while it holds it alone.
func (l *lock) release() {
	if l.exclusive || flock(l.f, syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		_ = os.Remove(l.f.Name())
	}
	_ = l.f.Close()
}

func openLock(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}

// flockContext takes the lock in a goroutine, since flock(2) knows no deadline.
// When the context ends first, the goroutine lets go of the lock as soon as it
// gets it. On error the file is closed.
func flockContext(ctx context.Context, f *os.File, how int) error {
	if err := flock(f, how|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
		if err != nil {
			return errors.Join(err, f.Close())
		}
		return nil
	}
	got := make(chan error, 1)
	go func() { got <- flock(f, how) }()
	select {
	case err := <-got:
		if err != nil {
			return errors.Join(err, f.Close())
		}
		return nil
	case <-ctx.Done():
		go func() {
			<-got
			_ = f.Close()
		}()
		return ctx.Err()
	}
}

func flock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// current tells whether f is still what path names.
func current(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}
