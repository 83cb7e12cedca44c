package build

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// A kernel as an ELF file starts sooner than a bzImage, above all under TCG: the
// hypervisor enters it through its PVH note and nothing is unpacked in the guest.

// vmlinux unpacks the ELF file that a bzImage holds. The offsets are those of
// the Linux/x86 boot protocol (Documentation/arch/x86/boot.rst).
func vmlinux(ctx context.Context, bzImage []byte) ([]byte, error) {
	const (
		setupSects    = 0x1f1
		magic         = 0x202
		version       = 0x206
		payloadOffset = 0x248
		headerEnd     = 0x250
	)
	if len(bzImage) < headerEnd || string(bzImage[magic:magic+4]) != "HdrS" {
		return nil, errors.New("the kernel is no bzImage")
	}
	if v := binary.LittleEndian.Uint16(bzImage[version:]); v < 0x208 {
		return nil, fmt.Errorf("the kernel's boot protocol %#x does not say where its payload is", v)
	}
	setup := int64(bzImage[setupSects])
	if setup == 0 {
		setup = 4
	}
	start := (setup+1)*512 + int64(binary.LittleEndian.Uint32(bzImage[payloadOffset:]))
	end := start + int64(binary.LittleEndian.Uint32(bzImage[payloadOffset+4:]))
	if start >= end || end > int64(len(bzImage)) {
		return nil, errors.New("the kernel's payload lies outside of its file")
	}
	return unpackPayload(ctx, bzImage[start:end])
}

// unpackPayload decompresses what the kernel's build has compressed. Four bytes
// of length follow the compressed stream.
func unpackPayload(ctx context.Context, p []byte) ([]byte, error) {
	switch {
	case bytes.HasPrefix(p, []byte("\xfd7zXZ\x00")):
		// With a branch filter, which our xz library lacks.
		var out bytes.Buffer
		err := command{tool: xzTool, args: []string{"-dc", "--single-stream"}, stdin: bytes.NewReader(p), stdout: &out}.run(ctx)
		return out.Bytes(), err
	case bytes.HasPrefix(p, []byte("\x28\xb5\x2f\xfd")):
		d, err := zstd.NewReader(nil)
		if err != nil {
			return nil, err
		}
		defer d.Close()
		return d.DecodeAll(p[:len(p)-4], nil)
	case bytes.HasPrefix(p, []byte("\x1f\x8b")):
		d, err := gzip.NewReader(bytes.NewReader(p))
		if err != nil {
			return nil, err
		}
		d.Multistream(false)
		return io.ReadAll(d)
	}
	return nil, fmt.Errorf("the kernel is compressed in a way that is not known (%x)", p[:min(4, len(p))])
}

// writeKernel writes an ELF kernel with nothing but what is loaded: no section
// table, no alignment holes, no zeros at the ends of segments. It must have the
// note that says where PVH enters.
func writeKernel(path string, vmlinux []byte) error {
	in, err := elf.NewFile(bytes.NewReader(vmlinux))
	if err != nil {
		return err
	}
	if in.Class != elf.ELFCLASS64 || in.Machine != elf.EM_X86_64 {
		return fmt.Errorf("the kernel is for %v", in.Machine)
	}
	out, err := compactELF(in)
	if err != nil {
		return err
	}
	return os.WriteFile(path, out, 0o644)
}

func compactELF(in *elf.File) ([]byte, error) {
	const headerSize, progSize = 64, 56
	var body []byte
	var progs []elf.Prog64
	base := uint64(headerSize + progSize*len(in.Progs))
	for _, p := range in.Progs {
		if p.Type != elf.PT_LOAD && p.Type != elf.PT_NOTE {
			continue
		}
		data, err := io.ReadAll(p.Open())
		if err != nil {
			return nil, err
		}
		data = bytes.TrimRight(data, "\x00")
		align := uint64(8) // the file is not mapped, so pages do not matter
		if p.Type == elf.PT_NOTE {
			align = p.Align // part of the notes' encoding
			data = data[:len(data):len(data)]
			data = append(data, make([]byte, int(p.Filesz)-len(data))...)
		}
		progs = append(progs, elf.Prog64{
			Type: uint32(p.Type), Flags: uint32(p.Flags), Off: base + uint64(len(body)), Vaddr: p.Vaddr,
			Paddr: p.Paddr, Filesz: uint64(len(data)), Memsz: p.Memsz, Align: align,
		})
		body = append(body, data...)
		body = append(body, make([]byte, (8-len(body)%8)%8)...)
	}
	if !hasPVHNote(in) {
		return nil, errors.New("the kernel has no PVH entry (CONFIG_PVH)")
	}
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Entry: in.Entry, Phoff: headerSize, Ehsize: headerSize, Phentsize: progSize, Phnum: uint16(len(progs)), Shentsize: 64,
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	out := new(bytes.Buffer)
	if err := errors.Join(binary.Write(out, binary.LittleEndian, h), binary.Write(out, binary.LittleEndian, progs)); err != nil {
		return nil, err
	}
	out.Write(make([]byte, int(base)-out.Len())) // of headers that were left out
	return append(out.Bytes(), body...), nil
}

// hasPVHNote looks for the ELF note XEN_ELFNOTE_PHYS32_ENTRY.
func hasPVHNote(f *elf.File) bool {
	const physEntry = 18 // xen/interface/elfnote.h
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		data, err := io.ReadAll(p.Open())
		for err == nil && len(data) >= 12 {
			nameSize, descSize := f.ByteOrder.Uint32(data), f.ByteOrder.Uint32(data[4:])
			size := 12 + (int64(nameSize)+3)&^3 + (int64(descSize)+3)&^3
			if size > int64(len(data)) {
				break
			}
			if f.ByteOrder.Uint32(data[8:]) == physEntry && nameSize >= 3 && string(data[12:15]) == "Xen" {
				return true
			}
			data = data[size:]
		}
	}
	return false
}
