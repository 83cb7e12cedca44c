package state

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A folder is found wherever it is on its file system, and one that was deleted is
// known to be.
func TestAFolderIsTraced(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	old := filepath.Join(dir, "old")
	must(t, os.Mkdir(old, 0o700))
	p := PlaceOf(old)
	if p.Handle == "" {
		t.Skip("the file system has no handles")
	}
	moved := filepath.Join(dir, "a", "b", "moved (deleted)")
	must(t, os.MkdirAll(filepath.Dir(moved), 0o700))
	must(t, os.Rename(old, moved))
	must(t, os.Mkdir(old, 0o700)) // another one
	if path, err := p.Trace(); err != nil || path != moved {
		t.Errorf("moved, it is at %q (%v)", path, err)
	}
	inUse, err := os.Open(moved)
	must(t, err)
	must(t, os.Remove(moved))
	if path, err := p.Trace(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("deleted and in use, it is at %q (%v)", path, err)
	}
	must(t, inUse.Close())
	if path, err := p.Trace(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("deleted, it is at %q (%v)", path, err)
	}
}

// Of what is not mounted, or has no handle, nothing is known.
func TestNotEveryFolderIsTraced(t *testing.T) {
	p := PlaceOf(t.TempDir())
	for name, p := range map[string]Place{
		"no handle":       {Folder: p.Folder, Device: p.Device, Inode: p.Inode},
		"other device":    {Folder: p.Folder, Device: p.Device + 1, Inode: p.Inode, Handle: p.Handle},
		"other system":    {Folder: p.Folder, Device: p.Device, Inode: p.Inode, Handle: "0123456789abcdef:1:00"},
		"no handle's way": {Folder: p.Folder, Device: p.Device, Inode: p.Inode, Handle: "x:y:z"},
	} {
		if path, err := p.Trace(); !errors.Is(err, ErrUntraced) || errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: it is at %q (%v)", name, path, err)
		}
	}
}
