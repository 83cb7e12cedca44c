package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Abandoned is something of a store that a process has left which was killed.
type Abandoned struct {
	// Kind and Name say what it is, Reason how it is known that nobody needs
	// it.
	Kind, Name, Reason string
	// Remove removes it, unless somebody has taken it up meanwhile.
	Remove func(ctx context.Context) error
}

// Sweeper is a store that finds what killed processes have left in it.
type Sweeper interface {
	Abandoned(ctx context.Context) ([]Abandoned, error)
}

const killed = "its maker was killed"

// Abandoned finds what processes have left that were killed while they made,
// changed or removed something. What it cannot lock is somebody's.
func (s *Files) Abandoned(ctx context.Context) ([]Abandoned, error) {
	if !isOwnFolder(s.home) {
		return nil, nil
	}
	var all []Abandoned
	for _, find := range []func() ([]Abandoned, error){s.abandonedWork, s.abandonedSnapshots, s.abandonedImages, s.abandonedFiles, s.abandonedFetches} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		found, err := find()
		if err != nil {
			return nil, fmt.Errorf("looking for what was left in %s: %w", s.home, err)
		}
		all = append(all, found...)
	}
	return all, s.dropLocks()
}

// tidy removes what is abandoned. What cannot be removed is left to be found.
func (s *Files) tidy(ctx context.Context) error {
	all, err := s.Abandoned(ctx)
	for _, a := range all {
		_ = a.Remove(ctx) // the next one tries again, and the doctor tells
	}
	return err
}

func (s *Files) abandonedWork() ([]Abandoned, error) {
	dead, err := s.deadWork()
	var all []Abandoned
	for _, dir := range dead {
		all = append(all, Abandoned{Kind: "draft", Name: dir, Reason: killed, Remove: func(context.Context) error {
			return unheld(s.workLock(dir), func() error { return dropWork(dir) })
		}})
	}
	return all, err
}

// abandonedImages finds images that are not whole, and what is half-written
// beside the records of those that are.
func (s *Files) abandonedImages() ([]Abandoned, error) {
	entries, err := readDirIfThere(filepath.Join(s.home, "img"))
	var all []Abandoned
	for _, e := range entries {
		name := e.Name()
		if validOrTemplate(name) != nil || !e.IsDir() {
			continue
		}
		err := unheld(s.imageLock(name), func() error {
			if !s.isWhole(name) {
				all = append(all, Abandoned{Kind: "image", Name: s.imageDir(name),
					Reason: "it was never finished, or its removal was not", Remove: s.clearer(name)})
			} else if left := halfRecords(s.imageDir(name)); len(left) > 0 {
				all = append(all, Abandoned{Kind: "file", Name: left[0], Reason: killed, Remove: s.clearer(name)})
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, err
}

// isWhole tells whether an image is there, or a disk stands on the unfinished
// snapshot that it is.
func (s *Files) isWhole(name string) bool {
	dir := s.imageDir(name)
	if exists(filepath.Join(dir, recordFile)) {
		return true
	}
	var r record
	return readJSON(filepath.Join(dir, pendingFile), &r) == nil && s.holdsDisk(dir, r)
}

// halfRecords lists what writers of an image's record have left.
func halfRecords(dir string) []string {
	left, _ := filepath.Glob(globEscape(filepath.Join(dir, "."+recordFile)) + "*.new-*")
	return left
}

// clearer removes what was left of an image.
func (s *Files) clearer(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		return unheld(s.imageLock(name), func() error {
			var errs []error
			for _, path := range halfRecords(s.imageDir(name)) {
				errs = append(errs, removeIfThere(path))
			}
			if !s.isWhole(name) {
				if err := s.vacant(ctx, name); !errors.Is(err, ErrExists) { // back, as somebody uses it
					errs = append(errs, err)
				}
			}
			return errors.Join(errs...)
		})
	}
}

// finishRemoval ends the removal of an image that was cut short: it is gone, or
// back if something stands on it. The name is locked by the caller.
func (s *Files) finishRemoval(ctx context.Context, name string) error {
	dir := s.imageDir(name)
	removed, seen := filepath.Join(dir, removedFile), filepath.Join(dir, recordFile)
	if !exists(removed) || exists(seen) {
		return nil
	}
	err := s.unused(ctx, Image{Name: name, Dir: dir})
	if errors.As(err, new(*InUseError)) {
		return os.Rename(removed, seen)
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

var halfDiskRE = regexp.MustCompile(`^\.(.+)\.(?:json|qcow2|qcow2\.next)\.new-[0-9]+$`)

// abandonedFiles finds files that their writers have not put in place: of disks,
// and in the home itself.
func (s *Files) abandonedFiles() ([]Abandoned, error) {
	var all []Abandoned
	found := func(path, lock string) error {
		return unheld(lock, func() error {
			all = append(all, Abandoned{Kind: "file", Name: path, Reason: killed, Remove: func(context.Context) error {
				return unheld(lock, func() error {
					err := removeIfThere(path)
					_ = os.Remove(filepath.Dir(path)) // if empty
					return err
				})
			}})
			return nil
		})
	}
	labs, err := readDirIfThere(filepath.Join(s.home, "topo"))
	if err != nil {
		return nil, err
	}
	for _, lab := range labs {
		dir := filepath.Join(s.home, "topo", lab.Name())
		files, err := readDirIfThere(dir)
		if err != nil {
			return nil, err
		}
		if len(files) == 0 {
			_ = os.Remove(dir) // who makes a disk in it makes it anew
		}
		for _, f := range files {
			m := halfDiskRE.FindStringSubmatch(f.Name())
			if m == nil {
				continue
			}
			owner := DiskOwner{ID: lab.Name(), Node: m[1]}
			if owner.valid() != nil {
				continue
			}
			if err := found(filepath.Join(dir, f.Name()), s.diskLock(owner)); err != nil {
				return nil, err
			}
		}
	}
	for _, name := range []string{tokenFile, digestsFile} {
		left, err := filepath.Glob(globEscape(filepath.Join(s.home, halfMade(name))) + "*")
		if err != nil {
			return nil, err
		}
		for _, path := range left {
			if err := found(path, filepath.Join(s.home, "lock", name)); err != nil {
				return nil, err
			}
		}
	}
	for _, path := range halfClaims(filepath.Join(s.home, usersFolder)) {
		all = append(all, Abandoned{Kind: "file", Name: path, Reason: killed, Remove: func(context.Context) error { return removeIfThere(path) }})
	}
	return all, nil
}

// fetchFolder is where files are downloaded to.
const fetchFolder = "fetch"

// abandonedFetches finds what was downloaded and not imported.
func (s *Files) abandonedFetches() ([]Abandoned, error) {
	dir := filepath.Join(s.home, fetchFolder)
	entries, err := readDirIfThere(dir)
	var all []Abandoned
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		name, isLock := strings.CutSuffix(e.Name(), ".lock")
		if !isLock {
			name = "." + strings.TrimSuffix(name, ".part")
		}
		lock := filepath.Join(dir, name+".lock")
		err := unheld(lock, func() error {
			if !isLock && exists(path) {
				all = append(all, Abandoned{Kind: "download", Name: path, Reason: killed, Remove: func(context.Context) error {
					return unheld(lock, func() error { return removeIfThere(path) })
				}})
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, err
}

// dropLocks removes the files of locks that nobody holds, which mean nothing.
func (s *Files) dropLocks() error {
	dir := filepath.Join(s.home, "lock")
	entries, err := readDirIfThere(dir)
	for _, e := range entries {
		if err := unheld(filepath.Join(dir, e.Name()), func() error { return nil }); err != nil {
			return err
		}
	}
	return err
}

// Abandoned finds what processes have left that were killed: volumes that were
// to become images, or were lent to be read, besides what is in files.
func (s *ZFS) Abandoned(ctx context.Context) ([]Abandoned, error) {
	all, err := s.files.Abandoned(ctx)
	if err != nil {
		return nil, err
	}
	t, err := readTree(ctx, s.dataset, true)
	if err != nil {
		return nil, err
	}
	for _, d := range t.sorted() {
		if filepath.Dir(d.name) != s.dataset+"/img" || !d.halfMade() {
			continue
		}
		lock, remove := s.imageLock(d.base()), s.abandon
		if d.image == imageReader { // who reads holds the image
			lock, remove = s.imageLock(filepath.Base(d.originVolume())), s.destroyIdle
		}
		err := unheld(lock, func() error {
			all = append(all, Abandoned{Kind: "volume", Name: d.name, Reason: killed, Remove: func(ctx context.Context) error {
				return unheld(lock, func() error { return remove(ctx, d) })
			}})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}
