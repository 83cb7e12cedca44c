package state

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/falcon/internal/process"
)

// Kind is the kind of an object of the host.
type Kind string

// The kinds of objects that a topology is made of.
const (
	// Registration is the entry in the list of topologies.
	Registration Kind = "registration"
	// Links is all that the link fabric makes for the topology.
	Links Kind = "links"
	// External is a device on a host interface; Name is its full name.
	External Kind = "external"
	// Disk is the disk of a node.
	Disk Kind = "disk"
	// Server is the process that runs a node.
	Server Kind = "server"
)

// Object is something on the host that belongs to the topology.
type Object struct {
	Kind Kind `json:"kind"`
	// Name tells objects of one kind apart: a node, a device, a namespace.
	Name string `json:"name"`
	// Device is the host's own name for an External, Host the interface
	// that it stands on. For a Disk, Device is the ZFS dataset that it is
	// in; empty where disks are files.
	Device string `json:"device,omitempty"`
	Host   string `json:"host,omitempty"`
	// Process identifies a Server once it has been started.
	Process *process.Identity `json:"process,omitempty"`
}

func (o Object) key() [2]string { return [2]string{string(o.Kind), o.Name} }

// entry is a line of the journal.
type entry struct {
	Op     string `json:"op"`
	Object Object `json:"object"`
}

const (
	opMake = "make"
	opGone = "gone"
)

// Journal records what is about to be made and what is gone, one line each, in
// the order in which it happened. What it lists exists or may exist; what it
// does not list was never made.
//
// Several processes may write to one journal, each about objects of its own;
// a Journal does not learn what others have written since it was opened.
type Journal struct {
	file   *os.File
	folder *Folder

	mu       sync.Mutex
	standing listing
	queue    []*batch // waits to be written
	writing  bool     // somebody writes the queue
}

// batch is entries that are written together.
type batch struct {
	lines   []byte
	entries []entry
	durable bool
	done    chan struct{} // closed when err is known
	err     error
}

// JournalFile is the name of the journal in a state folder.
const JournalFile = "journal"

// DamagedError names the lines of a journal that cannot be read. The others
// stand.
type DamagedError struct {
	Path  string
	Lines []error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("journal %s: %v", e.Path, errors.Join(e.Lines...))
}

// damage returns the error for damaged lines, nil for none.
func damage(path string, lines []error) error {
	if len(lines) == 0 {
		return nil
	}
	return &DamagedError{path, lines}
}

// Journal opens the folder's journal. A last line that was cut off when power
// was lost is dropped: what it announced had not been begun. Lines that are
// damaged are passed over; see [Folder.Standing], which names them.
func (f *Folder) Journal() (*Journal, error) {
	file, err := f.open(JournalFile, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j := &Journal{file: file, folder: f}
	if err := j.load(); err != nil {
		file.Close()
		return nil, err
	}
	return j, nil
}

// Standing reads what the folder's journal lists, without opening it for
// writing. With a *DamagedError it returns what the other lines say.
func (f *Folder) Standing() ([]Object, error) {
	data, err := f.ReadFile(JournalFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	standing, _, bad := replay(data)
	return standing.objects(), damage(f.File(JournalFile), bad)
}

func (j *Journal) load() error {
	return j.exclusively(func(size int64) error {
		data := make([]byte, size)
		if _, err := j.file.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("journal: %w", err)
		}
		standing, whole, _ := replay(data)
		j.standing = standing
		if err := j.file.Truncate(int64(whole)); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		return nil
	})
}

// exclusively calls f, with the size of the file, while no other process reads
// it whole or writes to it. That is for the moment of a write, so nobody waits
// for long.
func (j *Journal) exclusively(f func(size int64) error) error {
	fd := int(j.file.Fd())
	err := unix.Flock(fd, unix.LOCK_EX)
	for errors.Is(err, unix.EINTR) {
		err = unix.Flock(fd, unix.LOCK_EX)
	}
	if err != nil {
		return fmt.Errorf("journal: locking it: %w", err)
	}
	defer func() { _ = unix.Flock(fd, unix.LOCK_UN) }()
	info, err := j.file.Stat()
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return f(info.Size())
}

// replay returns the standing objects, the length of the whole lines, and what is
// wrong with those that are passed over.
func replay(data []byte) (standing listing, whole int, bad []error) {
	lines := bufio.NewReader(bytes.NewReader(data))
	for n := 1; ; n++ {
		line, rerr := lines.ReadBytes('\n')
		if rerr != nil {
			return standing, whole, bad // the end, or a line that was cut off
		}
		whole += len(line)
		var e entry
		err := json.Unmarshal(line, &e)
		if err == nil && e.Op != opMake && e.Op != opGone {
			err = fmt.Errorf("or of a newer falcon: unknown operation %q", e.Op)
		}
		if err != nil {
			bad = append(bad, fmt.Errorf("line %d is damaged: %w", n, err))
			continue
		}
		standing.apply(e)
	}
}

// listing is a list of objects, oldest first, in which each is found at once.
type listing struct {
	slots []slot
	at    map[[2]string]int // in slots
}

// slot is an object's place in a listing; one that has gone leaves it empty.
type slot struct {
	object Object
	gone   bool
}

// apply does what an entry says.
func (l *listing) apply(e entry) {
	i, stands := l.at[e.Object.key()]
	switch {
	case e.Op == opGone && stands:
		l.slots[i] = slot{gone: true}
		delete(l.at, e.Object.key())
	case e.Op == opMake && stands:
		l.slots[i].object = e.Object
	case e.Op == opMake:
		if l.at == nil {
			l.at = make(map[[2]string]int)
		}
		l.at[e.Object.key()] = len(l.slots)
		l.slots = append(l.slots, slot{object: e.Object})
	}
}

// objects returns what the listing holds.
func (l *listing) objects() []Object {
	var objects []Object
	for _, s := range l.slots {
		if !s.gone {
			objects = append(objects, s.object)
		}
	}
	return objects
}

// Make records objects that are about to be made, or what has become known of
// them. It must return before they are made.
func (j *Journal) Make(objects ...Object) error { return j.write(opMake, objects) }

// Gone records that objects do not exist any more. It does not wait for the
// disk: after a loss of power they may be listed again, and what is listed need
// not exist.
func (j *Journal) Gone(objects ...Object) error { return j.write(opGone, objects) }

// write returns when the entries are written, and when some are to be made, on
// the disk. Those that come while others are being written are written together
// after them, and share one wait for the disk.
func (j *Journal) write(op string, objects []Object) error {
	b := &batch{durable: op == opMake, done: make(chan struct{})}
	for _, o := range objects {
		e := entry{op, o}
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		b.lines = append(append(b.lines, line...), '\n')
		b.entries = append(b.entries, e)
	}
	j.mu.Lock()
	j.queue = append(j.queue, b)
	mine := !j.writing
	j.writing = true
	j.mu.Unlock()
	if mine {
		j.writeQueue()
	}
	<-b.done
	return b.err
}

// writeQueue writes batches until none waits.
func (j *Journal) writeQueue() {
	for {
		j.mu.Lock()
		queue := j.queue
		j.queue = nil
		j.writing = len(queue) > 0
		j.mu.Unlock()
		if len(queue) == 0 {
			return
		}
		var lines []byte
		durable := false
		for _, b := range queue {
			lines = append(lines, b.lines...)
			durable = durable || b.durable
		}
		err := j.append(lines, durable)
		j.mu.Lock()
		for _, b := range queue {
			for _, e := range b.entries {
				if err == nil {
					j.standing.apply(e)
				}
			}
			b.err = err
			close(b.done)
		}
		j.mu.Unlock()
	}
}

// append puts lines at the end of the file, all or none, and waits for the disk
// if they are to be durable.
func (j *Journal) append(lines []byte, durable bool) error {
	return j.exclusively(func(size int64) error {
		size, err := j.cutOff(size)
		if err == nil {
			_, err = j.file.WriteAt(lines, size)
		}
		if err == nil && durable {
			err = j.file.Sync()
		}
		if err != nil {
			// What of the lines went in before the disk was full must not
			// stand in front of the next ones.
			return fmt.Errorf("journal: %w", errors.Join(err, j.file.Truncate(size)))
		}
		return nil
	})
}

// cutOff returns the size of the file without a last line that a writer who was
// killed has left unfinished.
func (j *Journal) cutOff(size int64) (int64, error) {
	last := []byte{'\n'}
	if _, err := j.file.ReadAt(last, max(size-1, 0)); err != nil && !errors.Is(err, io.EOF) {
		return size, err
	}
	if last[0] == '\n' {
		return size, nil
	}
	data := make([]byte, size)
	if _, err := j.file.ReadAt(data, 0); err != nil {
		return size, err
	}
	size = int64(bytes.LastIndexByte(data, '\n') + 1)
	return size, j.file.Truncate(size)
}

// Standing returns what is recorded as made and not gone, oldest first.
func (j *Journal) Standing() []Object {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.standing.objects()
}

// Find returns what Standing has of that kind and name.
func (j *Journal) Find(kind Kind, name string) (Object, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	i, ok := j.standing.at[Object{Kind: kind, Name: name}.key()]
	if !ok {
		return Object{}, false
	}
	return j.standing.slots[i].object, true
}

// Close closes the journal. Its file stays.
func (j *Journal) Close() error { return j.file.Close() }

// Remove closes the journal and removes its file.
func (j *Journal) Remove() error {
	j.file.Close()
	return j.folder.RemoveFile(JournalFile)
}
