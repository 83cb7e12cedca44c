//go:build !linux

package propolis

import (
	"context"
	"net"
)

// dialUnix connects to the socket at path.
func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", path)
}
