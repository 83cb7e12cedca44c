package mux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/internal/printable"
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
			if n > 0 && !pass(ctx, chunks, buf[0][:n], client, cancel) {
				return
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
	if Join(client) != nil {
		return
	}
	_, _ = io.CopyBuffer(struct{ io.Writer }{client}, struct{ io.Reader }{st}, make([]byte, MaxPayload))
}

// watchAfter is how long a stream may take nothing before its client is watched:
// one that is merely slower than its client costs nothing.
const watchAfter = 500 * time.Millisecond

// pass hands on what a client has written. While the stream takes no more, the
// client is not read, and that it goes shows otherwise. It reports whether the
// relay goes on.
func pass(ctx context.Context, chunks chan<- []byte, p []byte, client io.ReadWriteCloser, gone context.CancelCauseFunc) bool {
	patience := time.NewTimer(watchAfter)
	defer patience.Stop()
	select {
	case chunks <- p:
		return true
	case <-ctx.Done():
		return false
	case <-patience.C:
	}
	defer onHangUp(client, func() { gone(io.EOF) })()
	select {
	case chunks <- p:
		return true
	case <-ctx.Done():
		return false
	}
}

// onHangUp has f called when the other end of a connection goes, until stop is
// called. Nobody reads the connection meanwhile. It does nothing for what is no
// connection of the system's.
func onHangUp(conn io.ReadWriteCloser, f func()) (stop func()) {
	c, ok := conn.(interface {
		syscall.Conn
		SetReadDeadline(time.Time) error
	})
	if !ok {
		return func() {}
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		hungUp := false
		_ = raw.Read(func(fd uintptr) bool { // it ends by the deadline, or with the connection
			fds := []unix.PollFd{{Fd: int32(fd)}} // a hang-up need not be asked for
			n, err := unix.Poll(fds, 0)
			hungUp = err == nil && n > 0 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
			return hungUp
		})
		if hungUp {
			f()
		}
	}()
	return func() {
		_ = c.SetReadDeadline(time.Unix(1, 0))
		<-done
		_ = c.SetReadDeadline(time.Time{})
	}
}

// Join tells a client of a relay that what follows is the stream.
func Join(client io.Writer) error {
	_, err := client.Write([]byte{relayJoined})
	return err
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
		return 0, errors.New(printable.Text(string(why)))
	}
	c.joined = true
	return c.ReadWriteCloser.Read(p)
}
