package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// write changes a guest's disk at a number of MiB, as a guest would.
func write(t *testing.T, disk, pattern, at string) {
	t.Helper()
	run(t, "qemu-io", "-f", "qcow2", "-c", "write -q -P "+pattern+" "+at+" 64k", disk)
}

// reads fails the test unless the disk holds the pattern there.
func reads(t *testing.T, disk, pattern, at string) {
	t.Helper()
	if out := run(t, "qemu-io", "-f", "qcow2", "-c", "read -P "+pattern+" "+at+" 64k", disk); strings.Contains(out, "failed") {
		t.Errorf("%s lacks %s at %s:\n%s", disk, pattern, at, out)
	}
}

func TestSnapshotTakesWhatWasWrittenAndNothingLater(t *testing.T) {
	s := testStore(t)
	addImage(t, s, "base", "hello")
	disk := addDisk(t, s, owner("violin"), "base")
	write(t, disk, "0x11", "1M")
	one, err := s.Snapshot(t.Context(), owner("violin"), "one", nil)
	if err != nil {
		t.Fatal(err)
	}
	write(t, disk, "0x22", "2M")
	two, err := s.Snapshot(t.Context(), owner("violin"), "two", nil)
	if err != nil {
		t.Fatal(err)
	}
	write(t, disk, "0x33", "3M")

	reads(t, disk, "0x11", "1M")
	reads(t, disk, "0x22", "2M")
	reads(t, disk, "0x33", "3M")
	onOne, onTwo := addDisk(t, s, owner("a"), "one"), addDisk(t, s, owner("b"), "two")
	reads(t, onOne, "0x11", "1M")
	reads(t, onOne, "0", "2M")
	reads(t, onTwo, "0x22", "2M")
	reads(t, onTwo, "0", "3M")
	run(t, "qemu-img", "check", "-q", "-f", "qcow2", disk)

	if one.Parent != "base" || two.Parent != "one" || two.VirtualSize != testImageSize || one.Digest == two.Digest {
		t.Errorf("one %+v, two %+v", one, two)
	}
	base, err := s.Get(t.Context(), "base")
	if err != nil {
		t.Fatal(err)
	}
	if two.Boot != base.Boot || two.Console != base.Console || two.OS != base.OS {
		t.Errorf("the snapshot's snapshot boots by %+v %+v, base by %+v", two.Boot, two.Console, base.Boot)
	}
}

func TestLiveSnapshotSwitchesToTheFreshOverlay(t *testing.T) {
	s := testStore(t)
	addImage(t, s, "base", "hello")
	disk := addDisk(t, s, owner("violin"), "base")
	before, err := os.Stat(disk)
	if err != nil {
		t.Fatal(err)
	}
	called := false
	img, err := s.Snapshot(t.Context(), owner("violin"), "one", func(path string) error {
		called = true
		info := run(t, "qemu-img", "info", "-f", "qcow2", path+".next")
		if path != disk || !strings.Contains(info, "img/one/disk.qcow2") {
			t.Errorf("switched to %s:\n%s", path, info)
		}
		// A hypervisor opens by its name what the guest has written so far.
		if now, err := os.Stat(path); err != nil || !os.SameFile(before, now) {
			t.Errorf("before the switch the disk's path names another file: %v", err)
		}
		if _, err := s.Get(t.Context(), "one"); !errors.Is(err, ErrNotFound) {
			t.Errorf("the image is seen before the guest has switched: %v", err)
		}
		return os.Rename(path+".next", path)
	})
	if err != nil || !called {
		t.Fatalf("called %v, %v", called, err)
	}
	if after, err := os.Stat(img.Disk); err != nil || !os.SameFile(before, after) {
		t.Errorf("the image's disk is a copy: %v", err)
	}
}

func TestFailedSwitchPutsEverythingBack(t *testing.T) {
	s := testStore(t)
	addImage(t, s, "base", "hello")
	disk := addDisk(t, s, owner("violin"), "base")
	write(t, disk, "0x11", "1M")
	was := strings.Join(leftovers(t, s), " ")
	record, err := os.ReadFile(s.diskRecordPath(owner("violin")))
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("no such node")
	if _, err := s.Snapshot(t.Context(), owner("violin"), "one", func(string) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("Snapshot = %v", err)
	}
	reads(t, disk, "0x11", "1M")
	if info := run(t, "qemu-img", "info", "-f", "qcow2", disk); !strings.Contains(info, "img/base/") {
		t.Errorf("the disk does not stand on its image any more:\n%s", info)
	}
	if is := strings.Join(leftovers(t, s), " "); is != was {
		t.Errorf("the store has %s, it had %s", is, was)
	}
	if now, err := os.ReadFile(s.diskRecordPath(owner("violin"))); err != nil || string(now) != string(record) {
		t.Errorf("the record has changed to %s, %v", now, err)
	}
	if _, err := s.Snapshot(t.Context(), owner("violin"), "one", nil); err != nil {
		t.Errorf("a further snapshot = %v", err)
	}
}

func TestSnapshotRefusals(t *testing.T) {
	s := testStore(t)
	addImage(t, s, "base", "hello")
	addDisk(t, s, owner("violin"), "base")
	if _, err := s.Snapshot(t.Context(), owner("violin"), "base", nil); !errors.Is(err, ErrExists) {
		t.Errorf("a taken name = %v", err)
	}
	if _, err := s.Snapshot(t.Context(), owner("piano"), "one", nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a node without a disk = %v", err)
	}
	if _, err := s.Snapshot(t.Context(), owner("violin"), "not/a/name", nil); err == nil {
		t.Error("a bad name was taken")
	}
}

// interrupt takes a snapshot whose process dies while the guest switches.
func interrupt(t *testing.T, s *Files, name string) {
	t.Helper()
	var disk diskRecord
	if err := readJSON(s.diskRecordPath(owner("violin")), &disk); err != nil {
		t.Fatal(err)
	}
	dead := &transition{store: s, name: name, dir: s.imageDir(name), disk: disk}
	if err := dead.run(nil); err != nil {
		t.Fatal(err)
	}
}

func TestInterruptedSnapshotKeepsTheDiskWhole(t *testing.T) {
	s := testStore(t)
	addImage(t, s, "base", "hello")
	disk := addDisk(t, s, owner("violin"), "base")
	write(t, disk, "0x11", "1M")
	interrupt(t, s, "one")

	reads(t, disk, "0x11", "1M")
	if images, err := s.List(t.Context()); err != nil || len(images) != 1 {
		t.Errorf("the unfinished image is seen: %v, %v", images, err)
	}
	var inUse *InUseError
	if err := s.Remove(t.Context(), "base"); !errors.As(err, &inUse) {
		t.Errorf("its parent can be removed: %v", err)
	}
	if _, err := s.Create(t.Context(), "one", nil); !errors.Is(err, ErrExists) {
		t.Errorf("its name can be taken: %v", err)
	}
	two, err := s.Snapshot(t.Context(), owner("violin"), "two", nil)
	if err != nil || two.Parent != "one" {
		t.Errorf("another snapshot = %+v, %v", two, err)
	}
	reads(t, disk, "0x11", "1M")
	reads(t, filepath.Join(s.imageDir("one"), snapshotDisk), "0x11", "1M")
}

func TestInterruptedSnapshotGoesWithItsDisk(t *testing.T) {
	s := testStore(t)
	addImage(t, s, "base", "hello")
	addDisk(t, s, owner("violin"), "base")
	interrupt(t, s, "one")
	if err := s.RemoveDisk(t.Context(), owner("violin")); err != nil {
		t.Fatal(err)
	}
	if left := strings.Join(leftovers(t, s), " "); left != "img/base" {
		t.Errorf("left over: %s", left)
	}
}
