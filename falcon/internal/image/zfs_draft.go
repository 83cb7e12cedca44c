package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// undoDeadline bounds the removal of what a call that failed has made.
const undoDeadline = 2 * busyDeadline

// undoContext is for undoing what was begun under a context, which may have
// ended by then.
func undoContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.WithoutCancel(ctx), undoDeadline, fmt.Errorf("it could not be undone within %v", undoDeadline))
}

// Create starts an image of a name that is not taken; else the error is
// ErrExists.
func (s *ZFS) Create(ctx context.Context, name string, progress Progress) (*Draft, error) {
	d := &Draft{store: s.files, name: name, keep: s.keeper(progress)}
	if err := d.begin(ctx, s.imageLock(name), func() error { return s.vacant(ctx, name) }, progress); err != nil {
		return nil, err
	}
	return d, nil
}

// vacant says whether an image of this name can be made. What was half-made
// under it is cleared away. The name is locked by the caller.
func (s *ZFS) vacant(ctx context.Context, name string) error {
	d, err := s.get(ctx, s.imageName(name))
	switch {
	case err != nil:
		return err
	case d == nil:
		return nil
	case d.halfMade():
		return s.abandon(ctx, d)
	case !d.based():
		return fmt.Errorf("%w: %s was not made by this program, and has no snapshot @%s", ErrExists, d.name, snapshotBase)
	}
	return fmt.Errorf("%w: %q in %s", ErrExists, name, s.dataset)
}

// volumeBlock is the size of a volume's blocks. Its size is a multiple of that.
const volumeBlock = 4096

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }

// keeper returns what makes images of finished drafts.
func (s *ZFS) keeper(progress Progress) func(context.Context, *Draft, Spec) (Image, error) {
	return func(ctx context.Context, d *Draft, spec Spec) (img Image, err error) {
		if spec, err = d.toRaw(ctx, spec, progress); err != nil {
			return Image{}, err
		}
		r, err := d.finish(ctx, spec)
		if err != nil {
			return Image{}, err
		}
		img, err = s.commit(ctx, d.Dir, r, progress)
		if err != nil {
			undo, cancel := undoContext(ctx)
			defer cancel()
			return Image{}, errors.Join(err, s.destroy(undo, s.imageName(d.name)))
		}
		return img, nil
	}
}

// toRaw converts a disk that is not raw: a volume has no other format.
func (d *Draft) toRaw(ctx context.Context, spec Spec, progress Progress) (Spec, error) {
	if spec.Format == "raw" {
		return spec, nil
	}
	const raw = "volume.raw"
	if err := convert(ctx, filepath.Join(d.Dir, spec.Disk), spec.Format, filepath.Join(d.Dir, raw), "raw", progress); err != nil {
		return spec, fmt.Errorf("converting the disk from %s: %w", spec.Format, err)
	}
	spec.Disk, spec.Format = raw, "raw"
	return spec, nil
}

// commit makes an image of files in a folder. Its last step, the snapshot, is
// what makes it seen. The caller destroys what is left of one that failed.
func (s *ZFS) commit(ctx context.Context, dir string, r record, progress Progress) (Image, error) {
	volume := s.imageName(r.Name)
	if err := s.makeVolume(ctx, volume, roundUp(r.VirtualSize, volumeBlock)); err != nil {
		return Image{}, err
	}
	d, err := s.get(ctx, volume)
	if err != nil {
		return Image{}, err
	}
	if d == nil {
		return Image{}, fmt.Errorf("volume %s is gone", volume)
	}
	if err := s.fill(ctx, volume, filepath.Join(dir, r.Disk), r.VirtualSize, progress); err != nil {
		return Image{}, err
	}
	if r.Boot, err = s.keepBoot(dir, s.bootDir(d), r.Boot); err != nil {
		return Image{}, err
	}
	r.Disk = ""
	p, err := property(userImage, r)
	if err != nil {
		return Image{}, err
	}
	if err := setProperties(ctx, volume, p); err != nil {
		return Image{}, err
	}
	if err := takeSnapshot(ctx, volume, snapshotBase); err != nil {
		return Image{}, err
	}
	return s.Get(ctx, r.Name)
}

// makeVolume makes a sparse volume, and the file systems above it.
func (s *ZFS) makeVolume(ctx context.Context, name string, size int64) error {
	args := append([]string{"-V", strconv.FormatInt(size, 10)},
		properties("refreservation=none", fmt.Sprintf("volblocksize=%d", volumeBlock), userImage+"="+imageDraft)...)
	_, err := runZFS(ctx, name, "create", append(args, name)...)
	if zfsSays(err, saysNoParent) {
		if err := s.makeFilesystem(ctx, filepath.Dir(name)); err != nil {
			return err
		}
		_, err = runZFS(ctx, name, "create", append(args, name)...)
	}
	return err
}

// fill copies a raw disk into a fresh volume.
func (s *ZFS) fill(ctx context.Context, volume, from string, size int64, progress Progress) error {
	device, err := s.await(ctx, volume)
	if err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	err = copyDisk(ctx, out, in, size, "copying the disk into "+volume, progress)
	if err := errors.Join(err, out.Sync(), out.Close()); err != nil {
		return fmt.Errorf("writing volume %s: %w", volume, err)
	}
	return nil
}

// keepBoot moves a kernel and an initrd to where they stay.
func (s *ZFS) keepBoot(from, to string, b Boot) (Boot, error) {
	for _, file := range []*string{&b.Kernel, &b.Initrd} {
		if *file == "" {
			continue
		}
		if err := os.MkdirAll(to, 0o755); err != nil {
			return b, err
		}
		path := filepath.Join(to, *file)
		if err := os.Rename(filepath.Join(from, *file), path); err != nil {
			return b, err
		}
		*file = path
	}
	if b.Kernel == "" {
		return b, nil
	}
	return b, syncDir(to)
}

// Export writes an image's disk to a new file.
func (s *ZFS) Export(ctx context.Context, name, file string, progress Progress) error {
	err := s.files.exportTo(ctx, file, progress, func(out, format string) error {
		return s.read(ctx, name, func(device string, size int64) error {
			if format != "raw" {
				return convert(ctx, device, "raw", out, format, progress)
			}
			f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return err
			}
			return errors.Join(copyDevice(ctx, f, device, size, "writing the disk", progress), f.Close())
		})
	})
	if err != nil {
		return fmt.Errorf("exporting image %q of %s to %s: %w", name, s.dataset, file, err)
	}
	return nil
}

// read lends the disk of an image: not its volume, which somebody may have
// written to, but a clone of its snapshot, which is gone afterwards.
func (s *ZFS) read(ctx context.Context, name string, use func(device string, size int64) error) (err error) {
	d, img, unlock, err := s.hold(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	clone := s.imageName("reader-" + uuid.NewString())
	defer func() {
		undo, cancel := undoContext(ctx)
		defer cancel()
		err = errors.Join(err, s.destroy(undo, clone))
	}()
	if err := cloneSnapshot(ctx, d.name+"@"+snapshotBase, clone, userImage+"="+imageReader); err != nil {
		return err
	}
	device, err := s.await(ctx, clone)
	if err != nil {
		return err
	}
	return use(device, img.VirtualSize)
}

// copyDevice copies from a volume to an empty file, which becomes sparse.
func copyDevice(ctx context.Context, out *os.File, device string, size int64, what string, progress Progress) error {
	in, err := os.Open(device)
	if err != nil {
		return err
	}
	defer in.Close()
	return errors.Join(copyDisk(ctx, out, in, size, what, progress), out.Truncate(size))
}

// deviceDeadline bounds the wait for a volume's device. A guest under TCG had
// it after less than 1 s.
const deviceDeadline = 30 * time.Second

// device is the path of a volume.
func (s *ZFS) device(volume string) string { return filepath.Join(s.deviceDir, volume) }

// await waits until the device of a volume can be used and returns its path.
func (s *ZFS) await(ctx context.Context, volume string) (string, error) {
	device := s.device(volume)
	waiting, cancel := context.WithTimeout(ctx, deviceDeadline)
	defer cancel()
	last := awaitDevice(waiting, device, func() error { return s.ready(device, volume) })
	switch {
	case last == nil:
		return device, nil
	case ctx.Err() != nil:
		return "", fmt.Errorf("waiting for %s: %w", device, context.Cause(ctx))
	}
	return "", fmt.Errorf("the device %s of volume %s was not there after %v: %w%s", device, volume, deviceDeadline, last, missingDevice(volume))
}
