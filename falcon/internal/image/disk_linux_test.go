package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestDiskSizeIsTheImagesOrLarger(t *testing.T) {
	s := testStore(t)
	addImage(t, s, "base", "hello")
	for i, c := range []struct {
		ask, want int64 // want 0: refused
	}{
		{0, testImageSize}, {testImageSize, testImageSize}, {1 << 40, 1 << 40},
		{testImageSize - 512, 0}, {testImageSize + 1, 0}, {-512, 0}, {8 << 40, 0},
	} {
		o := owner(fmt.Sprintf("n%d", i))
		err := s.CreateDisk(t.Context(), o, "base", DiskOptions{Size: c.ask})
		path := s.DiskPath(o, "")
		if (err == nil) != (c.want > 0) {
			t.Errorf("size %d: %v", c.ask, err)
			continue
		}
		if err != nil {
			if exists(s.diskPath(o)) || exists(s.diskRecordPath(o)) {
				t.Errorf("size %d: something was left behind", c.ask)
			}
			continue
		}
		if size, err := diskSize(path, "qcow2"); err != nil || size != c.want {
			t.Errorf("size %d: disk has %d, %v", c.ask, size, err)
		}
	}
}

func TestSecondDiskOfANodeIsRefused(t *testing.T) {
	s := testStore(t)
	addImage(t, s, "base", "hello")
	addDisk(t, s, owner("violin"), "base")
	if err := s.CreateDisk(t.Context(), owner("violin"), "base", DiskOptions{}); !errors.Is(err, ErrDiskExists) {
		t.Errorf("a second disk = %v", err)
	}
	if err := s.CreateDisk(t.Context(), owner("piano"), "nothing", DiskOptions{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("a disk on a missing image = %v", err)
	}
	if err := s.CreateDisk(t.Context(), owner("../../etc/passwd"), "base", DiskOptions{}); err == nil {
		t.Error("a node's name led out of the store")
	}
}

func TestDisksTellWhoStandsOnWhat(t *testing.T) {
	s := testStore(t)
	img := addImage(t, s, "base", "hello")
	path := addDisk(t, s, owner("violin"), "base")
	disks, err := s.Disks(t.Context())
	if err != nil || len(disks) != 1 {
		t.Fatalf("Disks = %v, %v", disks, err)
	}
	d := disks[0]
	if d.Owner != owner("violin") || d.Image != "base" || d.ImageDir != img.Dir || d.Path != path || d.Size != testImageSize || d.Used <= 0 {
		t.Errorf("Disks = %+v", d)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the disk's mode: %v, %v", info.Mode(), err)
	}
}

func TestRemovedDiskLeavesNothingAndMayBeRemovedAgain(t *testing.T) {
	s := testStore(t)
	addImage(t, s, "base", "hello")
	addDisk(t, s, owner("violin"), "base")
	for range 2 {
		if err := s.RemoveDisk(t.Context(), owner("violin")); err != nil {
			t.Fatal(err)
		}
	}
	if left := strings.Join(leftovers(t, s), " "); left != "img/base" {
		t.Errorf("left over: %s", left)
	}
}

// smallStore is a store with an image on a file system of 12 KiB, three pages.
func smallStore(t *testing.T) *Files {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a small file system needs root to be mounted")
	}
	images := testStore(t)
	addImage(t, images, "base", "hello")
	home := t.TempDir()
	if err := syscall.Mount("tmpfs", home, "tmpfs", 0, "size=12k,mode=0700"); err != nil {
		t.Skipf("mounting a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(home, 0); err != nil {
			t.Error(err)
		}
	})
	s, err := OpenFiles(Options{Home: home, System: []string{images.Home()}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFullDiskWhileCloningLeavesNothing(t *testing.T) {
	s := smallStore(t)
	err := s.CreateDisk(t.Context(), owner("violin"), "base", DiskOptions{})
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), s.Home()) {
		t.Errorf("CreateDisk = %v, want no space left under %s", err, s.Home())
	}
	if left := leftovers(t, s); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestOverlayIsValidQcow2(t *testing.T) {
	for _, size := range []int64{512, 1 << 20, 512<<20 - 512, 512 << 20, 512<<20 + 512, 1 << 40, maxVirtual} {
		for _, format := range []string{"raw", "qcow2"} {
			dir := t.TempDir()
			base, path := filepath.Join(dir, "base image"), filepath.Join(dir, "overlay")
			run(t, "qemu-img", "create", "-q", "-f", format, base, "1M")
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(writeOverlay(f, size, base, format), f.Close()); err != nil {
				t.Fatalf("%d: %v", size, err)
			}
			run(t, "qemu-img", "check", "-q", "-f", "qcow2", path)
			info := run(t, "qemu-img", "info", "-f", "qcow2", path)
			for _, want := range []string{
				fmt.Sprintf("(%d bytes)", size), "backing file: " + base, "backing file format: " + format,
			} {
				if !strings.Contains(info, want) {
					t.Errorf("%d on %s: qemu-img info lacks %q:\n%s", size, format, want, info)
				}
			}
		}
	}
}

func FuzzReadQcow2(f *testing.F) {
	path := filepath.Join(f.TempDir(), "overlay")
	file, err := os.Create(path)
	if err != nil {
		f.Fatal(err)
	}
	if err := errors.Join(writeOverlay(file, 1<<30, "/base", "raw"), file.Close()); err != nil {
		f.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[:200])
	f.Add([]byte("QFI\xfb"))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := readQcow2(strings.NewReader(string(data)))
		if err != nil {
			return
		}
		if h.Version != 2 && h.Version != 3 {
			t.Errorf("version %d was accepted", h.Version)
		}
		if h.BackingOffset != 0 && h.checkStandalone() == nil {
			t.Error("a disk with a backing file passed for standalone")
		}
	})
}
