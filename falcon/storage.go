package falcon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Storage is the room that the disks of a topology have on the host, and what
// they may come to want of it.
type Storage struct {
	// Folder is where they are, Free what is free there.
	Folder string `json:"folder"`
	Free   Bytes  `json:"free"`
	// Used is what they take, MayGrow how much more they take when their guests
	// have written to all of them; Others is the same of the other disks there.
	Used    Bytes `json:"used"`
	MayGrow Bytes `json:"may_grow"`
	Others  Bytes `json:"others_may_grow"`
}

// Outgrows reports whether the disks may come to want more than there is.
func (s *Storage) Outgrows() bool { return s.MayGrow+s.Others > s.Free }

// String says it in a sentence without an end.
func (s *Storage) String() string {
	text := fmt.Sprintf("disks take %s and may grow by %s", s.Used, s.MayGrow)
	if s.Others > 0 {
		text += fmt.Sprintf(", other disks there by %s", s.Others)
	}
	return text + fmt.Sprintf("; %s are free in %s", s.Free, s.Folder)
}

// Warning says what becomes of disks that outgrow what there is; empty when they
// cannot.
func (s *Storage) Warning() string {
	if !s.Outgrows() {
		return ""
	}
	return "guests that write more than there is room for stand still until there is some"
}

// spacious is a host that knows how much room there is for a file.
type spacious interface {
	space(path string) (Bytes, error)
}

// storage looks at the room for a topology's disks; nil where the host does not
// tell, or they are no files.
func (l *lab) storage(ctx context.Context, p *Plan) *Storage {
	h, ok := l.host.(spacious)
	store := l.host.store()
	if !ok || store.Dataset() != "" {
		return nil
	}
	s := &Storage{Folder: store.Home()}
	free, err := h.space(existing(s.Folder))
	if err != nil {
		l.log.Debug("looking at the room for disks", "error", err)
		return nil
	}
	s.Free = free
	for i := range p.Nodes {
		used := allocated(p.Nodes[i].Disk)
		s.Used += used
		s.MayGrow += p.Nodes[i].DiskSize - min(used, p.Nodes[i].DiskSize)
	}
	disks, err := store.Disks(ctx)
	if err != nil { // what can be read is in disks
		l.log.Debug("looking at the other disks", "error", err)
	}
	for _, d := range disks {
		if d.Owner.ID != l.folder.ID() {
			s.Others += Bytes(d.Size - min(d.Used, d.Size))
		}
	}
	return s
}

// allocated is what a file takes on the host.
func allocated(path string) Bytes {
	info, err := os.Stat(path)
	if err != nil {
		return 0 // it is yet to be made
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return Bytes(st.Blocks) * 512
}

// existing is the part of a path that is there.
func existing(path string) string {
	for !fileExists(path) && path != filepath.Dir(path) {
		path = filepath.Dir(path)
	}
	return path
}

// check warns of disks that may outgrow their file system. That is how most are:
// it is no reason not to launch.
func (s *Storage) check() Check {
	return Check{Name: "disks", Detail: s.String(), Warning: s.Warning()}
}

// roomForMemory refuses a template whose memory may not fit into the file system
// that it is kept on: QEMU would be killed on the way.
func (l *lab) roomForMemory(np *NodePlan) error {
	h, ok := l.host.(spacious)
	if !ok {
		return nil
	}
	home := l.host.store().Home()
	if free, err := h.space(existing(home)); err == nil && free < np.Memory {
		return fmt.Errorf("it keeps up to %s of memory, and %s are free in %s", np.Memory, free, home)
	}
	return nil
}
