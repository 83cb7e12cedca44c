package guest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

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
	return port{os.NewFile(uintptr(fd), path)}, nil
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

// port is an open virtio-serial port.
type port struct{ *os.File }

// hostPause is how long a port without a host is left alone.
const hostPause = 10 * time.Millisecond

// Read implements io.Reader. While no host is at the other end, reading returns
// the end of the file at once and the device counts as readable: nothing but
// time tells when to look again.
func (p port) Read(buf []byte) (int, error) {
	for {
		n, err := p.File.Read(buf)
		if !errors.Is(err, io.EOF) {
			return n, err
		}
		time.Sleep(hostPause)
	}
}
