//go:build !linux

package qemu

import "syscall"

// childAttributes puts QEMU into a process group of its own, which a
// terminal's Ctrl-C does not reach.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
