package image

import (
	"slices"
	"testing"
)

// TestVolumesOfKilledCommandsAreFound as long as nobody holds them.
func TestVolumesOfKilledCommandsAreFound(t *testing.T) {
	s := newModelSuite(t)
	z := s.Store.(*ZFS)
	s.addImage(t, "base", "hello")
	s.addDisk(t, owner("violin"), "base")
	was := s.datasets(t)
	ctx := t.Context()
	reader := z.imageName("reader-1")
	if err := z.makeVolume(ctx, z.imageName("draft"), 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := cloneSnapshot(ctx, z.imageName("base")+"@"+snapshotBase, reader, userImage+"="+imageReader); err != nil {
		t.Fatal(err)
	}
	_, _, unlock, err := z.hold(ctx, "base") // somebody reads it
	if err != nil {
		t.Fatal(err)
	}
	all, err := z.Abandoned(ctx)
	if err != nil || len(all) != 1 || all[0].Name != z.imageName("draft") {
		t.Errorf("while the image is read: %+v, %v", all, err)
	}
	unlock()
	if all, err = z.Abandoned(ctx); err != nil || len(all) != 2 {
		t.Errorf("later: %+v, %v", all, err)
	}
	for _, a := range all {
		if err := a.Remove(ctx); err != nil {
			t.Error(err)
		}
	}
	if is := s.datasets(t); !slices.Equal(is, was) {
		t.Errorf("ZFS has %v, it had %v", is, was)
	}
}
