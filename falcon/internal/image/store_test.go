package image

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func needTool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(needTool(t, name), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func testStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(Options{Home: filepath.Join(t.TempDir(), "home"), System: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// addImage stores a qcow2 image of 16 MiB that holds word at its start.
func addImage(t *testing.T, s *Store, name, word string) Image {
	t.Helper()
	ctx := context.Background()
	d, err := s.Create(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Discard()
	raw := filepath.Join(d.Dir, "raw")
	if err := os.WriteFile(raw, []byte(word), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(raw, 16<<20); err != nil {
		t.Fatal(err)
	}
	run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, filepath.Join(d.Dir, "disk.qcow2"))
	img, err := d.Commit(ctx, Spec{Disk: "disk.qcow2", Format: "qcow2", Boot: Boot{Method: BootBIOS}})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func owner(node string) DiskOwner {
	return DiskOwner{ID: "t1", Topology: "duo", Folder: "/lab/duo/.falcon", Node: node}
}

func TestOverlayIsValidQcow2OnItsImage(t *testing.T) {
	s := testStore(t)
	img := addImage(t, s, "base", "hello")
	path, err := s.CreateDisk(t.Context(), owner("violin"), "base", 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	run(t, "qemu-img", "check", "-f", "qcow2", path)
	info := run(t, "qemu-img", "info", "-f", "qcow2", path)
	for _, want := range []string{"virtual size: 1 GiB", "backing file: " + img.Disk, "backing file format: qcow2"} {
		if !strings.Contains(info, want) {
			t.Errorf("qemu-img info lacks %q:\n%s", want, info)
		}
	}
}
