package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stageName is what this program calls itself when it prepares the place of
// another, and becomes it.
const stageName = "falcon-confine"

// errHanded marks what is wrong with that which is handed in, or with the program:
// it is no reason to confine it less.
var errHanded = errors.New("the program cannot be started")

// plan is what a stage is to do.
type plan struct {
	Path   string
	Argv   []string
	Env    []string
	Level  Level
	Root   bool // it was started by root
	UID    int
	GID    int
	Mounts []stageMount
	// Network is the Config's HostNetwork.
	Network bool
	Check   bool // end instead of becoming the program
}

// stageMount is a Mount with where its tree comes from: a descriptor that came
// with the plan, or -1 for the path.
type stageMount struct {
	Mount
	FD int
}

// init is where this program stops being itself: it runs before main, in every
// program that can start a machine.
func init() {
	if filepath.Base(os.Args[0]) != stageName {
		return
	}
	runtime.LockOSThread() // ids, capabilities and filters are those of a thread
	fd, err := strconv.Atoi(os.Args[len(os.Args)-1])
	if err != nil {
		os.Exit(2)
	}
	unix.CloseOnExec(fd)
	// What follows came from whoever started the server, by chance.
	_ = unix.CloseRange(uint(fd+1), math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC)
	if err = runStage(fd); err != nil {
		// Whoever waits for it is told; if nobody does any more, nobody misses it.
		kind := "?"
		if errors.Is(err, errHanded) {
			kind = "!"
		}
		_ = unix.Sendmsg(fd, []byte(kind+err.Error()), nil, nil, 0)
		os.Exit(1)
	}
	os.Exit(0)
}

func runStage(control int) error {
	p, err := receivePlan(control)
	if err != nil {
		return err
	}
	if p.Level == Full && p.Root {
		// What is made below belongs to the id inside; the one outside has no
		// name here.
		if err := become(p.UID, p.GID); err != nil {
			return err
		}
	}
	if p.Level != Least {
		if err := moveIn(p); err != nil {
			return err
		}
	}
	if err := dropBounds(); err != nil {
		return err
	}
	if p.Level == Mounts {
		if err := become(p.UID, p.GID); err != nil {
			return err
		}
	}
	if err := dropCapabilities(); err != nil {
		return err
	}
	if err := checkReadable(p.Mounts); err != nil {
		return err
	}
	// It was forgotten with the change of ids. If the server is gone by now,
	// its end of the socket is closed.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return os.NewSyscallError("PR_SET_PDEATHSIG", err)
	}
	if n, _, err := unix.Recvfrom(control, make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT); n == 0 && err == nil {
		return errors.New("the server is gone")
	}
	// Some containers filter system calls by the one way that there can be.
	if err := filter(control, p.Network); err != nil && p.Level != Least {
		return err
	}
	if p.Check {
		return nil
	}
	return fmt.Errorf("%w: %s: %w", errHanded, p.Path, unix.Exec(p.Path, p.Argv, p.Env))
}

// maxPlan bounds a plan, in bytes; Linux bounds a command line by much less.
const maxPlan = 1 << 20

// receivePlan reads the plan and the descriptors that come with it.
func receivePlan(control int) (p plan, err error) {
	data, oob := make([]byte, maxPlan), make([]byte, unix.CmsgSpace(4*maxTrees))
	n, oobn, _, _, err := unix.Recvmsg(control, data, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return p, os.NewSyscallError("recvmsg", err)
	}
	if err := json.Unmarshal(data[:n], &p); err != nil {
		return p, fmt.Errorf("the plan: %w", err)
	}
	fds, err := rights(oob[:oobn])
	if err != nil {
		return p, err
	}
	for i := range p.Mounts {
		if at := p.Mounts[i].FD; at >= len(fds) {
			return p, errors.New("a mount's descriptor did not come with the plan")
		} else if at >= 0 {
			p.Mounts[i].FD = fds[at]
		}
	}
	return p, nil
}

// moveIn makes the root folder and goes there.
func moveIn(p plan) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("taking mounts apart from the host's: %w", err)
	}
	// All are opened before anything covers where they are.
	for i := range p.Mounts {
		if m := &p.Mounts[i]; m.FD < 0 {
			var err error
			if m.FD, err = openTree(m.Mount, nil); err != nil {
				return err
			}
		}
	}
	const root = "/tmp"
	if err := unix.Mount("falcon", root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mounting an empty root folder: %w", err)
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	for _, m := range p.Mounts {
		if err := place(m); err != nil {
			return err
		}
	}
	// It has a process namespace of its own, so there is nobody else in there.
	err := os.Mkdir("proc", 0o555)
	if err == nil {
		err = unix.Mount("proc", "proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "subset=pid")
	}
	if err != nil {
		return fmt.Errorf("mounting its own /proc: %w", err)
	}
	if err := unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("making the root folder read-only: %w", err)
	}
	return enterRoot()
}

// place attaches a tree at its target below the working folder.
func place(m stageMount) error {
	defer unix.Close(m.FD)
	var info unix.Stat_t
	if err := unix.Fstat(m.FD, &info); err != nil {
		return fmt.Errorf("%s: %w", m.Source, err)
	}
	target := "." + m.Target
	dir := target
	if info.Mode&unix.S_IFMT != unix.S_IFDIR {
		dir = filepath.Dir(target)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if dir != target {
		if err := os.WriteFile(target, nil, 0o600); err != nil {
			return err
		}
	}
	if err := unix.MoveMount(m.FD, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mounting %s: %w", m.Source, err)
	}
	return nil
}

// enterRoot makes the working folder the root. In a host that is a chroot itself
// it does so by another one, whose outside nothing leads to: the program has no
// descriptor of a folder, and no right to a chroot.
func enterRoot() error {
	err := unix.PivotRoot(".", ".")
	if err == nil {
		return os.NewSyscallError("umount", unix.Unmount(".", unix.MNT_DETACH))
	}
	if !errors.Is(err, unix.EINVAL) {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := unix.Chroot("."); err != nil {
		return os.NewSyscallError("chroot", err)
	}
	return os.Chdir("/")
}

// openTree returns a detached copy of what a mount is to show. With a user
// namespace, its ids are those of the host as the namespace has them.
func openTree(m Mount, users *os.File) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, m.Source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		err = fmt.Errorf("%w: %w", errHanded, err)
	}
	if err != nil {
		return -1, fmt.Errorf("mounting %s: %w", m.Source, err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID}
	if !m.Device {
		attr.Attr_set |= unix.MOUNT_ATTR_NODEV
	}
	if !m.Writable && !m.Device {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if users != nil && m.Owned {
		mapped := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users.Fd())}
		// File systems that know no such mounts show what there is to show to
		// everybody; that of a folder on such a one is noticed later.
		if unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &mapped) != nil {
			_ = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &mapped)
		}
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("mounting %s: %w", m.Source, err)
	}
	return fd, nil
}

// become takes other ids, and keeps what capabilities there are.
func become(uid, gid int) error {
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("PR_SET_KEEPCAPS", err)
	}
	// Not those of package syscall, which act on all threads.
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); e != 0 {
		return os.NewSyscallError("setgroups", e)
	}
	g, u := uintptr(gid), uintptr(uid)
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, g, g, g); e != 0 {
		return os.NewSyscallError("setresgid", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, u, u, u); e != 0 {
		return os.NewSyscallError("setresuid", e)
	}
	return nil
}

// Bits of PR_SET_SECUREBITS: root is nobody special, nor is who becomes root, and
// so it stays.
const secureBits = 1<<0 | 1<<1 | 1<<2 | 1<<3 | 1<<5 | 1<<6 | 1<<7

// dropBounds takes away what an exec could give. Without the right to, there is
// little to take: no exec gives anything to those who may have no new privileges.
func dropBounds() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("PR_SET_NO_NEW_PRIVS", err)
	}
	for c := uintptr(0); ; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) { // the kernel has no more
			return nil
		}
		if errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
			return nil
		}
		if err != nil {
			return os.NewSyscallError("PR_CAPBSET_DROP", err)
		}
	}
}

// dropCapabilities takes away all that there are.
func dropCapabilities() error {
	// Where it is refused there is nothing that root could regain: see dropBounds.
	_ = unix.Prctl(unix.PR_SET_SECUREBITS, secureBits, 0, 0, 0)
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return os.NewSyscallError("PR_CAP_AMBIENT", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if _, _, e := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])), 0); e != 0 {
		return os.NewSyscallError("capset", e)
	}
	return nil
}

// checkReadable refuses folders that the program would be given in vain.
func checkReadable(mounts []stageMount) error {
	for _, m := range mounts {
		if !m.Owned || m.Writable {
			continue
		}
		f, err := os.Open(m.Target)
		if errors.Is(err, unix.EACCES) {
			return fmt.Errorf("%w: it runs without root's rights and cannot read %s: chmod -R o+rX %s", errHanded, m.Source, m.Source)
		}
		if err == nil {
			f.Close()
		}
	}
	return nil
}
