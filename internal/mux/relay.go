package mux

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// The first byte that a relay's client reads.
const (
	relayJoined    = 0 // the rest is the stream
	relayRefused   = 1 // the rest says why there is no stream
	relayForeigner = 2 // two bytes of a VersionError follow
)

// Relay joins a client's connection to a stream of its own, which begins with
// the first thing that the client writes, and returns when either has ended. A
// client that goes away ends its stream.
func (s *Session) Relay(ctx context.Context, client io.ReadWriteCloser) {
	defer client.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	chunks := make(chan []byte)
	go func() { // reads on while the stream is being opened, to see the client go
		defer close(chunks)
		for buf := [2][]byte{}; ; buf[0], buf[1] = buf[1], buf[0] {
			if buf[0] == nil {
				buf[0] = make([]byte, MaxPayload)
			}
			n, err := client.Read(buf[0])
			if n > 0 {
				select {
				case chunks <- buf[0][:n]:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				cancel(err)
				return
			}
		}
	}()
	first, ok := <-chunks
	if !ok {
		return
	}
	// A guest that does not read its port holds up Open, not the connection of
	// a client that has gone.
	defer context.AfterFunc(ctx, func() { client.Close() })()
	st, err := s.Open(ctx, first)
	if err != nil {
		Refuse(client, err)
		return
	}
	defer st.Close()
	context.AfterFunc(ctx, func() { st.Close() })
	go func() {
		for p := range chunks {
			if _, err := st.Write(p); err != nil {
				return // the reader of the stream sees the end as well
			}
		}
	}()
	if _, err := client.Write([]byte{relayJoined}); err != nil {
		return
	}
	_, _ = io.CopyBuffer(struct{ io.Writer }{client}, struct{ io.Reader }{st}, make([]byte, MaxPayload))
}

// Refuse tells a client of a relay why it gets no stream.
func Refuse(client io.Writer, why error) {
	answer := append([]byte{relayRefused}, why.Error()...)
	if v := (*VersionError)(nil); errors.As(why, &v) {
		answer = []byte{relayForeigner, v.Min, v.Max}
	}
	_, _ = client.Write(answer) // the client may have gone
}

// Client makes a stream of a connection to a relay.
func Client(conn io.ReadWriteCloser) io.ReadWriteCloser { return &client{ReadWriteCloser: conn} }

type client struct {
	io.ReadWriteCloser
	joined bool
}

// Read implements io.Reader.
func (c *client) Read(p []byte) (int, error) {
	if c.joined {
		return c.ReadWriteCloser.Read(p)
	}
	var first [1]byte
	if _, err := io.ReadFull(c.ReadWriteCloser, first[:]); err != nil {
		return 0, err
	}
	if first[0] != relayJoined {
		// That the connection was then reset, for what the client wrote was not
		// read, is no matter.
		why, err := io.ReadAll(io.LimitReader(c.ReadWriteCloser, 4096))
		switch {
		case first[0] == relayForeigner && len(why) == 2:
			return 0, &VersionError{Min: why[0], Max: why[1]}
		case len(why) == 0:
			return 0, fmt.Errorf("the relay to the guest refused: %w", errors.Join(err, io.ErrUnexpectedEOF))
		}
		return 0, errors.New(string(why))
	}
	c.joined = true
	return c.ReadWriteCloser.Read(p)
}
