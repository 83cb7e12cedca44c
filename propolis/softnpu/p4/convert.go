package p4

import (
	"math/big"
	"slices"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"
)

func mask(v *big.Int, width int) *big.Int {
	one := big.NewInt(1)
	return v.And(v, new(big.Int).Sub(new(big.Int).Lsh(one, uint(width)), one))
}

// bigBytes gives limbs as big-endian bytes.
func bigBytes(l []uint64) []byte {
	b := make([]byte, 8*len(l))
	storeWide(b, len(b), l)
	return b
}

// wrap brings a number into the range of a type.
func wrap(v *big.Int, t *typ) *big.Int {
	v = mask(new(big.Int).Set(v), t.width)
	if t.kind == kindInt && v.Bit(t.width-1) == 1 {
		v.Sub(v, new(big.Int).Lsh(big.NewInt(1), uint(t.width)))
	}
	return v
}

// fits says whether a number is in the range of a type.
func fits(v *big.Int, t *typ) bool { return wrap(v, t).Cmp(v) == 0 }

// convert makes a value fit a type where the language converts by itself: a number without a width takes that of its
// place, a list becomes a struct or header. What x4c does and the language does not, to widen bit<8> to bit<16>, is done
// with a warning.
func (c *compiler) convert(v value, t *typ, what string) value {
	switch {
	case v.bad() || t.kind == kindBad:
		return c.badValue(v.pos)
	case v.list != nil && t.kind != kindList:
		return c.convertList(v, t, what)
	case v.obj != nil || v.t.kind == kindVoid && t.kind != kindVoid:
		c.errorf(v.pos, "%s wants a value of type %s, and this is none", what, t)
		return c.badValue(v.pos)
	case v.t.equal(t):
		return v
	case v.t.kind == kindNumber && v.c != nil && t.integer():
		if !fits(v.c, t) {
			c.rep.Warnf(v.pos, "%s does not fit in %s, the upper bits are cut off", v.c, t)
		}
		return constValue(v.pos, t, wrap(v.c, t))
	case v.t.integer() && t.kind == kindNumber && v.c != nil:
		return constValue(v.pos, numberType, v.c)
	case v.t.kind == kindBit && t.kind == kindBit && v.t.integer() && t.integer() && v.t.width < t.width:
		c.rep.Warnf(v.pos, "%s wants %s, and this is %s: it is widened, which P4 asks a cast for", what, t, v.t)
		return c.cast(v, t, v.pos)
	case v.t.numbered() && v.t.elem.equal(t):
		v.t = t
		return v
	}
	c.errorf(v.pos, "%s wants %s, and this is %s", what, t, v.t)
	return c.badValue(v.pos)
}

// convertList gives a list the type of its place. The result is a list still, with all elements of the right type.
func (c *compiler) convertList(v value, t *typ, what string) value {
	if v.invalid {
		if t.kind != kindHeader && t.kind != kindUnion {
			c.errorf(v.pos, "%s wants %s, and {#} is a header or header union", what, t)
			return c.badValue(v.pos)
		}
		off, size := c.alloc(t.size), t.size
		return value{t: t, pos: v.pos, off: off, prep: func(m *machine) { clear(m.s[off : off+size]) }}
	}
	if t.kind != kindStruct && t.kind != kindHeader && t.kind != kindTuple {
		c.errorf(v.pos, "%s wants %s, and this is a list", what, t)
		return c.badValue(v.pos)
	}
	if len(v.list) != len(t.fields) {
		c.errorf(v.pos, "%s has %d fields, and the list has %d elements", t, len(t.fields), len(v.list))
		return c.badValue(v.pos)
	}
	out := v
	out.t = t
	out.names = nil
	out.list = make([]value, len(v.list))
	for i, x := range v.list {
		k := i
		if v.names != nil {
			k = slices.IndexFunc(t.fields, func(f field) bool { return f.name == v.names[i].Text })
			if k < 0 {
				c.errorf(v.names[i].Pos, "%s has no field %q", t, v.names[i].Text)
				return c.badValue(v.pos)
			}
			if out.list[k].t != nil {
				c.errorf(v.names[i].Pos, "field %q is given twice", v.names[i].Text)
				return c.badValue(v.pos)
			}
		}
		out.list[k] = c.convert(x, t.fields[k].typ, "field "+t.fields[k].name)
	}
	// So that the fields of a constant struct can be named.
	for _, f := range t.fields {
		out.names = append(out.names, syntax.Name{Text: f.name, Pos: v.pos})
	}
	return c.materialize(out)
}

// materialize makes a list that is not constant lie in slots, each element computed before any is stored.
func (c *compiler) materialize(v value) value {
	if v.bad() || v.list == nil {
		return v
	}
	off := c.alloc(v.t.size)
	var run []stmt
	for i, x := range v.list {
		if x.bad() {
			return c.badValue(v.pos)
		}
		f := &v.t.fields[i]
		run = append(run, c.store(&lvalue{off: off + f.off, flag: -1, advance: -1}, x, f.typ))
		if f.tracked {
			at := off + f.off + 1
			run = append(run, func(m *machine) signal { m.s[at] = 1; return next })
		}
	}
	header := v.t.kind == kindHeader
	all := sequence(run)
	keep := v.list
	out := value{t: v.t, pos: v.pos, off: off, calls: v.calls, prep: func(m *machine) {
		if header {
			m.s[off] = 1
		}
		all(m)
	}}
	if c.constantList(v) {
		out.list, out.names = keep, v.names
	}
	return out
}

// cast converts explicitly.
func (c *compiler) cast(v value, t *typ, pos syntax.Pos) value {
	if v.bad() || t.kind == kindBad {
		return c.badValue(pos)
	}
	if v.list != nil {
		return c.convertList(v, t, "the cast")
	}
	from := v.t
	if from.equal(t) {
		v.lv = nil
		return v
	}
	if v.obj != nil {
		c.errorf(pos, "this cannot be cast to %s", t)
		return c.badValue(pos)
	}
	switch {
	case from.under != nil:
		v.t, v.lv = from.under, nil
		return c.cast(v, t, pos)
	case t.under != nil:
		if v = c.cast(v, t.under, pos); !v.bad() {
			v.t, v.lv = t, nil
		}
		return v
	case from.numbered() && (t.integer() || t.numbered()):
		v.t = from.elem
		return c.cast(v, t, pos)
	case t.numbered() && from.numeric():
		v = c.cast(v, t.elem, pos)
		v.t = t
		return v
	case t.kind == kindNumber && v.c != nil && from.integer():
		return constValue(pos, t, v.c)
	case from.kind == kindNumber && t.integer():
		return constValue(pos, t, wrap(v.c, t))
	case from.kind == kindNumber && t.kind == kindBool && v.c.BitLen() <= 1 && v.c.Sign() >= 0:
		return constValue(pos, t, v.c)
	case from.kind == kindBool && t.kind == kindBit && t.width == 1, from.kind == kindBit && from.width == 1 && t.kind == kindBool:
		if v.c != nil {
			return constValue(pos, t, v.c)
		}
		n := c.narrow(v)
		out := value{t: t, pos: pos, calls: v.calls, n: n}
		if t.kind == kindBool {
			out.n = nil
			out.b = func(m *machine) bool { return n(m) != 0 }
		}
		return out
	case !from.integer() || !t.integer():
		c.errorf(pos, "%s cannot be cast to %s", from, t)
		return c.badValue(pos)
	case from.kind != t.kind && from.width != t.width:
		c.errorf(pos, "%s cannot be cast to %s at once: cast to the same width first", from, t)
		return c.badValue(pos)
	case v.c != nil:
		return constValue(pos, t, wrap(v.c, t))
	}
	return c.resize(v, t, pos)
}

// resize changes the width of a bit<W> or int<W>.
func (c *compiler) resize(v value, t *typ, pos syntax.Pos) value {
	from := v.t
	out := value{t: t, pos: pos, calls: v.calls}
	extend := from.kind == kindInt && t.width > from.width
	switch {
	case from.narrow() && t.narrow():
		n, w, mk := c.narrow(v), from.width, ones(t.width)
		switch {
		case extend:
			out.n = func(m *machine) uint64 { return uint64(signed(n(m), w)) & mk }
		case t.width < w:
			out.n = func(m *machine) uint64 { return n(m) & mk }
		default:
			v.t, v.lv, v.pos = t, nil, pos
			return v
		}
	case t.narrow():
		return c.bitsOf(v, 0, t, pos)
	default:
		prep, off := c.stored(v)
		dst, size, n, w, tw := c.alloc(t.size), t.size, from.size, from.width, t.width
		out.off = dst
		out.prep = func(m *machine) {
			if prep != nil {
				prep(m)
			}
			d := m.s[dst : dst+size]
			copied := copy(d, m.s[off:off+n])
			clear(d[copied:])
			if extend && wideBit(d, w-1) == 1 {
				for i := w; i < tw; {
					k := min(64-i%64, tw-i)
					setBits(d, i, k, ^uint64(0))
					i += k
				}
			}
			cut(d, tw)
		}
	}
	return out
}
