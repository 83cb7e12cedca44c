package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// Identify returns the identity of a running process. A zombie counts as
// running: it keeps its number.
func Identify(pid int) (Identity, error) {
	file, info, err := openPsinfo(pid)
	if err != nil {
		return Identity{}, err
	}
	file.Close()
	boot, err := bootID()
	if err != nil {
		return Identity{}, err
	}
	return Identity{PID: pid, Start: info.start, Boot: boot}, nil
}

// bootID is when the first process was started: the kernel's scheduler, or in a
// zone the one that stands for the zone.
func bootID() (string, error) {
	for _, pid := range []int{0, 1} {
		file, info, err := openPsinfo(pid)
		if err == nil {
			file.Close()
			return fmt.Sprint(info.start), nil
		}
		if !errors.Is(err, os.ErrProcessDone) {
			return "", err
		}
	}
	return "", errors.New("cannot tell when the host was started: /proc shows no process 0 or 1")
}

// Started returns when the process was started.
func (id Identity) Started() (time.Time, error) { return time.Unix(0, int64(id.Start)), nil }

// openPsinfo opens a process's psinfo: a descriptor that never comes to mean
// another process.
func openPsinfo(pid int) (*os.File, psinfo, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/psinfo", pid))
	if errors.Is(err, os.ErrNotExist) {
		return nil, psinfo{}, os.ErrProcessDone
	}
	if err != nil {
		return nil, psinfo{}, err
	}
	data := make([]byte, psinfoLeast)
	n, err := file.ReadAt(data, 0)
	if errors.Is(err, os.ErrNotExist) {
		err = os.ErrProcessDone // it ended between the two
	}
	var info psinfo
	if n == len(data) {
		info, err = parsePsinfo(data)
	} else if err == nil {
		err = errPsinfo
	}
	if err != nil {
		file.Close()
		return nil, psinfo{}, err
	}
	return file, info, nil
}

// handle is an open psinfo of the process.
type handle struct {
	pid  int
	file *os.File
}

// open returns os.ErrProcessDone when the process has ended, zombies included.
func (id Identity) open() (*handle, error) {
	if id.PID <= 0 {
		return nil, os.ErrProcessDone
	}
	file, info, err := openPsinfo(id.PID)
	if err != nil {
		return nil, err
	}
	boot, err := bootID()
	if err == nil && (info.threads == 0 || info.start != id.Start || boot != id.Boot) {
		err = os.ErrProcessDone
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return &handle{id.PID, file}, nil
}

func (h *handle) Close() error { return h.file.Close() }

func (h *handle) signal(sig syscall.Signal) error {
	err := syscall.Kill(h.pid, sig)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// wait polls the psinfo, which is hung up when the process ends.
func (h *handle) wait(ctx context.Context) error { return poll(ctx, int(h.file.Fd()), 0) }

// Child returns os.ErrProcessDone: here no server has its hypervisor in a process
// apart.
func (id Identity) Child(int) (Identity, error) { return Identity{}, os.ErrProcessDone }
