package agent

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// tree makes the messages of a tree; files have their paths as content.
func tree(t *testing.T, entries ...Entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewTreeWriter(NewSender(&b), nil)
	for _, x := range entries {
		if x.Mode.IsRegular() {
			x.Size = int64(len(x.Path))
		}
		if x.Mode.Perm() == 0 {
			x.Mode |= 0o644
		}
		check(t, w.Entry(x))
		if x.Mode.IsRegular() {
			_, err := io.WriteString(w, x.Path)
			check(t, err)
		}
	}
	check(t, w.Close())
	return b.Bytes()
}

// unpack unpacks the messages of a tree.
func unpack(r io.Reader, t Tree, k Keep) error {
	return Unpack(NewTreeReader(NewReceiver(r), nil), t, k)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What a guest sends is not to be believed: nothing is written outside.
func TestUnpackWritesNothingOutside(t *testing.T) {
	for name, entries := range map[string][]Entry{
		"name above":      {{Path: "../escaped"}},
		"name from root":  {{Path: "/tmp/escaped"}},
		"name in between": {{Path: ".", Mode: fs.ModeDir}, {Path: "a/../../escaped"}},
		"through a link":  {{Path: ".", Mode: fs.ModeDir}, {Path: "up", Mode: fs.ModeSymlink, Target: "../.."}, {Path: "up/escaped"}},
		"a folder's link": {{Path: ".", Mode: fs.ModeDir}, {Path: "up", Mode: fs.ModeSymlink, Target: "../.."}, {Path: "up/escaped", Mode: fs.ModeDir}},
		"a device":        {{Path: ".", Mode: fs.ModeDir}, {Path: "null", Mode: fs.ModeDevice | fs.ModeCharDevice}},
		"a pipe":          {{Path: "escaped", Mode: fs.ModeNamedPipe}},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			target := filepath.Join(top, "in", "target")
			check(t, os.MkdirAll(filepath.Dir(target), 0o755))
			err := unpack(bytes.NewReader(tree(t, entries...)), Tree{Path: target}, Keep{})
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
	data := tree(t, Entry{Path: ".", Mode: 0o755 | fs.ModeSetuid})
	for special, want := range map[bool]fs.FileMode{true: 0o755 | fs.ModeSetuid, false: 0o755} {
		file := filepath.Join(t.TempDir(), "f")
		check(t, unpack(bytes.NewReader(data), Tree{Path: file}, Keep{Special: special}))
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
	check(t, SendTree(NewSender(&whole), source, nil))
	for _, at := range []int{0, 1, 10, 40, 100, 1025, 10_000, whole.Len() - 6} {
		cut := io.MultiReader(bytes.NewReader(whole.Bytes()[:at]), iotest.ErrReader(io.ErrUnexpectedEOF))
		if err := unpack(cut, Tree{Path: target}, Keep{}); !errors.Is(err, io.ErrUnexpectedEOF) {
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
	check(t, SendTree(NewSender(&b), source, nil))
	check(t, os.Mkdir(filepath.Join(dir, "into"), 0o755))
	check(t, unpack(bytes.NewReader(b.Bytes()), Tree{Path: filepath.Join(dir, "into"), Base: "source"}, Keep{}))
	check(t, unpack(bytes.NewReader(b.Bytes()), Tree{Path: filepath.Join(dir, "into"), Base: "source"}, Keep{})) // onto itself
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

// A copy that breaks off behind the last file's last byte is told from a whole
// one, and so is one whose pieces do not add up.
func TestATreeMustAddUp(t *testing.T) {
	file := Entry{Path: ".", Mode: 0o644, Size: 10}.Encode()
	for name, messages := range map[string][]message{
		"too little":     {{File, file}, {Data, []byte("123")}, {End, nil}},
		"too much":       {{File, file}, {Data, make([]byte, 11)}, {End, nil}},
		"a hole behind":  {{File, file}, {Data, make([]byte, 5)}, {Hole, Number(6)}, {End, nil}},
		"a huge hole":    {{File, file}, {Hole, Number(1 << 63)}, {End, nil}},
		"nothing":        {{File, file}, {Data, nil}, {Data, make([]byte, 10)}, {End, nil}},
		"the next early": {{File, file}, {File, file}, {End, nil}},
		"no file":        {{Data, make([]byte, 10)}, {End, nil}},
		"another answer": {{File, file}, {Stdout, make([]byte, 10)}, {End, nil}},
		"a failure":      {{File, file}, {Failed, []byte("no")}},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			s := NewSender(&b)
			for _, m := range messages {
				check(t, s.Send(m.kind, m.content))
			}
			dir := t.TempDir()
			if err := unpack(&b, Tree{Path: filepath.Join(dir, "f")}, Keep{}); err == nil {
				t.Error("it was unpacked")
			}
			if entries, _ := os.ReadDir(dir); len(entries) != 0 {
				t.Errorf("left are %v", entries)
			}
		})
	}
}

type message struct {
	kind    Kind
	content []byte
}

// A file of more than 4 GiB that is mostly holes is copied in a moment, and
// stays as small as it is.
func TestHolesAreCopiedAsHoles(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("holes are looked for on Linux")
	}
	dir := t.TempDir()
	source, copied := filepath.Join(dir, "source"), filepath.Join(dir, "copied")
	const size = 5<<30 + 7
	f, err := os.Create(source)
	check(t, err)
	for _, at := range []int64{1 << 20, 4<<30 + 12345} {
		_, err := f.WriteAt([]byte("here"), at)
		check(t, err)
	}
	check(t, f.Truncate(size))
	check(t, f.Close())
	if info, err := os.Stat(source); err != nil || !hasHoles(info) {
		t.Skip("the file system makes no holes")
	}
	var b bytes.Buffer
	var sent int64
	check(t, SendTree(NewSender(&b), source, func(n int64) { sent += n }))
	if sent != size || b.Len() > 1<<20 {
		t.Errorf("%d bytes of %d were counted, %d are sent", sent, size, b.Len())
	}
	check(t, unpack(&b, Tree{Path: copied}, Keep{}))
	info, err := os.Stat(copied)
	check(t, err)
	if info.Size() != size || !hasHoles(info) || info.Sys().(*syscall.Stat_t).Blocks > 1<<12 {
		t.Errorf("the copy has %d bytes in %d blocks", info.Size(), info.Sys().(*syscall.Stat_t).Blocks)
	}
	f, err = os.Open(copied)
	check(t, err)
	defer f.Close()
	for _, at := range []int64{1 << 20, 4<<30 + 12345} {
		buf := make([]byte, 5)
		if _, err := f.ReadAt(buf, at); err != nil || string(buf) != "here\x00" {
			t.Errorf("at %d there is %q, %v", at, buf, err)
		}
	}
}

func TestOwnersAreKeptWhereAsked(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	data := tree(t, Entry{Path: ".", Mode: fs.ModeDir | 0o755, UID: 1234, GID: 5678}, Entry{Path: "file", UID: 1235, GID: 5679},
		Entry{Path: "link", Mode: fs.ModeSymlink | 0o777, Target: "/nowhere", UID: 1236, GID: 5680},
		Entry{Path: "special", Mode: 0o755 | fs.ModeSetuid, UID: 1237, GID: 5681})
	for _, keep := range []bool{true, false} {
		dir := filepath.Join(t.TempDir(), "d")
		check(t, unpack(bytes.NewReader(data), Tree{Path: dir}, Keep{Owners: keep, Special: keep}))
		for i, name := range []string{"", "file", "link", "special"} {
			info, err := os.Lstat(filepath.Join(dir, name))
			check(t, err)
			st := info.Sys().(*syscall.Stat_t)
			uid, gid := uint32(1234+i), uint32(5678+i)
			if !keep {
				uid, gid = 0, 0
			}
			if st.Uid != uid || st.Gid != gid {
				t.Errorf("keep %v: %q belongs to %d:%d", keep, name, st.Uid, st.Gid)
			}
			if keep && name == "special" && info.Mode() != 0o755|fs.ModeSetuid {
				t.Errorf("mode %v: a change of owners takes setuid away", info.Mode())
			}
		}
	}
}

func TestAFailedCopyNamesItsFile(t *testing.T) {
	data := tree(t, Entry{Path: ".", Mode: fs.ModeDir | 0o755}, Entry{Path: "a", Mode: fs.ModeDir | 0o755}, Entry{Path: "a/file"})
	dir := t.TempDir()
	check(t, os.MkdirAll(filepath.Join(dir, "d", "a", "file"), 0o755))
	err := unpack(bytes.NewReader(data), Tree{Path: filepath.Join(dir, "d", ".")}, Keep{})
	if want := filepath.Join(dir, "d", "a", "file") + ": there is a folder"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	name := strings.Repeat("x", 300)
	data = tree(t, Entry{Path: name, Mode: fs.ModeDir | 0o755})
	err = unpack(bytes.NewReader(data), Tree{Path: dir}, Keep{})
	if want := filepath.Join(dir, name) + ": file name too long"; err == nil || err.Error() != want {
		t.Errorf("error %v", err)
	}
}

func TestWhatIsNoFileIsRefused(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	check(t, unix.Mkfifo(fifo, 0o600))
	if err := SendTree(NewSender(io.Discard), fifo, nil); err == nil || !strings.Contains(err.Error(), "neither a file nor a folder") {
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
	f.Add(Entry{Path: "a/b", Mode: fs.ModeDir | 0o755, UID: 1, Time: time.Unix(1, 2), Size: 5 << 30, Target: "t"}.Encode())
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
		if x, err := DecodeEntry(p); err == nil {
			if again, err := DecodeEntry(x.Encode()); err != nil || again != x {
				t.Errorf("%+v became %+v, %v", x, again, err)
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

// A guest that is hostile sends what no tree of files is. None of it is written
// past a link, its own or one that was in the target; a guest that is attacked by
// a host's folder has the same unpacker.
func TestUnpackPassesNoLink(t *testing.T) {
	folder, link := Entry{Path: ".", Mode: fs.ModeDir}, func(p, to string) Entry { return Entry{Path: p, Mode: fs.ModeSymlink, Target: to} }
	for name, entries := range map[string][]Entry{
		"the root is a link":                {link(".", "secret"), {Path: "key"}},
		"the root is a link, then a folder": {link(".", "secret"), folder, {Path: "key"}},
		"the root is a link alone":          {link(".", "secret")},
		"the root comes again, as a link":   {folder, link(".", "../secret"), {Path: "key"}},
		"a link inside, then a file":        {folder, link("in", "../secret"), {Path: "in/key"}},
		"a link inside, then a folder":      {folder, link("in", "../secret"), {Path: "in", Mode: fs.ModeDir}, {Path: "in/key"}},
		"a link to itself":                  {folder, {Path: "here", Mode: fs.ModeDir}, link("in", "here"), {Path: "in/key"}},
		"a file, then something below":      {folder, {Path: "in"}, {Path: "in/key"}},
		"a folder becomes a link":           {folder, {Path: "in", Mode: fs.ModeDir}, link("in", "../secret")},
		"a file twice":                      {folder, {Path: "in"}, {Path: "in"}},
		"a file in no folder":               {folder, {Path: "in/key"}},
		"a name that is empty":              {folder, {Path: ""}},
		"a name that goes up and down":      {folder, {Path: "in", Mode: fs.ModeDir}, {Path: "in/../key"}},
		"a name with a dot":                 {folder, {Path: "./key"}},
		"a name with a zero":                {folder, {Path: "key\x00"}},
		"a name from the root":              {folder, {Path: "/key"}},
		"no root":                           {{Path: "key"}},
		"what was a link in the target":     {folder, {Path: "there", Mode: fs.ModeDir}, {Path: "there/key"}},
		"what was a link to a folder below": {folder, {Path: "beside", Mode: fs.ModeDir}, {Path: "beside/key"}},
		"a socket":                          {folder, {Path: "key", Mode: fs.ModeSocket}},
		"an irregular file":                 {folder, {Path: "key", Mode: fs.ModeIrregular}},
	} {
		for how, base := range map[string]string{"new": "", "existing": "out"} {
			if base == "" && strings.HasPrefix(name, "what was") {
				continue // nothing was there
			}
			t.Run(name+", "+how, func(t *testing.T) {
				top := t.TempDir()
				secret := filepath.Join(top, "secret")
				check(t, os.Mkdir(secret, 0o700))
				check(t, os.WriteFile(filepath.Join(secret, "key"), []byte("mine"), 0o600))
				target := Tree{Path: filepath.Join(top, "out")}
				if base != "" {
					target = Tree{Path: top, Base: base}
					check(t, os.MkdirAll(filepath.Join(top, "out", "real"), 0o755))
					check(t, os.Symlink("../secret", filepath.Join(top, "out", "there")))
					check(t, os.Symlink("real", filepath.Join(top, "out", "beside")))
				}
				if err := unpack(bytes.NewReader(tree(t, entries...)), target, Keep{}); err == nil {
					t.Error("it was unpacked")
				} else if strings.ContainsAny(err.Error(), "\x00\x1b") {
					t.Errorf("the error is %q", err)
				}
				if text, err := os.ReadFile(filepath.Join(secret, "key")); err != nil || string(text) != "mine" {
					t.Errorf("the secret is %q, %v", text, err)
				}
				if left, _ := filepath.Glob(filepath.Join(top, "out", "real", "*")); len(left) > 0 {
					t.Errorf("written behind a link: %v", left)
				}
				if entries, _ := os.ReadDir(secret); len(entries) != 1 {
					t.Errorf("beside the secret are %v", entries)
				}
			})
		}
	}
}

// What a copy made and could not finish goes, and nothing else.
func TestWhatACopyCouldNotFinishGoes(t *testing.T) {
	folder := Entry{Path: ".", Mode: fs.ModeDir}
	bad := Entry{Path: "pipe", Mode: fs.ModeNamedPipe}
	inner := Entry{Path: "new", Mode: fs.ModeDir}
	for name, tt := range map[string]struct {
		there   bool
		entries []Entry
	}{
		"a new folder":                {false, []Entry{folder, {Path: "key"}, inner, {Path: "new/key"}, bad}},
		"a new folder of a folder":    {true, []Entry{folder, inner, {Path: "new/key"}, {Path: "new/in", Mode: fs.ModeDir}, bad}},
		"what was there in a new one": {true, []Entry{folder, {Path: "mine", Mode: fs.ModeDir}, {Path: "mine/new", Mode: fs.ModeDir}, bad}},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			out := filepath.Join(top, "out")
			if tt.there {
				check(t, os.MkdirAll(filepath.Join(out, "mine", "own"), 0o755))
			}
			if err := unpack(bytes.NewReader(tree(t, tt.entries...)), Tree{Path: top, Base: "out"}, Keep{}); err == nil {
				t.Error("it was unpacked")
			}
			if _, err := os.Stat(filepath.Join(out, "mine", "own")); (err == nil) != tt.there {
				t.Errorf("what was there: %v", err)
			}
			var left []string
			check(t, filepath.WalkDir(top, func(p string, _ fs.DirEntry, err error) error {
				left = append(left, p)
				return err
			}))
			if want := map[bool]int{false: 1, true: 4}[tt.there]; len(left) != want {
				t.Errorf("left is %v", left)
			}
		})
	}
}

// What costs nothing to send is bounded, too.
func TestACopyHasAnEnd(t *testing.T) {
	u := &unpacker{name: "out", kinds: map[string]fs.FileMode{".": fs.ModeDir}, paths: maxPaths - 1}
	link := Entry{Path: "a", Mode: fs.ModeSymlink, Target: "b"}
	check(t, u.admit(link))
	link.Path = "b"
	if err := u.admit(link); err == nil || !strings.Contains(err.Error(), "more than 4000000 entries") {
		t.Errorf("one path too many: %v", err)
	}
}

// What the guest gives a link is the link's own.
func TestALinksTimeAndOwnersAreItsOwn(t *testing.T) {
	top := t.TempDir()
	file := filepath.Join(top, "file")
	check(t, os.WriteFile(file, nil, 0o600))
	before, err := os.Stat(file)
	check(t, err)
	old := time.Unix(1_000_000_000, 5)
	data := tree(t, Entry{Path: ".", Mode: fs.ModeDir | 0o755, Time: old},
		Entry{Path: "link", Mode: fs.ModeSymlink | 0o777, Target: "../file", UID: 1236, GID: 5680, Time: old})
	check(t, unpack(bytes.NewReader(data), Tree{Path: filepath.Join(top, "out")}, Keep{Owners: os.Geteuid() == 0}))
	after, err := os.Stat(file)
	check(t, err)
	if !after.ModTime().Equal(before.ModTime()) || after.Mode() != before.Mode() || after.Sys().(*syscall.Stat_t).Uid != before.Sys().(*syscall.Stat_t).Uid {
		t.Errorf("the file behind the link became %v", after)
	}
	if info, err := os.Lstat(filepath.Join(top, "out", "link")); err != nil || !info.ModTime().Equal(old) {
		t.Errorf("the link has the time %v, %v", info, err)
	}
}

// The path that a person gives may be a link, as with every other program.
func TestTheTargetItselfMayBeALink(t *testing.T) {
	top := t.TempDir()
	check(t, os.Mkdir(filepath.Join(top, "folder"), 0o755))
	check(t, os.WriteFile(filepath.Join(top, "folder", "file"), []byte("old"), 0o644))
	check(t, os.Symlink("folder", filepath.Join(top, "to-folder")))
	check(t, os.Symlink("folder/file", filepath.Join(top, "to-file")))
	data := tree(t, Entry{Path: "."})
	check(t, unpack(bytes.NewReader(data), Tree{Path: filepath.Join(top, "to-folder"), Base: "new"}, Keep{}))
	check(t, unpack(bytes.NewReader(data), Tree{Path: filepath.Join(top, "to-file")}, Keep{}))
	for _, name := range []string{"new", "file"} {
		if text, err := os.ReadFile(filepath.Join(top, "folder", name)); err != nil || string(text) != "." {
			t.Errorf("%s has %q, %v", name, text, err)
		}
	}
}
