package p4

// lvalue is a place that can be assigned to.
type lvalue struct {
	// off is the slot; dyn, if there, is added to it, which leads somewhere between the slots of within.
	off    int
	dyn    func(*machine) int
	within span
	// hi and lo choose bits of it if sliced; bit, if there, is added to lo, and hi is the last bit that is possible.
	sliced bool
	hi, lo int
	bit    func(*machine) int
	// flag is the slot that is set to 1 by an assignment, or -1.
	flag int
	// siblings are the valid slots of the other members of the union that this header is in, relative to off.
	siblings []int
	// advance is the slot of the nextIndex of a stack that grows by an extract, or -1; size is how far.
	advance, size int
}

// plain says whether the place is just its slots.
func (lv *lvalue) plain() bool {
	return lv.dyn == nil && !lv.sliced && len(lv.siblings) == 0 && lv.advance < 0
}

// span is all slots that an assignment of a value of some slots can change.
func (lv *lvalue) span(size int) span {
	if lv.dyn != nil {
		return lv.within
	}
	s := span{from: lv.off, to: lv.off + size}
	if lv.sliced {
		s.to = lv.off + limbs(lv.hi+1)
	}
	for _, k := range lv.siblings {
		s.from, s.to = min(s.from, lv.off+k), max(s.to, lv.off+k+1)
	}
	return s
}

// pin makes the index of a place be computed once, by the statement that comes with it: that runs when the turn of the
// place comes, and what is done with the place later does not move it. A place without an index needs no statement.
func (c *compiler) pin(v value) (value, stmt) {
	if v.lv == nil || v.lv.dyn == nil && v.lv.bit == nil {
		return v, nil
	}
	lv := *v.lv
	var fix []stmt
	for _, index := range []*func(*machine) int{&lv.dyn, &lv.bit} {
		if f := *index; f != nil {
			at := c.alloc(1)
			*index = func(m *machine) int { return int(m.s[at]) }
			fix = append(fix, func(m *machine) signal { m.s[at] = uint64(f(m)); return next })
		}
	}
	out := c.place(v.pos, v.t, &lv)
	out.readOnly = v.readOnly
	return out, sequence(fix)
}

// storeAfter stores a value in a place whose turn came before that of the value.
func (c *compiler) storeAfter(to, v value) stmt {
	to, first := c.pin(to)
	run := c.store(to.lv, v, to.t)
	if first != nil {
		return sequence([]stmt{first, run})
	}
	return run
}
