package propolis

import (
	"context"
	"fmt"
	"net"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxSunPath is the longest path that a socket address holds, in bytes; the
// 108 of unix(7) count the final NUL.
const maxSunPath = 107

// DialUnix connects to the socket at path. One that is too long for a socket
// address is reached through its folder's descriptor.
func DialUnix(ctx context.Context, path string) (net.Conn, error) {
	if len(path) <= maxSunPath {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the folder of socket %s: %w", path, err)
	}
	defer unix.Close(dir)
	short := fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(path))
	return new(net.Dialer).DialContext(ctx, "unix", short)
}
