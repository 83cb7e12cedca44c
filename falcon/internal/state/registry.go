package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Registry is the list of a user's topologies on this host: one file each,
// named by the topology's ID.
type Registry struct {
	// Dir holds the files.
	Dir string
}

// Entry is a topology in the list.
type Entry struct {
	Identity
	Place
}

// open returns the list as a folder, whose files are input like those of a state
// folder.
func (r Registry) open() (*Folder, error) {
	dir, err := resolve(r.Dir)
	if err == nil {
		err = Judge(dir)
	}
	var distrust *TrustError
	if errors.As(err, &distrust) {
		distrust.Fix = "set FALCON_HOME to a folder of your own, or mend whose it is and who may write to it"
	}
	if err != nil {
		return nil, fmt.Errorf("list of topologies: %w", err)
	}
	return &Folder{path: dir}, nil
}

// Claim proposes an identity for a folder and lists it under an ID that nobody
// else has.
func (r Registry) Claim(f *Folder, i Identity) error {
	list, err := r.open()
	if err == nil {
		err = list.Create()
	}
	i.ID = f.ID()
	for err == nil {
		f.identity = i.complete()
		err = list.createJSON(i.ID+".json", Entry{f.identity, PlaceOf(f.path)})
		if !errors.Is(err, os.ErrExist) {
			break
		}
		i.ID, err = newID(), nil
	}
	if err != nil {
		return fmt.Errorf("list of topologies: %w", err)
	}
	return nil
}

// Add lists a folder. Adding it again replaces the entry.
func (r Registry) Add(f *Folder, topology string) error {
	list, err := r.open()
	if err == nil {
		err = list.Create()
	}
	if err == nil {
		i := f.identity.complete()
		i.Topology = topology
		err = list.WriteJSON(i.ID+".json", Entry{i, PlaceOf(f.path)})
	}
	if err != nil {
		return fmt.Errorf("list of topologies: %w", err)
	}
	return nil
}

// Get returns the entry of an ID. The error wraps os.ErrNotExist when there is
// none.
func (r Registry) Get(id string) (Entry, error) {
	list, err := r.open()
	if err != nil {
		return Entry{}, err
	}
	var e Entry
	if err := list.ReadJSON(id+".json", &e); err != nil {
		return e, err
	}
	if e.ID != id || !ValidID(id) || !filepath.IsAbs(e.Folder) {
		return e, fmt.Errorf("%s is damaged", list.File(id+".json"))
	}
	return e, nil
}

// Remove takes a folder from the list by its ID.
func (r Registry) Remove(id string) error {
	if !ValidID(id) {
		return fmt.Errorf("list of topologies: %q is not the ID of one", id)
	}
	list, err := r.open()
	if err != nil {
		return err
	}
	return list.RemoveFile(id + ".json")
}

// List returns the listed topologies in the order of their IDs. Files that
// are no entry are left out.
func (r Registry) List() ([]Entry, error) {
	list, err := r.open()
	if err != nil {
		return nil, err
	}
	files, err := os.ReadDir(list.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list of topologies: %w", err)
	}
	var entries []Entry
	for _, file := range files {
		id, ok := strings.CutSuffix(file.Name(), ".json")
		if !ok || !ValidID(id) {
			continue
		}
		if e, err := r.Get(id); err == nil {
			entries = append(entries, e)
		}
	}
	return entries, nil
}
