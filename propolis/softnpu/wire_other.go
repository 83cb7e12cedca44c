//go:build !linux

package softnpu

import "os"

// OpenDevice returns a wire to a network device of the host.
func OpenDevice(string, string) (Wire, error) { return nil, ErrNoWires }

// OpenSockets returns a wire of Unix datagram sockets.
func OpenSockets(string, string) (Wire, error) { return nil, ErrNoWires }

// SocketPair returns a wire, and the descriptor of its far end.
func SocketPair() (Wire, *os.File, error) { return nil, nil, ErrNoWires }
