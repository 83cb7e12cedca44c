package image

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// Bases returns the files that the disk of a node stands on, by the records of
// the disk and of its images.
func (s *Files) Bases(o DiskOwner) ([]string, error) {
	var disk diskRecord
	if err := readJSON(s.diskRecordPath(o), &disk); err != nil {
		return nil, err
	}
	var bases []string
	for next := &disk.Image; next != nil; {
		if len(bases) == maxDepth {
			return nil, fmt.Errorf("image %s has more than %d parents", disk.Image.Dir, maxDepth)
		}
		var r record
		err := readJSON(filepath.Join(next.Dir, recordFile), &r)
		if errors.Is(err, fs.ErrNotExist) { // a snapshot was interrupted
			r = record{}
			err = readJSON(filepath.Join(next.Dir, pendingFile), &r)
		}
		if err != nil {
			return nil, err
		}
		bases = append(bases, filepath.Join(next.Dir, r.Disk))
		next = r.Parent
	}
	return bases, nil
}
