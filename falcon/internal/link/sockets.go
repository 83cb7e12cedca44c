package link

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// SocketSuffix marks the sockets of links in a state folder.
const SocketSuffix = ".link"

// Sockets makes links of Unix datagram sockets, which need no privilege.
// There is nothing to create: each QEMU binds its own socket and sends to its
// peer's, in whatever order they start.
type Sockets struct {
	// Dir is the folder of the sockets, which must be the working folder of
	// the propolis servers: sockets are named relative to it, because a
	// socket's path has 107 bytes at most.
	Dir string
}

// File returns the file name of the socket at an interface of a node.
func (s Sockets) File(node string, index int) string {
	return fmt.Sprintf("%s-%d%s", node, index, SocketSuffix)
}

// Remove deletes the sockets that QEMU leaves behind. The VMs must have
// ended.
func (s Sockets) Remove() error {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove link sockets: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if e.Type() != fs.ModeSocket || !strings.HasSuffix(e.Name(), SocketSuffix) {
			continue
		}
		err := os.Remove(filepath.Join(s.Dir, e.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove link socket: %w", err))
		}
	}
	return errors.Join(errs...)
}
