package image

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// openBy describes the processes that have a file open, such as the hypervisors
// of users whose falcon tells nobody of its disks.
func openBy(path string) []string {
	file, err := os.Stat(path)
	if err != nil {
		return nil
	}
	var by []string
	seen := make(map[string]bool)
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		process := strings.Split(fd, "/")[2]
		// Only what has its name is looked at: it might be on a dead server.
		name, err := os.Readlink(fd)
		if err != nil || seen[process] || filepath.Base(name) != filepath.Base(path) {
			continue
		}
		if other, err := os.Stat(fd); err == nil && os.SameFile(file, other) {
			seen[process] = true
			by = append(by, fmt.Sprintf("process %s, which has %s open", process, path))
		}
	}
	return by
}
