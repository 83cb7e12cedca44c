package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// replace puts another image of the same name into an image's place.
func replace(t *testing.T, s *Files, name, word string) {
	t.Helper()
	if err := os.RemoveAll(s.imageDir(name)); err != nil {
		t.Fatal(err)
	}
	addImage(t, s, name, word)
}

// forge writes to a file and has its time be what it was.
func forge(t *testing.T, path string) {
	t.Helper()
	was, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("x"), 4096)
	if err := errors.Join(err, f.Close(), os.Chtimes(path, was.ModTime(), was.ModTime())); err != nil {
		t.Fatal(err)
	}
}

// TestAnImageIsDigestedOnce, and not by each program anew: a context that is over
// ends the reading of an image, and nothing else.
func TestAnImageIsDigestedOnce(t *testing.T) {
	s := testStore(t)
	addImage(t, s, "base", "hello")
	addDisk(t, s, owner("violin"), "base")
	over, cancel := context.WithCancel(t.Context())
	cancel()
	again := func() *Files {
		s, err := OpenFiles(Options{Home: s.Home(), System: []string{}})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if err := again().VerifyDisk(over, owner("violin")); err != nil {
		t.Errorf("an image that is as it was is read: %v", err)
	}
	path := filepath.Join(s.imageDir("base"), "disk.raw")
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := again().VerifyDisk(over, owner("violin")); !errors.Is(err, context.Canceled) {
		t.Errorf("an image that has changed is not read: %v", err)
	}
	for _, ctx := range []context.Context{t.Context(), over} {
		if err := again().VerifyDisk(ctx, owner("violin")); err != nil {
			t.Errorf("once it was read: %v", err)
		}
	}
	forge(t, path)
	judge(t, "VerifyDisk", again().VerifyDisk(t.Context(), owner("violin")), "in spite of its record")
}

func TestADiskKnowsWhatItStandsOn(t *testing.T) {
	const violin = "violin"
	keepRecord := func(t *testing.T, s *Files, do func()) {
		t.Helper()
		path := filepath.Join(s.imageDir("base"), recordFile)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		do()
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		do   func(t *testing.T, s *Files)
		want string // of the reason; empty where the disk is good
	}{
		"nothing happened": {func(*testing.T, *Files) {}, ""},
		"gone": {func(t *testing.T, s *Files) {
			if err := os.RemoveAll(s.imageDir("base")); err != nil {
				t.Fatal(err)
			}
		}, "is gone"},
		"another one": {func(t *testing.T, s *Files) { replace(t, s, "base", "other") }, "is another one by now"},
		"another one with the old record": {func(t *testing.T, s *Files) {
			keepRecord(t, s, func() { replace(t, s, "base", "other") })
		}, "in spite of its record"},
		"the same, made anew": {func(t *testing.T, s *Files) { replace(t, s, "base", "hello") }, ""},
		"written to": {func(t *testing.T, s *Files) {
			f, err := os.OpenFile(filepath.Join(s.imageDir("base"), "disk.raw"), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteAt([]byte("x"), 4096)
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		}, "in spite of its record"},
		"written to, and its time set back": {func(t *testing.T, s *Files) { forge(t, filepath.Join(s.imageDir("base"), "disk.raw")) }, "in spite of its record"},
		"with another mode": {func(t *testing.T, s *Files) {
			if err := os.Chmod(filepath.Join(s.imageDir("base"), "disk.raw"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, ""},
		"linked": {func(t *testing.T, s *Files) {
			if err := os.Link(filepath.Join(s.imageDir("base"), "disk.raw"), filepath.Join(t.TempDir(), "backup")); err != nil {
				t.Fatal(err)
			}
		}, ""},
		"touched": {func(t *testing.T, s *Files) {
			if err := os.Chtimes(filepath.Join(s.imageDir("base"), "disk.raw"), time.Now(), time.Now()); err != nil {
				t.Fatal(err)
			}
		}, ""},
		"without its disk": {func(t *testing.T, s *Files) {
			if err := os.Remove(filepath.Join(s.imageDir("base"), "disk.raw")); err != nil {
				t.Fatal(err)
			}
		}, "has lost its disk"},
		"a disk of before digests were recorded": {func(t *testing.T, s *Files) {
			var r diskRecord
			path := s.diskRecordPath(owner(violin))
			if err := readJSON(path, &r); err != nil {
				t.Fatal(err)
			}
			r.Image = parentRef{Name: r.Image.Name, Dir: r.Image.Dir}
			if err := writeJSON(path, r, 0o600); err != nil {
				t.Fatal(err)
			}
			replace(t, s, "base", "other")
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := testStore(t)
			addImage(t, s, "base", "hello")
			addDisk(t, s, owner(violin), "base")
			tt.do(t, s)
			err := s.VerifyDisk(t.Context(), owner(violin))
			judge(t, "VerifyDisk", err, tt.want)
			if tt.want == "" {
				return
			}
			if !strings.Contains(err.Error(), "falcon destroy "+owner(violin).Folder) {
				t.Errorf("what to do is not in %q", err)
			}
			_, err = s.Snapshot(t.Context(), owner(violin), "later", nil)
			judge(t, "Snapshot", err, tt.want)
			if exists(s.imageDir("later")) {
				t.Error("something of the snapshot was made")
			}
		})
	}
}

// judge wants an error with a reason, or none.
func judge(t *testing.T, what string, err error, want string) {
	t.Helper()
	var base *BaseError
	switch {
	case want == "" && err == nil:
	case want == "" || !errors.As(err, &base) || !strings.Contains(base.Reason, want) || base.Image != "base":
		t.Errorf("%s = %v, want %q", what, err, want)
	}
}

// TestWhatStandsOnAnImageByWayOfOthers: images of disks and templates know it,
// too.
func TestWhatStandsOnAnImageByWayOfOthers(t *testing.T) {
	s := testStore(t)
	addImage(t, s, "base", "hello")
	addDisk(t, s, owner("violin"), "base")
	if _, err := s.Snapshot(t.Context(), owner("violin"), "tuned", nil); err != nil {
		t.Fatal(err)
	}
	tpl := addTemplate(t, s, "k1", "base")
	addDisk(t, s, owner("piano"), tpl.Name)
	for _, node := range []string{"violin", "piano"} {
		if err := s.VerifyDisk(t.Context(), owner(node)); err != nil {
			t.Errorf("to begin with, %s: %v", node, err)
		}
	}
	replace(t, s, "base", "other")
	const want = "is another one by now"
	for _, node := range []string{"violin", "piano"} {
		judge(t, node, s.VerifyDisk(t.Context(), owner(node)), want)
	}
	tuned, err := s.Get(t.Context(), "tuned")
	if err != nil {
		t.Fatal(err)
	}
	judge(t, "the image of a disk", s.VerifyImage(t.Context(), tuned), want)
	judge(t, "a new disk on it", s.CreateDisk(t.Context(), owner("drum"), "tuned", DiskOptions{}), want)
	if s.HasDisk(t.Context(), owner("drum"), "") || exists(s.diskRecordPath(owner("drum"))) {
		t.Error("a disk that cannot be read was made")
	}
	judge(t, "Export", s.Export(t.Context(), "tuned", filepath.Join(t.TempDir(), "x.raw"), nil), want)
	if _, err := find(t, s, "k1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("its template is found: %v", err)
	}
}

func TestAnImageWhoseParentIsGoneCanBeRemoved(t *testing.T) {
	s := testStore(t)
	addImage(t, s, "base", "hello")
	addDisk(t, s, owner("violin"), "base")
	if _, err := s.Snapshot(t.Context(), owner("violin"), "tuned", nil); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(s.imageDir("base")); err != nil {
		t.Fatal(err)
	}
	_, err := s.Get(t.Context(), "tuned")
	judge(t, "Get", err, "is gone")
	if !strings.Contains(err.Error(), "falcon image rm tuned") {
		t.Errorf("what to do is not in %q", err)
	}
	if err := s.Remove(t.Context(), "tuned"); !errors.As(err, new(*InUseError)) {
		t.Errorf("Remove under a disk = %v", err)
	}
	if err := errors.Join(s.RemoveDisk(t.Context(), owner("violin")), s.Remove(t.Context(), "tuned")); err != nil {
		t.Error(err)
	}
	if left := leftovers(t, s); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestTheImageOfADiskMustStayAsItIs: nobody knows its digest.
func TestTheImageOfADiskMustStayAsItIs(t *testing.T) {
	s := testStore(t)
	addImage(t, s, "base", "hello")
	addDisk(t, s, owner("violin"), "base")
	img, err := s.Snapshot(t.Context(), owner("violin"), "tuned", nil)
	if err != nil {
		t.Fatal(err)
	}
	was, err := os.Stat(img.Disk)
	if err != nil {
		t.Fatal(err)
	}
	restored := img.Disk + ".copy" // of a backup
	data, err := os.ReadFile(img.Disk)
	if err := errors.Join(err, os.WriteFile(restored, data, 0o600), os.Chtimes(restored, was.ModTime(), was.ModTime()), os.Rename(restored, img.Disk)); err != nil {
		t.Fatal(err)
	}
	if err := s.VerifyDisk(t.Context(), owner("violin")); err != nil {
		t.Errorf("after a restoration: %v", err)
	}
	if err := os.WriteFile(img.Disk, data, 0o600); err != nil {
		t.Fatal(err)
	}
	var base *BaseError
	if err := s.VerifyDisk(t.Context(), owner("violin")); !errors.As(err, &base) || base.Image != "tuned" {
		t.Errorf("after it was written to: %v", err)
	}
}
