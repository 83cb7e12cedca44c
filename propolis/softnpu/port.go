package softnpu

import (
	"fmt"
	"sync"
	"sync/atomic"
)

const (
	// batchFrames is how many frames are read or written at a time.
	batchFrames = 32
	// queueFrames is how many frames wait for a port. A port that is read
	// too slowly loses what comes after.
	queueFrames = 2048
	// queueBytes bounds what the waiting frames hold in memory.
	queueBytes = 8 << 20
)

// port is a port of an ASIC.
type port struct {
	number uint16
	wire   Wire
	count  counters
	out    queue
	frames []Frame // of one write
}

func newPort(number int, w Wire) *port {
	return &port{number: uint16(number), wire: w, out: queue{wake: make(chan struct{}, 1)}}
}

// name is how messages call the port.
func (p *port) name() string {
	if p.number == CPUPort {
		return "the CPU port"
	}
	return fmt.Sprintf("port %d", p.number)
}

// Counters are what has passed a port since the ASIC began. Received frames
// are those that came in from the cable.
type Counters struct {
	ReceivedFrames    uint64 `json:"received_frames"`
	ReceivedBytes     uint64 `json:"received_bytes"`
	TransmittedFrames uint64 `json:"transmitted_frames"`
	TransmittedBytes  uint64 `json:"transmitted_bytes"`
	// Dropped are received frames that the program let go nowhere, which is
	// what programs do with what they do not want.
	Dropped uint64 `json:"dropped"`
	// Refused are received frames that went nowhere for another reason: there
	// was no program, or it failed, or the frame made no sense.
	Refused uint64 `json:"refused"`
	// Misdirected are copies of received frames for which the program chose a
	// port that there is not, or that a frame of this one cannot go to.
	Misdirected uint64 `json:"misdirected"`
	// Looped are received frames that the program sent round again too often.
	Looped uint64 `json:"looped"`
	// Lost are frames that were to leave by this port, when nobody was at the
	// far end or too many waited.
	Lost uint64 `json:"lost"`
}

// counters are Counters that are being counted.
type counters struct {
	receivedFrames, receivedBytes, transmittedFrames, transmittedBytes atomic.Uint64
	dropped, refused, misdirected, looped, lost                        atomic.Uint64
}

func (c *counters) read() Counters {
	return Counters{
		ReceivedFrames: c.receivedFrames.Load(), ReceivedBytes: c.receivedBytes.Load(),
		TransmittedFrames: c.transmittedFrames.Load(), TransmittedBytes: c.transmittedBytes.Load(),
		Dropped: c.dropped.Load(), Refused: c.refused.Load(), Misdirected: c.misdirected.Load(),
		Looped: c.looped.Load(), Lost: c.lost.Load(),
	}
}

// buffer holds a frame on its way from one port to another. Two sizes keep the
// many short frames from holding the memory of long ones.
type buffer struct {
	frame Frame
	home  *sync.Pool
}

const shortFrame = 2 << 10

var (
	shortBuffers = newPool(shortFrame)
	longBuffers  = newPool(MaxFrame)
)

func newPool(size int) *sync.Pool {
	p := &sync.Pool{}
	p.New = func() any { return &buffer{Frame{Data: make([]byte, size)}, p} }
	return p
}

// newBuffer returns a buffer with a copy of a frame.
func newBuffer(data []byte, o Offload) *buffer {
	pool := shortBuffers
	if len(data) > shortFrame {
		pool = longBuffers
	}
	b := pool.Get().(*buffer)
	b.frame.Data = b.frame.Data[:len(data)]
	copy(b.frame.Data, data)
	b.frame.Offload = o
	return b
}

func (b *buffer) free() {
	b.frame.Data = b.frame.Data[:cap(b.frame.Data)]
	b.home.Put(b)
}

// queue holds the frames that wait for a port's cable.
type queue struct {
	mu      sync.Mutex
	waiting []*buffer
	bytes   int
	writing bool          // transmit has taken frames, and is not done with them
	wake    chan struct{} // has one element when frames wait
}

// send writes frames at once if the cable takes them, which spares them a wait
// for another goroutine, and lets the others wait for it. They belong to the
// port from now on.
func (p *port) send(frames []*buffer) {
	q := &p.out
	q.mu.Lock()
	if len(q.waiting) == 0 && !q.writing {
		n := p.tryWrite(frames)
		frames = frames[n:]
	}
	waiting := 0
	for _, b := range frames {
		if q.hasNoRoom(cap(b.frame.Data)) {
			break
		}
		q.waiting = append(q.waiting, b)
		q.bytes += cap(b.frame.Data)
		waiting++
	}
	q.mu.Unlock()
	for _, b := range frames[waiting:] {
		p.count.lost.Add(1)
		b.free()
	}
	if waiting == 0 {
		return
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) hasNoRoom(bytes int) bool {
	return len(q.waiting) >= queueFrames || q.bytes+bytes > queueBytes
}

// full reports whether there is room for no long frame.
func (q *queue) full() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.hasNoRoom(MaxFrame)
}

// tryWrite writes frames as long as none must wait, and returns how many.
func (p *port) tryWrite(frames []*buffer) int {
	done := 0
	for done < len(frames) {
		batch := p.batch(frames[done:])
		n := p.wire.TryWrite(batch)
		p.count.transmitted(batch[:n])
		for _, b := range frames[done : done+n] {
			b.free()
		}
		done += n
		if n < len(batch) {
			break
		}
	}
	return done
}

// batch returns the first of some frames as a wire takes them, until the next
// call. Who writes to the wire may call it.
func (p *port) batch(from []*buffer) []Frame {
	p.frames = p.frames[:0]
	for _, b := range from[:min(len(from), batchFrames)] {
		p.frames = append(p.frames, b.frame)
	}
	return p.frames
}

// take swaps the waiting frames for those that were written.
func (q *queue) take(written []*buffer) []*buffer {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.waiting
	q.waiting, q.bytes = written[:0], 0
	q.writing = len(all) > 0
	return all
}

// transmit writes what waits for the port until its wire ends or done does.
func (p *port) transmit(done <-chan struct{}) error {
	var list []*buffer
	for {
		select {
		case <-done:
			return nil
		case <-p.out.wake:
		}
		for list = p.out.take(list); len(list) > 0; list = p.out.take(list) {
			for rest := list; len(rest) > 0; {
				batch := p.batch(rest)
				rest = rest[len(batch):]
				if err := p.write(batch); err != nil {
					return err
				}
			}
			for _, b := range list {
				b.free()
			}
		}
	}
}

func (c *counters) transmitted(frames []Frame) {
	for _, f := range frames {
		c.transmittedBytes.Add(uint64(len(f.Data)))
	}
	c.transmittedFrames.Add(uint64(len(frames)))
}

func (p *port) write(batch []Frame) error {
	n, err := p.wire.Write(batch)
	p.count.transmitted(batch[:n])
	p.count.lost.Add(uint64(len(batch) - n))
	if err != nil {
		return fmt.Errorf("%s: send frames: %w", p.name(), err)
	}
	return nil
}
