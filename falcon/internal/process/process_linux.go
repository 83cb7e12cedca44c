package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Identify returns the identity of a running process. A zombie counts as
// running: it keeps its number.
func Identify(pid int) (Identity, error) {
	id, _, err := identify(pid)
	return id, err
}

func identify(pid int) (Identity, status, error) {
	s, err := stat(pid)
	if err != nil {
		return Identity{}, s, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Identity{}, s, err
	}
	return Identity{PID: pid, Start: s.start, Boot: strings.TrimSpace(string(boot))}, s, nil
}

// Started returns when the process was started.
func (id Identity) Started() (time.Time, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return time.Time{}, err
	}
	// Field 22 of /proc/PID/stat counts ticks of 1/100 s: USER_HZ is 100 on
	// every architecture that Go supports.
	up := time.Duration(now.Nano()) - time.Duration(id.Start)*10*time.Millisecond
	return time.Now().Add(-up), nil
}

// Child returns the identity of the process with a number if it is a child of
// this one, which still runs; else the error is os.ErrProcessDone.
func (id Identity) Child(pid int) (Identity, error) {
	child, s, err := identify(pid)
	if err != nil {
		return Identity{}, err
	}
	// A child keeps its number until its parent has reaped it, so it was this
	// one's all the time.
	if s.parent != id.PID || !id.Alive() {
		return Identity{}, os.ErrProcessDone
	}
	return child, nil
}

// userOf returns the user who has started a process. The owner of its folder is whom
// it acts as: root, if its program is one like su.
func userOf(pid int) (int, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, err
	}
	var uid int
	_, line, _ := strings.Cut(string(text), "\nUid:")
	if _, err := fmt.Sscan(line, &uid); err != nil {
		return 0, fmt.Errorf("process %d: cannot read whose it is: %w", pid, err)
	}
	return uid, nil
}

// status is what /proc/PID/stat says.
type status struct {
	state  string
	parent int
	start  uint64
}

// stat reads the status of a process.
func stat(pid int) (status, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return status{}, os.ErrProcessDone
	}
	if err != nil {
		return status{}, err
	}
	// The second field is the name in parentheses, which may hold anything.
	_, rest, ok := strings.Cut(string(data[bytes.LastIndexByte(data, ')'):]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return status{}, fmt.Errorf("process %d: cannot read its state from %q", pid, data)
	}
	s := status{state: fields[0]}
	if s.parent, err = strconv.Atoi(fields[1]); err != nil {
		return status{}, err
	}
	s.start, err = strconv.ParseUint(fields[19], 10, 64)
	return s, err
}

// handle is a descriptor of the process: unlike its number it cannot come to
// mean another one.
type handle struct{ file *os.File }

// open returns os.ErrProcessDone when the process has ended, zombies included.
func (id Identity) open() (*handle, error) {
	if id.PID <= 0 {
		return nil, os.ErrProcessDone
	}
	fd, err := unix.PidfdOpen(id.PID, unix.PIDFD_NONBLOCK)
	switch {
	case errors.Is(err, unix.ESRCH):
		return nil, os.ErrProcessDone
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINVAL):
		// The number is a thread's by now; before Linux 6.15 that was EINVAL.
		return nil, os.ErrProcessDone
	case err != nil:
		return nil, fmt.Errorf("pidfd_open: %w", err)
	}
	h := &handle{os.NewFile(uintptr(fd), "process")} // not blocking: it can wait without a thread
	now, s, err := identify(id.PID)
	if err == nil && (now != id || s.state == "Z" || s.state == "X") {
		err = os.ErrProcessDone
	}
	if err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

func (h *handle) Close() error { return h.file.Close() }

func (h *handle) signal(sig syscall.Signal) error {
	conn, err := h.file.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = conn.Control(func(fd uintptr) { serr = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	if errors.Is(serr, unix.ESRCH) {
		return os.ErrProcessDone
	}
	return errors.Join(err, serr)
}

// wait returns when the descriptor is readable, which it becomes when the process
// ends. It takes no thread meanwhile.
func (h *handle) wait(ctx context.Context) error {
	conn, err := h.file.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = h.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var perr error
	err = conn.Read(func(fd uintptr) (done bool) {
		var n int
		n, perr = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		if errors.Is(perr, unix.EINTR) {
			perr = nil
		}
		return n > 0 || perr != nil
	})
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(err, perr)
}
