// Package state keeps what falcon knows of a topology on disk: its folder with
// a lock, its documents and its journal, and the list of all such folders.
package state

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/internal/printable"
)

// Folder is the state folder of one topology.
type Folder struct {
	path     string
	identity Identity
	known    bool // the identity is that of the folder's topology
}

// Open returns the folder at path, which need not exist. Symbolic links on the
// way are resolved as far as they exist. A folder in which others could have put
// something is refused with a *TrustError.
func Open(path string) (*Folder, error) {
	path, err := resolve(path)
	if err != nil {
		return nil, err
	}
	if err := Judge(path); err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	f := &Folder{path: path, identity: Identity{ID: newID()}}
	_, err = f.Reload()
	return f, err
}

// Nowhere returns a folder for what has no topology: there is nothing in it, and
// nothing can be put there.
func Nowhere() *Folder {
	return &Folder{path: os.DevNull, identity: Identity{ID: newID()}}
}

// resolve returns an absolute path without symbolic links, as far as it exists.
func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("state folder %s: %w", path, err)
	}
	rest := ""
	for head := abs; ; head = filepath.Dir(head) {
		real, err := filepath.EvalSymlinks(head)
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		if head == filepath.Dir(head) {
			return abs, nil
		}
		rest = filepath.Join(filepath.Base(head), rest)
	}
}

// Path returns the absolute path of the folder.
func (f *Folder) Path() string { return f.path }

// File returns the absolute path of a file in the folder.
func (f *Folder) File(name string) string { return filepath.Join(f.path, name) }

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
	file, err := f.open(cmp.Or(name, lockFile), os.O_RDONLY)
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
		file, err := f.open(name, os.O_RDWR|os.O_CREATE)
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
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}

// RemoveLock removes the lock file. Only the holder of the lock may do so.
func (f *Folder) RemoveLock() error { return f.RemoveFile(lockFile) }
