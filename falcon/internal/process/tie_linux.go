package process

import (
	"runtime"
	"syscall"
)

// EndWithUs has a child that is started with the attributes get a signal when
// this process ends, however it does. The kernel goes by the thread that starts
// the child, so the caller keeps that until it has waited and calls done.
func EndWithUs(attr *syscall.SysProcAttr, sig syscall.Signal) (done func()) {
	runtime.LockOSThread()
	attr.Pdeathsig = sig
	return runtime.UnlockOSThread
}
