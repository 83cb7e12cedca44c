package image

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/falcon-vm/falcon-go/propolis"
)

// Snapshot makes a node's disk the image name and gives the node a fresh, empty
// overlay on it, in constant time. For a node that runs, switchOverlay is called
// with the disk's path when the fresh overlay waits beside it, with ".next"
// appended, and must make the hypervisor put it in its place and write there;
// if it fails, all is put back. It is nil for a node that is stopped.
//
// An image made this way holds whatever the guest wrote, secrets too, so only
// its owner can read it.
//
// If the process dies during the call, the disk stays whole: the image is then
// there but unseen until [Files.SettleDisk] ends it, as the next Snapshot and
// whatever tidies the store do too. A Snapshot of the same name that can finish it
// returns it: it has what the disk had then.
func (s *Files) Snapshot(ctx context.Context, owner DiskOwner, name string, switchOverlay func(newOverlay string) error) (Image, error) {
	img, err := s.snapshot(ctx, owner, name, switchOverlay)
	if err != nil {
		return Image{}, fmt.Errorf("snapshot of %s to image %q: %w", owner, name, explainSpace(err, s.home))
	}
	return img, nil
}

func (s *Files) snapshot(ctx context.Context, owner DiskOwner, name string, switchOverlay func(string) error) (Image, error) {
	if err := ValidName(name); err != nil {
		return Image{}, err
	}
	begun, _, unfinished := s.unfinished(owner)
	if err := s.tidy(ctx); err != nil {
		return Image{}, err
	}
	diskLock, err := s.lockDisk(ctx, owner)
	if err != nil {
		return Image{}, err
	}
	defer diskLock.release()
	if err := s.settle(owner); err != nil {
		return Image{}, err
	}
	var disk diskRecord
	if err := readJSON(s.diskRecordPath(owner), &disk); err != nil {
		return Image{}, fmt.Errorf("the node has no disk in this store: %w", err)
	}
	if dir := s.imageDir(name); unfinished && begun.Image.Dir == dir && disk.Image.Dir == dir {
		return loadImage(dir)
	}
	nameLock, err := acquire(ctx, s.imageLock(name), true)
	if err != nil {
		return Image{}, err
	}
	defer nameLock.release()
	if err := s.verifyDisk(ctx, disk); err != nil {
		return Image{}, err
	}
	if err := s.vacant(ctx, name); err != nil {
		return Image{}, err
	}
	t := &transition{store: s, name: name, dir: s.imageDir(name), disk: disk}
	if err := t.run(switchOverlay); err != nil {
		return t.give(err)
	}
	disk.Image = t.after
	return s.publish(name, disk)
}

// holdsDisk tells whether the disk of the node of an unfinished snapshot may
// stand on it. It does not if the process died before it said so in the disk's
// record, or if the disk is gone.
func (s *Files) holdsDisk(dir string, pending record) bool {
	if pending.Owner == nil {
		return false
	}
	var disk diskRecord
	err := readJSON(s.diskRecordPath(*pending.Owner), &disk)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	return disk.Image.Dir == dir
}

// publish has a snapshot be seen, on which the node's disk stands.
func (s *Files) publish(name string, disk diskRecord) (Image, error) {
	dir := s.imageDir(name)
	// Only now it is sure that nobody writes to it any more.
	file, err := traceOf(filepath.Join(dir, snapshotDisk))
	if err != nil {
		return Image{}, err
	}
	disk.Image.File = &file
	if err := writeJSON(s.diskRecordPath(disk.Owner), disk, 0o600); err != nil {
		return Image{}, err
	}
	s.did("known to the disk")
	if err := os.Rename(filepath.Join(dir, pendingFile), filepath.Join(dir, recordFile)); err != nil {
		return Image{}, err
	}
	if err := syncDir(dir); err != nil {
		return Image{}, err
	}
	return loadImage(dir)
}

// transition turns a node's disk into an image. Each step leaves a disk that
// can be read and records that protect what it stands on.
type transition struct {
	store *Files
	name  string
	dir   string     // of the image to be
	disk  diskRecord // as it was
	after parentRef  // the image to be
}

func (t *transition) run(switchOverlay func(string) error) error {
	path := t.store.diskPath(t.disk.Owner)
	size, err := diskSize(path, "qcow2")
	if err != nil {
		return err
	}
	base, r := filepath.Join(t.dir, snapshotDisk), t.record(size)
	t.after = parentRef{Name: t.name, Dir: t.dir, Digest: r.Digest}
	after := t.disk
	after.Image = t.after
	fresh := path
	if switchOverlay != nil {
		// A hypervisor that runs may open the file at path anew.
		fresh += propolis.OverlayWaiting
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"folder", func() error { return os.Mkdir(t.dir, 0o700) }},
		{"record", func() error { return writeJSON(filepath.Join(t.dir, pendingFile), r, 0o600) }},
		{"disk's record", func() error { return writeJSON(t.store.diskRecordPath(t.disk.Owner), after, 0o600) }},
		{"link", func() error { return errors.Join(os.Link(path, base), syncDir(t.dir)) }},
		{"overlay", func() error {
			return replaceFile(fresh, 0o600, func(f *os.File) error { return writeOverlay(f, size, base, "qcow2") })
		}},
		{"switch", func() error {
			if fresh == path {
				return nil
			}
			err := switchOverlay(path)
			if err == nil && exists(fresh) {
				err = fmt.Errorf("the hypervisor has left the overlay at %s", fresh)
			}
			return err
		}},
	} {
		if err := step.do(); err != nil {
			return err
		}
		t.store.did(step.name)
	}
	return nil
}

// give ends a run that failed. A hypervisor may have switched although nobody
// waited for its answer any more: the image is then there.
func (t *transition) give(err error) (Image, error) {
	if !exists(filepath.Join(t.dir, pendingFile)) {
		_ = os.Remove(t.dir)
		return Image{}, err
	}
	switched, serr := t.switched()
	switch {
	case serr != nil:
		return Image{}, errors.Join(err, serr)
	case switched:
		t.disk.Image = t.after
		return t.store.publish(t.name, t.disk)
	}
	return Image{}, errors.Join(err, t.undo())
}

const snapshotDisk = "disk.qcow2"

func (t *transition) record(size int64) record {
	var parent record
	_ = readJSON(filepath.Join(t.disk.Image.Dir, recordFile), &parent) // for what it says of the guest
	seed := make([]byte, 16)
	_, _ = rand.Read(seed) // never fails, by its documentation
	id := sha256.Sum256(append([]byte(parent.Digest), seed...))
	owner, from := t.disk.Owner, t.disk.Image
	return record{
		Version: recordVersion, Name: t.name, Created: time.Now().UTC().Truncate(time.Second),
		Digest: "sha256:" + hex.EncodeToString(id[:]), DigestOf: "snapshot",
		Disk: snapshotDisk, Format: "qcow2", VirtualSize: size,
		Parent: &from, Console: parent.Console, OS: parent.OS, Agent: parent.Agent, Owner: &owner,
	}
}

// undo puts everything back as it was before run: the disk's path names the file
// that it named then.
func (t *transition) undo() error {
	if err := removeIfThere(t.store.diskPath(t.disk.Owner) + propolis.OverlayWaiting); err != nil {
		return fmt.Errorf("removing the fresh overlay: %w", err)
	}
	if err := writeJSON(t.store.diskRecordPath(t.disk.Owner), t.disk, 0o600); err != nil {
		return fmt.Errorf("putting the disk's record back: %w", err)
	}
	t.store.did("disk's record back")
	return os.RemoveAll(t.dir)
}
