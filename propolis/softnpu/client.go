package softnpu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"
)

// Stream is a client's end of a management channel: a serial port or a socket.
type Stream interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
}

// Client asks an ASIC over its management channel. One goroutine may use it at
// a time.
type Client struct {
	name    string
	stream  Stream
	from    *bufio.Reader
	silence time.Duration
	id      uint64
	stop    func() bool
}

// NewClient returns a client that owns a stream. Name is what errors call the
// channel; an ASIC that says nothing for the time of silence is given up. What
// is done with the client ends with the context.
func NewClient(ctx context.Context, name string, s Stream, silence time.Duration) *Client {
	// Answers to others that are still on the line have another ID. JSON
	// numbers are exact up to 53 bits.
	c := &Client{name: name, stream: s, silence: silence, id: rand.Uint64() >> 12}
	c.from = bufio.NewReader(deadlineReader{c})
	c.stop = context.AfterFunc(ctx, func() { _ = s.Close() }) // only to end what reads and writes
	return c
}

// Close closes the stream.
func (c *Client) Close() error {
	if !c.stop() {
		return nil // it is closed already
	}
	if err := c.stream.Close(); err != nil {
		return fmt.Errorf("management channel %s: %w", c.name, err)
	}
	return nil
}

// SilenceError is an ASIC that does not answer.
type SilenceError struct {
	Channel string
	Wait    time.Duration
	// Last is a line that came and was no answer, if any did.
	Last string
}

// Error implements error.
func (e *SilenceError) Error() string {
	s := fmt.Sprintf("the ASIC on %s has not answered in %v", e.Channel, e.Wait)
	if e.Last != "" {
		s += fmt.Sprintf("; the last line that came was %q", e.Last)
	}
	return s
}

// RefusedError is a request that the ASIC has not done.
type RefusedError struct {
	Code Code // empty for those that are no kind
	Text string
}

// Error implements error.
func (e *RefusedError) Error() string { return e.Text }

// Refused reports whether an ASIC has not done a request for some reason.
func Refused(err error, code Code) bool {
	r, ok := errors.AsType[*RefusedError](err)
	return ok && r.Code == code
}

// Ask has a request done and reads its result, unless that is nil: see
// [Answer.Result].
func (c *Client) Ask(ctx context.Context, r Request, result any) error {
	if err := c.send(ctx, r); err != nil {
		return err
	}
	answer, err := c.answer(ctx, c.id)
	if err != nil {
		return err
	}
	if answer.Error != "" {
		return &RefusedError{answer.Code, answer.Error}
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(answer.Result, result); err != nil {
		return fmt.Errorf("the answer of the ASIC on %s: %w", c.name, err)
	}
	return nil
}

// onTheWay is how many requests of [Client.AskAll] wait for their answers at a
// time. All of these fit into what a Linux guest holds for a serial port, 4 KiB.
const onTheWay = 32

// AskAll has requests done in their order without waiting for each, and returns
// how many were. If some are refused the error is of the first; a few that come
// after it may have been done.
func (c *Client) AskAll(ctx context.Context, requests []Request) (done int, err error) {
	for len(requests) > 0 && err == nil {
		part := requests[:min(len(requests), onTheWay)]
		requests = requests[len(part):]
		first := c.id + 1
		for _, r := range part {
			if err := c.send(ctx, r); err != nil {
				return done, err
			}
		}
		for i := range part {
			answer, failed := c.answer(ctx, first+uint64(i))
			switch {
			case failed != nil:
				return done, failed
			case answer.Error == "":
				done++
			case err == nil:
				err = &RefusedError{answer.Code, answer.Error}
			}
		}
	}
	return done, err
}

// send writes a request, whose ID is then the client's.
func (c *Client) send(ctx context.Context, r Request) error {
	c.id++
	line, err := FrameRequest(Ask{ID: c.id, Request: r})
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
	return nil
}

// answer reads lines up to that which answers a request.
func (c *Client) answer(ctx context.Context, id uint64) (Answer, error) {
	last := ""
	for {
		line, err := c.from.ReadBytes('\n')
		if err != nil {
			return Answer{}, c.failed(ctx, last, err)
		}
		if a, ok := UnmarshalAnswer(line); ok && a.ID == id {
			return a, nil
		}
		last = string(line[:min(len(line), 80)])
	}
}

// deadlineReader waits as long as the ASIC may be silent.
type deadlineReader struct{ *Client }

func (r deadlineReader) Read(b []byte) (int, error) {
	if err := r.stream.SetDeadline(time.Now().Add(r.silence)); err != nil {
		return 0, err
	}
	return r.stream.Read(b)
}

func (c *Client) write(b []byte) (int, error) {
	if err := c.stream.SetDeadline(time.Now().Add(c.silence)); err != nil {
		return 0, err
	}
	return c.stream.Write(b)
}

func (c *Client) failed(ctx context.Context, last string, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &SilenceError{c.name, c.silence, last}
	}
	return fmt.Errorf("management channel %s: %w", c.name, err)
}
