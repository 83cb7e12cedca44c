//go:build !linux

package propolis

import (
	"context"
	"net"
)

// DialUnix connects to the socket at path. Here its path must fit into a socket
// address.
func DialUnix(ctx context.Context, path string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", path)
}
