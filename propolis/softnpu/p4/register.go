package p4

import (
	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"
)

// registerMethod compiles read and write. read comes in two forms: one gives the value, one puts it into its argument.
func (c *compiler) registerMethod(x *externInst, e *syntax.CallExpr, name string, vals []value, count func(int) bool) value {
	bad := c.badValue(e.Pos)
	t, index := x.args[0], x.index
	switch name {
	case "read":
		var to *value
		if len(vals) == 2 {
			if !c.assignable(vals[0]) {
				return bad
			}
			to, vals = &vals[0], vals[1:]
		} else if !count(1) {
			return bad
		}
		at := c.cell(x, vals[0])
		if at == nil {
			return bad
		}
		v := value{t: t, pos: e.Pos, calls: true}
		size := t.size
		if t.narrow() {
			n := func(m *machine) uint64 {
				if k := at(m); k < uint64(len(m.externs[index].cells)) {
					return m.externs[index].cells[k].Load()
				}
				return 0
			}
			v.n = n
		} else {
			dst := c.alloc(size)
			v.off = dst
			v.prep = func(m *machine) {
				r, k := &m.externs[index], at(m)
				d := m.s[dst : dst+size]
				clear(d)
				r.mu.Lock()
				if k < uint64(len(r.wide)/size) {
					copy(d, r.wide[int(k)*size:])
				}
				r.mu.Unlock()
			}
		}
		if to == nil {
			return v
		}
		if v = c.convert(v, to.t, "the result of read"); v.bad() {
			return bad
		}
		return void(e.Pos, c.storeAfter(*to, v))
	case "write":
		if !count(2) {
			return bad
		}
		at, v := c.cell(x, vals[0]), c.convert(vals[1], t, "write")
		if at == nil || v.bad() {
			return bad
		}
		if t.narrow() {
			n := c.narrow(v)
			return void(e.Pos, func(m *machine) signal {
				if k := at(m); k < uint64(len(m.externs[index].cells)) {
					m.externs[index].cells[k].Store(n(m))
				}
				return next
			})
		}
		prep, off := c.stored(v)
		size := t.size
		return void(e.Pos, func(m *machine) signal {
			r, k := &m.externs[index], at(m)
			if prep != nil {
				prep(m)
			}
			r.mu.Lock()
			if k < uint64(len(r.wide)/size) {
				copy(r.wide[int(k)*size:int(k+1)*size], m.s[off:off+size])
			}
			r.mu.Unlock()
			return next
		})
	}
	c.errorf(e.Pos, "a register has read and write, and no %q", name)
	return bad
}
