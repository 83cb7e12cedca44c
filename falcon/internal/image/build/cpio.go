package build

import (
	"bytes"
	"fmt"
	"io/fs"
)

// cpio packs a tree the way the kernel reads an initramfs: the "newc" format of
// Documentation/driver-api/early-userspace/buffer-format.rst.
func (t *tree) cpio() []byte {
	var out bytes.Buffer
	names := t.sorted()
	for i, name := range names {
		n := t.nodes[name]
		writeEntry(&out, i+1, name, unixMode(n.mode), n.data)
	}
	writeEntry(&out, 0, "TRAILER!!!", 0, nil)
	return out.Bytes()
}

func writeEntry(out *bytes.Buffer, inode int, name string, mode uint32, data []byte) {
	links := 1
	// magic, inode, mode, uid, gid, links, mtime, size, device, rdevice, name's length, checksum
	fmt.Fprintf(out, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
	pad(out)
	out.Write(data)
	pad(out)
}

func pad(out *bytes.Buffer) {
	for out.Len()%4 != 0 {
		out.WriteByte(0)
	}
}

// unixMode is a file's mode in the numbers of stat(2).
func unixMode(m fs.FileMode) uint32 {
	kind := uint32(0o100000)
	switch {
	case m.IsDir():
		kind = 0o040000
	case m&fs.ModeSymlink != 0:
		kind = 0o120000
	}
	perm := uint32(m.Perm())
	if m&fs.ModeSticky != 0 {
		perm |= 0o1000
	}
	return kind | perm
}
