package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/internal/printable"
)

// Keep is what of a tree is kept beside content, permissions and times.
type Keep struct {
	// Owners are set to those of the source, by number.
	Owners bool
	// Special keeps the bits setuid, setgid and sticky.
	Special bool
}

// Unpack makes a tree at a path, or in the folder at a path under its base. The
// path itself may lead through links, for it is the user's own. What the tree
// brings is written below a handle of that place, and passes no link: neither
// one that the tree has brought nor one that was there.
//
// A file appears under its name when it is whole. What is there already is
// replaced, but for folders, into which the copy goes. When it fails, the folders
// that it has made are removed with all that is in them.
func Unpack(in *TreeReader, t Tree, keep Keep) (err error) {
	dir, name, err := target(t)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	u := &unpacker{keep: keep, dir: dir, name: name, root: root, kinds: make(map[string]fs.FileMode)}
	defer func() {
		if err != nil {
			u.undo()
		}
		u.at.close()
	}()
	for {
		x, err := in.Next()
		if errors.Is(err, io.EOF) {
			return u.finish()
		}
		if err != nil {
			return err
		}
		if err := u.admit(x); err != nil {
			return err
		}
		if err := u.one(x, in); err != nil && err != in.err {
			return u.explain(x.Path, err)
		} else if err != nil {
			return err
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
	case err == nil: // a link of the user's to a file stays one
		if t.Path, err = filepath.EvalSymlinks(t.Path); err != nil {
			return "", "", err
		}
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

// maxPath is the longest path of an entry, that of Linux.
const maxPath = 4096

// maxEntries is how many entries a tree may have, and maxPaths how many bytes their
// paths: what they are takes memory here, however little it is to send.
const (
	maxEntries = 4_000_000
	maxPaths   = 1 << 30
)

// unpacker makes files in a folder.
type unpacker struct {
	keep      Keep
	dir, name string // where the tree's root comes
	root      *os.Root
	// kinds has the type of each entry that came, by its path.
	kinds   map[string]fs.FileMode
	paths   int     // the bytes of all their paths
	folders []Entry // made here; they get their modes last
	at      *place  // the last one
	count   int
}

// admit refuses an entry that no tree of files has: the first is the root, a
// file or a folder, and each other one a new name in a folder that came before.
func (u *unpacker) admit(x Entry) error {
	refuse := func(why string) error {
		return fmt.Errorf("what is copied has the entry %s, which %s: it is refused", printable.Quote(x.Path), why)
	}
	kind := x.Mode.Type()
	_, again := u.kinds[x.Path]
	parent, known := u.kinds[path.Dir(x.Path)]
	first := len(u.kinds) == 0
	if first && u.name == "." && x.Path != "." { // it goes into a folder that is the user's
		u.kinds["."] = fs.ModeDir
		return u.admit(x)
	}
	u.paths += len(x.Path)
	switch {
	case len(u.kinds) >= maxEntries || u.paths > maxPaths:
		return fmt.Errorf("what is copied has more than %d entries, or %d bytes of their paths: it is refused; copy it in parts, or as an archive", maxEntries, maxPaths)
	case len(x.Path) > maxPath:
		return fmt.Errorf("what is copied has an entry whose path has %d bytes: it is refused", len(x.Path))
	case !filepath.IsLocal(x.Path) || path.Clean(x.Path) != x.Path || strings.ContainsRune(x.Path, 0):
		return refuse("is outside of it")
	case first != (x.Path == "."):
		return refuse("is not where its root is to be")
	case again:
		return refuse("comes twice")
	case first && kind != 0 && kind != fs.ModeDir:
		return refuse("is its root, and neither a file nor a folder")
	case !first && (!known || parent != fs.ModeDir):
		return refuse("is in no folder of it")
	case kind != 0 && kind != fs.ModeDir && kind != fs.ModeSymlink:
		return refuse("is neither a file nor a folder nor a symbolic link")
	}
	u.kinds[x.Path] = kind
	return nil
}

// explain says of which file an error is. It takes off the error's own path,
// which is one in the folder that is copied to, or that of a temporary file.
func (u *unpacker) explain(rel string, err error) error {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		err = p.Err
	} else if l := (*os.LinkError)(nil); errors.As(err, &l) {
		err = l.Err
	}
	return fmt.Errorf("%s: %w", printable.Line(path.Join(u.dir, u.name, rel)), err)
}

// place is an open folder in which entries come.
type place struct {
	rel  string // the folder's path in the tree
	root *os.Root
	file *os.File
}

func (p *place) close() {
	if p != nil {
		p.root.Close()
		p.file.Close()
	}
}

// parent opens the folder in which an entry comes, and returns the entry's name
// there. The folder stays open until another one is wanted: entries of one folder
// mostly follow each other.
func (u *unpacker) parent(rel string) (*place, string, error) {
	way := path.Join(u.name, rel)
	above, name := path.Dir(way), path.Base(way)
	if u.at != nil && u.at.rel == above {
		return u.at, name, nil
	}
	root, err := u.root.OpenRoot(".")
	for step := range strings.SplitSeq(above, "/") {
		if err != nil {
			return nil, "", err
		}
		var next *os.Root
		next, err = openFolder(root, step)
		root.Close()
		root = next
	}
	if err != nil {
		return nil, "", err
	}
	file, err := root.Open(".")
	if err != nil {
		root.Close()
		return nil, "", err
	}
	u.at.close()
	u.at = &place{above, root, file}
	return u.at, name, nil
}

// openFolder opens a folder of a folder, and no link to one.
func openFolder(dir *os.Root, name string) (*os.Root, error) {
	is, err := dir.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !is.IsDir() {
		return nil, errors.New("there is something that is no folder")
	}
	next, err := dir.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	// Between the two somebody may have put a link there.
	if opened, err := next.Stat("."); err != nil || !os.SameFile(is, opened) {
		next.Close()
		return nil, errors.Join(errors.New("the folder was replaced while it was opened"), err)
	}
	return next, nil
}

func (u *unpacker) one(x Entry, in *TreeReader) error {
	at, name, err := u.parent(x.Path)
	if err != nil {
		return err
	}
	switch x.Mode.Type() {
	case fs.ModeDir:
		return u.folder(at, name, x)
	case fs.ModeSymlink:
		return u.link(at, name, x)
	}
	return u.file(at, name, x, in)
}

func (u *unpacker) mode(x Entry) fs.FileMode {
	if u.keep.Special {
		return x.Mode & (ownModes | specialModes)
	}
	return x.Mode & ownModes
}

// dress gives what is open its owners and mode, in this order: a change of owners
// takes bits of the mode away. Its time it gets by its name, or that of a link
// which has come in its place.
func (u *unpacker) dress(at *place, name string, f *os.File, x Entry) error {
	if u.keep.Owners {
		if err := f.Chown(x.UID, x.GID); err != nil {
			return err
		}
	}
	if err := f.Chmod(u.mode(x)); err != nil {
		return err
	}
	return setTime(at, name, x)
}

func setTime(at *place, name string, x Entry) error {
	t := unix.NsecToTimespec(x.Time.UnixNano())
	return unix.UtimesNanoAt(int(at.file.Fd()), name, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
}

func (u *unpacker) link(at *place, name string, x Entry) error {
	if info, err := at.root.Lstat(name); err == nil && !info.IsDir() {
		if err := at.root.Remove(name); err != nil {
			return err
		}
	}
	if err := at.root.Symlink(x.Target, name); err != nil {
		return err
	}
	if u.keep.Owners {
		if err := at.root.Lchown(name, x.UID, x.GID); err != nil {
			return err
		}
	}
	return setTime(at, name, x)
}

func (u *unpacker) folder(at *place, name string, x Entry) error {
	err := at.root.Mkdir(name, 0o700)
	if errors.Is(err, fs.ErrExist) {
		there, err := openFolder(at.root, name)
		if err != nil {
			return err
		}
		return there.Close()
	}
	if err == nil {
		u.folders = append(u.folders, x)
	}
	return err
}

func (u *unpacker) file(at *place, name string, x Entry, in *TreeReader) (err error) {
	if info, err := at.root.Lstat(name); err == nil && info.IsDir() {
		return errors.New("there is a folder")
	}
	f, tmp, err := u.temporary(at.root)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = at.root.Remove(tmp) // the first error is the one to tell
		}
	}()
	err = fill(f, x.Size, in)
	if err == nil {
		err = u.dress(at, tmp, f, x)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = at.root.Rename(tmp, name)
	}
	return err
}

// fill writes the content of an entry to an empty file.
func fill(f *os.File, size int64, in *TreeReader) error {
	holes := false
	for {
		data, hole, err := in.Content()
		switch {
		case errors.Is(err, io.EOF) && holes:
			return f.Truncate(size) // the last piece may have been a hole
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case hole > 0:
			holes = true
			_, err = f.Seek(hole, io.SeekCurrent)
		default:
			_, err = f.Write(data)
		}
		if err != nil {
			return err
		}
	}
}

// temporary makes a file that nobody else has in a folder.
func (u *unpacker) temporary(dir *os.Root) (*os.File, string, error) {
	for {
		u.count++
		name := ".falcon-copy-" + strconv.Itoa(os.Getpid()) + "-" + strconv.Itoa(u.count)
		f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if !errors.Is(err, fs.ErrExist) {
			return f, name, err
		}
	}
}

// finish dresses folders, the inner ones first.
func (u *unpacker) finish() error {
	for i := len(u.folders) - 1; i >= 0; i-- {
		if err := u.dressFolder(u.folders[i]); err != nil {
			return u.explain(u.folders[i].Path, err)
		}
	}
	return nil
}

// undo removes the folders that were made, with what came into them. What fails is
// left: the first error is the one to tell.
func (u *unpacker) undo() {
	made := make(map[string]bool)
	for _, x := range u.folders { // the outer ones come first
		made[x.Path] = true
		if x.Path != "." && made[path.Dir(x.Path)] {
			continue
		}
		if at, name, err := u.parent(x.Path); err == nil {
			_ = at.root.RemoveAll(name)
		}
	}
}

func (u *unpacker) dressFolder(x Entry) error {
	at, name, err := u.parent(x.Path)
	if err != nil {
		return err
	}
	folder, err := openFolder(at.root, name)
	if err != nil {
		return err
	}
	defer folder.Close()
	f, err := folder.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	return u.dress(at, name, f, x)
}
