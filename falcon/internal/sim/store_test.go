package sim

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
)

func owner(node string) image.DiskOwner {
	return image.DiskOwner{ID: "0123abcd", Topology: "duo", Folder: "/lab", Node: node}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestSnapshotOfASnapshotGoesInAnyLegalOrder(t *testing.T) {
	ctx := t.Context()
	s := OpenStore(t.TempDir(), NewScript(nil))
	must(t, s.CreateDisk(ctx, owner("violin"), "micro", image.DiskOptions{}), s.CreateDisk(ctx, owner("piano"), "micro", image.DiskOptions{}))
	write := func(node, path, text string) {
		t.Helper()
		f, err := loadFiles(s.DiskPath(owner(node), ""), baseFiles("micro"))
		must(t, err)
		must(t, f.write(path, []byte(text), false), f.sync(s.DiskPath(owner(node), "")))
	}
	read := func(node, path string) string {
		t.Helper()
		f, err := loadFiles(s.DiskPath(owner(node), ""), baseFiles("micro"))
		must(t, err)
		data, err := f.read(path)
		if err != nil {
			return err.Error()
		}
		return string(data)
	}
	write("violin", "/root/a", "one")
	_, err := s.Snapshot(ctx, owner("violin"), "first", nil)
	must(t, err)
	write("violin", "/root/b", "two")
	img, err := s.Snapshot(ctx, owner("violin"), "second", nil)
	must(t, err)
	if img.Parent != "first" || img.OS != "micro" || !img.Console.Known || img.ReadOnly {
		t.Errorf("the second snapshot is %+v", img)
	}
	if _, err := s.Snapshot(ctx, owner("violin"), "second", nil); !errors.Is(err, image.ErrExists) {
		t.Errorf("a snapshot of a taken name: %v", err)
	}
	if _, err := s.Snapshot(ctx, owner("violin"), "micro", nil); !errors.Is(err, image.ErrExists) {
		t.Errorf("a snapshot under the name of an image: %v", err)
	}
	must(t, s.CreateDisk(ctx, owner("drum"), "first", image.DiskOptions{}), s.CreateDisk(ctx, owner("flute"), "second", image.DiskOptions{}))
	for node, want := range map[string][2]string{
		"violin": {"one", "two"}, "flute": {"one", "two"},
		"drum":  {"one", "open /root/b: no such file or directory"},
		"piano": {"open /root/a: no such file or directory", "open /root/b: no such file or directory"},
	} {
		if got := [2]string{read(node, "/root/a"), read(node, "/root/b")}; got != want {
			t.Errorf("%s has %q, want %q", node, got, want)
		}
	}
	inUse := func(name string, by ...string) {
		t.Helper()
		var e *image.InUseError
		if err := s.Remove(ctx, name); !errors.As(err, &e) || len(e.By) != len(by) {
			t.Fatalf("removing %s: %v, want it in use by %q", name, err, by)
		}
	}
	inUse("first", "second", "drum")
	inUse("second", "violin", "flute")
	must(t, s.RemoveDisk(ctx, owner("violin")), s.RemoveDisk(ctx, owner("flute")), s.RemoveDisk(ctx, owner("flute")))
	must(t, s.Remove(ctx, "second"))
	inUse("first", "drum")
	must(t, s.RemoveDisk(ctx, owner("drum")), s.RemoveDisk(ctx, owner("piano")), s.Remove(ctx, "first"))
	if err := s.Remove(ctx, "micro"); !errors.Is(err, image.ErrReadOnly) {
		t.Errorf("removing an image that is part of the host: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(s.Home(), "*", "*"))
	if err != nil || len(files) > 0 {
		t.Errorf("left in the store: %q (%v)", files, err)
	}
}

func TestDiskIsRefused(t *testing.T) {
	ctx := t.Context()
	rules, err := ParseScript("disk:drum=fail*1,image:none=missing")
	must(t, err)
	s := OpenStore(t.TempDir(), NewScript(rules))
	must(t, s.CreateDisk(ctx, owner("violin"), "micro", image.DiskOptions{Size: 2 << 30}))
	for what, err := range map[string]error{
		"exists":     s.CreateDisk(ctx, owner("violin"), "micro", image.DiskOptions{}),
		"too small":  s.CreateDisk(ctx, owner("piano"), "debian-12", image.DiskOptions{Size: 1 << 30}),
		"no sectors": s.CreateDisk(ctx, owner("piano"), "micro", image.DiskOptions{Size: 1<<30 + 1}),
		"a zvol":     s.CreateDisk(ctx, owner("piano"), "micro", image.DiskOptions{Backing: image.BackingZvol}),
		"scripted":   s.CreateDisk(ctx, owner("drum"), "micro", image.DiskOptions{}),
		"missing":    s.CreateDisk(ctx, owner("piano"), "none", image.DiskOptions{}),
		"bad name":   s.CreateDisk(ctx, owner("piano"), "../x", image.DiskOptions{}),
	} {
		if err == nil {
			t.Errorf("%s: a disk was made", what)
		}
	}
	must(t, s.CreateDisk(ctx, owner("drum"), "micro", image.DiskOptions{}))
	disks, err := s.Disks(ctx)
	must(t, err)
	var nodes []string
	for _, d := range disks {
		nodes = append(nodes, d.Owner.Node)
		if d.Owner != owner(d.Owner.Node) || d.Image != "micro" {
			t.Errorf("listed: %+v", d)
		}
	}
	if !slices.Equal(nodes, []string{"drum", "violin"}) {
		t.Errorf("disks of %q", nodes)
	}
}

func TestImagesOfAnyNameAreThere(t *testing.T) {
	s := OpenStore(t.TempDir(), NewScript(nil))
	for _, name := range []string{"micro", "helios-2.5", "what-you-like"} {
		img, err := s.Get(t.Context(), name)
		if err != nil || img.Name != name || !img.Console.Known || img.VirtualSize == 0 {
			t.Errorf("%s: %+v, %v", name, img, err)
		}
	}
	if _, err := s.Get(t.Context(), "no name"); err == nil {
		t.Error("an image has a name that none can have")
	}
	if _, err := os.Stat(s.Home()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("looking has made the store: %v", err)
	}
}
