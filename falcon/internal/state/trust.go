package state

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/falcon-vm/falcon-go/internal/printable"
)

// TrustError says why nothing is read from a folder or a file: somebody else
// could have written it.
type TrustError struct {
	Path string
	// Why says whose it is or who may write to it, Fix what to do.
	Why, Fix string
}

func (e *TrustError) Error() string {
	return fmt.Sprintf("%s %s, so what is in it is not believed: %s", e.Path, e.Why, e.Fix)
}

// Judge returns a *TrustError if anybody but this process's user, and root,
// could have put something into the folder at a path. The path has no symbolic
// links in it and need not exist. It is what sshd asks of the folders of keys.
func Judge(path string) error {
	return eachAbove(path, func(at string, info fs.FileInfo) error { return judge(at, info, at == path) })
}

// JudgeHome is Judge for a folder that may be root's, too, and for a path with
// links in it: whoever owns one of them can turn it later.
func JudgeHome(path string) error {
	real, err := resolve(path)
	if err != nil {
		return err
	}
	for _, way := range []string{path, real} {
		err := eachAbove(way, func(at string, info fs.FileInfo) error {
			if info.Mode()&fs.ModeSymlink != 0 && at != real {
				return judgeOwner(at, info, false)
			}
			return errors.Join(judgeOwner(at, info, false), judgeMode(at, info, at == way))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// eachAbove judges what is there of a path, from its end on.
func eachAbove(path string, judge func(at string, info fs.FileInfo) error) error {
	for at := path; ; at = filepath.Dir(at) {
		info, err := os.Lstat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		case err != nil:
			return err
		default:
			if err := judge(at, info); err != nil {
				return err
			}
		}
		if at == filepath.Dir(at) {
			return nil
		}
	}
}

// judge judges one folder or file. What is not own is a parent.
func judge(path string, info fs.FileInfo, own bool) error {
	if info.Mode()&fs.ModeSymlink != 0 {
		return &TrustError{path, "is a symbolic link that leads nowhere", "look at it, then: rm " + printable.Word(path)}
	}
	if err := judgeOwner(path, info, own); err != nil {
		return err
	}
	return judgeMode(path, info, own)
}

// judgeOwner judges whose a folder or file is; what is not own may be root's.
func judgeOwner(path string, info fs.FileInfo, own bool) error {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(s.Uid) == os.Geteuid() || !own && isRoot(s.Uid) {
		return nil
	}
	return &TrustError{path, "belongs to " + userName(s.Uid),
		fmt.Sprintf("work in it as that user (%s), or choose a folder of your own with -f DIR", userName(s.Uid))}
}

// isRoot reports whether a user is root, or who owns the root of all folders: as
// him root is seen in a user namespace.
func isRoot(uid uint32) bool {
	var top syscall.Stat_t
	return uid == 0 || syscall.Lstat("/", &top) == nil && uid == top.Uid
}

// judgeMode judges who may write to a folder or file. To one that is not own all
// may, if only their owners can replace what is in it.
func judgeMode(path string, info fs.FileInfo, own bool) error {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !own && info.Mode()&fs.ModeSticky != 0 {
		return nil
	}
	const group, others = 0o020, 0o002
	mode := info.Mode().Perm()
	if mode&others != 0 || mode&group != 0 && !privateGroup(s.Uid, s.Gid) {
		return &TrustError{path, fmt.Sprintf("can be written to by others (mode %04o, group %s)", mode, groupName(s.Gid)),
			fmt.Sprintf("look at what is in it, then: chmod go-w %s; or choose another folder with -f DIR", printable.Word(path))}
	}
	return nil
}

// judgeFile judges a file of a folder that is believed.
func judgeFile(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return &TrustError{path, "is no regular file (" + info.Mode().Type().String() + ")", "look at it, then: rm " + printable.Word(path)}
	}
	return judge(path, info, true)
}

func userName(uid uint32) string {
	id := strconv.Itoa(int(uid))
	if u, err := user.LookupId(id); err == nil {
		return "user " + u.Username
	}
	return "user " + id
}

func groupName(gid uint32) string {
	id := strconv.Itoa(int(gid))
	if g, err := user.LookupGroupId(id); err == nil {
		return g.Name
	}
	return id
}

// groupFile and passwdFile say who is in a group.
var groupFile, passwdFile = "/etc/group", "/etc/passwd"

// privateGroup reports whether a group is a user's own: it has the user's name,
// is the user's first one, and nobody else is in it.
func privateGroup(uid, gid uint32) bool {
	owner, group := strconv.Itoa(int(uid)), strconv.Itoa(int(gid))
	name := ""
	for _, u := range records(passwdFile, 4) {
		switch {
		case u[2] == owner && u[3] == group:
			name = u[0]
		case u[3] == group:
			return false
		}
	}
	own := false
	for _, g := range records(groupFile, 4) {
		if g[2] != group {
			continue
		}
		members := slices.DeleteFunc(strings.Split(g[3], ","), func(m string) bool { return m == "" || m == name })
		if g[0] != name || len(members) > 0 {
			return false
		}
		own = true
	}
	return own && name != ""
}

// records returns the lines of a file with fields between colons that have at
// least so many of them. A file that cannot be read has none.
func records(path string, fields int) [][]string {
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	var all [][]string
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if r := strings.Split(lines.Text(), ":"); len(r) >= fields {
			all = append(all, r)
		}
	}
	return all
}
