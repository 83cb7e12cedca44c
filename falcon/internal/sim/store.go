package sim

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
)

// Store is an [image.Store] in which every image is there. What it keeps are
// the snapshots and the disks: a record of each, and a file of what guests have
// changed.
//
// Nothing in it is made durable against a loss of power, which ends every
// simulated topology.
type Store struct {
	home   string
	script *Script

	mu     sync.Mutex
	shared map[diskRecord]string // where a record was written
}

// OpenStore returns the store below a home, with the failures of a script.
func OpenStore(home string, script *Script) *Store {
	return &Store{home: filepath.Join(home, "sim"), script: script, shared: make(map[diskRecord]string)}
}

// Home is the folder of the store.
func (s *Store) Home() string { return s.home }

// Dataset is empty: disks are files.
func (s *Store) Dataset() string { return "" }

// Why says where the disks are.
func (s *Store) Why() string { return "simulated disks in " + s.home }

// errNoFiles is why an image cannot be made or written out.
var errNoFiles = errors.New("images of the simulated host are names: every one is there, and none has a disk's content")

// Create is refused.
func (s *Store) Create(context.Context, string, image.Progress) (*image.Draft, error) {
	return nil, errNoFiles
}

// Export is refused.
func (s *Store) Export(context.Context, string, string, image.Progress) error { return errNoFiles }

// SetAgent is refused.
func (s *Store) SetAgent(context.Context, string, string) error { return errNoFiles }

// imageRecord is the file of a snapshot.
type imageRecord struct {
	Version int       `json:"version"`
	Created time.Time `json:"created"`
	Parent  string    `json:"parent"`
	// Base is the built-in image that all goes back to.
	Base string `json:"base"`
	Size int64  `json:"size"`
}

// diskRecord is the file of a node's disk, whose name says whose it is. It is
// one file for all fresh disks of a topology that are the same: a disk is made
// by giving it one more name, which costs next to nothing.
type diskRecord struct {
	Version int `json:"version"`
	// Topology and Folder are those of the owner.
	Topology string `json:"topology"`
	Folder   string `json:"folder"`
	Image    string `json:"image"`
	Base     string `json:"base"`
	Size     int64  `json:"size"`
}

const recordVersion = 1

func (s *Store) imagePath(name string) string { return filepath.Join(s.home, "img", name+".json") }

// imageDisk is the content of a snapshot.
func (s *Store) imageDisk(name string) string { return filepath.Join(s.home, "img", name+".disk") }

func (s *Store) diskPath(o image.DiskOwner) string {
	return filepath.Join(s.home, "topo", o.ID, o.Node+".disk")
}

func (s *Store) diskRecord(o image.DiskOwner) string {
	return filepath.Join(s.home, "topo", o.ID, o.Node+".json")
}

func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return replaceFile(path, append(data, '\n'), 0o600)
}

// lock keeps snapshots and removals of images from each other and, as they are
// exclusive, from the making of disks.
func (s *Store) lock(ctx context.Context, exclusive bool) (unlock func(), err error) {
	f, err := state.Open(s.home)
	if err != nil {
		return nil, err
	}
	if exclusive {
		return f.Lock(ctx, "changing images", nil)
	}
	return f.LockShared(ctx, "making disks", nil)
}

// List returns the snapshots and the images that the examples use.
func (s *Store) List(ctx context.Context) ([]image.Image, error) {
	names := slices.Clone(known)
	entries, err := os.ReadDir(filepath.Join(s.home, "img"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	var images []image.Image
	var errs []error
	for _, name := range names {
		img, err := s.Get(ctx, name)
		if err != nil {
			errs = append(errs, fmt.Errorf("image %q: %w", name, err))
			continue
		}
		images = append(images, img)
	}
	slices.SortFunc(images, func(a, b image.Image) int { return cmp.Compare(a.Name, b.Name) })
	return images, errors.Join(errs...)
}

// Get returns a snapshot, or the image that is there for any other name.
func (s *Store) Get(ctx context.Context, name string) (image.Image, error) {
	if err := image.ValidName(name); err != nil {
		return image.Image{}, err
	}
	if err := ctx.Err(); err != nil {
		return image.Image{}, err
	}
	if s.script.Next(StepImage, name).Effect == Missing {
		return image.Image{}, &image.NotFoundError{Name: name, Hint: "the script of the simulated host says so"}
	}
	var r imageRecord
	err := state.ReadJSON(s.imagePath(name), &r)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s.builtIn(name), nil
	case err != nil:
		return image.Image{}, err
	case r.Version != recordVersion:
		return image.Image{}, fmt.Errorf("%s has version %d, this program knows %d", s.imagePath(name), r.Version, recordVersion)
	}
	img := s.builtIn(r.Base)
	img.Name, img.Created, img.Parent, img.VirtualSize = name, r.Created, r.Parent, r.Size
	img.DigestOf, img.ReadOnly, img.Digest = "snapshot", false, digest(name+r.Created.String())
	img.Disk = s.imageDisk(name)
	if info, err := os.Stat(img.Disk); err == nil {
		img.Size = info.Size()
	}
	return img, nil
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// builtIn is the image of a name that is no snapshot. Its login is what the
// real one's is where falcon knows that.
func (s *Store) builtIn(name string) image.Image {
	img := image.Image{
		Name: name, Digest: digest(name), DigestOf: "files", VirtualSize: 1 << 30, Format: "raw",
		Boot: image.Boot{Method: image.BootBIOS}, OS: name, ReadOnly: true,
		Dir: filepath.Join(s.home, "img"), Disk: s.imageDisk(name),
		Console: image.Console{User: "root", Known: true, Prompt: `\[` + systemOf(name) + ` [^\]\r\n]*\]# $`},
	}
	switch systemOf(name) {
	case "debian":
		img.VirtualSize = 8 << 30
		img.Console.Prompt = `root@[^\r\n]*:[^\r\n]*# $`
	case "helios":
		img.VirtualSize = 8 << 30
		img.Console.Login, img.Console.Prompt = "console login:", `root@[^\r\n]*:[^\r\n]*# $`
	}
	return img
}

// systemOf is the family of guests that an image is of.
func systemOf(name string) string {
	for _, family := range []string{"debian", "helios"} {
		if strings.HasPrefix(name, family) {
			return family
		}
	}
	return "micro"
}

// VerifyDisk has nothing to find: an image on which something stands stays.
func (s *Store) VerifyDisk(context.Context, image.DiskOwner) error { return nil }

// VerifyImage has nothing to find, as VerifyDisk has not.
func (s *Store) VerifyImage(context.Context, image.Image) error { return nil }

// Remove deletes a snapshot on which nothing stands.
func (s *Store) Remove(ctx context.Context, name string) error {
	img, err := s.Get(ctx, name)
	if err != nil {
		return err
	}
	if img.ReadOnly {
		return fmt.Errorf("removing image %q: %w (it is part of the simulated host)", name, image.ErrReadOnly)
	}
	unlock, err := s.lock(ctx, true)
	if err != nil {
		return err
	}
	defer unlock()
	by, err := s.UsedBy(ctx, img)
	if err != nil {
		return fmt.Errorf("removing image %q: %w", name, err)
	}
	if len(by) > 0 {
		return &image.InUseError{Image: name, By: by}
	}
	return errors.Join(removeIfThere(s.imagePath(name)), removeIfThere(s.imageDisk(name)))
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// UsedBy describes what stands on an image: snapshots and disks.
func (s *Store) UsedBy(ctx context.Context, img image.Image) ([]string, error) {
	images, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	var by []string
	for _, i := range images {
		if i.Parent == img.Name {
			by = append(by, fmt.Sprintf("image %q", i.Name))
		}
	}
	disks, err := s.Disks(ctx)
	for _, d := range disks {
		if d.Image == img.Name {
			by = append(by, d.Owner.String())
		}
	}
	return by, err
}

// Disks lists all disks.
func (s *Store) Disks(ctx context.Context) ([]image.Disk, error) {
	topologies, err := os.ReadDir(filepath.Join(s.home, "topo"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var disks []image.Disk
	errs := []error{err}
	for _, topology := range topologies {
		dir := filepath.Join(s.home, "topo", topology.Name())
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, e := range entries {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if !strings.HasSuffix(e.Name(), ".json") {
				continue
			}
			var r diskRecord
			switch err := state.ReadJSON(filepath.Join(dir, e.Name()), &r); {
			case errors.Is(err, fs.ErrNotExist): // removed since
			case err != nil:
				errs = append(errs, err)
			default:
				owner := image.DiskOwner{ID: topology.Name(), Node: strings.TrimSuffix(e.Name(), ".json"), Topology: r.Topology, Folder: r.Folder}
				d := image.Disk{Owner: owner, Image: r.Image, ImageDir: filepath.Join(s.home, "img"), Path: s.diskPath(owner), Size: r.Size}
				if info, err := os.Stat(d.Path); err == nil {
					d.Used = info.Size()
				}
				disks = append(disks, d)
			}
		}
	}
	return disks, errors.Join(errs...)
}

// DiskPath is where the disk of a node is, whether it exists or not.
func (s *Store) DiskPath(o image.DiskOwner, _ image.Backing) string { return s.diskPath(o) }

// HasDisk tells whether the disk of a node is there.
func (s *Store) HasDisk(_ context.Context, o image.DiskOwner, _ image.Backing) bool {
	_, err := os.Lstat(s.diskRecord(o))
	return err == nil
}

// CreateDisk makes a disk for a node.
func (s *Store) CreateDisk(ctx context.Context, owner image.DiskOwner, name string, o image.DiskOptions) error {
	if err := s.createDisk(ctx, owner, name, o); err != nil {
		_ = os.Remove(filepath.Dir(s.diskPath(owner))) // if empty
		return fmt.Errorf("making the disk of %s: %w", owner, err)
	}
	return nil
}

func (s *Store) createDisk(ctx context.Context, owner image.DiskOwner, name string, o image.DiskOptions) error {
	switch r := s.script.Next(StepDisk, owner.Node); r.Effect {
	case Fail:
		return errors.New("no space left on the simulated device (the script says so)")
	case Delay:
		if err := Sleep(ctx, r.Delay); err != nil {
			return err
		}
	}
	if o.Backing == image.BackingZvol {
		return errors.New("it is to be a ZFS volume, and images are names here: see FALCON_DATASET")
	}
	path := s.diskPath(owner)
	if s.HasDisk(ctx, owner, o.Backing) {
		return fmt.Errorf("%w: %s", image.ErrDiskExists, path)
	}
	r := diskRecord{Version: recordVersion, Topology: owner.Topology, Folder: owner.Folder, Image: name, Base: name}
	var content []byte
	img, err := s.Get(ctx, name)
	if err != nil {
		return err
	}
	if !img.ReadOnly { // it can be removed
		unlock, err := s.lock(ctx, false)
		if err != nil {
			return err
		}
		defer unlock()
		var parent imageRecord
		if err := state.ReadJSON(s.imagePath(name), &parent); err != nil {
			return err
		}
		r.Base = parent.Base
		if content, err = readDisk(s.imageDisk(name)); err != nil {
			return err
		}
	}
	switch r.Size = cmp.Or(o.Size, img.VirtualSize); {
	case r.Size < img.VirtualSize:
		return fmt.Errorf("a disk of %d bytes is smaller than image %q, which has %d", r.Size, name, img.VirtualSize)
	case r.Size%512 != 0:
		return fmt.Errorf("disk size %d is not a multiple of 512", r.Size)
	}
	return image.InFolder(filepath.Dir(path), func() error {
		if content != nil {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				return err
			}
		}
		// The record comes last: with it the disk is there. An image cannot go
		// in between.
		return s.shareRecord(owner, r)
	})
}

// shareRecord gives a record that another disk has the name of this one's too,
// or writes it.
func (s *Store) shareRecord(owner image.DiskOwner, r diskRecord) error {
	path := s.diskRecord(owner)
	s.mu.Lock()
	other, ok := s.shared[r]
	s.shared[r] = path
	s.mu.Unlock()
	if ok && os.Link(other, path) == nil {
		return nil
	}
	return writeJSON(path, r) // the first, or on a file system without links
}

// readDisk returns the content of a disk. One that no guest has changed has
// none.
func readDisk(path string) ([]byte, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return content, err
}

// Sleep waits for d, or until ctx ends.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// RemoveDisk deletes a node's disk. That it is gone already is no error.
func (s *Store) RemoveDisk(_ context.Context, owner image.DiskOwner) error {
	var errs []error
	for _, path := range []string{s.diskPath(owner), s.diskRecord(owner)} {
		errs = append(errs, removeIfThere(path+".new"), removeIfThere(path))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("removing the disk of %s: %w", owner, err)
	}
	_ = os.Remove(filepath.Dir(s.diskPath(owner))) // if empty
	return nil
}

// Snapshot makes an image of what is on a node's disk. A guest that runs goes
// on with its disk, which has no part that the image shares: there is nothing
// to switch, and switchOverlay is called for what the guest does before.
func (s *Store) Snapshot(ctx context.Context, owner image.DiskOwner, name string, switchOverlay func(string) error) (image.Image, error) {
	img, err := s.snapshot(ctx, owner, name, switchOverlay)
	if err != nil {
		return image.Image{}, fmt.Errorf("snapshot of %s to image %q: %w", owner, name, err)
	}
	return img, nil
}

func (s *Store) snapshot(ctx context.Context, owner image.DiskOwner, name string, switchOverlay func(string) error) (image.Image, error) {
	if err := image.ValidName(name); err != nil {
		return image.Image{}, err
	}
	unlock, err := s.lock(ctx, true)
	if err != nil {
		return image.Image{}, err
	}
	defer unlock()
	var disk diskRecord
	if err := state.ReadJSON(s.diskRecord(owner), &disk); err != nil {
		return image.Image{}, fmt.Errorf("the node has no disk in this store: %w", err)
	}
	if _, err := os.Lstat(s.imagePath(name)); err == nil || slices.Contains(known, name) {
		return image.Image{}, fmt.Errorf("%w: %q in %s", image.ErrExists, name, s.home)
	}
	if switchOverlay != nil {
		if err := switchOverlay(s.diskPath(owner)); err != nil {
			return image.Image{}, err
		}
	}
	content, err := readDisk(s.diskPath(owner))
	if err != nil {
		return image.Image{}, err
	}
	if err := os.MkdirAll(filepath.Join(s.home, "img"), 0o700); err != nil {
		return image.Image{}, err
	}
	if err := replaceFile(s.imageDisk(name), content, 0o600); err != nil {
		return image.Image{}, err
	}
	r := imageRecord{Version: recordVersion, Created: time.Now().UTC().Truncate(time.Second), Parent: disk.Image, Base: disk.Base, Size: disk.Size}
	if err := writeJSON(s.imagePath(name), r); err != nil {
		return image.Image{}, errors.Join(err, removeIfThere(s.imageDisk(name)))
	}
	disk.Image = name
	if err := writeJSON(s.diskRecord(owner), disk); err != nil {
		return image.Image{}, errors.Join(err, removeIfThere(s.imagePath(name)), removeIfThere(s.imageDisk(name)))
	}
	return s.Get(ctx, name)
}

// known are the images that the store lists although every other is there too.
var known = []string{"debian-11.0", "debian-12", "helios-2.5", "micro"}
