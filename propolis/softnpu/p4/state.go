package p4

import (
	"errors"
	"fmt"
)

// ArrayKind is what the cells of an array hold.
type ArrayKind string

// Kinds of arrays.
const (
	RegisterArray ArrayKind = "register"
	CounterArray  ArrayKind = "counter"
	MeterArray    ArrayKind = "meter"
)

// Array describes a register, a counter or a meter of a program.
type Array struct {
	// Name is the path of the names of instances that leads to it, as in "ingress.seen".
	Name string
	Kind ArrayKind
	// Size is how many cells it has.
	Size int
	// Fields are those of a cell of a register: one without a name, or those of a struct.
	Fields []Param
}

// Cell is a cell of an array. What counts follows from the array's kind.
type Cell struct {
	// Fields are the values of a cell of a register, each big-endian in whole bytes.
	Fields [][]byte
	Count  Count
	Meter  MeterConfig
}

var arrayKinds = map[externKind]ArrayKind{externRegister: RegisterArray, externCounter: CounterArray, externMeter: MeterArray}

// ErrNoArray is a register, counter or meter that the program does not have.
var ErrNoArray = errors.New("there is no such register, counter or meter")

// Arrays describes the registers, counters and meters in the order of the program.
func (p *Pipeline) Arrays() []Array {
	var out []Array
	for i := range p.externs {
		x := p.externs[i].info
		kind, ok := arrayKinds[x.kind]
		if !ok {
			continue
		}
		a := Array{Name: x.name, Kind: kind, Size: x.size}
		for _, d := range x.data {
			a.Fields = append(a.Fields, Param{Name: d.name, Bits: d.bits})
		}
		out = append(out, a)
	}
	return out
}

// array finds an array and sees to it that it has a cell.
func (p *Pipeline) array(name string, cell int) (*externState, error) {
	for i := range p.externs {
		if x := p.externs[i].info; x.name == name && arrayKinds[x.kind] != "" {
			return p.extern(x.kind, string(arrayKinds[x.kind]), name, cell)
		}
	}
	return nil, fmt.Errorf("%q: %w", name, ErrNoArray)
}

// Cell returns a cell of a register, counter or meter.
func (p *Pipeline) Cell(name string, cell int) (Cell, error) {
	s, err := p.array(name, cell)
	if err != nil {
		return Cell{}, err
	}
	switch s.info.kind {
	case externCounter:
		n, err := p.Counter(name, cell)
		return Cell{Count: n}, err
	case externMeter:
		m := &s.meters[cell]
		m.mu.Lock()
		defer m.mu.Unlock()
		return Cell{Meter: m.config}, nil
	}
	var c Cell
	s.mu.Lock()
	defer s.mu.Unlock()
	slots := s.cell(cell)
	for _, d := range s.info.data {
		v := make([]byte, (d.bits+7)/8)
		storeWide(v, len(v), slots[d.off:])
		c.Fields = append(c.Fields, v)
	}
	return c, nil
}

// SetCell sets a cell of a register, counter or meter.
func (p *Pipeline) SetCell(name string, cell int, c Cell) error {
	s, err := p.array(name, cell)
	if err != nil {
		return err
	}
	switch s.info.kind {
	case externCounter:
		s.counts[cell].packets.Store(c.Count.Packets)
		s.counts[cell].bytes.Store(c.Count.Bytes)
		return nil
	case externMeter:
		return p.SetMeter(name, cell, c.Meter)
	}
	if len(c.Fields) != len(s.info.data) {
		return fmt.Errorf("a cell of register %s has %d values, and %d are given", name, len(s.info.data), len(c.Fields))
	}
	for i, d := range s.info.data {
		if v := c.Fields[i]; len(v) != (d.bits+7)/8 || d.bits%8 != 0 && v[0]>>(d.bits%8) != 0 {
			return fmt.Errorf("a cell of register %s: %#x is not a number of %d bits in %d bytes", name, v, d.bits, (d.bits+7)/8)
		}
	}
	s.change(cell, func(slots []uint64) {
		for i, d := range s.info.data {
			loadWide(slots[d.off:], c.Fields[i], len(c.Fields[i]))
		}
	})
	return nil
}

// change sets the slots of a cell of a register.
func (s *externState) change(cell int, set func(slots []uint64)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slots := s.cell(cell)
	set(slots)
	for _, f := range s.info.flags {
		slots[f] = 1
	}
	if s.cells != nil {
		s.cells[cell].Store(slots[0])
	}
}

// extern finds an extern of one kind by its name.
func (p *Pipeline) extern(kind externKind, what, name string, cell int) (*externState, error) {
	for i := range p.externs {
		s := &p.externs[i]
		if s.info.name != name || s.info.kind != kind {
			continue
		}
		if cell < 0 || cell >= s.info.size {
			return nil, fmt.Errorf("%s %s has %d cells, and no cell %d", what, name, s.info.size, cell)
		}
		return s, nil
	}
	return nil, fmt.Errorf("the program has no %s %q", what, name)
}

// Counter returns a cell of a counter, which is known by a name like that of a table.
func (p *Pipeline) Counter(name string, cell int) (Count, error) {
	s, err := p.extern(externCounter, "counter", name, cell)
	if err != nil {
		return Count{}, err
	}
	return Count{s.counts[cell].packets.Load(), s.counts[cell].bytes.Load()}, nil
}

// Register returns a cell of a register, big-endian in whole bytes. A struct is the number that its fields make up together,
// the first one in the upper bits.
func (p *Pipeline) Register(name string, cell int) ([]byte, error) {
	s, err := p.extern(externRegister, "register", name, cell)
	if err != nil {
		return nil, err
	}
	bits := s.info.cellBits()
	out := make([]byte, (bits+7)/8)
	s.mu.Lock()
	defer s.mu.Unlock()
	at, slots := 8*len(out)-bits, s.cell(cell)
	for _, d := range s.info.data {
		writeWideBits(out, at, d.bits, slots[d.off:])
		at += d.bits
	}
	return out, nil
}

// cellBits is how many bits a cell of a register has.
func (x *externInst) cellBits() int {
	n := 0
	for _, d := range x.data {
		n += d.bits
	}
	return n
}

// cell gives the slots of a cell of a register, as they are now. The lock is held.
func (s *externState) cell(k int) []uint64 {
	if s.cells != nil {
		return []uint64{s.cells[k].Load()}
	}
	size := s.info.args[0].size
	return s.wide[k*size : (k+1)*size]
}

// SetRegister sets a cell of a register.
func (p *Pipeline) SetRegister(name string, cell int, v []byte) error {
	s, err := p.extern(externRegister, "register", name, cell)
	if err != nil {
		return err
	}
	bits := s.info.cellBits()
	if len(v) != (bits+7)/8 || bits%8 != 0 && v[0]>>(bits%8) != 0 {
		return fmt.Errorf("a cell of register %s has %d bits in %d bytes, and %#x is no such number", name, bits, (bits+7)/8, v)
	}
	s.change(cell, func(slots []uint64) {
		at := 8*len(v) - bits
		for _, d := range s.info.data {
			readWideBits(slots[d.off:], v, at, d.bits)
			at += d.bits
		}
	})
	return nil
}

// SetMeter sets a cell of a meter. Its bursts are full at first.
func (p *Pipeline) SetMeter(name string, cell int, cfg MeterConfig) error {
	s, err := p.extern(externMeter, "meter", name, cell)
	if err != nil {
		return err
	}
	if cfg.CommittedRate > cfg.PeakRate {
		return fmt.Errorf("meter %s: the committed rate of %d is above the peak rate of %d", name, cfg.CommittedRate, cfg.PeakRate)
	}
	c := &s.meters[cell]
	c.mu.Lock()
	defer c.mu.Unlock()
	c.config, c.committed, c.peak = cfg, float64(cfg.CommittedBurst), float64(cfg.PeakBurst)
	return nil
}
