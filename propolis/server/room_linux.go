package server

import (
	"os"

	"golang.org/x/sys/unix"
)

// hasRoom reports whether there is room for a disk to grow. Of a disk that is no
// file nothing tells but another try.
func hasRoom(disk string) bool {
	info, err := os.Stat(disk)
	if err != nil || !info.Mode().IsRegular() {
		return true
	}
	var s unix.Statfs_t
	if err := unix.Statfs(disk, &s); err != nil {
		return true
	}
	return s.Bavail*uint64(s.Bsize) >= enoughRoom
}
