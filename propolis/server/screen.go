package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/falcon-vm/falcon-go/propolis/internal/qemu"
)

// screenMachine is a machine with a screen.
type screenMachine interface {
	// Screen connects a viewer by VNC, which has to know the password if asked.
	Screen(ctx context.Context, password bool) (net.Conn, error)
}

// view shows the screen of the newest instance to a viewer until one of the two
// has gone, or ctx ends.
func (s *server) view(ctx context.Context, viewer net.Conn, password bool) {
	screen, err := s.openScreen(ctx, password)
	if err != nil {
		s.log.Info("no screen for a viewer", "error", err.Error())
		return
	}
	defer context.AfterFunc(ctx, func() { viewer.Close() })()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer screen.Close()
		_, _ = io.Copy(screen, viewer) // either may have gone
	}()
	_, _ = io.Copy(viewer, screen)
	viewer.Close()
	<-done
}

// serveViewers shows the screen to the clients of a listener until ctx ends, and
// closes it.
func (s *server) serveViewers(ctx context.Context, l net.Listener) {
	acceptAll(ctx, l, func(conn net.Conn) {
		defer conn.Close()
		s.view(ctx, conn, !onlyOwner(l))
	})
}

func (s *server) openScreen(ctx context.Context, password bool) (screen net.Conn, err error) {
	i, err := s.current()
	if err != nil {
		return nil, err
	}
	err = i.command(ctx, func(ctx context.Context, m Machine) error {
		sm, ok := m.(screenMachine)
		if !ok {
			return qemu.ErrNoScreen
		}
		screen, err = sm.Screen(ctx, password)
		return err
	})
	return screen, err
}

// listenScreen opens the listener for viewers. One that others than the user can
// reach needs a password.
func listenScreen(ctx context.Context, addr, password string) (net.Listener, error) {
	l, err := listen(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("the screen: %w", err)
	}
	if onlyOwner(l) || password != "" {
		return l, nil
	}
	l.Close()
	return nil, fmt.Errorf("the screen on %s: any user of the host could see and use it: give --vnc-password-file FILE, or have it on unix:PATH", addr)
}

// onlyOwner reports whether nobody but the socket's owner can connect.
func onlyOwner(l net.Listener) bool { return strings.HasPrefix(l.Addr().Network(), "unix") }

// maxScreenPassword is how much of a password VNC knows, in bytes.
const maxScreenPassword = 8

// ReadPassword reads the password of the screen from a file that nobody else can
// read, as --vnc-password-file does; an empty path is no password.
func ReadPassword(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	fail := func(err error) (string, error) { return "", fmt.Errorf("the screen's password: %w", err) }
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fail(fmt.Errorf("%w: write it there, with at most %d characters in the first line, and chmod 600 %s", err, maxScreenPassword, path))
	case err != nil:
		return fail(err)
	case !info.Mode().IsRegular():
		return fail(fmt.Errorf("%s is not a file", path))
	case info.Mode().Perm()&0o077 != 0:
		return fail(fmt.Errorf("%s can be read by others: chmod 600 %[1]s", path))
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return fail(err)
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	switch n := len(line); {
	case n == 0:
		return fail(errors.New(path + " has an empty first line, which is to be the password"))
	case n > maxScreenPassword:
		return fail(fmt.Errorf("%s has %d characters in its first line, and VNC knows %d: a longer one would not be safer", path, n, maxScreenPassword))
	}
	return string(line), nil
}
