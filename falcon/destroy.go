package falcon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/go-multierror"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
	"github.com/falcon-vm/falcon-go/propolis"
)

// Destroy removes everything that the topology has on the host: processes,
// devices, disks and its files in the state folder. It goes by the journal,
// not by the declaration, goes on past what it cannot remove, and can be
// called again to finish, or when there is nothing to destroy. Images and
// snapshots stay.
func (t *Topology) Destroy(ctx context.Context) error {
	l, err := t.open()
	if err != nil {
		return err
	}
	if _, err := l.loadOrNew(); err != nil {
		return fmt.Errorf("destroying %s: %w", t.name, err)
	}
	if err := l.destroy(ctx, ""); err != nil {
		return fmt.Errorf("destroying %s: %w", t.name, err)
	}
	return nil
}

// DestroyFolder destroys the topology of a state folder, whatever it is,
// without its program. A folder without one is an error that wraps
// [ErrNotLaunched].
func DestroyFolder(ctx context.Context, dir string, progress func(Progress)) error {
	if err := destroyFolder(ctx, dir, "", progress); err != nil {
		return fmt.Errorf("destroying what is in %s: %w", dir, err)
	}
	return nil
}

// destroyFolder leaves a topology alone that does not have the given lease; an
// empty one stands for any.
func destroyFolder(ctx context.Context, dir, lease string, progress func(Progress)) error {
	folder, err := state.Open(dir)
	if err != nil {
		return err
	}
	name := ""
	r, err := loadRecord(folder)
	switch {
	case err == nil:
		name = r.Topology
	case errors.Is(err, ErrNotLaunched) && !fileExists(folder.File(state.JournalFile)):
		if lease != "" {
			return nil
		}
		return err
	}
	// A damaged record does not keep the journal from being followed.
	l, err := openLab(dir, name, hostChoice{}, nil)
	if err != nil {
		return err
	}
	l.to = progress
	return l.destroy(ctx, lease)
}

func (l *lab) destroy(ctx context.Context, lease string) error {
	if !fileExists(l.folder.Path()) {
		return nil
	}
	unlock, err := l.lock(ctx, "destroy")
	if err != nil {
		return err
	}
	defer unlock()
	if lease != "" {
		if r, err := loadRecord(l.folder); err != nil || r.Lease != lease {
			return nil // another program's by now
		}
	}
	j, err := l.folder.Journal()
	if err != nil {
		return err
	}
	standing := j.Standing()
	err = l.remove(ctx, j, standing)
	if cerr := j.Close(); err != nil {
		return errors.Join(err, cerr)
	}
	return l.dissolve(standing)
}

// remove removes objects and records that they are gone: first the processes,
// which use the others, then the rest. It goes on past errors.
func (l *lab) remove(ctx context.Context, j *state.Journal, objects []state.Object) error {
	var errs *multierror.Error
	worthless := l.worthless(objects)
	for _, kinds := range [][]state.Kind{
		{state.Server},
		{state.Disk, state.External, state.Links},
		{state.Registration},
	} {
		var wg sync.WaitGroup
		var mu sync.Mutex
		for _, o := range objects {
			if !slices.Contains(kinds, o.Kind) {
				continue
			}
			wg.Go(func() {
				err := l.removeObject(ctx, o, worthless[o.Name])
				if err == nil {
					err = j.Gone(o)
				}
				if err != nil {
					mu.Lock()
					defer mu.Unlock()
					errs = multierror.Append(errs, fmt.Errorf("removing %s %s: %w", o.Kind, o.Name, err))
				}
			})
		}
		wg.Wait()
		// A list that has lost a topology with leftovers would hide them.
		if errs != nil && slices.Contains(kinds, state.Disk) {
			break
		}
	}
	return joined(errs)
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
func (l *lab) endServer(ctx context.Context, o state.Object, worthless bool) error {
	if d, ok := l.host.(discarder); ok && worthless {
		return d.discard(ctx, l.folder, o)
	}
	return l.host.end(ctx, l.folder, o)
}

func (l *lab) removeObject(ctx context.Context, o state.Object, worthless bool) error {
	if (o.Kind == state.Server || o.Kind == state.Disk) && !namePattern.MatchString(o.Name) {
		return errors.New("the journal is damaged: that is not the name of a node")
	}
	switch o.Kind {
	case state.Server:
		if err := l.endServer(ctx, o, worthless); err != nil {
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
	case state.Registration:
		return l.host.registry().Remove(o.Name)
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
func (l *lab) dissolve(removed []state.Object) error {
	var errs *multierror.Error
	keep := func(err error) {
		if err != nil {
			errs = multierror.Append(errs, err)
		}
	}
	nodes := nodesOf(removed, nil) // the record may be damaged
	if r, err := l.record(); err == nil {
		for _, n := range r.Plan.Nodes {
			nodes[n.Name] = true
		}
	}
	keep(l.removeFiles(nodes))
	// The record goes last but for the lock: until then this can be repeated.
	for _, f := range []string{linksLock, state.JournalFile, recordFile} {
		keep(l.folder.RemoveFile(f))
	}
	keep(l.folder.RemoveLock())
	keep(l.folder.Remove())
	return joined(errs)
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
