package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/process"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
	"github.com/falcon-vm/falcon-go/propolis"
)

// Client reaches the world of a state folder.
type Client struct {
	// Folder is the state folder.
	Folder *state.Folder
	// Program is the path of a program that calls [Run] when it is started
	// as Name, and [process.WaitGate] before that; Run's pipe is its
	// descriptor [ReadyFD].
	Program, Name string
	// Env, if set, returns what is added to the environment of that program.
	Env func() []string

	mu   sync.Mutex
	conn *connection
}

// ReadyFD is where a started world finds the pipe that it closes when it can be
// reached.
const ReadyFD = process.GateFD + 1

// connection is one to a world. It lasts as long as the world, or until it is
// closed.
type connection struct {
	net.Conn
	world process.Identity
	enc   *json.Encoder

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan answer
	done    chan struct{} // closed when the world has gone
}

// errNoWorld says that no world runs in a folder.
var errNoWorld = errors.New("no world runs")

// Serve has the world serve a node, and starts it if need be. record is called
// with the world's identity before the node exists, and before the world does
// if it is started. The channel is closed when the world has ended.
func (c *Client) Serve(ctx context.Context, cfg NodeConfig, record func(process.Identity) error) (<-chan struct{}, error) {
	for {
		conn, err := c.connect(ctx, record)
		if err != nil {
			return nil, err
		}
		_, err = conn.ask(ctx, order{Op: opReserve, Name: cfg.Name})
		if errors.Is(err, errNoWorld) {
			c.forget(conn)
			continue // it ended with its last node just now
		}
		if err == nil {
			err = record(conn.world)
		}
		if err == nil {
			_, err = conn.ask(ctx, order{Op: opServe, Name: cfg.Name, Node: &cfg})
		}
		if err != nil {
			return nil, fmt.Errorf("simulating it: %w%s", err, c.words())
		}
		return conn.done, nil
	}
}

// Remove ends a node that is recorded with a world. When it was the last, Remove
// waits until the world has gone. That there is no such node, or no world, is no
// error.
func (c *Client) Remove(ctx context.Context, name string, recorded process.Identity) error {
	conn, err := c.connect(ctx, nil)
	if errors.Is(err, errNoWorld) {
		return c.clear(ctx, recorded)
	}
	if err != nil {
		return err
	}
	a, err := conn.ask(ctx, order{Op: opRemove, Name: name})
	if err != nil && !errors.Is(err, errNoWorld) {
		return fmt.Errorf("the simulated host, process %d, does not remove it: %w", conn.world.PID, err)
	}
	if err == nil && !a.Last {
		return nil
	}
	c.forget(conn)
	if err := conn.world.Wait(ctx); err != nil {
		return fmt.Errorf("the simulated host, process %d, has not ended: %w", conn.world.PID, err)
	}
	return c.clear(ctx, recorded)
}

// Counters returns the counters of the devices by their names; nil when no
// world runs.
func (c *Client) Counters(ctx context.Context) (map[string]Counters, error) {
	conn, err := c.connect(ctx, nil)
	if err == nil {
		defer c.forget(conn)
		var a answer
		if a, err = conn.ask(ctx, order{Op: opCounters}); err == nil {
			return a.Counters, nil
		}
	}
	if errors.Is(err, errNoWorld) {
		return nil, nil
	}
	return nil, err
}

// clear removes what a recorded world has left in its folder, unless another
// runs.
func (c *Client) clear(ctx context.Context, recorded process.Identity) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.Folder.Has(LockFile) && !recorded.Alive() {
		return nil // cleared already
	}
	unlock, err := c.Folder.LockFile(ctx, LockFile, "clearing the simulated host", nil)
	if err != nil {
		return err
	}
	defer unlock()
	if conn, err := dial(ctx, c.Folder); !errors.Is(err, errNoWorld) {
		if err == nil {
			conn.Close()
		}
		return err
	}
	// One that lives and cannot be reached has no nodes: it ends, or who
	// started it was killed before it was ready.
	if err := recorded.Kill(ctx); err != nil {
		return err
	}
	var errs []error
	for _, f := range []string{ControlFile, WordsFile, LockFile} {
		errs = append(errs, c.Folder.RemoveFile(f))
	}
	return errors.Join(errs...)
}

// connect returns the connection to the world. With record a world is started
// if there is none.
func (c *Client) connect(ctx context.Context, record func(process.Identity) error) (*connection, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		return c.conn, nil
	}
	conn, err := dial(ctx, c.Folder)
	if errors.Is(err, errNoWorld) && record != nil {
		conn, err = c.start(ctx, record)
	}
	if err != nil {
		return nil, err
	}
	c.conn = conn
	return conn, nil
}

// forget closes a connection.
func (c *Client) forget(conn *connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == conn {
		c.conn = nil
	}
	conn.Close()
}

// startDeadline bounds the start of a world, which takes milliseconds.
const startDeadline = 30 * time.Second

// start starts the world, unless another has done so since.
func (c *Client) start(ctx context.Context, record func(process.Identity) error) (*connection, error) {
	unlock, err := c.Folder.LockFile(ctx, LockFile, "starting the simulated host", nil)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if conn, err := dial(ctx, c.Folder); !errors.Is(err, errNoWorld) {
		return conn, err
	}
	words, err := c.Folder.OpenLog(WordsFile, true)
	if err != nil {
		return nil, err
	}
	defer words.Close()
	ready, readyW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	defer readyW.Close()
	var env []string
	if c.Env != nil {
		env = c.Env()
	}
	// From here on it is the world's matter that counts, not the caller's: who
	// gives up removes the node, and the world must be there to be told.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startDeadline)
	defer cancel()
	p, err := process.Start(process.Config{
		Path: c.Program, Name: c.Name, Env: env, Dir: c.Folder.Path(), Stdout: words, Stderr: words, Files: []*os.File{readyW},
	}, record)
	if err != nil {
		return nil, err
	}
	readyW.Close()
	stop := context.AfterFunc(ctx, func() { ready.Close() })
	defer stop()
	_, _ = ready.Read(make([]byte, 1)) // it ends when the world is ready, dead, or late
	conn, err := dial(ctx, c.Folder)
	if err != nil {
		err = errors.Join(err, p.Kill(context.WithoutCancel(ctx)))
		return nil, fmt.Errorf("starting the simulated host: %w%s", err, c.words())
	}
	return conn, nil
}

// words returns what the world has said on stderr, to be appended to an error.
func (c *Client) words() string {
	text, err := c.Folder.ReadFile(WordsFile)
	if err != nil || len(text) == 0 {
		return ""
	}
	if len(text) > 2048 {
		text = text[:2048]
	}
	return "; its last words: " + strings.TrimSpace(string(text))
}

// dial connects to the world of a folder. The error wraps errNoWorld when none
// runs there.
func dial(ctx context.Context, f *state.Folder) (*connection, error) {
	conn, err := propolis.DialUnix(ctx, filepath.Join(f.Path(), ControlFile))
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w: %w", errNoWorld, err)
	}
	c := &connection{Conn: conn, enc: json.NewEncoder(conn), waiting: make(map[uint64]chan answer), done: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	dec := json.NewDecoder(conn)
	var greeting answer
	if err := dec.Decode(&greeting); err != nil || greeting.World == nil {
		conn.Close()
		return nil, fmt.Errorf("%w: it ends: %w", errNoWorld, errors.Join(err, ctx.Err()))
	}
	c.world = *greeting.World
	go c.receive(dec)
	return c, nil
}

// receive hands answers to those who wait for them until the world has gone.
func (c *connection) receive(dec *json.Decoder) {
	defer close(c.done)
	for {
		var a answer
		if err := dec.Decode(&a); err != nil {
			return
		}
		c.mu.Lock()
		to := c.waiting[a.ID]
		delete(c.waiting, a.ID)
		c.mu.Unlock()
		if to != nil {
			to <- a
		}
	}
}

// ask sends an order and waits for the answer. The error wraps errNoWorld when
// the world goes first.
func (c *connection) ask(ctx context.Context, o order) (answer, error) {
	to := make(chan answer, 1)
	c.mu.Lock()
	c.last++
	o.ID = c.last
	c.waiting[o.ID] = to
	err := c.enc.Encode(o)
	c.mu.Unlock()
	if err != nil {
		return answer{}, fmt.Errorf("%w: %w", errNoWorld, err)
	}
	select {
	case a := <-to:
		switch a.Error {
		case "":
			return a, nil
		case errEnded.Error():
			return a, fmt.Errorf("%w: it has just ended", errNoWorld)
		}
		return a, errors.New(a.Error)
	case <-c.done:
		select {
		case a := <-to: // it came before the end
			if a.Error == "" {
				return a, nil
			}
		default:
		}
		return answer{}, fmt.Errorf("%w: it ended", errNoWorld)
	case <-ctx.Done():
		return answer{}, context.Cause(ctx)
	}
}
