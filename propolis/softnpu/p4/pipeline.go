package p4

import (
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"
)

// Program is a compiled program. It has no state, and any number of pipelines can be made of it.
type Program struct {
	warnings []syntax.Diagnostic

	headers, ingressMeta, egressMeta *typ
	// hdrAt, inAt and egAt are where the headers and the metadata are; they fill the slots from 0 to state.
	hdrAt, inAt, egAt, state int
	// These are the slots of the fields of the metadata that mean something to the switch, or -1.
	inPort, egPort, egFlag, egDrop, egBroadcast int
	// inMask and egMask are the largest ports that their fields hold.
	inMask, egMask uint64

	parse           func(*machine) bool
	ingress, egress stmt
	egressEmpty     bool
	// replicate gives the ports that the Replicate of ingress names, nil without one.
	replicate func(*machine) portSet
	// deparse is nil if the headers are emitted in the order of their struct.
	deparse stmt
	parts   []headerPart
	// parsed are the headers that the parser can make valid by something else than an extract, and made those that any block
	// can.
	parsed, made partSet
	hdrBits      int

	tables      []*tableInfo
	externs     []*externInst
	slots       int
	consts      []constInit
	sums        []int
	keyBytes    int
	scratchBits int
	// errors are the names of the errors of the parser.
	errors []string
}

// Warnings are the findings about the program that do not keep it from being used.
func (p *Program) Warnings() []Diagnostic { return p.warnings }

// Tables describes the tables in the order of the program.
func (p *Program) Tables() []Table {
	out := make([]Table, len(p.tables))
	for i, t := range p.tables {
		out[i] = t.Table
	}
	return out
}

// ErrNoPipeline is a program that declares types only and no SoftNPU pipeline.
var ErrNoPipeline = errors.New("the program has no pipeline: an instance of the package SoftNPU, as in SoftNPU(parse(), ingress(), egress()) main;")

// New makes a pipeline of the program with the entries that the program itself has. Its ports are 0 to ports-1; port 0 is
// by custom that of the CPU. The number matters for packets that go to all ports; the pipeline gives out a packet for
// whatever port the program names.
func (p *Program) New(ports int) (*Pipeline, error) {
	if p.parse == nil {
		return nil, ErrNoPipeline
	}
	if ports < 1 || ports > 1<<16 {
		return nil, fmt.Errorf("a pipeline with %d ports: it can have 1 to %d", ports, 1<<16)
	}
	pl := &Pipeline{program: p, ports: ports, byName: map[string]*tableState{}, externs: make([]externState, len(p.externs))}
	for _, info := range p.tables {
		t, err := newTableState(info)
		if err != nil {
			return nil, err
		}
		pl.tables = append(pl.tables, t)
		pl.byName[info.Name] = t
	}
	for i, x := range p.externs {
		s := &pl.externs[i]
		s.info = x
		switch {
		case x.kind == externRegister && x.args[0].narrow():
			s.cells = make([]atomic.Uint64, x.size)
		case x.kind == externRegister:
			s.wide = make([]uint64, x.size*x.args[0].size)
		case x.kind == externCounter:
			s.counts = make([]counterCell, x.size)
		case x.kind == externMeter:
			s.meters = make([]meterCell, x.size)
		}
	}
	pl.threads.New = func() any { return pl.Thread() }
	return pl, nil
}

// Pipeline is a program with the content of its tables. All methods may be called at once, also while packets are
// processed.
type Pipeline struct {
	program *Program
	ports   int
	tables  []*tableState
	byName  map[string]*tableState
	externs []externState
	packets atomic.Uint64
	drops   [dropReasons]atomic.Uint64
	threads sync.Pool
}

// Thread is what one goroutine needs to run packets. It must not be used by two at once.
type Thread struct {
	pl *Pipeline
	m  machine
}

// Thread returns a new thread.
func (p *Pipeline) Thread() *Thread {
	pr := p.program
	t := &Thread{pl: p, m: machine{
		s:       make([]uint64, pr.slots),
		keys:    make([]byte, pr.keyBytes),
		scratch: make([]byte, pr.scratchBits/8+16),
		hdr:     make([]byte, pr.hdrBits/8+2048),
		tables:  p.tables,
		externs: p.externs,
	}}
	if !pr.egressEmpty {
		t.m.snap = make([]uint64, pr.state)
	}
	for _, k := range pr.consts {
		copy(t.m.s[k.off:], k.limbs)
	}
	return t
}

// Process runs a packet that came in by a port, and calls emit for each one that leaves, which may be none: the reason is
// the result then. The packet is not changed, and what is emitted is good until emit returns.
func (p *Pipeline) Process(ingress uint16, frame []byte, emit func(egress uint16, frame []byte)) DropReason {
	t, ok := p.threads.Get().(*Thread)
	if !ok {
		t = p.Thread()
	}
	r := t.Process(ingress, frame, emit)
	p.threads.Put(t)
	return r
}

// Process is [Pipeline.Process] without the cost of finding a thread.
func (t *Thread) Process(ingress uint16, frame []byte, emit func(egress uint16, frame []byte)) DropReason {
	r := t.process(ingress, frame, emit)
	t.m.pkt = nil
	t.pl.packets.Add(1)
	if r != NotDropped {
		t.pl.drops[r].Add(1)
	}
	return r
}

func (t *Thread) process(ingress uint16, frame []byte, emit func(egress uint16, frame []byte)) DropReason {
	m, p := &t.m, t.pl.program
	clear(m.s[:p.state])
	m.pkt, m.cur, m.advanced, m.states, m.rounds, m.seen = frame, 0, 0, 0, maxRounds, 0
	m.fault, m.parserError, m.exiting, m.entry = NotDropped, errNoError, false, nil
	for _, at := range p.sums {
		m.s[at] = 0
	}
	if p.inPort >= 0 {
		m.s[p.inPort] = uint64(ingress) & p.inMask
	}
	if !p.parse(m) {
		return m.fault
	}
	payload := t.payload()
	if m.trace != nil {
		m.trace.parsed(p, m)
	}
	p.ingress(m)
	if m.fault != NotDropped {
		return m.fault
	}
	dropped := p.egDrop >= 0 && m.s[p.egDrop] != 0
	if p.replicate != nil {
		if ports := p.replicate(m); ports != (portSet{}) {
			if dropped {
				return Dropped
			}
			return t.copies(ports, ingress, payload, emit)
		}
	}
	switch {
	case p.egBroadcast >= 0 && m.s[p.egBroadcast] != 0:
		return t.copies(portSet{all: true}, ingress, payload, emit)
	case dropped:
		return Dropped
	case p.egPort < 0 || m.s[p.egFlag] == 0:
		return NoEgressPort
	case m.s[p.egPort] > 0xffff:
		return BadPort
	}
	port := uint16(m.s[p.egPort])
	if r := t.egress(port); r != NotDropped {
		return r
	}
	emit(port, t.assemble(payload))
	return NotDropped
}

// portSet are ports that a packet leaves by: all, or those whose bits are set.
type portSet struct {
	all  bool
	bits [2]uint64
}

func (s *portSet) has(port int) bool {
	return s.all || port < 64*len(s.bits) && s.bits[port>>6]>>(port&63)&1 != 0
}

// copies sends a packet to several ports, but for the one that it came in by.
func (t *Thread) copies(ports portSet, ingress uint16, payload []byte, emit func(egress uint16, frame []byte)) DropReason {
	if t.pl.program.egressEmpty {
		return t.sameCopies(ports, ingress, payload, emit)
	}
	m, p := &t.m, t.pl.program
	copy(m.snap, m.s[:p.state])
	reason, n := NoEgressPort, 0
	for port := range t.pl.ports {
		if port == int(ingress) || !ports.has(port) {
			continue
		}
		copy(m.s[:p.state], m.snap)
		if r := t.egress(uint16(port)); r != NotDropped {
			reason = r
			continue
		}
		emit(uint16(port), t.assemble(payload))
		n++
	}
	if n == 0 {
		return reason
	}
	return NotDropped
}

// sameCopies is copies where egress does nothing, so that all of them are the same.
func (t *Thread) sameCopies(ports portSet, ingress uint16, payload []byte, emit func(egress uint16, frame []byte)) DropReason {
	if at := t.pl.program.egDrop; at >= 0 && t.m.s[at] != 0 {
		return Dropped
	}
	out := t.assemble(payload)
	n := 0
	for port := range t.pl.ports {
		if port != int(ingress) && ports.has(port) {
			emit(uint16(port), out)
			n++
		}
	}
	if n == 0 {
		return NoEgressPort
	}
	return NotDropped
}

// payload is where the payload of the packet begins: behind what the deparser will put the headers back for. With a
// deparser of the program that is what the parser has read. Without one it is the size of the headers that are valid, as
// x4c has it: a header that was extracted into the metadata only is still in the packet.
func (t *Thread) payload() []byte {
	m, p := &t.m, t.pl.program
	n := m.cur
	if p.deparse == nil {
		n = m.advanced
		seen := m.seen
		for w, set := range p.parsed {
			for set |= seen; set != 0; set &= set - 1 {
				if h := &p.parts[64*w+bits.TrailingZeros64(set)]; m.s[h.at] != 0 {
					n += h.codec.bitLen(m.s, h.at)
				}
			}
			seen = 0
		}
		n &^= 7
	}
	return m.pkt[min((n+7)/8, len(m.pkt)):]
}

// egress runs the egress control for one port.
func (t *Thread) egress(port uint16) DropReason {
	m, p := &t.m, t.pl.program
	m.fault, m.exiting, m.rounds = NotDropped, false, maxRounds
	if m.trace != nil {
		m.trace.egress(port)
	}
	if p.egressEmpty {
		return NotDropped
	}
	if p.egPort >= 0 {
		m.s[p.egPort] = uint64(port) & p.egMask
		m.s[p.egFlag] = 1
	}
	p.egress(m)
	switch {
	case m.fault != NotDropped:
		return m.fault
	case p.egDrop >= 0 && m.s[p.egDrop] != 0:
		return Dropped
	}
	return NotDropped
}

// assemble puts the headers and the payload together.
func (t *Thread) assemble(payload []byte) []byte {
	m, p := &t.m, t.pl.program
	if need := p.hdrBits/8 + 8 + len(payload); need > len(m.hdr) {
		m.hdr = make([]byte, need)
	}
	if p.deparse == nil {
		return t.emitParts(payload)
	}
	m.hdrBits = 0
	p.deparse(m)
	return t.finish(m.hdrBits, payload)
}

// finish puts the payload behind the headers, which have so many bits.
func (t *Thread) finish(end int, payload []byte) []byte {
	m := &t.m
	if rest := end & 7; rest != 0 {
		writeBits(m.hdr, end, 8-rest, 0)
	}
	n := (end + 7) / 8
	if m.trace != nil {
		m.trace.rewritten(t.pl.program, m)
	}
	return m.hdr[:n+copy(m.hdr[n:], payload)]
}

// emitParts puts the headers together in their order, and the payload behind them. Those that no code changes are copied
// from the packet, with those and the payload that stand behind them there as well.
func (t *Thread) emitParts(payload []byte) []byte {
	m, p := &t.m, t.pl.program
	// The bytes of the packet from first to last belong at to, and are yet to be copied.
	end, to, first, last := 0, 0, 0, 0
	seen := m.seen
	for w, set := range p.made {
		for set |= seen; set != 0; set &= set - 1 {
			k := bits.TrailingZeros64(set)
			h := &p.parts[64*w+k]
			if m.s[h.at] == 0 {
				continue
			}
			if !h.written && seen>>k&1 != 0 && (m.from[k]|end|h.codec.bitLen(m.s, h.at))&7 == 0 {
				at, n := m.from[k]>>3, h.codec.bitLen(m.s, h.at)
				if at != last || first == last {
					if first != last {
						copy(m.hdr[to:], m.pkt[first:last])
					}
					to, first = end>>3, at
				}
				last = at + n>>3
				end += n
				continue
			}
			if first != last {
				copy(m.hdr[to:], m.pkt[first:last])
				first, last = 0, 0
			}
			end = h.codec.encode(m.s, h.at, m.hdr, end)
		}
		seen = 0
	}
	if body := len(m.pkt) - len(payload); first != last && last == body && m.trace == nil {
		return m.hdr[:to+copy(m.hdr[to:], m.pkt[first:])]
	}
	if first != last {
		copy(m.hdr[to:], m.pkt[first:last])
	}
	return t.finish(end, payload)
}

// Stats is what became of the packets of a pipeline.
type Stats struct {
	// Packets is how many came in.
	Packets uint64
	// Drops is how many of them did not come out, by reason.
	Drops map[DropReason]uint64
}

// Stats returns what became of the packets so far.
func (p *Pipeline) Stats() Stats {
	s := Stats{Packets: p.packets.Load(), Drops: map[DropReason]uint64{}}
	for r := range p.drops {
		if n := p.drops[r].Load(); n > 0 {
			s.Drops[DropReason(r)] = n
		}
	}
	return s
}
