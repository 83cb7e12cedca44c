// Package softnpu is the switch ASIC of a node: ports on cables, a port for
// the node's CPU, a pipeline that decides what becomes of each frame, and a
// management channel by which a guest sets its tables.
//
// To a guest it is as the SoftNPU of Propolis on illumos is: the same messages
// on the same serial port, the same bytes for keys and parameters, the same
// numbers of ports. The front ports are 1, 2 and so on in the order in which
// they were given, and the CPU's is 0. What SoftNPU does not do is added
// beside it: a request that wants an answer, and the load of a program.
//
// A guest's NIC leaves checksums to be written and long frames to be cut. The
// first is done as a frame comes in. A long frame goes through the program as it
// is, and on as it is if the program has but routed it, or cut if the port that
// it leaves by cannot take it: so two guests are as fast as on a cable. Otherwise
// it is cut first, and its segments go through the program one by one; what the
// program counts itself has the long frame then too.
//
// Frames of one port are run by one goroutine, which also writes them to the ports
// that take them at once. For each port another goroutine writes those that have to
// wait, so that no port waits for one that is not read. Whatever a guest
// does wrong, on the cable or on the channel, costs it that frame or that
// request, is counted or logged, and changes nothing for the others.
package softnpu

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
)

// Numbers of ports.
const (
	// CPUPort is the port of the node's own guest.
	CPUPort = 0
	// RecirculationPort sends a frame through the pipeline again, as if it
	// had come in by the same port once more.
	RecirculationPort = 1001
	// MaxPorts is the largest number of front ports, which leaves out the
	// numbers that mean something else.
	MaxPorts = 512
)

// maxPasses is how often one frame that came in may go through the pipeline,
// all its copies together.
const maxPasses = 16

// maxCopies bounds the frames that one frame that came in becomes: one for
// each port in each of its passes.
const maxCopies = maxPasses * (MaxPorts + 1)

// Config is what an ASIC is made of.
type Config struct {
	// Ports are the wires of the front ports: the first is that of port 1.
	Ports []Wire
	// CPU is the wire to the node's own guest, or nil.
	CPU Wire
	// Program is what the ASIC runs until another is loaded: that of [BuiltIn]
	// if it is nil, and none, so that all frames are dropped, if it is empty.
	Program *Source
	// Compile makes a pipeline of a program for a number of front ports. If
	// it is nil it is [Compile].
	Compile func(source Source, radix int) (Pipeline, error)
	// Log gets what goes wrong. It must not be nil.
	Log *slog.Logger
}

// ASIC forwards frames between its ports.
type ASIC struct {
	config Config
	ports  []*port // by number; that of the CPU may be nil
	log    *limitedLog

	program atomic.Pointer[program]
}

// program is a pipeline that was loaded. Goroutines know by its address
// whether theirs is still the one.
type program struct {
	pipeline Pipeline
	tables   []Table
	byName   map[string]*Table
	added    atomic.Int64 // entries that came by the channel and are there
}

// New returns an ASIC, which owns its wires from now on.
func New(c Config) (*ASIC, error) {
	if len(c.Ports) > MaxPorts {
		return nil, fmt.Errorf("an ASIC with %d ports: it can have %d", len(c.Ports), MaxPorts)
	}
	if c.Compile == nil {
		c.Compile = Compile
	}
	a := &ASIC{config: c, log: &limitedLog{to: c.Log}}
	for i, w := range append([]Wire{c.CPU}, c.Ports...) {
		if w == nil {
			if i != CPUPort {
				return nil, fmt.Errorf("port %d has no wire", i)
			}
			a.ports = append(a.ports, nil)
			continue
		}
		a.ports = append(a.ports, newPort(i, w))
	}
	first := BuiltIn()
	if c.Program != nil {
		first = *c.Program
	}
	if first.Main != "" {
		if err := a.LoadSource(first); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// Radix returns the number of front ports.
func (a *ASIC) Radix() int { return len(a.config.Ports) }

// Counters returns what has passed each port, by number; of a CPU port that is
// not there, zeros.
func (a *ASIC) Counters() []Counters {
	all := make([]Counters, len(a.ports))
	for i, p := range a.ports {
		if p != nil {
			all[i] = p.count.read()
		}
	}
	return all
}

// Load has the ASIC run another pipeline. Frames that are in the running one
// leave it as they would have.
func (a *ASIC) Load(p Pipeline) {
	loaded := &program{pipeline: p, tables: Describe(p.Tables()), byName: map[string]*Table{}}
	for i := range loaded.tables {
		loaded.byName[loaded.tables[i].Name] = &loaded.tables[i]
	}
	a.program.Store(loaded)
}

// LoadSource compiles a program and has the ASIC run it. If that fails the
// running one stays.
func (a *ASIC) LoadSource(s Source) error {
	p, err := a.config.Compile(s, a.Radix())
	if err != nil {
		return err
	}
	a.Load(p)
	return nil
}

// Pipeline returns what the ASIC runs, nil if no program was loaded.
func (a *ASIC) Pipeline() Pipeline {
	if p := a.program.Load(); p != nil {
		return p.pipeline
	}
	return nil
}

// Serve forwards frames until the context ends or a wire does, and then closes
// all wires. The error is that of the wires, or nil.
func (a *ASIC) Serve(ctx context.Context) error {
	var ports []*port
	for _, p := range a.ports {
		if p != nil {
			ports = append(ports, p)
		}
	}
	return serveWires(ctx, ports, func(p *port) error { return (&runner{asic: a, port: p}).run() })
}

// runner runs the frames of one port.
type runner struct {
	asic *ASIC
	port *port

	program *program
	thread  Thread
	emit    func(egress uint16, frame []byte)

	frame  *Frame // that came in
	passes int    // of that frame through the pipeline
	copies int    // that all passes made of it
	left   bool   // one of them left by a port
	whole  bool   // it has segments, and all copies so far can have them too
	again  []*buffer
	staged [][]*buffer // by port

	segment []byte // room for one
}

// run reads frames and runs them until the wire ends.
func (r *runner) run() error {
	r.emit = r.emitted
	r.staged = make([][]*buffer, len(r.asic.ports))
	err := readFrames(r.port.wire, r.receive, r.flush)
	return fmt.Errorf("%s: receive frames: %w", r.port.name(), err)
}

// receive runs one frame that came in.
func (r *runner) receive(f *Frame) {
	count := &r.port.count
	count.receivedFrames.Add(1)
	count.receivedBytes.Add(uint64(len(f.Data)))
	if !r.renew() {
		count.refused.Add(1)
		return
	}
	if err := f.complete(); err != nil {
		r.refuse(err)
		return
	}
	if f.Offload.Segments == SegmentNone {
		r.forward(f)
		return
	}
	before := make([]int, 0, 8)
	for _, s := range r.staged {
		before = append(before, len(s))
	}
	if r.whole = true; r.forward(f) {
		return
	}
	// Something became of it that its segments must go through one by one.
	for i, s := range r.staged {
		for _, b := range s[before[i]:] {
			b.free()
		}
		r.staged[i] = s[:before[i]]
	}
	segment := Frame{}
	if err := f.cut(r.room(), func(s []byte) {
		segment.Data = s
		r.forward(&segment)
	}); err != nil {
		r.refuse(err)
	}
	r.flush() // a batch of long frames is more than a port holds
}

// room returns where segments are made, one at a time.
func (r *runner) room() []byte {
	if r.segment == nil {
		r.segment = make([]byte, MaxFrame)
	}
	return r.segment
}

// renew makes a thread of the program that is to run. It is false without one.
func (r *runner) renew() bool {
	p := r.asic.program.Load()
	if p == nil {
		return false
	}
	if p != r.program {
		r.program, r.thread = p, p.pipeline.NewThread()
	}
	return true
}

func (r *runner) refuse(err error) {
	r.port.count.refused.Add(1)
	r.asic.log.warn("A frame was refused", "port", r.port.number, "error", err)
}

// forward runs a frame and, where the program wants that, its copies again. It
// is false if the frame has segments that are to be cut first; nothing is
// counted then.
func (r *runner) forward(f *Frame) bool {
	r.frame, r.passes, r.copies, r.left = f, 0, 0, false
	count := &r.port.count
	looped := false
	err := r.process(f.Data)
	for err == nil && len(r.again) > 0 {
		b := r.again[len(r.again)-1]
		r.again = r.again[:len(r.again)-1]
		if r.passes < maxPasses {
			err = r.process(b.frame.Data)
		} else {
			looped = true
		}
		b.free()
	}
	for _, b := range r.again {
		b.free()
	}
	r.again = r.again[:0]
	switch {
	case err != nil:
		r.refuse(err)
	case f.Offload.Segments != SegmentNone && !r.whole:
		return false
	case looped:
		count.looped.Add(1)
		r.asic.log.warn("The program sends a frame round again and again", "port", r.port.number, "passes", maxPasses)
	case !r.left:
		count.dropped.Add(1)
	}
	return true
}

// process runs a frame through the pipeline once. A program that fails loses
// the frame and not the ASIC.
func (r *runner) process(frame []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the program failed: %v", p)
			r.thread = r.program.pipeline.NewThread()
		}
	}()
	r.passes++
	r.thread.Process(r.port.number, frame, r.emit)
	return nil
}

// emitted takes a copy of a frame that leaves the pipeline.
func (r *runner) emitted(egress uint16, frame []byte) {
	r.copies++
	if r.copies > maxCopies || len(frame) > MaxFrame {
		r.port.count.misdirected.Add(1)
		return
	}
	if egress == RecirculationPort {
		r.again = append(r.again, newBuffer(frame, Offload{}))
		return
	}
	r.left = true
	to := r.target(egress)
	if to == nil {
		r.port.count.misdirected.Add(1)
		return
	}
	out := Frame{Data: frame}
	if r.frame.Offload.Segments != SegmentNone {
		if r.whole = r.whole && r.frame.survives(frame); !r.whole {
			return
		}
		out.Offload = r.frame.Offload
	}
	if out.Offload.Segments == SegmentNone || to.wire.Offloads() {
		r.staged[egress] = append(r.staged[egress], newBuffer(frame, out.Offload))
		return
	}
	if to.out.full() {
		to.count.lost.Add(1)
		return
	}
	r.whole = nil == out.cut(r.room(), func(segment []byte) {
		r.staged[egress] = append(r.staged[egress], newBuffer(segment, Offload{}))
	})
}

// target returns the port that a frame of this one may leave by, nil if there
// is none: no frame of the CPU goes back to it.
func (r *runner) target(egress uint16) *port {
	if int(egress) >= len(r.asic.ports) || egress == CPUPort && r.port.number == CPUPort {
		return nil
	}
	return r.asic.ports[egress]
}

// flush hands the frames of a batch to their ports.
func (r *runner) flush() {
	for i, frames := range r.staged {
		if len(frames) == 0 {
			continue
		}
		r.asic.ports[i].send(frames)
		r.staged[i] = frames[:0]
	}
}
