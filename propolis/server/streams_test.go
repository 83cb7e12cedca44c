package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/falcon-vm/falcon-go/propolis"
)

// serial opens the console.
func (h *harness) serial(o propolis.SerialOptions) *propolis.SerialConn {
	h.t.Helper()
	s, err := h.Serial(h.ctx(), o)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { s.Close() })
	_ = s.SetReadDeadline(time.Now().Add(20 * time.Second))
	return s
}

// websocket opens a path of the server as a websocket, without our client.
func (h *harness) websocket(path string) *websocket.Conn {
	h.t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(h.addr, "unix:"))
	}}
	ws, _, err := websocket.Dial(h.ctx(), "ws://localhost"+path, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: transport},
		HTTPHeader: http.Header{"api-version": {"2.0.0"}},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { ws.CloseNow() })
	return ws
}

// history waits until the console has n bytes in total.
func (h *harness) written(n uint64) {
	h.t.Helper()
	for { // the history has no event to wait for
		past, err := h.History(h.ctx(), propolis.HistoryRequest{MostRecent: new(uint64)})
		if err != nil {
			h.t.Fatal(err)
		}
		if past.LastByteOffset >= n {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func expect(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v, want %q", got[:n], err, want)
	}
}

func TestSerialStartsWhereItIsAskedTo(t *testing.T) {
	p := func(n uint64) *uint64 { return &n }
	tests := []struct {
		name string
		o    propolis.SerialOptions
		want string // of "0123456789" and then "live"
	}{
		{"live", propolis.SerialOptions{}, "live"},
		{"both offsets are live", propolis.SerialOptions{FromStart: p(1), MostRecent: p(1)}, "live"},
		{"from the start", propolis.SerialOptions{FromStart: p(0)}, "0123456789live"},
		{"from the middle", propolis.SerialOptions{FromStart: p(6)}, "6789live"},
		{"from beyond the end", propolis.SerialOptions{FromStart: p(99)}, "live"},
		{"the last", propolis.SerialOptions{MostRecent: p(3)}, "789live"},
		{"the last none", propolis.SerialOptions{MostRecent: p(0)}, "live"},
		{"more than there is", propolis.SerialOptions{MostRecent: p(99)}, "0123456789live"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHarness(t)
			h.created()
			h.machine.types(t, "0123456789")
			h.written(10)
			s := h.serial(tt.o)
			h.attached(1)
			h.machine.types(t, "live")
			expect(t, s, tt.want)
		})
	}
}

// attached waits until the server has n serial clients.
func (h *harness) attached(n int) {
	h.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		i, err := h.server.current()
		if err != nil {
			h.t.Fatal(err)
		}
		i.console.mu.Lock()
		got := len(i.console.clients)
		i.console.mu.Unlock()
		if got == n {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("the console has %d clients, want %d", got, n)
		}
	}
}

func TestSerialIsSharedByItsClients(t *testing.T) {
	h := newHarness(t)
	h.created()
	clients := []*propolis.SerialConn{h.serial(propolis.SerialOptions{}), h.serial(propolis.SerialOptions{})}
	h.attached(2)
	h.machine.types(t, "login: ")
	for i, s := range clients {
		expect(t, s, "login: ")
		keys := fmt.Sprintf("keys %d\r", i)
		if _, err := io.WriteString(s, keys); err != nil {
			t.Fatal(err)
		}
		expect(t, h.machine.guest, keys)
	}
	clients[0].Close()
	h.attached(1)
	h.machine.types(t, "still here")
	expect(t, clients[1], "still here")
}

func TestSerialOffersHistoryInBinaryMessages(t *testing.T) {
	h := newHarness(t)
	h.created()
	want := strings.Repeat("0123456789abcdef", 4096) // 64 KiB
	h.machine.types(t, want)
	h.written(uint64(len(want)))
	ws := h.websocket("/instance/serial?from_start=0")
	var got []byte
	for len(got) < len(want) {
		typ, p, err := ws.Read(h.ctx())
		if err != nil || typ != websocket.MessageBinary || len(p) > 16<<10 {
			t.Fatalf("got a message of type %v with %d bytes, %v", typ, len(p), err)
		}
		got = append(got, p...)
	}
	if string(got) != want {
		t.Error("the bytes differ")
	}
}

func TestSerialIgnoresMessagesThatAreNotBinary(t *testing.T) {
	h := newHarness(t)
	h.created()
	ws := h.websocket("/instance/serial")
	for typ, p := range map[websocket.MessageType]string{websocket.MessageText: "text"} {
		if err := ws.Write(h.ctx(), typ, []byte(p)); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{"", "keys"} {
		if err := ws.Write(h.ctx(), websocket.MessageBinary, []byte(p)); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, h.machine.guest, "keys")
}

func TestSerialWithoutAnInstanceIsUpgradedAndDropped(t *testing.T) {
	h := newHarness(t)
	_, _, err := h.websocket("/instance/serial").Read(h.ctx())
	if websocket.CloseStatus(err) != -1 || !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want the end of the connection without a close frame", err)
	}
}

func TestSerialEndsWithTheMachine(t *testing.T) {
	h := newHarness(t)
	h.running()
	ws := h.websocket("/instance/serial?most_recent=0")
	h.attached(1)
	h.machine.types(t, "reboot: Power down")
	h.machine.die(nil)
	var got []byte
	for {
		_, p, err := ws.Read(h.ctx())
		var ce websocket.CloseError
		if errors.As(err, &ce) {
			if ce != (websocket.CloseError{Code: websocket.StatusGoingAway, Reason: "VM stopped"}) {
				t.Errorf("closed with %v", ce)
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, p...)
	}
	if string(got) != "reboot: Power down" {
		t.Errorf("the last words are %q", got)
	}
}

func TestSerialHandshakesThatAreRefused(t *testing.T) {
	good := map[string]string{
		"Connection": "keep-alive, Upgrade", "Upgrade": "websocket",
		"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
	}
	tests := []struct{ header, value, want string }{
		{"Connection", "close", "expected connection upgrade"},
		{"Upgrade", "h2c", "unexpected protocol"},
		{"Sec-WebSocket-Version", "8", "missing or invalid websocket version"},
		{"Sec-WebSocket-Version", "", "missing or invalid websocket version"},
		{"Sec-WebSocket-Key", "", "missing websocket key"},
		{"Sec-WebSocket-Key", "c2hvcnQ=", "missing websocket key"},
		{"Origin", "http://elsewhere.example", "websockets from other origins"},
		{"api-version", "", "missing expected header"},
		{"", "", ""},
	}
	h := newHarness(t)
	for _, tt := range tests {
		t.Run(tt.header+" "+tt.value, func(t *testing.T) {
			x := exchange{method: "GET", path: "/instance/serial", header: map[string]string{}}
			for name, value := range good {
				x.header[name] = value
			}
			if tt.header != "" {
				x.header[tt.header] = tt.value
				checkError(t, h.raw(x), 400, "", tt.want)
			} else if a := h.raw(x); a.status != 101 || a.header.Get("x-request-id") == "" {
				t.Errorf("got %d %v", a.status, a.header)
			}
		})
	}
}

// flood writes n bytes as a guest that does not wait for anybody.
func (h *harness) flood(n int) {
	h.t.Helper()
	chunk := bytes.Repeat([]byte("x"), 1<<16)
	done := make(chan error, 1)
	go func() {
		for i := 0; i < n; i += len(chunk) {
			if _, err := h.machine.guest.Write(chunk); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	select {
	case err := <-done:
		if err != nil {
			h.t.Fatal(err)
		}
	case <-time.After(20 * time.Second):
		h.t.Fatal("the guest is held up")
	}
}

func TestAStuckClientHoldsUpNobody(t *testing.T) {
	h := newHarness(t)
	h.running()
	stuck := h.websocket("/instance/serial") // never read
	good := h.serial(propolis.SerialOptions{})
	h.attached(2)
	for range 2 * maxLag >> 20 {
		h.flood(1 << 20)
		if n, err := io.CopyN(io.Discard, good, 1<<20); err != nil {
			t.Fatalf("the other client got %d bytes, %v", n, err)
		}
	}
	h.attached(1)
	var err error
	for err == nil {
		_, _, err = stuck.Read(h.ctx())
	}
	h.request(propolis.RequestStop)
	h.wait(propolis.StateDestroyed)
	if !strings.Contains(h.log.String(), "reads too slowly") {
		t.Error("the log does not tell that a client was dropped")
	}
}

func TestAStuckClientDoesNotHoldUpTheEnd(t *testing.T) {
	h := newHarness(t)
	h.running()
	_ = h.websocket("/instance/serial")
	h.attached(1)
	h.flood(maxLag) // as much as a client may lag
	h.request(propolis.RequestStop)
	start := time.Now()
	h.wait(propolis.StateDestroyed)
	if err := h.stop(); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("the end took %v", d)
	}
}

func TestAClientMayReplayAllThatIsHeld(t *testing.T) {
	h := newHarness(t)
	h.created()
	h.flood(2 * historySize)
	s := h.serial(propolis.SerialOptions{FromStart: new(uint64)})
	if n, err := io.CopyN(io.Discard, s, 2*historySize); err != nil {
		t.Errorf("got %d bytes, %v", n, err)
	}
}

func TestTheHoleOfTheHistory(t *testing.T) {
	h := newHarness(t)
	h.created()
	h.flood(3 * historySize)
	in := uint64(historySize)
	_, err := h.History(h.ctx(), propolis.HistoryRequest{FromStart: &in})
	if e := refused(t, err, 400, ""); !strings.HasPrefix(e.Message, "Requested byte offset 1048576 is no longer cached") {
		t.Errorf("message %q", e.Message)
	}
	s := h.serial(propolis.SerialOptions{FromStart: &in})
	if _, err := s.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "no longer held") {
		t.Errorf("streaming from the hole gave %v", err)
	}
}

func TestHistoryRequests(t *testing.T) {
	h := newHarness(t)
	h.created()
	h.flood(1 << 17)
	h.machine.types(t, "end")
	const total = 1<<17 + 3
	h.written(total)
	p := func(n uint64) *uint64 { return &n }
	tests := []struct {
		name       string
		req        propolis.HistoryRequest
		data, last uint64
	}{
		{"16 KiB by default", propolis.HistoryRequest{FromStart: p(0)}, 16384, 16384},
		{"as many as asked for", propolis.HistoryRequest{FromStart: p(10), MaxBytes: 100000}, 100000, 100010},
		{"as many as there are", propolis.HistoryRequest{MostRecent: p(3), MaxBytes: 10}, 3, total},
		{"beyond the end", propolis.HistoryRequest{FromStart: p(1 << 40)}, 0, total},
		{"without end", propolis.HistoryRequest{FromStart: p(0), MaxBytes: 1 << 63}, total, total},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := h.History(h.ctx(), tt.req)
			if err != nil || uint64(len(got.Data)) != tt.data || got.LastByteOffset != tt.last {
				t.Errorf("got %d bytes up to %d, %v, want %d up to %d", len(got.Data), got.LastByteOffset, err, tt.data, tt.last)
			}
		})
	}
}

func TestTypingAtAGuestThatDoesNotReadHoldsUpNobodyElse(t *testing.T) {
	h := newHarness(t)
	h.running()
	typist := h.serial(propolis.SerialOptions{})
	for range 3 {
		if _, err := io.WriteString(typist, "keys that nobody takes"); err != nil {
			t.Fatal(err)
		}
	}
	watcher := h.serial(propolis.SerialOptions{})
	h.attached(2)
	h.machine.types(t, "output")
	expect(t, watcher, "output")
	expect(t, typist, "output")
	h.request(propolis.RequestStop)
	h.wait(propolis.StateDestroyed)
}
