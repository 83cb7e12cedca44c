package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// maxSocketPath is the longest path of a Unix socket on all systems that we
// know, in bytes.
const maxSocketPath = 107

// listen opens the listener that addr describes: "IP:PORT", "unix:PATH" or
// "fd:N", an inherited listening socket.
func listen(ctx context.Context, addr string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return listenUnix(ctx, path)
	}
	if n, ok := strings.CutPrefix(addr, "fd:"); ok {
		return listenFD(n)
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return nil, fmt.Errorf("listen on %q: want IP:PORT, unix:PATH or fd:N: %w", addr, err)
	}
	// An address of [::] listens for IPv4 as well, which upstream's clients
	// rely on.
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return l, nil
}

// listenFD takes over an inherited socket, of which nothing is left to those
// that the server starts.
func listenFD(n string) (net.Listener, error) {
	fd, err := strconv.ParseUint(n, 10, 31)
	if err != nil {
		return nil, fmt.Errorf("listen on fd:%s: want a file descriptor's number", n)
	}
	file := os.NewFile(uintptr(fd), "listener")
	defer file.Close()
	l, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("listen on fd:%s: %w", n, err)
	}
	return l, nil
}

// listenUnix makes a socket at path that only the user may connect to. It
// replaces one that nobody listens on any more.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("listen on unix:%s: the path has %d bytes and a socket address holds %d: give it relative to the working folder",
			path, len(path), maxSocketPath)
	}
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	config := net.ListenConfig{Control: restrict}
	l, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on unix:%s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen on unix:%s: %w", path, err)
	}
	return l, nil
}

// removeStale removes the socket at path if nobody listens on it.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("listen on unix:%s: %w", path, err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("listen on unix:%s: it is there and is no socket: remove it or choose another path", path)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("listen on unix:%s: another server listens there: stop it or choose another path", path)
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("listen on unix:%s: is it in use? %w", path, err)
	}
	return os.Remove(path)
}

// acceptPause is how long a listener waits when the process has no descriptor
// left for a client: nothing tells when there is one.
const acceptPause = 50 * time.Millisecond

// acceptAll has each client of a listener served, until ctx ends. Then it closes
// the listener and waits for all.
func acceptAll(ctx context.Context, l net.Listener, serve func(net.Conn)) {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var clients sync.WaitGroup
	defer clients.Wait()
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			time.Sleep(acceptPause)
			continue
		}
		clients.Go(func() { serve(conn) })
	}
}
