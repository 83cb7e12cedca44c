package falcon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
	"github.com/falcon-vm/falcon-go/internal/printable"
)

// lab is a topology at work: its folder, the host, and who is told what
// happens. It is opened for each call.
type lab struct {
	name   string
	folder *state.Folder
	// home is the FALCON_HOME of the topology, whatever the environment says.
	home string
	host host
	// fresh says that it was this call that listed the folder.
	fresh bool
	log   *slog.Logger
	reporter
	stages   stageLog
	propolis string
	command  string // what a command line that works on it begins with

	mu     sync.Mutex
	loaded *loadedRecord
}

// loadedRecord is a record as it was in a file, which is a new one whenever the
// record is replaced. Nobody changes it.
type loadedRecord struct {
	file os.FileInfo
	r    *record
}

// open prepares a call that acts on the topology's folder.
func (t *Topology) open() (*lab, error) {
	dir := t.Dir
	if dir == "" {
		dir = DefaultDir
	}
	l, err := openLab(dir, t.name, hostChoice{kind: t.Host, script: t.Sim, open: t.openHost}, t.Log)
	if err != nil {
		return nil, err
	}
	l.to, l.command = t.Progress, t.Command
	if t.Propolis != "" { // it is not started in this folder
		l.propolis, err = filepath.Abs(t.Propolis)
	}
	return l, err
}

// cure is the command line that does something to a node, for people to paste.
func (l *lab) cure(command, node string) string {
	return strings.TrimLeft(l.command+" "+command+" "+node, " ")
}

func openLab(dir, name string, asked hostChoice, log *slog.Logger) (*lab, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	folder, err := state.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := recoverIdentity(folder); err != nil {
		return nil, err
	}
	choice, err := chooseHost(folder, asked)
	if err != nil {
		return nil, err
	}
	l, err := labIn(folder, name, choice, log)
	if err != nil {
		return nil, err
	}
	return l, l.settle()
}

// labOf is a lab for what concerns the host and no topology.
func labOf(choice hostChoice) (*lab, error) {
	choice.kind = cmp.Or(choice.kind, os.Getenv(hostEnv), HostNative)
	return labIn(state.Nowhere(), "", choice, slog.New(slog.DiscardHandler))
}

// labIn opens the home and the host of a folder's topology.
func labIn(folder *state.Folder, name string, choice hostChoice, log *slog.Logger) (_ *lab, err error) {
	if choice.home == "" {
		if choice.home, err = image.DefaultHome(); err != nil {
			return nil, err
		}
	}
	h, err := newHost(choice, name, folder, log)
	if err != nil {
		return nil, err
	}
	return &lab{name: name, folder: folder, home: choice.home, host: h, log: log}, nil
}

// chooseHost returns the host of the folder's topology: that on which it is
// launched, else the one that is asked for, else that of the environment, else
// the machine's own.
func chooseHost(f *state.Folder, asked hostChoice) (hostChoice, error) {
	i, known := f.Identity()
	if known {
		asked.home = i.Home
	}
	if i.Host == "" {
		asked.kind = cmp.Or(asked.kind, os.Getenv(hostEnv), HostNative)
		return asked, nil
	}
	if asked.kind != "" && asked.kind != i.Host {
		return hostChoice{}, fmt.Errorf("the topology in %s is launched on host %s, not on %s: destroy it first, or choose another folder", f.Path(), i.Host, asked.kind)
	}
	asked.kind, asked.dataset = i.Host, cmp.Or(i.Dataset, image.NoDataset)
	return asked, nil
}

// load returns the record of the launched topology. A folder that holds
// another one is refused.
func (l *lab) load() (*record, error) {
	r, err := l.record()
	if err != nil {
		return nil, err
	}
	if r.Topology != l.name {
		return nil, l.another(r)
	}
	return r, nil
}

// another says that the folder holds another topology.
func (l *lab) another(r *record) error {
	return fmt.Errorf("state folder %s belongs to topology %s, not to %s: choose another folder, or destroy that topology with: falcon destroy %s",
		l.folder.Path(), r.Topology, l.name, printable.Word(l.folder.Path()))
}

// record is loadRecord, which is not done again while the file is the same.
func (l *lab) record() (*record, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	file, err := os.Lstat(l.folder.File(recordFile))
	if err == nil && l.loaded != nil && os.SameFile(file, l.loaded.file) && file.ModTime().Equal(l.loaded.file.ModTime()) {
		return l.loaded.r, nil
	}
	r, err := loadRecord(l.folder)
	if err == nil && file != nil { // of before: a newer file is then read again
		l.loaded = &loadedRecord{file, r}
	}
	return r, err
}

// loadOrNew is load for a folder that may be empty.
func (l *lab) loadOrNew() (*record, error) {
	r, err := l.load()
	if errors.Is(err, ErrNotLaunched) {
		return nil, nil
	}
	return r, err
}

// lock takes the folder for one command.
func (l *lab) lock(ctx context.Context, purpose string) (unlock func(), err error) {
	unlock, err = l.folder.Lock(ctx, purpose, l.waiting(purpose))
	return l.tidying(unlock), err
}

// waiting returns what reports for whom a command has to wait.
func (l *lab) waiting(purpose string) func(holder string) {
	return func(holder string) {
		l.log.Info("waiting for another falcon", "folder", l.folder.Path(), "holder", holder, "for", purpose)
		l.report(Progress{Stage: StageWait, Detail: purpose + " waits for " + holder})
	}
}

// tidying is an unlock that leaves no folder behind in which nothing has come
// to stand.
func (l *lab) tidying(unlock func()) func() {
	return func() {
		defer unlock()
		if l.folder.Has(recordFile) || l.folder.Has(state.JournalFile) {
			return
		}
		clear := func() error { return errors.Join(l.folder.RemoveLock(), l.folder.Remove()) }
		if l.fresh {
			clear = l.vacate
		}
		if err := clear(); err != nil {
			l.log.Warn("removing an empty state folder", "error", err)
		}
	}
}

// lockExisting is lock for commands that need a launched topology. The record
// is read under the lock.
func (l *lab) lockExisting(ctx context.Context, purpose string) (*record, func(), error) {
	if _, err := l.load(); err != nil {
		return nil, nil, err // without making a folder
	}
	unlock, err := l.lock(ctx, purpose)
	if err != nil {
		return nil, nil, err
	}
	r, err := l.load()
	if err == nil {
		err = l.mend(ctx)
	}
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return r, unlock, nil
}

// lockNode is lockExisting for one node, beside others who do the same with
// other nodes.
func (l *lab) lockNode(ctx context.Context, node, purpose string) (*record, func(), error) {
	if _, err := l.load(); err != nil {
		return nil, nil, err
	}
	shared, err := l.folder.LockShared(ctx, purpose, l.waiting(purpose))
	if err != nil {
		return nil, nil, err
	}
	unlock := l.tidying(shared)
	r, err := l.load()
	if err != nil {
		unlock()
		return nil, nil, err
	}
	unlockNode, err := l.folder.LockFile(ctx, node+lockExt, purpose, l.waiting(purpose))
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return r, func() { unlockNode(); unlock() }, nil
}

// owner names a node to the image store.
func (l *lab) owner(node string) image.DiskOwner {
	return image.DiskOwner{ID: l.folder.ID(), Topology: l.name, Folder: l.folder.Path(), Node: node}
}

// images returns those of the topology's images that are there.
func (l *lab) images(ctx context.Context, t *Topology) (map[string]image.Image, error) {
	images := make(map[string]image.Image)
	for _, n := range t.nodes {
		if _, ok := images[n.image]; ok {
			continue
		}
		img, err := l.host.store().Get(ctx, n.image)
		if errors.Is(err, image.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, &NodeError{Node: n.name, Err: err}
		}
		images[n.image] = img
	}
	return images, nil
}

// facts collects what a plan needs to know.
func (l *lab) facts(ctx context.Context, t *Topology, r *record) (facts, hostFacts, error) {
	hf, err := l.host.look(ctx, t)
	if err != nil {
		return facts{}, hf, err
	}
	images, err := l.images(ctx, t)
	if err != nil {
		return facts{}, hf, err
	}
	wd, err := os.Getwd()
	if err != nil {
		return facts{}, hf, err
	}
	f := facts{
		fabric: l.host, images: images, workDir: wd,
		dataset:          l.host.store().Dataset(),
		diskPath:         func(n *Node) string { return l.host.store().DiskPath(l.owner(n.name), n.backing) },
		defaultInterface: hf.defaultInterface,
		noSoftNPU:        hf.noSoftNPU, noSidecar: hf.noSidecar, noExternal: hf.noExternal, noProgram: hf.noProgram,
		hostLimits: hf.hostLimits,
		takenMACs:  make(map[string]bool),
		takenIDs:   make(map[int]bool),
	}
	if r != nil {
		f.recordedMACs = r.MACs
	}
	others, err := l.neighbours()
	if err != nil {
		return facts{}, hf, err
	}
	for _, other := range others {
		f.takenIDs[other.IDBase] = true
		for _, n := range other.Plan.Nodes {
			for _, i := range n.Interfaces {
				f.takenMACs[i.MAC] = true
			}
		}
	}
	return f, hf, nil
}

// neighbours returns the records of the other topologies on the host.
func (l *lab) neighbours() ([]*record, error) {
	entries, err := l.host.registry().List()
	if err != nil {
		return nil, err
	}
	var records []*record
	for _, e := range entries {
		if e.ID == l.folder.ID() {
			continue
		}
		folder, err := state.Open(e.Folder)
		if err != nil {
			l.log.Warn("passing over a listed topology", "topology", e.Topology, "error", err)
			continue
		}
		if r, err := loadRecord(folder); err == nil {
			records = append(records, r)
		}
	}
	return records, nil
}

// registryDir is where a home keeps the list of topologies.
func registryDir(home string) string { return filepath.Join(home, "labs") }
