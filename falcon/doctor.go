package falcon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/process"
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
	// Kind and Name say what it is: a "process", a "registration" in the list
	// of topologies, a "disk", a "namespace", a "device", "links", the
	// "journal" of a topology that stands, which is then written anew, or a
	// "draft", a "snapshot", an "image", a "volume", a "file" or a "download" that was not
	// finished.
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Reason says how it is known that nobody uses it.
	Reason string `json:"reason"`
	Fixed  bool   `json:"fixed"`
	Error  string `json:"error,omitempty"`

	// lab is the ID of the topology whose it was; empty for a store's.
	lab    string
	remove func(context.Context) error
}

// Doctor looks at what this host can do and for leftovers, which it removes
// when fix is set. A report with failed checks is no error.
func Doctor(ctx context.Context, fix bool) (*DoctorReport, error) {
	labs, err := hosts("")
	if err != nil {
		return nil, err
	}
	r := &DoctorReport{Checks: labs[0].host.survey(ctx), Leftovers: []Leftover{}}
	d := newDoctor(labs)
	disks, err := storedDisks(ctx, labs)
	if err != nil {
		return nil, err
	}
	r.Checks = append(r.Checks, disks...)
	if err := d.otherHomes(); err != nil {
		return nil, err
	}
	// What a process uses is offered once the process has gone.
	for _, find := range []func(context.Context) ([]Leftover, error){d.processes, d.objects} {
		left, err := d.left(ctx, find)
		if err != nil {
			return nil, err
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
	}
	r.Checks = append(r.Checks, d.missing...)
	return r, nil
}

// doctor is what one knows of the host: a lab for each kind of host and
// each home in which this user has topologies.
type doctor struct {
	labs []*lab
	own  int // of labs, those of this home
	// listed are the IDs of topologies that can be reached; lost are the
	// entries of the others, by the lab whose list they are in.
	listed map[string]bool
	lost   map[*lab][]state.Entry
	// fates are what became of the folders that were looked for, by ID: nil of
	// one that is gone, else why nothing of its topology may be removed.
	fates map[string]error
	// missing tells of folders of which that is not known.
	missing []Check
	// closed are the homes that cannot be read.
	closed map[string]bool
}

func newDoctor(labs []*lab) *doctor {
	return &doctor{labs: labs, own: len(labs), listed: make(map[string]bool), closed: make(map[string]bool), fates: make(map[string]error)}
}

// otherHomes adds the homes of running topologies, and as root of those that
// have something on the host.
func (d *doctor) otherHomes() error {
	marks, err := marked("")
	if err != nil {
		return err
	}
	var homes []string
	for _, m := range marks {
		homes = append(homes, m.Home)
	}
	if os.Geteuid() == 0 {
		entries, err := hostRegistry.List()
		if err != nil {
			return err
		}
		for _, entry := range entries {
			homes = append(homes, entry.Home)
		}
	}
	known := map[string]bool{d.labs[0].home: true}
	for _, home := range homes {
		if known[home] || !filepath.IsAbs(home) {
			continue
		}
		known[home] = true
		// What cannot be read of another home is left alone.
		labs, err := hosts(home)
		for _, l := range labs {
			if _, lerr := l.host.registry().List(); lerr != nil {
				err = errors.Join(err, lerr)
			}
		}
		if err == nil {
			d.labs = append(d.labs, labs...)
		} else {
			d.closed[home] = true
		}
	}
	return nil
}

// left is what find finds of topologies that cannot be reached, neither before nor
// after that: one that is launched meanwhile is listed before it makes anything.
func (d *doctor) left(ctx context.Context, find func(context.Context) ([]Leftover, error)) ([]Leftover, error) {
	if err := d.list(ctx); err != nil {
		return nil, err
	}
	left, err := find(ctx)
	if err != nil {
		return nil, err
	}
	if err := d.list(ctx); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(left, func(o Leftover) bool { return d.listed[o.lab] }), nil
}

// list finds out which topologies can be reached.
func (d *doctor) list(ctx context.Context) error {
	all, of, err := d.known(ctx)
	if err != nil {
		return err
	}
	marks, err := marked("")
	if err != nil {
		return err
	}
	for _, m := range marks { // whatever became of the lists
		if entry := (state.Entry{Identity: state.Identity{ID: m.Lab}}); state.Holds(m.Dir, m.Lab) && in(entry, m.Dir) {
			d.listed[m.Lab] = true
		}
	}
	var missing []state.Entry
	for _, entry := range all {
		if d.listed[entry.ID] = d.listed[entry.ID] || reachable(entry); !d.listed[entry.ID] {
			missing = append(missing, entry)
		}
	}
	d.seek(ctx, missing)
	d.lost = make(map[*lab][]state.Entry)
	for _, entry := range missing {
		if d.fates[entry.ID] != nil {
			d.listed[entry.ID] = true
		} else if l := of[entry.ID]; l != nil {
			d.lost[l] = append(d.lost[l], entry)
		}
	}
	return nil
}

// known returns the topologies that are on a list, with the lab whose list that
// is, and those that have nothing but disks.
func (d *doctor) known(ctx context.Context) (all []state.Entry, of map[string]*lab, err error) {
	of = make(map[string]*lab)
	for _, l := range d.labs {
		entries, err := l.entries()
		if err != nil {
			return nil, nil, err
		}
		for _, entry := range entries {
			if of[entry.ID] == nil {
				of[entry.ID] = l
				all = append(all, entry)
			}
		}
	}
	for _, l := range d.labs {
		owners, err := l.diskOwners(ctx)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, slices.DeleteFunc(owners, func(o state.Entry) bool { return of[o.ID] != nil })...)
	}
	return all, of, nil
}

// entries returns what is listed: on a host that keeps a list of its own, also what
// its home has lost.
func (l *lab) entries() ([]state.Entry, error) {
	entries, err := l.host.registry().List()
	if err == nil && l.host.namespace() != "" {
		entries, err = withHostEntries(entries)
	}
	return entries, err
}

// withHostEntries adds to a home's entries those of the host whose home does not
// list them.
func withHostEntries(entries []state.Entry) ([]state.Entry, error) {
	all, err := hostRegistry.List()
	for _, entry := range all {
		listed := false
		for _, r := range registriesOf(entry.Home) {
			_, rerr := r.Get(entry.ID)
			listed = listed || !errors.Is(rerr, os.ErrNotExist)
		}
		if !listed {
			entries = append(entries, entry)
		}
	}
	return entries, err
}

// processes finds those of topologies that cannot be reached.
func (d *doctor) processes(context.Context) ([]Leftover, error) {
	marks, err := marked("")
	var left []Leftover
	for _, m := range marks {
		if d.listed[m.Lab] || d.closed[m.Home] || !endable(m) {
			continue
		}
		left = append(left, Leftover{lab: m.Lab, Kind: "process", Name: fmt.Sprintf("%d (%s)", m.PID, m.Args[0]),
			Reason: fmt.Sprintf("it runs %s of topology %s, which cannot be reached any more; once it has ended, that topology's disks and links go as well", cmp.Or(m.Node, "nodes"), m.Lab),
			remove: func(ctx context.Context) error { return m.Terminate(ctx, endGrace) }})
	}
	return left, err
}

// objects finds what else there is of topologies that cannot be reached.
func (d *doctor) objects(ctx context.Context) ([]Leftover, error) {
	marks, err := marked("")
	if err != nil {
		return nil, err
	}
	for _, m := range marks { // they have not been ended
		d.listed[m.Lab] = true
	}
	var left []Leftover
	for _, l := range d.labs {
		for _, entry := range d.lost[l] {
			if d.listed[entry.ID] {
				continue
			}
			left = append(left, Leftover{lab: entry.ID, Kind: "registration", Name: entry.Topology,
				Reason: fmt.Sprintf("its state folder %s holds no topology", entry.Folder),
				remove: func(ctx context.Context) error { return l.forget(ctx, entry) }})
		}
		journals, err := l.badJournals(ctx)
		if err != nil {
			return nil, err
		}
		disks, err := l.leftDisks(ctx, d.listed)
		if err != nil {
			return nil, err
		}
		stored, err := l.abandonedInStore(ctx)
		if err != nil {
			return nil, err
		}
		left = append(append(append(left, journals...), disks...), stored...)
	}
	for _, l := range d.labs[:d.own] { // links are the host's, whatever the home
		devices, err := l.host.abandonedLinks(ctx, d.listed)
		if err != nil {
			return nil, err
		}
		left = append(left, devices...)
	}
	return left, nil
}

// forget takes a topology that cannot be reached from the list, and what a
// killed launch has left in its folder.
func (l *lab) forget(ctx context.Context, e state.Entry) error {
	f, err := state.Open(e.Folder)
	if err == nil && f.ID() == e.ID {
		_, err = destroyFolder(ctx, e.Folder, "", nil)
	} else if err == nil {
		err = (&lab{folder: f, home: l.home, host: l.host, log: l.log}).clearLock(ctx)
	}
	return errors.Join(err, l.unlist(e.ID))
}

// badJournals finds listed topologies whose journal does not say what stands.
func (l *lab) badJournals(context.Context) ([]Leftover, error) {
	entries, err := l.host.registry().List()
	if err != nil {
		return nil, err
	}
	var left []Leftover
	for _, e := range entries {
		of, err := openLab(e.Folder, e.Topology, hostChoice{}, l.log)
		if err != nil || of.folder.ID() != e.ID {
			continue // who works in it is told
		}
		_, locked := of.folder.Locked("")
		if why := of.journalFault(); why != "" && !locked {
			left = append(left, Leftover{Kind: "journal", Name: e.Topology, Reason: why,
				remove: func(ctx context.Context) error {
					_, unlock, err := of.lockExisting(ctx, "doctor") // which mends it
					if err == nil {
						unlock()
					}
					return err
				}})
		}
	}
	return left, nil
}

// leftDisks finds disks of topologies that cannot be reached, and that nobody has
// open.
func (l *lab) leftDisks(ctx context.Context, listed map[string]bool) ([]Leftover, error) {
	stores, err := l.stores()
	if err != nil {
		return nil, err
	}
	var left []Leftover
	for _, store := range stores {
		disks, err := store.Disks(ctx)
		if err != nil {
			return nil, err
		}
		var paths []string
		var lost []image.Disk
		for _, d := range disks {
			if !listed[d.Owner.ID] {
				lost, paths = append(lost, d), append(paths, d.Path)
			}
		}
		open, err := process.Opened(paths, ours)
		if err != nil {
			return nil, err
		}
		for _, d := range lost {
			if !open[d.Path] {
				left = append(left, Leftover{lab: d.Owner.ID, Kind: "disk", Name: d.Path,
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
