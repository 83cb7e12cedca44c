package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Registry is the list of a user's topologies on this host: one file each,
// named by the folder's ID.
type Registry struct {
	// Dir holds the files.
	Dir string
}

// Entry is a topology in the list.
type Entry struct {
	ID       string    `json:"id"`
	Topology string    `json:"topology"`
	Folder   string    `json:"folder"`
	Created  time.Time `json:"created"`
}

// Add lists a folder. Adding it again replaces the entry.
func (r Registry) Add(f *Folder, topology string) error {
	if err := os.MkdirAll(r.Dir, 0o700); err != nil {
		return fmt.Errorf("list of topologies: %w", err)
	}
	e := Entry{ID: f.ID(), Topology: topology, Folder: f.Path(), Created: time.Now().UTC().Truncate(time.Second)}
	if err := writeJSON(r.file(e.ID), e); err != nil {
		return fmt.Errorf("list of topologies: %w", err)
	}
	return nil
}

// Remove takes a folder from the list by its ID.
func (r Registry) Remove(id string) error { return removeFile(r.file(id)) }

// List returns the listed topologies in the order of their IDs. Files that
// are no entry are left out.
func (r Registry) List() ([]Entry, error) {
	files, err := os.ReadDir(r.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list of topologies: %w", err)
	}
	var entries []Entry
	for _, file := range files {
		var e Entry
		if !strings.HasSuffix(file.Name(), ".json") || strings.HasPrefix(file.Name(), ".") {
			continue
		}
		err := ReadJSON(filepath.Join(r.Dir, file.Name()), &e)
		if err == nil && e.ID+".json" == file.Name() && filepath.IsAbs(e.Folder) {
			entries = append(entries, e)
		}
	}
	return entries, nil
}

func (r Registry) file(id string) string { return filepath.Join(r.Dir, id+".json") }
