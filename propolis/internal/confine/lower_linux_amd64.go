package confine

import (
	"errors"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// kept are the capabilities that a server of root's works with: the files and
// devices of any user, mounts and ids for QEMU, taps in network namespaces, QEMU's
// memory, and in a namespace of its own what it confines QEMU by.
var kept = []uintptr{
	unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_DAC_READ_SEARCH, unix.CAP_FOWNER, unix.CAP_KILL, unix.CAP_MKNOD,
	unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_SETPCAP, unix.CAP_SYS_ADMIN, unix.CAP_SYS_CHROOT, unix.CAP_SYS_PTRACE,
	unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_NET_BIND_SERVICE,
}

// Lower takes from the thread, and so from what it starts, what a server does not
// need.
func Lower() error {
	for c := uintptr(0); ; c++ {
		if slices.Contains(kept, c) {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) { // no more, or none that an exec could give
			break
		}
		if err != nil {
			return os.NewSyscallError("PR_CAPBSET_DROP", err)
		}
	}
	return os.NewSyscallError("PR_SET_NO_NEW_PRIVS", unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
}

// LowerSelf has this program be what Lower leaves, on all its threads: it starts
// anew as the same process, if it has not done so.
func LowerSelf() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if lowered, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err != nil || lowered == 1 {
		return err
	}
	if err := Lower(); err != nil {
		return err
	}
	return unix.Exec("/proc/self/exe", os.Args, os.Environ())
}
