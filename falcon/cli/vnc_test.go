package cli

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// withScreen returns a program whose node violin has a screen on a socket, which
// says RFB and ends.
func withScreen(t *testing.T) (*testProgram, string) {
	t.Helper()
	// Not t.TempDir, whose path may be too long for a socket's.
	dir, err := os.MkdirTemp("", "vnc-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "violin.vnc.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	screen, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "RFB 003.008\n")
	conn.Close()
	s := status()
	s.Nodes[0].VNC = path
	return &testProgram{lab: fakeLab{status: s, nodes: map[string]*fakeNode{"violin": {screen: screen}}}}, path
}

func TestVNCOnStandardOutput(t *testing.T) {
	p, _ := withScreen(t)
	if got := p.run(t, "vnc", "--stdio", "violin"); got.status != 0 || got.stdout != "RFB 003.008\n" {
		t.Errorf("status %d: %s%s", got.status, got.stdout, got.stderr)
	}
}

func TestVNCStartsAViewer(t *testing.T) {
	p, path := withScreen(t)
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	got := p.run(t, "vnc", "violin")
	if got.status != 1 || !strings.Contains(got.stderr, "apt-get install tigervnc-viewer") || !strings.Contains(got.stderr, "ssh -L 5900:"+path) {
		t.Errorf("without a viewer: status %d: %s", got.status, got.stderr)
	}
	for name, want := range map[string]string{
		"remote-viewer": "vnc+unix://" + path,
		"vncviewer":     filepath.Dir(path) + " ./violin.vnc.sock", // by a name that is short
	} {
		script := "#!/bin/sh\necho \"$1\"\n"
		if name == "vncviewer" {
			script = "#!/bin/sh\necho \"$PWD $1\"\n"
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", dir)
		p, at := withScreen(t)
		want = strings.ReplaceAll(want, filepath.Dir(path), filepath.Dir(at))
		if got := p.run(t, "vnc", "violin"); got.status != 0 || got.stdout != want+"\n" {
			t.Errorf("%s: status %d: %q, want %q; %s", name, got.status, got.stdout, want, got.stderr)
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestVNCPrintsWhereTheScreenIs(t *testing.T) {
	p, path := withScreen(t)
	got := p.run(t, "vnc", "--json", "violin")
	if got.status != 0 || !strings.Contains(got.stdout, fmt.Sprintf("%q", path)) || !strings.Contains(got.stdout, `"unix"`) {
		t.Errorf("status %d: %s%s", got.status, got.stdout, got.stderr)
	}
}

func TestViewersOfATCPPort(t *testing.T) {
	for _, v := range viewers {
		want := map[string]string{"vncviewer": "127.0.0.1::5901", "remote-viewer": "vnc://127.0.0.1:5901"}[v.name]
		if got := v.port("127.0.0.1:5901"); got != want {
			t.Errorf("%s %s, want %s", v.name, got, want)
		}
	}
}
