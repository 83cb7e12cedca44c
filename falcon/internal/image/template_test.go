package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// addTemplate stores a template of an image.
func addTemplate(t *testing.T, s *Files, key, image string) Template {
	t.Helper()
	d, err := s.CreateTemplate(t.Context(), TemplateOptions{Key: key, Image: image, Memory: 1 << 20}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Discard()
	for _, name := range []string{"ram", "state", "log"} {
		if err := os.WriteFile(filepath.Join(d.Dir, name), []byte(strings.Repeat(name, 4096)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tpl, err := d.Commit("ram", "state")
	if err != nil {
		t.Fatal(err)
	}
	return tpl
}

// find is Template for a caller who lets go of what is found.
func find(t *testing.T, s *Files, key string) (Template, error) {
	t.Helper()
	tpl, unlock, err := s.Template(t.Context(), key)
	if err == nil {
		unlock()
	}
	return tpl, err
}

func TestTemplateIsAnImageThatNobodySees(t *testing.T) {
	s := testStore(t)
	img := addImage(t, s, "base", "base")
	tpl := addTemplate(t, s, "k1", "base")
	if got, err := find(t, s, "k1"); err != nil || got.Dir != tpl.Dir || got.Image != "base" {
		t.Errorf("found %+v, %v", got, err)
	}
	if _, err := find(t, s, "k2"); !errors.Is(err, ErrNotFound) {
		t.Errorf("another key: %v", err)
	}
	images, err := s.List(t.Context())
	if err != nil || len(images) != 1 || images[0].Name != "base" {
		t.Errorf("the list is %+v, %v", images, err)
	}
	if _, err := s.Get(t.Context(), tpl.Name); err == nil {
		t.Error("a template can be had by its name")
	}
	for _, name := range []string{"ram", "state", TemplateDisk, recordFile} {
		if info, err := os.Stat(filepath.Join(tpl.Dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if exists(filepath.Join(tpl.Dir, "log")) {
		t.Error("a file is kept that was not to be")
	}
	disk := addDisk(t, s, owner("violin"), tpl.Name)
	if out := run(t, "qemu-img", "info", "--backing-chain", disk); !strings.Contains(out, tpl.Dir) || !strings.Contains(out, img.Disk) {
		t.Errorf("the disk stands on\n%s", out)
	}
	disks, err := s.Disks(t.Context())
	if err != nil || len(disks) != 1 || disks[0].Image != "base" {
		t.Errorf("the disks are %+v, %v", disks, err)
	}
	snapshot, err := s.Snapshot(t.Context(), owner("violin"), "later", nil)
	if err != nil || snapshot.Parent != "base" || snapshot.Boot.Kernel != img.Boot.Kernel || !snapshot.Console.Known {
		t.Errorf("a snapshot of it is %+v, %v", snapshot, err)
	}
}

func TestTemplateThatWasTouchedIsNotFound(t *testing.T) {
	for name, touch := range map[string]func(dir string) error{
		"cut off":    func(dir string) error { return os.Truncate(filepath.Join(dir, "ram"), 10) },
		"rewritten":  func(dir string) error { return os.WriteFile(filepath.Join(dir, "state"), make([]byte, 5*4096), 0o600) },
		"gone":       func(dir string) error { return os.Remove(filepath.Join(dir, TemplateDisk)) },
		"no record":  func(dir string) error { return os.Remove(filepath.Join(dir, recordFile)) },
		"bad record": func(dir string) error { return os.WriteFile(filepath.Join(dir, recordFile), []byte("{"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			s := testStore(t)
			addImage(t, s, "base", "base")
			first := addTemplate(t, s, "k1", "base")
			addDisk(t, s, owner("violin"), first.Name)
			if err := touch(first.Dir); err != nil {
				t.Fatal(err)
			}
			if _, err := find(t, s, "k1"); !errors.Is(err, ErrNotFound) {
				t.Fatalf("it is found: %v", err)
			}
			second := addTemplate(t, s, "k1", "base")
			if got, err := find(t, s, "k1"); err != nil || got.Dir != second.Dir {
				t.Errorf("found %+v, %v", got, err)
			}
			if err := s.RemoveDisk(t.Context(), owner("violin")); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDistrustedTemplateIsNotFoundAndStays(t *testing.T) {
	s := testStore(t)
	addImage(t, s, "base", "base")
	tpl := addTemplate(t, s, "k1", "base")
	disk := addDisk(t, s, owner("violin"), tpl.Name)
	if err := s.DistrustTemplate(t.Context(), tpl.Name); err != nil {
		t.Fatal(err)
	}
	if _, err := find(t, s, "k1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("it is found: %v", err)
	}
	if second := addTemplate(t, s, "k1", "base"); second.Dir == tpl.Dir {
		t.Error("the new one has taken the place of the one that is in use")
	}
	run(t, "qemu-img", "check", disk)
}

func TestSecondMakerOfATemplateWaitsAndIsToldThatItIsThere(t *testing.T) {
	s := testStore(t)
	addImage(t, s, "base", "base")
	o := TemplateOptions{Key: "k1", Image: "base"}
	d, err := s.CreateTemplate(t.Context(), o, nil)
	if err != nil {
		t.Fatal(err)
	}
	waits, second := make(chan struct{}), make(chan error)
	go func() {
		_, err := s.CreateTemplate(t.Context(), o, func(Step) { close(waits) })
		second <- err
	}()
	<-waits
	if err := os.WriteFile(filepath.Join(d.Dir, "ram"), []byte("ram"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Commit("ram"); err != nil {
		t.Fatal(err)
	}
	d.Discard()
	if err := <-second; !errors.Is(err, ErrExists) {
		t.Errorf("the second: %v", err)
	}
	if left := leftovers(t, s); strings.Join(left, " ") != "img/.warm-k1 img/base" {
		t.Errorf("there is %v", left)
	}
}

func TestTemplatesDoNotHoldTheirImageButTheirDisksDo(t *testing.T) {
	s := testStore(t)
	addImage(t, s, "base", "base")
	tpl := addTemplate(t, s, "k1", "base")
	addDisk(t, s, owner("violin"), tpl.Name)
	var inUse *InUseError
	if err := s.Remove(t.Context(), "base"); !errors.As(err, &inUse) || len(inUse.By) != 1 || !strings.Contains(inUse.By[0], `node "violin"`) {
		t.Errorf("removing an image of which a template is in use: %v", err)
	}
	if err := s.RemoveDisk(t.Context(), owner("violin")); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "base"); err != nil {
		t.Fatal(err)
	}
	if exists(tpl.Dir) {
		t.Error("the template of a removed image is still there")
	}
}

func TestPruneRemovesTheObsoleteAndThenTheOldest(t *testing.T) {
	s := testStore(t)
	addImage(t, s, "base", "base")
	var size int64
	for i, key := range []string{"old", "held", "bad", "new"} {
		tpl := addTemplate(t, s, key, "base")
		used := time.Now().Add(time.Duration(i-10) * time.Hour)
		if err := os.Chtimes(filepath.Join(tpl.Dir, recordFile), used, used); err != nil {
			t.Fatal(err)
		}
		size = tpl.Size
	}
	_, unlock, err := s.Template(t.Context(), "held") // which makes it the newest
	if err != nil {
		t.Fatal(err)
	}
	keys := func(list []Template) (keys string) {
		for _, t := range list {
			keys += t.Key + " "
		}
		return keys
	}
	bad := func(t Template) bool { return t.Key == "bad" }
	removed, err := s.PruneTemplates(t.Context(), 1<<40, bad)
	if err != nil || keys(removed) != "bad " {
		t.Errorf("removed as obsolete: %s, %v", keys(removed), err)
	}
	removed, err = s.PruneTemplates(t.Context(), 2*size+size/2, bad)
	if err != nil || keys(removed) != "old " {
		t.Errorf("removed for their size: %s, %v", keys(removed), err)
	}
	removed, err = s.PruneTemplates(t.Context(), 0, bad)
	if err != nil || keys(removed) != "new " {
		t.Errorf("removed while one is held: %s, %v", keys(removed), err)
	}
	unlock()
	left, err := s.Templates(t.Context())
	if err != nil || keys(left) != "held " {
		t.Errorf("left: %s, %v", keys(left), err)
	}
}
