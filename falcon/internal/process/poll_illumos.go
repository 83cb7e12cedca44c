package process

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// poll waits for events of a descriptor, or for its being hung up, together with
// a pipe that the end of ctx closes.
func poll(ctx context.Context, fd int, events int16) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	stop := context.AfterFunc(ctx, func() { w.Close() })
	defer func() {
		if stop() {
			w.Close()
		}
	}()
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: events}, {Fd: int32(r.Fd()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return err
		}
		if fds[0].Revents != 0 {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
