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
// there but unseen, goes with the disk, and is finished by a further Snapshot of
// the stopped node under the same name.
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
	if err := s.tidy(ctx); err != nil {
		return Image{}, err
	}
	diskLock, err := s.lockDisk(ctx, owner)
	if err != nil {
		return Image{}, err
	}
	defer diskLock.release()
	var disk diskRecord
	if err := readJSON(s.diskRecordPath(owner), &disk); err != nil {
		return Image{}, fmt.Errorf("the node has no disk in this store: %w", err)
	}
	nameLock, err := acquire(ctx, s.imageLock(name), true)
	if err != nil {
		return Image{}, err
	}
	defer nameLock.release()
	if err := s.verifyDisk(ctx, disk); err != nil {
		return Image{}, err
	}
	if switchOverlay == nil && s.interrupted(name, owner, disk) {
		return s.publish(name, disk)
	}
	if err := s.vacant(ctx, name); err != nil {
		return Image{}, err
	}
	if exists(filepath.Join(disk.Image.Dir, pendingFile)) {
		return Image{}, fmt.Errorf("an earlier snapshot was interrupted: stop the node and take the snapshot %q again", disk.Image.Name)
	}
	t := &transition{store: s, name: name, dir: s.imageDir(name), disk: disk}
	if err := t.run(switchOverlay); err != nil {
		return Image{}, errors.Join(err, t.undo())
	}
	disk.Image = t.after
	return s.publish(name, disk)
}

// interrupted tells whether name is this node's own unfinished snapshot, and
// the node's disk stands on it already.
func (s *Files) interrupted(name string, owner DiskOwner, disk diskRecord) bool {
	var r record
	dir := s.imageDir(name)
	if exists(filepath.Join(dir, recordFile)) || readJSON(filepath.Join(dir, pendingFile), &r) != nil {
		return false
	}
	if r.Owner == nil || *r.Owner != owner || disk.Image.Dir != dir {
		return false
	}
	base, err := os.Stat(filepath.Join(dir, r.Disk))
	if err != nil {
		return false
	}
	top, err := os.Stat(s.diskPath(owner))
	return err == nil && !os.SameFile(base, top)
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
	moved bool       // the node's path may name the fresh overlay
}

func (t *transition) run(switchOverlay func(string) error) error {
	path := t.store.diskPath(t.disk.Owner)
	size, err := diskSize(path, "qcow2")
	if err != nil {
		return err
	}
	if err := os.Mkdir(t.dir, 0o700); err != nil {
		return err
	}
	r := t.record(size)
	if err := writeJSON(filepath.Join(t.dir, pendingFile), r, 0o600); err != nil {
		return err
	}
	t.after = parentRef{Name: t.name, Dir: t.dir, Digest: r.Digest}
	after := t.disk
	after.Image = t.after
	if err := writeJSON(t.store.diskRecordPath(t.disk.Owner), after, 0o600); err != nil {
		return err
	}
	base := filepath.Join(t.dir, snapshotDisk)
	if err := os.Link(path, base); err != nil {
		return err
	}
	if err := syncDir(t.dir); err != nil {
		return err
	}
	fresh := path
	if switchOverlay != nil {
		// A hypervisor that runs may open the file at path anew.
		fresh += propolis.OverlayWaiting
	}
	t.moved = true
	err = replaceFile(fresh, 0o600, func(f *os.File) error { return writeOverlay(f, size, base, "qcow2") })
	if err != nil || switchOverlay == nil {
		return err
	}
	if err := switchOverlay(path); err != nil {
		return err
	}
	if exists(fresh) {
		return fmt.Errorf("the hypervisor has left the overlay at %s", fresh)
	}
	return nil
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

// undo puts everything back as it was before run.
func (t *transition) undo() error {
	if !exists(filepath.Join(t.dir, pendingFile)) {
		_ = os.Remove(t.dir)
		return nil
	}
	if base := filepath.Join(t.dir, snapshotDisk); t.moved && exists(base) {
		if err := os.Rename(base, t.store.diskPath(t.disk.Owner)); err != nil {
			return fmt.Errorf("putting the disk back: %w", err)
		}
	}
	if err := removeIfThere(t.store.diskPath(t.disk.Owner) + propolis.OverlayWaiting); err != nil {
		return fmt.Errorf("removing the fresh overlay: %w", err)
	}
	if err := writeJSON(t.store.diskRecordPath(t.disk.Owner), t.disk, 0o600); err != nil {
		return fmt.Errorf("putting the disk's record back: %w", err)
	}
	return os.RemoveAll(t.dir)
}
