package server

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// echoScreen is a screen that says RFB and then what it hears, and tells whether
// the viewer is asked for a password.
func echoScreen(password bool) (net.Conn, error) {
	viewer, screen := net.Pipe()
	go func() {
		defer screen.Close()
		greeting := "RFB 003.008\n"
		if password {
			greeting = "password\n"
		}
		_, _ = io.WriteString(screen, greeting)
		_, _ = io.Copy(screen, screen)
	}()
	return viewer, nil
}

func TestVNCIsPassedThrough(t *testing.T) {
	h := newHarness(t, func(s *server) { s.screen = true })
	h.machine.screens = echoScreen
	h.running()
	conn := websocket.NetConn(h.ctx(), h.websocket("/instance/vnc"), websocket.MessageBinary)
	expect(t, conn, "RFB 003.008\n")
	_, _ = io.WriteString(conn, "echo")
	expect(t, conn, "echo")
	conn.Close()
}

func TestVNCWithoutAScreenIsUpgradedAndDropped(t *testing.T) {
	h := newHarness(t, func(s *server) { s.screen = true })
	h.running()
	if _, _, err := h.websocket("/instance/vnc").Read(h.ctx()); err == nil {
		t.Error("there is a screen")
	}
}

func TestViewersOfASocket(t *testing.T) {
	h := newHarness(t, func(s *server) { s.screen = true })
	h.machine.screens = echoScreen
	h.running()
	path := filepath.Join(shortTempDir(t), "vnc")
	l, err := listenScreen(h.ctx(), "unix:"+path, "")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.server.serveViewers(h.ctx(), l)
	}()
	defer func() { l.Close(); <-done }()
	viewer, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, viewer, "RFB 003.008\n")
	viewer.Close()
}

func TestScreenOnTCPNeedsAPassword(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::]:0"} {
		l, err := listenScreen(t.Context(), addr, "")
		if err == nil {
			l.Close()
			t.Errorf("anybody can see a screen on %s", addr)
		} else if !strings.Contains(err.Error(), "--vnc-password-file") {
			t.Errorf("got %v", err)
		}
	}
	l, err := listenScreen(t.Context(), "127.0.0.1:0", "violin")
	if err != nil {
		t.Fatal(err)
	}
	if onlyOwner(l) {
		t.Error("a viewer by TCP is not asked for the password")
	}
	l.Close()
}

func TestReadPassword(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		mode os.FileMode
		want string
		err  string
	}{
		"good":             {"violin\n", 0o600, "violin", ""},
		"without newline":  {"violin", 0o400, "violin", ""},
		"read by a group":  {"violin\n", 0o640, "", "chmod 600"},
		"read by everyone": {"violin\n", 0o604, "", "chmod 600"},
		"empty":            {"\nviolin", 0o600, "", "empty first line"},
		"too long":         {"violinist", 0o600, "", "VNC knows 8"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "p")
			if err := errors.Join(os.WriteFile(path, []byte(test.text), test.mode), os.Chmod(path, test.mode)); err != nil {
				t.Fatal(err)
			}
			got, err := ReadPassword(path)
			if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	if _, err := ReadPassword(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
