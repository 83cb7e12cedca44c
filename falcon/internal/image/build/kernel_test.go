package build

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

// bzImageOf is a bzImage of two setup sectors with a payload.
func bzImageOf(payload []byte) []byte {
	const setup = 2
	img := make([]byte, (setup+1)*512)
	img[0x1f1] = setup
	copy(img[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(img[0x206:], 0x20f)
	binary.LittleEndian.PutUint32(img[0x248:], 64)
	binary.LittleEndian.PutUint32(img[0x24c:], uint32(len(payload)+4))
	img = append(img, make([]byte, 64)...)
	img = append(img, payload...)
	return append(img, 0, 0, 0, 0) // the length that the kernel's build appends
}

func TestVmlinuxIsUnpackedFromEachCompression(t *testing.T) {
	want := bytes.Repeat([]byte("vmlinux "), 1000)
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	if _, err := w.Write(want); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	zs, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	payloads := map[string][]byte{"gzip": gz.Bytes(), "zstd": zs.EncodeAll(want, nil)}
	if require(xzTool) == nil {
		var xz bytes.Buffer
		if err := (command{tool: xzTool, args: []string{"--x86", "--lzma2", "-c"}, stdin: bytes.NewReader(want), stdout: &xz}).run(t.Context()); err != nil {
			t.Fatal(err)
		}
		payloads["xz"] = xz.Bytes()
	}
	for name, payload := range payloads {
		if got, err := vmlinux(t.Context(), bzImageOf(payload)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	for name, img := range map[string][]byte{
		"nothing": nil, "no header": make([]byte, 4096), "unknown": bzImageOf([]byte("BZh9")), "cut": bzImageOf(gz.Bytes())[:1600],
	} {
		if _, err := vmlinux(t.Context(), img); err == nil {
			t.Errorf("%s was unpacked", name)
		}
	}
}

func FuzzVmlinux(f *testing.F) {
	f.Add(bzImageOf([]byte("payload")))
	f.Fuzz(func(t *testing.T, img []byte) {
		if bytes.Contains(img, []byte("\xfd7zXZ")) {
			t.Skip("that would run xz")
		}
		_, _ = vmlinux(t.Context(), img) // must not panic
	})
}

// elfFile lays out a file with one loaded segment for each body, at 1 MiB, 2 MiB
// and so on, and further sections that are not loaded.
func elfFile(t *testing.T, loads [][]byte, note []byte, sections map[string][]byte) []byte {
	t.Helper()
	out := make([]byte, 0x1000)
	put := func(b []byte) (at uint64) {
		out = append(out, make([]byte, (0x1000-len(out)%0x1000)%0x1000)...)
		at = uint64(len(out))
		out = append(out, b...)
		return at
	}
	var progs []elf.Prog64
	for i, b := range loads {
		addr := uint64(i+1) << 20
		progs = append(progs, elf.Prog64{Type: uint32(elf.PT_LOAD), Off: put(b), Vaddr: addr | 1<<63, Paddr: addr, Filesz: uint64(len(b)), Memsz: uint64(len(b)) + 64})
	}
	progs = append(progs, elf.Prog64{Type: uint32(elf.PT_NOTE), Off: put(note), Filesz: uint64(len(note)), Memsz: uint64(len(note)), Align: 4})
	names, heads := []byte{0}, []elf.Section64{{}}
	for name, b := range sections {
		heads = append(heads, elf.Section64{Name: uint32(len(names)), Type: uint32(elf.SHT_PROGBITS), Off: put(b), Size: uint64(len(b))})
		names = append(append(names, name...), 0)
	}
	heads = append(heads, elf.Section64{Name: 0, Type: uint32(elf.SHT_STRTAB), Off: put(names), Size: uint64(len(names))})
	var tables bytes.Buffer
	shoff := put(nil)
	for _, s := range heads {
		must(t, binary.Write(&tables, binary.LittleEndian, s))
	}
	out = append(out, tables.Bytes()...)
	var head bytes.Buffer
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Entry: 1 << 20, Phoff: 64, Shoff: shoff,
		Ehsize: 64, Phentsize: 56, Phnum: uint16(len(progs)), Shentsize: 64, Shnum: uint16(len(heads)), Shstrndx: uint16(len(heads) - 1)}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	must(t, binary.Write(&head, binary.LittleEndian, h))
	must(t, binary.Write(&head, binary.LittleEndian, progs))
	copy(out, head.Bytes())
	return out
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var pvhNote = append([]byte{4, 0, 0, 0, 8, 0, 0, 0, 18, 0, 0, 0, 'X', 'e', 'n', 0}, 0, 0, 0x10, 0, 0, 0, 0, 0)

func TestCompactKernelLoadsTheSame(t *testing.T) {
	text, data := bytes.Repeat([]byte{0x90}, 5000), append([]byte("data"), make([]byte, 100_000)...)
	in := elfFile(t, [][]byte{text, data}, pvhNote, map[string][]byte{".debug": make([]byte, 1<<20)})
	path := filepath.Join(t.TempDir(), "vmlinux")
	must(t, writeKernel(path, in))
	info, err := os.Stat(path)
	must(t, err)
	if info.Size() > 8192 {
		t.Errorf("it has %d bytes", info.Size())
	}
	out, err := elf.Open(path)
	must(t, err)
	defer out.Close()
	if got := loaded(t, out); !cmp.Equal(got, map[uint64]string{1 << 20: string(text) + zeros(64), 2 << 20: string(data) + zeros(64)}) {
		t.Errorf("other memory is loaded")
	}
	if !hasPVHNote(out) || out.Entry != 1<<20 {
		t.Error("the entries are lost")
	}
	without := elfFile(t, [][]byte{text}, []byte{4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 'X', 'e', 'n', 0}, nil)
	if err := writeKernel(path, without); err == nil || !strings.Contains(err.Error(), "PVH") {
		t.Errorf("without a PVH note: %v", err)
	}
}

func zeros(n int) string { return string(make([]byte, n)) }

// loaded is what memory holds once the file is loaded, by physical address.
func loaded(t *testing.T, f *elf.File) map[uint64]string {
	t.Helper()
	mem := map[uint64]string{}
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD {
			b, err := io.ReadAll(p.Open())
			must(t, err)
			mem[p.Paddr] = string(b) + zeros(int(p.Memsz-p.Filesz))
		}
	}
	return mem
}

// fakeModules is a kernel package in which a needs b and c, and b needs c.
func fakeModules(t *testing.T) *modules {
	t.Helper()
	root := t.TempDir()
	for file, info := range map[string]string{
		"kernel/drivers/net/a.ko":      "alias=pci:a*\x00depends=b,c-c\x00license=GPL\x00",
		"kernel/lib/b.ko":              "depends=c-c\x00",
		"kernel/lib/c-c.ko":            "depends=\x00alias=crypto-c\x00",
		"kernel/drivers/unrelated.ko":  "depends=\x00",
		"modules.order":                "",
		"kernel/drivers/net/notes.txt": "",
	} {
		path := filepath.Join(root, "usr/lib/modules/6.1.0-9-amd64", file)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		data := elfFile(t, nil, nil, map[string][]byte{".modinfo": []byte(info)})
		must(t, os.WriteFile(path, data, 0o644))
	}
	m, err := openModules(root)
	must(t, err)
	return m
}

func TestModulesComeAfterWhatTheyNeed(t *testing.T) {
	m := fakeModules(t)
	mods, err := m.load("a", "c_c", "not-in-this-kernel")
	must(t, err)
	var names []string
	for _, mod := range mods {
		names = append(names, mod.name)
	}
	if diff := cmp.Diff([]string{"c_c", "b", "a"}, names); diff != "" {
		t.Error(diff)
	}
	tr := newTree()
	writeModules(tr, m.release(), mods)
	dir := "usr/lib/modules/6.1.0-9-amd64/"
	wantDep := "kernel/lib/c-c.ko:\nkernel/lib/b.ko: kernel/lib/c-c.ko\nkernel/drivers/net/a.ko: kernel/lib/b.ko kernel/lib/c-c.ko\n"
	if diff := cmp.Diff(wantDep, string(tr.nodes[dir+"modules.dep"].data)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff("alias crypto-c c_c\nalias pci:a* a\n", string(tr.nodes[dir+"modules.alias"].data)); diff != "" {
		t.Error(diff)
	}
	if !tr.has(dir+"kernel/drivers/net/a.ko") || tr.has(dir+"kernel/drivers/unrelated.ko") {
		t.Error("other modules than wanted are there")
	}
}

func TestSignaturesAreCutOff(t *testing.T) {
	signed := func(size uint32) []byte {
		b := append([]byte("module"), "signature"...)
		b = append(b, make([]byte, 8)...)
		b = binary.BigEndian.AppendUint32(b, size)
		return append(b, "~Module signature appended~\n"...)
	}
	for want, data := range map[string][]byte{
		"module": signed(9), "plain": []byte("plain"), string(signed(900)): signed(900), "~Module signature appended~\n": []byte("~Module signature appended~\n"),
	} {
		if got := string(unsigned(data)); got != want {
			t.Errorf("%q: %q", data, got)
		}
	}
}

func ExampleHint() {
	fmt.Println(Hint("micro"))
	// Output: build it with: falcon image build micro
}
