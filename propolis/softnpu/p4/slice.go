package p4

import (
	"math/big"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"
)

func (c *compiler) slice(sc *scope, e *syntax.SliceExpr) value {
	x := c.sliceable(c.expr(sc, e.X), e.Pos)
	hi, lo := c.constInt(sc, e.Hi, "the bound of a slice"), c.constInt(sc, e.Lo, "the bound of a slice")
	if x.bad() || hi == nil || lo == nil {
		return c.badValue(e.Pos)
	}
	if lo.Sign() < 0 || hi.Cmp(lo) < 0 || hi.Cmp(big.NewInt(int64(x.t.width))) >= 0 {
		c.errorf(e.Pos, "the slice [%s:%s] is not within the %d bits", hi, lo, x.t.width)
		return c.badValue(e.Pos)
	}
	return c.sliceOf(x, int(hi.Int64()), int(lo.Int64()), e.Pos)
}

// plusSlice compiles X[From+:Width]. Where it begins need not be known before the program runs.
func (c *compiler) plusSlice(sc *scope, e *syntax.PlusSliceExpr) value {
	x, from := c.sliceable(c.expr(sc, e.X), e.Pos), c.number(c.expr(sc, e.From))
	width := c.constInt(sc, e.Width, "the width of a slice")
	if x.bad() || from.bad() || width == nil {
		return c.badValue(e.Pos)
	}
	if !from.t.numeric() || from.c == nil && from.t.kind != kindBit {
		c.errorf(from.pos, "a slice begins at a number that is not negative, and this is %s", describeType(from))
		return c.badValue(e.Pos)
	}
	limit := big.NewInt(int64(x.t.width))
	if width.Sign() <= 0 || width.Cmp(limit) > 0 {
		c.errorf(e.Width.At(), "a slice of %s bits of %s is not possible", width, x.t)
		return c.badValue(e.Pos)
	}
	w := int(width.Int64())
	if from.c == nil {
		return c.movingSlice(x, from, w, e.Pos)
	}
	if from.c.Sign() < 0 || new(big.Int).Add(from.c, width).Cmp(limit) > 0 {
		c.errorf(e.Pos, "the slice [%s+:%d] is not within the %d bits", from.c, w, x.t.width)
		return c.badValue(e.Pos)
	}
	lo := int(from.c.Int64())
	return c.sliceOf(x, lo+w-1, lo, e.Pos)
}

// sliceable gives the number that slices are taken of.
func (c *compiler) sliceable(x value, pos syntax.Pos) value {
	if x.bad() {
		return x
	}
	if x.t.numbered() {
		// The place stays one, and its bits are those of the number.
		x.t = x.t.elem
	}
	if !x.t.integer() {
		c.errorf(pos, "only bit<W> and int<W> have slices, and this is %s", describeType(x))
		return c.badValue(pos)
	}
	return x
}

func (c *compiler) sliceOf(x value, h, l int, pos syntax.Pos) value {
	t := bitType(h - l + 1)
	if x.c != nil {
		v := new(big.Int).SetBytes(bigBytes(toLimbs(x.c, x.t.width)))
		return constValue(pos, t, mask(v.Rsh(v, uint(l)), t.width))
	}
	if x.lv == nil {
		return c.bitsOf(x, l, t, pos)
	}
	lv := *x.lv
	switch {
	case lv.bit != nil:
		lv.lo += l
	case lv.sliced:
		lv.lo, lv.hi = lv.lo+l, lv.lo+h
	default:
		lv.sliced, lv.hi, lv.lo = true, h, l
	}
	v := c.place(pos, t, &lv)
	v.readOnly, v.calls = x.readOnly, x.calls
	return v
}

// outside is a place of a bit that no number has.
const outside = 1 << 20

// movingSlice is a slice that begins where a value says. Bits outside of the number read as zero and are not written.
func (c *compiler) movingSlice(x, from value, w int, pos syntax.Pos) value {
	at, t, window, calls := c.shiftCount(from), bitType(w), x.t.width, x.calls || from.calls
	if x.lv == nil || x.c != nil {
		prep, off := c.stored(x)
		first := c.alloc(1)
		return c.bitsAt(t, pos, calls, func(m *machine) ([]uint64, int, int) {
			if prep != nil {
				prep(m)
			}
			m.s[first] = min(at(m), outside)
			return m.s[off : off+limbs(window)], int(m.s[first]), window
		})
	}
	lv := *x.lv
	inner := lv.bit
	switch {
	case inner != nil:
		lv.bit = func(m *machine) int {
			k := inner(m)
			if n := at(m); n+uint64(w) <= uint64(window) {
				return k + int(n)
			}
			return outside
		}
	default:
		if !lv.sliced {
			lv.sliced, lv.lo, lv.hi = true, 0, window-1
		}
		lv.bit = func(m *machine) int { return int(min(at(m), outside)) }
	}
	v := c.place(pos, t, &lv)
	v.readOnly, v.calls = x.readOnly, calls
	return v
}

// bitsAt takes bits out of a number from a place on that is worked out with it; from limit on they are zero.
func (c *compiler) bitsAt(t *typ, pos syntax.Pos, calls bool, find func(*machine) (num []uint64, lo, limit int)) value {
	v := value{t: t, pos: pos, calls: calls}
	w := t.width
	if t.narrow() {
		v.n = func(m *machine) uint64 {
			num, lo, limit := find(m)
			if n := min(w, limit-lo); n > 0 {
				return getBits(num, lo, n)
			}
			return 0
		}
		return v
	}
	dst, size := c.alloc(t.size), t.size
	v.off = dst
	v.prep = func(m *machine) {
		num, lo, limit := find(m)
		d := m.s[dst : dst+size]
		clear(d)
		if n := min(w, limit-lo); n > 0 {
			moveBits(d, 0, num, lo, n)
		}
	}
	return v
}

// loadSlice is the value of a place that is a slice of bits.
func (c *compiler) loadSlice(v value) value {
	lv := *v.lv
	whole := lv
	whole.sliced, whole.bit = false, nil
	var x value
	if lv.hi < 64 {
		x = c.place(v.pos, bitType(64), &whole)
	} else {
		x = c.place(v.pos, bitType(lv.hi+1), &whole)
	}
	var out value
	if bit := lv.bit; bit != nil {
		prep, off := c.stored(x)
		size, lo, limit := x.t.size, lv.lo, lv.hi+1
		out = c.bitsAt(v.t, v.pos, x.calls, func(m *machine) ([]uint64, int, int) {
			if prep != nil {
				prep(m)
			}
			return m.s[off : off+size], lo + bit(m), limit
		})
	} else {
		out = c.bitsOf(x, lv.lo, v.t, v.pos)
	}
	out.lv, out.readOnly = v.lv, v.readOnly
	return out
}

// bitsOf takes bits out of a value, from bit lo on as many as type t has.
func (c *compiler) bitsOf(x value, lo int, t *typ, pos syntax.Pos) value {
	v := value{t: t, pos: pos, calls: x.calls}
	w := t.width
	switch {
	case x.t.narrow():
		n, m1 := c.narrow(x), ones(w)
		shift := uint(lo)
		v.n = func(m *machine) uint64 { return n(m) >> shift & m1 }
		if x.direct {
			off := x.off
			v.n = func(m *machine) uint64 { return m.s[off] >> shift & m1 }
		}
	case t.narrow():
		prep, off := c.stored(x)
		end := off + x.t.size
		v.n = func(m *machine) uint64 {
			if prep != nil {
				prep(m)
			}
			return getBits(m.s[off:end], lo, w)
		}
	default:
		prep, off := c.stored(x)
		end, dst, size := off+x.t.size, c.alloc(t.size), t.size
		v.off = dst
		v.prep = func(m *machine) {
			if prep != nil {
				prep(m)
			}
			d := m.s[dst : dst+size]
			clear(d)
			moveBits(d, 0, m.s[off:end], lo, w)
		}
	}
	return v
}

// storeSlice writes some bits of a place.
func (c *compiler) storeSlice(lv *lvalue, v value, t *typ) stmt {
	off, dyn, lo, w := lv.off, lv.dyn, lv.lo, t.width
	n := limbs(lv.hi + 1)
	at := func(m *machine) []uint64 {
		if dyn != nil {
			i := off + dyn(m)
			return m.s[i : i+n]
		}
		return m.s[off : off+n]
	}
	// where is the first bit and how many there are.
	where := func(*machine) (int, int) { return lo, w }
	if bit := lv.bit; bit != nil {
		limit := lv.hi + 1
		where = func(m *machine) (int, int) {
			k := lo + bit(m)
			return k, min(w, limit-k)
		}
	}
	if t.narrow() {
		x := c.narrow(v)
		if lv.bit == nil && dyn == nil {
			return func(m *machine) signal { setBits(m.s[off:off+n], lo, w, x(m)); return next }
		}
		return func(m *machine) signal {
			k := x(m)
			if lo, w := where(m); w > 0 {
				setBits(at(m), lo, w, k)
			}
			return next
		}
	}
	// The source may be part of the place itself, so it is copied first.
	prep, src := c.stored(v)
	tmp, size := c.alloc(t.size), t.size
	return func(m *machine) signal {
		if prep != nil {
			prep(m)
		}
		copy(m.s[tmp:tmp+size], m.s[src:src+size])
		if lo, w := where(m); w > 0 {
			moveBits(at(m), lo, m.s[tmp:tmp+size], 0, w)
		}
		return next
	}
}
