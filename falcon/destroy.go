package falcon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-multierror"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/process"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
	"github.com/falcon-vm/falcon-go/propolis"
)

// Destroy removes everything that the topology has on the host: processes,
// devices, disks and its files in the state folder. It goes by what stands, not
// by the declaration, goes on past what it cannot remove, and can be called
// again to finish, or when there is nothing to destroy. Images and snapshots
// stay.
func (t *Topology) Destroy(ctx context.Context) error {
	_, err := t.Remove(ctx)
	return err
}

// Remove is Destroy that also tells what it has removed.
func (t *Topology) Remove(ctx context.Context) (Removed, error) {
	removed, err := t.remove(ctx)
	if err != nil {
		err = fmt.Errorf("destroying %s: %w", t.name, err)
	}
	return removed, err
}

func (t *Topology) remove(ctx context.Context) (Removed, error) {
	l, err := t.open()
	if err != nil {
		return Removed{}, err
	}
	if r, err := l.record(); err == nil && r.Topology != t.name {
		return Removed{}, l.another(r) // a damaged record does not keep a destroy from going on
	}
	return l.destroy(ctx, "")
}

// DestroyFolder destroys the topology of a state folder, whatever it is,
// without its program. A folder without one is an error that wraps
// [ErrNotLaunched].
func DestroyFolder(ctx context.Context, dir string, progress func(Progress)) error {
	_, err := RemoveFolder(ctx, dir, progress)
	return err
}

// RemoveFolder is DestroyFolder that also tells what it has removed.
func RemoveFolder(ctx context.Context, dir string, progress func(Progress)) (Removed, error) {
	removed, err := destroyFolder(ctx, dir, "", progress)
	if err != nil {
		err = fmt.Errorf("destroying what is in %s: %w", dir, err)
	}
	return removed, err
}

// destroyFolder leaves a topology alone that does not have the given lease; an
// empty one stands for any.
func destroyFolder(ctx context.Context, dir, lease string, progress func(Progress)) (Removed, error) {
	l, err := openLab(dir, "", hostChoice{}, nil)
	if err != nil {
		return Removed{}, err
	}
	i, known := l.folder.Identity()
	l.name, l.to = i.Topology, progress
	if r, err := l.record(); err == nil {
		l.name = r.Topology
	}
	if !known && !l.folder.Has(recordFile) && !l.folder.Has(state.JournalFile) {
		if lease != "" {
			return Removed{}, nil
		}
		return Removed{}, errors.Join(l.clearLock(ctx), l.nothing())
	}
	return l.destroy(ctx, lease)
}

// nothing says that a folder has no topology, and where to look further.
func (l *lab) nothing() error {
	err := fmt.Errorf("state folder %s: %w", l.folder.Path(), ErrNotLaunched)
	if lost := l.lostHere(); lost != "" {
		err = fmt.Errorf("%w; %s", err, lost)
	}
	return err
}

// clearLock removes the lock that a killed launch has left in a folder, if
// nothing else is there.
func (l *lab) clearLock(ctx context.Context) error {
	names, err := l.folder.Names()
	if err != nil || len(names) != 1 {
		return err
	}
	unlock, err := l.lock(ctx, "destroy")
	if err == nil {
		unlock() // which removes it
	}
	return err
}

// Removed is what a destroy has removed. What was written down and was not there
// does not count.
type Removed struct {
	Nodes         int `json:"nodes"`
	Disks         int `json:"disks"`
	Networks      int `json:"networks"`
	ExternalLinks int `json:"external_links"`
	// Files is whether there was a state folder.
	Files bool `json:"files"`
	// Problems are what was found damaged, or not to be the topology's, and was
	// passed over.
	Problems []string `json:"problems,omitempty"`
}

// String lists what was removed, for people; it is empty for nothing.
func (r Removed) String() string {
	var parts []string
	for _, p := range []struct {
		n         int
		one, many string
	}{
		{r.Nodes, "node", "nodes"}, {r.Disks, "disk", "disks"},
		{r.Networks, "network", "networks"}, {r.ExternalLinks, "external link", "external links"},
	} {
		switch p.n {
		case 0:
		case 1:
			parts = append(parts, "1 "+p.one)
		default:
			parts = append(parts, fmt.Sprint(p.n, " ", p.many))
		}
	}
	if len(parts) == 0 && r.Files {
		return "its files"
	}
	return strings.Join(parts, ", ")
}

// count adds an object.
func (r *Removed) count(k state.Kind) {
	switch k {
	case state.Server:
		r.Nodes++
	case state.Disk:
		r.Disks++
	case state.Links:
		r.Networks++
	case state.External:
		r.ExternalLinks++
	}
}

// add adds what else was removed.
func (r *Removed) add(more Removed) {
	r.Nodes += more.Nodes
	r.Disks += more.Disks
	r.Networks += more.Networks
	r.ExternalLinks += more.ExternalLinks
	r.Files = r.Files || more.Files
	r.Problems = append(r.Problems, more.Problems...)
}

// Standing returns what the journal of a state folder lists: what [RemoveFolder]
// would remove.
func Standing(dir string) (Removed, error) {
	var r Removed
	folder, err := state.Open(dir)
	if err != nil {
		return r, err
	}
	objects, err := folder.Standing()
	for _, o := range objects {
		r.count(o.Kind)
		r.Files = true
	}
	return r, err
}

func (l *lab) destroy(ctx context.Context, lease string) (removed Removed, err error) {
	if !fileExists(l.folder.Path()) {
		if lost := l.lostHere(); lost != "" {
			removed.Problems = append(removed.Problems, lost)
		}
		return removed, nil
	}
	unlock, err := l.lock(ctx, "destroy")
	if err != nil {
		return removed, err
	}
	defer unlock()
	if lease != "" {
		if r, err := loadRecord(l.folder); err != nil || r.Lease != lease {
			return removed, nil // another program's by now
		}
	}
	_, known := l.folder.Identity()
	removed.Files = known || l.folder.Has(recordFile) || l.folder.Has(state.JournalFile)
	e, err := l.takeInventory(ctx)
	if err != nil {
		return removed, err
	}
	removed.Problems = e.problems
	j, err := l.folder.Journal()
	if err != nil {
		return removed, err
	}
	gone, err := l.remove(ctx, j, e.objects)
	for i, o := range e.objects {
		if gone[i] && e.seen[i] {
			removed.count(o.Kind)
		}
	}
	if cerr := j.Close(); err != nil {
		return removed, errors.Join(err, cerr)
	}
	return removed, l.dissolve(ctx, e.objects)
}

// remove removes objects and records that they are gone: first the processes,
// which use the others, then the rest. It goes on past errors, and says by their
// place in the list which are gone. That the topology is listed stays: a list
// that has lost one with leftovers would hide them.
func (l *lab) remove(ctx context.Context, j *state.Journal, objects []state.Object) (gone map[int]bool, err error) {
	var errs *multierror.Error
	gone = make(map[int]bool)
	worthless := l.worthless(objects)
	for _, servers := range []bool{true, false} {
		var wg sync.WaitGroup
		var mu sync.Mutex
		for i, o := range objects {
			if (o.Kind == state.Server) != servers || o.Kind == state.Registration {
				continue
			}
			wg.Go(func() {
				err := l.removeObject(ctx, o, worthless[o.Name])
				if err == nil {
					err = j.Gone(o)
				}
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					errs = multierror.Append(errs, fmt.Errorf("removing %s %s: %w", o.Kind, o.Name, err))
				} else {
					gone[i] = true
				}
			})
		}
		wg.Wait()
	}
	return gone, joined(errs)
}

// discarder is a host that can end the server of a node at once: nothing that
// the guest has written is to be kept.
type discarder interface {
	discard(ctx context.Context, f *state.Folder, o state.Object) error
}

// worthless returns the nodes of which nothing stays when the objects are
// removed: their disks are among them, and they write to no other.
func (l *lab) worthless(objects []state.Object) map[string]bool {
	nodes := make(map[string]bool)
	r, err := l.record()
	if err != nil {
		return nodes // what else they write to is not known
	}
	removed := make(map[string]bool)
	for _, o := range objects {
		if o.Kind == state.Disk {
			removed[o.Name] = true
		}
	}
	for i := range r.Plan.Nodes {
		if np := &r.Plan.Nodes[i]; removed[np.Name] && !writesElsewhere(np) {
			nodes[np.Name] = true
		}
	}
	return nodes
}

// writesElsewhere reports whether a node has a disk that is not falcon's and
// that it may write to.
func writesElsewhere(np *NodePlan) bool {
	for _, c := range np.Spec.Components {
		if file, ok := c.(propolis.FileStorageBackend); ok && file.Path != np.Disk && !file.Readonly {
			return true
		}
	}
	return false
}

// endServer ends the server of a node that is removed, in no order when the
// node is worthless.
func (l *lab) endServer(ctx context.Context, o state.Object, worthless bool, grace time.Duration) error {
	if o.Process != nil && !l.serves(*o.Process, o.Name) {
		o.Process = nil // the number was written down, and is another's
	}
	if d, ok := l.host.(discarder); ok && worthless {
		return d.discard(ctx, l.folder, o)
	}
	return l.host.end(ctx, l.folder, o, grace)
}

func (l *lab) removeObject(ctx context.Context, o state.Object, worthless bool) error {
	switch o.Kind {
	case state.Server:
		if err := l.endServer(ctx, o, worthless, endGrace); err != nil {
			return err
		}
		l.stage(o.Name, StageGone, "")
		return nil
	case state.Disk:
		store, err := l.storeOf(o)
		if err != nil {
			return err
		}
		return store.RemoveDisk(ctx, l.owner(o.Name))
	case state.Links:
		return l.host.destroyLinks(ctx, o.Name)
	case state.External:
		return l.host.destroyExternal(ctx, o)
	}
	return fmt.Errorf("this program does not know objects of that kind: use the newer program that made it")
}

// storeOf opens the store that a disk was made in: without the record, the
// environment's choice may be another.
func (l *lab) storeOf(o state.Object) (image.Store, error) {
	store := l.host.store()
	if o.Device == store.Dataset() {
		return store, nil
	}
	return image.Open(image.Options{Home: store.Home(), Dataset: cmp.Or(o.Device, image.NoDataset)})
}

// dissolve removes falcon's files from the state folder, and the folder when
// nothing else is in it. The caller holds the lock and has removed all objects.
func (l *lab) dissolve(ctx context.Context, removed []state.Object) error {
	var errs *multierror.Error
	keep := func(err error) {
		if err != nil {
			errs = multierror.Append(errs, err)
		}
	}
	keep(l.endStrays(ctx))
	nodes := nodesOf(removed, nil)
	if r, err := l.record(); err == nil {
		for _, n := range r.Plan.Nodes {
			nodes[n.Name] = true
		}
	} else {
		keep(l.nodesWithFiles(nodes))
	}
	keep(l.removeFiles(nodes))
	for _, f := range []string{linksLock, state.JournalFile, recordFile} {
		keep(l.folder.RemoveFile(f))
	}
	if errs == nil { // else it stays listed, and can be repeated
		keep(l.vacate())
	}
	return joined(errs)
}

// endStrays ends what still runs of the topology: hypervisors whose server was
// killed.
func (l *lab) endStrays(ctx context.Context) error {
	marks, err := marked(l.folder.ID())
	for _, m := range marks {
		if endable(m) {
			err = errors.Join(err, m.Terminate(ctx, endGrace))
		}
	}
	return err
}

// endable reports whether a marked process is one that falcon starts, or its
// hypervisor, and not just one that has inherited the mark.
func endable(m process.Mark) bool {
	return m.Runs(serverNames...) || strings.HasPrefix(filepath.Base(m.Args[0]), "qemu-")
}

// nodesWithFiles adds the nodes that have files in the folder, by the names of
// these.
func (l *lab) nodesWithFiles(nodes map[string]bool) error {
	names, err := l.folder.Names()
	for _, name := range names {
		node, _, _ := strings.Cut(strings.TrimPrefix(name, "."), ".")
		if namePattern.MatchString(node) && (slices.Contains(nodeFiles(node), name) || slices.Contains(nodeFiles(node), strings.TrimSuffix(name[1:], ".new"))) {
			nodes[node] = true
		}
	}
	return err
}

// removeFiles removes the files of nodes from the state folder.
func (l *lab) removeFiles(nodes map[string]bool) error {
	var files []string
	for node := range nodes {
		files = append(files, nodeFiles(node)...)
	}
	return l.folder.RemoveFiles(files)
}

// nodeFiles returns the files of a node in the state folder.
func nodeFiles(node string) []string {
	var files []string
	for _, ext := range []string{uuidExt, pidExt, vmmPIDExt, varsExt, socketExt, agentExt, asicExt, vncExt, portExt, outExt, errExt, consoleExt, lockExt, startExt} {
		files = append(files, node+ext)
	}
	// Its server, when it is killed, may leave these half-written.
	return append(files, node+vmmPIDExt+halfExt, node+varsExt+halfExt)
}
