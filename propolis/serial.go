package propolis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// ErrVMStopped is what reading a [SerialConn] ends with when the virtual
// machine has stopped. It is an io.EOF to errors.Is.
var ErrVMStopped = fmt.Errorf("propolis: the virtual machine has stopped: %w", io.EOF)

// MigratingError ends the reading of a [SerialConn] whose virtual machine has
// migrated. Its console goes on at the server Destination, from FromStart.
type MigratingError struct {
	Destination string `json:"destination"`
	FromStart   uint64 `json:"from_start"`
}

// Error implements error.
func (e *MigratingError) Error() string {
	return fmt.Sprintf("propolis: the virtual machine has migrated: its console goes on at %s from byte %d",
		e.Destination, e.FromStart)
}

// maxFrame bounds a message of the serial stream, in bytes. Servers send 16 KiB.
const maxFrame = 1 << 20

// closeWait is how long Close waits for the server to agree.
const closeWait = time.Second

// SerialOptions say where the stream starts. With neither or both set it
// starts with the next byte that the guest writes.
type SerialOptions struct {
	// FromStart counts bytes from the instance's start.
	FromStart *uint64
	// MostRecent counts bytes backwards from the newest.
	MostRecent *uint64
}

// SerialConn is the serial console (COM1) of an instance as a stream of bytes.
// One goroutine may read while another writes. Reading ends with
// [ErrVMStopped], with a [*MigratingError], or with an error that is an
// io.ErrUnexpectedEOF when the server went away or dropped the client, as it
// does when there is no instance or when the client reads too slowly.
type SerialConn struct {
	ws   *websocket.Conn
	conn net.Conn
	stop context.CancelFunc

	// frames carries messages from the pump. The pump closes it after
	// setting readErr.
	frames  chan []byte
	readErr error
	rest    []byte

	readDeadline deadline

	mu            sync.Mutex
	writeDeadline time.Time
}

// Serial opens the serial console. ctx bounds the opening only.
func (c *Client) Serial(ctx context.Context, opts SerialOptions) (*SerialConn, error) {
	const path = "/instance/serial"
	var conn net.Conn
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (_ net.Conn, err error) {
			conn, err = c.dial(ctx)
			return conn, err
		},
	}
	u := c.url("ws", path, offsetQuery(opts.FromStart, opts.MostRecent))
	ws, resp, err := websocket.Dial(ctx, u, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: transport},
		HTTPHeader: http.Header{"api-version": {c.apiVersion("")}},
	})
	if err != nil {
		return nil, fmt.Errorf("propolis: GET %s: %w", path, c.dialError(resp, err))
	}
	ws.SetReadLimit(maxFrame)
	pumpCtx, stop := context.WithCancel(context.Background())
	s := &SerialConn{ws: ws, conn: conn, stop: stop, frames: make(chan []byte)}
	go s.pump(pumpCtx)
	return s, nil
}

// dialError returns the server's refusal where there is one.
func (c *Client) dialError(resp *http.Response, err error) error {
	if resp == nil || resp.StatusCode < 300 {
		return c.transportError(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxFrame))
	return decodeError(resp, body)
}

// pump moves messages from the websocket to Read, one at a time: a reader that
// does not keep up holds the server back. It exists because a websocket cannot
// be read with a deadline and used afterwards. ctx ends the handing over, and
// not the reading, which Close needs.
func (s *SerialConn) pump(ctx context.Context) {
	defer close(s.frames)
	for {
		typ, data, err := s.ws.Read(context.Background())
		if err == nil && typ == websocket.MessageText {
			err, data = controlError(data), nil
		}
		if err != nil {
			s.readErr = streamError(ctx, err)
			return
		}
		if len(data) == 0 {
			continue
		}
		select {
		case s.frames <- data:
		case <-ctx.Done():
			s.readErr = net.ErrClosed
			return
		}
	}
}

// controlError is the end of the stream that a control message announces. A
// message of a kind that is not known is of no consequence.
func controlError(data []byte) error {
	var msg struct{ Migrating *MigratingError }
	if err := json.Unmarshal(data, &msg); err != nil || msg.Migrating == nil {
		return nil
	}
	return msg.Migrating
}

func streamError(ctx context.Context, err error) error {
	var migrating *MigratingError
	var closed websocket.CloseError
	switch {
	case errors.As(err, &migrating):
		return err
	case ctx.Err() != nil:
		return net.ErrClosed
	case errors.As(err, &closed) && closed.Code == websocket.StatusGoingAway:
		return ErrVMStopped
	case errors.As(err, &closed):
		return fmt.Errorf("propolis: the server closed the console: %s (%w)", closed.Reason, io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("propolis: the console broke off: %w (%w)", io.ErrUnexpectedEOF, err)
}

// Read reads what the guest has written.
func (s *SerialConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	expired := s.readDeadline.done()
	select {
	case <-expired:
		return 0, os.ErrDeadlineExceeded
	default:
	}
	for len(s.rest) == 0 {
		select {
		case <-expired:
			return 0, os.ErrDeadlineExceeded
		case data, ok := <-s.frames:
			if !ok {
				return 0, s.readErr
			}
			s.rest = data
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Write sends p to the guest as keystrokes. It waits while the guest does not
// take them.
func (s *SerialConn) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.mu.Lock()
	t := s.writeDeadline
	s.mu.Unlock()
	ctx := context.Background()
	if !t.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, t)
		defer cancel()
	}
	if err := s.ws.Write(ctx, websocket.MessageBinary, p); err != nil {
		if ctx.Err() != nil {
			err = os.ErrDeadlineExceeded
		}
		return 0, fmt.Errorf("propolis: write to the console: %w", err)
	}
	return len(p), nil
}

// SetReadDeadline sets when waiting reads, also one that waits already, give
// up with os.ErrDeadlineExceeded; zero means never. The stream stays usable.
func (s *SerialConn) SetReadDeadline(t time.Time) error {
	s.readDeadline.set(t)
	return nil
}

// SetWriteDeadline sets when later writes give up; zero means never. A write
// that misses its deadline ends the stream, since part of it may have gone.
func (s *SerialConn) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeDeadline = t
	return nil
}

// Close ends the stream. What was written is sent first, unless the server
// does not take it within a second.
func (s *SerialConn) Close() error {
	s.stop()
	force := time.AfterFunc(closeWait, func() { s.conn.Close() })
	defer force.Stop()
	// A server that is gone already makes this fail, which is no failure.
	_ = s.ws.Close(websocket.StatusNormalClosure, "")
	for range s.frames { // until the pump has ended
	}
	return nil
}
