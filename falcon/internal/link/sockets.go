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
// Each QEMU binds its own socket and sends to its peer's, in whatever order they
// start. Each link has a folder of its own, which is all that its two ends see.
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

// Ends returns the sockets at both ends of a link, for those whose files are a
// and b.
func (s Sockets) Ends(a, b string) (string, string) {
	dir := min(a, b)
	return filepath.Join(dir, a), filepath.Join(dir, b)
}

// Create makes the folder of the link between the files a and b.
func (s Sockets) Create(a, b string) error {
	end, _ := s.Ends(a, b)
	err := os.Mkdir(filepath.Join(s.Dir, filepath.Dir(end)), 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the folder of a link: %w", err)
	}
	return nil
}

// Remove deletes the folders of links, with what QEMU leaves behind there. The
// VMs must have ended.
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
		// Sockets beside the folders are those of falcons before this one.
		if e.Type() != fs.ModeSocket && !e.IsDir() || !strings.HasSuffix(e.Name(), SocketSuffix) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(s.Dir, e.Name())); err != nil {
			errs = append(errs, fmt.Errorf("remove link sockets: %w", err))
		}
	}
	return errors.Join(errs...)
}
