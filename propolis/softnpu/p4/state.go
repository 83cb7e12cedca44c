package p4

import "fmt"

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
	s.mu.Lock()
	defer s.mu.Unlock()
	slots, at := s.cell(cell), 8*len(v)-bits
	for _, d := range s.info.data {
		readWideBits(slots[d.off:], v, at, d.bits)
		at += d.bits
	}
	for _, f := range s.info.flags {
		slots[f] = 1
	}
	if s.cells != nil {
		s.cells[cell].Store(slots[0])
	}
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
