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
	wake    chan struct{} // has one element when frames wait
}

// put appends frames and returns how many had no room.
func (q *queue) put(frames []*buffer) (lost int) {
	q.mu.Lock()
	for i, b := range frames {
		if len(q.waiting) >= queueFrames || q.bytes+cap(b.frame.Data) > queueBytes {
			lost = len(frames) - i
			break
		}
		q.waiting = append(q.waiting, b)
		q.bytes += cap(b.frame.Data)
	}
	q.mu.Unlock()
	for _, b := range frames[len(frames)-lost:] {
		b.free()
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return lost
}

// take swaps the waiting frames for an empty list.
func (q *queue) take(empty []*buffer) []*buffer {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.waiting
	q.waiting, q.bytes = empty[:0], 0
	return all
}

// transmit writes what waits for the port until its wire ends or done does.
func (p *port) transmit(done <-chan struct{}) error {
	var list []*buffer
	batch := make([]Frame, 0, batchFrames)
	for {
		select {
		case <-done:
			return nil
		case <-p.out.wake:
		}
		list = p.out.take(list)
		for rest := list; len(rest) > 0; rest = rest[len(batch):] {
			batch = batch[:0]
			for _, b := range rest[:min(len(rest), batchFrames)] {
				batch = append(batch, b.frame)
			}
			if err := p.write(batch); err != nil {
				return err
			}
		}
		for _, b := range list {
			b.free()
		}
	}
}

func (p *port) write(batch []Frame) error {
	n, err := p.wire.Write(batch)
	for _, f := range batch[:n] {
		p.count.transmittedBytes.Add(uint64(len(f.Data)))
	}
	p.count.transmittedFrames.Add(uint64(n))
	p.count.lost.Add(uint64(len(batch) - n))
	if err != nil {
		return fmt.Errorf("%s: send frames: %w", p.name(), err)
	}
	return nil
}
