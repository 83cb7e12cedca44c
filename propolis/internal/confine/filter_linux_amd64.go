package confine

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// opens are the flags of an open that changes something, if only that a file is
// there.
const changes = unix.O_ACCMODE | unix.O_CREAT | unix.O_TRUNC

// refused are the system calls that a confined program has no use for, and which
// lead around what confines it or far into the kernel.
var refused = []uint32{
	// other names for an open, and what opens without any
	unix.SYS_CREAT, unix.SYS_TRUNCATE, unix.SYS_OPEN_BY_HANDLE_AT,
	// what the owner of a file may do without opening it for writing
	unix.SYS_CHMOD, unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2,
	unix.SYS_CHOWN, unix.SYS_FCHOWN, unix.SYS_LCHOWN, unix.SYS_FCHOWNAT,
	unix.SYS_SETXATTR, unix.SYS_LSETXATTR, unix.SYS_FSETXATTR, unix.SYS_SETXATTRAT,
	unix.SYS_REMOVEXATTR, unix.SYS_LREMOVEXATTR, unix.SYS_FREMOVEXATTR, unix.SYS_REMOVEXATTRAT,
	unix.SYS_UTIME, unix.SYS_UTIMES, unix.SYS_UTIMENSAT, unix.SYS_FUTIMESAT,
	unix.SYS_LINK, unix.SYS_LINKAT, unix.SYS_MKNOD, unix.SYS_MKNODAT,
	// namespaces, mounts, others
	unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_CHROOT, unix.SYS_PIVOT_ROOT,
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_MOUNT_SETATTR,
	unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK,
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV,
	unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID, unix.SYS_SETRESUID, unix.SYS_SETRESGID,
	unix.SYS_SETGROUPS, unix.SYS_SETFSUID, unix.SYS_SETFSGID,
	// parts of the kernel where most of its holes have been
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL, unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD,
	unix.SYS_IOPERM, unix.SYS_IOPL, unix.SYS_MODIFY_LDT,
}

// missing are the system calls whose arguments a filter cannot see, or that go
// around it. Programs know older ones.
var missing = []uint32{unix.SYS_OPENAT2, unix.SYS_CLONE3, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER}

// families are those of sockets that a program may make, with the host's network
// or without. Others lead to other machines, or far into the kernel.
func families(network bool) []uint32 {
	if network {
		return []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}
	}
	return []uint32{unix.AF_UNIX}
}

// requests are those of ioctl that are refused: what would have a network device
// outlive the program or be another's, and typing into somebody's terminal.
var requests = []uint32{
	unix.TUNSETIFF, unix.TUNSETPERSIST, unix.TUNSETOWNER, unix.TUNSETGROUP, unix.TUNSETLINK, unix.TUNSETCARRIER,
	unix.TUNATTACHFILTER, unix.TUNSETSTEERINGEBPF, unix.TUNSETFILTEREBPF, unix.SIOCSIFHWADDR,
	unix.TIOCSTI, unix.TIOCLINUX,
}

// namespaces are the flags of a clone that makes one.
const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
	unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// Offsets in struct seccomp_data, on a machine with the low bytes first.
const (
	dataNr   = 0
	dataArch = 4
	dataArgs = 16
)

// x32 marks the system calls of another ABI of amd64.
const x32 = 0x40000000

// program is the filter of a program that has the host's network or not.
func program(network bool) []unix.SockFilter {
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	answer := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	// unless skips n instructions unless the test holds.
	unless := func(test uint16, k uint32, n uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, Jf: n, K: k}
	}
	deny := uint32(unix.SECCOMP_RET_ERRNO)
	f := []unix.SockFilter{
		load(dataArch),
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: unix.AUDIT_ARCH_X86_64},
		answer(unix.SECCOMP_RET_KILL_PROCESS),
		load(dataNr),
		unless(unix.BPF_JGE, x32, 1),
		answer(deny | uint32(unix.ENOSYS)),
	}
	flagged := func(nr uint32, arg int, mask, what uint32) {
		f = append(f, unless(unix.BPF_JEQ, nr, 4), load(uint32(dataArgs+8*arg)),
			unless(unix.BPF_JSET, mask, 1), answer(what), answer(unix.SECCOMP_RET_ALLOW))
	}
	flagged(unix.SYS_OPENAT, 2, changes, unix.SECCOMP_RET_USER_NOTIF)
	flagged(unix.SYS_OPEN, 1, changes, unix.SECCOMP_RET_USER_NOTIF)
	flagged(unix.SYS_CLONE, 0, namespaces, deny|uint32(unix.EPERM))
	// only answers system calls by one of their arguments.
	only := func(nr uint32, arg int, values []uint32, what, others uint32) {
		f = append(f, unless(unix.BPF_JEQ, nr, uint8(2+2*len(values))), load(uint32(dataArgs+8*arg)))
		for _, v := range values {
			f = append(f, unless(unix.BPF_JEQ, v, 1), answer(what))
		}
		f = append(f, answer(others))
	}
	for _, nr := range []uint32{unix.SYS_SOCKET, unix.SYS_SOCKETPAIR} {
		only(nr, 0, families(network), unix.SECCOMP_RET_ALLOW, deny|uint32(unix.EAFNOSUPPORT))
	}
	only(unix.SYS_IOCTL, 1, requests, deny|uint32(unix.EPERM), unix.SECCOMP_RET_ALLOW)
	for _, nr := range refused {
		f = append(f, unless(unix.BPF_JEQ, nr, 1), answer(deny|uint32(unix.EPERM)))
	}
	for _, nr := range missing {
		f = append(f, unless(unix.BPF_JEQ, nr, 1), answer(deny|uint32(unix.ENOSYS)))
	}
	return append(f, answer(unix.SECCOMP_RET_ALLOW))
}

// filter has the server asked about opens for writing, and other system calls
// refused. Its own descriptor of that goes to the server.
func filter(control int, network bool) error {
	p := program(network)
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	fd, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, uintptr(unsafe.Pointer(&prog)))
	if e != 0 {
		return os.NewSyscallError("seccomp", e)
	}
	unix.CloseOnExec(int(fd))
	if err := unix.Sendmsg(control, []byte{0}, unix.UnixRights(int(fd)), nil, 0); err != nil {
		return os.NewSyscallError("sendmsg", err)
	}
	return os.NewSyscallError("close", unix.Close(int(fd)))
}

// notification is struct seccomp_notif.
type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

// reply is struct seccomp_notif_resp.
type reply struct {
	id    uint64
	val   int64
	error int32
	flags uint32
}

// handover is struct seccomp_notif_addfd.
type handover struct {
	id         uint64
	flags      uint32
	srcfd      uint32
	newfd      uint32
	newfdFlags uint32
}

// answerOpens answers the opens of a program until done is readable.
func answerOpens(listener *os.File, done *os.File, opened map[string]*os.File) error {
	for {
		fds := []unix.PollFd{{Fd: int32(listener.Fd()), Events: unix.POLLIN}, {Fd: int32(done.Fd()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if fds[1].Revents != 0 || fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0 {
			return nil
		}
		if fds[0].Revents == 0 {
			continue
		}
		var n notification
		if err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)); err != nil {
			continue // it has ended meanwhile
		}
		// What fails here has the program wait in vain only if it has ended.
		_ = answerOpen(listener, &n, opened)
	}
}

func answerOpen(listener *os.File, n *notification, opened map[string]*os.File) error {
	at := n.args[1] // of openat
	if n.nr == unix.SYS_OPEN {
		at = n.args[0]
	}
	path, err := readString(int(n.pid), int64(at))
	if file, ok := opened[path]; err == nil && ok {
		h := handover{id: n.id, flags: unix.SECCOMP_ADDFD_FLAG_SEND, srcfd: uint32(file.Fd()), newfdFlags: unix.O_CLOEXEC}
		if err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&h)); err == nil {
			return nil
		}
	}
	r := reply{id: n.id, error: -int32(unix.EACCES)}
	return ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
}

// readString reads a path from a program's memory. What it says may change at
// once, which is no matter: it gets nothing that is not its own.
func readString(pid int, at int64) (string, error) {
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return "", err
	}
	defer memory.Close()
	var path []byte
	for buf := make([]byte, 256); len(path) < unix.PathMax; {
		n, err := memory.ReadAt(buf, at+int64(len(path)))
		for i, c := range buf[:n] {
			if c == 0 {
				return string(append(path, buf[:i]...)), nil
			}
		}
		if path = append(path, buf[:n]...); err != nil {
			return "", err
		}
	}
	return "", unix.ENAMETOOLONG
}

func ioctl(f *os.File, request uint, arg unsafe.Pointer) error {
	for {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(request), uintptr(arg))
		if e == 0 {
			return nil
		}
		if e != unix.EINTR {
			return e
		}
	}
}
