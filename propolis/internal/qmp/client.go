// Package qmp speaks the QEMU Machine Protocol: commands with typed errors,
// contexts and deadlines, and the events that QEMU sends unasked.
//
// The protocol is described in QEMU's docs/interop/qmp-spec. One JSON object
// follows another on a stream; each command carries an id which its answer
// repeats, so that many calls share one connection.
package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/falcon-vm/falcon-go/internal/printable"
)

// ErrClosed is the error of a call on a connection that has ended, by
// [Client.Close] or because QEMU is gone.
var ErrClosed = errors.New("QMP connection is closed")

// Error is QEMU's answer to a command that it refused.
type Error struct {
	// Command is the command that failed.
	Command string
	// Class is QEMU's error class, mostly "GenericError".
	Class string
	// Desc is QEMU's explanation, for people.
	Desc string
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("QMP %s: %s (%s)", e.Command, printable.Text(e.Desc), printable.Line(e.Class))
}

// Event is something that QEMU reports of its own accord.
type Event struct {
	// Name is the event's name, such as "SHUTDOWN".
	Name string
	// Data holds the event's members; it is nil where there are none.
	Data json.RawMessage
	// Time is when QEMU sent the event, by its own clock.
	Time time.Time
}

// Client is one QMP connection. Its methods may be called concurrently.
type Client struct {
	conn     net.Conn
	events   *queue
	requests chan outgoing
	greeted  chan struct{}
	done     chan struct{} // closed once err is set

	mu      sync.Mutex
	nextID  uint64
	pending map[uint64]chan<- message
	err     error
}

// message is anything that QEMU sends: a greeting, an event or an answer.
type message struct {
	Greeting json.RawMessage `json:"QMP"`
	Event    string          `json:"event"`
	Data     json.RawMessage `json:"data"`
	Time     timestamp       `json:"timestamp"`
	ID       *uint64         `json:"id"`
	Return   json.RawMessage `json:"return"`
	Error    *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

type timestamp struct {
	Seconds      int64 `json:"seconds"`
	Microseconds int64 `json:"microseconds"`
}

// outgoing is a command to be sent, with a descriptor beside it or nil.
type outgoing struct {
	line []byte
	file *os.File
}

// request is a command as QEMU reads it.
type request struct {
	Execute   string `json:"execute"`
	Arguments any    `json:"arguments,omitempty"`
	ID        uint64 `json:"id"`
}

// New takes over conn, waits for QEMU's greeting and leaves the negotiation
// mode, after which every command is available. ctx bounds that handshake
// only. Events that arrive before the greeting are kept. On error conn is
// closed.
func New(ctx context.Context, conn net.Conn) (*Client, error) {
	c := &Client{
		conn:     conn,
		events:   newQueue(),
		requests: make(chan outgoing),
		greeted:  make(chan struct{}),
		done:     make(chan struct{}),
		pending:  make(map[uint64]chan<- message),
	}
	go c.read()
	go c.write()
	if err := c.negotiate(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Client) negotiate(ctx context.Context) error {
	start := time.Now()
	select {
	case <-c.greeted:
	case <-c.done:
		return fmt.Errorf("waiting for QEMU's QMP greeting: %w", c.Err())
	case <-ctx.Done():
		return fmt.Errorf("no QMP greeting from QEMU after %s: %w", since(start), context.Cause(ctx))
	}
	return c.Execute(ctx, "qmp_capabilities", nil, nil)
}

// Events returns the channel of QEMU's events, in order, closed when the
// connection has ended and all events were read. Events wait in memory until
// they are read: a slow reader never holds up a command.
func (c *Client) Events() <-chan Event { return c.events.out }

// Err returns why the connection ended, or nil while it stands.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection. Calls that wait fail with [ErrClosed]. Events
// that nobody has read are dropped.
func (c *Client) Close() error {
	c.fail(ErrClosed)
	c.events.drop()
	return nil
}

// Execute sends a command and waits for its answer. args is marshalled to the
// command's arguments, nil for none; the answer is unmarshalled into result
// unless that is nil. A refusal by QEMU is an [*Error]. When ctx ends first
// the call returns; QEMU may carry out the command nevertheless.
func (c *Client) Execute(ctx context.Context, cmd string, args, result any) error {
	return c.execute(ctx, cmd, args, nil, result)
}

// Pass gives QEMU a descriptor under a name, for a later command.
func (c *Client) Pass(ctx context.Context, name string, file *os.File) error {
	return c.execute(ctx, "getfd", map[string]any{"fdname": name}, file, nil)
}

// AddFD gives QEMU a descriptor of a file for a set of them, a new one if set is
// negative, with a mark, and returns the set: QEMU opens it as /dev/fdset/SET.
func (c *Client) AddFD(ctx context.Context, set int, file *os.File, mark string) (int, error) {
	args := map[string]any{"opaque": mark}
	if set >= 0 {
		args["fdset-id"] = set
	}
	var added struct {
		Set int `json:"fdset-id"`
	}
	err := c.execute(ctx, "add-fd", args, file, &added)
	return added.Set, err
}

func (c *Client) execute(ctx context.Context, cmd string, args any, file *os.File, result any) error {
	start := time.Now()
	id, answer, err := c.register()
	if err != nil {
		return fmt.Errorf("QMP %s: %w", cmd, err)
	}
	defer c.unregister(id)
	line, err := json.Marshal(request{Execute: cmd, Arguments: args, ID: id})
	if err != nil {
		return fmt.Errorf("QMP %s: encoding the arguments: %w", cmd, err)
	}
	select {
	case c.requests <- outgoing{append(line, '\n'), file}:
	case <-c.done:
		return fmt.Errorf("QMP %s: %w", cmd, c.Err())
	case <-ctx.Done():
		return fmt.Errorf("QMP %s: QEMU takes no command since %s: %w", cmd, since(start), context.Cause(ctx))
	}
	select {
	case m := <-answer:
		return m.decode(cmd, result)
	case <-c.done:
	case <-ctx.Done():
		return fmt.Errorf("QMP %s: no answer after %s: %w", cmd, since(start), context.Cause(ctx))
	}
	// The answer may have come just before the end.
	select {
	case m := <-answer:
		return m.decode(cmd, result)
	default:
		return fmt.Errorf("QMP %s: %w", cmd, c.Err())
	}
}

// decode turns an answer to cmd into a result or an error.
func (m message) decode(cmd string, result any) error {
	if m.Error != nil {
		return &Error{Command: cmd, Class: m.Error.Class, Desc: m.Error.Desc}
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(m.Return, result); err != nil {
		return fmt.Errorf("QMP %s: decoding the answer: %w", cmd, err)
	}
	return nil
}

// register reserves an id and the channel on which its answer comes, with
// room for it so that the reader never waits for the caller.
func (c *Client) register() (uint64, <-chan message, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, nil, c.err
	}
	c.nextID++
	answer := make(chan message, 1)
	c.pending[c.nextID] = answer
	return c.nextID, answer, nil
}

func (c *Client) unregister(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, id)
}

// write sends the requests. It is the only writer, so a caller that gives up
// can never leave half a command on the stream.
func (c *Client) write() {
	for {
		select {
		case out := <-c.requests:
			if err := c.send(out); err != nil {
				c.fail(fmt.Errorf("%w: sending a command: %w", ErrClosed, err))
				return
			}
		case <-c.done:
			return
		}
	}
}

// send writes a request. A descriptor goes with its first byte.
func (c *Client) send(out outgoing) error {
	line := out.line
	if out.file != nil {
		conn, ok := c.conn.(*net.UnixConn)
		if !ok {
			return errors.New("only a Unix socket passes descriptors")
		}
		n, _, err := conn.WriteMsgUnix(line, syscall.UnixRights(int(out.file.Fd())), nil)
		if err != nil {
			return err
		}
		line = line[n:]
	}
	_, err := c.conn.Write(line)
	return err
}

// read takes in everything that QEMU sends until the connection ends.
func (c *Client) read() {
	defer c.events.close()
	d := json.NewDecoder(c.conn)
	greeted := false
	for {
		var m message
		if err := d.Decode(&m); err != nil {
			c.fail(readError(err))
			return
		}
		switch {
		case m.Event != "":
			c.events.push(Event{Name: m.Event, Data: m.Data, Time: m.Time.time()})
		case m.Greeting != nil:
			if !greeted {
				greeted = true
				close(c.greeted)
			}
		case m.ID != nil:
			c.deliver(*m.ID, m)
		case m.Error != nil:
			// Without an id it answers bytes that QEMU could not parse.
			c.fail(fmt.Errorf("%w: QEMU could not read a command: %s", ErrClosed, m.Error.Desc))
			return
		}
	}
}

// deliver hands an answer to its caller, if that still waits.
func (c *Client) deliver(id uint64, m message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if answer, ok := c.pending[id]; ok {
		delete(c.pending, id)
		answer <- m
	}
}

// fail ends the connection with err, unless it has ended already.
func (c *Client) fail(err error) {
	c.mu.Lock()
	first := c.err == nil
	if first {
		c.err = err
	}
	c.mu.Unlock()
	if first {
		close(c.done)
		c.conn.Close()
	}
}

func readError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: QEMU hung up", ErrClosed)
	}
	return fmt.Errorf("%w: reading from QEMU: %w", ErrClosed, err)
}

func (t timestamp) time() time.Time {
	return time.Unix(t.Seconds, t.Microseconds*int64(time.Microsecond))
}

func since(start time.Time) time.Duration {
	return time.Since(start).Round(time.Millisecond)
}
