package falcon

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/process"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
	"github.com/falcon-vm/falcon-go/internal/printable"
	"github.com/falcon-vm/falcon-go/propolis/server"
)

// CopyError says that a state folder is a copy of another one, whose topology it
// would act on.
type CopyError struct{ Folder, Original string }

// Error implements error.
func (e *CopyError) Error() string {
	return fmt.Sprintf("state folder %s is a copy of %s, whose topology is not its own: work there, and remove the copy with: rm -r %s", e.Folder, e.Original, printable.Word(e.Folder))
}

// serverNames are the names under which falcon starts what runs nodes.
var serverNames = []string{serverName, simName, starterName}

// mine reports whether a marked process is of a topology of this user's: as
// root, of one whose home is root's.
func mine(m process.Mark) bool {
	return m.UID == os.Geteuid() || ours(m.UID) && trustedHome(m.Home)
}

// ours reports whether a user is this one, or as root one of those that
// hypervisors run as.
func ours(uid int) bool {
	return uid == os.Geteuid() || os.Geteuid() == 0 && server.FirstID <= uid && uid < server.EndID
}

// trustedHome reports whether nobody else can have written what is in a home.
func trustedHome(home string) bool {
	return filepath.IsAbs(home) && fileExists(home) && state.JudgeHome(home) == nil
}

// marked returns the processes of the topology with an ID; of all for an empty
// one.
func marked(id string) ([]process.Mark, error) {
	all, err := process.Marked(ours)
	self := os.Getpid()
	return slices.DeleteFunc(all, func(m process.Mark) bool {
		return m.PID == self || !state.ValidID(m.Lab) || id != "" && m.Lab != id || !mine(m)
	}), err
}

// worksIn reports whether a process works in a folder, or in one of its nodes'.
func worksIn(m process.Mark, folder state.Place) bool {
	return state.PlaceOf(m.Dir).Same(folder) || state.PlaceOf(filepath.Dir(m.Dir)).Same(folder)
}

// recoverIdentity finds out whose a folder is that has lost its identity: by the
// topology's record, by the list of topologies, or by a process that works in it.
func recoverIdentity(f *state.Folder) error {
	here := state.PlaceOf(f.Path())
	if _, known := f.Identity(); known || here.Inode == 0 {
		return nil
	}
	var r record
	if err := f.ReadJSON(recordFile, &r); err == nil && state.ValidID(r.ID) && filepath.IsAbs(r.Home) {
		f.Adopt(state.Identity{ID: r.ID, Topology: r.Topology, Home: r.Home, Host: r.Host, Dataset: r.Dataset, Created: r.Created})
		return nil
	}
	home, err := image.DefaultHome()
	if err != nil {
		return err
	}
	homes := []string{home}
	marks, err := marked("")
	if err != nil {
		return err
	}
	marks = slices.DeleteFunc(marks, func(m process.Mark) bool { return !worksIn(m, here) })
	for _, m := range marks {
		homes = append(homes, m.Home)
	}
	for _, home := range homes {
		for _, r := range registriesOf(home) {
			entries, _ := r.List() // one that cannot be read tells nothing
			for _, e := range entries {
				if e.Same(here) || e.Folder == here.Folder && (f.Has(recordFile) || f.Has(state.JournalFile)) {
					f.Adopt(e.Identity)
					return nil
				}
			}
		}
	}
	for _, m := range marks {
		f.Adopt(state.Identity{ID: m.Lab, Home: m.Home})
	}
	return nil
}

// settle compares where the folder is with where its topology is listed: it goes
// on in a folder that was moved, and refuses one that was copied.
func (l *lab) settle() error {
	i, known := l.folder.Identity()
	if !known {
		return nil
	}
	e, err := l.host.registry().Get(i.ID)
	if errors.Is(err, os.ErrNotExist) {
		return nil // it was not listed yet, or is not any more
	}
	if err != nil {
		return err
	}
	here := state.PlaceOf(l.folder.Path())
	switch {
	case here.Same(e.Place) && here.Folder == e.Folder:
		return nil
	case here.Same(e.Place):
	case here.Folder != e.Folder && (state.PlaceOf(e.Folder).Same(e.Place) || state.Holds(e.Folder, i.ID)):
		return &CopyError{here.Folder, e.Folder}
	default:
		if original, err := worksElsewhere(i.ID, here); err != nil {
			return err
		} else if original != "" {
			return &CopyError{here.Folder, original}
		}
	}
	l.log.Info("the state folder was moved", "from", e.Folder, "to", here.Folder)
	return l.list()
}

// worksElsewhere returns the folder in which a topology's servers work that is
// not the given one; empty when there is none.
func worksElsewhere(id string, here state.Place) (string, error) {
	marks, err := marked(id)
	for _, m := range marks {
		if m.Runs(serverNames...) && state.PlaceOf(m.Dir).Inode != 0 && !worksIn(m, here) {
			return m.Dir, err
		}
	}
	return "", err
}

// registriesOf returns where a home lists topologies: those of the machine, and
// simulated ones.
func registriesOf(home string) []state.Registry {
	return []state.Registry{{Dir: registryDir(home)}, {Dir: registryDir(filepath.Join(home, "sim"))}}
}

// hostRegistry lists root's topologies of all homes, as long as the host runs:
// what they have on the host is in one place, whatever their home.
var hostRegistry = state.Registry{Dir: "/run/falcon/labs"}

// list lists the folder's topology.
func (l *lab) list() error {
	i, _ := l.folder.Identity()
	name := cmp.Or(i.Topology, l.name)
	err := l.host.registry().Add(l.folder, name)
	if err == nil && l.host.namespace() != "" {
		err = hostRegistry.Add(l.folder, name)
	}
	return err
}

// unlist takes a topology from the lists.
func (l *lab) unlist(id string) error {
	err := l.host.registry().Remove(id)
	if l.host.namespace() != "" {
		err = errors.Join(err, hostRegistry.Remove(id))
	}
	return err
}

// claim lists a folder that has no identity, before anything is made in it: what
// a killed launch leaves is then found.
func (l *lab) claim() error {
	if _, known := l.folder.Identity(); known {
		return nil
	}
	l.fresh = true
	return l.host.registry().Claim(l.folder, state.Identity{
		Topology: l.name, Home: l.home, Host: l.host.kind(), Dataset: l.host.store().Dataset()})
}

// identify gives the folder its identity. The caller holds the lock; another may
// have held it since claim.
func (l *lab) identify() error {
	proposed := l.folder.ID()
	found, err := l.folder.Reload()
	if err != nil {
		return err
	}
	if !found {
		return l.folder.Establish()
	}
	if l.fresh && l.folder.ID() != proposed {
		l.fresh = false
		return l.host.registry().Remove(proposed)
	}
	return nil
}

// vacate removes what is left of an empty topology: last of all that it is
// listed, until which it is found.
func (l *lab) vacate() error {
	return errors.Join(l.folder.RemoveIdentity(), l.folder.RemoveLock(), l.folder.Remove(), l.unlist(l.folder.ID()))
}
