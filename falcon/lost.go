package falcon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/falcon-vm/falcon-go/falcon/internal/process"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
	"github.com/falcon-vm/falcon-go/internal/printable"
)

// A state folder that is not where it was may have been moved, with all that its
// user made. Nothing of its topology is removed until it is known to be gone.

// reachable reports whether a listed topology has a folder.
func reachable(e state.Entry) bool { return folderOf(e) != "" }

// folderOf returns the folder of a listed topology: where it was, near to that, or
// where the host says that it is; empty when it is not there.
func folderOf(e state.Entry) string {
	if in(e, e.Folder) {
		return e.Folder
	}
	if dir, err := e.Trace(); err == nil && in(e, dir) {
		return dir
	}
	places := []string{filepath.Join(filepath.Dir(e.Folder), "*"),
		filepath.Join(filepath.Dir(filepath.Dir(e.Folder)), "*", filepath.Base(e.Folder))}
	marks, _ := marked(e.ID) // without them there is one way less to find it
	for _, m := range marks {
		places = append(places, m.Dir)
	}
	for _, pattern := range places {
		found, _ := filepath.Glob(pattern) // one that is malformed finds nothing
		for _, dir := range found {
			if dir != e.Folder && movedTo(e, dir) {
				return dir
			}
		}
	}
	return ""
}

// movedTo reports whether a folder is that of a listed topology, which was
// elsewhere.
func movedTo(e state.Entry, dir string) bool {
	here := state.PlaceOf(dir)
	return here.Inode != 0 && (here.Same(e.Place) || state.Holds(dir, e.ID)) && in(e, dir)
}

// in reports whether a folder holds a listed topology. Not knowing is no reason
// to remove anything.
func in(e state.Entry, dir string) bool {
	f, err := state.Open(dir)
	if err != nil {
		return true
	}
	if _, locked := f.Locked(""); locked { // it may be on its way
		return true
	}
	if i, known := f.Identity(); known && i.ID != e.ID {
		return false
	}
	return f.Has(recordFile) || f.Has(state.JournalFile)
}

// deleted reports whether it is certain that the folder of a topology that is
// not reachable is not on its file system any more.
func deleted(e state.Entry) bool {
	switch {
	case state.PlaceOf(e.Folder).Same(e.Place): // it stands, and its topology is not in it
		return true
	case e.Version > 0 && e.Inode == 0: // it was claimed, and the launch came no further
		return true
	}
	if dir, err := e.Trace(); err == nil || errors.Is(err, os.ErrNotExist) {
		return dir == "" || !in(e, dir)
	}
	marks, _ := marked(e.ID) // without them it is not certain
	return slices.ContainsFunc(marks, func(m process.Mark) bool {
		return m.Runs(serverNames...) && strings.HasSuffix(m.Dir, " (deleted)")
	})
}

// seek finds out what became of folders that are not reachable: it looks for them
// where they can have been moved to.
func (d *doctor) seek(ctx context.Context, missing []state.Entry) {
	missing = slices.DeleteFunc(slices.Clone(missing), func(m state.Entry) bool { _, known := d.fates[m.ID]; return known })
	gone := make(map[string]bool)
	var places []string
	for _, m := range missing {
		gone[m.ID] = deleted(m)
		for _, dir := range placesFor(m, gone[m.ID]) {
			if !slices.Contains(places, dir) {
				places = append(places, dir)
			}
		}
	}
	var mu sync.Mutex // a search that hangs goes on beside this
	found := make(map[string]string)
	err := state.Search(ctx, places, func(dir string) bool {
		for _, m := range missing {
			if movedTo(m, dir) {
				mu.Lock()
				found[m.ID] = dir
				mu.Unlock()
			}
		}
		mu.Lock()
		defer mu.Unlock()
		return len(found) == len(missing)
	})
	mu.Lock()
	defer mu.Unlock()
	for _, m := range missing {
		switch dir := found[m.ID]; {
		case dir != "":
			d.fates[m.ID] = fmt.Errorf("it is in %s", dir)
		case gone[m.ID]:
			d.fates[m.ID] = nil
		default:
			d.withhold(m, errors.Join(err, mounted(m)))
		}
	}
}

// withhold keeps what a topology has whose folder may be somewhere.
func (d *doctor) withhold(m state.Entry, why error) {
	d.fates[m.ID] = why
	if why == nil {
		return
	}
	d.missing = append(d.missing, Check{Name: "lab " + m.Topology, Err: fmt.Errorf(
		"its state folder %s is not there and may have been moved: %w; so its disks are kept: any command in the folder where it is now tells that to falcon; if it is gone for good, remove them with: falcon destroy --lost %s",
		m.Folder, why, printable.Word(m.Folder))})
}

// mounted returns an error where the file system that a folder was on is not.
func mounted(e state.Entry) error {
	if e.Device == 0 || slices.ContainsFunc(above(e.Folder), func(dir string) bool { return state.PlaceOf(dir).Device == e.Device }) {
		return nil
	}
	return errors.New("its file system is not mounted where it was")
}

// above returns the folders that a path is in, the nearest first.
func above(path string) []string {
	var dirs []string
	for path != filepath.Dir(path) {
		path = filepath.Dir(path)
		dirs = append(dirs, path)
	}
	return dirs
}

// placesFor returns below which folders a topology's may be: those that it was
// in, the user's home, and the host's own file systems; only on others than it was
// on when it is gone from there.
func placesFor(e state.Entry, gone bool) []string {
	places := above(e.Folder)
	if home, err := os.UserHomeDir(); err == nil {
		places = append(places, home)
	}
	mounts, _ := os.ReadFile("/proc/self/mounts") // there are none but on Linux
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 3 && (strings.HasPrefix(f[0], "/dev/") || f[2] == "tmpfs") && !strings.HasPrefix(f[3], "ro") {
			places = append(places, unescape.Replace(f[1]))
		}
	}
	return slices.DeleteFunc(places, func(dir string) bool {
		p := state.PlaceOf(dir)
		return p.Inode == 0 || gone && p.Device == e.Device
	})
}

// diskOwners returns the topologies that have disks in the lab's stores.
func (l *lab) diskOwners(ctx context.Context) ([]state.Entry, error) {
	stores, err := l.stores()
	if err != nil {
		return nil, err
	}
	var owners []state.Entry
	seen := make(map[string]bool)
	for _, store := range stores {
		disks, err := store.Disks(ctx)
		if err != nil {
			return nil, err
		}
		for _, d := range disks {
			if o := d.Owner; !seen[o.ID] {
				seen[o.ID] = true
				owners = append(owners, state.Entry{
					Identity: state.Identity{ID: o.ID, Topology: o.Topology, Home: l.home, Host: l.host.kind(), Dataset: store.Dataset()},
					Place:    state.Place{Folder: o.Folder}})
			}
		}
	}
	return owners, nil
}

// lostHere says of a topology that was launched in a folder, and is not in it any
// more, where it is; empty when none was.
func (l *lab) lostHere() string {
	entries, _ := l.host.registry().List() // what cannot be read tells nothing
	for _, e := range entries {
		if e.Folder != l.folder.Path() {
			continue
		}
		switch dir := folderOf(e); dir {
		case e.Folder:
		case "":
			return fmt.Sprintf("topology %s was launched in %s and lost its folder: see what is left of it with: falcon doctor, and remove that with: falcon doctor --fix",
				e.Topology, e.Folder)
		default:
			return fmt.Sprintf("topology %s was launched in %s, and is in %s now: work there", e.Topology, e.Folder, dir)
		}
	}
	return ""
}

// RemoveLost destroys what stands of the topologies that were launched in a folder
// which is not there any more, or holds nothing. Where the folder was moved, its
// disks are lost with that. The error wraps [ErrNotLaunched] when there are none.
func RemoveLost(ctx context.Context, dir string, progress func(Progress)) (Removed, error) {
	removed, err := removeLost(ctx, dir, progress)
	if err != nil {
		err = fmt.Errorf("destroying what was launched in %s: %w", dir, err)
	}
	return removed, err
}

func removeLost(ctx context.Context, dir string, progress func(Progress)) (Removed, error) {
	folder, err := state.Open(dir)
	if err != nil {
		return Removed{}, err
	}
	if folder.Has(recordFile) || folder.Has(state.JournalFile) {
		return Removed{}, fmt.Errorf("there is a topology in it: destroy it with: falcon destroy %s", printable.Word(folder.Path()))
	}
	labs, err := hosts("")
	if err != nil {
		return Removed{}, err
	}
	entries, err := entriesOf(ctx, labs, folder.Path())
	if err == nil && len(entries) == 0 {
		err = ErrNotLaunched
	}
	var all Removed
	for _, e := range entries {
		if dir := folderOf(e); dir != "" {
			err = errors.Join(err, fmt.Errorf("topology %s is in %s now: destroy it with: falcon destroy %s", e.Topology, dir, printable.Word(dir)))
			continue
		}
		removed, rerr := destroyLost(ctx, e, progress)
		all.add(removed)
		err = errors.Join(err, rerr)
	}
	return all, err
}

// entriesOf returns the topologies that were launched in a folder, by the lists
// and by their disks.
func entriesOf(ctx context.Context, labs []*lab, path string) ([]state.Entry, error) {
	var all []state.Entry
	for _, l := range labs {
		entries, err := l.entries()
		owners, oerr := l.diskOwners(ctx)
		if err := errors.Join(err, oerr); err != nil {
			return nil, err
		}
		for _, e := range append(entries, owners...) {
			if e.Folder == path && !slices.ContainsFunc(all, func(a state.Entry) bool { return a.ID == e.ID }) {
				all = append(all, e)
			}
		}
	}
	return all, nil
}

// destroyLost destroys a topology in place of whose folder another one stands.
func destroyLost(ctx context.Context, e state.Entry, progress func(Progress)) (Removed, error) {
	dir, err := os.MkdirTemp("", "falcon-lost-")
	if err != nil {
		return Removed{}, err
	}
	defer os.RemoveAll(dir)
	folder, err := state.Open(dir)
	if err != nil {
		return Removed{}, err
	}
	folder.Adopt(e.Identity)
	choice, err := chooseHost(folder, hostChoice{})
	if err != nil {
		return Removed{}, err
	}
	l, err := labIn(folder, e.Topology, choice, slog.New(slog.DiscardHandler))
	if err != nil {
		return Removed{}, err
	}
	l.to = progress
	return l.destroy(ctx, "")
}
