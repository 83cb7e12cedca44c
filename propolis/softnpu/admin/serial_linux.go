package admin

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/propolis/softnpu"
)

// serialPort is a serial port that gets its settings back when it is closed.
type serialPort struct {
	*os.File
	before unix.Termios
}

// openSerial opens a serial port for bytes as they are: without echo, which
// the ASIC would get back, without lines, and without flow control.
func openSerial(path string) (softnpu.Stream, error) {
	// A serial port without O_NONBLOCK waits for a carrier when it is opened.
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	p := &serialPort{File: f}
	if err := p.control(p.prepare); err != nil {
		_ = f.Close() // the error that matters is the first
		return nil, err
	}
	return p, nil
}

func (p *serialPort) prepare(fd int) error {
	err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errors.New("another npuadm has it: try again when that has ended")
	}
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return fmt.Errorf("it is no serial port: %w", err)
	}
	p.before = *t
	t.Iflag = 0
	t.Oflag = 0
	t.Lflag = 0
	t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, t); err != nil {
		return fmt.Errorf("set the serial port: %w", err)
	}
	// What came before is for nobody.
	return unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIFLUSH)
}

// control calls f with the port's descriptor without making it block.
func (p *serialPort) control(f func(fd int) error) error {
	raw, err := p.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	if err := raw.Control(func(fd uintptr) { result = f(int(fd)) }); err != nil {
		return err
	}
	return result
}

// Close restores the port's settings and closes it.
func (p *serialPort) Close() error {
	restored := p.control(func(fd int) error { return unix.IoctlSetTermios(fd, unix.TCSETS, &p.before) })
	return errors.Join(restored, p.File.Close())
}
