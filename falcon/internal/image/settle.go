package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/falcon-vm/falcon-go/propolis"
)

// Settler is a store in which a Snapshot that was killed may leave a disk between
// two images.
type Settler interface {
	// SettleDisk ends that: the image is there, or was never begun.
	SettleDisk(ctx context.Context, owner DiskOwner) error
}

// SettleDisk ends what a Snapshot of a node's disk has left that was killed. Of a
// disk that is written to the fresh overlay by then, the image is finished; of
// any other, all is put back as it was.
func (s *Files) SettleDisk(ctx context.Context, owner DiskOwner) error {
	if owner.valid() != nil {
		return nil
	}
	if _, _, ok := s.unfinished(owner); !ok {
		return nil
	}
	l, err := s.lockDisk(ctx, owner)
	if err != nil {
		return err
	}
	defer l.release()
	return s.settle(owner)
}

// unfinished returns the record of a disk that stands on an unfinished snapshot of
// itself, and that snapshot's.
func (s *Files) unfinished(owner DiskOwner) (disk diskRecord, pending record, ok bool) {
	if readJSON(s.diskRecordPath(owner), &disk) != nil {
		return disk, pending, false
	}
	dir := disk.Image.Dir
	if dir != s.imageDir(filepath.Base(dir)) || exists(filepath.Join(dir, recordFile)) {
		return disk, pending, false
	}
	err := readJSON(filepath.Join(dir, pendingFile), &pending)
	ok = err == nil && pending.Parent != nil && pending.Owner != nil && pending.Owner.is(owner)
	return disk, pending, ok
}

// settle is SettleDisk for a disk that the caller has locked.
func (s *Files) settle(owner DiskOwner) error {
	disk, pending, ok := s.unfinished(owner)
	if !ok {
		return nil
	}
	name := filepath.Base(disk.Image.Dir)
	l, busy, err := tryLock(s.imageLock(name)) // our caller may hold another image
	if busy {
		err = fmt.Errorf("another process is busy with the unfinished snapshot %q; try again", name)
	}
	if err != nil {
		return err
	}
	defer l.release()
	t := &transition{store: s, name: name, dir: disk.Image.Dir, disk: disk}
	switched, err := t.switched()
	if err == nil && switched {
		_, err = s.publish(name, disk)
	} else if err == nil {
		t.disk.Image = *pending.Parent
		err = t.undo()
	}
	if err != nil {
		return fmt.Errorf("ending the unfinished snapshot %q: %w", name, err)
	}
	return nil
}

// switched tells whether the node's disk is the fresh overlay by now. If it is
// not, no hypervisor can make it that any more.
func (t *transition) switched() (bool, error) {
	path := t.store.diskPath(t.disk.Owner)
	is, err := t.replaced(path)
	if is || err != nil {
		return is, err
	}
	waiting := path + propolis.OverlayWaiting
	if len(openBy(waiting)) > 0 {
		return false, t.busy()
	}
	// A hypervisor's server takes the overlay by renaming it: one of us gets it.
	if err := os.Remove(waiting); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	taken, err := filepath.Glob(globEscape(path) + ".[0-9]*")
	if err != nil {
		return false, err
	}
	if len(taken) > 0 && len(openBy(path)) > 0 {
		return false, t.busy()
	}
	if is, err = t.replaced(path); is || err != nil {
		return is, err
	}
	for _, left := range taken { // of a server that died before its guest went on
		err = errors.Join(err, removeIfThere(left))
	}
	return false, err
}

// replaced tells whether the node's path names another file than the image's.
func (t *transition) replaced(path string) (bool, error) {
	base, err := os.Stat(filepath.Join(t.dir, snapshotDisk))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	top, err := os.Stat(path)
	return err == nil && !os.SameFile(base, top), err
}

func (t *transition) busy() error {
	return fmt.Errorf("the server of node %q is just moving to a fresh overlay; try again", t.disk.Owner.Node)
}

// did marks the end of a step.
func (s *Files) did(step string) {
	if s.cut != nil {
		s.cut(step)
	}
}

// abandonedSnapshots finds disks that stand on unfinished snapshots of themselves.
func (s *Files) abandonedSnapshots() ([]Abandoned, error) {
	paths, err := filepath.Glob(filepath.Join(globEscape(s.home), "img", "*", pendingFile))
	if err != nil {
		return nil, err
	}
	var all []Abandoned
	for _, path := range paths {
		var pending record
		if readJSON(path, &pending) != nil || pending.Owner == nil || pending.Owner.valid() != nil {
			continue
		}
		owner := *pending.Owner
		err := unheld(s.diskLock(owner), func() error {
			if disk, _, ok := s.unfinished(owner); ok && disk.Image.Dir == filepath.Dir(path) {
				all = append(all, Abandoned{Kind: "snapshot", Name: filepath.Dir(path),
					Reason: fmt.Sprintf("it was not finished, and %s stands on it", owner),
					Remove: func(context.Context) error {
						return unheld(s.diskLock(owner), func() error { return s.settle(owner) })
					}})
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// removeUnfinished removes an image that is a snapshot which was killed, unless
// the disk of its node has come to stand on it: that finishes it. done says that
// it is gone.
func (s *Files) removeUnfinished(ctx context.Context, name string) (done bool, err error) {
	dir := s.imageDir(name)
	var pending record
	if ValidName(name) != nil || exists(filepath.Join(dir, recordFile)) || readJSON(filepath.Join(dir, pendingFile), &pending) != nil {
		return false, nil
	}
	if pending.Owner != nil {
		err = s.SettleDisk(ctx, *pending.Owner)
	}
	if err == nil {
		err = s.clearer(name)(ctx)
	}
	return !exists(dir), err
}
