package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/falcon-vm/falcon-go/internal/printable"
)

// BaseError says that an image on which a disk or another image stands is not
// there any more as it was: what stands on it cannot be read.
type BaseError struct {
	// Of is what stands on it.
	Of string
	// Image is its name, Dir its folder.
	Image, Dir string
	// Reason continues a sentence about it.
	Reason string
	// Remedy says what to do.
	Remedy string
}

func (e *BaseError) Error() string {
	msg := fmt.Sprintf("%s stands on image %q (%s), which %s: put that image back", e.Of, e.Image, e.Dir, e.Reason)
	if e.Remedy != "" {
		msg += ", or " + e.Remedy
	}
	return msg
}

// referTo returns what is recorded of an image by what is put on it.
func referTo(img Image) (parentRef, error) {
	file, err := traceOf(img.Disk)
	return parentRef{Name: img.Name, Dir: img.Dir, Digest: img.Digest, File: &file}, err
}

// VerifyDisk says why the disk of a node cannot be used any more: the error is a
// *BaseError if what it stands on is gone or another one.
func (s *Files) VerifyDisk(ctx context.Context, owner DiskOwner) error {
	var r diskRecord
	err := readJSON(s.diskRecordPath(owner), &r)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no disk, or one of which nothing is known
	}
	if err != nil {
		return err
	}
	if err := s.verifyDisk(ctx, r); err != nil {
		return err
	}
	// Of a disk that was made before the store of its image had a place for
	// that. If it cannot be told, the disk is good all the same.
	if done, err := s.claim(ctx, Image{Dir: r.Image.Dir}); err == nil {
		done()
	}
	return nil
}

func (s *Files) verifyDisk(ctx context.Context, r diskRecord) error {
	err := s.verify(ctx, "the disk of "+r.Owner.String(), r.Image)
	var base *BaseError
	if errors.As(err, &base) {
		base.Remedy = "give the disk up with the lab: falcon destroy " + printable.Word(r.Owner.Folder)
	}
	return err
}

// VerifyImage says why an image cannot be used any more: the error is a
// *BaseError if what it stands on is gone or another one.
func (s *Files) VerifyImage(ctx context.Context, img Image) error {
	if img.parentDir == "" {
		return nil
	}
	r, err := readBase(img.Dir)
	if err != nil || r.Parent == nil {
		return err
	}
	err = s.verify(ctx, fmt.Sprintf("image %q", img.Name), *r.Parent)
	var base *BaseError
	if errors.As(err, &base) {
		base.Remedy = removeIt + img.Name
	}
	return err
}

const (
	isGone   = "is gone"
	removeIt = "remove what cannot be read: falcon image rm "
)

// gone says that what the image in dir stands on is gone.
func gone(dir string, parent parentRef) error {
	name := filepath.Base(dir)
	return &BaseError{Of: fmt.Sprintf("image %q", name), Image: parent.Name, Dir: parent.Dir, Reason: isGone, Remedy: removeIt + name}
}

// verify follows what something stands on, down to the last image.
func (s *Files) verify(ctx context.Context, of string, ref parentRef) error {
	for range maxDepth {
		r, err := readBase(ref.Dir)
		reason := ""
		switch {
		case errors.Is(err, fs.ErrNotExist):
			reason = isGone
		case err != nil:
			return err
		case ref.Digest != "" && r.Digest != ref.Digest:
			reason = fmt.Sprintf("is another one by now: its digest is %s, and was %s", r.Digest, ref.Digest)
		case ref.File != nil:
			if reason, err = s.changed(ctx, ref, r); err != nil {
				return err
			}
		}
		if reason != "" {
			return &BaseError{Of: of, Image: ref.known(), Dir: ref.Dir, Reason: reason}
		}
		if r.Parent == nil {
			return nil
		}
		ref = *r.Parent
	}
	return fmt.Errorf("%s stands on more than %d images", of, maxDepth)
}

// readBase reads the record of an image, be it that of a snapshot that was not
// finished.
func readBase(dir string) (r record, err error) {
	for _, name := range []string{recordFile, pendingFile} {
		r = record{}
		if err = readJSON(filepath.Join(dir, name), &r); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return r, err
}

// changed says what is wrong with the disk of an image whose record is as it
// was: anybody can copy that. A file that was moved, copied, or of which anything
// else has changed, if only its mode, is digested. Of a snapshot and a template
// nobody knows the digest, so their size and time count.
func (s *Files) changed(ctx context.Context, ref parentRef, r record) (reason string, err error) {
	is, err := traceOf(filepath.Join(ref.Dir, r.Disk))
	if errors.Is(err, fs.ErrNotExist) {
		return "has lost its disk " + filepath.Join(ref.Dir, r.Disk), nil
	}
	if err != nil || is.same(*ref.File) {
		return "", err
	}
	const other = "has another disk than it had, in spite of its record"
	if r.DigestOf != "files" || r.Template != nil {
		if is.same(fileTrace{Size: ref.File.Size, Written: ref.File.Written}) {
			return "", nil
		}
		return other, nil
	}
	digest, err := s.digestOnce(ctx, ref.Dir, r, is)
	if err != nil || digest == r.Digest {
		return "", err
	}
	return other, nil
}
