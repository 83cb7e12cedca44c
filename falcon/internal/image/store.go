package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// SystemHome is where root's store is, and where everybody looks for images.
const SystemHome = "/var/lib/falcon"

// NoDataset is the Dataset of Options for a store of files.
const NoDataset = "none"

// Options say where a store is. The zero value is the usual place.
type Options struct {
	// Home is the folder that is written to; DefaultHome() if empty.
	Home string
	// System are stores that are only read. Nil means SystemHome.
	System []string
	// Dataset is the ZFS dataset of images and disks, or NoDataset for files.
	// If it is empty, FALCON_DATASET says so, and if that is empty too,
	// DefaultDataset is taken where its pool exists.
	Dataset string
}

// Store is a set of images and of disks that stand on them. Its methods may be
// called by several goroutines and processes at once.
type Store interface {
	// Home is the folder of what is not in a disk.
	Home() string
	// Dataset is the ZFS dataset of images and disks; empty where they are
	// files. Why says where they are, for people, and why there.
	Dataset() string
	Why() string
	// List returns all images, sorted by name. A damaged image does not hide
	// the others: the error then names it and the list is still good.
	List(ctx context.Context) ([]Image, error)
	// Get returns one image. If there is none, the error is a
	// *NotFoundError.
	Get(ctx context.Context, name string) (Image, error)
	// Remove deletes an image on which nothing stands. If something does,
	// the error is an *InUseError.
	Remove(ctx context.Context, name string) error
	// UsedBy describes what stands on an image.
	UsedBy(ctx context.Context, img Image) ([]string, error)
	// SetAgent records the version of the guest agent that is in an image.
	SetAgent(ctx context.Context, name, version string) error
	// Create starts an image of a name that is not taken in this store;
	// else the error is ErrExists.
	Create(ctx context.Context, name string, progress Progress) (*Draft, error)
	// Export writes an image's disk, with all that it stands on, to a new
	// file. The file's name tells the format (.raw, .img or .qcow2), and
	// whether it is then compressed (.zst).
	Export(ctx context.Context, name, file string, progress Progress) error
	// CreateDisk makes a disk for a node on an image. The error is
	// ErrDiskExists if the node has a disk.
	CreateDisk(ctx context.Context, owner DiskOwner, image string, o DiskOptions) error
	// RemoveDisk deletes a node's disk, and what calls that were killed have
	// left of it. That it is gone already is no error.
	RemoveDisk(ctx context.Context, owner DiskOwner) error
	// Disks lists all disks of the store.
	Disks(ctx context.Context) ([]Disk, error)
	// DiskPath is where the disk of a node is, whether it exists or not.
	DiskPath(owner DiskOwner, b Backing) string
	// VerifyDisk says why the disk of a node, and VerifyImage why an image,
	// cannot be used any more: the error is a *BaseError if what it stands
	// on is gone, or another one.
	VerifyDisk(ctx context.Context, owner DiskOwner) error
	VerifyImage(ctx context.Context, img Image) error
	// HasDisk tells whether the disk of a node is there.
	HasDisk(ctx context.Context, owner DiskOwner, b Backing) bool
	// Snapshot makes a node's disk the image name and gives the node a
	// fresh clone of it; the node's path stays. See [Files.Snapshot] for
	// switchOverlay, which only some stores call.
	Snapshot(ctx context.Context, owner DiskOwner, name string, switchOverlay func(newOverlay string) error) (Image, error)
}

// Files is a store in a folder: disks are files.
type Files struct {
	home   string
	system []string
	reason string // why they are no ZFS volumes

	digesting sync.Mutex
	digests   map[string]digested // of images' folders, by digestOnce

	cut func(step string) // tests end a snapshot after a step by it
}

var (
	// ErrNotFound is what a *NotFoundError is.
	ErrNotFound = errors.New("image not found")
	// ErrExists says that the name of an image is taken.
	ErrExists = errors.New("image exists already")
	// ErrReadOnly says that an image belongs to the system's store.
	ErrReadOnly = errors.New("image belongs to the system's store")
)

// NotFoundError names an image that is not there.
type NotFoundError struct {
	Name string
	// Hint says how to get it.
	Hint string
}

func (e *NotFoundError) Error() string {
	msg := fmt.Sprintf("image %q not found", e.Name)
	if e.Hint != "" {
		msg += ": " + e.Hint
	}
	return msg
}

// Is makes the error match ErrNotFound.
func (e *NotFoundError) Is(target error) bool { return target == ErrNotFound }

// InUseError says why an image cannot be removed.
type InUseError struct {
	Image string
	// By describes each image and each disk that stands on it.
	By []string
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("image %q is in use by %s", e.Image, strings.Join(e.By, ", "))
}

// DefaultHome is FALCON_HOME if that is set, else SystemHome for root, else the
// folder "falcon" in the user's XDG data folder.
func DefaultHome() (string, error) {
	if home := os.Getenv("FALCON_HOME"); home != "" {
		return filepath.Abs(home)
	}
	if os.Geteuid() == 0 {
		return SystemHome, nil
	}
	if data := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(data) {
		return filepath.Join(data, "falcon"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("finding a place for images: %w; set FALCON_HOME", err)
	}
	return filepath.Join(home, ".local", "share", "falcon"), nil
}

// OpenFiles returns the store of the options as files. It makes nothing: that is
// done by what first puts something there.
func OpenFiles(o Options) (*Files, error) {
	home := o.Home
	if home == "" {
		var err error
		if home, err = DefaultHome(); err != nil {
			return nil, err
		}
	}
	home, err := filepath.Abs(home)
	if err != nil {
		return nil, err
	}
	system := o.System
	if system == nil {
		system = []string{SystemHome}
	}
	system = slices.DeleteFunc(slices.Clone(system), func(s string) bool { return s == home })
	return &Files{home: home, system: system}, checkHome(home)
}

// Home is the folder that the store writes to.
func (s *Files) Home() string { return s.home }

// Dataset is empty: disks are files.
func (s *Files) Dataset() string { return "" }

// Why says where the files are, and why files.
func (s *Files) Why() string {
	why := "files in " + s.home
	if s.reason != "" {
		why += ", because " + s.reason
	}
	return why
}

// List returns all images, sorted by name. One of the user's own hides one of
// the system with the same name. A damaged image does not hide the others: the
// error then names it and the list is still good.
func (s *Files) List(ctx context.Context) ([]Image, error) {
	seen := map[string]bool{}
	var all []Image
	var errs []error
	for i, home := range append([]string{s.home}, s.system...) {
		names, err := visible(home)
		if err != nil {
			errs = append(errs, err)
		}
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if seen[name] {
				continue
			}
			seen[name] = true
			img, err := loadImage(filepath.Join(home, "img", name))
			if err != nil {
				errs = append(errs, fmt.Errorf("image %q: %w", name, err))
				continue
			}
			img.ReadOnly = i > 0
			all = append(all, img)
		}
	}
	slices.SortFunc(all, func(a, b Image) int { return cmp.Compare(a.Name, b.Name) })
	return all, errors.Join(errs...)
}

// visible lists the names of a home's images, half-made ones left out.
func visible(home string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(home, "img"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	var names []string
	for _, e := range entries {
		if ValidName(e.Name()) == nil && exists(filepath.Join(home, "img", e.Name(), recordFile)) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Get returns one image, the user's own before the system's. If there is none,
// the error is a *NotFoundError.
func (s *Files) Get(ctx context.Context, name string) (Image, error) {
	if err := ValidName(name); err != nil {
		return Image{}, err
	}
	return s.get(ctx, name)
}

// get is Get for a name that may be a template's.
func (s *Files) get(ctx context.Context, name string) (Image, error) {
	if err := ctx.Err(); err != nil {
		return Image{}, err
	}
	for i, home := range append([]string{s.home}, s.system...) {
		img, err := loadImage(filepath.Join(home, "img", name))
		if errors.Is(err, fs.ErrNotExist) && !exists(filepath.Join(home, "img", name, recordFile)) {
			continue
		}
		if err != nil {
			return Image{}, fmt.Errorf("image %q: %w", name, err)
		}
		img.ReadOnly = i > 0
		return img, nil
	}
	return Image{}, &NotFoundError{Name: name}
}

// Remove deletes an image on which nothing stands. If something does, the error
// is an *InUseError.
func (s *Files) Remove(ctx context.Context, name string) error {
	if done, err := s.removeUnfinished(ctx, name); done || err != nil {
		return err
	}
	img, err := s.Get(ctx, name)
	if errors.As(err, new(*BaseError)) && exists(filepath.Join(s.imageDir(name), recordFile)) {
		img, err = Image{Name: name, Dir: s.imageDir(name)}, nil // nobody can read it, and it can go
	}
	if err != nil {
		return err
	}
	if img.ReadOnly {
		return fmt.Errorf("removing image %q: %w (%s)", name, ErrReadOnly, img.Dir)
	}
	if err := s.prepare(); err != nil {
		return err
	}
	l, err := acquire(ctx, s.imageLock(name), true)
	if err != nil {
		return err
	}
	defer l.release()
	if err := s.tidy(ctx); err != nil {
		return fmt.Errorf("removing image %q: %w", name, err)
	}
	if err := s.dropTemplates(ctx, img); err != nil {
		return fmt.Errorf("removing the templates of image %q: %w", name, err)
	}
	if err := s.removeUnused(ctx, img); err != nil {
		var inUse *InUseError
		if errors.As(err, &inUse) {
			return err
		}
		return fmt.Errorf("removing image %q: %w", name, err)
	}
	return s.disclaim(ctx)
}

// removeUnused removes an image. Those of other homes cannot be kept from
// putting a disk on it meanwhile, but they look for its record once the disk is
// there: so it is looked for disks once more when that is out of their sight.
func (s *Files) removeUnused(ctx context.Context, img Image) error {
	if err := s.unused(ctx, img); err != nil {
		return err
	}
	seen, removed := filepath.Join(img.Dir, recordFile), filepath.Join(img.Dir, removedFile)
	if err := os.Rename(seen, removed); err != nil {
		return err
	}
	if err := s.unused(ctx, img); err != nil {
		return errors.Join(err, os.Rename(removed, seen))
	}
	return os.RemoveAll(img.Dir)
}

// unused returns an *InUseError if something stands on an image.
func (s *Files) unused(ctx context.Context, img Image) error {
	by, err := s.UsedBy(ctx, img)
	if err == nil && len(by) > 0 {
		err = &InUseError{Image: img.Name, By: by}
	}
	return err
}

// UsedBy describes what stands on an image: other images, unfinished snapshots
// among them, and disks; on one of the store's own also those of other homes.
func (s *Files) UsedBy(ctx context.Context, img Image) ([]string, error) {
	by, err := s.usedHere(ctx, img.Dir)
	if err != nil || img.ReadOnly {
		return by, err
	}
	others, err := s.usedElsewhere(ctx, img.Dir)
	by = append(by, others...)
	if err == nil && len(by) == 0 {
		by = openBy(img.Disk)
	}
	return by, err
}

// usedHere describes what stands on an image in this home.
func (s *Files) usedHere(ctx context.Context, dir string) ([]string, error) {
	var by []string
	records, err := filepath.Glob(filepath.Join(globEscape(s.home), "img", "*", "image.json*"))
	if err != nil {
		return nil, err
	}
	for _, path := range records {
		if filepath.Dir(path) == dir {
			continue
		}
		var r record
		if err := readJSON(path, &r); err != nil {
			return nil, err
		}
		if r.Parent == nil || r.Parent.Dir != dir {
			continue
		}
		if r.Template != nil { // which nobody knows of: what stands on it matters
			of, err := s.usedHere(ctx, filepath.Dir(path))
			if err != nil {
				return nil, err
			}
			by = append(by, of...)
			continue
		}
		if filepath.Base(path) != pendingFile || s.holdsDisk(filepath.Dir(path), r) {
			by = append(by, fmt.Sprintf("image %q", filepath.Base(filepath.Dir(path))))
		}
	}
	disks, err := s.Disks(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range disks {
		if d.ImageDir == dir {
			by = append(by, d.Owner.String())
		}
	}
	return by, nil
}

// globEscape quotes what filepath.Glob would take for a pattern.
func globEscape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

func (s *Files) imageDir(name string) string  { return filepath.Join(s.home, "img", name) }
func (s *Files) imageLock(name string) string { return filepath.Join(s.home, "lock", "img."+name) }

// folder is a folder of a store, and its mode.
type folder struct {
	path string
	mode fs.FileMode
}

// prepare makes the store's folders. Images are for everybody to read; disks,
// locks and work folders are the owner's own.
func (s *Files) prepare() error {
	homeMode := fs.FileMode(0o700)
	if os.Geteuid() == 0 {
		homeMode = 0o755
	}
	if err := checkHome(s.home); err != nil {
		return err
	}
	folders := []folder{{s.home, homeMode}, {filepath.Join(s.home, "img"), 0o755},
		{filepath.Join(s.home, "topo"), 0o700}, {filepath.Join(s.home, "lock"), 0o700}, {filepath.Join(s.home, "tmp"), 0o700}}
	if os.Geteuid() == 0 {
		folders = append(folders, folder{filepath.Join(s.home, usersFolder), usersMode})
	}
	for _, d := range folders {
		if exists(d.path) {
			continue
		}
		if err := os.MkdirAll(d.path, d.mode); err != nil {
			return fmt.Errorf("making the image store: %w", err)
		}
		if err := os.Chmod(d.path, d.mode); err != nil { // whatever the umask
			return fmt.Errorf("making the image store: %w", err)
		}
	}
	return nil
}
