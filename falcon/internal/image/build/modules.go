package build

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ulikunitz/xz"
)

// modules is the set of modules that a kernel package has.
type modules struct {
	dir   string // lib/modules/<release> where the package is unpacked
	files map[string]string
}

// module is what is needed to load one.
type module struct {
	name    string   // with '_' for '-'
	file    string   // relative to the kernel's module folder, without compression
	depends []string // names, what must be loaded first
	aliases []string
	data    []byte
}

func openModules(root string) (*modules, error) {
	dirs, err := filepath.Glob(filepath.Join(root, "usr/lib/modules/*"))
	if err != nil || len(dirs) != 1 {
		return nil, fmt.Errorf("the kernel package has %d module folders, want 1: %w", len(dirs), err)
	}
	m := &modules{dir: dirs[0], files: map[string]string{}}
	return m, filepath.WalkDir(m.dir, func(path string, d fs.DirEntry, err error) error {
		base, isModule := strings.CutSuffix(strings.TrimSuffix(filepath.Base(path), ".xz"), ".ko")
		if err == nil && isModule {
			m.files[moduleName(base)] = path
		}
		return err
	})
}

func (m *modules) release() string { return filepath.Base(m.dir) }

func moduleName(s string) string { return strings.ReplaceAll(s, "-", "_") }

// load returns the named modules and all that they depend on, each after what
// it depends on. Names that this kernel has not (built in, or not in this
// version) are left out.
func (m *modules) load(names ...string) ([]module, error) {
	var all []module
	seen := map[string]bool{}
	var add func(name string) error
	add = func(name string) error {
		name = moduleName(name)
		path, ok := m.files[name]
		if !ok || seen[name] {
			return nil
		}
		seen[name] = true
		mod, err := m.read(name, path)
		if err != nil {
			return fmt.Errorf("kernel module %s: %w", path, err)
		}
		for _, dep := range mod.depends {
			if err := add(dep); err != nil {
				return err
			}
		}
		all = append(all, mod)
		return nil
	}
	for _, name := range names {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (m *modules) read(name, path string) (module, error) {
	data, err := os.ReadFile(path)
	if err == nil && strings.HasSuffix(path, ".xz") {
		data, err = unxz(data)
	}
	if err != nil {
		return module{}, err
	}
	rel, err := filepath.Rel(m.dir, strings.TrimSuffix(path, ".xz"))
	if err != nil {
		return module{}, err
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return module{}, err
	}
	mod := module{name: name, file: rel, data: untyped(f, unsigned(data))}
	section := f.Section(".modinfo")
	if section == nil {
		return mod, fmt.Errorf("no .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return mod, err
	}
	for _, entry := range strings.Split(string(info), "\x00") {
		switch key, value, _ := strings.Cut(entry, "="); key {
		case "depends":
			mod.depends = append(mod.depends, strings.FieldsFunc(value, func(r rune) bool { return r == ',' })...)
		case "alias":
			mod.aliases = append(mod.aliases, value)
		}
	}
	return mod, nil
}

// unsigned is a module without the signature after its end. The kernel takes it
// all the same, and under TCG checking a signature takes longer than the rest of
// loading. The layout is that of scripts/sign-file.c in the kernel's sources.
func unsigned(data []byte) []byte {
	const (
		marker  = "~Module signature appended~\n"
		trailer = 12 // its last 4 bytes are the signature's size, big-endian
	)
	body, found := bytes.CutSuffix(data, []byte(marker))
	if !found || len(body) < trailer {
		return data
	}
	size := int64(binary.BigEndian.Uint32(body[len(body)-4:])) + trailer
	if size > int64(len(body)) {
		return data
	}
	return body[:int64(len(body))-size]
}

// untyped is a module whose type information the kernel does not find, as its
// section has another name. Only tracers want it, and the kernel checks all of
// it when it loads the module. It changes data.
func untyped(f *elf.File, data []byte) []byte {
	const name, other = "\x00.BTF\x00", "\x00.btf\x00"
	for _, s := range f.Sections {
		if s.Type != elf.SHT_STRTAB || s.Name != ".shstrtab" || s.Offset+s.Size > uint64(len(data)) {
			continue
		}
		names := data[s.Offset : s.Offset+s.Size]
		if i := bytes.Index(names, []byte(name)); i >= 0 {
			copy(names[i:], other)
		}
	}
	return data
}

func unxz(data []byte) ([]byte, error) {
	r, err := xz.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// writeModules puts modules and the indexes that modprobe reads into a tree.
func writeModules(t *tree, release string, mods []module) {
	dir := "usr/lib/modules/" + release
	file := map[string]string{}
	for _, m := range mods {
		file[m.name] = m.file
	}
	var dep, alias strings.Builder
	for _, m := range mods {
		t.file(dir+"/"+m.file, 0o644, m.data)
		fmt.Fprintf(&dep, "%s:", m.file)
		for _, d := range slices.Backward(dependencies(m, mods)) {
			fmt.Fprintf(&dep, " %s", file[d])
		}
		dep.WriteByte('\n')
		for _, a := range m.aliases {
			fmt.Fprintf(&alias, "alias %s %s\n", a, m.name)
		}
	}
	t.file(dir+"/modules.dep", 0o644, []byte(dep.String()))
	t.file(dir+"/modules.alias", 0o644, []byte(alias.String()))
	t.file(dir+"/modules.symbols", 0o644, nil)
}

// dependencies are the names of all that a module needs, in the order of mods.
func dependencies(m module, mods []module) []string {
	need := map[string]bool{m.name: true}
	for _, other := range slices.Backward(mods) { // whoever needs comes after what it needs
		if need[other.name] {
			for _, d := range other.depends {
				need[moduleName(d)] = true
			}
		}
	}
	var names []string
	for _, other := range mods {
		if need[other.name] && other.name != m.name {
			names = append(names, other.name)
		}
	}
	return names
}
