package agent

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// Pack writes the file or folder at a path as a tar archive whose root is ".".
// Files, folders and symbolic links can be copied; anything else is an error.
func Pack(w io.Writer, root string) error {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	buf := make([]byte, 64<<10)
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
		return packOne(t, p, filepath.ToSlash(rel), info, buf)
	})
	if err != nil {
		return err
	}
	return t.Close()
}

func packOne(t *tar.Writer, p, name string, info fs.FileInfo, buf []byte) error {
	target := ""
	var file *os.File
	switch info.Mode().Type() {
	case 0:
		var err error
		if file, err = os.Open(p); err != nil {
			return err
		}
		defer file.Close()
		if info, err = file.Stat(); err != nil {
			return err
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
	// Not tar.FileInfoHeader, which looks up the names of users.
	h := &tar.Header{Name: name, Linkname: target, ModTime: info.ModTime(), Mode: int64(info.Mode().Perm()), Format: tar.FormatPAX}
	for bit, mode := range specialModes {
		if info.Mode()&mode != 0 {
			h.Mode |= bit
		}
	}
	switch {
	case file != nil:
		h.Typeflag, h.Size = tar.TypeReg, info.Size()
	case target != "":
		h.Typeflag = tar.TypeSymlink
	default:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	}
	if err := t.WriteHeader(h); err != nil || file == nil {
		return err
	}
	// A file that grows meanwhile is copied as long as it was.
	n, err := io.CopyBuffer(struct{ io.Writer }{t}, io.LimitReader(file, h.Size), buf)
	if err == nil && n < h.Size {
		err = fmt.Errorf("%s became shorter while it was copied", p)
	}
	return err
}

// specialModes are the bits of a mode above the permissions.
var specialModes = map[int64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky}

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

// Unpack makes what Pack wrote at a path, or in the folder at a path under its
// base. Nothing is written outside of that. Special is whether the bits setuid,
// setgid and sticky are kept.
//
// A file appears under its name when it is whole. What is there already is
// replaced, but for folders, into which the copy goes.
func Unpack(r io.Reader, t Tree, special bool) (err error) {
	dir, name, err := target(t)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	u := &unpacker{root: root, special: special}
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return u.finish()
		}
		if err != nil {
			return err
		}
		rel := path.Join(name, h.Name)
		if !filepath.IsLocal(h.Name) || !filepath.IsLocal(rel) {
			return fmt.Errorf("the archive has a file %q outside of itself", h.Name)
		}
		if err := u.one(rel, h, in); err != nil {
			return fmt.Errorf("%s: %w", path.Join(dir, rel), err)
		}
	}
}

// target returns the folder to copy into and the name in it.
func target(t Tree) (dir, name string, err error) {
	info, err := os.Stat(t.Path)
	switch {
	case err == nil && info.IsDir() && t.Base != "":
		if !filepath.IsLocal(t.Base) || strings.Contains(t.Base, "/") {
			return "", "", fmt.Errorf("%q is not the name of a file", t.Base)
		}
		return t.Path, t.Base, nil
	case err == nil && info.IsDir():
		return t.Path, ".", nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", "", err
	case err == nil && !info.Mode().IsRegular():
		return "", "", fmt.Errorf("%s is neither a file nor a folder", t.Path)
	case strings.HasSuffix(t.Path, "/"):
		return "", "", fmt.Errorf("there is no folder %s", t.Path)
	}
	dir, name = filepath.Split(t.Path)
	if dir == "" {
		dir = "."
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return "", "", fmt.Errorf("there is no folder %s", dir)
	}
	return dir, name, nil
}

// unpacker makes files in a folder.
type unpacker struct {
	root    *os.Root
	special bool
	folders []folder // made here; they get their modes last
	count   int
	buf     []byte
}

type folder struct {
	name string
	h    *tar.Header
}

func (u *unpacker) mode(h *tar.Header) fs.FileMode {
	mode := fs.FileMode(h.Mode).Perm()
	for bit, m := range specialModes {
		if u.special && h.Mode&bit != 0 {
			mode |= m
		}
	}
	return mode
}

func (u *unpacker) one(name string, h *tar.Header, in io.Reader) error {
	switch h.Typeflag {
	case tar.TypeDir:
		return u.folder(name, h)
	case tar.TypeReg:
		return u.file(name, h, in)
	case tar.TypeSymlink:
		if info, err := u.root.Lstat(name); err == nil && !info.IsDir() {
			if err := u.root.Remove(name); err != nil {
				return err
			}
		}
		return u.root.Symlink(h.Linkname, name)
	}
	return fmt.Errorf("type %q cannot be copied", h.Typeflag)
}

func (u *unpacker) folder(name string, h *tar.Header) error {
	if info, err := u.root.Lstat(name); err == nil {
		if info.IsDir() {
			return nil
		}
		return errors.New("there is something that is no folder")
	}
	if err := u.root.Mkdir(name, 0o700); err != nil {
		return err
	}
	u.folders = append(u.folders, folder{name, h})
	return nil
}

func (u *unpacker) file(name string, h *tar.Header, in io.Reader) (err error) {
	if info, err := u.root.Lstat(name); err == nil && info.IsDir() {
		return errors.New("there is a folder")
	}
	f, tmp, err := u.temporary(path.Dir(name))
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, u.root.Remove(tmp))
		}
	}()
	if u.buf == nil {
		u.buf = make([]byte, 64<<10)
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, in, u.buf)
	if err == nil {
		err = f.Chmod(u.mode(h))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := u.root.Chtimes(tmp, h.ModTime, h.ModTime); err != nil {
		return err
	}
	return u.root.Rename(tmp, name)
}

// temporary makes a file that nobody else has in a folder.
func (u *unpacker) temporary(dir string) (*os.File, string, error) {
	for {
		u.count++
		name := path.Join(dir, ".falcon-copy-"+strconv.Itoa(os.Getpid())+"-"+strconv.Itoa(u.count))
		f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if !errors.Is(err, fs.ErrExist) {
			return f, name, err
		}
	}
}

// finish gives folders their modes and times, the inner ones first.
func (u *unpacker) finish() error {
	for i := len(u.folders) - 1; i >= 0; i-- {
		f := u.folders[i]
		err := errors.Join(u.root.Chmod(f.name, u.mode(f.h)), u.root.Chtimes(f.name, f.h.ModTime, f.h.ModTime))
		if err != nil {
			return err
		}
	}
	return nil
}

// chunks sends what is written as messages of data.
type chunks struct {
	s   *Sender
	buf []byte
}

// SendTree sends the file or folder at a path, or why that failed.
func SendTree(s *Sender, root string, progress func(n int)) error {
	c := &chunks{s: s, buf: make([]byte, 0, MaxMessage)}
	err := Pack(progressWriter{c, progress}, root)
	if err == nil {
		err = c.flush()
	}
	if err != nil {
		return err
	}
	return s.Send(End, nil)
}

type progressWriter struct {
	io.Writer
	progress func(int)
}

func (w progressWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if w.progress != nil {
		w.progress(n)
	}
	return n, err
}

// Write implements io.Writer.
func (c *chunks) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		n := copy(c.buf[len(c.buf):cap(c.buf)], p[written:])
		c.buf = c.buf[:len(c.buf)+n]
		written += n
		if len(c.buf) == cap(c.buf) {
			if err := c.flush(); err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

func (c *chunks) flush() error {
	if len(c.buf) == 0 {
		return nil
	}
	err := c.s.Send(Data, c.buf)
	c.buf = c.buf[:0]
	return err
}

// TreeReader reads the data of messages until their end.
type TreeReader struct {
	R        *Receiver
	Progress func(n int)
	rest     []byte
	err      error
}

// Read implements io.Reader.
func (t *TreeReader) Read(p []byte) (int, error) {
	for len(t.rest) == 0 && t.err == nil {
		kind, content, err := t.R.Receive()
		switch {
		case errors.Is(err, io.EOF):
			t.err = io.ErrUnexpectedEOF
		case err != nil:
			t.err = err
		case kind == Data:
			t.rest = content
		case kind == End:
			t.err = io.EOF
		case kind == Failed:
			t.err = &RemoteError{Text: string(content)}
		default:
			t.err = errShort
		}
	}
	if len(t.rest) == 0 {
		return 0, t.err
	}
	n := copy(p, t.rest)
	t.rest = t.rest[n:]
	if t.Progress != nil {
		t.Progress(n)
	}
	return n, nil
}
