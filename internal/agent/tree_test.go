package agent

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// archive makes a tar archive of headers; files have their names as content.
func archive(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		check(t, w.WriteHeader(&h))
		if h.Typeflag == tar.TypeReg {
			_, err := io.WriteString(w, h.Name)
			check(t, err)
		}
	}
	check(t, w.Close())
	return b.Bytes()
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What a guest sends is not to be believed: nothing is written outside.
func TestUnpackWritesNothingOutside(t *testing.T) {
	for name, headers := range map[string][]tar.Header{
		"name above":      {{Typeflag: tar.TypeReg, Name: "../escaped"}},
		"name from root":  {{Typeflag: tar.TypeReg, Name: "/tmp/escaped"}},
		"name in between": {{Typeflag: tar.TypeDir, Name: "./"}, {Typeflag: tar.TypeReg, Name: "a/../../escaped"}},
		"through a link":  {{Typeflag: tar.TypeDir, Name: "./"}, {Typeflag: tar.TypeSymlink, Name: "up", Linkname: "../.."}, {Typeflag: tar.TypeReg, Name: "up/escaped"}},
		"a folder's link": {{Typeflag: tar.TypeDir, Name: "./"}, {Typeflag: tar.TypeSymlink, Name: "up", Linkname: "../.."}, {Typeflag: tar.TypeDir, Name: "up/escaped"}},
		"a device":        {{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}},
		"a hard link":     {{Typeflag: tar.TypeLink, Name: "passwd", Linkname: "/etc/passwd"}},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			target := filepath.Join(top, "in", "target")
			check(t, os.MkdirAll(filepath.Dir(target), 0o755))
			err := Unpack(bytes.NewReader(archive(t, headers...)), Tree{Path: target}, false)
			if err == nil {
				t.Error("it was unpacked")
			}
			for _, dir := range []string{top, filepath.Dir(top), filepath.Join(top, "in")} {
				if _, err := os.Lstat(filepath.Join(dir, "escaped")); err == nil {
					t.Errorf("something was written to %s", dir)
				}
			}
		})
	}
}

func TestUnpackKeepsSpecialModesOnlyWhereAsked(t *testing.T) {
	data := archive(t, tar.Header{Typeflag: tar.TypeReg, Name: ".", Mode: 0o4755})
	for special, want := range map[bool]fs.FileMode{true: 0o755 | fs.ModeSetuid, false: 0o755} {
		file := filepath.Join(t.TempDir(), "f")
		check(t, Unpack(bytes.NewReader(data), Tree{Path: file}, special))
		info, err := os.Stat(file)
		check(t, err)
		if info.Mode() != want {
			t.Errorf("special %v: mode %v", special, info.Mode())
		}
	}
}

// A copy that breaks off leaves what was there, and nothing half.
func TestACopyThatBreaksOffLeavesNoHalfFile(t *testing.T) {
	dir := t.TempDir()
	source, target := filepath.Join(dir, "source"), filepath.Join(dir, "there", "target")
	check(t, os.Mkdir(filepath.Dir(target), 0o755))
	check(t, os.WriteFile(source, bytes.Repeat([]byte("new "), 5000), 0o600))
	check(t, os.WriteFile(target, []byte("old"), 0o600))
	var whole bytes.Buffer
	check(t, Pack(&whole, source))
	for _, at := range []int{0, 100, 512, 513, 1024, 1025, 10_000} {
		cut := io.MultiReader(bytes.NewReader(whole.Bytes()[:at]), iotest.ErrReader(io.ErrUnexpectedEOF))
		if err := Unpack(cut, Tree{Path: target}, false); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: %v", at, err)
		}
		if text, err := os.ReadFile(target); err != nil || string(text) != "old" {
			t.Errorf("cut at %d: the file has %d bytes, %v", at, len(text), err)
		}
		if entries, _ := os.ReadDir(filepath.Dir(target)); len(entries) != 1 {
			t.Errorf("cut at %d: left are %v", at, entries)
		}
	}
}

func TestTreesAreCopiedWhole(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "source")
	check(t, os.MkdirAll(filepath.Join(source, "a", "b"), 0o755))
	check(t, os.WriteFile(filepath.Join(source, "a", "file"), bytes.Repeat([]byte("x"), 200_000), 0o640))
	check(t, os.WriteFile(filepath.Join(source, "empty"), nil, 0o600))
	check(t, os.Symlink("a/file", filepath.Join(source, "link")))
	check(t, os.Symlink("nowhere", filepath.Join(source, "dangling")))
	old := time.Unix(1_000_000_000, 0)
	check(t, os.Chtimes(filepath.Join(source, "a", "b"), old, old))
	check(t, os.Chmod(filepath.Join(source, "a", "b"), 0o511))
	var b bytes.Buffer
	check(t, Pack(&b, source))
	check(t, os.Mkdir(filepath.Join(dir, "into"), 0o755))
	check(t, Unpack(bytes.NewReader(b.Bytes()), Tree{Path: filepath.Join(dir, "into"), Base: "source"}, false))
	check(t, Unpack(bytes.NewReader(b.Bytes()), Tree{Path: filepath.Join(dir, "into"), Base: "source"}, false)) // onto itself
	copied := filepath.Join(dir, "into", "source")
	if data, err := os.ReadFile(filepath.Join(copied, "link")); err != nil || len(data) != 200_000 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if to, err := os.Readlink(filepath.Join(copied, "dangling")); err != nil || to != "nowhere" {
		t.Errorf("%q, %v", to, err)
	}
	if info, err := os.Stat(filepath.Join(copied, "a", "b")); err != nil || info.Mode().Perm() != 0o511 || !info.ModTime().Equal(old) {
		t.Errorf("%v, %v", info, err)
	}
	if info, err := os.Stat(filepath.Join(copied, "a", "file")); err != nil || info.Mode() != 0o640 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestPackRefusesWhatIsNoFile(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	check(t, unix.Mkfifo(fifo, 0o600))
	if err := Pack(io.Discard, fifo); err == nil || !strings.Contains(err.Error(), "neither a file nor a folder") {
		t.Errorf("error %v", err)
	}
}

func TestTreeBase(t *testing.T) {
	for p, want := range map[string]string{
		"/etc/hosts": "hosts", "/var/log/": "log", "x": "x", "/": "", ".": "", "..": "", "/var/.": "", "/var/..": "",
	} {
		if got := TreeBase(p); got != want {
			t.Errorf("%s: %q, want %q", p, got, want)
		}
	}
}

func TestMessagesSurviveAnyCutting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b bytes.Buffer
		s := NewSender(&b)
		contents := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 100), 1, 10).Draw(t, "contents")
		times := rapid.IntRange(1, 2000).Draw(t, "times")
		for i, c := range contents {
			contents[i] = bytes.Repeat(c, times)
			if err := s.Send(Kind(i), contents[i]); err != nil {
				t.Fatal(err)
			}
		}
		r := NewReceiver(&dribble{data: b.Bytes(), n: rapid.IntRange(1, 40_000).Draw(t, "piece")})
		for i, want := range contents {
			if k, got, err := r.Receive(); err != nil || k != Kind(i) || !bytes.Equal(got, want) {
				t.Fatalf("message %d: kind %d, %d bytes of %d, %v", i, k, len(got), len(want), err)
			}
		}
		if _, _, err := r.Receive(); !errors.Is(err, io.EOF) {
			t.Fatalf("at the end: %v", err)
		}
	})
}

// dribble gives n bytes at a time.
type dribble struct {
	data []byte
	n    int
}

func (d *dribble) Read(p []byte) (int, error) {
	if len(d.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), d.n)], d.data)
	d.data = d.data[n:]
	return n, nil
}

// Whatever comes, it is understood or refused, and never more is made of it than
// it holds.
func FuzzDecode(f *testing.F) {
	f.Add(Exec{Argv: []string{"sh", "-c", "x"}, Env: []string{"A=b"}, Dir: "/", Stdin: true, Timeout: time.Second}.Encode())
	f.Add(Identity{Entropy: []byte("e"), Time: time.Unix(1, 2), Hostname: "h", SSHKeys: true, Mounts: []Mount{{Tag: "t", Target: "/mnt"}}}.Encode())
	f.Add(Exit{Status: 3, TimedOut: true}.Encode())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, p []byte) {
		if x, err := DecodeExec(p); err == nil {
			if again, err := DecodeExec(x.Encode()); err != nil || len(again.Argv) != len(x.Argv) || again.Timeout != x.Timeout {
				t.Errorf("%+v became %+v, %v", x, again, err)
			}
		}
		if i, err := DecodeIdentity(p); err == nil {
			if again, err := DecodeIdentity(i.Encode()); err != nil || again.Hostname != i.Hostname || !again.Time.Equal(i.Time) || !slices.Equal(again.Mounts, i.Mounts) {
				t.Errorf("%+v became %+v, %v", i, again, err)
			}
		}
		_, _ = DecodeExit(p)
		_, _ = DecodeInfo(p)
		_, _ = DecodeTree(p)
		_, _ = DecodePrepared(p)
		r := NewReceiver(bytes.NewReader(p))
		for {
			if _, _, err := r.Receive(); err != nil {
				break
			}
		}
	})
}
