package softnpu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4"
	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/match"
)

// testPatience is how long a test waits for what takes microseconds.
const testPatience = 10 * time.Second

// memoryWire is a wire to a test.
type memoryWire struct {
	in, out  chan Frame
	closed   chan struct{}
	close    sync.Once
	offloads bool
}

func newMemoryWire() *memoryWire {
	return &memoryWire{in: make(chan Frame, 4096), out: make(chan Frame, 4096), closed: make(chan struct{})}
}

func (w *memoryWire) Read(frames []Frame) (int, error) {
	take := func(i int, f Frame) {
		frames[i].Data = frames[i].Data[:copy(frames[i].Data, f.Data)]
		frames[i].Offload = f.Offload
	}
	select {
	case <-w.closed:
		return 0, net.ErrClosed
	case f := <-w.in:
		take(0, f)
	}
	for n := 1; n < len(frames); n++ {
		select {
		case f := <-w.in:
			take(n, f)
		default:
			return n, nil
		}
	}
	return len(frames), nil
}

func (w *memoryWire) Write(frames []Frame) (int, error) {
	for i, f := range frames {
		f.Data = append([]byte(nil), f.Data...)
		select {
		case w.out <- f:
		case <-w.closed:
			return i, net.ErrClosed
		default:
			return i, nil
		}
	}
	return len(frames), nil
}

func (w *memoryWire) TryWrite(frames []Frame) int {
	n, _ := w.Write(frames)
	return n
}

func (w *memoryWire) Offloads() bool { return w.offloads }

func (w *memoryWire) Close() error {
	w.close.Do(func() { close(w.closed) })
	return nil
}

// next returns the next frame that leaves by the wire.
func (w *memoryWire) next(t testing.TB) Frame {
	t.Helper()
	select {
	case f := <-w.out:
		return f
	case <-time.After(testPatience):
		t.Fatalf("no frame left the port in %v", testPatience)
		return Frame{}
	}
}

// scripted is a pipeline that a test writes in Go, with tables that are real.
type scripted struct {
	tables  []p4.Table
	content map[string]*match.Table[p4.Entry]
	process func(ingress uint16, frame []byte, emit func(uint16, []byte))
}

func (s *scripted) Process(ingress uint16, frame []byte, emit func(uint16, []byte)) p4.DropReason {
	s.process(ingress, frame, emit)
	return p4.NotDropped
}

func (s *scripted) NewThread() Thread  { return s }
func (s *scripted) Tables() []p4.Table { return s.tables }

var errTestTable = errors.New("no such table")

func (s *scripted) Add(table string, e p4.Entry) error {
	t := s.content[table]
	if t == nil {
		return errTestTable
	}
	return t.Add(match.Entry[p4.Entry]{Match: e.Match, Priority: e.Priority, Value: e})
}

func (s *scripted) Remove(table string, m []match.Match, priority int) error {
	t := s.content[table]
	if t == nil {
		return errTestTable
	}
	_, err := t.Remove(m, priority)
	return err
}

func (s *scripted) Entries(table string) ([]p4.Entry, error) {
	t := s.content[table]
	if t == nil {
		return nil, errTestTable
	}
	var all []p4.Entry
	for _, e := range t.Entries() {
		all = append(all, p4.Entry{Match: e.Match, Priority: e.Priority, Action: e.Value.Action, Args: e.Value.Args})
	}
	return all, nil
}

// sidecarTables are tables of the default program: one of each kind of key.
func sidecarTables() []p4.Table {
	key := func(name string, kind match.Kind, bits int) p4.Key { return p4.Key{Name: name, Kind: kind, Bits: bits} }
	param := func(name string, bits int) p4.Param { return p4.Param{Name: name, Bits: bits} }
	action := func(name string, params ...p4.Param) p4.Action { return p4.Action{Name: name, Params: params} }
	table := func(name string, keys []p4.Key, actions ...p4.Action) p4.Table {
		return p4.Table{Name: name, Keys: keys, Actions: actions}
	}
	port, nexthop := param("port", 16), param("nexthop", 32)
	return []p4.Table{
		table("ingress.local.local_v4", []p4.Key{key("dst", match.Exact, 32)}, action("local"), action("nonlocal")),
		table("ingress.router.v4_idx.rtr", []p4.Key{key("dst", match.LPM, 32)},
			action("index", param("idx", 16), param("slots", 8)), action("drop")),
		table("ingress.router.v4_route.rtr", []p4.Key{key("path_idx", match.Exact, 16)},
			action("forward", port, nexthop), action("forward_vlan", port, nexthop, param("vlan_id", 12))),
		table("ingress.nat.nat_v4", []p4.Key{key("dst", match.Exact, 32), key("nat_id", match.Range, 16)},
			action("forward_to_sled", param("target", 128), param("vni", 24), param("mac", 48))),
		table("ingress.acl.acl", []p4.Key{key("vlan", match.Ternary, 12)}, action("deny")),
	}
}

func newScripted(t testing.TB, process func(uint16, []byte, func(uint16, []byte))) *scripted {
	t.Helper()
	s := &scripted{tables: sidecarTables(), content: map[string]*match.Table[p4.Entry]{}, process: process}
	for _, table := range s.tables {
		var fields []match.Field
		for _, k := range table.Keys {
			fields = append(fields, match.Field{Kind: k.Kind, Bits: k.Bits})
		}
		content, err := match.New[p4.Entry](fields...)
		if err != nil {
			t.Fatal(err)
		}
		s.content[table.Name] = content
	}
	return s
}

// testASIC is an ASIC that forwards until the test ends.
type testASIC struct {
	*ASIC
	cpu   *memoryWire
	ports []*memoryWire // port 1 is the first
	log   *logLines
}

// newASIC returns an ASIC without a program.
func newASIC(t testing.TB, radix int, compile func(Source, int) (Pipeline, error)) *testASIC {
	t.Helper()
	a := &testASIC{cpu: newMemoryWire(), log: &logLines{}}
	c := Config{CPU: a.cpu, Program: &Source{}, Compile: compile, Log: newTestLog(a.log)}
	for range radix {
		w := newMemoryWire()
		a.ports = append(a.ports, w)
		c.Ports = append(c.Ports, w)
	}
	var err error
	if a.ASIC, err = New(c); err != nil {
		t.Fatal(err)
	}
	return a
}

// serve runs the ASIC until the test ends.
func (a *testASIC) serve(t testing.TB) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

func newTestLog(to *logLines) *slog.Logger { return slog.New(slog.NewTextHandler(to, nil)) }

// hub sends a frame to all ports from 1 to radix but its own.
func hub(radix int) func(uint16, []byte, func(uint16, []byte)) {
	return func(ingress uint16, frame []byte, emit func(uint16, []byte)) {
		for p := uint16(1); int(p) <= radix; p++ {
			if p != ingress {
				emit(p, frame)
			}
		}
	}
}

// logLines is a log.
type logLines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logLines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

// eventually waits until what a counter says comes true.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(testPatience)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v: %s", testPatience, what)
		}
		time.Sleep(time.Millisecond) // counters tell nobody that they change
	}
}

func ethernet(number int) []byte {
	return []byte(fmt.Sprintf("dstdstsrcsrc\x88\xb5%08d", number))
}
