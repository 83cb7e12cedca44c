package admin

import (
	"os"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

func settingsOf(t *testing.T, f *os.File) unix.Termios {
	t.Helper()
	s, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *s
}

// openSerialPair returns a serial port and its far end, which can be closed
// while it is read.
func openSerialPair(t *testing.T) (far, near *os.File) {
	t.Helper()
	master, near, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	fd, err := unix.FcntlInt(master.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	far = os.NewFile(uintptr(fd), master.Name())
	t.Cleanup(func() {
		near.Close()
		far.Close()
	})
	return far, near
}
