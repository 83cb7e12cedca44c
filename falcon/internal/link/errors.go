package link

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"
)

// Reasons that a caller can act upon. They are found with [errors.Is].
var (
	// ErrNotPermitted means that this process lacks a privilege.
	ErrNotPermitted = errors.New("not permitted")
	// ErrNotSupported means that this kernel or platform cannot do it.
	ErrNotSupported = errors.New("not supported")
	// ErrInUse means that a name or an interface is somebody else's.
	ErrInUse = errors.New("in use")
	// ErrNoInterface means that the host has no interface of that name.
	ErrNoInterface = errors.New("no such interface")
)

// OpError is a failed operation on a device, namespace or interface.
type OpError struct {
	// Op is what was tried, such as "create tap".
	Op string
	// Target is what it was tried on.
	Target string
	// Fix is what to do about it, or empty.
	Fix string
	// Err is the cause.
	Err error
}

// Error says what failed, on what, why, and what to do.
func (e *OpError) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Target != "" {
		b.WriteString(" " + e.Target)
	}
	b.WriteString(": " + e.Err.Error())
	if e.Fix != "" {
		b.WriteString(" (" + e.Fix + ")")
	}
	return b.String()
}

// Unwrap returns the cause and the reason that it amounts to.
func (e *OpError) Unwrap() []error {
	if reason := reasonOf(e.Err); reason != nil {
		return []error{e.Err, reason}
	}
	return []error{e.Err}
}

func reasonOf(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission): // EPERM and EACCES
		return ErrNotPermitted
	case errors.Is(err, errors.ErrUnsupported), // EOPNOTSUPP, ENOSYS, and cilium/ebpf's
		errors.Is(err, syscall.EPROTONOSUPPORT):
		return ErrNotSupported
	case errors.Is(err, syscall.EBUSY), errors.Is(err, fs.ErrExist):
		return ErrInUse
	}
	return nil
}

// opError wraps err, which may be nil, and adds the usual fix for its reason
// where the caller knows none.
func opError(op, target string, err error, fix string) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, fs.ErrPermission) && fix == "" {
		fix = "run it as root, or use links on sockets"
	}
	return &OpError{Op: op, Target: target, Err: err, Fix: fix}
}
