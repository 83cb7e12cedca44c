package mux

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

const (
	// window is how many bytes may be under way in one direction of a stream.
	window = 128 << 10
	// maxStreams bounds what a guest keeps for its host.
	maxStreams = 1024
)

var (
	// ErrRestarted says that the other end began anew: what was under way is
	// lost, and whether it was done is not known.
	ErrRestarted = errors.New("the agent in the guest was restarted")
	// ErrClosed says that the port is gone.
	ErrClosed = errors.New("the port to the guest is closed")
)

// VersionError says that the two ends have no version in common.
type VersionError struct {
	// Min and Max are what the other end speaks.
	Min, Max uint8
}

// Error implements error.
func (e *VersionError) Error() string {
	return fmt.Sprintf("the agent in the guest speaks versions %d to %d of the protocol, this program %d to %d",
		e.Min, e.Max, minVersion, maxVersion)
}

// Session is one end of a port.
type Session struct {
	conn   io.ReadWriteCloser
	accept func(*Stream) // the guest's; nil on the host

	wmu  sync.Mutex // for writing to conn
	wbuf []byte

	greet chan struct{} // a greeting is due

	mu      sync.Mutex
	epoch   uint32
	up      bool
	changed chan struct{} // closed and renewed with epoch, up and err
	streams map[uint32]*Stream
	last    uint32 // the last stream's number
	refused error  // why there is no session
	err     error  // set when the session has ended
	done    chan struct{}
}

// Host begins a session on the host's end of a port.
func Host(conn io.ReadWriteCloser) *Session {
	s := newSession(conn)
	s.restart()
	s.run()
	return s
}

// Guest serves the guest's end of a port. Each stream that the host opens is
// passed to accept, which must not wait.
func Guest(conn io.ReadWriteCloser, accept func(*Stream)) *Session {
	s := newSession(conn)
	s.accept = accept
	s.greet <- struct{}{}
	s.run()
	return s
}

func newSession(conn io.ReadWriteCloser) *Session {
	return &Session{
		conn: conn, greet: make(chan struct{}, 1), changed: make(chan struct{}),
		streams: make(map[uint32]*Stream), done: make(chan struct{}),
	}
}

func (s *Session) run() {
	go s.greeter()
	go s.reader()
}

// Done is closed when the port is gone.
func (s *Session) Done() <-chan struct{} { return s.done }

// Close closes the port and ends all streams.
func (s *Session) Close() error {
	err := s.conn.Close()
	s.fail(ErrClosed)
	return err
}

// Restart ends all streams and begins a new session: the host's knowledge that
// the guest was reset.
func (s *Session) Restart() {
	if s.accept == nil {
		s.restart()
	}
}

// restart begins a new epoch on the host.
func (s *Session) restart() {
	var number [4]byte
	_, _ = rand.Read(number[:]) // never fails
	s.begin(binary.LittleEndian.Uint32(number[:])|1, false)
}

// begin sets an epoch, ends the streams of the one before and has a greeting
// sent.
func (s *Session) begin(epoch uint32, up bool) {
	s.mu.Lock()
	old := s.streams
	s.streams = make(map[uint32]*Stream)
	s.epoch, s.up, s.refused = epoch, up, nil
	s.announceChange()
	s.mu.Unlock()
	for _, st := range old {
		st.finish(ErrRestarted)
	}
	s.greetSoon()
}

// announceChange wakes those who wait in Open.
func (s *Session) announceChange() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// greeter writes greetings. The reader must not: it would not read while it
// waits for the other end, which may be doing the same.
func (s *Session) greeter() {
	padding := make([]byte, maxFrame, maxFrame+headerSize+trailerSize+8)
	for {
		select {
		case <-s.greet:
		case <-s.done:
			return
		}
		s.wmu.Lock()
		s.mu.Lock()
		f := frame{epoch: s.epoch, kind: typeHello, payload: []byte{minVersion, maxVersion}}
		s.mu.Unlock()
		switch {
		case s.accept != nil && f.epoch == 0:
			f.kind = typeAnnounce
		case s.accept != nil:
			f.kind = typeWelcome
		}
		_, err := s.conn.Write(appendFrame(padding, f))
		s.wmu.Unlock()
		if err != nil {
			s.fail(err)
			return
		}
	}
}

// write writes frames of a stream, at once. It may wait for the other end.
func (s *Session) write(frames ...frame) error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	s.mu.Lock()
	current, err := s.epoch, s.err
	s.mu.Unlock()
	switch {
	case err != nil:
		return err
	case current != frames[0].epoch:
		return ErrRestarted
	}
	s.wbuf = s.wbuf[:0]
	for _, f := range frames {
		s.wbuf = appendFrame(s.wbuf, f)
	}
	if _, err := s.conn.Write(s.wbuf); err != nil {
		s.fail(err)
		return err
	}
	return nil
}

// reader handles what comes, until the port is gone.
func (s *Session) reader() {
	d := new(decoder)
	for {
		n, err := s.conn.Read(d.room())
		d.filled(n)
		for {
			f, ok := d.next()
			if !ok {
				break
			}
			s.handle(f)
		}
		if err != nil {
			s.fail(fmt.Errorf("%w: %w", ErrClosed, err))
			return
		}
	}
}

// fail ends the session.
func (s *Session) fail(err error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	streams := s.streams
	s.streams = nil
	s.announceChange()
	close(s.done)
	s.mu.Unlock()
	for _, st := range streams {
		st.finish(err)
	}
}

// handle handles one frame. It never waits.
func (s *Session) handle(f frame) {
	guest := s.accept != nil
	switch f.kind {
	case typeHello:
		if guest {
			s.hello(f)
		}
		return
	case typeAnnounce:
		if !guest {
			s.restart()
		}
		return
	case typeWelcome:
		if !guest {
			s.welcome(f)
		}
		return
	}
	s.mu.Lock()
	if !s.up || f.epoch != s.epoch || s.err != nil {
		s.mu.Unlock()
		return
	}
	st := s.streams[f.stream]
	if st == nil && guest && f.kind == typeOpen {
		s.open(f)
		return
	}
	s.mu.Unlock()
	if st != nil {
		st.handle(f)
	}
}

// hello begins the session that a host asks for. A host may greet twice for one
// session: it is answered again, and nothing ends.
func (s *Session) hello(f frame) {
	s.mu.Lock()
	again := s.up && f.epoch == s.epoch
	s.mu.Unlock()
	if again {
		s.greetSoon()
		return
	}
	s.begin(f.epoch, f.epoch != 0 && common(f.payload)) // the answer says what we speak
}

// greetSoon has a greeting sent.
func (s *Session) greetSoon() {
	select {
	case s.greet <- struct{}{}:
	default: // one is due already, and will be of the present epoch
	}
}

// common reports whether the versions of a greeting have one in common with
// ours.
func common(versions []byte) bool {
	return len(versions) >= 2 && versions[0] <= maxVersion && versions[1] >= minVersion
}

func (s *Session) welcome(f frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.epoch != s.epoch || s.up || len(f.payload) < 2 {
		return
	}
	if s.up = common(f.payload); !s.up {
		s.refused = &VersionError{Min: f.payload[0], Max: f.payload[1]}
	}
	s.announceChange()
}

// open makes the stream that the host has opened. It lets go of s.mu.
func (s *Session) open(f frame) {
	st := s.newStream(f.stream)
	full := len(s.streams) >= maxStreams
	if !full {
		s.streams[f.stream] = st
	}
	s.mu.Unlock()
	if full {
		go st.end("too many calls at once") // rare, and must not hold up the reader
		return
	}
	st.handle(frame{kind: typeData, payload: f.payload})
	s.accept(st)
}

// newStream returns a stream of the present session. The caller holds s.mu.
func (s *Session) newStream(id uint32) *Stream {
	st := &Stream{s: s, id: id, epoch: s.epoch, credit: window}
	st.cond.L = &st.mu
	return st
}

// Open opens a stream on the host, as soon as the guest's end is there, with
// its first data, at most MaxPayload bytes.
func (s *Session) Open(ctx context.Context, first []byte) (*Stream, error) {
	if len(first) > MaxPayload {
		return nil, fmt.Errorf("%d bytes are too much to open a stream with", len(first))
	}
	s.mu.Lock()
	for !s.up && s.err == nil && s.refused == nil {
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the agent in the guest: %w", context.Cause(ctx))
		}
		s.mu.Lock()
	}
	if err := errors.Join(s.err, s.refused); err != nil {
		s.mu.Unlock()
		return nil, err
	}
	s.last++
	st := s.newStream(s.last)
	st.credit -= len(first)
	s.streams[st.id] = st
	s.mu.Unlock()
	if err := s.write(frame{epoch: st.epoch, stream: st.id, kind: typeOpen, payload: first}); err != nil {
		st.Close()
		return nil, err
	}
	return st, nil
}

// forget takes a stream off the list.
func (s *Session) forget(st *Stream) {
	s.mu.Lock()
	if s.streams[st.id] == st {
		delete(s.streams, st.id)
	}
	s.mu.Unlock()
}
