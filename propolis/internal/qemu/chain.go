package qemu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Layer is a file that a disk stands on.
type Layer struct {
	Path, Format string
	Block        bool // a block device
}

// maxLayers bounds what a disk stands on: a chain may be a ring.
const maxLayers = 200

// surveyDisk looks at a disk, and at what it stands on.
func surveyDisk(path string, bases []string) File {
	f := statFile(path)
	if f.Err == nil && !f.Dir {
		f.Backing, f.Err = chain(path, diskFormat(path), bases)
	}
	return f
}

// chain returns the files that a disk stands on, from the top. They are those
// that its header names, which whoever ran the disk may have written there: with
// bases, only those are taken.
func chain(path, format string, bases []string) ([]Layer, error) {
	var layers []Layer
	for format == "qcow2" {
		name, backing, err := backingFile(path)
		if len(layers) == 0 && errors.Is(err, errNoQcow2) {
			return nil, nil // QEMU says better what is wrong with it
		}
		if err != nil || name == "" {
			return layers, err
		}
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(path), name)
		}
		info, err := os.Stat(name)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s stands on a file that cannot be used: %w", path, err)
		case len(layers) == maxLayers:
			return nil, fmt.Errorf("%s stands on more than %d files", path, maxLayers)
		case !info.Mode().IsRegular() && !isBlock(info):
			return nil, fmt.Errorf("%s stands on %s, which is no file", path, name)
		case bases != nil && !contains(bases, info):
			return nil, fmt.Errorf("%s stands on %s, which is none of the files that it was made on: its header was changed", path, name)
		}
		layers = append(layers, Layer{Path: name, Format: backing, Block: isBlock(info)})
		path, format = name, backing
	}
	return layers, nil
}

func contains(bases []string, file fs.FileInfo) bool {
	return slices.ContainsFunc(bases, func(path string) bool {
		info, err := os.Stat(path)
		return err == nil && os.SameFile(info, file)
	})
}

// Parts of a qcow2 file's header, from QEMU's docs/interop/qcow2.txt.
const (
	qcow2Magic      = "QFI\xfb"
	qcow2Head       = 104 // bytes of version 3 that are always there
	qcow2Old        = 72  // the length of version 2
	qcow2Backing    = 0xe2792aca
	qcow2Data       = 1 << 2 // an incompatible feature: the data is elsewhere
	qcow2MaxBacking = 1023
)

var errNoQcow2 = errors.New("it is no qcow2 file")

// backingFile reads from a qcow2 file's header on which file it stands, and the
// format of that; empty for none.
func backingFile(path string) (name, format string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	head := make([]byte, 64<<10) // a cluster, where extensions end
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", "", err
	}
	if head = head[:n]; n < qcow2Head || string(head[:4]) != qcow2Magic {
		return "", "", fmt.Errorf("%s: %w", path, errNoQcow2)
	}
	end := uint32(qcow2Old)
	if binary.BigEndian.Uint32(head[4:]) >= 3 {
		if binary.BigEndian.Uint64(head[72:])&qcow2Data != 0 {
			return "", "", fmt.Errorf("%s keeps its data in another file, which is not served: convert it with qemu-img convert", path)
		}
		end = binary.BigEndian.Uint32(head[100:])
	}
	at, size := binary.BigEndian.Uint64(head[8:]), uint64(binary.BigEndian.Uint32(head[16:]))
	if at == 0 || size == 0 {
		return "", "", nil
	}
	if size > qcow2MaxBacking || at > uint64(len(head))-size {
		return "", "", fmt.Errorf("%s has a damaged header", path)
	}
	name = string(head[at : at+size])
	if strings.Contains(name, ":") && !filepath.IsAbs(name) {
		return "", "", fmt.Errorf("%s stands on %q, which is no file", path, name)
	}
	if format = qcow2Extension(head[:at], end); format == "" {
		format = diskFormat(name)
	}
	if format != "qcow2" && format != "raw" {
		return "", "", fmt.Errorf("%s stands on a file of format %q, which is not served; use qcow2 or raw", path, format)
	}
	return name, format, nil
}

// qcow2Extension finds the format of the backing file in a header, empty if it is
// not there.
func qcow2Extension(head []byte, at uint32) string {
	for uint64(at)+8 <= uint64(len(head)) {
		kind, size := binary.BigEndian.Uint32(head[at:]), binary.BigEndian.Uint32(head[at+4:])
		at += 8
		if kind == 0 || uint64(at)+uint64(size) > uint64(len(head)) {
			return ""
		}
		if kind == qcow2Backing {
			return string(head[at : at+size])
		}
		at += (size + 7) &^ 7
	}
	return ""
}
