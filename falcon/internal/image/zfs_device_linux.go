package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// deviceDir is where udev puts links to the devices of volumes.
const deviceDir = "/dev/zvol"

// deviceReady says why the device of a volume cannot be used yet. The link of
// an earlier volume of its name may still be there: the device itself knows
// whose it is.
func deviceReady(device, dataset string) error {
	name, err := volumeOf(device)
	if err == nil && name != dataset {
		err = fmt.Errorf("it is that of volume %s", name)
	}
	return err
}

// volumeOf asks a device which volume it is.
func volumeOf(device string) (string, error) {
	f, err := os.Open(device)
	if err != nil {
		return "", err
	}
	defer f.Close()
	// BLKZNAME, _IOR(0x12, 125, char[256]) in OpenZFS' sys/fs/zfs.h.
	const blkZName = 2<<30 | nameBytes<<16 | 0x12<<8 | 125
	var name [nameBytes]byte
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), blkZName, uintptr(unsafe.Pointer(&name))); errno != 0 {
		return "", fmt.Errorf("%s is no volume: %w", device, errno)
	}
	before, _, _ := bytes.Cut(name[:], []byte{0})
	return string(before), nil
}

const nameBytes = 256

// awaitDevice waits until ready has nothing to say against a device, and returns
// the last that it said. It looks whenever something has changed in the folder
// of the device, or in the nearest one above that is there.
func awaitDevice(ctx context.Context, device string, ready func() error) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("inotify: %w", err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	defer events.Close()
	stop := context.AfterFunc(ctx, func() { _ = events.SetReadDeadline(time.Now()) })
	defer stop()
	buf := make([]byte, 4096) // any number of events: all that counts is that there were some
	for {
		if err := watchAbove(fd, device); err != nil {
			return err
		}
		last := ready() // after the watch began, so that nothing is missed
		if last == nil || ctx.Err() != nil {
			return last
		}
		if _, err := events.Read(buf); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("inotify: %w", err)
		}
	}
}

// watchAbove watches the folder of a path, or the nearest one above that is
// there. Watching one again changes nothing.
func watchAbove(fd int, path string) error {
	for {
		path = filepath.Dir(path)
		_, err := unix.InotifyAddWatch(fd, path, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ATTRIB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path) {
			return fmt.Errorf("watching %s: %w", path, err)
		}
	}
}

// missingDevice says more about a device that does not appear.
func missingDevice(dataset string) string {
	devices, _ := filepath.Glob("/dev/zd*")
	for _, device := range devices {
		if name, err := volumeOf(device); err == nil && name == dataset {
			return fmt.Sprintf(" (the kernel has it as %s, and udev's rule 60-zvol.rules, of package zfsutils-linux, makes the link: is systemd-udevd running?)", device)
		}
	}
	return " (the kernel has made no device of it: see dmesg, and zfs get volmode " + dataset + ")"
}
