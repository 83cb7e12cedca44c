package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"time"

	"github.com/falcon-vm/falcon-go/propolis/softnpu"
)

// stream is a serial port or a socket.
type stream interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
}

// channel asks an ASIC over its management channel.
type channel struct {
	path    string
	stream  stream
	from    *bufio.Reader
	silence time.Duration // after which the ASIC is given up
	id      uint64
	stop    func() bool
}

// openChannel opens the management channel at a path, which is that of a
// serial port or of a Unix socket. What is done with the channel ends with the
// context.
func openChannel(ctx context.Context, path string, silence time.Duration) (*channel, error) {
	info, err := os.Stat(path)
	var s stream
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = errors.New("there is none of that name: has this node an ASIC? --device names another")
	case err != nil:
	case info.Mode().Type() == fs.ModeSocket:
		s, err = new(net.Dialer).DialContext(ctx, "unix", path)
	default:
		s, err = openSerial(path)
	}
	if err != nil {
		return nil, fmt.Errorf("open the management channel %s: %w", path, err)
	}
	return newChannel(ctx, path, s, silence), nil
}

func newChannel(ctx context.Context, path string, s stream, silence time.Duration) *channel {
	// Answers to others that are still on the line have another ID. JSON
	// numbers are exact up to 53 bits.
	c := &channel{path: path, stream: s, silence: silence, id: rand.Uint64() >> 12}
	c.from = bufio.NewReader(c)
	c.stop = context.AfterFunc(ctx, func() { _ = s.Close() }) // only to end what reads and writes
	return c
}

func (c *channel) close() error {
	if !c.stop() {
		return nil // it is closed already
	}
	return c.stream.Close()
}

// silenceError is an ASIC that does not answer.
type silenceError struct {
	path string
	wait time.Duration
	last string // line that was no answer
}

func (e *silenceError) Error() string {
	s := fmt.Sprintf("the ASIC on %s has not answered in %v", e.path, e.wait)
	if e.last != "" {
		s += fmt.Sprintf("; the last line that came was %q", e.last)
	}
	return s
}

// refusal is a request that the ASIC has not done.
type refusal struct {
	code softnpu.Code
	text string
}

func (e *refusal) Error() string { return e.text }

// refused reports whether an ASIC has not done a request for some reason.
func refused(err error, code softnpu.Code) bool {
	r, ok := errors.AsType[*refusal](err)
	return ok && r.code == code
}

// ask has a request done and reads its result, unless that is nil.
func (c *channel) ask(ctx context.Context, r softnpu.Request, result any) error {
	c.id++
	line, err := softnpu.FrameRequest(softnpu.Ask{ID: c.id, Request: r})
	if err != nil {
		return err
	}
	// What a program has left on the line without its end must not be in
	// front of the request.
	for rest := append([]byte{'\n'}, line...); len(rest) > 0; {
		n, err := c.write(rest[:min(len(rest), 1024)])
		if err != nil {
			return c.failed(ctx, "", err)
		}
		rest = rest[n:]
	}
	answer, err := c.answer(ctx)
	if err != nil {
		return err
	}
	if answer.Error != "" {
		return &refusal{answer.Code, answer.Error}
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(answer.Result, result); err != nil {
		return fmt.Errorf("the answer of the ASIC on %s: %w", c.path, err)
	}
	return nil
}

// answer reads lines up to that which answers the last request.
func (c *channel) answer(ctx context.Context) (softnpu.Answer, error) {
	last := ""
	for {
		line, err := c.from.ReadBytes('\n')
		if err != nil {
			return softnpu.Answer{}, c.failed(ctx, last, err)
		}
		if a, ok := softnpu.UnmarshalAnswer(line); ok && a.ID == c.id {
			return a, nil
		}
		last = string(line[:min(len(line), 80)])
	}
}

// Read reads what has come, and waits as long as the ASIC may be silent.
func (c *channel) Read(b []byte) (int, error) {
	if err := c.stream.SetDeadline(time.Now().Add(c.silence)); err != nil {
		return 0, err
	}
	return c.stream.Read(b)
}

func (c *channel) write(b []byte) (int, error) {
	if err := c.stream.SetDeadline(time.Now().Add(c.silence)); err != nil {
		return 0, err
	}
	return c.stream.Write(b)
}

func (c *channel) failed(ctx context.Context, last string, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &silenceError{c.path, c.silence, last}
	}
	return fmt.Errorf("management channel %s: %w", c.path, err)
}
