package agent

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// How long an agent that has answered may then be silent. A copy gets on all the
// time, once the agent has looked how much it is; to freeze a file system, all that
// waits for the disk is written first.
const (
	lookSilence   = time.Minute
	copySilence   = 20 * time.Second
	freezeSilence = 30 * time.Second
	thawSilence   = 20 * time.Second
)

// SilenceError says that an agent has answered and then fallen silent.
type SilenceError struct {
	// Awaited is what was waited for, After how long, and Last what was heard of
	// it before.
	Awaited string
	After   time.Duration
	Last    string
}

// Error implements error.
func (e *SilenceError) Error() string {
	return fmt.Sprintf("the agent in the guest has fallen silent: %s was awaited for %v, the last that was seen is that %s; the agent hangs there, or its machine stands still",
		e.Awaited, e.After, e.Last)
}

// Timeout makes it known as a timeout.
func (e *SilenceError) Timeout() bool { return true }

// silence watches a stream on which something is to come or to go.
type silence struct {
	io.ReadWriteCloser

	mu    sync.Mutex
	timer *time.Timer // nil while nothing is awaited
	bytes int64
	is    SilenceError // what it would be
	err   error
}

// await has the stream closed when nothing has passed on it for a time.
func (s *silence) await(what string, limit time.Duration, last string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.is = SilenceError{Awaited: what, After: limit, Last: last}
	if s.timer != nil {
		s.timer.Stop()
	}
	s.timer = time.AfterFunc(limit, s.end)
}

// cease ends the watch.
func (s *silence) cease() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
}

func (s *silence) end() {
	s.mu.Lock()
	err := s.is
	if err.Last == "" {
		err.Last = fmt.Sprintf("%d bytes had passed", s.bytes)
	}
	s.err = &err
	s.mu.Unlock()
	s.Close()
}

// why returns the error of a stream that was closed for its silence.
func (s *silence) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *silence) passed(n int) {
	if n <= 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes += int64(n)
	if s.timer != nil && s.err == nil {
		s.timer.Reset(s.is.After)
	}
}

// Read implements io.Reader.
func (s *silence) Read(p []byte) (int, error) {
	n, err := s.ReadWriteCloser.Read(p)
	s.passed(n)
	return n, err
}

// Write implements io.Writer.
func (s *silence) Write(p []byte) (int, error) {
	n, err := s.ReadWriteCloser.Write(p)
	s.passed(n)
	return n, err
}
