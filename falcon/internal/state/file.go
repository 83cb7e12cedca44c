package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/internal/printable"
)

// Everything in a folder is reached by a handle of the folder and one plain
// name, and no symbolic link is followed: what was put there is never a way to
// another place.

// handle opens the folder itself.
func (f *Folder) handle() (*os.File, error) {
	dir, err := os.OpenFile(f.path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	info, err := dir.Stat()
	if err == nil {
		err = judge(f.path, info, true)
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// within calls do with a descriptor of the folder.
func (f *Folder) within(name string, do func(dir int) error) error {
	if name == "" || name == "." || name == ".." || strings.ContainsRune(name, '/') {
		return fmt.Errorf("%q is not the name of a file in %s", name, f.path)
	}
	dir, err := f.handle()
	if err != nil {
		return err
	}
	defer dir.Close()
	err = do(int(dir.Fd()))
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return &fs.PathError{Op: "state folder", Path: f.File(name), Err: err}
	}
	return err
}

// open opens a regular file of the user's own, which nobody else can write to.
func (f *Folder) open(name string, flags int) (file *os.File, err error) {
	err = f.within(name, func(dir int) (err error) {
		file, err = openAt(dir, f.File(name), flags)
		return err
	})
	return file, err
}

// openAt opens a file in a folder; path is its own.
func openAt(dir int, path string, flags int) (*os.File, error) {
	var fd int
	var err error
	for {
		// Nobody waits for the other end of a FIFO.
		fd, err = unix.Openat(dir, filepath.Base(path), flags|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o600)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return nil, &TrustError{path, "is a symbolic link or no regular file", "look at it, then: rm " + printable.Word(path)}
	}
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), path)
	info, err := file.Stat()
	if err == nil {
		err = judgeFile(path, info)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// OpenFile opens a file of the folder for reading. The error wraps os.ErrNotExist
// when there is none.
func (f *Folder) OpenFile(name string) (*os.File, error) { return f.open(name, os.O_RDONLY) }

// ReadFile reads a file of the folder. The error wraps os.ErrNotExist when there
// is none.
func (f *Folder) ReadFile(name string) ([]byte, error) {
	file, err := f.OpenFile(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(file)
}

// OpenLog opens a file of the folder that is appended to, and made if need be.
// What stands there under that name and is not a file of the user's own alone is
// replaced.
func (f *Folder) OpenLog(name string, empty bool) (file *os.File, err error) {
	err = f.within(name, func(dir int) (err error) {
		file, err = openAt(dir, f.File(name), os.O_RDWR|os.O_APPEND)
		if err == nil && links(file) != 1 {
			file.Close()
			err = fs.ErrExist // writing to it would be writing to another
		}
		if err != nil {
			if err := removeAt(dir, name); err != nil {
				return err
			}
			file, err = openAt(dir, f.File(name), os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_EXCL)
		}
		return err
	})
	if err == nil && empty {
		err = file.Truncate(0)
	}
	return file, err
}

// links returns how many names a file has.
func links(file *os.File) uint64 {
	info, err := file.Stat()
	if err != nil {
		return 0
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 1
	}
	return uint64(s.Nlink)
}

// Has reports whether there is something of that name in the folder.
func (f *Folder) Has(name string) bool {
	return f.within(name, func(dir int) error {
		var s unix.Stat_t
		return unix.Fstatat(dir, name, &s, unix.AT_SYMLINK_NOFOLLOW)
	}) == nil
}

// Names returns the names of what is in the folder; none when there is no folder.
func (f *Folder) Names() ([]string, error) {
	dir, err := f.handle()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}

// Mkdir makes a folder in the folder, if it is not there.
func (f *Folder) Mkdir(name string) error {
	return f.inRoot(name, func(root *os.Root) error {
		err := root.Mkdir(name, 0o700)
		if info, lerr := root.Lstat(name); lerr == nil && info.IsDir() {
			return judge(f.File(name), info, true)
		}
		return err
	})
}

// RemoveTree removes a folder in the folder, with all that is in it. That there
// is none is no error.
func (f *Folder) RemoveTree(name string) error {
	err := f.inRoot(name, func(root *os.Root) error { return root.RemoveAll(name) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// inRoot is within for what os.Root does without following a link at the end.
func (f *Folder) inRoot(name string, do func(*os.Root) error) error {
	return f.within(name, func(int) error {
		root, err := os.OpenRoot(f.path)
		if err != nil {
			return err
		}
		defer root.Close()
		return do(root)
	})
}

// removeAt removes a file, or a link to one, of an open folder.
func removeAt(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// RemoveFile removes a file of the folder, and what an interrupted writing of it
// has left; a file that is not there is no error.
func (f *Folder) RemoveFile(name string) error {
	err := f.within(name, func(dir int) error {
		return errors.Join(removeAt(dir, successor(name)), removeAt(dir, name))
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // there is no folder
	}
	return err
}

// RemoveFiles is RemoveFile for many: it looks once which of them are there.
func (f *Folder) RemoveFiles(names []string) error {
	entries, err := f.Names()
	if err != nil {
		return err
	}
	there := make(map[string]bool, len(entries))
	for _, e := range entries {
		there[e] = true
	}
	var errs []error
	for _, name := range names {
		if there[successor(name)] || there[name] {
			errs = append(errs, f.RemoveFile(name))
		}
	}
	return errors.Join(errs...)
}

// ReadJSON reads a document of the folder. The error wraps os.ErrNotExist when
// there is none, and names a document that is damaged.
func (f *Folder) ReadJSON(name string, v any) error {
	data, err := f.ReadFile(name)
	if err != nil {
		return err
	}
	return unmarshal(data, f.File(name), v)
}

// ReadJSON reads a document at a path. The error wraps os.ErrNotExist when there
// is none, and names a document that is damaged.
func ReadJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return unmarshal(data, path, v)
}

func unmarshal(data []byte, path string, v any) error {
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s is damaged: %w", path, err)
	}
	return nil
}

// WriteJSON replaces a document of the folder in one step.
func (f *Folder) WriteJSON(name string, v any) error {
	data, err := json.Marshal(v) // each command reads it: white space would take half of the time
	if err != nil {
		return err
	}
	return f.WriteFile(name, append(data, '\n'))
}

// WriteFile replaces a file of the folder in one step, also when power is lost.
func (f *Folder) WriteFile(name string, data []byte) error { return f.replace(name, data, true) }

// WriteNote is WriteFile for what is of no use after a loss of power: it is not
// made durable.
func (f *Folder) WriteNote(name string, data []byte) error { return f.replace(name, data, false) }

// successor is where replace writes the new content of a file. It is one name,
// so that a crash leaves one file, which the next write or the removal of the
// file takes away; the folder's lock keeps a second writer off.
func successor(name string) string { return "." + name + ".new" }

// replace writes beside the file and renames, so that a reader sees the old
// content or the new.
func (f *Folder) replace(name string, data []byte, durable bool) error {
	return f.within(name, func(dir int) error {
		next := successor(name)
		err := removeAt(dir, next)
		if err == nil {
			err = writeNew(dir, f.File(next), data, durable)
		}
		if err == nil {
			err = unix.Renameat(dir, next, dir, name)
		}
		if err != nil {
			return errors.Join(err, removeAt(dir, next))
		}
		return nil
	})
}

// writeNew writes a file that is not there yet.
func writeNew(dir int, path string, data []byte, durable bool) error {
	file, err := openAt(dir, path, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil && durable {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// createJSON makes a document that is not there yet, and its name durable: the
// error wraps os.ErrExist when there is one.
func (f *Folder) createJSON(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return f.within(name, func(dir int) error {
		if err := writeNew(dir, f.File(name), append(data, '\n'), true); err != nil {
			return err
		}
		return unix.Fsync(dir)
	})
}
