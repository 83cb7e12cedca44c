package link

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tapNodeDeadline is how long a device manager gets to make a node.
const tapNodeDeadline = 5 * time.Second

// tapNode is the character device through which a macvtap is opened.
type tapNode struct {
	path string
	dev  uint64
}

// tapNodeOf returns the node that the macvtap of that name and index has, or
// should have.
func tapNodeOf(device string, index int) (tapNode, error) {
	name := fmt.Sprintf("tap%d", index)
	text, err := os.ReadFile(filepath.Join("/sys/class/net", device, name, "dev"))
	if err != nil {
		return tapNode{}, fmt.Errorf("find the device number: %w", err)
	}
	var major, minor uint32
	if _, err := fmt.Sscanf(strings.TrimSpace(string(text)), "%d:%d", &major, &minor); err != nil {
		return tapNode{}, fmt.Errorf("device number %q: %w", text, err)
	}
	return tapNode{path: "/dev/" + name, dev: unix.Mkdev(major, minor)}, nil
}

// ensureTapNode waits for the node where the kernel or a device manager makes
// it, and makes it where nobody does: in a container.
func ensureTapNode(ctx context.Context, device string, index int) error {
	node, err := tapNodeOf(device, index)
	if err != nil {
		return err
	}
	managed, err := devtmpfsMounted()
	if err != nil {
		return err
	}
	if managed {
		return node.await(ctx, tapNodeDeadline)
	}
	return node.make()
}

// make provides the node. What else stands under its name is left over from
// an earlier macvtap.
func (n tapNode) make() error {
	if n.stands() {
		return nil
	}
	if err := os.Remove(n.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := unix.Mknod(n.path, unix.S_IFCHR|0o600, int(n.dev)); err != nil {
		return fmt.Errorf("mknod %s: %w", n.path, err)
	}
	return nil
}

// stands tells whether the node is there and leads to the macvtap.
func (n tapNode) stands() bool {
	var st unix.Stat_t
	return unix.Stat(n.path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == n.dev
}

// remove deletes the node, unless the kernel did.
func (n tapNode) remove() error {
	if !n.stands() {
		return nil
	}
	if err := os.Remove(n.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return opError("remove", n.path, err, "")
	}
	return nil
}

// await waits for the node by inotify.
func (n tapNode) await(ctx context.Context, patience time.Duration) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("inotify: %w", err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	defer func() { _ = events.Close() }()
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(n.path), unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		return fmt.Errorf("watch %s: %w", filepath.Dir(n.path), err)
	}
	if err := events.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return fmt.Errorf("inotify: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = events.SetReadDeadline(time.Now()) })
	defer stop()
	buf := make([]byte, 64*(unix.SizeofInotifyEvent+unix.NAME_MAX+1))
	for !n.stands() {
		if _, err := events.Read(buf); err != nil {
			return errors.Join(fmt.Errorf("waited %v for %s to appear: %w", patience, n.path, err), ctx.Err())
		}
	}
	return nil
}

// devtmpfsMounted tells whether the kernel makes the nodes in /dev.
func devtmpfsMounted() (bool, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line) // device, mount point, type, ...
		if len(f) > 2 && f[1] == "/dev" && f[2] == "devtmpfs" {
			return true, nil
		}
	}
	return false, nil
}
