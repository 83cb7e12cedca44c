package image

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// ImportOptions describe a foreign disk image. The zero value takes a disk that
// firmware boots, BIOS where it can, and of whose login nothing is known.
type ImportOptions struct {
	// Format of the disk, "raw" or "qcow2"; by the file's name if empty.
	Format string
	// SHA256 is the hex digest that the file, as it is, must have; if not empty.
	SHA256 string
	// Boot says how to boot; Kernel and Initrd are paths of files to copy.
	Boot    Boot
	Console Console
	OS      string
	// Agent is the version of the guest agent in it, empty if there is none.
	Agent    string
	Progress Progress
}

// DigestError says that a file is not the one that was wanted.
type DigestError struct{ File, Want, Got string }

func (e *DigestError) Error() string {
	return fmt.Sprintf("%s has the SHA-256 digest %s, wanted is %s: the file is damaged or another one", e.File, e.Got, e.Want)
}

// Import makes an image of a disk in a file, which may be compressed with xz,
// zstd or gzip. The file is read once and need not fit into memory; zeros become
// holes. If anything is wrong with it, no image is made.
func Import(ctx context.Context, s Store, file, name string, o ImportOptions) (Image, error) {
	img, err := importFile(ctx, s, file, name, o)
	if err != nil {
		return Image{}, fmt.Errorf("importing %s as image %q: %w", file, name, explainSpace(err, s.Home()))
	}
	return img, nil
}

func importFile(ctx context.Context, s Store, file, name string, o ImportOptions) (Image, error) {
	spec, err := o.spec(file)
	if err != nil {
		return Image{}, err
	}
	in, err := os.Open(file)
	if err != nil {
		return Image{}, err
	}
	defer in.Close()
	d, err := s.Create(ctx, name, o.Progress)
	if err != nil {
		return Image{}, err
	}
	defer d.Discard()
	disk := filepath.Join(d.Dir, spec.Disk)
	if err := o.copyDisk(ctx, in, disk); err != nil {
		return Image{}, err
	}
	if err := checkDisk(ctx, disk, spec.Format); err != nil {
		return Image{}, err
	}
	if spec.Boot.Method == "" {
		if spec.Boot.Method, err = firmwareOf(ctx, disk, spec.Format); err != nil {
			return Image{}, err
		}
	}
	if err := copyInto(ctx, d.Dir, &spec.Boot.Kernel, "kernel"); err != nil {
		return Image{}, err
	}
	if err := copyInto(ctx, d.Dir, &spec.Boot.Initrd, "initrd"); err != nil {
		return Image{}, err
	}
	o.Progress.Report(Step{What: "storing the image"})
	return d.Commit(ctx, spec)
}

// spec checks the options and makes of them what the image will be, but for the
// kind of firmware if none is asked for.
func (o ImportOptions) spec(file string) (Spec, error) {
	format := o.Format
	if format == "" {
		format = formatOf(file)
	}
	if format != "raw" && format != "qcow2" {
		return Spec{}, fmt.Errorf("the name does not tell the disk's format: say raw or qcow2 (--format)")
	}
	spec := Spec{Disk: "disk." + format, Format: format, Boot: o.Boot, Console: o.Console, OS: o.OS, Agent: o.Agent}
	switch b := &spec.Boot; {
	case b.Method == "" && b.Kernel != "":
		b.Method = BootKernel
	case b.Method == "": // the disk will tell
	case b.Method == BootKernel && b.Kernel == "":
		return Spec{}, errors.New("booting by kernel needs a kernel (--kernel)")
	case b.Method != BootBIOS && b.Method != BootUEFI && b.Method != BootKernel:
		return Spec{}, fmt.Errorf("boot method %q: want %s, %s or %s", b.Method, BootBIOS, BootUEFI, BootKernel)
	}
	if spec.Boot.Method != BootKernel && spec.Boot != (Boot{Method: spec.Boot.Method}) {
		return Spec{}, errors.New("a kernel, an initrd or a command line has no use when firmware boots the disk")
	}
	if want := o.SHA256; want != "" {
		if raw, err := hex.DecodeString(want); err != nil || len(raw) != sha256.Size {
			return Spec{}, fmt.Errorf("%q is no SHA-256 digest: want 64 hex digits", want)
		}
	}
	return spec, nil
}

// formatOf tells a disk's format by the file's name, "" if that does not.
func formatOf(file string) string {
	base := strings.ToLower(filepath.Base(file))
	for _, ext := range []string{".xz", ".zst", ".gz"} {
		base = strings.TrimSuffix(base, ext)
	}
	switch filepath.Ext(base) {
	case ".raw", ".img":
		return "raw"
	case ".qcow2":
		return "qcow2"
	}
	return ""
}

func (o ImportOptions) copyDisk(ctx context.Context, in *os.File, to string) error {
	info, err := in.Stat()
	if err != nil {
		return err
	}
	src := &meter{ctx: ctx, r: in, sum: sha256.New(), total: info.Size(), progress: o.Progress}
	plain, done, err := decompressor(src)
	if err != nil {
		return err
	}
	defer done()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := copySparse(out, plain)
	if err := errors.Join(early(err), out.Close()); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, src); err != nil { // what a decompressor left unread counts for the digest
		return err
	}
	if got := hex.EncodeToString(src.sum.Sum(nil)); o.SHA256 != "" && !strings.EqualFold(got, o.SHA256) {
		return &DigestError{File: in.Name(), Want: strings.ToLower(o.SHA256), Got: got}
	}
	if n == 0 {
		return errors.New("the disk is empty")
	}
	return nil
}

// early says what an early end of compressed data means.
func early(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the compressed file ends early: %w", err)
	}
	return err
}

// meter counts, digests and reports what passes through it.
type meter struct {
	ctx      context.Context
	r        io.Reader
	sum      hash.Hash
	done     int64
	total    int64
	progress Progress
}

func (m *meter) Read(p []byte) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := m.r.Read(p)
	m.sum.Write(p[:n])
	m.done += int64(n)
	m.progress.Report(Step{What: "reading the disk", Done: m.done, Total: m.total, Bytes: true})
	return n, err
}

// decompressor recognises a compression by its first bytes.
func decompressor(src io.Reader) (plain io.Reader, done func(), err error) {
	const readAhead = 1 << 20
	in := bufio.NewReaderSize(src, readAhead)
	magic, err := in.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	done = func() {}
	switch {
	case bytes.HasPrefix(magic, []byte("\xfd7zXZ\x00")):
		plain, err = xz.NewReader(in)
	case bytes.HasPrefix(magic, []byte("\x28\xb5\x2f\xfd")):
		var d *zstd.Decoder
		if d, err = zstd.NewReader(in, zstd.WithDecoderMaxWindow(1<<31)); err == nil {
			plain, done = d, d.Close
		}
	case bytes.HasPrefix(magic, []byte("\x1f\x8b")):
		plain, err = gzip.NewReader(in)
	default:
		plain, err = in, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading the compressed file: %w", early(err))
	}
	return plain, done, nil
}

// copySparse copies to an empty file and leaves holes where there are zeros.
func copySparse(out *os.File, in io.Reader) (int64, error) {
	const block = 64 << 10
	buf, zeros := make([]byte, block), make([]byte, block)
	var at int64
	for {
		n, err := fill(in, buf)
		if n > 0 && !bytes.Equal(buf[:n], zeros[:n]) {
			if _, err := out.WriteAt(buf[:n], at); err != nil {
				return at, err
			}
		}
		at += int64(n)
		if err == io.EOF {
			return at, out.Truncate(at)
		}
		if err != nil {
			return at, err
		}
	}
}

// fill is io.ReadFull, but lets the reader's own error through: an unexpected
// end is not the end.
func fill(in io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var more int
		more, err = in.Read(buf[n:])
		n += more
	}
	return n, err
}

func checkDisk(ctx context.Context, path, format string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h, err := readQcow2(f)
	if format == "raw" {
		if err == nil {
			return errors.New("the disk is in the qcow2 format, not raw: say so (--format qcow2)")
		}
		return foreignFormat(f)
	}
	if err != nil {
		return fmt.Errorf("the disk is no qcow2: %w", err)
	}
	if err := h.checkStandalone(); err != nil {
		return fmt.Errorf("the qcow2 disk cannot be imported: %w", err)
	}
	return checkQcow2(ctx, path)
}

// foreignFormat refuses disks of other hypervisors that would be taken for raw.
func foreignFormat(f io.ReaderAt) error {
	head := make([]byte, 8)
	if _, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	for magic, format := range map[string]string{"KDMV": "vmdk", "COWD": "vmdk", "vhdxfile": "vhdx", "conectix": "vpc", "<<< ": "vdi"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return fmt.Errorf("the disk is in the %s format: convert it first with qemu-img convert -f %s -O qcow2", format, format)
		}
	}
	return nil
}

// firmwareOf tells which firmware boots a disk: UEFI if the first sector has
// partitions and no program, which is all that BIOS would look for.
func firmwareOf(ctx context.Context, disk, format string) (string, error) {
	first := disk
	if format != "raw" {
		first += ".first"
		defer os.Remove(first)
		if err := qemuImg(ctx, nil, "dd", "-f", format, "-O", "raw", "bs=512", "count=1", "if="+disk, "of="+first); err != nil {
			return "", err
		}
	}
	sector, err := readStart(first, sectorSize)
	const program, signature = 440, 510
	if err != nil || len(sector) <= signature || !bytes.HasPrefix(sector[signature:], []byte{0x55, 0xaa}) ||
		!bytes.Equal(sector[:program], make([]byte, program)) {
		return BootBIOS, err
	}
	return BootUEFI, nil
}

// readStart reads at most n bytes from the start of a file.
func readStart(path string, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, n))
}

// copyInto copies the file at *path into a folder under a new name, which *path
// then is. An empty path is left alone.
func copyInto(ctx context.Context, dir string, path *string, name string) error {
	if *path == "" {
		return nil
	}
	in, err := os.Open(*path)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	_, err = io.Copy(out, &contextReader{ctx: ctx, r: in})
	*path = name
	return errors.Join(err, out.Close())
}
