package link

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// namespaceDir is where iproute2 keeps named network namespaces.
	namespaceDir = "/run/netns"
	// NamespacePrefix starts the name of every namespace of a topology.
	NamespacePrefix = "falcon-"
	// threadNamespace is the network namespace of the calling thread.
	threadNamespace = "/proc/thread-self/ns/net"
	// lockDeadline is far more than another process needs for one mount.
	lockDeadline = 5 * time.Second
)

// Namespaces returns the names of the topologies' namespaces on this host,
// those that a killed process left half made included.
func Namespaces(ctx context.Context) ([]string, error) {
	entries, err := os.ReadDir(namespaceDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, opError("list namespaces", "", err, "")
	}
	var found []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), NamespacePrefix) {
			found = append(found, e.Name())
		}
	}
	return found, ctx.Err()
}

func namespacePath(name string) string { return filepath.Join(namespaceDir, name) }

func checkNamespaceName(name string) error {
	if !strings.HasPrefix(name, NamespacePrefix) || len(name) > unix.NAME_MAX ||
		strings.ContainsFunc(name, func(r rune) bool { return r == '/' || unfitForName(r) }) {
		return fmt.Errorf("namespace %q: the name must start with %q and be a plain file name",
			name, NamespacePrefix)
	}
	return nil
}

// ensureNamespace makes the named namespace unless it stands, and says
// whether it did.
func ensureNamespace(ctx context.Context, name string) (made bool, err error) {
	unlock, err := lockNamespaceDir(ctx)
	if err != nil {
		return false, opError("prepare "+namespaceDir+" for namespace", name, err, "")
	}
	defer unlock()
	path := namespacePath(name)
	if isNamespace(path) {
		return false, nil
	}
	// A process that was killed between the file and the mount leaves the
	// file behind.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, opError("clear the way for namespace", name, err, "")
	}
	if err := makeNamespace(path); err != nil {
		return false, errors.Join(opError("create namespace", name, err, ""), unmountNamespace(path))
	}
	return true, nil
}

// lockNamespaceDir makes the folder of namespaces ready, the way iproute2
// does, so that mounts in it reach the other mount namespaces of the host,
// and takes iproute2's lock on it.
func lockNamespaceDir(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(namespaceDir, 0o755); err != nil {
		return nil, err
	}
	dir, err := os.Open(namespaceDir)
	if err != nil {
		return nil, err
	}
	if err := flock(ctx, dir); err != nil {
		_ = dir.Close()
		return nil, err
	}
	unlock = func() { _ = dir.Close() } // closing releases the lock
	const shared = unix.MS_SHARED | unix.MS_REC
	err = unix.Mount("", namespaceDir, "none", shared, "")
	if errors.Is(err, unix.EINVAL) { // not a mount point yet
		err = unix.Mount(namespaceDir, namespaceDir, "none", unix.MS_BIND|unix.MS_REC, "")
		if err == nil {
			err = unix.Mount("", namespaceDir, "none", shared, "")
		}
	}
	if err != nil {
		unlock()
		return nil, fmt.Errorf("make %s a shared mount: %w", namespaceDir, err)
	}
	return unlock, nil
}

func flock(ctx context.Context, f *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, lockDeadline)
	defer cancel()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		// Nothing tells of a released flock except a blocking call, which
		// could not be cancelled. The lock is held for one mount at most.
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait %v for the lock on %s, which another process holds: %w",
				lockDeadline, f.Name(), ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}

func isNamespace(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

func makeNamespace(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0)
	if err != nil {
		return err
	}
	_ = f.Close()
	return onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Mount(threadNamespace, path, "none", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind mount: %w", err)
		}
		return nil
	})
}

// unmountNamespace takes away the name of a namespace. The kernel deletes the
// namespace with everything in it when its last user is gone.
func unmountNamespace(path string) error {
	for {
		// Mounts can be stacked; the end is reached when nothing is mounted.
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return opError("unmount namespace", path, err, "")
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return opError("remove namespace", path, err, "")
	}
	return nil
}

// within runs fn on a thread that is inside the namespace at path.
func within(path string, fn func() error) error {
	target, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open namespace: %w", err)
	}
	defer func() { _ = target.Close() }()
	return onOwnThread(func() error {
		if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter namespace %s: %w", path, err)
		}
		return fn()
	})
}

// onOwnThread runs fn, which may change the thread's network namespace, where
// no other goroutine runs meanwhile. The thread goes back to its namespace
// before others use it; when that fails it stays locked to the goroutine that
// ends here, and the runtime discards it.
func onOwnThread(fn func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		origin, err := os.Open(threadNamespace)
		if err != nil {
			runtime.UnlockOSThread()
			result <- fmt.Errorf("open the thread's namespace: %w", err)
			return
		}
		err = fn()
		if unix.Setns(int(origin.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		_ = origin.Close()
		result <- err
	}()
	return <-result
}

// silence keeps the kernel's IPv6 off all devices of the thread's namespace,
// those to come included: it would send router solicitations and multicast
// listener reports on every cable. IPv4 is silent without an address.
func silence() error {
	for _, scope := range []string{"all", "default"} {
		if err := disableIPv6(scope); err != nil {
			return err
		}
	}
	return nil
}

// disableIPv6 switches IPv6 off for a device, or a scope that stands for
// devices.
func disableIPv6(device string) error {
	path := filepath.Join("/proc/sys/net/ipv6/conf", device, "disable_ipv6")
	value, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || string(value) == "1\n" {
		return nil // a kernel without IPv6, or off already
	}
	err = os.WriteFile(path, []byte("1"), 0)
	return opError("switch IPv6 off for", device, err, "/proc/sys must be writable")
}
