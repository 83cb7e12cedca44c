package state

import (
	"errors"
	"os"
	"syscall"
)

// Place is where a folder is: its path, and what it keeps when it is moved within
// its file system.
type Place struct {
	Folder string `json:"folder"`
	Device uint64 `json:"device,omitempty"`
	Inode  uint64 `json:"inode,omitempty"`
	// Handle is what the file system itself finds the folder by; empty where it
	// has nothing of the kind.
	Handle string `json:"handle,omitempty"`
}

// PlaceOf returns the place of a folder; without a number when it is not there.
func PlaceOf(path string) Place {
	p := Place{Folder: path}
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		if n, ok := numberOf(info); ok {
			p.Device, p.Inode, p.Handle = n.device, n.inode, handleOf(path)
		}
	}
	return p
}

// Same reports whether two places are one folder, whatever it is called.
func (p Place) Same(other Place) bool {
	return p.Inode != 0 && p.Inode == other.Inode && p.Device == other.Device
}

// ErrUntraced says that it cannot be told what became of a folder.
var ErrUntraced = errors.New("the system does not tell where it is")

// fileNumber tells a file, whatever its name.
type fileNumber struct{ device, inode uint64 }

func numberOf(info os.FileInfo) (fileNumber, bool) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileNumber{}, false
	}
	return fileNumber{uint64(s.Dev), uint64(s.Ino)}, true
}
