package guest

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// interfaces are the names of the guest's network interfaces, lo among them.
func interfaces() ([]string, error) {
	table, err := readFile("/proc/thread-self/net/dev")
	var names []string
	for line := range strings.Lines(string(table)) {
		// After two lines of headings, which have no colon, one for each.
		if name, _, ok := strings.Cut(line, ":"); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return names, err
}

// takeDown takes the network interfaces down and notes those that were up.
func (s *server) takeDown() ([]string, error) {
	names, err := interfaces()
	if err != nil {
		return nil, fmt.Errorf("listing the network interfaces: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		was, err := setUp(name, false)
		if err != nil {
			return nil, fmt.Errorf("taking interface %s down: %w", name, err)
		}
		if was {
			s.down = append(s.down, name)
		}
	}
	return slices.Clone(s.down), nil
}

// takeUp takes up what takeDown took down.
func (s *server) takeUp() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.down) > 0 {
		if _, err := setUp(s.down[0], true); err != nil {
			return fmt.Errorf("taking interface %s up: %w", s.down[0], err)
		}
		s.down = s.down[1:]
	}
	return nil
}

// setUp takes an interface up or down, and returns what it was. The loopback
// interface is left alone.
func setUp(name string, up bool) (was bool, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return false, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr); err != nil {
		return false, err
	}
	flags := ifr.Uint16()
	if flags&unix.IFF_LOOPBACK != 0 {
		return false, nil
	}
	if was = flags&unix.IFF_UP != 0; was == up {
		return was, nil
	}
	ifr.SetUint16(flags ^ unix.IFF_UP)
	return was, unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}
