package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/falcon-vm/falcon-go/propolis"
)

// resumeLimit bounds the return to the old state after a failure, when the
// caller's own time may be up.
const resumeLimit = 10 * time.Second

// SwitchOverlay moves a disk onto a qcow2 overlay that is to be at path: what
// the guest writes from then on goes there, and what it had written is a file
// at rest, which it reads only. disk is the name of the storage backend. The
// guest stands still meanwhile if it was running. On error it goes on with
// the old file.
//
// The overlay is at path already, or it waits beside it with ".next" appended
// and takes the place of the file there. That must be so where path is that of
// the disk's present file, which keeps its name until the overlay is on it. QEMU
// opens neither by its name: their descriptors are handed to it.
func (m *Machine) SwitchOverlay(ctx context.Context, disk, path string) error {
	m.overlayMu.Lock()
	defer m.overlayMu.Unlock()
	m.disksMu.Lock()
	node, ok := m.disks[disk]
	m.disksMu.Unlock()
	if !ok {
		return fmt.Errorf("switching disk %q to %s: the instance has no such storage backend", disk, path)
	}
	m.overlay++
	overlay := fmt.Sprintf("%s.%d", blockNode(disk), m.overlay)
	before := m.sets[disk]
	err := m.whilePaused(ctx, func() error {
		own, err := m.takeWaiting(path)
		if err != nil {
			return err
		}
		if err := m.snapshot(ctx, disk, node, overlay, own); err != nil {
			return errors.Join(err, rename(own, path, path+propolis.OverlayWaiting))
		}
		m.disksMu.Lock()
		m.disks[disk] = overlay
		m.disksMu.Unlock()
		return rename(own, path, path)
	})
	if err != nil {
		return fmt.Errorf("switching disk %q to %s: %w", disk, path, err)
	}
	// QEMU does so while the guest runs, or when it goes on.
	if err := m.readOnly(ctx, before); err != nil {
		m.cfg.log().Warn("QEMU can still write to a disk under an overlay", "disk", disk, "error", err.Error())
	}
	return nil
}

// takeWaiting gives an overlay that waits a name that QEMU has seen no other
// file under, and returns it; path itself where none waits.
func (m *Machine) takeWaiting(path string) (string, error) {
	if _, err := os.Lstat(path + propolis.OverlayWaiting); errors.Is(err, os.ErrNotExist) {
		return path, nil
	}
	own := fmt.Sprintf("%s.%d", path, m.overlay)
	return own, os.Rename(path+propolis.OverlayWaiting, own)
}

// rename gives an overlay that has waited for path another name.
func rename(own, path, to string) error {
	if own == path {
		return nil
	}
	return os.Rename(own, to)
}

// whilePaused calls f with the guest stopped, which also flushes its disks.
func (m *Machine) whilePaused(ctx context.Context, f func() error) error {
	m.stillMu.Lock()
	defer m.stillMu.Unlock()
	status, err := m.status(ctx)
	if err != nil {
		return m.proc.explain(err)
	}
	if err := m.execute(ctx, "stop", nil); err != nil {
		return errors.Join(err, m.resume(ctx, status.Running))
	}
	return errors.Join(f(), m.resume(ctx, status.Running))
}

// resume lets a guest that was running go on, even when ctx is over.
func (m *Machine) resume(ctx context.Context, running bool) error {
	if !running {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resumeLimit)
	defer cancel()
	return m.Run(ctx)
}

// hand gives QEMU the file of a disk, and returns the set of its descriptors.
func (m *Machine) hand(ctx context.Context, path string) (set int, err error) {
	set = -1
	for flag, mark := range map[int]string{os.O_RDWR: writtenFD, os.O_RDONLY: "read"} {
		file, err := os.OpenFile(path, flag, 0)
		if err != nil {
			return set, err
		}
		set, err = m.qmp.AddFD(ctx, set, file, mark)
		file.Close()
		if err != nil {
			return set, m.proc.explain(err)
		}
	}
	return set, nil
}

// readOnly takes from QEMU what it wrote to a disk by.
func (m *Machine) readOnly(ctx context.Context, set int) error {
	var sets []struct {
		ID  int `json:"fdset-id"`
		FDs []struct {
			FD   int    `json:"fd"`
			Mark string `json:"opaque"`
		} `json:"fds"`
	}
	if err := m.qmp.Execute(ctx, "query-fdsets", nil, &sets); err != nil {
		return m.proc.explain(err)
	}
	var err error
	for _, s := range sets {
		for _, fd := range s.FDs {
			if s.ID == set && fd.Mark == writtenFD {
				err = errors.Join(err, m.execute(ctx, "remove-fd", map[string]any{"fdset-id": set, "fd": fd.FD}))
			}
		}
	}
	return err
}

// snapshot opens the overlay and puts it over node.
func (m *Machine) snapshot(ctx context.Context, disk, node, overlay, path string) error {
	set, err := m.hand(ctx, path)
	if err != nil {
		return err
	}
	open := map[string]any{
		"driver": "qcow2", "node-name": overlay, "discard": "unmap",
		"backing": nil, // what it stands on is the node, opened already
		"file":    map[string]any{"driver": "file", "filename": setPath(set), "discard": "unmap"},
	}
	if err := m.execute(ctx, "blockdev-add", open); err != nil {
		return err
	}
	err = m.execute(ctx, "blockdev-snapshot", map[string]any{"node": node, "overlay": overlay})
	if err == nil {
		m.sets[disk] = set
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resumeLimit)
	defer cancel()
	return errors.Join(err, m.execute(ctx, "blockdev-del", map[string]any{"node-name": overlay}),
		m.execute(ctx, "remove-fd", map[string]any{"fdset-id": set}))
}
