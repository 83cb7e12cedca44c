package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Draft is an image in the making. Until Commit nobody sees it; it holds the
// lock of its name, so a second builder of that name waits.
type Draft struct {
	// Dir is an empty folder of the draft's own, on the store's file system.
	Dir string

	store *Files // of the work folder and the locks
	name  string
	lock  *lock
	work  *work
	// keep makes the store's image of the finished files.
	keep func(ctx context.Context, d *Draft, spec Spec) (Image, error)
}

// Spec describes a finished image. Its files are names of files in Draft.Dir,
// which Commit moves into the image.
type Spec struct {
	Disk    string // required
	Format  string // of the disk: "raw" or "qcow2"
	Boot    Boot   // Kernel and Initrd are file names here
	Console Console
	OS      string
	// Agent is the version of the guest agent in it, empty if there is none.
	Agent string
}

// Create starts an image of a name that is not taken in this store; else the
// error is ErrExists. It waits for another builder of that name, and reports it
// if it has to. The caller must end with Discard, which is harmless after Commit.
func (s *Files) Create(ctx context.Context, name string, progress Progress) (*Draft, error) {
	if err := ValidName(name); err != nil {
		return nil, err
	}
	d := &Draft{store: s, name: name, keep: s.commit}
	if err := d.begin(ctx, s.imageLock(name), func() error { return s.vacant(ctx, name) }, progress); err != nil {
		return nil, err
	}
	return d, nil
}

// begin takes the lock of the draft's name, has vacant say whether that is not
// taken, and makes the work folder.
func (d *Draft) begin(ctx context.Context, path string, vacant func() error, progress Progress) error {
	if err := validOrTemplate(d.name); err != nil {
		return err
	}
	if err := d.store.prepare(); err != nil {
		return err
	}
	l, busy, err := tryLock(path)
	if busy {
		progress.Report(Step{What: "waiting for another builder of this image"})
		l, err = acquire(ctx, path, true)
	}
	if err != nil {
		return err
	}
	d.lock = l
	if err := vacant(); err != nil {
		d.Discard()
		return err
	}
	if d.work, err = d.store.newWork(d.name); err != nil {
		d.Discard()
		return fmt.Errorf("making a work folder: %w", err)
	}
	d.Dir = d.work.dir
	return nil
}

// vacant says whether an image of this name can be made. What is left of a
// removal that was cut short is cleared away. The name is locked by the caller.
func (s *Files) vacant(ctx context.Context, name string) error {
	dir := s.imageDir(name)
	if err := s.finishRemoval(ctx, name); err != nil {
		return err
	}
	if exists(filepath.Join(dir, recordFile)) {
		return fmt.Errorf("%w: %q in %s", ErrExists, name, s.home)
	}
	var r record
	err := readJSON(filepath.Join(dir, pendingFile), &r)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && s.holdsDisk(dir, r) {
		return fmt.Errorf("%w: %q is an unfinished snapshot of %s: end it with: falcon doctor --fix", ErrExists, name, r.Owner)
	}
	return os.RemoveAll(dir)
}

// Commit makes the draft an image. The files that the spec names are made
// readable for everybody and durable; all others are removed.
func (d *Draft) Commit(ctx context.Context, spec Spec) (Image, error) {
	img, err := d.keep(ctx, d, spec)
	if err != nil {
		return Image{}, fmt.Errorf("storing image %q: %w", d.name, err)
	}
	return img, nil
}

// finish keeps the files of a spec, makes them durable, and returns what is to
// be recorded of them.
func (d *Draft) finish(ctx context.Context, spec Spec) (record, error) {
	size, err := diskSize(filepath.Join(d.Dir, spec.Disk), spec.Format)
	if err != nil {
		return record{}, err
	}
	files := []string{spec.Disk}
	for _, f := range []string{spec.Boot.Kernel, spec.Boot.Initrd} {
		if f != "" {
			files = append(files, f)
		}
	}
	if err := keepOnly(d.Dir, files, 0o644); err != nil {
		return record{}, err
	}
	digest, err := digestFiles(ctx, d.Dir, files)
	if err != nil {
		return record{}, err
	}
	return record{
		Version: recordVersion, Name: d.name, Created: time.Now().UTC().Truncate(time.Second),
		Digest: digest, DigestOf: "files", Disk: spec.Disk, Format: spec.Format, VirtualSize: size,
		Boot: spec.Boot, Console: spec.Console, OS: spec.OS, Agent: spec.Agent,
	}, nil
}

func (s *Files) commit(ctx context.Context, d *Draft, spec Spec) (Image, error) {
	r, err := d.finish(ctx, spec)
	if err != nil {
		return Image{}, err
	}
	if err := writeJSON(filepath.Join(d.Dir, recordFile), r, 0o644); err != nil {
		return Image{}, err
	}
	dir := s.imageDir(d.name)
	if err := os.Rename(d.Dir, dir); err != nil {
		return Image{}, err
	}
	d.dropWork()
	if err := syncDir(filepath.Dir(dir)); err != nil {
		return Image{}, err
	}
	return loadImage(dir)
}

// Discard removes what Commit has not taken and lets go of the name.
func (d *Draft) Discard() {
	d.dropWork()
	d.lock.release()
}

func (d *Draft) dropWork() {
	d.Dir = ""
	if d.work != nil {
		d.work.discard()
		d.work = nil
	}
}

// keepOnly removes all but some files from a folder, and has those with a mode
// and on the disk.
func keepOnly(dir string, files []string, mode fs.FileMode) error {
	keep := map[string]bool{}
	for _, f := range files {
		if filepath.Base(f) != f || f == recordFile {
			return fmt.Errorf("%q is not a file name for an image", f)
		}
		keep[f] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !keep[e.Name()] {
			err = os.RemoveAll(path)
		} else if err = os.Chmod(path, mode); err == nil {
			err = syncDir(path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// digestFiles is what sha256sum says of the files, one after the other.
func digestFiles(ctx context.Context, dir string, files []string) (string, error) {
	sum := sha256.New()
	for _, name := range files {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		_, err = io.Copy(sum, &contextReader{ctx: ctx, r: f})
		if err := errors.Join(err, f.Close()); err != nil {
			return "", err
		}
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
}

// contextReader ends a long read when the context does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
