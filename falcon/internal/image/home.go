package image

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// HomeError says that a home cannot be trusted: somebody else can put into it
// what he wants.
type HomeError struct {
	// Home is the home, Path the folder that is to blame, Reason why.
	Home, Path, Reason string
}

func (e *HomeError) Error() string {
	which := "it"
	if e.Path != e.Home {
		which = e.Path
	}
	return fmt.Sprintf("the home %s cannot be trusted: %s %s; choose a folder of your own (FALCON_HOME)", e.Home, which, e.Reason)
}

// checkHome refuses a home that somebody else can change: it and all that it is
// in must belong to the caller or to the system, and be writable for nobody
// else. A folder such as /tmp, where nobody can move what is another's, will do.
// A home that is not there yet is judged by what it will be in.
func checkHome(home string) error {
	there := home // as much of it as is there
	for !exists(there) && there != filepath.Dir(there) {
		there = filepath.Dir(there)
	}
	real, err := filepath.EvalSymlinks(there)
	if err != nil {
		return fmt.Errorf("the home %s: %w", home, err)
	}
	for _, way := range []string{there, real} { // whoever can turn a link can do so later
		for path := way; ; path = filepath.Dir(path) {
			reason, err := distrust(path, path == way && there == home)
			if err != nil {
				return fmt.Errorf("the home %s: %w", home, err)
			}
			if reason != "" {
				return &HomeError{Home: home, Path: path, Reason: reason}
			}
			if path == filepath.Dir(path) {
				break
			}
		}
	}
	return nil
}

// distrust says what is wrong with a folder of a home's path, or with the home
// itself; empty if nothing is.
func distrust(path string, isHome bool) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", nil
	}
	mode := info.Mode()
	private := st.Gid == 0 || int(st.Gid) == os.Getegid() && st.Gid == st.Uid // a group of one user
	shared := mode&0o002 != 0 || mode&0o020 != 0 && !private
	switch {
	case !trusted(st.Uid):
		return fmt.Sprintf("belongs to user %d", st.Uid), nil
	case mode&fs.ModeSymlink != 0: // its mode says nothing
	case shared && (isHome || mode&fs.ModeSticky == 0):
		return fmt.Sprintf("can be written to by others (mode %#o)", mode.Perm()), nil
	}
	return "", nil
}

// trusted tells whether a user can harm the caller anyway: that is the caller,
// root, or who owns the root of all folders, as whom root is seen in a user
// namespace.
func trusted(uid uint32) bool {
	if uid == 0 || int(uid) == os.Geteuid() {
		return true
	}
	var root syscall.Stat_t
	return syscall.Lstat("/", &root) == nil && uid == root.Uid
}
