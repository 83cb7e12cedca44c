//go:build !linux && !illumos

package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// Identify returns the identity of a running process.
func Identify(pid int) (Identity, error) {
	info, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	if errors.Is(err, os.ErrNotExist) {
		return Identity{}, os.ErrProcessDone
	}
	if err != nil {
		return Identity{}, err
	}
	// The folder's time is when the process started.
	return Identity{PID: pid, Start: uint64(info.ModTime().UnixNano())}, nil
}

// Started returns when the process was started.
func (id Identity) Started() (time.Time, error) { return time.Unix(0, int64(id.Start)), nil }

type handle struct{ id Identity }

func (id Identity) open() (*handle, error) {
	if id.PID <= 0 {
		return nil, os.ErrProcessDone
	}
	now, err := Identify(id.PID)
	if err != nil {
		return nil, err
	}
	if now != id {
		return nil, os.ErrProcessDone
	}
	return &handle{id}, nil
}

func (h *handle) Close() error { return nil }

func (h *handle) signal(sig syscall.Signal) error {
	err := syscall.Kill(h.id.PID, sig)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// wait looks at intervals: there is no event for the end of a process that is
// not a child.
func (h *handle) wait(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := h.id.open(); errors.Is(err, os.ErrProcessDone) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Child returns os.ErrProcessDone: here no server has its hypervisor in a process
// apart.
func (id Identity) Child(int) (Identity, error) { return Identity{}, os.ErrProcessDone }
