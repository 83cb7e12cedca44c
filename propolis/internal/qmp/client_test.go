package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

const greeting = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}`

// peer is the QEMU end of a connection, driven by the test.
type peer struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

type received struct {
	Execute   string
	Arguments json.RawMessage
	ID        uint64
}

func newPeer(t *testing.T) (*peer, net.Conn) {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return &peer{t: t, conn: theirs, in: bufio.NewReader(theirs)}, ours
}

func (p *peer) send(format string, args ...any) {
	if _, err := fmt.Fprintf(p.conn, format+"\r\n", args...); err != nil {
		p.t.Errorf("fake QEMU: sending: %v", err)
	}
}

func (p *peer) receive() received {
	line, err := p.in.ReadString('\n')
	if err != nil {
		p.t.Errorf("fake QEMU: receiving: %v", err)
		return received{}
	}
	var r received
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		p.t.Errorf("fake QEMU: %q: %v", line, err)
	}
	return r
}

// accept greets and answers the negotiation.
func (p *peer) accept() {
	p.send("%s", greeting)
	r := p.receive()
	if r.Execute != "qmp_capabilities" {
		p.t.Errorf("first command is %q, want qmp_capabilities", r.Execute)
	}
	p.send(`{"return": {}, "id": %d}`, r.ID)
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// connect returns a client and its peer, past the negotiation.
func connect(t *testing.T) (*Client, *peer) {
	t.Helper()
	p, conn := newPeer(t)
	go p.accept()
	c, err := New(testContext(t), conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, p
}

func TestNewKeepsAnEventThatComesBeforeTheGreeting(t *testing.T) {
	p, conn := newPeer(t)
	go func() {
		p.send(`{"event": "RESET", "data": {"guest": true}, "timestamp": {"seconds": 7, "microseconds": 5}}`)
		p.accept()
	}()
	c, err := New(testContext(t), conn)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	e := <-c.Events()
	if e.Name != "RESET" || string(e.Data) != `{"guest": true}` || !e.Time.Equal(time.Unix(7, 5000)) {
		t.Errorf("event = %+v", e)
	}
}

func TestNewGivesUpWithItsContextWhenNobodyGreets(t *testing.T) {
	_, conn := newPeer(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := New(ctx, conn)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "greeting") {
		t.Errorf("err = %v", err)
	}
}

func TestNewFailsWhenQEMUHangsUp(t *testing.T) {
	p, conn := newPeer(t)
	p.conn.Close()
	if _, err := New(testContext(t), conn); !errors.Is(err, ErrClosed) {
		t.Errorf("err = %v, want ErrClosed", err)
	}
}

func TestExecutePassesArgumentsAndDecodesTheAnswer(t *testing.T) {
	c, p := connect(t)
	go func() {
		r := p.receive()
		if string(r.Arguments) != `{"name":"x"}` {
			t.Errorf("arguments = %s", r.Arguments)
		}
		p.send(`{"return": {"status": "running"}, "id": %d}`, r.ID)
	}()
	var got struct{ Status string }
	err := c.Execute(testContext(t), "query", map[string]string{"name": "x"}, &got)
	if err != nil || got.Status != "running" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestExecuteReturnsQEMUsRefusalAsError(t *testing.T) {
	c, p := connect(t)
	go func() {
		r := p.receive()
		p.send(`{"error": {"class": "DeviceNotFound", "desc": "no disk"}, "id": %d}`, r.ID)
	}()
	err := c.Execute(testContext(t), "eject", nil, nil)
	var refused *Error
	if !errors.As(err, &refused) || *refused != (Error{"eject", "DeviceNotFound", "no disk"}) {
		t.Errorf("err = %#v", err)
	}
}

func TestConcurrentCallsGetTheirOwnAnswersInAnyOrder(t *testing.T) {
	c, p := connect(t)
	const n = 20
	go func() {
		var calls []received
		for range n {
			calls = append(calls, p.receive())
		}
		for i := n - 1; i >= 0; i-- { // the reverse of the order they came in
			p.send(`{"event": "NOISE"}`)
			p.send(`{"return": %s, "id": %d}`, calls[i].Arguments, calls[i].ID)
		}
	}()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			var got int
			if err := c.Execute(testContext(t), "echo", i, &got); err != nil || got != i {
				t.Errorf("call %d: got %d, %v", i, got, err)
			}
		})
	}
	wg.Wait()
}

func TestUnreadEventsHoldUpNoCall(t *testing.T) {
	c, p := connect(t)
	const n = 5000
	go func() {
		r := p.receive()
		for i := range n {
			p.send(`{"event": "E%d"}`, i)
		}
		p.send(`{"return": {}, "id": %d}`, r.ID)
	}()
	if err := c.Execute(testContext(t), "query", nil, nil); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if e := <-c.Events(); e.Name != fmt.Sprintf("E%d", i) {
			t.Fatalf("event %d is %s", i, e.Name)
		}
	}
}

func TestADeadlineEndsACallAndTheLateAnswerIsIgnored(t *testing.T) {
	c, p := connect(t)
	late := make(chan received, 1)
	go func() { late <- p.receive() }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := c.Execute(ctx, "slow", nil, nil)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "slow") {
		t.Fatalf("err = %v", err)
	}
	go func() {
		p.send(`{"return": {"from": "slow"}, "id": %d}`, (<-late).ID)
		p.send(`{"return": {"from": "quick"}, "id": %d}`, p.receive().ID)
	}()
	var got struct{ From string }
	if err := c.Execute(testContext(t), "quick", nil, &got); err != nil || got.From != "quick" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestADeadlineEndsACallThatQEMUDoesNotRead(t *testing.T) {
	c, _ := connect(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for range 3 { // the writer holds one; the others wait for the writer
		wg.Go(func() {
			if err := c.Execute(ctx, "query", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("err = %v", err)
			}
		})
	}
	wg.Wait()
}

func TestTheEndOfTheConnectionFailsEveryWaitingCall(t *testing.T) {
	ends := map[string]struct {
		end  func(*Client, *peer)
		want string
	}{
		"hang-up": {func(_ *Client, p *peer) { p.conn.Close() }, "QEMU hung up"},
		"close":   {func(c *Client, _ *peer) { c.Close() }, "closed"},
		"garbage": {func(_ *Client, p *peer) { p.send("no JSON") }, "reading from QEMU"},
		"misread": {func(_ *Client, p *peer) { p.send(`{"error": {"class": "GenericError", "desc": "JSON parse error"}}`) }, "JSON parse error"},
	}
	for name, tc := range ends {
		t.Run(name, func(t *testing.T) {
			c, p := connect(t)
			const n = 5
			errs := make(chan error, n)
			for range n {
				go func() { errs <- c.Execute(testContext(t), "query", nil, nil) }()
			}
			for range n {
				p.receive()
			}
			tc.end(c, p)
			for range n {
				if err := <-errs; !errors.Is(err, ErrClosed) || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("err = %v, want ErrClosed with %q", err, tc.want)
				}
			}
			if _, open := <-c.Events(); open {
				t.Error("the event channel is not closed")
			}
			if err := c.Execute(testContext(t), "query", nil, nil); !errors.Is(err, ErrClosed) {
				t.Errorf("a later call: %v", err)
			}
		})
	}
}

func TestRealQEMU(t *testing.T) {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("qemu-system-x86_64 is not installed")
	}
	socket := t.TempDir() + "/qmp"
	cmd := exec.Command(qemu, "-M", "none", "-nodefaults", "-display", "none", "-S",
		"-chardev", "socket,id=q,server=on,wait=on,path="+socket, "-mon", "chardev=q,mode=control")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	ctx := testContext(t)
	c, err := New(ctx, dialWhenThere(ctx, t, socket))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var status struct{ Status string }
	if err := c.Execute(ctx, "query-status", nil, &status); err != nil || status.Status != "prelaunch" {
		t.Errorf("query-status: %+v, %v", status, err)
	}
	var refused *Error
	if err := c.Execute(ctx, "no-such-command", nil, nil); !errors.As(err, &refused) || refused.Class != "CommandNotFound" {
		t.Errorf("unknown command: %v", err)
	}
	if err := c.Execute(ctx, "quit", nil, nil); err != nil {
		t.Error(err)
	}
	for e := range c.Events() {
		if e.Name != "SHUTDOWN" {
			t.Errorf("event %+v", e)
		}
	}
	if !errors.Is(c.Err(), ErrClosed) {
		t.Errorf("after quit: %v", c.Err())
	}
}

// dialWhenThere polls: QEMU tells nobody when it has bound its socket.
func dialWhenThere(ctx context.Context, t *testing.T, path string) net.Conn {
	t.Helper()
	for {
		if conn, err := net.Dial("unix", path); err == nil {
			return conn
		}
		select {
		case <-ctx.Done():
			t.Fatalf("QEMU did not bind %s", path)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func FuzzClientSurvivesAnyPeer(f *testing.F) {
	f.Add([]byte(greeting + `{"return": {}, "id": 1}{"event": "STOP"}{"return": {}, "id": 2}`))
	f.Add([]byte(`{"QMP": 1}{"QMP": 2}{"id": 1, "error": {}}`))
	f.Add([]byte(`{"error": {"desc": "x"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		ours, theirs := net.Pipe()
		go func() { // what we send is read and forgotten
			buf := make([]byte, 512)
			for {
				if _, err := theirs.Read(buf); err != nil {
					return
				}
			}
		}()
		go func() { theirs.Write(data); theirs.Close() }()
		c, err := New(testContext(t), ours)
		if err != nil {
			return
		}
		if err := c.Execute(testContext(t), "query", nil, nil); errors.Is(err, context.DeadlineExceeded) {
			t.Error("a call hung after the peer had hung up")
		}
		c.Close()
	})
}
