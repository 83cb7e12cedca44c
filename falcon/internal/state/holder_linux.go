package state

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/internal/printable"
)

// holders returns the processes that hold a lock on a file, by what the kernel
// says. It is empty where that does not tell, as of a process of another namespace.
func holders(file *os.File) []int {
	info, err := file.Stat()
	if err != nil {
		return nil
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return nil
	}
	return holdersOf(string(locks), fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino))
}

// holdersOf reads lines such as
//
//	2: FLOCK  ADVISORY  READ 1234 00:2a:5678 0 EOF
//
// Those of who waits have an arrow behind the number.
func holdersOf(locks, file string) []int {
	var pids []int
	for line := range strings.Lines(locks) {
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || f[5] != file {
			continue
		}
		if pid, err := strconv.Atoi(f[4]); err == nil && pid > 0 && !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// maxCommand is how much of a command line is worth reading in a message.
const maxCommand = 100

// commandOf returns the command line of a process, for people.
func commandOf(pid int) string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // it may just have ended
	words := strings.Split(strings.TrimRight(string(data), "\x00"), "\x00")
	words[0] = filepath.Base(words[0])
	line := printable.Line(strings.Join(words, " "))
	if len(line) > maxCommand {
		line = strings.ToValidUTF8(line[:maxCommand], "") + "…"
	}
	return line
}
