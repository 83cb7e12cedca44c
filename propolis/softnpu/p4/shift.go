package p4

import (
	"math/big"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"
)

func (c *compiler) shift(op string, x, y value, pos syntax.Pos) value {
	x, y = c.number(x), c.number(y)
	if !x.t.numeric() || !y.t.numeric() {
		c.errorf(pos, "%s does not apply to %s and %s", op, x.t, y.t)
		return c.badValue(pos)
	}
	left := op == "<<"
	if y.c != nil && y.c.Sign() < 0 || y.c == nil && y.t.kind == kindInt {
		c.errorf(y.pos, "a shift needs a number that is not negative")
		return c.badValue(pos)
	}
	if x.t.kind == kindNumber && y.c == nil {
		c.errorf(x.pos, "the left side of %s needs a width, as in 8w1", op)
		return c.badValue(pos)
	}
	if x.c != nil && y.c != nil {
		v := new(big.Int)
		limit := int64(4 * syntax.MaxWidth)
		if !y.c.IsInt64() || y.c.Int64() > limit {
			if x.t.kind == kindNumber && left {
				c.errorf(pos, "this number is too large")
				return c.badValue(pos)
			}
			y.c = big.NewInt(limit)
		}
		if left {
			v.Lsh(x.c, uint(y.c.Int64()))
		} else {
			v.Rsh(x.c, uint(y.c.Int64()))
		}
		if x.t.kind != kindNumber {
			v = wrap(v, x.t)
		}
		return constValue(pos, x.t, v)
	}
	t := x.t
	by := c.shiftCount(y)
	out := value{t: t, pos: pos, calls: x.calls || y.calls}
	w, mk, isSigned := t.width, ones(t.width), t.kind == kindInt
	if t.narrow() {
		a := c.narrow(x)
		switch {
		case left:
			out.n = func(m *machine) uint64 { v := a(m); return v << by(m) & mk }
		case isSigned:
			out.n = func(m *machine) uint64 { v := a(m); return uint64(signed(v, w)>>by(m)) & mk }
		default:
			out.n = func(m *machine) uint64 { v := a(m); return v >> by(m) }
		}
		return out
	}
	xp, xo := c.stored(x)
	dst, size := c.alloc(t.size), t.size
	out.off = dst
	out.prep = func(m *machine) {
		if xp != nil {
			xp(m)
		}
		n := by(m)
		d, a := m.s[dst:dst+size], m.s[xo:xo+size]
		if left {
			wideShl(d, a, n)
			cut(d, w)
			return
		}
		wideShr(d, a, n)
		if isSigned && wideBit(a, w-1) == 1 {
			for i := max(0, w-int(min(n, uint64(w)))); i < w; {
				k := min(64-i%64, w-i)
				setBits(d, i, k, ^uint64(0))
				i += k
			}
		}
	}
	return out
}

// shiftCount gives how far to shift; more than fits in 64 bits is as good as the largest number.
func (c *compiler) shiftCount(y value) func(*machine) uint64 {
	if y.c != nil {
		k := uint64(1 << 20)
		if y.c.IsUint64() {
			k = min(k, y.c.Uint64())
		}
		return func(*machine) uint64 { return k }
	}
	if y.t.narrow() {
		return c.narrow(y)
	}
	prep, off := c.stored(y)
	size := y.t.size
	return func(m *machine) uint64 {
		if prep != nil {
			prep(m)
		}
		if !wideZero(m.s[off+1 : off+size]) {
			return 1 << 20
		}
		return m.s[off]
	}
}

func (c *compiler) concat(x, y value, pos syntax.Pos) value {
	x, y = c.number(x), c.number(y)
	if !x.t.integer() || !y.t.integer() {
		c.errorf(pos, "++ needs two numbers with a width, and these are %s and %s", x.t, y.t)
		return c.badValue(pos)
	}
	w := x.t.width + y.t.width
	if w > syntax.MaxWidth {
		c.errorf(pos, "the result of ++ has %d bits, and no more than %d are possible", w, syntax.MaxWidth)
		return c.badValue(pos)
	}
	t := bitType(w)
	if x.t.kind == kindInt {
		t = intType(w)
	}
	if x.c != nil && y.c != nil {
		v := mask(new(big.Int).Set(x.c), x.t.width)
		v.Lsh(v, uint(y.t.width)).Or(v, mask(new(big.Int).Set(y.c), y.t.width))
		return constValue(pos, t, wrap(v, t))
	}
	out := value{t: t, pos: pos, calls: x.calls || y.calls}
	shift := y.t.width
	if t.narrow() {
		a, b := c.narrow(x), c.narrow(y)
		out.n = func(m *machine) uint64 { v := a(m); return v<<uint(shift) | b(m) }
		return out
	}
	xp, xo := c.stored(x)
	yp, yo := c.stored(y)
	dst, size, xs, ys, xw := c.alloc(t.size), t.size, x.t.size, y.t.size, x.t.width
	out.off = dst
	out.prep = func(m *machine) {
		if xp != nil {
			xp(m)
		}
		if yp != nil {
			yp(m)
		}
		d := m.s[dst : dst+size]
		clear(d)
		moveBits(d, 0, m.s[yo:yo+ys], 0, shift)
		moveBits(d, shift, m.s[xo:xo+xs], 0, xw)
	}
	return out
}
