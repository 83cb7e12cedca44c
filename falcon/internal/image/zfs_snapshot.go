package image

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Snapshot makes a node's disk the image name, in constant time. The disk then
// is a clone of the image, with nothing written to it; a node that runs does not
// notice. What a call that was killed has left goes with the disk, with the next
// snapshot of it, or when the name is taken anew.
func (s *ZFS) Snapshot(ctx context.Context, owner DiskOwner, name string, _ func(string) error) (Image, error) {
	img, err := s.snapshot(ctx, owner, name)
	if err != nil {
		return Image{}, fmt.Errorf("snapshot of %s to image %q of %s: %w", owner, name, s.dataset, err)
	}
	return img, nil
}

func (s *ZFS) snapshot(ctx context.Context, owner DiskOwner, name string) (Image, error) {
	if err := errors.Join(ValidName(name), s.validOwner(owner)); err != nil {
		return Image{}, err
	}
	diskLock, err := s.lockDisk(ctx, owner)
	if err != nil {
		return Image{}, err
	}
	defer diskLock.release()
	if err := s.settle(ctx, owner); err != nil {
		return Image{}, err
	}
	nameLock, err := s.lock(ctx, "img."+name, true)
	if err != nil {
		return Image{}, err
	}
	defer nameLock.release()
	if err := s.vacant(ctx, name); err != nil {
		return Image{}, err
	}
	disk, err := s.get(ctx, s.diskName(owner))
	if err != nil {
		return Image{}, err
	}
	if disk == nil && exists(s.filePath(owner)) {
		return Image{}, errors.New("its disk is a file, and only a volume becomes an image")
	}
	if !s.HasDisk(ctx, owner, BackingZvol) {
		return Image{}, errors.New("the node has no disk in this store")
	}
	r, err := s.snapshotRecord(ctx, disk, name)
	if err != nil {
		return Image{}, err
	}
	r.Owner = &owner
	if err := s.turnIntoImage(ctx, disk, r); err != nil {
		undo, cancel := undoContext(ctx)
		defer cancel()
		return Image{}, errors.Join(err, s.undoSnapshot(undo, disk.name, name))
	}
	return s.Get(ctx, name)
}

// settle undoes what snapshots of a node's volume have left that were killed. The
// disk is locked by the caller.
func (s *ZFS) settle(ctx context.Context, owner DiskOwner) error {
	disk, err := s.get(ctx, s.diskName(owner))
	if err != nil || disk == nil {
		return err
	}
	var names []string
	if origin := disk.originVolume(); filepath.Dir(origin) == s.dataset+"/img" {
		names = append(names, filepath.Base(origin))
	}
	for _, snapshot := range disk.snapshots {
		if name, ok := strings.CutPrefix(snapshot, snapshotBegin); ok {
			names = append(names, name)
		}
	}
	for _, name := range names {
		err := unheld(s.imageLock(name), func() error { return s.settleImage(ctx, owner, disk, name) })
		if err != nil {
			return err
		}
	}
	return nil
}

// settleImage is settle for the image that the volume was to become.
func (s *ZFS) settleImage(ctx context.Context, owner DiskOwner, disk *dataset, name string) error {
	d, err := s.get(ctx, s.imageName(name))
	if err != nil {
		return err
	}
	if d != nil && d.halfMade() {
		if by := d.snapshotOwner(); by == nil || !by.is(owner) {
			return nil
		}
		return s.abandon(ctx, d)
	}
	if !slices.Contains(disk.snapshots, snapshotBegin+name) {
		return nil
	}
	return destroyDataset(disk.name+"@"+snapshotBegin+name, false)
}

// snapshotRecord says of the image what its parent says of the guest.
func (s *ZFS) snapshotRecord(ctx context.Context, disk *dataset, name string) (record, error) {
	parent, err := s.get(ctx, disk.originVolume())
	if err != nil {
		return record{}, err
	}
	if parent == nil || filepath.Dir(parent.name) != s.dataset+"/img" {
		return record{}, fmt.Errorf("%s stands on %q, which is no image", disk.name, disk.origin)
	}
	img, err := s.imageOf(parent)
	if err != nil {
		return record{}, err
	}
	seed := make([]byte, 16)
	_, _ = rand.Read(seed) // never fails, by its documentation
	id := sha256.Sum256(append([]byte(img.Digest), seed...))
	return record{
		Version: recordVersion, Name: name, Created: time.Now().UTC().Truncate(time.Second),
		Digest: "sha256:" + hex.EncodeToString(id[:]), DigestOf: "snapshot",
		Format: "raw", VirtualSize: disk.size, Parent: &parentRef{Name: img.Name, Dir: img.Dir, Digest: img.Digest},
		Boot: img.Boot, Console: img.Console, OS: img.OS, Agent: img.Agent,
	}, nil
}

// turnIntoImage makes an image of a disk. It is seen from the last step on.
func (s *ZFS) turnIntoImage(ctx context.Context, disk *dataset, r record) error {
	p, err := property(userImage, r)
	if err != nil {
		return err
	}
	if err := s.flush(disk.name); err != nil {
		return err
	}
	origin := snapshotBegin + r.Name
	if err := takeSnapshot(ctx, disk.name, origin); err != nil {
		return err
	}
	volume := s.imageName(r.Name)
	if err := cloneSnapshot(ctx, disk.name+"@"+origin, volume, p); err != nil {
		return err
	}
	if err := promote(ctx, volume); err != nil {
		return err
	}
	return takeSnapshot(ctx, volume, snapshotBase)
}

// flush has the system write to ZFS what it holds back of a hypervisor's writes.
func (s *ZFS) flush(volume string) error {
	f, err := os.OpenFile(s.device(volume), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// undoSnapshot puts everything back as it was before turnIntoImage, of which any
// step may have been the last.
func (s *ZFS) undoSnapshot(ctx context.Context, disk, name string) error {
	if err := s.destroy(ctx, s.imageName(name)); err != nil {
		return err
	}
	d, err := s.get(ctx, disk)
	if err != nil || d == nil || d.disk == "" || !slices.Contains(d.snapshots, snapshotBegin+name) {
		return err
	}
	return destroyDataset(disk+"@"+snapshotBegin+name, false)
}

// abandon removes what was half-made of an image.
func (s *ZFS) abandon(ctx context.Context, d *dataset) error {
	owner := d.snapshotOwner()
	if owner == nil {
		return s.destroy(ctx, d.name)
	}
	return s.undoSnapshot(ctx, s.diskName(*owner), d.base())
}

// snapshotOwner is whose disk was to become an unfinished image; nil if it was
// nobody's.
func (d *dataset) snapshotOwner() *DiskOwner {
	var r record
	if json.Unmarshal([]byte(d.image), &r) != nil {
		return nil
	}
	return r.Owner
}
