package falcon

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/process"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
	"github.com/falcon-vm/falcon-go/internal/printable"
)

// inventory is all that stands of a topology: what is written down of it, and what
// the host shows to be its own.
type inventory struct {
	objects []state.Object
	// seen are those that the host shows, by their place in objects.
	seen map[int]bool
	// problems are what is written down and not believed.
	problems []string
}

// add adds an object, or what becomes known of one.
func (e *inventory) add(o state.Object, seen bool) {
	i := slices.IndexFunc(e.objects, func(have state.Object) bool {
		return have.Kind == o.Kind && (have.Name == o.Name || o.Kind == state.External && have.Device == o.Device)
	})
	switch {
	case i < 0:
		i = len(e.objects)
		e.objects = append(e.objects, o)
	case o.Process != nil:
		e.objects[i].Process = o.Process
	}
	if seen {
		e.seen[i] = true
	}
}

// takeInventory compares the journal with the processes, disks and links of the host
// that carry the topology's ID.
func (l *lab) takeInventory(ctx context.Context) (*inventory, error) {
	e := &inventory{seen: make(map[int]bool)}
	written, err := l.folder.Standing()
	var damaged *state.DamagedError
	if errors.As(err, &damaged) {
		e.problems = append(e.problems, damaged.Error())
	} else if err != nil {
		return nil, err
	}
	for _, o := range written {
		if why := l.disowned(o); why != "" {
			e.problems = append(e.problems, fmt.Sprintf("the journal lists %s %q: %s", o.Kind, o.Name, why))
			continue
		}
		if o.Process != nil && o.Process.Alive() && !l.serves(*o.Process, o.Name) {
			e.problems = append(e.problems, fmt.Sprintf("the journal has process %d for node %s: it is not a server of it, and is left alone", o.Process.PID, o.Name))
			o.Process = nil
		}
		e.add(o, o.Process != nil && o.Process.Alive())
	}
	running, err := l.runningServers()
	if err != nil {
		return nil, err
	}
	for _, o := range running {
		e.add(o, true)
	}
	disks, err := l.disks(ctx)
	if err != nil {
		return nil, err
	}
	for _, o := range disks {
		e.add(o, true)
	}
	links, err := l.host.standing(ctx)
	for _, o := range links {
		e.add(o, true)
	}
	return e, err
}

// disowned says why an object of the journal is not believed to be the
// topology's own; empty when it is.
func (l *lab) disowned(o state.Object) string {
	switch o.Kind {
	case state.Server, state.Disk:
		if !namePattern.MatchString(o.Name) {
			return "that is not the name of a node"
		}
	case state.Links:
		if o.Name != "" && !regexp.MustCompile(`^falcon-[A-Za-z0-9_]+-`+l.folder.ID()+`$`).MatchString(o.Name) {
			return "that is not a network of this topology"
		}
	case state.External:
		if l.host.namespace() != "" && o.Device != l.host.device(o.Name, "", 0, true) {
			return fmt.Sprintf("its device %q is not one of this topology", o.Device)
		}
	case state.Registration:
		if o.Name != l.folder.ID() {
			return "that is not the ID of this topology"
		}
	default: // a newer falcon's record has a newer version
		return "there are no objects of that kind"
	}
	return ""
}

// serves reports whether a process is one that falcon has started for a node of
// this topology: by its mark, and by what it runs.
func (l *lab) serves(p process.Identity, node string) bool {
	m, err := p.Mark()
	if errors.Is(err, process.ErrUntold) {
		return true // its start time has to do
	}
	return err == nil && m.Lab == l.folder.ID() && (m.Node == node || m.Node == "") && m.Runs(serverNames...)
}

// mark is what a process started for a node says of itself.
func (l *lab) mark(node string) process.Mark {
	if _, known := l.folder.Identity(); !known {
		return process.Mark{Home: l.home} // a template's, which ends with its maker
	}
	return process.Mark{Lab: l.folder.ID(), Node: node, Home: l.home}
}

// runningServers finds the servers of nodes by their marks. One that serves all
// nodes is that of each whose socket is there.
func (l *lab) runningServers() ([]state.Object, error) {
	marks, err := marked(l.folder.ID())
	if err != nil {
		return nil, err
	}
	var objects []state.Object
	for _, m := range marks {
		nodes := []string{m.Node}
		if m.Node == "" {
			if nodes, err = l.servedNodes(); err != nil {
				return nil, err
			}
		}
		for _, node := range nodes {
			if m.Runs(serverNames...) && namePattern.MatchString(node) {
				objects = append(objects, state.Object{Kind: state.Server, Name: node, Process: &m.Identity})
			}
		}
	}
	return objects, nil
}

// servedNodes returns the nodes that have a socket in the folder.
func (l *lab) servedNodes() ([]string, error) {
	names, err := l.folder.Names()
	var nodes []string
	for _, name := range names {
		if node, ok := strings.CutSuffix(name, socketExt); ok && namePattern.MatchString(node) {
			nodes = append(nodes, node)
		}
	}
	return nodes, err
}

// disks finds the topology's disks by their records.
func (l *lab) disks(ctx context.Context) ([]state.Object, error) {
	stores, err := l.stores()
	if err != nil {
		return nil, err
	}
	var objects []state.Object
	for _, store := range stores {
		disks, err := store.Disks(ctx)
		if err != nil {
			l.log.Warn("looking for disks", "error", err) // a record of another's may be damaged
		}
		for _, d := range disks {
			if d.Owner.ID == l.folder.ID() && namePattern.MatchString(d.Owner.Node) {
				objects = append(objects, state.Object{Kind: state.Disk, Name: d.Owner.Node, Device: store.Dataset()})
			}
		}
	}
	return objects, nil
}

// stores returns where disks can be. Those in files may be from before there was
// ZFS.
func (l *lab) stores() ([]image.Store, error) {
	stores := []image.Store{l.host.store()}
	if stores[0].Dataset() != "" {
		files, err := image.OpenFiles(image.Options{Home: stores[0].Home()})
		if err != nil {
			return nil, err
		}
		stores = append(stores, files)
	}
	return stores, nil
}

// servers returns the servers of nodes: those of the journal, and those that run
// and are not in it.
func (l *lab) servers() (map[string]state.Object, error) {
	found := make(map[string]state.Object)
	written, err := l.folder.Standing()
	var damaged *state.DamagedError
	if err != nil && !errors.As(err, &damaged) {
		return nil, err
	}
	for _, o := range written {
		if o.Kind == state.Server {
			found[o.Name] = o
		}
	}
	if _, known := l.folder.Identity(); !known {
		return found, nil
	}
	running, err := l.runningServers()
	for _, o := range running {
		if have, ok := found[o.Name]; !ok || have.Process == nil || !have.Process.Alive() {
			found[o.Name] = o
		}
	}
	return found, err
}

// journalFault says what keeps the journal from telling what stands; empty when it
// does.
func (l *lab) journalFault() string {
	if _, known := l.folder.Identity(); !known {
		return ""
	}
	written, err := l.folder.Standing()
	switch {
	case err != nil:
		return err.Error()
	case !slices.ContainsFunc(written, func(o state.Object) bool { return o.Kind == state.Registration }):
		return fmt.Sprintf("journal %s has lost what it listed", l.folder.File(state.JournalFile))
	}
	return ""
}

// remains says what stands of a topology whose record cannot be read; empty for
// nothing.
func (l *lab) remains(ctx context.Context) string {
	if _, known := l.folder.Identity(); !known {
		return ""
	}
	e, err := l.takeInventory(ctx)
	if err != nil {
		return ""
	}
	var stands Removed
	for i := range e.seen {
		stands.count(e.objects[i].Kind)
	}
	if stands.String() == "" {
		return ""
	}
	return fmt.Sprintf("; of the topology there stand %s: remove them with: falcon destroy %s", stands, printable.Word(l.folder.Path()))
}

// problems returns what is wrong with what is written down of a topology, whose
// record is nil when there is none.
func (l *lab) problems(ctx context.Context, r *record) []string {
	var found []string
	if r == nil {
		if left := l.remains(ctx); left != "" {
			found = append(found, recordFile+" is gone"+left)
		} else if lost := l.lostHere(); lost != "" {
			found = append(found, lost)
		}
		return found
	}
	if why := l.journalFault(); why != "" {
		found = append(found, why+"; write it anew with: falcon doctor --fix")
	}
	return found
}

// mend writes the journal anew when lines of it cannot be read, or it is gone.
// The caller holds the lock for itself alone.
func (l *lab) mend(ctx context.Context) error {
	if l.fresh || l.journalFault() == "" {
		return nil
	}
	e, err := l.takeInventory(ctx)
	if err != nil {
		return err
	}
	for _, p := range e.problems {
		l.log.Warn("the journal is written anew", "folder", l.folder.Path(), "problem", p)
	}
	if err := l.folder.RemoveFile(state.JournalFile); err != nil {
		return err
	}
	j, err := l.folder.Journal()
	if err != nil {
		return err
	}
	defer j.Close()
	e.add(state.Object{Kind: state.Registration, Name: l.folder.ID()}, true)
	return j.Make(e.objects...)
}
