package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"syscall"
)

// copyBlock is what is read at once, and the finest hole that is left.
const copyBlock = 64 << 10

// copyDisk copies a disk of size bytes to where only zeros are yet, and leaves
// zeros out. Devices take whole sectors only, so what is written is filled up
// with zeros to a whole block of a volume.
func copyDisk(ctx context.Context, out io.WriterAt, in *os.File, size int64, what string, progress Progress) error {
	buf, zeros := make([]byte, copyBlock), make([]byte, copyBlock)
	report := func(done int64) { progress.Report(Step{What: what, Done: done, Total: size, Bytes: true}) }
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		next, err := nextData(in, at, size)
		if err != nil {
			return err
		}
		if at = next / copyBlock * copyBlock; at >= size {
			break
		}
		n := int(min(copyBlock, size-at))
		if got, err := in.ReadAt(buf[:n], at); got < n {
			return errors.Join(io.ErrUnexpectedEOF, err)
		}
		whole := int(roundUp(int64(n), volumeBlock))
		clear(buf[n:whole])
		if !bytes.Equal(buf[:whole], zeros[:whole]) {
			if _, err := out.WriteAt(buf[:whole], at); err != nil {
				return err
			}
		}
		at += int64(n)
		report(at)
	}
	report(size)
	return nil
}

// seekData is SEEK_DATA of lseek(2), the same number on Linux and illumos.
const seekData = 3

// nextData returns where data begins at or behind a place in a file; size if
// there is none. What knows no holes, such as a device, has data everywhere.
func nextData(f *os.File, at, size int64) (int64, error) {
	next, err := f.Seek(at, seekData)
	switch {
	case err == nil:
		return next, nil
	case errors.Is(err, syscall.ENXIO):
		return size, nil
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ESPIPE), errors.Is(err, syscall.ENOTTY), errors.Is(err, syscall.ENOTSUP):
		return at, nil
	}
	return 0, err
}
