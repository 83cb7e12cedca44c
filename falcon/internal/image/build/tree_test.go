package build

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func need(t *testing.T, tools ...tool) {
	t.Helper()
	if err := require(tools...); err != nil {
		t.Skip(err)
	}
}

func smallTree() *tree {
	t := newTree()
	t.file("etc/hostname", 0o644, []byte("micro\n"))
	t.file("usr/bin/init", 0o755, []byte("#!/bin/sh\n"))
	t.link("bin", "usr/bin")
	t.link("long", strings.Repeat("x", 100)) // does not fit into an inode
	t.folder("tmp", fs.ModeSticky|0o777)
	t.folder("root", 0o700)
	return t
}

func TestCpioIsReadByCpio(t *testing.T) {
	path, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("cpio is not installed")
	}
	cmd := exec.Command(path, "-itv", "--quiet", "--numeric-uid-gid")
	cmd.Stdin = bytes.NewReader(smallTree().cpio())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line) // mode links user group size month day year name …
		got = append(got, strings.Join(append(f[:1:1], f[2], f[3], strings.Join(f[8:], " ")), " "))
	}
	want := []string{
		"lrwxrwxrwx 0 0 bin -> usr/bin", "drwxr-xr-x 0 0 etc", "-rw-r--r-- 0 0 etc/hostname",
		"lrwxrwxrwx 0 0 long -> " + strings.Repeat("x", 100), "drwx------ 0 0 root", "drwxrwxrwt 0 0 tmp",
		"drwxr-xr-x 0 0 usr", "drwxr-xr-x 0 0 usr/bin", "-rwxr-xr-x 0 0 usr/bin/init",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// asNobody runs one test of this program again as an ordinary user, who owns
// the folder that the environment names as TMPDIR.
func asNobody(t *testing.T, test string, env ...string) string {
	t.Helper()
	const nobody = 65534
	dir, err := os.MkdirTemp("", "falcon-nobody-") // below t.TempDir others may not look
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "test")
	if err := os.WriteFile(exe, program, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{dir, exe} {
		if err := os.Chown(p, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(exe, "-test.run", "^"+test+"$", "-test.v")
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=/usr/bin:/bin", "TMPDIR=" + dir, "HOME=" + dir, "FALCON_TEST_NOBODY=1"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+test)) {
		t.Fatalf("as an ordinary user: %v\n%s", err, out)
	}
	return dir
}

func TestExt4BelongsToRootWhoeverMakesIt(t *testing.T) {
	need(t, mke2fs, debugfs)
	if os.Geteuid() == 0 {
		asNobody(t, t.Name())
	}
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk")
	tr := smallTree()
	if err := makeExt4(t.Context(), tr, dir, disk, ext4Options{label: "test", size: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	for _, name := range append(tr.sorted(), "", "lost+found") {
		var out bytes.Buffer
		if err := (command{tool: debugfs, args: []string{"-R", "stat \"/" + name + "\"", disk}, stdout: &out}).run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := strings.Join(strings.Fields(out.String()), " "); !strings.Contains(s, "User: 0 Group: 0") {
			t.Errorf("/%s is not root's: %s", name, s)
		}
	}
	fsck := tool{"e2fsck", "e2fsprogs"}
	if err := (command{tool: fsck, args: []string{"-fn", disk}}).run(t.Context()); err != nil {
		t.Error(err)
	}
	var link bytes.Buffer
	if err := (command{tool: debugfs, args: []string{"-R", "stat /long", disk}, stdout: &link}).run(t.Context()); err != nil || !strings.Contains(link.String(), "Type: symlink") {
		t.Errorf("the long link is %s, %v", &link, err)
	}
}

func TestUnpackMergesUsr(t *testing.T) {
	need(t, dpkgDeb)
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	pkg := filepath.Join(dir, "pkg")
	for name, content := range map[string]string{
		"DEBIAN/control":                 "Package: p\nVersion: 1\nArchitecture: all\nMaintainer: m <m@example.org>\nDescription: d\n",
		"lib/x86_64-linux-gnu/libc.so.6": "libc", "usr/bin/ip": "ip", "sbin/tc": "tc", "etc/conf": "conf",
	} {
		path := filepath.Join(pkg, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(pkg, "etc/away")); err != nil {
		t.Fatal(err)
	}
	deb := filepath.Join(dir, "p.deb")
	if err := (command{tool: dpkgDeb, args: []string{"--root-owner-group", "-b", pkg, deb}}).run(t.Context()); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	if err := unpack(t.Context(), out, deb); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"usr/lib/x86_64-linux-gnu/libc.so.6": "libc", "usr/bin/ip": "ip", "usr/sbin/tc": "tc", "etc/conf": "conf",
	} {
		if got, err := os.ReadFile(filepath.Join(out, name)); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v", name, got, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(out, "lib")); err == nil {
		t.Error("/lib was made beside /usr/lib")
	}
	if err := os.WriteFile(deb, []byte("no package"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unpack(t.Context(), out, deb); err == nil || !strings.Contains(err.Error(), "p.deb") {
		t.Errorf("of a damaged package: %v", err)
	}
}

func TestDebianUnitsAndScriptsAreThere(t *testing.T) {
	for name, n := range debianTree([]byte("program")).nodes {
		if !n.mode.IsDir() && len(n.data) == 0 {
			t.Errorf("%s is empty", name)
		}
	}
	micro := newTree()
	microConfig(micro)
	for name, n := range micro.nodes {
		if !n.mode.IsDir() && len(n.data) == 0 && name != "etc/machine-id" { // each guest gets its own
			t.Errorf("%s is empty", name)
		}
	}
	if len(embedded("initramfs-init")) == 0 {
		t.Error("the initramfs has no init")
	}
}
