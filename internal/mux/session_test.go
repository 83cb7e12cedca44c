package mux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// port is a virtio-serial port: one guest, and hosts that come and go. What a
// host has written the guest gets, also when that host has gone.
type port struct {
	t        testing.TB
	guest    net.Conn // the guest's end
	inner    net.Conn
	mu       sync.Mutex
	attached net.Conn // the present host's end, inside
}

func newPort(t testing.TB) *port {
	t.Helper()
	p := &port{t: t}
	p.guest, p.inner = net.Pipe()
	t.Cleanup(func() { p.inner.Close() })
	go func() { // what no host takes is lost
		buf := make([]byte, 64<<10)
		for {
			n, err := p.inner.Read(buf)
			if err != nil {
				return
			}
			p.mu.Lock()
			to := p.attached
			p.mu.Unlock()
			if to != nil {
				_, _ = to.Write(buf[:n])
			}
		}
	}()
	return p
}

// host connects a new host, in place of the one before.
func (p *port) host() net.Conn {
	p.t.Helper()
	outer, inner := net.Pipe()
	p.mu.Lock()
	if p.attached != nil {
		p.attached.Close()
	}
	p.attached = inner
	p.mu.Unlock()
	go func() { _, _ = io.Copy(p.inner, inner) }()
	p.t.Cleanup(func() { outer.Close(); inner.Close() })
	return outer
}

// echo answers a stream with what comes on it, until what has come so far ends
// with "bye", however it is cut into pieces.
func echo(st *Stream) {
	go func() {
		defer st.Close()
		buf := make([]byte, 8<<10)
		var last []byte
		for {
			n, err := st.Read(buf)
			if n > 0 {
				if _, werr := st.Write(buf[:n]); werr != nil {
					return
				}
			}
			last = append(last, buf[:n]...)
			last = last[max(0, len(last)-len("bye")):]
			if err != nil || string(last) == "bye" {
				return
			}
		}
	}()
}

// within is a context that ends before the test's patience does.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// mustEcho has a session echo a text, which shows that it works.
func mustEcho(t testing.TB, s *Session, text string) {
	t.Helper()
	st, err := s.Open(within(t), []byte(text+"bye"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	got, err := io.ReadAll(st)
	if err != nil || string(got) != text+"bye" {
		t.Fatalf("echo of %q: %q, %v", text, got, err)
	}
}

func TestStreamsAreManyAndLarge(t *testing.T) {
	p := newPort(t)
	Guest(p.guest, echo)
	s := Host(p.host())
	defer s.Close()
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			data := make([]byte, rand.IntN(3*window))
			for j := range data {
				data[j] = byte(i + j)
			}
			st, err := s.Open(within(t), nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer st.Close()
			go func() {
				_, _ = st.Write(data)
				_, _ = st.Write([]byte("bye"))
			}()
			if got, err := io.ReadAll(st); err != nil || !bytes.Equal(got, append(data, "bye"...)) {
				t.Errorf("stream %d: %d bytes of %d, %v", i, len(got), len(data), err)
			}
		})
	}
	all.Wait()
}

func TestASlowReaderHoldsUpNobodyElse(t *testing.T) {
	p := newPort(t)
	filled := make(chan int, 1)
	Guest(p.guest, func(st *Stream) {
		if st.id != 1 {
			echo(st)
			return
		}
		go func() {
			n, _ := st.Write(make([]byte, 10*window))
			filled <- n
		}()
	})
	s := Host(p.host())
	defer s.Close()
	slow, err := s.Open(within(t), []byte("pour"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		mustEcho(t, s, fmt.Sprint("beside ", i))
	}
	slow.mu.Lock()
	held := len(slow.data)
	slow.mu.Unlock()
	if held > window {
		t.Errorf("%d bytes are held for a reader that does not read", held)
	}
	slow.Close()
	if n := <-filled; n > window {
		t.Errorf("the writer wrote %d bytes to nobody", n)
	}
}

// A host that goes at any byte of what it writes leaves a guest that the next
// host can work with at once.
func TestAHostMayGoAtEachByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPort(t)
		ended := make(chan struct{}, 1)
		g := Guest(p.guest, func(st *Stream) {
			st.OnEnd(func() {
				select {
				case ended <- struct{}{}:
				default:
				}
			})
			echo(st)
		})
		// What a host writes: padding, hello, and a stream with data.
		script := make([]byte, 8) // the rest of the padding is like it
		script = append(script, encode(
			frame{epoch: 77, kind: typeHello, payload: []byte{minVersion, maxVersion}},
			frame{epoch: 77, stream: 1, kind: typeOpen, payload: []byte("first")},
			frame{epoch: 77, stream: 1, kind: typeData, payload: bytes.Repeat([]byte("more"), 20)},
		)...)
		for at := range script {
			dead := p.host()
			go func() { _, _ = io.Copy(io.Discard, dead) }()
			if _, err := dead.Write(script[:at]); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			dead.Close()
			s := Host(p.host())
			mustEcho(t, s, fmt.Sprint("after ", at))
			s.Close()
			synctest.Wait()
		}
		<-ended
		g.mu.Lock()
		left := len(g.streams)
		g.mu.Unlock()
		if left > 1 { // the last host's own may not have ended
			t.Errorf("%d streams of hosts that have gone", left)
		}
		g.Close()
	})
}

// A greeting may come twice: the host's greeter is told of a new session while
// it is about to greet for it. The host, which hears one answer too many, must
// not lose the streams that it has opened in between.
func TestAGreetingThatComesTwiceEndsNothing(t *testing.T) {
	p := newPort(t)
	g := Guest(p.guest, echo)
	defer g.Close()
	host := p.host()
	go func() {
		hello := frame{epoch: 77, kind: typeHello, payload: []byte{minVersion, maxVersion}}
		for _, f := range []frame{
			hello,
			{epoch: 77, stream: 1, kind: typeOpen, payload: []byte("begun ")},
			hello,
			{epoch: 77, stream: 1, kind: typeData, payload: []byte("bye")},
		} {
			_, _ = host.Write(encode(f)) // the reader below sees what fails
		}
	}()
	check := time.AfterFunc(20*time.Second, func() { host.Close() })
	defer check.Stop()
	var echoed []byte
	d := new(decoder)
	for {
		n, err := host.Read(d.room())
		d.filled(n)
		for f, ok := d.next(); ok; f, ok = d.next() {
			if f.kind == typeEnd && string(echoed) == "begun bye" {
				return
			}
			if f.kind == typeData {
				echoed = append(echoed, f.payload...)
			}
		}
		if err != nil {
			t.Fatalf("the guest has echoed %q: %v", echoed, err)
		}
	}
}

// A guest that is killed at any byte of what it writes, and started again, ends
// what the host had under way, and works with it at once.
func TestAGuestMayGoAtEachByte(t *testing.T) {
	answer := encode(frame{epoch: 5, stream: 1, kind: typeData, payload: []byte("half an answer")})
	for at := range answer {
		p := newPort(t)
		s := Host(p.host())
		first := Guest(&borrowed{Conn: p.guest}, func(*Stream) {})
		st, err := s.Open(within(t), []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.guest.Write(answer[:at]); err != nil {
			t.Fatal(err)
		}
		first.Close()
		Guest(p.guest, echo)
		if _, err := io.ReadAll(st); !errors.Is(err, ErrRestarted) {
			t.Errorf("cut at %d: %v", at, err)
		}
		mustEcho(t, s, "again")
		s.Close()
	}
}

// borrowed is a connection that stays when its user dies.
type borrowed struct {
	net.Conn
	reading sync.Mutex
	dead    atomic.Bool
}

func (b *borrowed) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	if b.dead.Load() {
		return 0, io.EOF
	}
	return b.Conn.Read(p)
}

func (b *borrowed) Close() error {
	b.dead.Store(true)
	_ = b.SetReadDeadline(time.Unix(1, 0))
	b.reading.Lock() // the reader has left
	defer b.reading.Unlock()
	return b.SetReadDeadline(time.Time{})
}

func TestClosingAStreamEndsTheOther(t *testing.T) {
	p := newPort(t)
	seen := make(chan error, 1)
	Guest(p.guest, func(st *Stream) {
		go func() {
			_, err := io.Copy(io.Discard, st)
			seen <- err
		}()
	})
	s := Host(p.host())
	defer s.Close()
	st, err := s.Open(within(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	st.Close()
	if err := <-seen; err != nil {
		t.Errorf("the guest sees %v", err)
	}
	if _, err := st.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("writing to a closed stream: %v", err)
	}
}

func TestTheReasonOfAnEndTravels(t *testing.T) {
	p := newPort(t)
	Guest(p.guest, func(st *Stream) { go st.Fail("no room") })
	s := Host(p.host())
	defer s.Close()
	st, err := s.Open(within(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	var end *EndError
	if _, err := io.ReadAll(st); !errors.As(err, &end) || end.Reason != "no room" {
		t.Errorf("the reason is %v", err)
	}
}

func TestVersionsWithoutACommonOneAreRefused(t *testing.T) {
	p := newPort(t)
	host := p.host()
	go func() { // a guest of another time
		d := new(decoder)
		for {
			n, err := p.guest.Read(d.room())
			if err != nil {
				return
			}
			d.filled(n)
			for f, ok := d.next(); ok; f, ok = d.next() {
				if f.kind == typeHello {
					_, _ = p.guest.Write(encode(frame{epoch: f.epoch, kind: typeWelcome, payload: []byte{maxVersion + 1, maxVersion + 2}}))
				}
			}
		}
	}()
	s := Host(host)
	defer s.Close()
	var refused *VersionError
	if _, err := s.Open(within(t), nil); !errors.As(err, &refused) || refused.Min != maxVersion+1 {
		t.Errorf("error %v", err)
	}
	// The client of a relay hears the same.
	ours, theirs := net.Pipe()
	go s.Relay(context.Background(), theirs)
	c := Client(ours)
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	refused = nil
	if _, err := io.ReadAll(c); !errors.As(err, &refused) || *refused != (VersionError{maxVersion + 1, maxVersion + 2}) {
		t.Errorf("through a relay: %v", err)
	}
}

func TestOpenWaitsForTheGuestAndNoLongerThanItsContext(t *testing.T) {
	p := newPort(t)
	s := Host(p.host())
	defer s.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Open(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	opened := make(chan error, 1)
	go func() {
		_, err := s.Open(within(t), nil)
		opened <- err
	}()
	Guest(p.guest, echo)
	if err := <-opened; err != nil {
		t.Errorf("error %v", err)
	}
	s.Close()
	if _, err := s.Open(within(t), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

func TestRelayJoinsEachClientToAStream(t *testing.T) {
	p := newPort(t)
	closed := make(chan struct{}, 1)
	Guest(p.guest, func(st *Stream) {
		st.OnEnd(func() {
			select {
			case closed <- struct{}{}:
			default:
			}
		})
		echo(st)
	})
	s := Host(p.host())
	dial := func() io.ReadWriteCloser {
		ours, theirs := net.Pipe()
		go s.Relay(context.Background(), theirs)
		return Client(ours)
	}
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			c := dial()
			defer c.Close()
			text := fmt.Sprintf("client %d bye", i)
			if _, err := c.Write([]byte(text)); err != nil {
				t.Error(err)
			}
			if got, err := io.ReadAll(c); err != nil || string(got) != text {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	all.Wait()
	for len(closed) > 0 {
		<-closed
	}
	// A client that goes ends its stream.
	c := dial()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	select {
	case <-closed:
	case <-within(t).Done():
		t.Error("the stream of a client that has gone stays")
	}
	// What stands in the way is told.
	s.Close()
	c = dial()
	defer c.Close()
	_, _ = c.Write([]byte("x"))
	if _, err := io.ReadAll(c); err == nil || !strings.HasPrefix(err.Error(), ErrClosed.Error()) {
		t.Errorf("error %v", err)
	}
}

// A client that goes is missed also while its stream takes nothing from it.
func TestAClientThatGoesWhileItWaitsIsMissed(t *testing.T) {
	p := newPort(t)
	ended := make(chan struct{})
	Guest(p.guest, func(st *Stream) { st.OnEnd(func() { close(ended) }) }) // it does not read
	s := Host(p.host())
	defer s.Close()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err == nil {
			s.Relay(context.Background(), conn)
		}
	}()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	// As much as all that is in between takes.
	if err := c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Write(make([]byte, 64<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d bytes were taken, %v", n, err)
	}
	c.Close()
	select {
	case <-ended:
	case <-within(t).Done():
		t.Error("the stream of a client that has gone stays")
	}
}
