package propolis

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// serialClient returns a stream whose other end is served by f.
func serialClient(t *testing.T, f func(context.Context, *websocket.Conn)) *SerialConn {
	t.Helper()
	c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer ws.CloseNow()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		f(ctx, ws)
	})
	s, err := c.Serial(t.Context(), SerialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestSerialEnds(t *testing.T) {
	tests := []struct {
		name  string
		serve func(context.Context, *websocket.Conn)
		check func(error) bool
	}{
		{"the machine stopped", func(_ context.Context, ws *websocket.Conn) {
			ws.Close(websocket.StatusGoingAway, "VM stopped")
		}, func(err error) bool { return errors.Is(err, ErrVMStopped) && errors.Is(err, io.EOF) }},
		{"the connection broke", func(context.Context, *websocket.Conn) {},
			func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, ErrVMStopped) }},
		{"the server dropped us", func(_ context.Context, ws *websocket.Conn) {
			ws.Close(websocket.StatusPolicyViolation, "too slow")
		}, func(err error) bool {
			return errors.Is(err, io.ErrUnexpectedEOF) && strings.Contains(err.Error(), "too slow")
		}},
		{"the machine migrated", func(ctx context.Context, ws *websocket.Conn) {
			_ = ws.Write(ctx, websocket.MessageText, []byte(`{"Migrating":{"destination":"[::1]:9","from_start":12}}`))
			_, _, _ = ws.Read(ctx)
		}, func(err error) bool {
			var m *MigratingError
			return errors.As(err, &m) && *m == MigratingError{"[::1]:9", 12}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := serialClient(t, tt.serve)
			_, err := s.Read(make([]byte, 10))
			if !tt.check(err) {
				t.Errorf("reading ended with %v", err)
			}
			if _, again := s.Read(make([]byte, 10)); again != err {
				t.Errorf("a second read ended with %v", again)
			}
		})
	}
}

func TestSerialReadsAllBytesBeforeTheEnd(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789abcdef"), 10000)
	s := serialClient(t, func(ctx context.Context, ws *websocket.Conn) {
		for i := 0; i < len(want); i += 1000 {
			_ = ws.Write(ctx, websocket.MessageBinary, want[i:i+1000])
		}
		_ = ws.Write(ctx, websocket.MessageText, []byte(`{"Unknown":{}}`))
		_ = ws.Write(ctx, websocket.MessageBinary, nil)
		ws.Close(websocket.StatusGoingAway, "VM stopped")
	})
	got, err := io.ReadAll(s)
	if !errors.Is(err, ErrVMStopped) || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes of %d, %v", len(got), len(want), err)
	}
}

func TestSerialStaysUsableAfterAReadDeadline(t *testing.T) {
	write := make(chan string)
	s := serialClient(t, func(ctx context.Context, ws *websocket.Conn) {
		for msg := range write {
			_ = ws.Write(ctx, websocket.MessageBinary, []byte(msg))
		}
	})
	defer close(write)
	buf := make([]byte, 10)
	expired := func(when string) {
		t.Helper()
		if _, err := s.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: got %v, want the deadline", when, err)
		}
	}
	_ = s.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	expired("in the future")
	_ = s.SetReadDeadline(time.Now().Add(-time.Second))
	expired("in the past")
	_ = s.SetReadDeadline(time.Time{})
	write <- "hello"
	if n, err := s.Read(buf); err != nil || string(buf[:n]) != "hello" {
		t.Errorf("got %q, %v", buf[:n], err)
	}
	time.AfterFunc(20*time.Millisecond, func() { _ = s.SetReadDeadline(time.Now()) })
	expired("set while reading")
}

func TestSerialWritesBinaryMessages(t *testing.T) {
	got := make(chan string, 1)
	s := serialClient(t, func(ctx context.Context, ws *websocket.Conn) {
		typ, p, err := ws.Read(ctx)
		if err != nil || typ != websocket.MessageBinary {
			t.Errorf("got a message of type %v, %v", typ, err)
		}
		got <- string(p)
	})
	if n, err := s.Write([]byte("keys\r")); n != 5 || err != nil {
		t.Fatal(n, err)
	}
	if p := <-got; p != "keys\r" {
		t.Errorf("the server got %q", p)
	}
}

func TestSerialWriteGivesUpAtItsDeadline(t *testing.T) {
	release := make(chan struct{})
	s := serialClient(t, func(context.Context, *websocket.Conn) { <-release })
	defer close(release)
	_ = s.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	var err error
	for p := make([]byte, 1<<20); err == nil; {
		_, err = s.Write(p)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want the deadline", err)
	}
}

func TestSerialCloseSendsWhatWasWritten(t *testing.T) {
	got := make(chan string, 1)
	s := serialClient(t, func(ctx context.Context, ws *websocket.Conn) {
		var all []byte
		for {
			_, p, err := ws.Read(ctx)
			if err != nil {
				got <- string(all)
				return
			}
			all = append(all, p...)
		}
	})
	for range 100 {
		if _, err := s.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if p := <-got; len(p) != 100 {
		t.Errorf("the server got %d bytes of 100", len(p))
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("reading after Close: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
}

func TestSerialCloseDoesNotWaitForADeadServer(t *testing.T) {
	release := make(chan struct{})
	s := serialClient(t, func(context.Context, *websocket.Conn) { <-release })
	defer close(release)
	start := time.Now()
	s.Close()
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("Close took %v", d)
	}
}

func TestSerialCloseUnblocksARead(t *testing.T) {
	s := serialClient(t, func(ctx context.Context, ws *websocket.Conn) { _, _, _ = ws.Read(ctx) })
	done := make(chan error, 1)
	go func() {
		_, err := s.Read(make([]byte, 1))
		done <- err
	}()
	s.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want net.ErrClosed", err)
	}
}

func TestSerialRefusalIsATypedError(t *testing.T) {
	c := newTestClient(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"message":"missing expected header","request_id":"r"}`))
	})
	_, err := c.Serial(t.Context(), SerialOptions{})
	var e *Error
	if !errors.As(err, &e) || e.Status != 400 || e.RequestID != "r" {
		t.Errorf("got %v, want the server's error", err)
	}
}
