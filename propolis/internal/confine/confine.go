// Package confine starts a program that may turn against the host: QEMU, which a
// guest may have taken over. The program gets no more than the descriptors and
// the folders that are handed to it.
package confine

import (
	"errors"
	"os"
)

// Level is how much of the host is kept from a program.
type Level int

// The levels, from the strongest to what is possible everywhere.
const (
	// Full: namespaces of its own, a root folder that holds only what is
	// handed in, and if root starts it ids that nobody else has, which its
	// user namespace shows as those of the host.
	Full Level = iota
	// Mounts is Full without the user namespace, for root where those are
	// refused.
	Mounts
	// Least: no capabilities and no new ones; the host's files are seen as its
	// user sees them. Where system calls can be filtered, they are.
	Least
)

// String says for people what a level is.
func (l Level) String() string {
	switch l {
	case Full:
		return "full: no capabilities, system calls filtered, namespaces and ids of its own"
	case Mounts:
		return "mounts: no capabilities, system calls filtered, an id and mounts of its own, but no user namespace"
	case Least:
		return "least: no capabilities, but the user's own id and files"
	}
	return "none"
}

// Range of the ids that root's programs run as. systemd's "Users, Groups, UIDs and
// GIDs" leaves it to nobody.
const (
	FirstID = 0x70000000
	EndID   = 0x7ffe0000 // the first one after it
	// IDs is how many ids one user of the range takes.
	IDs = 1 << 16
)

// ErrUnavailable says that a level cannot be had here.
var ErrUnavailable = errors.New("not possible here")

// Config is what to start, and what to hand to it.
type Config struct {
	// Path is the program and Args its arguments, without its name.
	Path string
	Args []string
	Env  []string
	// Files are its descriptors from number 3 on.
	Files []*os.File
	// Level is how it is confined.
	Level Level
	// IDBase is the first of the IDs that it has if root starts it, and Owner
	// and Group those among them that it runs as: 0 unless it is to read what
	// only another user may.
	IDBase, Owner, Group int
	// HostNetwork leaves it in the host's network. Without that it makes Unix
	// sockets only, where system calls can be filtered.
	HostNetwork bool
	// Mounts are what it sees of the host's files. At level Least it sees all
	// of them, at their own places.
	Mounts []Mount
	// Opened are the files that it gets when it opens a path for writing, or
	// creating; it gets no others.
	Opened map[string]*os.File
}

// Mount is a file or folder of the host that the program sees.
type Mount struct {
	// Source is its path on the host, Target the one inside.
	Source, Target string
	// Writable lets the program make and remove files in a folder.
	Writable bool
	// Device lets it use a device.
	Device bool
	// Owned has the program read what its Owner may, and see the owners that
	// the host sees.
	Owned bool
}
