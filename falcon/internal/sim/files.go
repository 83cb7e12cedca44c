package sim

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// file is a file or folder of a guest.
type file struct {
	Mode fs.FileMode `json:"mode"`
	Data []byte      `json:"data,omitempty"`
	Time time.Time   `json:"time"`
	// Gone hides a file of the base image.
	Gone bool `json:"gone,omitempty"`
}

// disk is what a disk's file holds: what its guests have changed, by path.
type disk struct {
	Version int              `json:"version"`
	Files   map[string]*file `json:"files"`
}

const diskVersion = 1

// files is the file tree of a guest: that of its base image, below what has
// been changed, below what is mounted.
type files struct {
	base   map[string]*file
	live   map[string]func() string // made at each look, as in /proc
	mu     sync.Mutex
	own    map[string]*file
	dirty  bool
	mounts []mounted
}

// mounted is a folder of the host.
type mounted struct {
	tag, target string
	root        *os.Root
}

// loadFiles reads a disk.
func loadFiles(path string, base map[string]*file) (*files, error) {
	f := &files{base: base, live: make(map[string]func() string), own: make(map[string]*file)}
	data, err := readDisk(path)
	if err != nil || len(data) == 0 {
		return f, err
	}
	d := disk{Files: f.own}
	if err := json.Unmarshal(data, &d); err != nil || d.Version != diskVersion {
		return nil, fmt.Errorf("disk %s is damaged, or of another version of this program: %w", path, err)
	}
	return f, nil
}

// volatile are the folders that are not on the disk.
var volatile = []string{"/dev", "/proc", "/run", "/sys", "/tmp"}

func under(folder, name string) bool {
	return name == folder || strings.HasPrefix(name, strings.TrimSuffix(folder, "/")+"/")
}

// sync writes what has changed to the disk.
func (f *files) sync(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.dirty {
		return nil
	}
	kept := maps.Clone(f.own)
	maps.DeleteFunc(kept, func(name string, _ *file) bool {
		return slices.ContainsFunc(volatile, func(v string) bool { return under(v, name) })
	})
	data, err := json.Marshal(disk{Version: diskVersion, Files: kept})
	if err != nil {
		return err
	}
	// Nobody reads a disk while a guest writes it but a snapshot, which
	// must find the old or the new.
	if err := replaceFile(path, data, 0o600); err != nil {
		return err
	}
	f.dirty = false
	return nil
}

// replaceFile puts a file in place at once. It is not made durable: after a
// loss of power no simulated topology is there that could miss it.
func replaceFile(path string, data []byte, mode fs.FileMode) error {
	if err := os.WriteFile(path+".new", data, mode); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// at returns a file; nil when there is none. The caller holds mu and does not
// change what it gets.
func (f *files) at(name string) *file {
	if own := f.own[name]; own != nil {
		if own.Gone {
			return nil
		}
		return own
	}
	if text := f.live[name]; text != nil {
		return &file{Mode: 0o444, Data: []byte(text()), Time: time.Now()}
	}
	return f.base[name]
}

// mountOf returns the mount that a path is in, and the path in it.
func (f *files) mountOf(name string) (*mounted, string) {
	for i := len(f.mounts) - 1; i >= 0; i-- {
		if m := &f.mounts[i]; under(m.target, name) {
			rel := strings.TrimPrefix(strings.TrimPrefix(name, m.target), "/")
			if rel == "" {
				rel = "."
			}
			return m, rel
		}
	}
	return nil, ""
}

// info is the fs.FileInfo and fs.DirEntry of a file.
type info struct {
	name string
	file
}

func (i info) Name() string               { return i.name }
func (i info) Size() int64                { return int64(len(i.Data)) }
func (i info) Mode() fs.FileMode          { return i.file.Mode }
func (i info) ModTime() time.Time         { return i.Time }
func (i info) IsDir() bool                { return i.file.Mode.IsDir() }
func (i info) Sys() any                   { return nil }
func (i info) Type() fs.FileMode          { return i.file.Mode.Type() }
func (i info) Info() (fs.FileInfo, error) { return i, nil }

func pathError(op, name string, err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }

func (f *files) stat(name string) (fs.FileInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m, rel := f.mountOf(name); m != nil {
		return m.root.Stat(rel)
	}
	if is := f.at(name); is != nil {
		return info{path.Base(name), *is}, nil
	}
	return nil, pathError("stat", name, syscall.ENOENT)
}

// list returns what is in a folder, by name.
func (f *files) list(name string) ([]fs.DirEntry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m, rel := f.mountOf(name); m != nil {
		return fs.ReadDir(m.root.FS(), rel)
	}
	is := f.at(name)
	switch {
	case is == nil:
		return nil, pathError("open", name, syscall.ENOENT)
	case !is.Mode.IsDir():
		return nil, pathError("readdir", name, syscall.ENOTDIR)
	}
	found := make(map[string]bool)
	for p := range f.base {
		found[p] = true
	}
	for p := range f.live {
		found[p] = true
	}
	for p := range f.own {
		found[p] = true
	}
	var entries []fs.DirEntry
	for _, p := range slices.Sorted(maps.Keys(found)) {
		if p == "/" || path.Dir(p) != name {
			continue
		}
		if is := f.at(p); is != nil {
			entries = append(entries, info{path.Base(p), *is})
		}
	}
	return entries, nil
}

// read returns the content of a file.
func (f *files) read(name string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m, rel := f.mountOf(name); m != nil {
		return m.root.ReadFile(rel)
	}
	is := f.at(name)
	switch {
	case is == nil:
		return nil, pathError("open", name, syscall.ENOENT)
	case is.Mode.IsDir():
		return nil, pathError("read", name, syscall.EISDIR)
	}
	return is.Data, nil
}

// put makes or replaces what is at a path. The caller holds mu.
func (f *files) put(name string, to file) error {
	if m, _ := f.mountOf(name); m != nil {
		return pathError("open", name, syscall.EROFS)
	}
	if dir := f.at(path.Dir(name)); dir == nil {
		return pathError("open", name, syscall.ENOENT)
	} else if !dir.Mode.IsDir() {
		return pathError("open", name, syscall.ENOTDIR)
	}
	to.Time = time.Now().UTC()
	f.own[name] = &to
	f.dirty = true
	return nil
}

// write replaces the content of a file, or adds to it, and makes it if it is
// not there.
func (f *files) write(name string, data []byte, add bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	is := f.at(name)
	switch {
	case is == nil:
		is = &file{Mode: 0o644}
	case is.Mode.IsDir():
		return pathError("open", name, syscall.EISDIR)
	}
	to := *is
	if add {
		data = append(slices.Clip(to.Data), data...)
	}
	to.Data = data
	return f.put(name, to)
}

func (f *files) mkdir(name string, parents bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if parents && name != "/" {
		var missing []string
		for p := path.Dir(name); f.at(p) == nil; p = path.Dir(p) {
			missing = append(missing, p)
		}
		for _, p := range slices.Backward(missing) {
			if err := f.put(p, file{Mode: fs.ModeDir | 0o755}); err != nil {
				return err
			}
		}
	}
	if m, _ := f.mountOf(name); m != nil {
		if parents {
			return nil
		}
		return pathError("mkdir", name, syscall.EROFS)
	}
	if is := f.at(name); is != nil {
		if parents && is.Mode.IsDir() {
			return nil
		}
		return pathError("mkdir", name, syscall.EEXIST)
	}
	return f.put(name, file{Mode: fs.ModeDir | 0o755})
}

// remove removes a file, or with all a folder and what is in it.
func (f *files) remove(name string, all bool) error {
	entries, err := f.list(name)
	switch {
	case errors.Is(err, syscall.ENOTDIR):
	case err != nil:
		return err
	case !all:
		return pathError("remove", name, syscall.EISDIR)
	}
	for _, e := range entries {
		if err := f.remove(path.Join(name, e.Name()), true); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if m, _ := f.mountOf(name); m != nil {
		return pathError("remove", name, syscall.EROFS)
	}
	if name == "/" {
		return pathError("remove", name, syscall.EBUSY)
	}
	delete(f.own, name)
	if f.base[name] != nil || f.live[name] != nil {
		f.own[name] = &file{Gone: true}
	}
	f.dirty = true
	return nil
}

// mount shows a folder of the host at target.
func (f *files) mount(tag, source, target string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	root, err := os.OpenRoot(source)
	if err != nil {
		return err
	}
	f.mounts = append(f.mounts, mounted{tag: tag, target: target, root: root})
	return nil
}

// unmount takes the newest mount at target away.
func (f *files) unmount(target string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, m := range slices.Backward(f.mounts) {
		if m.target == target {
			_ = m.root.Close()
			f.mounts = slices.Delete(f.mounts, i, i+1)
			return true
		}
	}
	return false
}

// close lets go of all mounts.
func (f *files) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.mounts {
		_ = m.root.Close()
	}
	f.mounts = nil
}

// mountTable is /proc/mounts. The caller holds mu.
func (f *files) mountTable() string {
	s := "/dev/vda / ext4 rw,relatime 0 0\nproc /proc proc rw 0 0\nsysfs /sys sysfs rw 0 0\n"
	escape := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`)
	for _, m := range f.mounts {
		s += fmt.Sprintf("%s %s 9p ro,relatime,trans=virtio 0 0\n", escape.Replace(m.tag), escape.Replace(m.target))
	}
	return s
}

// handle is an open file.
type handle struct {
	f    *files
	name string
	rest []byte
}

// open opens a file as os.OpenFile does.
func (f *files) open(name string, flag int) (io.ReadWriteCloser, error) {
	switch name {
	case "/dev/null":
		return &handle{}, nil
	case "/dev/zero", "/dev/urandom", "/dev/random":
		return endless{name}, nil
	}
	writes := flag&(os.O_WRONLY|os.O_RDWR) != 0
	h := &handle{f: f, name: name}
	data, err := f.read(name)
	switch {
	case err == nil && !writes:
		h.rest = data
		return h, nil
	case err != nil && !(writes && flag&os.O_CREATE != 0 && errors.Is(err, fs.ErrNotExist)):
		return nil, err
	}
	if err != nil || flag&os.O_TRUNC != 0 {
		if err := f.write(name, nil, false); err != nil {
			return nil, err
		}
	}
	return h, f.write(name, nil, true) // refused for what cannot be written
}

func (h *handle) Read(p []byte) (int, error) {
	if len(h.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, h.rest)
	h.rest = h.rest[n:]
	return n, nil
}

func (h *handle) Write(p []byte) (int, error) {
	if h.f == nil { // /dev/null
		return len(p), nil
	}
	if err := h.f.write(h.name, slices.Clone(p), true); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (h *handle) Close() error { return nil }

// endless is a device that can be read for ever.
type endless struct{ name string }

func (e endless) Read(p []byte) (int, error) {
	if e.name == "/dev/zero" {
		clear(p)
		return len(p), nil
	}
	return rand.Read(p)
}

func (e endless) Write(p []byte) (int, error) { return len(p), nil }
func (e endless) Close() error                { return nil }
