package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
)

// DiskOwner says whose disk it is. ID and Node make the disk's path; Topology
// and Folder are for people.
type DiskOwner struct {
	ID       string `json:"id"`       // of the topology, unique on the host
	Topology string `json:"topology"` // its name
	Folder   string `json:"folder"`   // its state folder
	Node     string `json:"node"`
}

func (o DiskOwner) String() string {
	return fmt.Sprintf("node %q of topology %q (%s)", o.Node, o.Topology, o.Folder)
}

var ownerRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

func (o DiskOwner) valid() error {
	for _, part := range []string{o.ID, o.Node} {
		if !ownerRE.MatchString(part) {
			return fmt.Errorf("%q cannot be part of a disk's path", part)
		}
	}
	return nil
}

// Disk is a node's disk.
type Disk struct {
	Owner DiskOwner `json:"owner"`
	// Image is the name of the image that the disk stands on, ImageDir its Dir.
	Image    string `json:"image"`
	ImageDir string `json:"image_dir"`
	// Path is the disk: a qcow2 file, or with ZFS the device of a volume, or a
	// raw file.
	Path string `json:"path"`
	// Size is what the guest sees, in bytes; Used what the disk takes on the host.
	Size int64 `json:"size"`
	Used int64 `json:"used"`
}

// Backing is the kind of storage under a disk.
type Backing string

// The kinds of storage; empty is the store's own choice.
const (
	BackingFile Backing = "file"
	BackingZvol Backing = "zvol"
)

// DiskOptions describe a disk that is to be made.
type DiskOptions struct {
	// Size in bytes; 0 is the image's. It may be larger, not smaller.
	Size int64
	// Backing is what is under the disk.
	Backing Backing
	// Reservation is what a zvol is sure to find room for, in bytes.
	Reservation int64
	// Progress is told of copying.
	Progress Progress
}

// ErrDiskExists says that a node has a disk already.
var ErrDiskExists = errors.New("disk exists already")

// diskRecord is the file beside a disk.
type diskRecord struct {
	Version int       `json:"version"`
	Owner   DiskOwner `json:"owner"`
	Image   parentRef `json:"image"`
}

func (s *Files) diskPath(o DiskOwner) string {
	return filepath.Join(s.home, "topo", o.ID, o.Node+".qcow2")
}

func (s *Files) diskRecordPath(o DiskOwner) string {
	return filepath.Join(s.home, "topo", o.ID, o.Node+".json")
}

func (s *Files) lockDisk(ctx context.Context, o DiskOwner) (*lock, error) {
	if err := o.valid(); err != nil {
		return nil, err
	}
	if err := s.prepare(); err != nil {
		return nil, err
	}
	return acquire(ctx, s.diskLock(o), true)
}

func (s *Files) diskLock(o DiskOwner) string {
	return filepath.Join(s.home, "lock", "disk."+o.ID+"."+o.Node)
}

// CreateDisk makes a disk for a node: an empty overlay on an image, so nothing
// is copied.
// The error is ErrDiskExists if the node has a disk, and matches syscall.ENOSPC
// if the file system is full; then nothing half-made stays.
func (s *Files) CreateDisk(ctx context.Context, owner DiskOwner, image string, o DiskOptions) error {
	l, err := s.lockDisk(ctx, owner)
	if err != nil {
		return fmt.Errorf("making the disk of %s: %w", owner, err)
	}
	defer l.release()
	if err := s.createDisk(ctx, owner, image, o); err != nil {
		_ = os.Remove(filepath.Dir(s.diskPath(owner))) // if empty
		return fmt.Errorf("making the disk of %s: %w", owner, explainSpace(err, s.home))
	}
	return nil
}

func (s *Files) createDisk(ctx context.Context, owner DiskOwner, image string, o DiskOptions) error {
	if o.Backing == BackingZvol {
		return errors.New("it is to be a ZFS volume, and images are files here: see FALCON_DATASET")
	}
	path := s.diskPath(owner)
	if exists(path) {
		return fmt.Errorf("%w: %s", ErrDiskExists, path)
	}
	img, unlock, err := s.hold(ctx, image)
	if err != nil {
		return err
	}
	defer unlock()
	size, err := overlaySize(img, o.Size)
	if err != nil {
		return err
	}
	base, err := referTo(img)
	if err != nil {
		return err
	}
	disclaimable, err := s.claim(ctx, img)
	if err != nil {
		return err
	}
	defer disclaimable()
	// The record comes first: a disk without one would not protect its image.
	r := diskRecord{Version: recordVersion, Owner: owner, Image: base}
	err = InFolder(filepath.Dir(path), func() error { return writeJSON(s.diskRecordPath(owner), r, 0o600) })
	if err != nil {
		return err
	}
	err = replaceFile(path, 0o600, func(f *os.File) error {
		return writeOverlay(f, size, img.Disk, img.Format)
	})
	if err == nil {
		// Images of other homes may have gone since; see removeUnused.
		if err = s.verifyDisk(ctx, r); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}
	if err != nil {
		return errors.Join(err, os.Remove(s.diskRecordPath(owner)))
	}
	return nil
}

// InFolder writes the first file of a disk in the folder of its topology, which
// it makes. Whoever removes the last disk from there takes the folder away, and
// may do so at any moment until the file is there.
func InFolder(dir string, write func() error) (err error) {
	for range 10 {
		if err = os.MkdirAll(dir, 0o700); err == nil {
			err = write()
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return err
}

// overlaySize is the size of a disk on an image, of which size bytes were asked.
func overlaySize(img Image, size int64) (int64, error) {
	base := (img.VirtualSize + sectorSize - 1) / sectorSize * sectorSize
	switch {
	case size == 0:
		return base, nil
	case size < base:
		return 0, fmt.Errorf("a disk of %d bytes is smaller than image %q, which has %d", size, img.Name, base)
	case size%sectorSize != 0:
		return 0, fmt.Errorf("disk size %d is not a multiple of %d", size, sectorSize)
	}
	return size, nil
}

// hold returns an image and keeps it from being removed until unlock.
func (s *Files) hold(ctx context.Context, name string) (img Image, unlock func(), err error) {
	if err := validOrTemplate(name); err != nil {
		return img, nil, err
	}
	if img, err = s.get(ctx, name); err != nil {
		return img, nil, err
	}
	if img.ReadOnly { // no locks of ours in a store that we cannot write
		return img, func() {}, nil
	}
	l, err := acquire(ctx, s.imageLock(name), false)
	if err != nil {
		return img, nil, err
	}
	if img, err = s.get(ctx, name); err != nil { // it may have gone meanwhile
		l.release()
		return img, nil, err
	}
	return img, l.release, nil
}

func explainSpace(err error, home string) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("no space left under %s: free some, or set FALCON_HOME: %w", home, err)
	}
	return err
}

// RemoveDisk deletes a node's disk, and what calls that were killed have left of
// it. That it is gone already is no error.
func (s *Files) RemoveDisk(ctx context.Context, owner DiskOwner) error {
	if err := owner.valid(); err != nil {
		return err
	}
	path, recordPath := s.diskPath(owner), s.diskRecordPath(owner)
	if !exists(filepath.Dir(path)) {
		return nil
	}
	l, err := s.lockDisk(ctx, owner)
	if err != nil {
		return fmt.Errorf("removing the disk of %s: %w", owner, err)
	}
	defer l.release()
	var r diskRecord
	if err := readJSON(recordPath, &r); err != nil {
		r = diskRecord{} // gone or damaged: all that it could tell is what to tidy
	}
	err = errors.Join(removeIfThere(path), s.dropPending(r), removeIfThere(recordPath), removeHalfMade(path), removeHalfMade(recordPath))
	if err != nil {
		return fmt.Errorf("removing the disk of %s: %w", owner, err)
	}
	if os.Remove(filepath.Dir(path)) == nil { // it was empty
		return s.disclaim(ctx)
	}
	return nil
}

// dropPending removes the unfinished snapshot that a removed disk stood on.
func (s *Files) dropPending(r diskRecord) error {
	dir := r.Image.Dir
	if filepath.Dir(dir) != filepath.Join(s.home, "img") || exists(filepath.Join(dir, recordFile)) || !exists(filepath.Join(dir, pendingFile)) {
		return nil
	}
	return os.RemoveAll(dir)
}

// Disks lists all disks of the store. A damaged record does not hide the others.
func (s *Files) Disks(ctx context.Context) ([]Disk, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return readDisks(filepath.Join(globEscape(s.home), "topo", "*", "*.json"), s.diskPath, "qcow2")
}

// readDisks reads the records of disks that are files of a format.
func readDisks(pattern string, diskPath func(DiskOwner) string, format string) ([]Disk, error) {
	paths, err := filepath.Glob(pattern)
	if err != nil {
		return nil, err
	}
	var disks []Disk
	var errs []error
	for _, path := range paths {
		var r diskRecord
		err := readJSON(path, &r)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		d := Disk{Owner: r.Owner, Image: r.Image.known(), ImageDir: r.Image.Dir, Path: diskPath(r.Owner)}
		if info, err := os.Stat(d.Path); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				d.Used = st.Blocks * 512
			}
			d.Size, _ = diskSize(d.Path, format)
		}
		disks = append(disks, d)
	}
	return disks, errors.Join(errs...)
}

// DiskPath is where the disk of a node is, whether it exists or not.
func (s *Files) DiskPath(o DiskOwner, _ Backing) string { return s.diskPath(o) }

// HasDisk tells whether the disk of a node is there.
func (s *Files) HasDisk(_ context.Context, o DiskOwner, _ Backing) bool { return exists(s.diskPath(o)) }
