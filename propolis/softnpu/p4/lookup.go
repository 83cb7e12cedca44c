package p4

import "github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"

// applyTable compiles t.apply().
func (c *compiler) applyTable(sc *scope, t *tableSite, pos syntax.Pos) value {
	if sc.body.kind != bodyControl {
		c.errorf(pos, "a table can be applied only in the code of a control, and not in an action")
		return c.badValue(pos)
	}
	if t.info == nil {
		c.errorf(pos, "table %s cannot be applied here", t.decl.Name)
		return c.badValue(pos)
	}
	c.applied++
	return value{t: &typ{kind: kindResult, name: "apply_result"}, pos: pos, n: t.apply, calls: true, table: t.info}
}

// resultMember is hit, miss or action_run of what apply gives.
func (c *compiler) resultMember(x value, e *syntax.MemberExpr) value {
	run := x.n
	switch e.Name.Text {
	case "hit":
		return value{t: boolType, pos: e.Pos, calls: true, b: func(m *machine) bool { run(m); return m.hit }}
	case "miss":
		return value{t: boolType, pos: e.Pos, calls: true, b: func(m *machine) bool { run(m); return !m.hit }}
	case "action_run":
		return value{t: actionType, pos: e.Pos, calls: true, n: run, table: x.table}
	}
	c.errorf(e.Pos, "what apply gives has hit, miss and action_run, and no %q", e.Name.Text)
	return c.badValue(e.Pos)
}

// perform runs what an entry or a default says: its arguments are put where the action has its parameters.
func (m *machine) perform(b *bound, code []actionCode) uint64 {
	a := &code[b.action]
	if b.more == nil {
		for i, v := range b.room[:b.few] {
			m.s[a.base+i] = v
		}
	} else {
		copy(m.s[a.base:], *b.more)
	}
	if a.run != nil && a.run(m) == exited {
		m.exiting = true
	}
	return uint64(b.action)
}

// lookupFunc compiles the look-up of a table: the key is put together, the entry found, and its action run.
func (c *compiler) lookupFunc(info *tableInfo, keys []value, code []actionCode) func(*machine) uint64 {
	index := info.index
	if len(keys) == 0 {
		return func(m *machine) uint64 {
			t := m.tables[index]
			b := t.def.Load()
			m.hit = false
			t.misses.Add(1)
			if m.trace != nil {
				m.trace.table(t, nil, false, b)
			}
			m.entry = b
			return m.perform(b, code)
		}
	}
	from := c.keyBytes
	size := 0
	var writers []func(*machine)
	for i, v := range keys {
		n := (info.Keys[i].Bits + 7) / 8
		writers = append(writers, c.keyWriter(v, from+size, n))
		size += n
	}
	c.keyBytes += size
	to := from + size
	write := writers[0]
	if len(writers) > 1 {
		write = func(m *machine) {
			for _, w := range writers {
				w(m)
			}
		}
	}
	return func(m *machine) uint64 {
		write(m)
		t := m.tables[index]
		key := m.keys[from:to]
		b, hit := t.match.Value(key)
		m.hit = hit
		if hit {
			t.hits.Add(1)
			b.packets.Add(1)
			b.bytes.Add(uint64(len(m.pkt)))
		} else {
			b = t.def.Load()
			t.misses.Add(1)
		}
		if m.trace != nil {
			m.trace.table(t, key, hit, b)
		}
		m.entry = b
		return m.perform(b, code)
	}
}

// keyWriter compiles what puts one field into the bytes of a key.
func (c *compiler) keyWriter(v value, at, n int) func(*machine) {
	if v.t.narrow() {
		if v.direct {
			off := v.off
			switch n {
			case 2:
				return func(m *machine) { store(m.keys[at:], 2, m.s[off]) }
			case 4:
				return func(m *machine) { store(m.keys[at:], 4, m.s[off]) }
			}
			return func(m *machine) { store(m.keys[at:], n, m.s[off]) }
		}
		x := c.narrow(v)
		return func(m *machine) { store(m.keys[at:], n, x(m)) }
	}
	prep, off := c.stored(v)
	size := v.t.size
	return func(m *machine) {
		if prep != nil {
			prep(m)
		}
		storeWide(m.keys[at:], n, m.s[off:off+size])
	}
}
