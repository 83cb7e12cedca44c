package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/falcon-vm/falcon-go/propolis"
)

func readJSON(path string, into any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s is damaged: %w", path, err)
	}
	return nil
}

// writeJSON puts a file in place at once, or not at all.
func writeJSON(path string, value any, mode fs.FileMode) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(path, mode, func(f *os.File) error {
		_, err := f.Write(append(data, '\n'))
		return err
	})
}

// replaceFile writes a new file beside path, makes it durable, and renames it.
func replaceFile(path string, mode fs.FileMode, write func(*os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), halfMade(path))
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(write(f), f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// halfMade begins the names of the files that replaceFile writes beside path.
func halfMade(path string) string { return "." + filepath.Base(path) + ".new-" }

// removeHalfMade removes what calls have left that were killed while they
// replaced the file at path, of replaceFile or of a hypervisor.
func removeHalfMade(path string) error {
	dir, name := filepath.Split(path)
	var errs []error
	for _, begin := range []string{halfMade(path), halfMade(path + propolis.OverlayWaiting), name + "."} {
		left, err := filepath.Glob(globEscape(filepath.Join(dir, begin)) + "*")
		errs = append(errs, err)
		for _, f := range left {
			errs = append(errs, removeIfThere(f))
		}
	}
	return errors.Join(errs...)
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// removeIfThere removes a file that may be gone already.
func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
