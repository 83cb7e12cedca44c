package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Entry is a file, folder or symbolic link of a tree that is copied. The content
// of a file follows it, in pieces.
type Entry struct {
	// Path is where it is in the tree, with slashes; "." is the tree's root,
	// which comes first.
	Path string
	// Mode is its type, permissions, and the bits setuid, setgid and sticky.
	Mode fs.FileMode
	// UID and GID are its owners.
	UID, GID int
	Time     time.Time
	// Size is that of a file's content.
	Size int64
	// Target is where a symbolic link leads.
	Target string
}

// Encode returns the bytes of an Entry.
func (x Entry) Encode() []byte {
	var e encoder
	e.text(x.Path)
	e.number(uint64(x.Mode))
	e.number(uint64(x.UID))
	e.number(uint64(x.GID))
	e.number(uint64(x.Time.UnixNano()))
	e.number(uint64(x.Size))
	e.text(x.Target)
	return e
}

// DecodeEntry reads what Encode wrote.
func DecodeEntry(p []byte) (Entry, error) {
	d := decoder{rest: p}
	x := Entry{
		Path: d.text(), Mode: fs.FileMode(d.number()), UID: int(d.number()), GID: int(d.number()),
		Time: time.Unix(0, int64(d.number())), Size: int64(d.number()), Target: d.text(),
	}
	if d.err == nil && x.Size < 0 {
		d.err = errShort
	}
	return x, d.err
}

// ownModes are the bits of a mode that are copied. Those that give a program
// the rights of its owner are copied only where Keep says so.
const (
	ownModes     = fs.ModePerm
	specialModes = fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky
)

// TreeWriter sends a tree.
type TreeWriter struct {
	s        *Sender
	progress func(n int64)
}

// NewTreeWriter returns a writer that sends a tree as messages of s. Progress,
// if set, is told of each piece of content.
func NewTreeWriter(s *Sender, progress func(n int64)) *TreeWriter {
	return &TreeWriter{s: s, progress: progress}
}

// Entry begins the next entry.
func (w *TreeWriter) Entry(x Entry) error { return w.s.queue(File, x.Encode()) }

// Write sends the next piece of a file's content, at most MaxMessage bytes.
func (w *TreeWriter) Write(p []byte) (int, error) {
	if err := w.s.queue(Data, p); err != nil {
		return 0, err
	}
	w.count(int64(len(p)))
	return len(p), nil
}

// Hole sends that the next n bytes of a file are zeros and take no space.
func (w *TreeWriter) Hole(n int64) error {
	if n <= 0 {
		return nil
	}
	w.count(n)
	return w.s.queue(Hole, Number(uint64(n)))
}

func (w *TreeWriter) count(n int64) {
	if w.progress != nil {
		w.progress(n)
	}
}

// Close ends the tree.
func (w *TreeWriter) Close() error { return w.s.Send(End, nil) }

// SendTree sends the file or folder at a path. Files, folders and symbolic links
// can be copied; anything else is an error. A file keeps its holes.
func SendTree(s *Sender, root string, progress func(n int64)) error {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return err
	}
	w := NewTreeWriter(s, progress)
	buf := make([]byte, MaxMessage)
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return w.sendOne(p, filepath.ToSlash(rel), info, buf)
	})
	if err != nil {
		return err
	}
	return w.Close()
}

func (w *TreeWriter) sendOne(p, name string, info fs.FileInfo, buf []byte) error {
	target := ""
	var file *os.File
	switch info.Mode().Type() {
	case 0:
		var err error
		// What has become something else since it was looked at is not followed,
		// nor waited for.
		if file, err = os.OpenFile(p, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0); err != nil {
			return err
		}
		defer file.Close()
		if info, err = file.Stat(); err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s became something else while it was copied", p)
		}
	case fs.ModeDir:
	case fs.ModeSymlink:
		var err error
		if target, err = os.Readlink(p); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%s is neither a file nor a folder nor a symbolic link, and cannot be copied", p)
	}
	x := Entry{Path: name, Mode: info.Mode(), Time: info.ModTime(), Target: target}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		x.UID, x.GID = int(st.Uid), int(st.Gid)
	}
	if file != nil {
		x.Size = info.Size()
	}
	if err := w.Entry(x); err != nil || file == nil {
		return err
	}
	return w.content(file, info, buf)
}

// content sends the content of a file as long as the file was when it was
// looked at, holes and all.
func (w *TreeWriter) content(file *os.File, info fs.FileInfo, buf []byte) error {
	var at int64
	for at < info.Size() {
		end := info.Size()
		if hasHoles(info) {
			var data int64
			data, end = nextData(file, at, info.Size())
			if err := w.Hole(data - at); err != nil {
				return err
			}
			at = data
		}
		for at < end {
			n, err := file.ReadAt(buf[:min(int64(len(buf)), end-at)], at)
			if n == 0 {
				if errors.Is(err, io.EOF) {
					err = fmt.Errorf("%s became shorter while it was copied", file.Name())
				}
				return err
			}
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			at += int64(n)
		}
	}
	return nil
}

// hasHoles reports whether a file takes less space than it has content.
func hasHoles(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && runtime.GOOS == "linux" && st.Blocks*512 < info.Size() // st_blocks counts 512 bytes everywhere
}

// Ways to look for data in a file with Seek, of Linux.
const (
	seekData = 3
	seekHole = 4
)

// nextData returns where the data after a place begins and ends. A file system
// that does not know says that all is data.
func nextData(file *os.File, at, size int64) (begin, end int64) {
	begin, err := file.Seek(at, seekData)
	switch {
	case errors.Is(err, syscall.ENXIO): // there is none
		return size, size
	case err != nil:
		return at, size
	}
	if end, err = file.Seek(begin, seekHole); err != nil {
		end = size
	}
	return min(begin, size), min(end, size)
}

// TreeSize returns the sum of the sizes of the files at a path.
func TreeSize(root string) (int64, error) {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return 0, err
	}
	var sum int64
	err = filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Type().IsRegular() {
			info, err := d.Info()
			if err != nil {
				return err
			}
			sum += info.Size()
		}
		return nil
	})
	return sum, err
}

// TreeBase returns the name that what is at a path has in the folder that it is
// copied to; empty where it has none, such as / or .. has not.
func TreeBase(p string) string {
	switch base := path.Base(p); {
	case base == "." || base == ".." || base == "/" || strings.HasSuffix(p, "/."):
		return ""
	default:
		return base
	}
}

// TreeReader reads a tree.
type TreeReader struct {
	r        *Receiver
	progress func(n int64)
	left     int64 // of the content of the entry
	err      error // that of the stream, or of who sends
}

// NewTreeReader returns a reader of the tree that r receives. Progress, if set,
// is told of each piece of content.
func NewTreeReader(r *Receiver, progress func(n int64)) *TreeReader {
	return &TreeReader{r: r, progress: progress}
}

// Next returns the next entry, once all content of the one before was read. At
// the end of the tree its error is io.EOF.
func (t *TreeReader) Next() (Entry, error) {
	kind, content, err := t.receive()
	switch {
	case err != nil:
		return Entry{}, err
	case kind == End && t.left == 0:
		return Entry{}, io.EOF
	case kind != File || t.left != 0:
		return Entry{}, t.fail(errShort)
	}
	x, err := DecodeEntry(content)
	if err != nil {
		return Entry{}, t.fail(err)
	}
	if x.Mode.IsRegular() {
		t.left = x.Size
	}
	return x, nil
}

// Content returns the next piece of an entry's content: bytes that are valid
// until the next call, or the length of a hole. At its end the error is io.EOF.
func (t *TreeReader) Content() (data []byte, hole int64, err error) {
	if t.left == 0 {
		return nil, 0, io.EOF
	}
	kind, content, err := t.receive()
	if err != nil {
		return nil, 0, err
	}
	n := int64(len(content))
	switch kind {
	case Data:
		data = content
	case Hole:
		number, err := DecodeNumber(content)
		if err != nil || number > uint64(t.left) {
			return nil, 0, t.fail(errShort)
		}
		n, hole = int64(number), int64(number)
	default:
		return nil, 0, t.fail(errShort)
	}
	if n > t.left || n == 0 {
		return nil, 0, t.fail(errShort)
	}
	t.left -= n
	if t.progress != nil {
		t.progress(n)
	}
	return data, hole, nil
}

// receive is Receive, which may say that the sender has failed.
func (t *TreeReader) receive() (Kind, []byte, error) {
	kind, content, err := t.r.Receive()
	switch {
	case errors.Is(err, io.EOF):
		return 0, nil, t.fail(io.ErrUnexpectedEOF)
	case err != nil:
		return 0, nil, t.fail(err)
	case kind == Failed:
		return 0, nil, t.fail(&RemoteError{Text: string(content)})
	}
	return kind, content, nil
}

func (t *TreeReader) fail(err error) error {
	t.err = err
	return err
}
