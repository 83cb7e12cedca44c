package guest

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/internal/agent"
)

// prepareLimit bounds the waits for the end of a guest's boot. The host's
// patience is mostly shorter, and ends them by ending the call.
const prepareLimit = 10 * time.Minute

// cloneModules are drivers of what clones are given that their template need not
// have. Loading one later takes tens of milliseconds.
var cloneModules = []string{"virtio_net", "9p", "9pnet_virtio"}

// heirlooms are what only one machine may have: seeds of random numbers, and
// addresses that were given to the template.
var heirlooms = []string{
	"/var/lib/systemd/random-seed", "/var/lib/urandom/random-seed", "/var/lib/misc/random-seed", "/var/lib/seedrng/*",
	"/var/lib/dhcp/*.lease*", "/var/lib/dhclient/*.lease*", "/var/lib/dhcpcd/*", "/var/lib/NetworkManager/*.lease",
	"/run/systemd/netif/leases/*",
}

// prepare makes the guest ready to be saved as a template. Host keys of SSH stay
// with the server that has read them, until identify makes new ones before the
// network is there.
func (s *server) prepare(c *call) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), prepareLimit)
	defer cancel()
	c.stream.OnEnd(cancel)
	if err := s.awaitBoot(ctx); err != nil {
		return nil, fmt.Errorf("waiting for the end of the boot: %w", err)
	}
	// A kernel that lacks some of them is told of when they are wanted.
	_ = s.command(append([]string{"modprobe", "-a"}, cloneModules...)...)
	for _, pattern := range heirlooms {
		files, _ := filepath.Glob(pattern) // the patterns are right
		for _, f := range files {
			if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
	}
	if err := s.rehearse(); err != nil {
		return nil, fmt.Errorf("rehearsing what a clone does: %w", err)
	}
	down, err := s.takeDown()
	if err != nil {
		return nil, errors.Join(err, s.takeUp())
	}
	// What is not on the disk now each clone would write to its own.
	unix.Sync()
	return agent.Prepared{Interfaces: down}.Encode(), nil
}

const (
	// systemdRuns is there while systemd is process 1.
	systemdRuns = "/run/systemd/system"
	// udevRuns is there while udev handles events.
	udevRuns = "/run/udev/control"
	// laterProgram is what the init of our own micro image runs last, and
	// laterDone is what that leaves when it has ended.
	laterProgram = "/usr/lib/falcon/later"
	laterDone    = "/run/falcon-later"
)

// awaitBoot waits until the guest has nothing left to do by itself.
func (s *server) awaitBoot(ctx context.Context) error {
	switch {
	case exists(systemdRuns):
		// It returns when systemd has no jobs left. A unit that has failed does
		// so in every guest of the image, and is no reason to have none.
		said, status, err := s.output(ctx, "systemctl", "is-system-running", "--wait")
		if err != nil {
			return err
		}
		if status != 0 && said != "degraded" {
			return fmt.Errorf("systemctl is-system-running says %q, with status %d", said, status)
		}
	case exists(laterProgram):
		if err := awaitFile(ctx, laterDone); err != nil {
			return err
		}
	}
	if !exists(udevRuns) {
		return nil
	}
	said, status, err := s.output(ctx, "udevadm", "settle", fmt.Sprintf("--timeout=%d", prepareLimit/time.Second))
	if err == nil && status != 0 {
		err = fmt.Errorf("udevadm settle ended with status %d: %s", status, said)
	}
	return err
}

func exists(path string) bool { return unix.Access(path, unix.F_OK) == nil }

// awaitFile waits until there is a file.
func awaitFile(ctx context.Context, path string) error {
	began := time.Now()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return err
	}
	events := os.NewFile(uintptr(fd), "inotify")
	defer events.Close()
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = events.SetReadDeadline(time.Unix(1, 0)) })()
	for buf := make([]byte, 4096); !exists(path); {
		// Whatever was made, there is nothing to do but to look again.
		if _, err := events.Read(buf); err != nil {
			return fmt.Errorf("there is no %s after %v: %w", path, time.Since(began).Round(time.Second), cmp.Or(ctx.Err(), err))
		}
	}
	return nil
}

// lookedUp are files that a clone has to do with: folders that are mounted on, by
// custom, and what identities are kept in.
var lookedUp = []string{"/*", "/mnt/*", "/opt/*", "/srv/*", "/etc/*", "/etc/ssh/*", dbusMachineID}

// rehearse does once what a clone does first: what that takes is then in memory,
// which the clones share.
func (s *server) rehearse() error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	file, err := os.ReadFile(hostnameFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	id := agent.Identity{Entropy: make([]byte, 64), Time: time.Now(), Hostname: "localhost"}
	_, _ = rand.Read(id.Entropy) // never fails
	if err := s.identify(id.Encode()); err != nil {
		return err
	}
	if err := errors.Join(unix.Sethostname([]byte(name)), rewrite(hostnameFile, string(file), 0o644)); err != nil {
		return err
	}
	// Clones then overwrite what is there, which takes their disks less.
	if err := s.keep(agent.Identity{Hostname: name}); err != nil {
		return err
	}
	// What is looked up, or looked for in vain, is then known without the disk.
	for _, pattern := range lookedUp {
		files, _ := filepath.Glob(pattern) // the patterns are right
		for _, f := range files {
			_ = exists(f)
		}
	}
	for _, f := range []string{machineIDFile, "/proc/self/exe"} {
		_, _ = readFile(f) // some systems have no machine id
	}
	return s.command("sh", "-c", "exit 0")
}
