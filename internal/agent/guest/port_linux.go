package guest

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/internal/agent"
)

// OpenPort opens the agent's port: the device at a path or, if that is empty,
// the one of the agent's name, for which it waits.
func OpenPort(path string) (io.ReadWriteCloser, error) {
	if path == "" {
		var err error
		if path, err = awaitPort(); err != nil {
			return nil, fmt.Errorf("finding the port %s: %w", agent.Port, err)
		}
	}
	// Without waiting, so that the runtime waits for it beside others.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the port %s: %w", path, err)
	}
	file := os.NewFile(uintptr(fd), path)
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("opening the port %s: %w", path, err)
	}
	return &port{File: file, raw: raw}, nil
}

// awaitPort finds the port. One that is not there yet, for its driver is still
// to be loaded, is announced by the kernel.
func awaitPort() (string, error) {
	events, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return "", err
	}
	defer unix.Close(events)
	if err := unix.Bind(events, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		return "", err
	}
	if findPort() == "" {
		_ = loadDriver() // where nobody else loads it
	}
	buf := make([]byte, 4096)
	for {
		if path := findPort(); path != "" {
			return path, nil
		}
		// Whatever happened, there is nothing to do but to look again.
		if _, err := unix.Read(events, buf); err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOBUFS) {
			return "", err
		}
	}
}

// findPort looks for the port among those that there are.
func findPort() string {
	names, _ := filepath.Glob("/sys/class/virtio-ports/*/name") // the pattern is right
	for _, file := range names {
		if name, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(name)) == agent.Port {
			return "/dev/" + filepath.Base(filepath.Dir(file))
		}
	}
	return ""
}

// port is an open virtio-serial port. One goroutine reads it.
type port struct {
	*os.File
	raw   syscall.RawConn
	parts [portParts]unix.Iovec
}

const (
	// hostPause is how long a port without a host is left alone.
	hostPause = 10 * time.Millisecond
	// portPart is the most that the driver gives to one read, the size of its
	// buffers. It gives several to the parts of one readv.
	portPart  = 4096
	portParts = 16
)

// Read implements io.Reader. While no host is at the other end, reading returns
// the end of the file at once and the device counts as readable: nothing but
// time tells when to look again.
func (p *port) Read(buf []byte) (int, error) {
	for {
		n, err := p.read(buf)
		if n > 0 || err != nil {
			return n, err
		}
		time.Sleep(hostPause)
	}
}

// read reads as much as is there, in one system call. The runtime is not told of
// the call, nor of that in write: neither waits, and a runtime that watches them
// takes longer than they do where the guest is translated.
func (p *port) read(buf []byte) (n int, err error) {
	count := 0
	for len(buf) > 0 && count < portParts {
		size := min(len(buf), portPart)
		p.parts[count].Base = &buf[0]
		p.parts[count].SetLen(size)
		buf = buf[size:]
		count++
	}
	werr := p.raw.Read(func(fd uintptr) bool {
		n, err = direct(unix.SYS_READV, fd, unsafe.Pointer(&p.parts[0]), count)
		return !errors.Is(err, unix.EAGAIN)
	})
	return n, cmp.Or(werr, err)
}

// Write implements io.Writer.
func (p *port) Write(buf []byte) (written int, err error) {
	for written < len(buf) && err == nil {
		n := 0
		werr := p.raw.Write(func(fd uintptr) bool {
			n, err = direct(unix.SYS_WRITE, fd, unsafe.Pointer(&buf[written]), len(buf)-written)
			return !errors.Is(err, unix.EAGAIN)
		})
		written, err = written+n, cmp.Or(werr, err)
	}
	return written, err
}

// direct makes a system call that does not wait.
func direct(call, fd uintptr, p unsafe.Pointer, size int) (int, error) {
	for {
		n, _, errno := unix.RawSyscall(call, fd, uintptr(p), uintptr(size))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
