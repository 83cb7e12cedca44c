package falcon

import (
	"context"
	"errors"
	"fmt"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
)

// DoctorReport is what this host can do, and what dead topologies have left
// on it.
type DoctorReport struct {
	Checks    []Check    `json:"checks"`
	Leftovers []Leftover `json:"leftovers"`
}

// Leftover is an object of a topology that cannot be reached any more.
type Leftover struct {
	// Kind and Name say what it is: a "namespace", a "disk", a
	// "registration" in the list of topologies, or a "draft", an "image", a
	// "volume", a "file" or a "download" that was not finished.
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Reason says how it is known that nobody uses it.
	Reason string `json:"reason"`
	Fixed  bool   `json:"fixed"`
	Error  string `json:"error,omitempty"`

	remove func(context.Context) error
}

// Doctor looks at what this host can do and for leftovers, which it removes
// when fix is set. A report with failed checks is no error.
func Doctor(ctx context.Context, fix bool) (*DoctorReport, error) {
	labs, err := hosts()
	if err != nil {
		return nil, err
	}
	r := &DoctorReport{Checks: labs[0].host.survey(ctx), Leftovers: []Leftover{}}
	var left []Leftover
	for _, l := range labs {
		disks, err := storedDisks(ctx, l.host.store())
		if err != nil {
			return nil, err
		}
		r.Checks = append(r.Checks, disks...)
		of, err := l.leftovers(ctx)
		if err != nil {
			return nil, err
		}
		left = append(left, of...)
	}
	for _, o := range left {
		if fix {
			if err := o.remove(ctx); err != nil {
				o.Error = err.Error()
			}
			o.Fixed = o.Error == ""
		}
		r.Leftovers = append(r.Leftovers, o)
	}
	return r, nil
}

func (l *lab) leftovers(ctx context.Context) ([]Leftover, error) {
	entries, err := l.host.registry().List()
	if err != nil {
		return nil, err
	}
	var left []Leftover
	listed := make(map[string]bool)
	for _, e := range entries {
		folder, err := state.Open(e.Folder)
		if err != nil {
			return nil, err
		}
		if fileExists(folder.File(recordFile)) || fileExists(folder.File(state.JournalFile)) {
			listed[e.ID] = true
			continue
		}
		left = append(left, Leftover{Kind: "registration", Name: e.Topology,
			Reason: fmt.Sprintf("its state folder %s holds no topology", e.Folder),
			remove: func(context.Context) error { return l.host.registry().Remove(e.ID) }})
	}
	disks, err := l.leftDisks(ctx, listed)
	if err != nil {
		return nil, err
	}
	left = append(left, disks...)
	stored, err := l.abandonedInStore(ctx)
	if err != nil {
		return nil, err
	}
	left = append(left, stored...)
	devices, err := l.host.abandonedLinks(ctx, listed)
	return append(left, devices...), err
}

// leftDisks finds disks of topologies that are gone. Those in files may be from
// before there was ZFS.
func (l *lab) leftDisks(ctx context.Context, listed map[string]bool) ([]Leftover, error) {
	stores := []image.Store{l.host.store()}
	if stores[0].Dataset() != "" {
		files, err := image.OpenFiles(image.Options{Home: stores[0].Home()})
		if err != nil {
			return nil, err
		}
		stores = append(stores, files)
	}
	var left []Leftover
	for _, store := range stores {
		disks, err := store.Disks(ctx)
		if err != nil {
			return nil, err
		}
		for _, d := range disks {
			if !listed[d.Owner.ID] && !launchedIn(d.Owner) {
				left = append(left, Leftover{Kind: "disk", Name: d.Path,
					Reason: fmt.Sprintf("%s is not launched any more", d.Owner),
					remove: func(ctx context.Context) error { return store.RemoveDisk(ctx, d.Owner) }})
			}
		}
	}
	return left, nil
}

// abandonedInStore finds what killed programs have left beside images and disks.
func (l *lab) abandonedInStore(ctx context.Context) ([]Leftover, error) {
	store, ok := l.host.store().(image.Sweeper)
	if !ok {
		return nil, nil
	}
	all, err := store.Abandoned(ctx)
	var left []Leftover
	for _, a := range all {
		left = append(left, Leftover{Kind: a.Kind, Name: a.Name, Reason: a.Reason, remove: a.Remove})
	}
	return left, err
}

// launchedIn reports whether the folder of a disk's owner holds its topology,
// whatever the list says.
func launchedIn(o image.DiskOwner) bool {
	folder, err := state.Open(o.Folder)
	if err != nil {
		return true // not knowing is no reason to remove a disk
	}
	_, err = loadRecord(folder)
	return !errors.Is(err, ErrNotLaunched) || fileExists(folder.File(state.JournalFile))
}
