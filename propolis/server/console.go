package server

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

const (
	// maxMessage is the largest message of the serial stream, in bytes.
	maxMessage = 16 << 10
	// maxLag is how many bytes a client may fall behind, from where it
	// began, before it is dropped.
	maxLag = ringSize
	// stopWait is how long clients have to take the rest of the output once
	// the machine has stopped.
	stopWait = 5 * time.Second
)

// errSlowClient is why a client that does not read is dropped.
var errSlowClient = errors.New("the client reads too slowly")

// console shares one serial port among clients. What the guest writes goes
// into the history, which is all the buffer there is: a client is a cursor in
// it, so that none can hold back the guest or another client.
type console struct {
	mu      sync.Mutex
	hist    history
	ended   bool
	more    chan struct{} // closed and renewed when output came or ended
	clients map[*consoleClient]struct{}

	input   chan []byte
	drained chan struct{} // closed when all output of the port was read
	done    chan struct{} // closed by end
	pumps   sync.WaitGroup
}

// consoleClient is one reader's place in a console.
type consoleClient struct {
	cursor uint64
	lag    uint64 // how far behind the end it may be
	drop   context.CancelCauseFunc
}

func newConsole() *console {
	return &console{
		hist:    newHistory(),
		more:    make(chan struct{}),
		clients: make(map[*consoleClient]struct{}),
		input:   make(chan []byte),
		drained: make(chan struct{}),
		done:    make(chan struct{}),
	}
}

// start connects the console to the guest's serial port.
func (c *console) start(port io.ReadWriter) {
	c.pumps.Add(2)
	go func() {
		defer c.pumps.Done()
		defer close(c.drained)
		c.pumpOutput(port)
	}()
	go func() {
		defer c.pumps.Done()
		c.pumpInput(port)
	}()
}

func (c *console) pumpOutput(port io.Reader) {
	buf := make([]byte, maxMessage)
	for {
		n, err := port.Read(buf)
		if n > 0 {
			c.add(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

// pumpInput writes keystrokes to the guest. A guest that does not take them
// holds up those who type, and nobody else.
func (c *console) pumpInput(port io.Writer) {
	for {
		select {
		case p := <-c.input:
			if _, err := port.Write(p); err != nil {
				return
			}
		case <-c.done:
			return
		}
	}
}

// add records output and drops the clients that are too far behind.
func (c *console) add(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hist.add(p)
	for cl := range c.clients {
		if c.hist.total-cl.cursor > cl.lag {
			delete(c.clients, cl)
			cl.drop(errSlowClient)
		}
	}
	c.wake()
}

func (c *console) wake() {
	close(c.more)
	c.more = make(chan struct{})
}

// end says that no more output comes: clients get what is left and then
// io.EOF. Those that do not take it in time are dropped. The port, if the
// console was ever started, must have been closed.
func (c *console) end() {
	close(c.done)
	c.pumps.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.wake()
	if len(c.clients) > 0 {
		time.AfterFunc(stopWait, c.dropAll)
	}
}

func (c *console) dropAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for cl := range c.clients {
		delete(c.clients, cl)
		cl.drop(errSlowClient)
	}
}

// attach adds a client that reads from o on. drop is called, at most once,
// when it has fallen too far behind.
func (c *console) attach(o offset, drop context.CancelCauseFunc) (*consoleClient, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.hist.resolve(o)
	if _, err := c.hist.visible(at); err != nil {
		return nil, err
	}
	cl := &consoleClient{cursor: at, lag: c.hist.total - at + maxLag, drop: drop}
	c.clients[cl] = struct{}{}
	return cl, nil
}

func (c *console) detach(cl *consoleClient) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.clients, cl)
}

// next waits for output after the client's cursor and reads it to p. It
// returns io.EOF at the end of all output.
func (c *console) next(ctx context.Context, cl *consoleClient, p []byte) (int, error) {
	for {
		n, more, err := c.poll(cl, p)
		if n > 0 || err != nil {
			return n, err
		}
		select {
		case <-more:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

func (c *console) poll(cl *consoleClient, p []byte) (int, <-chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.hist.read(p, cl.cursor)
	cl.cursor += uint64(n)
	if n == 0 && err == nil && c.ended {
		err = io.EOF
	}
	return n, c.more, err
}

// send passes keystrokes to the guest.
func (c *console) send(ctx context.Context, p []byte) error {
	select {
	case c.input <- p:
		return nil
	case <-c.done:
		return io.ErrClosedPipe
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// read returns up to limit bytes of the history from o on, and their offset.
func (c *console) read(o offset, limit uint64) ([]byte, uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.hist.resolve(o)
	visible, err := c.hist.visible(at)
	if err != nil {
		return nil, at, err
	}
	p := make([]byte, min(limit, visible))
	n, err := c.hist.read(p, at)
	return p[:n], at, err
}
