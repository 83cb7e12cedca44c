package softnpu

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestFramesOfAPortArriveUnchangedAndInOrder(t *testing.T) {
	a := newASIC(t, 3, nil)
	a.Load(newScripted(t, hub(3)))
	a.serve(t)
	const n = 300
	for i := range n {
		a.ports[1].in <- Frame{Data: ethernet(i)}
	}
	for _, to := range []int{0, 2} {
		for i := range n {
			if f := a.ports[to].next(t); !bytes.Equal(f.Data, ethernet(i)) {
				t.Fatalf("port %d: frame %d is %q", to+1, i, f.Data)
			}
		}
	}
	c := a.Counters()
	size := uint64(len(ethernet(0)))
	if c[2].ReceivedFrames != n || c[2].ReceivedBytes != n*size || c[2].TransmittedFrames != 0 ||
		c[2].Dropped+c[2].Refused+c[2].Misdirected+c[2].Looped != 0 {
		t.Errorf("counters of port 2: %+v", c[2])
	}
	eventually(t, "what left was not counted", func() bool {
		c := a.Counters()
		return c[1].TransmittedFrames == n && c[3].TransmittedBytes == n*size
	})
}

// Twelve ports: the tenth is not the second.
// What goes at once does not overtake what waits.
func TestFramesKeepTheirOrderOnACableThatIsFullNowAndThen(t *testing.T) {
	full := &fullWire{memoryWire: newMemoryWire()}
	a := &testASIC{ports: []*memoryWire{newMemoryWire(), full.memoryWire}, log: &logLines{}}
	var err error
	if a.ASIC, err = New(Config{Ports: []Wire{a.ports[0], full}, Program: &Source{}, Log: newTestLog(a.log)}); err != nil {
		t.Fatal(err)
	}
	a.Load(newScripted(t, hub(2)))
	a.serve(t)
	for i := range 3000 {
		a.ports[0].in <- Frame{Data: ethernet(i)}
		if i%100 < 99 {
			continue
		}
		for j := i - 99; j <= i; j++ {
			if f := a.ports[1].next(t); !bytes.Equal(f.Data, ethernet(j)) {
				t.Fatalf("frame %d is %q", j, f.Data)
			}
		}
	}
	eventually(t, "what left was not counted", func() bool { return a.Counters()[2].TransmittedFrames == 3000 })
	if !full.waited.Load() {
		t.Error("no frame has waited")
	}
}

// fullWire is a wire that takes one frame at once, then none, then two.
type fullWire struct {
	*memoryWire
	tries  int
	waited atomic.Bool
}

func (w *fullWire) TryWrite(frames []Frame) int {
	w.tries++
	return w.memoryWire.TryWrite(frames[:min(len(frames), []int{1, 0, 2}[w.tries%3])])
}

func (w *fullWire) Write(frames []Frame) (int, error) {
	w.waited.Store(true)
	time.Sleep(200 * time.Microsecond) // in which others come
	return w.memoryWire.Write(frames)
}

func TestPortsAreNumberedAsTheyWereGiven(t *testing.T) {
	a := newASIC(t, 12, nil)
	a.Load(newScripted(t, func(ingress uint16, frame []byte, emit func(uint16, []byte)) {
		emit(ingress%12+1, append(frame[:len(frame):len(frame)], byte(ingress)))
	}))
	a.serve(t)
	for i := range a.ports {
		a.ports[i].in <- Frame{Data: ethernet(i)}
		f := a.ports[(i+1)%12].next(t)
		if ingress := f.Data[len(f.Data)-1]; int(ingress) != i+1 {
			t.Errorf("wire %d came in by port %d", i, ingress)
		}
	}
}

func TestFramesOfTheCPU(t *testing.T) {
	a := newASIC(t, 2, nil)
	// From the CPU the first byte is the port to leave by; all else is for
	// the CPU.
	a.Load(newScripted(t, func(ingress uint16, frame []byte, emit func(uint16, []byte)) {
		if ingress == CPUPort {
			emit(uint16(frame[0])<<8|uint16(frame[1]), frame)
			return
		}
		emit(CPUPort, frame)
	}))
	a.serve(t)
	a.ports[1].in <- Frame{Data: ethernet(1)}
	if f := a.cpu.next(t); !bytes.Equal(f.Data, ethernet(1)) {
		t.Errorf("the CPU got %q", f.Data)
	}
	// Back to itself, to the auxiliary CPU port, to ports that there are not.
	for _, to := range [][2]byte{{0, 0}, {1000 >> 8, 1000 & 0xff}, {0, 3}, {0xff, 0xff}} {
		a.cpu.in <- Frame{Data: to[:]}
	}
	a.cpu.in <- Frame{Data: []byte{0, 2, 7}}
	if f := a.ports[1].next(t); !bytes.Equal(f.Data, []byte{0, 2, 7}) {
		t.Errorf("port 2 sent %q", f.Data)
	}
	if c := a.Counters()[CPUPort]; c.Misdirected != 4 || c.ReceivedFrames != 5 || len(a.cpu.out) != 0 {
		t.Errorf("counters of the CPU port: %+v, and it got %d frames of its own", c, len(a.cpu.out))
	}
}

func TestWithoutAProgramFramesAreRefused(t *testing.T) {
	a := newASIC(t, 2, nil)
	a.serve(t)
	a.ports[0].in <- Frame{Data: ethernet(1)}
	eventually(t, "the frame was not counted", func() bool { return a.Counters()[1].Refused == 1 })
	a.Load(newScripted(t, hub(2)))
	a.ports[0].in <- Frame{Data: ethernet(2)}
	if f := a.ports[1].next(t); !bytes.Equal(f.Data, ethernet(2)) {
		t.Errorf("got %q", f.Data)
	}
}

// A frame that goes round is stopped, and so is one that becomes two each time.
func TestAFrameThatGoesRoundForeverIsLost(t *testing.T) {
	a := newASIC(t, 2, nil)
	passes := 0
	a.Load(newScripted(t, func(ingress uint16, frame []byte, emit func(uint16, []byte)) {
		passes++
		switch frame[len(frame)-1] {
		case '1':
			emit(RecirculationPort, frame)
		case '2':
			emit(RecirculationPort, frame)
			emit(RecirculationPort, frame)
		default:
			emit(2, frame)
		}
	}))
	a.serve(t)
	a.ports[0].in <- Frame{Data: ethernet(1)}
	a.ports[0].in <- Frame{Data: ethernet(2)}
	a.ports[0].in <- Frame{Data: ethernet(3)}
	if f := a.ports[1].next(t); !bytes.Equal(f.Data, ethernet(3)) {
		t.Errorf("got %q", f.Data)
	}
	if c := a.Counters()[1]; c.Looped != 2 || c.Dropped != 0 || passes != 2*maxPasses+1 {
		t.Errorf("%d passes, counters %+v", passes, c)
	}
	if n := a.log.count("round again"); n != 1 {
		t.Errorf("%d lines in the log: want 1", n)
	}
}

func TestAFrameCanGoRoundAndLeave(t *testing.T) {
	a := newASIC(t, 2, nil)
	a.Load(newScripted(t, func(ingress uint16, frame []byte, emit func(uint16, []byte)) {
		if len(frame) < 30 {
			emit(RecirculationPort, append(frame[:len(frame):len(frame)], '+'))
			return
		}
		emit(2, frame)
	}))
	a.serve(t)
	a.ports[0].in <- Frame{Data: ethernet(0)}
	want := append(ethernet(0), "++++++++"...)
	if f := a.ports[1].next(t); !bytes.Equal(f.Data, want) {
		t.Errorf("got %q, want %q", f.Data, want)
	}
	if c := a.Counters()[1]; c.Looped+c.Dropped+c.Refused != 0 {
		t.Errorf("counters %+v", c)
	}
}

// A guest that reads nothing costs its own frames, and nobody else's.
func TestAPortThatIsNotReadHoldsUpNoOther(t *testing.T) {
	stuck := &stuckWire{newMemoryWire()}
	log := &logLines{}
	a := &testASIC{ports: []*memoryWire{newMemoryWire(), newMemoryWire()}, log: log}
	var err error
	if a.ASIC, err = New(Config{CPU: stuck, Ports: []Wire{a.ports[0], a.ports[1]}, Log: newTestLog(log)}); err != nil {
		t.Fatal(err)
	}
	a.Load(newScripted(t, func(ingress uint16, frame []byte, emit func(uint16, []byte)) {
		emit(CPUPort, frame)
		emit(2, frame)
	}))
	a.serve(t)
	// The CPU port takes two queues full: one that it is about to write.
	const n, together = 2*queueFrames + 512, 256
	for i := range n {
		a.ports[0].in <- Frame{Data: ethernet(i)}
		if (i+1)%together > 0 {
			continue
		}
		for j := i + 1 - together; j <= i; j++ {
			if f := a.ports[1].next(t); !bytes.Equal(f.Data, ethernet(j)) {
				t.Fatalf("frame %d is %q", j, f.Data)
			}
		}
	}
	eventually(t, "the CPU port lost too little", func() bool { return a.Counters()[CPUPort].Lost >= 512 })
}

// stuckWire is a wire whose Write never ends but by Close.
type stuckWire struct{ *memoryWire }

func (w *stuckWire) TryWrite([]Frame) int { return 0 }

func (w *stuckWire) Write([]Frame) (int, error) {
	<-w.closed
	return 0, errors.New("closed")
}

func TestAProgramThatFailsLosesTheFrameOnly(t *testing.T) {
	a := newASIC(t, 2, nil)
	a.Load(newScripted(t, func(ingress uint16, frame []byte, emit func(uint16, []byte)) {
		if len(frame) < 14 {
			_ = frame[14]
		}
		emit(2, frame)
	}))
	a.serve(t)
	a.ports[0].in <- Frame{Data: []byte("short")}
	a.ports[0].in <- Frame{Data: ethernet(1)}
	if f := a.ports[1].next(t); !bytes.Equal(f.Data, ethernet(1)) {
		t.Errorf("got %q", f.Data)
	}
	if c := a.Counters()[1]; c.Refused != 1 || a.log.count("the program failed") != 1 {
		t.Errorf("counters %+v", c)
	}
}

// Programs come and go while frames flow, and none is lost.
func TestALoadLosesNoFrame(t *testing.T) {
	a := newASIC(t, 2, nil)
	programs := []Pipeline{newScripted(t, hub(2)), newScripted(t, hub(2))}
	a.Load(programs[0])
	a.serve(t)
	const n = 3000
	// No more are on their way than a queue holds.
	room := make(chan struct{}, queueFrames/2)
	go func() {
		for i := range n {
			room <- struct{}{}
			if i%10 == 0 {
				a.Load(programs[i/10%2])
			}
			a.ports[0].in <- Frame{Data: ethernet(i)}
			a.ports[1].in <- Frame{Data: ethernet(i)}
		}
	}()
	for i := range n {
		for _, p := range a.ports {
			if f := p.next(t); !bytes.Equal(f.Data, ethernet(i)) {
				t.Fatalf("frame %d is %q", i, f.Data)
			}
		}
		<-room
	}
}

func TestServeEndsWithAWireAndNamesItsPort(t *testing.T) {
	a := newASIC(t, 2, nil)
	done := make(chan error, 1)
	go func() { done <- a.Serve(context.Background()) }()
	if err := a.ports[1].Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "port 2: receive frames:") {
		t.Errorf("Serve: %v", err)
	}
}

func TestBadConfigsAreRefused(t *testing.T) {
	if _, err := New(Config{Ports: make([]Wire, MaxPorts+1), Log: newTestLog(&logLines{})}); err == nil || !strings.Contains(err.Error(), "513 ports") {
		t.Errorf("too many ports: %v", err)
	}
	if _, err := New(Config{Ports: []Wire{newMemoryWire(), nil}, Log: newTestLog(&logLines{})}); err == nil || !strings.Contains(err.Error(), "port 2 has no wire") {
		t.Errorf("a port without a wire: %v", err)
	}
	a, err := New(Config{Ports: []Wire{newMemoryWire()}, Program: &Source{}, Log: newTestLog(&logLines{})})
	if err != nil || a.Radix() != 1 || len(a.Counters()) != 2 || a.Pipeline() != nil {
		t.Errorf("without a CPU: %v, %v", a, err)
	}
}

// The way of a frame from wire to wire without what the kernel takes.
func BenchmarkForward(b *testing.B) {
	a := newASIC(b, 2, nil)
	a.Load(newScripted(b, hub(2)))
	benchmarkForward(b, a, make([]byte, 64))
}

func benchmarkForward(b *testing.B, a *testASIC, frame []byte) {
	r := &runner{asic: a.ASIC, port: a.ASIC.ports[1]}
	r.emit, r.staged = r.emitted, make([][]*buffer, 3)
	f := Frame{Data: frame}
	b.ReportAllocs()
	var list []*buffer
	for i := 0; b.Loop(); i++ {
		r.receive(&f)
		if i%batchFrames == 0 {
			r.flush()
			list = a.ASIC.ports[2].out.take(list)
			for _, buf := range list {
				buf.free()
			}
		}
	}
}
