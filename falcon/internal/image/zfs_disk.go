package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/falcon-vm/falcon-go/internal/printable"
)

// validOwner also looks at the topology's name, which is part of a volume's.
func (s *ZFS) validOwner(o DiskOwner) error {
	if err := o.valid(); err != nil {
		return err
	}
	if !ownerRE.MatchString(o.Topology) {
		return fmt.Errorf("%q cannot be part of a volume's name", o.Topology)
	}
	return nil
}

func (s *ZFS) topologyName(topology string) string { return s.dataset + "/topo/" + topology }

func (s *ZFS) diskName(o DiskOwner) string { return s.topologyName(o.Topology) + "/" + o.Node }

// filePath is the disk of a node that is a file.
func (s *ZFS) filePath(o DiskOwner) string {
	return filepath.Join(s.files.home, "zfs", s.fileName(), o.ID, o.Node+".raw")
}

func (s *ZFS) fileRecordPath(o DiskOwner) string {
	return strings.TrimSuffix(s.filePath(o), ".raw") + ".json"
}

// DiskPath is where the disk of a node is, whether it exists or not.
func (s *ZFS) DiskPath(o DiskOwner, b Backing) string {
	if b == BackingFile {
		return s.filePath(o)
	}
	return s.device(s.diskName(o))
}

// HasDisk tells whether the disk of a node is there.
func (s *ZFS) HasDisk(ctx context.Context, o DiskOwner, b Backing) bool {
	if b == BackingFile {
		return exists(s.filePath(o))
	}
	d, err := s.get(ctx, s.diskName(o))
	if err != nil || d == nil {
		return false
	}
	disk, ok := ownerOf(d.disk)
	return ok && disk.is(o) && !disk.Draft
}

// is tells whether two are the same node. What they are called for people does
// not count.
func (o DiskOwner) is(other DiskOwner) bool { return o.ID == other.ID && o.Node == other.Node }

func (s *ZFS) lockDisk(ctx context.Context, o DiskOwner) (*lock, error) {
	return s.lock(ctx, "disk."+o.ID+"."+o.Node, true)
}

// VerifyDisk has nothing to find: ZFS destroys no volume of which there is a
// clone, and a disk that is a file is a copy.
func (s *ZFS) VerifyDisk(context.Context, DiskOwner) error { return nil }

// VerifyImage has nothing to find, as VerifyDisk has not.
func (s *ZFS) VerifyImage(context.Context, Image) error { return nil }

// CreateDisk makes a disk for a node: a clone of an image, or a copy of it in a
// file. The error is ErrDiskExists if the node has a disk.
func (s *ZFS) CreateDisk(ctx context.Context, owner DiskOwner, image string, o DiskOptions) error {
	if err := s.createDisk(ctx, owner, image, o); err != nil {
		return fmt.Errorf("making the disk of %s on %s: %w", owner, s.dataset, err)
	}
	return nil
}

func (s *ZFS) createDisk(ctx context.Context, owner DiskOwner, image string, o DiskOptions) error {
	if err := s.validOwner(owner); err != nil {
		return err
	}
	l, err := s.lockDisk(ctx, owner)
	if err != nil {
		return err
	}
	defer l.release()
	if s.HasDisk(ctx, owner, o.Backing) {
		return fmt.Errorf("%w: %s", ErrDiskExists, s.DiskPath(owner, o.Backing))
	}
	if o.Backing == BackingFile {
		return s.createFile(ctx, owner, image, o)
	}
	d, img, unlock, err := s.hold(ctx, image)
	if err != nil {
		return err
	}
	defer unlock()
	size, err := overlaySize(img, o.Size)
	if err != nil {
		return err
	}
	err = s.cloneDisk(ctx, owner, d, roundUp(max(size, d.size), d.blockSize), o.Reservation)
	if err != nil {
		undo, cancel := undoContext(ctx)
		defer cancel()
		err = errors.Join(err, s.destroyDisk(undo, owner), s.removeTopology(undo, owner))
	}
	return err
}

// cloneDisk makes the clone. It is marked as a draft until it has its size and
// its reservation: ZFS leaves a clone behind whose properties it refuses.
func (s *ZFS) cloneDisk(ctx context.Context, owner DiskOwner, img *dataset, size, reservation int64) error {
	// What a call that was killed has left is not ErrDiskExists' disk.
	if err := s.destroyDisk(ctx, owner); err != nil {
		return err
	}
	l, err := s.holdTopology(ctx, owner)
	if err != nil {
		return err
	}
	defer l.release()
	var props []string
	if size != img.size {
		props = append(props, "volsize="+strconv.FormatInt(size, 10))
	}
	if reservation > 0 {
		props = append(props, "reservation="+strconv.FormatInt(reservation, 10))
	}
	first, err := property(userDisk, zvolDisk{DiskOwner: owner, Draft: len(props) > 0})
	if err != nil {
		return err
	}
	final, err := property(userDisk, zvolDisk{DiskOwner: owner})
	if err != nil {
		return err
	}
	name := s.diskName(owner)
	if err := cloneSnapshot(ctx, img.name+"@"+snapshotBase, name, "sync=disabled", first); err != nil {
		return err
	}
	if len(props) > 0 {
		if err := setProperties(ctx, name, append(props, final)...); err != nil {
			return err
		}
	}
	_, err = s.await(ctx, name)
	return err
}

// destroyDisk destroys the volume of a node, if it is that node's.
func (s *ZFS) destroyDisk(ctx context.Context, owner DiskOwner) error {
	d, err := s.get(ctx, s.diskName(owner))
	if d == nil || err != nil {
		return err
	}
	if disk, ok := ownerOf(d.disk); !ok || !disk.is(owner) {
		return nil
	}
	return s.destroy(ctx, d.name)
}

// conflict says whether the name of a topology belongs to another lab.
func (s *ZFS) conflict(ctx context.Context, owner DiskOwner) error {
	if !ownerRE.MatchString(owner.Topology) {
		return fmt.Errorf("%q cannot be part of a volume's name", owner.Topology)
	}
	t, err := readTree(ctx, s.topologyName(owner.Topology), true)
	if err != nil {
		return err
	}
	_, err = s.holds(t, owner)
	return err
}

// holds tells whether a topology's file system is there for an owner's disks. If
// it is another's the error says whose. One with no disk in it is nobody's.
func (s *ZFS) holds(t tree, owner DiskOwner) (bool, error) {
	name := s.topologyName(owner.Topology)
	d := t[name]
	if d == nil {
		return false, nil
	}
	other, _ := ownerOf(d.topology)
	switch {
	case other.ID == owner.ID:
		return true, nil
	case d.topology == "":
		return false, fmt.Errorf("%s was not made by this program: call the topology something else, or remove it with: zfs destroy -r %s", name, name)
	case len(t) == 1:
		return false, nil
	}
	return false, fmt.Errorf("topology %s of %s has its disks in %s: destroy it with: falcon destroy %s, or call this one something else",
		owner.Topology, other.Folder, name, printable.Word(other.Folder))
}

// holdTopology makes the file system of a topology's disks, where it is not
// there, and keeps it from going until the lock is released.
func (s *ZFS) holdTopology(ctx context.Context, owner DiskOwner) (*lock, error) {
	name := s.topologyName(owner.Topology)
	for {
		l, err := s.lock(ctx, "topo."+owner.Topology, false)
		if err != nil {
			return nil, err
		}
		t, err := readTree(ctx, name, true)
		if err == nil {
			var there bool
			if there, err = s.holds(t, owner); there {
				return l, nil
			}
		}
		l.release()
		if err == nil {
			err = s.makeTopology(ctx, owner)
		}
		if err != nil {
			return nil, err
		}
	}
}

// makeTopology makes the file system of a topology's disks. One of another lab
// that has no disks any more is replaced.
func (s *ZFS) makeTopology(ctx context.Context, owner DiskOwner) error {
	l, err := s.lock(ctx, "topo."+owner.Topology, true)
	if err != nil {
		return err
	}
	defer l.release()
	name := s.topologyName(owner.Topology)
	t, err := readTree(ctx, name, true)
	if err != nil {
		return err
	}
	if there, err := s.holds(t, owner); there || err != nil {
		return err
	}
	if len(t) > 0 {
		if err := s.destroy(ctx, name); err != nil {
			return err
		}
	}
	owner.Node = ""
	p, err := property(userTopology, owner)
	if err != nil {
		return err
	}
	return s.makeFilesystem(ctx, name, p)
}

// removeTopology removes the file system of a topology's disks when none is left.
func (s *ZFS) removeTopology(ctx context.Context, owner DiskOwner) error {
	l, err := s.lock(ctx, "topo."+owner.Topology, true)
	if err != nil {
		return err
	}
	defer l.release()
	t, err := readTree(ctx, s.topologyName(owner.Topology), true)
	if err != nil || len(t) != 1 {
		return err
	}
	for name, d := range t {
		if o, ok := ownerOf(d.topology); ok && o.ID == owner.ID {
			return s.destroy(ctx, name)
		}
	}
	return nil
}

// createFile makes a disk that is a file.
func (s *ZFS) createFile(ctx context.Context, owner DiskOwner, image string, o DiskOptions) (err error) {
	path := s.filePath(owner)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.removeFile(owner))
		}
	}()
	img, err := s.Get(ctx, image)
	if err != nil {
		return err
	}
	size, err := overlaySize(img, o.Size)
	if err != nil {
		return err
	}
	// The record comes first: a disk without one would not protect its image.
	r := diskRecord{Version: recordVersion, Owner: owner, Image: parentRef{Name: img.Name, Dir: img.Dir, Digest: img.Digest}}
	if err := writeJSON(s.fileRecordPath(owner), r, 0o600); err != nil {
		return err
	}
	err = s.read(ctx, image, func(device string, from int64) error {
		return replaceFile(path, 0o600, func(f *os.File) error {
			if err := copyDevice(ctx, f, device, from, "copying the disk", o.Progress); err != nil {
				return err
			}
			return f.Truncate(size)
		})
	})
	return explainSpace(err, s.files.home)
}

// removeFile removes the disk of a node that is a file, and what calls that were
// killed have left of it.
func (s *ZFS) removeFile(owner DiskOwner) error {
	path, recordPath := s.filePath(owner), s.fileRecordPath(owner)
	if !exists(filepath.Dir(path)) {
		return nil
	}
	err := errors.Join(removeIfThere(path), removeHalfMade(path), removeIfThere(recordPath), removeHalfMade(recordPath))
	for dir := filepath.Dir(path); dir != s.files.home; dir = filepath.Dir(dir) {
		_ = os.Remove(dir) // if empty
	}
	return err
}

// diskFiles lists the disks that are files.
func (s *ZFS) diskFiles() ([]Disk, error) {
	pattern := filepath.Join(globEscape(filepath.Join(s.files.home, "zfs", s.fileName())), "*", "*.json")
	return readDisks(pattern, s.filePath, "raw")
}

// RemoveDisk deletes a node's disk, and what calls that were killed have left of
// it. That it is gone already is no error. An owner without a topology's name is
// looked for.
func (s *ZFS) RemoveDisk(ctx context.Context, owner DiskOwner) error {
	if err := s.removeDisk(ctx, owner); err != nil {
		return fmt.Errorf("removing the disk of %s from %s: %w", owner, s.dataset, err)
	}
	return nil
}

func (s *ZFS) removeDisk(ctx context.Context, owner DiskOwner) error {
	if err := owner.valid(); err != nil {
		return err
	}
	l, err := s.lockDisk(ctx, owner)
	if err != nil {
		return err
	}
	defer l.release()
	if err := s.removeFile(owner); err != nil {
		return err
	}
	if owner.Topology == "" {
		if owner, err = s.find(ctx, owner); owner.Topology == "" || err != nil {
			return err
		}
	}
	if err := s.validOwner(owner); err != nil {
		return err
	}
	d, err := s.get(ctx, s.diskName(owner))
	if err != nil {
		return err
	}
	if err := s.destroyDisk(ctx, owner); err != nil {
		return err
	}
	if d != nil {
		if err := s.dropUnfinished(ctx, owner, d.originVolume()); err != nil {
			return err
		}
	}
	return s.removeTopology(ctx, owner)
}

// find completes an owner by what a disk says.
func (s *ZFS) find(ctx context.Context, owner DiskOwner) (DiskOwner, error) {
	t, err := readTree(ctx, s.dataset, true)
	for _, d := range t {
		if disk, ok := ownerOf(d.disk); ok && disk.is(owner) {
			return disk.DiskOwner, nil
		}
	}
	return owner, err
}

// dropUnfinished destroys the image that a removed disk stood on if that is an
// unfinished snapshot of it.
func (s *ZFS) dropUnfinished(ctx context.Context, owner DiskOwner, volume string) error {
	if filepath.Dir(volume) != s.dataset+"/img" {
		return nil
	}
	l, busy, err := tryLock(s.imageLock(filepath.Base(volume)))
	if busy || err != nil {
		return err // who takes the name anew clears it away
	}
	defer l.release()
	d, err := s.get(ctx, volume)
	if err != nil || d == nil || !d.halfMade() {
		return err
	}
	if by := d.snapshotOwner(); by == nil || !by.is(owner) {
		return nil
	}
	return s.destroy(ctx, volume)
}

// Disks lists all disks of the store.
func (s *ZFS) Disks(ctx context.Context) ([]Disk, error) {
	t, err := readTree(ctx, s.dataset, true)
	if err != nil {
		return nil, err
	}
	var disks []Disk
	for _, d := range t.sorted() {
		owner, ok := ownerOf(d.disk)
		if !ok {
			continue
		}
		disk := Disk{Owner: owner.DiskOwner, Path: s.device(d.name), Size: d.size, Used: d.used}
		if origin := d.originVolume(); origin != "" {
			disk.Image, disk.ImageDir = filepath.Base(origin), origin
		}
		disks = append(disks, disk)
	}
	files, err := s.diskFiles()
	return append(disks, files...), err
}
