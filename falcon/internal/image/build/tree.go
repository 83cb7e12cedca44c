package build

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// tree is a file system in the making, in memory. All belongs to root. Paths
// are relative to its root and do not pass through symbolic links; folders come
// into being with what is put in them.
type tree struct {
	nodes map[string]node
}

type node struct {
	mode fs.FileMode // with type bits
	data []byte      // content of a file, target of a link
}

func newTree() *tree { return &tree{nodes: map[string]node{}} }

func (t *tree) put(name string, n node) {
	t.nodes[name] = n
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if _, ok := t.nodes[dir]; !ok {
			t.nodes[dir] = node{mode: fs.ModeDir | 0o755}
		}
	}
}

func (t *tree) file(name string, perm fs.FileMode, data []byte) { t.put(name, node{perm, data}) }
func (t *tree) folder(name string, perm fs.FileMode)            { t.put(name, node{mode: fs.ModeDir | perm}) }
func (t *tree) link(name, target string) {
	t.put(name, node{fs.ModeSymlink | 0o777, []byte(target)})
}

func (t *tree) has(name string) bool {
	_, ok := t.nodes[name]
	return ok
}

// sorted lists the paths, a folder before what is in it.
func (t *tree) sorted() []string { return slices.Sorted(maps.Keys(t.nodes)) }

// write makes the tree a folder on the host.
func (t *tree) write(root string) error {
	for _, name := range t.sorted() {
		n, dest := t.nodes[name], filepath.Join(root, name)
		var err error
		switch {
		case n.mode.IsDir():
			err = errors.Join(os.MkdirAll(dest, 0o755), os.Chmod(dest, n.mode&^fs.ModeDir))
		case n.mode&fs.ModeSymlink != 0:
			err = os.Symlink(string(n.data), dest)
		default:
			err = errors.Join(os.WriteFile(dest, n.data, n.mode.Perm()), os.Chmod(dest, n.mode.Perm()))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// source is a folder of unpacked packages from which programs are taken.
type source string

// loader is the dynamic loader, which programs name as /lib64/<loader>.
const loader = "ld-linux-x86-64.so.2"

// libraryDirs are where Debian's loader looks without being told.
var libraryDirs = []string{"usr/lib/x86_64-linux-gnu", "usr/lib"}

// program copies a program with the libraries that it needs. All programs come
// to usr/bin.
func (s source) program(t *tree, name string) error {
	for _, dir := range []string{"usr/bin", "usr/sbin"} {
		data, err := os.ReadFile(filepath.Join(string(s), dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		t.file("usr/bin/"+name, 0o755, data)
		return s.libraries(t, data)
	}
	return fmt.Errorf("program %s is in none of the packages", name)
}

func (s source) libraries(t *tree, program []byte) error {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return err
	}
	names, err := f.ImportedLibraries()
	if err != nil {
		return err
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			names = append(names, loader)
		}
	}
	for _, name := range names {
		if err := s.library(t, name); err != nil {
			return err
		}
	}
	return nil
}

func (s source) library(t *tree, name string) error {
	for _, dir := range libraryDirs {
		if t.has(dir + "/" + name) {
			return nil
		}
		data, err := os.ReadFile(filepath.Join(string(s), dir, name)) // follows links to the versioned file
		if err != nil {
			continue
		}
		t.file(dir+"/"+name, 0o755, data)
		return s.libraries(t, data)
	}
	return fmt.Errorf("library %s is in none of the packages", name)
}

// folder copies a folder of plain files and links.
func (s source) folder(t *tree, name string) error {
	return filepath.WalkDir(filepath.Join(string(s), name), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(string(s), p)
		if err != nil {
			return err
		}
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			t.link(rel, strings.TrimSpace(target))
			return err
		case d.Type().IsRegular():
			data, err := os.ReadFile(p)
			t.file(rel, 0o644, data)
			return err
		}
		return nil
	})
}
