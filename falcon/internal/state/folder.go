// Package state keeps what falcon knows of a topology on disk: its folder with
// a lock, its documents and its journal, and the list of all such folders.
package state

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/internal/printable"
)

// Folder is the state folder of one topology.
type Folder struct{ path string }

// Open returns the folder at path, which need not exist. Symbolic links on the
// way are resolved as far as they exist, so that one folder has one identity.
func Open(path string) (*Folder, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("state folder %s: %w", path, err)
	}
	rest := ""
	for head := abs; ; head = filepath.Dir(head) {
		real, err := filepath.EvalSymlinks(head)
		if err == nil {
			return &Folder{filepath.Join(real, rest)}, nil
		}
		if head == filepath.Dir(head) {
			return &Folder{abs}, nil
		}
		rest = filepath.Join(filepath.Base(head), rest)
	}
}

// Path returns the absolute path of the folder.
func (f *Folder) Path() string { return f.path }

// ForeignOwner reports the user that the folder belongs to when that is
// another one than this process's: what such a folder says is not to be
// believed, least of all by root.
func (f *Folder) ForeignOwner() (uid uint32, foreign bool) {
	info, err := os.Stat(f.path)
	if err != nil {
		return 0, false
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return s.Uid, int(s.Uid) != os.Geteuid()
}

// File returns the absolute path of a file in the folder.
func (f *Folder) File(name string) string { return filepath.Join(f.path, name) }

// ID returns eight hexadecimal digits that stand for the folder on this host.
func (f *Folder) ID() string {
	sum := sha256.Sum256([]byte(f.path))
	return hex.EncodeToString(sum[:4])
}

// Create makes the folder, open to its owner alone.
func (f *Folder) Create() error {
	if err := os.MkdirAll(f.path, 0o700); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	return nil
}

// Remove removes the folder when nothing is left in it. Files that falcon does
// not know stay, and the folder with them.
func (f *Folder) Remove() error {
	err := os.Remove(f.path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

const lockFile = "lock"

// Locked reports whether somebody holds the folder alone, or the part of it that
// has a lock file of that name, and who.
func (f *Folder) Locked(name string) (by string, locked bool) {
	file, err := os.Open(f.File(cmp.Or(name, lockFile)))
	if err != nil {
		return "", false
	}
	defer file.Close()
	err = unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return "", false
	}
	return holder(file), true
}

// Lock takes the folder for this process alone until unlock is called, and
// makes it when it is not there. While another holds it, Lock waits, and says
// so once through waiting.
func (f *Folder) Lock(ctx context.Context, purpose string, waiting func(holder string)) (unlock func(), err error) {
	return f.lock(ctx, lockFile, unix.LOCK_EX, purpose, waiting)
}

// LockShared is Lock for work on a part of the topology, together with others
// who do the same: it keeps only a holder of Lock waiting.
func (f *Folder) LockShared(ctx context.Context, purpose string, waiting func(holder string)) (unlock func(), err error) {
	return f.lock(ctx, lockFile, unix.LOCK_SH, purpose, waiting)
}

// LockFile is Lock for a part of the folder that has a lock file of its own.
func (f *Folder) LockFile(ctx context.Context, name, purpose string, waiting func(holder string)) (unlock func(), err error) {
	return f.lock(ctx, name, unix.LOCK_EX, purpose, waiting)
}

func (f *Folder) lock(ctx context.Context, name string, how int, purpose string, waiting func(holder string)) (unlock func(), err error) {
	path := f.File(name)
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if errors.Is(err, os.ErrNotExist) {
			if err := f.Create(); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("locking the state folder: %w", err)
		}
		if err := flock(ctx, file, how, waiting); err != nil {
			return nil, fmt.Errorf("waiting for the lock %s, held by %s: %w", path, holder(file), err)
		}
		// Who held it may have destroyed the topology, and the lock with it.
		if !sameFile(file, path) {
			file.Close()
			continue
		}
		// The note is for those who wait; a full disk is no reason to be
		// without the lock, under which a destroy makes room.
		_ = file.Truncate(0)
		_, _ = fmt.Fprintf(io.NewOffsetWriter(file, 0), "%s (pid %d)", purpose, os.Getpid())
		return func() { file.Close() }, nil
	}
}

// flock waits in a goroutine, because a waiting flock cannot be cancelled. When
// ctx ends first the goroutine lets go of the lock as soon as it has it: either
// it hands the lock over, or it closes the file, never neither.
func flock(ctx context.Context, file *os.File, how int, waiting func(string)) error {
	fd := int(file.Fd())
	err := unix.Flock(fd, how|unix.LOCK_NB)
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return err
	}
	if waiting != nil {
		waiting(holder(file))
	}
	locked := make(chan error)
	go func() {
		err := unix.Flock(fd, how)
		for errors.Is(err, unix.EINTR) {
			err = unix.Flock(fd, how)
		}
		select {
		case locked <- err:
		case <-ctx.Done():
			file.Close()
		}
	}()
	select {
	case err := <-locked:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// holder names the present holders of a lock. The note in its file is that of who
// came last, who may have gone while another one stays: only where the system tells
// whose process holds it, it is known to be right.
func holder(file *os.File) string {
	data, _ := io.ReadAll(io.NewSectionReader(file, 0, 256))
	note := printable.Line(strings.TrimSpace(string(data)))
	var names []string
	for _, pid := range holders(file) {
		name := fmt.Sprintf("(pid %d)", pid)
		if strings.HasSuffix(note, name) {
			name = note
		} else {
			name = strings.TrimSpace(commandOf(pid) + " " + name)
		}
		names = append(names, name)
	}
	return cmp.Or(strings.Join(names, ", "), note, "another falcon")
}

func sameFile(file *os.File, path string) bool {
	a, err := file.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// RemoveLock removes the lock file. Only the holder of the lock may do so.
func (f *Folder) RemoveLock() error { return removeFile(f.File(lockFile)) }

// RemoveFile removes a file of the folder; a file that is not there is no
// error.
func (f *Folder) RemoveFile(name string) error { return removeFile(f.File(name)) }

// RemoveFiles is RemoveFile for many: it looks once which of them are there.
func (f *Folder) RemoveFiles(names []string) error {
	entries, err := os.ReadDir(f.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	there := make(map[string]bool, len(entries))
	for _, e := range entries {
		there[e.Name()] = true
	}
	var errs []error
	for _, name := range names {
		for _, path := range []string{successor(f.File(name)), f.File(name)} {
			if !there[filepath.Base(path)] {
				continue
			}
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// removeFile also removes what an interrupted writeFile has left.
func removeFile(path string) error {
	for _, p := range []string{successor(path), path} {
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// ReadJSON reads a document of the folder. The error wraps os.ErrNotExist when
// there is none.
func (f *Folder) ReadJSON(name string, v any) error { return ReadJSON(f.File(name), v) }

// WriteJSON replaces a document of the folder in one step.
func (f *Folder) WriteJSON(name string, v any) error { return writeJSON(f.File(name), v) }

// WriteNote is WriteFile for what is of no use after a loss of power: it is not
// made durable.
func (f *Folder) WriteNote(name string, data []byte) error {
	tmp := successor(f.File(name))
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return os.Rename(tmp, f.File(name))
}

// WriteFile replaces a file of the folder in one step.
func (f *Folder) WriteFile(name string, data []byte) error { return writeFile(f.File(name), data) }

// ReadJSON reads a document at a path. The error wraps os.ErrNotExist when there
// is none, and names a document that is damaged.
func ReadJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s is damaged: %w", path, err)
	}
	return nil
}

func writeJSON(path string, v any) error {
	data, err := json.Marshal(v) // each command reads it: white space would take half of the time
	if err != nil {
		return err
	}
	return writeFile(path, append(data, '\n'))
}

// successor is where writeFile writes the new content of a file. It is one
// name, so that a crash leaves one file, which the next write or the removal of
// path takes away; the folder's lock keeps a second writer off.
func successor(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
}

// writeFile writes beside the file and renames, so that a reader sees the old
// content or the new, also after a loss of power.
func writeFile(path string, data []byte) (err error) {
	tmp, err := os.OpenFile(successor(path), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	_, err = tmp.Write(data)
	if serr := tmp.Sync(); err == nil {
		err = serr
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
