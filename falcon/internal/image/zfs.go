package image

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/mistifyio/go-zfs/v3"
)

// DefaultDataset is where images and disks are if nobody says otherwise and its
// pool exists.
const DefaultDataset = "rpool/falcon"

// datasetEnv names the environment's choice of a dataset.
const datasetEnv = "FALCON_DATASET"

// ZFS is a store of ZFS volumes. Of an image, what is not in a disk is in a
// property of its volume; a kernel and an initrd are files below the home. Who
// shares a dataset must share the home too, where the locks are.
type ZFS struct {
	files   *Files // for the home, locks and work folders
	dataset string
	why     string
	// deviceDir is where the system keeps the devices of volumes, and ready
	// says why that of a dataset cannot be used yet.
	deviceDir string
	ready     func(device, dataset string) error
}

var datasetRE = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.:-]*(/[A-Za-z0-9][A-Za-z0-9_.:-]*)*$`)

// maxDataset leaves room in ZFS' 255 bytes, and in a lock's file name, for what
// is put behind a dataset's name.
const maxDataset = 100

func validDataset(name string) error {
	if len(name) > maxDataset || !datasetRE.MatchString(name) {
		return fmt.Errorf("%q is not the name of a ZFS dataset, such as %s, of at most %d bytes", name, DefaultDataset, maxDataset)
	}
	return nil
}

// Open returns the store of the options. It makes nothing: that is done by what
// first puts something there. Where ZFS is neither asked for nor installed, it
// starts no program either.
func Open(o Options) (Store, error) {
	files, err := OpenFiles(o)
	if err != nil {
		return nil, err
	}
	name := cmp.Or(o.Dataset, os.Getenv(datasetEnv))
	switch name {
	case NoDataset:
		files.reason = "no ZFS dataset is wanted"
		return files, nil
	case "":
		if files.reason = noDefaultDataset(); files.reason != "" {
			return files, nil
		}
		return newZFS(files, DefaultDataset, "its pool exists"), nil
	}
	why := "the topology is there"
	if o.Dataset == "" {
		why = datasetEnv + " says so"
	}
	s := newZFS(files, name, why)
	if err := s.usable(); err != nil {
		return nil, fmt.Errorf("images on ZFS dataset %q: %w; or set %s=%s to have them in files", name, err, datasetEnv, NoDataset)
	}
	return s, nil
}

func newZFS(files *Files, name, why string) *ZFS {
	return &ZFS{files: files, dataset: name, why: why, deviceDir: deviceDir, ready: deviceReady}
}

// noDefaultDataset says why the default dataset is not taken; empty if it is.
func noDefaultDataset() string {
	if _, err := exec.LookPath("zfs"); err != nil {
		return "ZFS is not installed"
	}
	if runtime.GOOS == "linux" && os.Geteuid() != 0 {
		return "volumes of ZFS need root"
	}
	pool, _, _ := strings.Cut(DefaultDataset, "/")
	if _, err := zfs.GetZpool(pool); err != nil {
		return fmt.Sprintf("%s names no dataset, and there is no pool %s", datasetEnv, pool)
	}
	return ""
}

// usable says what keeps a dataset that was named from being used.
func (s *ZFS) usable() error {
	if err := validDataset(s.dataset); err != nil {
		return err
	}
	for _, program := range []string{"zfs", "zpool"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w: install OpenZFS (Debian: zfsutils-linux and zfs-dkms, of contrib), and have its programs in PATH", err)
		}
	}
	pool, _, _ := strings.Cut(s.dataset, "/")
	if _, err := zfs.GetZpool(pool); err != nil {
		return fmt.Errorf("%s: make the pool (zpool create %s DISK) or import it (zpool import %s)", zfsWords(err), pool, pool)
	}
	return nil
}

// Conflict says whether disks of an owner's topology cannot be made because
// another lab has its name. Stores of files know labs by their folders.
func Conflict(ctx context.Context, s Store, owner DiskOwner) error {
	if s, ok := s.(*ZFS); ok {
		return s.conflict(ctx, owner)
	}
	return nil
}

// Home is the folder of kernels, of disks that are files, and of locks.
func (s *ZFS) Home() string { return s.files.home }

// Dataset is where the volumes are.
func (s *ZFS) Dataset() string { return s.dataset }

// Why says which dataset it is and why.
func (s *ZFS) Why() string { return fmt.Sprintf("ZFS volumes in %s, because %s", s.dataset, s.why) }

func (s *ZFS) imageName(name string) string { return s.dataset + "/img/" + name }

// lockPath is the lock of something in the dataset. A file name has no slash,
// and a dataset's name no percent sign.
func (s *ZFS) lockPath(what string) string {
	return filepath.Join(s.files.home, "lock", s.fileName()+"."+what)
}

func (s *ZFS) fileName() string { return strings.ReplaceAll(s.dataset, "/", "%") }

func (s *ZFS) imageLock(name string) string { return s.lockPath("img." + name) }

// List returns all images, sorted by name, those that others have made in the
// dataset as well.
func (s *ZFS) List(ctx context.Context) ([]Image, error) {
	t, err := readTree(ctx, s.dataset, true)
	if err != nil {
		return nil, err
	}
	var all []Image
	var errs []error
	for _, d := range t.sorted() {
		if filepath.Dir(d.name) != s.dataset+"/img" || !d.based() || d.halfMade() || ValidName(d.base()) != nil {
			continue
		}
		img, err := s.imageOf(d)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, img)
	}
	return all, errors.Join(errs...)
}

// Get returns one image. If there is none, the error is a *NotFoundError.
func (s *ZFS) Get(ctx context.Context, name string) (Image, error) {
	d, err := s.getImage(ctx, name)
	if err != nil {
		return Image{}, err
	}
	return s.imageOf(d)
}

func (s *ZFS) getImage(ctx context.Context, name string) (*dataset, error) {
	if err := ValidName(name); err != nil {
		return nil, err
	}
	d, err := s.get(ctx, s.imageName(name))
	if err != nil {
		return nil, err
	}
	if d == nil || !d.based() || d.halfMade() {
		return nil, &NotFoundError{Name: name}
	}
	return d, nil
}

// get returns one dataset, nil if there is none.
func (s *ZFS) get(ctx context.Context, name string) (*dataset, error) {
	t, err := readTree(ctx, name, false)
	return t[name], err
}

func (s *ZFS) imageOf(d *dataset) (Image, error) {
	img := Image{Name: d.base(), Size: d.used, VirtualSize: d.size, Dir: d.name, Disk: s.device(d.name), Format: "raw"}
	r, err := d.imageRecord()
	if err != nil {
		return Image{}, fmt.Errorf("image %q: %w", img.Name, err)
	}
	if r == nil {
		r = foreignRecord(d)
	}
	img.Digest, img.DigestOf, img.Created, img.OS, img.Agent = r.Digest, r.DigestOf, r.Created, r.OS, r.Agent
	img.Boot, img.Console = r.Boot, r.Console
	if r.VirtualSize != 0 {
		img.VirtualSize = r.VirtualSize
	}
	if r.Parent != nil {
		img.Parent, img.parentDir = r.Parent.Name, r.Parent.Dir
	}
	return img, nil
}

// foreignRecord says what can be said of an image that another program has made
// in the layout that we share with Falcon for illumos, whose guests are booted
// by UEFI.
func foreignRecord(d *dataset) *record {
	id := sha256.Sum256([]byte(d.name + d.guid))
	r := &record{Digest: "sha256:" + hex.EncodeToString(id[:]), DigestOf: "snapshot", Created: d.created, Boot: Boot{Method: BootUEFI}}
	if known, ok := FindKnown(d.base()); ok {
		r.OS, r.Console = known.OS, known.Console
	}
	return r
}

// UsedBy describes what stands on an image: other images, unfinished ones among
// them, disks, and clones that others have made.
func (s *ZFS) UsedBy(ctx context.Context, img Image) ([]string, error) {
	t, err := readTree(ctx, s.dataset, true)
	if err != nil {
		return nil, err
	}
	return s.usedBy(t, img.Name)
}

func (s *ZFS) usedBy(t tree, name string) ([]string, error) {
	volume := s.imageName(name)
	var by []string
	for _, d := range t.sorted() {
		clone := d.originVolume() == volume
		r, err := d.imageRecord()
		if err != nil {
			return nil, err
		}
		disk, isDisk := ownerOf(d.disk)
		switch {
		case d.image == imageReader:
		case r != nil && r.Parent != nil && r.Parent.Name == name:
			by = append(by, fmt.Sprintf("image %q", d.base()))
		case !clone || r != nil:
			// A clone whose record says otherwise was turned around.
		case isDisk:
			by = append(by, disk.String())
		case d.image != "":
			by = append(by, fmt.Sprintf("image %q, unfinished", d.base()))
		default:
			by = append(by, "dataset "+d.name)
		}
	}
	files, err := s.diskFiles()
	for _, d := range files {
		if d.Image == name {
			by = append(by, d.Owner.String())
		}
	}
	return by, err
}

// Remove deletes an image on which nothing stands. If something does, the error
// is an *InUseError.
func (s *ZFS) Remove(ctx context.Context, name string) error {
	if err := s.remove(ctx, name); err != nil {
		if used := (*InUseError)(nil); errors.As(err, &used) || errors.Is(err, ErrNotFound) {
			return err
		}
		return fmt.Errorf("removing image %q: %w", name, err)
	}
	return nil
}

func (s *ZFS) remove(ctx context.Context, name string) error {
	l, err := s.lock(ctx, "img."+name, true)
	if err != nil {
		return err
	}
	defer l.release()
	if d, err := s.get(ctx, s.imageName(name)); err == nil && d != nil && d.halfMade() && d.snapshotOwner() != nil {
		return s.abandon(ctx, d) // a snapshot that was killed
	}
	d, err := s.getImage(ctx, name)
	if err != nil {
		return err
	}
	if !d.ours() {
		return fmt.Errorf("%s was not made by this program: zfs destroy -r %s removes it", d.name, d.name)
	}
	t, err := readTree(ctx, s.dataset, true)
	if err != nil {
		return err
	}
	by, err := s.usedBy(t, name)
	if err != nil {
		return err
	}
	if len(by) > 0 {
		return &InUseError{Image: name, By: by}
	}
	return s.destroy(ctx, d.name)
}

// lock takes a lock of the dataset.
func (s *ZFS) lock(ctx context.Context, what string, exclusive bool) (*lock, error) {
	if err := s.files.prepare(); err != nil {
		return nil, err
	}
	return acquire(ctx, s.lockPath(what), exclusive)
}

const (
	// busyDeadline bounds the wait for others to close a volume's device.
	busyDeadline = 30 * time.Second
	busyPause    = 100 * time.Millisecond
)

// destroy destroys a volume of ours with its snapshots, and its files. What is a
// clone of it and still to be used is promoted first, so that it stays. Nothing
// that is not ours is destroyed.
func (s *ZFS) destroy(ctx context.Context, name string) error {
	d, err := s.get(ctx, name)
	if d == nil || err != nil {
		return err
	}
	if !d.ours() {
		return fmt.Errorf("%s was not made by this program, so it is not destroyed", name)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, busyDeadline,
		fmt.Errorf("it was in use for %v: fuser %s shows who has its device open", busyDeadline, s.device(name)))
	defer cancel()
	for range maxDepth {
		err := s.destroyIdle(ctx, d)
		if err == nil && d.image != "" && d.guid != "" {
			return os.RemoveAll(s.bootDir(d))
		}
		if !zfsSays(err, saysClones) {
			return err
		}
		if err := s.turnAround(ctx, name, err); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s has more than %d clones", name, maxDepth)
}

// destroyIdle destroys a dataset when nobody has it open. Whoever looks at new
// devices, such as udev, opens that of a volume for a moment, and ZFS tells
// nobody when it is closed: hence the pauses.
func (s *ZFS) destroyIdle(ctx context.Context, d *dataset) error {
	for {
		err := destroyDataset(d.name, d.kind == "volume")
		if zfsSays(err, saysMissing) {
			return nil
		}
		if !zfsSays(err, saysBusy) {
			return err
		}
		select {
		case <-time.After(busyPause):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, context.Cause(ctx))
		}
	}
}

// turnAround deals with a clone that keeps a volume from being destroyed: one
// half-made goes, any other is promoted. refusal is what ZFS said.
func (s *ZFS) turnAround(ctx context.Context, name string, refusal error) error {
	t, err := readTree(ctx, s.dataset, true)
	if err != nil {
		return err
	}
	clones := t.clones(name)
	if len(clones) == 0 {
		return refusal // they are outside of our dataset
	}
	if clone := clones[0]; clone.halfMade() {
		return s.destroyIdle(ctx, clone)
	}
	return promote(ctx, clones[0].name)
}

// bootDir is the folder of an image's kernel and initrd. ZFS gives each volume
// an identity of its own, whatever dataset or pool has its name.
func (s *ZFS) bootDir(d *dataset) string { return filepath.Join(s.files.home, "boot", d.guid) }

// hold returns an image and keeps it from being removed until unlock.
func (s *ZFS) hold(ctx context.Context, name string) (d *dataset, img Image, unlock func(), err error) {
	if err := ValidName(name); err != nil {
		return nil, img, nil, err
	}
	l, err := s.lock(ctx, "img."+name, false)
	if err != nil {
		return nil, img, nil, err
	}
	if d, err = s.getImage(ctx, name); err == nil {
		img, err = s.imageOf(d)
	}
	if err != nil {
		l.release()
		return nil, img, nil, err
	}
	return d, img, l.release, nil
}

// makeFilesystem makes one of the file systems that volumes are below of, which
// nobody mounts, and those above it. That it exists already is no error.
func (s *ZFS) makeFilesystem(ctx context.Context, name string, props ...string) error {
	args := append(properties(append(props, "canmount=off")...), name)
	_, err := runZFS(ctx, name, "create", args...)
	if zfsSays(err, saysNoParent) {
		if err := s.makeFilesystem(ctx, filepath.Dir(name)); err != nil {
			return err
		}
		_, err = runZFS(ctx, name, "create", args...)
	}
	if zfsSays(err, saysExists) {
		return nil
	}
	return err
}
