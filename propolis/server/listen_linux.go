package server

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// restrict sets the mode of a Unix socket before it is bound, so that there is
// no moment at which others may connect.
func restrict(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); cerr != nil {
		return cerr
	}
	return err
}
