package guest

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/internal/agent"
)

// mountOptions are how folders of the host's are mounted.
const mountOptions = "trans=virtio,version=9p2000.L,msize=65536"

// mount mounts folders of the host's. By the system call itself: a shell that
// runs mount takes tens of milliseconds in a guest that is translated.
func (s *server) mount(mounts []agent.Mount) error {
	for _, m := range mounts {
		if err := s.mount9p(m); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) mount9p(m agent.Mount) error {
	if err := os.MkdirAll(m.Target, 0o755); err != nil {
		return fmt.Errorf("the guest cannot mount %s: %w", m.Target, err)
	}
	err := unix.Mount(m.Tag, m.Target, "9p", unix.MS_RDONLY, mountOptions)
	if err != nil && !errors.Is(err, unix.EBUSY) {
		// A kernel older than 5.16 does not load the transport by itself. That
		// there is none, mounting says.
		_ = s.command("modprobe", "9pnet_virtio")
		err = unix.Mount(m.Tag, m.Target, "9p", unix.MS_RDONLY, mountOptions)
	}
	if errors.Is(err, unix.EBUSY) {
		mounts, rerr := os.ReadFile("/proc/self/mountinfo")
		if rerr == nil && mounted9p(string(mounts), m.Target) {
			return nil
		}
	}
	return explainMount(m, err)
}

// explainMount says why a folder was not mounted.
func explainMount(m agent.Mount, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("the guest cannot mount %s: its device, %s, is mounted elsewhere", m.Target, m.Tag)
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("the guest cannot mount %s: its kernel must have the 9p file system, which kernels made for clouds lack", m.Target)
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("the guest cannot mount %s: it has no 9p device %s", m.Target, m.Tag)
	}
	return fmt.Errorf("the guest cannot mount %s: %w", m.Target, err)
}

// mounted9p reports whether a 9p file system is mounted on a folder. The lines
// are those that parseMounts describes.
func mounted9p(info, target string) bool {
	for line := range strings.Lines(info) {
		head, tail, _ := strings.Cut(line, " - ")
		h, t := strings.Fields(head), strings.Fields(tail)
		if len(h) > 4 && len(t) > 0 && t[0] == "9p" && mountsEscape.Replace(h[4]) == target {
			return true
		}
	}
	return false
}
