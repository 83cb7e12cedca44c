package link

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// probeDeadline is how long a frame gets from one tap to the next, which
// takes microseconds.
const probeDeadline = time.Second

// Probe tries what this process can do, in a namespace without a name that is
// gone when it returns. The error says that trying itself failed, so that
// nothing is known.
func Probe(ctx context.Context) (Capabilities, error) {
	var c Capabilities
	err := inPrivateNamespace(func(r *rtnl) error {
		c.Tap = tryTap()
		c.Veth = opError("create veth pair", "", r.addVeth("v0", "v1"), "load the kernel module veth")
		c.Macvtap = opError("create macvtap", "", r.tryMacvtap(), "load the kernel module macvtap")
		c.BPF = tryRedirect(ctx, BPF)
		c.Mirred = tryRedirect(ctx, Mirred)
		return nil
	})
	if errors.Is(err, ErrNotPermitted) {
		return Capabilities{Namespace: err, Tap: err, BPF: err, Mirred: err, Veth: err, Macvtap: err}, ctx.Err()
	}
	if err == nil {
		err = inconclusive(ctx, c)
	}
	if err != nil {
		return Capabilities{}, fmt.Errorf("probe links: %w", err)
	}
	return c, nil
}

// inconclusive returns an error that says nothing about the host's
// capabilities.
func inconclusive(ctx context.Context, c Capabilities) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, err := range []error{c.Tap, c.BPF, c.Mirred, c.Veth, c.Macvtap} {
		for _, passing := range []error{unix.ENOMEM, unix.ENOBUFS, unix.EMFILE, unix.ENFILE, unix.EINTR, unix.EAGAIN} {
			if errors.Is(err, passing) {
				return err
			}
		}
	}
	return nil
}

// inPrivateNamespace runs fn on a thread in a new namespace without a name,
// which the kernel deletes afterwards.
func inPrivateNamespace(fn func(*rtnl) error) error {
	return onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return opError("create namespace", "", err, "")
		}
		if err := silence(); err != nil {
			return err
		}
		r, err := openRTNL()
		if err != nil {
			return err
		}
		defer r.close()
		return fn(r)
	})
}

func tryTap() error {
	tap, err := openTap("t", tapFlags)
	if err != nil {
		return opError("create tap", "", err, "load the kernel module tun")
	}
	return tap.Close()
}

// tryMacvtap asks for a macvtap on nothing. A kernel that knows the kind says
// EINVAL; none is made, because its node in /dev could collide with that of a
// macvtap in another namespace.
func (r *rtnl) tryMacvtap() error {
	err := r.addMacvtap("m", 0, false)
	if errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

// tryRedirect sends a frame from one tap to another.
func tryRedirect(ctx context.Context, mode Redirect) error {
	err := func() error {
		r, err := openRTNL()
		if err != nil {
			return err
		}
		defer r.close()
		from, source, err := r.probeTap("from")
		if err != nil {
			return err
		}
		defer func() { _ = from.Close() }()
		to, drain, err := r.probeTap("to")
		if err != nil {
			return err
		}
		defer func() { _ = to.Close() }()
		if err := r.redirect(source, drain, mode); err != nil {
			return err
		}
		return passFrame(ctx, from, to)
	}()
	return opError("join taps by "+mode.String(), "", err, "")
}

func (r *rtnl) probeTap(name string) (*os.File, int, error) {
	tap, err := openTap(name, tapFlags)
	if err != nil {
		return nil, 0, err
	}
	d, err := r.byName(name)
	if err == nil {
		err = r.settle(d, settings{noARP: true})
	}
	if err != nil {
		_ = tap.Close()
		return nil, 0, err
	}
	return tap, d.Index, nil
}

// passFrame writes a frame that a bridge would keep, LLDP's, until it is seen
// on the other side.
func passFrame(ctx context.Context, from, to *os.File) error {
	const header = 10 // struct virtio_net_hdr
	frame := make([]byte, header+60)
	copy(frame[header:], []byte{0x01, 0x80, 0xc2, 0, 0, 0x0e, 0x02, 0, 0, 0, 0, 1, 0x88, 0xcc})
	fds := []unix.PollFd{{Fd: int32(to.Fd()), Events: unix.POLLIN}}
	for deadline := time.Now().Add(probeDeadline); time.Now().Before(deadline); {
		if err := ctx.Err(); err != nil {
			return err
		}
		// The kernel drops frames until it has noticed, in its own time,
		// that the tap has been opened.
		if _, err := from.Write(frame); err != nil {
			return fmt.Errorf("send a frame: %w", err)
		}
		n, err := unix.Poll(fds, 1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("await a frame: %w", err)
		}
		if n > 0 {
			return nil
		}
	}
	return fmt.Errorf("frames did not arrive for %v: %w", probeDeadline, os.ErrDeadlineExceeded)
}
