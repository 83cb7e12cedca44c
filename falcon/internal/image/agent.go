package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// SetAgent records the version of the guest agent that is in an image.
func (s *Files) SetAgent(ctx context.Context, name, version string) error {
	l, err := acquire(ctx, s.imageLock(name), true)
	if err != nil {
		return err
	}
	defer l.release()
	path := filepath.Join(s.imageDir(name), recordFile)
	info, err := os.Stat(path)
	var r record
	if err == nil {
		err = readJSON(path, &r)
	}
	if err == nil {
		r.Agent = version
		err = writeJSON(path, r, info.Mode().Perm())
	}
	if err != nil {
		return fmt.Errorf("recording the guest agent of image %q: %w", name, err)
	}
	return nil
}

// SetAgent records the version of the guest agent that is in an image.
func (s *ZFS) SetAgent(ctx context.Context, name, version string) error {
	l, err := s.lock(ctx, "img."+name, true)
	if err != nil {
		return err
	}
	defer l.release()
	d, err := s.getImage(ctx, name)
	if err != nil {
		return err
	}
	r, err := d.imageRecord()
	if err == nil && r == nil {
		err = errors.New("it was not made by this program")
	}
	if err != nil {
		return fmt.Errorf("recording the guest agent of image %q: %w", name, err)
	}
	r.Agent = version
	p, err := property(userImage, r)
	if err != nil {
		return err
	}
	return setProperties(ctx, d.name, p)
}
