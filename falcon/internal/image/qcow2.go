package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// The qcow2 format is described in QEMU's docs/interop/qcow2.txt, from which
// all the numbers here come.
const (
	qcowMagic       = 0x514649fb // "QFI\xfb"
	qcowHeaderBytes = 104        // of version 3 without the optional compression type
	qcowClusterBits = 16         // QEMU's default, 64 KiB
	qcowCluster     = 1 << qcowClusterBits
	qcowL2Entries   = qcowCluster / 8 // clusters that one L1 entry stands for
	qcowExtBacking  = 0xe2792aca      // header extension: the backing file's format

	// Incompatible features, bits that a reader must know.
	qcowDirty        = 1 << 0
	qcowCorrupt      = 1 << 1
	qcowExternalData = 1 << 2

	// maxVirtual is where the L1 table stops to fit into one cluster: 4 TiB.
	maxVirtual = qcowCluster / 8 * qcowL2Entries * qcowCluster
	sectorSize = 512
)

// qcowHeader is the fixed part of a version 3 header.
type qcowHeader struct {
	Magic, Version   uint32
	BackingOffset    uint64
	BackingSize      uint32
	ClusterBits      uint32
	Size             uint64
	Crypt            uint32
	L1Size           uint32
	L1Offset         uint64
	RefcountOffset   uint64
	RefcountClusters uint32
	Snapshots        uint32
	SnapshotsOffset  uint64
	Incompatible     uint64
	Compatible       uint64
	Autoclear        uint64
	RefcountOrder    uint32
	HeaderLength     uint32
}

// readQcow2 reads the header of a qcow2 file. For version 2 the fields which
// that version lacks are zero.
func readQcow2(r io.ReaderAt) (qcowHeader, error) {
	buf := make([]byte, qcowHeaderBytes)
	n, err := r.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return qcowHeader{}, err
	}
	var h qcowHeader
	if n < 72 || binary.BigEndian.Uint32(buf) != qcowMagic {
		return h, errors.New("not a qcow2 file")
	}
	if err := binary.Read(bytes.NewReader(buf), binary.BigEndian, &h); err != nil {
		return h, err
	}
	switch h.Version {
	case 2:
		h.Incompatible, h.Compatible, h.Autoclear, h.RefcountOrder, h.HeaderLength = 0, 0, 0, 4, 72
	case 3:
	default:
		return h, fmt.Errorf("qcow2 version %d is not known", h.Version)
	}
	return h, nil
}

// checkStandalone says why a foreign qcow2 file cannot be taken as a base, if
// it cannot: it must hold all its data itself, in the clear, and be whole.
func (h qcowHeader) checkStandalone() error {
	switch {
	case h.BackingOffset != 0:
		return errors.New("it has a backing file; flatten it first with qemu-img convert")
	case h.Incompatible&qcowExternalData != 0:
		return errors.New("it keeps its data in another file; flatten it first with qemu-img convert")
	case h.Crypt != 0:
		return errors.New("it is encrypted")
	case h.Incompatible&qcowCorrupt != 0:
		return errors.New("it is marked as corrupt")
	case h.Incompatible&qcowDirty != 0:
		return errors.New("it was not closed cleanly; repair it first with qemu-img check -r all")
	}
	return nil
}

// writeOverlay writes an empty qcow2 file of a virtual size (bytes, a multiple
// of 512) on a backing file of the given format. It is laid out as one cluster
// each for the header, the refcount table, the refcount block and the L1 table.
func writeOverlay(f *os.File, size int64, backing, format string) error {
	if size <= 0 || size%sectorSize != 0 || size > maxVirtual {
		return fmt.Errorf("disk size %d: want a multiple of %d up to %d", size, sectorSize, int64(maxVirtual))
	}
	const clusters = 4
	h := qcowHeader{
		Magic: qcowMagic, Version: 3, ClusterBits: qcowClusterBits, Size: uint64(size),
		L1Size:   uint32((size + qcowL2Entries*qcowCluster - 1) / (qcowL2Entries * qcowCluster)),
		L1Offset: 3 * qcowCluster, RefcountOffset: qcowCluster, RefcountClusters: 1,
		RefcountOrder: 4, HeaderLength: qcowHeaderBytes, BackingSize: uint32(len(backing)),
	}
	ext := binary.BigEndian.AppendUint32(nil, qcowExtBacking)
	ext = binary.BigEndian.AppendUint32(ext, uint32(len(format)))
	ext = append(ext, format...)
	ext = append(ext, make([]byte, (8-len(format)%8)%8+8)...) // padding, then the end marker
	h.BackingOffset = uint64(qcowHeaderBytes + len(ext))

	var head bytes.Buffer
	if err := binary.Write(&head, binary.BigEndian, h); err != nil {
		return err
	}
	head.Write(ext)
	head.WriteString(backing)
	refcounts := bytes.Repeat([]byte{0, 1}, clusters)
	table := binary.BigEndian.AppendUint64(nil, 2*qcowCluster)
	for i, b := range [][]byte{head.Bytes(), table, refcounts} {
		if _, err := f.WriteAt(b, int64(i)*qcowCluster); err != nil {
			return err
		}
	}
	return f.Truncate(clusters * qcowCluster)
}

// diskSize verifies that a file has a format and returns its virtual size.
func diskSize(path, format string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if format == "raw" {
		info, err := f.Stat()
		if err != nil {
			return 0, err
		}
		return info.Size(), nil
	}
	h, err := readQcow2(f)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return int64(h.Size), nil
}
