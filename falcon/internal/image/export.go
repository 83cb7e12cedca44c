package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Export writes an image's disk, with all that it stands on, to a new file. The
// file's name tells the format (.raw, .img or .qcow2), and whether it is then
// compressed (.zst). The file appears when it is whole; it must not exist.
func (s *Files) Export(ctx context.Context, name, file string, progress Progress) error {
	if err := s.export(ctx, name, file, progress); err != nil {
		return fmt.Errorf("exporting image %q to %s: %w", name, file, err)
	}
	return nil
}

func (s *Files) export(ctx context.Context, name, file string, progress Progress) error {
	return s.exportTo(ctx, file, progress, func(out, format string) error {
		img, unlock, err := s.hold(ctx, name)
		if err != nil {
			return err
		}
		defer unlock()
		if err := s.VerifyImage(ctx, img); err != nil {
			return err
		}
		return convert(ctx, img.Disk, img.Format, out, format, progress)
	})
}

// convert has qemu-img write a disk in another format.
func convert(ctx context.Context, from, fromFormat, to, format string, progress Progress) error {
	return qemuImg(ctx, convertProgress{"writing the disk", progress},
		"convert", "-p", "-f", fromFormat, "-O", format, from, to)
}

// exportTo has a disk written in the format that the name of a new file tells,
// compresses it if that says so, and puts it in place.
func (s *Files) exportTo(ctx context.Context, file string, progress Progress, write func(out, format string) error) error {
	plain, compress := strings.CutSuffix(file, ".zst")
	format := formatOf(plain)
	if format == "" || strings.HasSuffix(plain, ".xz") || strings.HasSuffix(plain, ".gz") {
		return errors.New("the file's name must end in .raw, .img or .qcow2, perhaps followed by .zst")
	}
	if exists(file) {
		return errors.New("the file exists already")
	}
	if err := s.prepare(); err != nil {
		return err
	}
	w, err := s.newWork("export")
	if err != nil {
		return err
	}
	defer w.discard()
	// Beside the file, so that it can be renamed.
	dir, err := w.beside(file)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "disk")
	err = write(out, format)
	if err == nil && compress {
		out, err = compressFile(ctx, out, progress)
	}
	if err != nil {
		return err
	}
	if err := syncDir(out); err != nil {
		return err
	}
	return os.Rename(out, file)
}

// compressFile makes a zstd file beside another and removes that.
func compressFile(ctx context.Context, from string, progress Progress) (to string, err error) {
	in, err := os.Open(from)
	if err != nil {
		return "", err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return "", err
	}
	to = from + ".zst"
	out, err := os.Create(to)
	if err != nil {
		return "", err
	}
	w, err := zstd.NewWriter(out)
	if err != nil {
		return "", errors.Join(err, out.Close())
	}
	_, err = io.Copy(w, &reporter{contextReader{ctx, in}, Step{What: "compressing", Total: info.Size(), Bytes: true}, progress})
	return to, errors.Join(err, w.Close(), out.Close(), os.Remove(from))
}

// reporter reports how far a file has been read.
type reporter struct {
	contextReader
	step     Step
	progress Progress
}

func (r *reporter) Read(p []byte) (int, error) {
	n, err := r.contextReader.Read(p)
	r.step.Done += int64(n)
	r.progress.Report(r.step)
	return n, err
}
