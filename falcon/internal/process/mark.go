package process

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// The environment of a process that falcon has started for a topology, and of
// what that starts in its turn, says whose it is.
const (
	LabEnv  = "FALCON_LAB"  // the topology's ID
	NodeEnv = "FALCON_NODE" // the node; empty where it is for all
	HomeEnv = "FALCON_HOME" // the topology's home
	// ProgramEnv is the program that the process becomes, where it is not
	// falcon's own.
	ProgramEnv = "FALCON_PROGRAM"
)

// Mark is what a process says of itself.
type Mark struct {
	Identity
	Lab, Node, Home, Program string
	// Args is its command line, Dir its working folder, UID its user.
	Args []string
	Dir  string
	UID  int
}

// Env is the mark as variables of an environment.
func (m Mark) Env() []string {
	return []string{LabEnv + "=" + m.Lab, NodeEnv + "=" + m.Node, HomeEnv + "=" + m.Home, ProgramEnv + "=" + m.Program}
}

// Runs reports whether the process is one of the named programs, or the one that
// its mark names, maybe by way of an interpreter.
func (m Mark) Runs(programs ...string) bool {
	for i, arg := range m.Args {
		if i == 0 && slices.Contains(programs, filepath.Base(arg)) || i < 3 && m.Program != "" && arg == m.Program {
			return true
		}
	}
	return false
}

// ErrUntold says that the host does not tell a process's environment.
var ErrUntold = errors.New("the host does not tell the environment of processes")

// Mark returns what the process says of itself. The error is os.ErrProcessDone
// when it has ended.
func (id Identity) Mark() (Mark, error) {
	m, err := readMark(id.PID)
	switch {
	case !id.Alive():
		return m, os.ErrProcessDone
	case errors.Is(err, fs.ErrNotExist):
		return m, ErrUntold
	}
	m.Identity = id
	return m, err
}

// Marked returns the processes with the mark of a topology that this process's
// user can see, and that are of the users that ours accepts. Those of others are not
// looked at: what they show of themselves may be without end, or never come.
func Marked(ours func(uid int) bool) ([]Mark, error) {
	pids, err := processesOf(ours)
	if err != nil {
		return nil, err
	}
	var marked []Mark
	for _, pid := range pids {
		m, err := readMark(pid)
		if err != nil || m.Lab == "" {
			continue // it is another user's, has just ended, or is none of ours
		}
		if m.Identity, err = Identify(pid); err == nil && m.Alive() {
			marked = append(marked, m)
		}
	}
	return marked, nil
}

// processesOf returns the processes of users.
func processesOf(ours func(uid int) bool) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("looking at the processes: %w", err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if uid, err := userOf(pid); err == nil && ours(uid) { // it may just have ended
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// maxProcess is how much of what a process shows of itself is read. An environment
// is no larger, unless somebody wants it to be.
const maxProcess = 8 << 20

func readProcess(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxProcess))
}

func readMark(pid int) (Mark, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	var m Mark
	environ, err := readProcess(dir + "/environ")
	if err != nil {
		return m, err
	}
	for v := range strings.SplitSeq(string(environ), "\x00") {
		name, value, _ := strings.Cut(v, "=")
		switch name {
		case LabEnv:
			m.Lab = value
		case NodeEnv:
			m.Node = value
		case HomeEnv:
			m.Home = value
		case ProgramEnv:
			m.Program = value
		}
	}
	if m.Lab == "" {
		return m, nil
	}
	if m.UID, err = userOf(pid); err != nil {
		return m, err
	}
	for _, link := range []string{"/cwd", "/path/cwd"} { // of Linux, of illumos
		if m.Dir == "" {
			m.Dir, _ = os.Readlink(dir + link) // empty when it is not told
		}
	}
	line, err := readProcess(dir + "/cmdline")
	m.Args = strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")
	return m, err
}

// Opened returns which of the files are open in some process of the users that ours
// accepts.
func Opened(paths []string, ours func(uid int) bool) (map[string]bool, error) {
	wanted := make(map[fileNumber]string, len(paths))
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil {
			wanted[numberOf(info)] = path
		}
	}
	opened := make(map[string]bool)
	if len(wanted) == 0 {
		return opened, nil
	}
	pids, err := processesOf(ours)
	for _, pid := range pids {
		links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)) // the pattern is good
		for _, link := range links {
			if info, err := os.Stat(link); err == nil {
				if path, ok := wanted[numberOf(info)]; ok {
					opened[path] = true
				}
			}
		}
	}
	return opened, err
}

// fileNumber tells a file, whatever its name.
type fileNumber struct{ device, inode uint64 }

func numberOf(info fs.FileInfo) fileNumber {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileNumber{}
	}
	return fileNumber{uint64(s.Dev), uint64(s.Ino)}
}
