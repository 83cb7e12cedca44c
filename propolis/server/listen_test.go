package server

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestListenAddressesThatAreRefused(t *testing.T) {
	dir := shortTempDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	inUse := filepath.Join(dir, "used")
	l, err := net.Listen("unix", inUse)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tests := []struct{ addr, want string }{
		{"", "listen on"},
		{"localhost", "want IP:PORT, unix:PATH or fd:N"},
		{"unix:" + strings.Repeat("l", 108), "a socket address holds 107"},
		{"unix:", "listen on unix:"},
		{"unix:" + file, "is no socket"},
		{"unix:" + inUse, "another server listens there"},
		{"unix:" + dir + "/none/s", "no such file"},
		{"fd:x", "want a file descriptor's number"},
		{"fd:-1", "want a file descriptor's number"},
		{"fd:1048000", "bad file descriptor"},
	}
	for _, tt := range tests {
		t.Run(tt.addr, func(t *testing.T) {
			l, err := listen(t.Context(), tt.addr)
			if err == nil {
				l.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("what was there is gone: %v", err)
	}
}

func TestUnixSocketsAreForTheUserOnly(t *testing.T) {
	path := filepath.Join(shortTempDir(t), "s")
	l, err := listen(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Stat(path)
	if err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("got mode %v, %v", info.Mode(), err)
	}
	if got := localAddr(l); got != "unix:"+path {
		t.Errorf("the address is shown as %s", got)
	}
}

func TestAStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(shortTempDir(t), "s")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	old.Close()
	l, err := listen(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

// accepts checks that a connection to addr arrives at l.
func accepts(t *testing.T, l net.Listener, network, addr string) {
	t.Helper()
	conn, err := net.Dial(network, addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	got, err := l.Accept()
	if err != nil {
		t.Error(err)
		return
	}
	got.Close()
}

func TestAnInheritedSocketIsTakenOver(t *testing.T) {
	path := filepath.Join(shortTempDir(t), "s")
	parent, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer parent.Close()
	file, err := parent.File()
	if err != nil {
		t.Fatal(err)
	}
	// The server closes the descriptor, so file must not have the same.
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	file.Close()
	if err != nil {
		t.Fatal(err)
	}
	l, err := listen(t.Context(), fmt.Sprintf("fd:%d", fd))
	if err != nil {
		t.Fatal(err)
	}
	accepts(t, l, "unix", path)
	l.Close()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the socket is not the server's to remove: %v", err)
	}
}

func TestTheWildcardListensForBothFamilies(t *testing.T) {
	l, err := listen(t.Context(), "[::]:0")
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	defer l.Close()
	addr := localAddr(l)
	if !strings.HasPrefix(addr, "[::]:") {
		t.Fatalf("the address is shown as %s", addr)
	}
	port := strings.TrimPrefix(addr, "[::]:")
	accepts(t, l, "tcp", "[::1]:"+port)
	accepts(t, l, "tcp", "127.0.0.1:"+port)
}
