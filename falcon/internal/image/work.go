package image

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// work is a folder for what is not finished, in the home. It has a lock, which
// ends with the process: whose folder nobody holds is a dead one's.
type work struct {
	dir  string
	lock *lock
}

// WorkLab is the name of the state folder of a lab in a work folder, which stays
// as long as the lab stands.
const WorkLab = "lab"

// besideNote is a file in a work folder that names a folder elsewhere which goes
// with it, and begins with besidePrefix.
const (
	besideNote   = "beside"
	besidePrefix = ".falcon-export-"
)

// WorkFolder makes a folder in a home for something that takes a while. If the
// caller is killed before he calls discard, the next one removes it.
func WorkFolder(home, name string) (dir string, discard func(), err error) {
	s := &Files{home: home}
	if err := s.prepare(); err != nil {
		return "", nil, err
	}
	w, err := s.newWork(name)
	if err != nil {
		return "", nil, fmt.Errorf("making a work folder: %w", err)
	}
	return w.dir, w.discard, nil
}

// newWork makes a work folder after removing those of dead processes. Its lock
// comes first, so that nobody takes it for one of those.
func (s *Files) newWork(name string) (*work, error) {
	if err := s.tidy(context.Background()); err != nil {
		return nil, err
	}
	dir := filepath.Join(s.home, "tmp", fmt.Sprintf("%s-%08x", name, rand.Uint32()))
	l, err := acquire(context.Background(), s.workLock(dir), true)
	if err != nil {
		return nil, err
	}
	w := &work{dir: dir, lock: l}
	err = os.Mkdir(dir, 0o755)
	if err == nil {
		err = os.Chmod(dir, 0o755) // it may become an image's folder, whatever the umask
	}
	if err != nil {
		w.discard()
		return nil, err
	}
	return w, nil
}

func (s *Files) workLock(dir string) string {
	return filepath.Join(s.home, "lock", "tmp."+filepath.Base(dir))
}

// discard removes the folder, unless it has become something else.
func (w *work) discard() {
	_ = os.RemoveAll(w.dir)
	w.lock.release()
}

// beside makes a folder beside a file, into whose place something of the work
// folder can be renamed.
func (w *work) beside(file string) (dir string, err error) {
	parent, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return "", err
	}
	dir = filepath.Join(parent, fmt.Sprintf("%s%08x", besidePrefix, rand.Uint32()))
	if err := os.WriteFile(filepath.Join(w.dir, besideNote), []byte(dir), 0o600); err != nil {
		return "", err
	}
	return dir, os.Mkdir(dir, 0o700)
}

// dropWork removes the work folder of a dead process.
func dropWork(dir string) error {
	note, err := os.ReadFile(filepath.Join(dir, besideNote))
	if beside := string(note); err == nil && strings.HasPrefix(filepath.Base(beside), besidePrefix) && isOwnFolder(beside) {
		if err := os.RemoveAll(beside); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

func isOwnFolder(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || !info.IsDir() {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// deadWork lists the work folders that no living process holds, and in which no
// lab stands.
func (s *Files) deadWork() ([]string, error) {
	entries, err := readDirIfThere(filepath.Join(s.home, "tmp"))
	var dead []string
	for _, e := range entries {
		dir := filepath.Join(s.home, "tmp", e.Name())
		if exists(filepath.Join(dir, WorkLab, "journal")) || exists(filepath.Join(dir, WorkLab, "topology.json")) {
			continue
		}
		err := unheld(s.workLock(dir), func() error {
			if exists(dir) {
				dead = append(dead, dir)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return dead, err
}

// unheld does something about what has a lock if nobody holds that.
func unheld(lock string, do func() error) error {
	l, busy, err := tryLock(lock)
	if err != nil || busy {
		return err
	}
	defer l.release()
	return do()
}

func readDirIfThere(dir string) ([]fs.DirEntry, error) {
	if !exists(dir) {
		return nil, nil
	}
	return os.ReadDir(dir)
}
