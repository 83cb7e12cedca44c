package cli

import (
	"context"
	"os"

	"golang.org/x/sys/unix"
)

// fileWatch waits for changes of a file, by inotify.
type fileWatch struct {
	path   string
	events *os.File
	stop   func() bool
}

// watchFile watches a file until ctx ends, which ends a Wait too.
func watchFile(ctx context.Context, path string) (*fileWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	// A file that is held open is not deleted when it is unlinked: that is a
	// change of its attributes.
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY|unix.IN_ATTRIB|unix.IN_MOVE_SELF); err != nil {
		events.Close()
		return nil, os.NewSyscallError("inotify_add_watch", err)
	}
	return &fileWatch{path, events, context.AfterFunc(ctx, func() { events.Close() })}, nil
}

// Wait returns when the file has changed since the last call. When it has no
// name any more the error is os.ErrNotExist.
func (w *fileWatch) Wait() error {
	var buf [16 * (unix.SizeofInotifyEvent + unix.NAME_MAX + 1)]byte
	if _, err := w.events.Read(buf[:]); err != nil {
		return err
	}
	_, err := os.Stat(w.path)
	return err
}

// Close ends the watching.
func (w *fileWatch) Close() {
	if w.stop() {
		w.events.Close()
	}
}
