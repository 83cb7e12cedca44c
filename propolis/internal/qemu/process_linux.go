package qemu

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// childAttributes has QEMU killed with the thread that starts it, and puts it
// into a process group of its own, which a terminal's Ctrl-C does not reach.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
}
