package state

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of a search: a home may be large, or on a server that does not answer.
var maxSearched = 500_000

const searchTime = 10 * time.Second

// search is a look into folders for those of topologies.
type search struct {
	seen map[fileNumber]bool
	// found is told each folder that may hold a topology, and says whether the
	// search is over.
	found func(dir string) (enough bool)
}

// errEnough ends a search.
var errEnough = errors.New("found all")

// Search tells of all folders below the given ones, on the same file systems as
// these, that may hold a topology, until found says that it is enough. The error
// says why some have not been seen.
func Search(ctx context.Context, below []string, found func(dir string) (enough bool)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, searchTime, fmt.Errorf("looking for it took more than %v", searchTime))
	defer cancel()
	done := make(chan error, 1)
	go func() { // which may hang with a file system
		s := search{seen: make(map[fileNumber]bool), found: found}
		var first error // one reason is enough to say
		for _, dir := range below {
			err := s.below(ctx, dir)
			if errors.Is(err, errEnough) {
				done <- nil
				return
			}
			first = cmp.Or(first, err)
		}
		done <- first
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// below looks into a folder and those in it, the nearest first.
func (s *search) below(ctx context.Context, top string) error {
	device := PlaceOf(top).Device
	var first error
	for next := []string{top}; len(next) > 0; next = next[1:] {
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case len(s.seen) > maxSearched:
			return fmt.Errorf("there are more than %d folders", maxSearched)
		}
		folders, err := s.look(next[0], device)
		if errors.Is(err, errEnough) {
			return err
		}
		first = cmp.Or(first, err)
		next = append(next, folders...)
	}
	return first
}

// look looks into one folder and returns those in it.
func (s *search) look(path string, device uint64) (folders []string, err error) {
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, unseen(path, err)
	}
	defer dir.Close()
	info, err := dir.Stat()
	if err != nil {
		return nil, err
	}
	if n, _ := numberOf(info); n.device != device || s.seen[n] {
		return nil, nil
	} else {
		s.seen[n] = true
	}
	candidate := false
	for {
		entries, err := dir.ReadDir(1024)
		for _, e := range entries {
			if e.IsDir() {
				folders = append(folders, filepath.Join(path, e.Name()))
			}
			candidate = candidate || e.Name() == identityFile || e.Name() == JournalFile
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return folders, err
		}
		if err != nil || len(entries) == 0 {
			break
		}
	}
	if candidate && s.found(path) {
		return nil, errEnough
	}
	return folders, nil
}

// unseen is the error of a folder that cannot be looked into; nil of one that is not
// there, or that others have closed: nobody keeps his labs in it.
func unseen(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		return nil
	}
	if info, serr := os.Lstat(path); errors.Is(err, fs.ErrPermission) && serr == nil && !ownedByMe(info) {
		return nil
	}
	return err
}

func ownedByMe(info fs.FileInfo) bool {
	s, ok := info.Sys().(*syscall.Stat_t)
	return !ok || int(s.Uid) == os.Geteuid()
}
