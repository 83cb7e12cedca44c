package p4

import (
	"math/big"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"
)

func (c *compiler) unary(sc *scope, e *syntax.UnaryExpr) value {
	x := c.expr(sc, e.X)
	if x.bad() {
		return x
	}
	t := x.t
	if e.Op == "!" && (t.kind != kindBool || t.under != nil) || e.Op == "~" && !t.integer() || (e.Op == "-" || e.Op == "+") && !t.numeric() {
		c.errorf(e.Pos, "%s does not apply to %s", e.Op, describeType(x))
		return c.badValue(e.Pos)
	}
	out := value{t: t, pos: e.Pos, calls: x.calls}
	if e.Op == "+" {
		x.lv = nil
		return x
	}
	if x.c != nil {
		v := new(big.Int)
		switch e.Op {
		case "!":
			return boolConst(e.Pos, x.c.Sign() == 0)
		case "~":
			v.Not(x.c)
		case "-":
			v.Neg(x.c)
		}
		if t.kind != kindNumber {
			v = wrap(v, t)
		}
		return constValue(e.Pos, t, v)
	}
	switch {
	case e.Op == "!":
		b := c.truth(x)
		out.b = func(m *machine) bool { return !b(m) }
	case t.narrow():
		n, mk := c.narrow(x), ones(t.width)
		if e.Op == "~" {
			out.n = func(m *machine) uint64 { return ^n(m) & mk }
		} else {
			out.n = func(m *machine) uint64 { return -n(m) & mk }
		}
	default:
		prep, off := c.stored(x)
		dst, size, w, neg := c.alloc(t.size), t.size, t.width, e.Op == "-"
		out.off = dst
		out.prep = func(m *machine) {
			if prep != nil {
				prep(m)
			}
			carry := neg
			for i := range size {
				v := ^m.s[off+i]
				if carry {
					v++
					carry = v == 0
				}
				m.s[dst+i] = v
			}
			cut(m.s[dst:dst+size], w)
		}
	}
	return out
}

func (c *compiler) binary(sc *scope, e *syntax.BinaryExpr) value {
	switch e.Op {
	case "&&", "||":
		return c.logical(sc, e)
	case "&&&", "..":
		c.errorf(e.Pos, "%s stands only in a select, in a key of an entry, or in a value set", e.Op)
		return c.badValue(e.Pos)
	}
	x, y := c.expr(sc, e.X), c.expr(sc, e.Y)
	if x.bad() || y.bad() {
		return c.badValue(e.Pos)
	}
	return c.operate(e.Op, x, y, e.Pos)
}

func (c *compiler) logical(sc *scope, e *syntax.BinaryExpr) value {
	x, y := c.condition(sc, e.X), c.condition(sc, e.Y)
	if x.bad() || y.bad() {
		return c.badValue(e.Pos)
	}
	and := e.Op == "&&"
	if x.c != nil {
		if (x.c.Sign() != 0) == and {
			return y
		}
		return x
	}
	a, b := c.truth(x), c.truth(y)
	out := value{t: boolType, pos: e.Pos, calls: x.calls || y.calls}
	if and {
		out.b = func(m *machine) bool { return a(m) && b(m) }
	} else {
		out.b = func(m *machine) bool { return a(m) || b(m) }
	}
	return out
}

// operate compiles an operator between two values.
func (c *compiler) operate(op string, x, y value, pos syntax.Pos) value {
	if x.obj != nil || y.obj != nil || x.t.kind == kindVoid || y.t.kind == kindVoid {
		c.errorf(pos, "%s needs two values", op)
		return c.badValue(pos)
	}
	if y.calls && (x.lv != nil || x.direct) {
		x = c.snapshot(x)
	}
	switch op {
	case "==", "!=":
		return c.equality(op, x, y, pos)
	case "<<", ">>":
		return c.shift(op, x, y, pos)
	case "++":
		return c.concat(x, y, pos)
	}
	x, y = c.number(x), c.number(y)
	if !x.t.numeric() || !y.t.numeric() {
		c.errorf(pos, "%s does not apply to %s and %s", op, x.t, y.t)
		return c.badValue(pos)
	}
	compare := op == "<" || op == ">" || op == "<=" || op == ">="
	x, y, ok := c.sameType(op, x, y, pos, compare)
	if !ok {
		return c.badValue(pos)
	}
	if x.c != nil && y.c != nil {
		return c.fold(op, x, y, pos)
	}
	if op == "|+|" || op == "|-|" {
		return c.saturate(op, x, y, pos)
	}
	t := x.t
	if compare {
		return c.compare(op, x, y, pos)
	}
	if (op == "/" || op == "%") && t.kind == kindInt {
		c.errorf(pos, "%s of signed numbers is not defined in P4 unless both are constants", op)
		return c.badValue(pos)
	}
	if (op == "/" || op == "%") && y.c != nil && y.c.Sign() == 0 {
		c.errorf(pos, "division by zero")
		return c.badValue(pos)
	}
	if t.narrow() {
		return c.narrowOp(op, x, y, pos)
	}
	return c.wideOp(op, x, y, pos)
}

// number takes a member of an enum with values for its number, which the language does by itself.
func (c *compiler) number(v value) value {
	if v.t.numbered() {
		return c.cast(v, v.t.elem, v.pos)
	}
	return v
}

// snapshot copies a value, so that a call that comes after it does not change it.
func (c *compiler) snapshot(x value) value {
	if x.lv == nil && !x.direct || x.c != nil || x.list != nil {
		return x
	}
	prep, off := c.stored(x)
	tmp, size := c.alloc(x.t.size), x.t.size
	copied := func(m *machine) {
		if prep != nil {
			prep(m)
		}
		copy(m.s[tmp:tmp+size], m.s[off:off+size])
	}
	v := c.place(x.pos, x.t, &lvalue{off: tmp, flag: -1, advance: -1})
	v.lv = nil
	return c.after(copied, v, x.calls)
}

// sameType brings both operands to one type.
func (c *compiler) sameType(op string, x, y value, pos syntax.Pos, widen bool) (value, value, bool) {
	if !x.t.equal(y.t) {
		x, y = c.number(x), c.number(y)
	}
	switch {
	case x.t.kind == kindNumber && y.t.kind == kindNumber:
		return x, y, true
	case x.t.kind == kindNumber:
		x = c.convert(x, y.t, "the left side of "+op)
	case y.t.kind == kindNumber:
		y = c.convert(y, x.t, "the right side of "+op)
	case widen && x.t.kind == kindBit && y.t.kind == kindBit && x.t.integer() && y.t.integer() && x.t.width != y.t.width:
		if x.t.width < y.t.width {
			x = c.convert(x, y.t, "the left side of "+op)
		} else {
			y = c.convert(y, x.t, "the right side of "+op)
		}
	}
	if x.bad() || y.bad() {
		return x, y, false
	}
	if !x.t.equal(y.t) {
		c.errorf(pos, "%s needs two values of one type, and these are %s and %s", op, x.t, y.t)
		return x, y, false
	}
	return x, y, true
}

func (c *compiler) fold(op string, x, y value, pos syntax.Pos) value {
	v, t := new(big.Int), x.t
	switch op {
	case "<":
		return boolConst(pos, x.c.Cmp(y.c) < 0)
	case ">":
		return boolConst(pos, x.c.Cmp(y.c) > 0)
	case "<=":
		return boolConst(pos, x.c.Cmp(y.c) <= 0)
	case ">=":
		return boolConst(pos, x.c.Cmp(y.c) >= 0)
	case "+", "|+|":
		v.Add(x.c, y.c)
	case "-", "|-|":
		v.Sub(x.c, y.c)
	case "*":
		v.Mul(x.c, y.c)
	case "&":
		v.And(x.c, y.c)
	case "|":
		v.Or(x.c, y.c)
	case "^":
		v.Xor(x.c, y.c)
	case "/", "%":
		if y.c.Sign() == 0 {
			c.errorf(pos, "division by zero")
			return c.badValue(pos)
		}
		if x.c.Sign() < 0 || y.c.Sign() < 0 {
			c.errorf(pos, "%s of negative numbers is not defined in P4", op)
			return c.badValue(pos)
		}
		if op == "/" {
			v.Quo(x.c, y.c)
		} else {
			v.Rem(x.c, y.c)
		}
	}
	if t.kind == kindNumber {
		if v.BitLen() > 4*syntax.MaxWidth {
			c.errorf(pos, "this number is too large")
			return c.badValue(pos)
		}
		if op == "|+|" || op == "|-|" {
			c.errorf(pos, "%s needs numbers with a width", op)
		}
		return constValue(pos, t, v)
	}
	if op == "|+|" || op == "|-|" {
		return constValue(pos, t, clamp(v, t))
	}
	return constValue(pos, t, wrap(v, t))
}

func clamp(v *big.Int, t *typ) *big.Int {
	lo, hi := limitsOf(t)
	switch {
	case v.Cmp(lo) < 0:
		return lo
	case v.Cmp(hi) > 0:
		return hi
	}
	return v
}

func limitsOf(t *typ) (lo, hi *big.Int) {
	one := big.NewInt(1)
	if t.kind == kindInt {
		hi = new(big.Int).Lsh(one, uint(t.width-1))
		lo = new(big.Int).Neg(hi)
		return lo, hi.Sub(hi, one)
	}
	hi = new(big.Int).Lsh(one, uint(t.width))
	return new(big.Int), hi.Sub(hi, one)
}

// narrowOp is an operator on numbers of up to 64 bits.
func (c *compiler) narrowOp(op string, x, y value, pos syntax.Pos) value {
	a, b, mk := c.narrow(x), c.narrow(y), ones(x.t.width)
	out := value{t: x.t, pos: pos, calls: x.calls || y.calls}
	if y.c != nil && x.direct {
		off, k := x.off, toLimbs(y.c, x.t.width)[0]
		switch op {
		case "+":
			out.n = func(m *machine) uint64 { return (m.s[off] + k) & mk }
			return out
		case "-":
			out.n = func(m *machine) uint64 { return (m.s[off] - k) & mk }
			return out
		case "&":
			out.n = func(m *machine) uint64 { return m.s[off] & k }
			return out
		}
	}
	switch op {
	case "+":
		out.n = func(m *machine) uint64 { return (a(m) + b(m)) & mk }
	case "-":
		out.n = func(m *machine) uint64 { return (a(m) - b(m)) & mk }
	case "*":
		out.n = func(m *machine) uint64 { return a(m) * b(m) & mk }
	case "&":
		out.n = func(m *machine) uint64 { return a(m) & b(m) }
	case "|":
		out.n = func(m *machine) uint64 { return a(m) | b(m) }
	case "^":
		out.n = func(m *machine) uint64 { return a(m) ^ b(m) }
	case "/", "%":
		div := op == "/"
		out.n = func(m *machine) uint64 {
			x, y := a(m), b(m)
			switch {
			case y == 0:
				m.fail(DivisionByZero)
				return 0
			case div:
				return x / y
			}
			return x % y
		}
	default:
		c.errorf(pos, "the operator %s is not supported", op)
		return c.badValue(pos)
	}
	return out
}

// wideOp is an operator on numbers of more than 64 bits.
func (c *compiler) wideOp(op string, x, y value, pos syntax.Pos) value {
	xp, xo := c.stored(x)
	yp, yo := c.stored(y)
	t, size, w := x.t, x.t.size, x.t.width
	dst, rest := c.alloc(size), 0
	if op == "/" || op == "%" {
		rest = c.alloc(size)
	}
	var f func(m *machine, d, a, b []uint64)
	switch op {
	case "+":
		f = func(_ *machine, d, a, b []uint64) { wideAdd(d, a, b); cut(d, w) }
	case "-":
		f = func(_ *machine, d, a, b []uint64) { wideSub(d, a, b); cut(d, w) }
	case "*":
		f = func(_ *machine, d, a, b []uint64) { wideMul(d, a, b); cut(d, w) }
	case "&", "|", "^":
		f = func(_ *machine, d, a, b []uint64) {
			for i := range d {
				switch op {
				case "&":
					d[i] = a[i] & b[i]
				case "|":
					d[i] = a[i] | b[i]
				default:
					d[i] = a[i] ^ b[i]
				}
			}
		}
	case "/", "%":
		f = func(m *machine, d, a, b []uint64) {
			r := m.s[rest : rest+size]
			if wideZero(b) {
				m.fail(DivisionByZero)
				clear(d)
				return
			}
			if op == "/" {
				wideDivMod(d, r, a, b)
			} else {
				wideDivMod(r, d, a, b)
			}
		}
	default:
		c.errorf(pos, "the operator %s is not supported", op)
		return c.badValue(pos)
	}
	return value{t: t, pos: pos, off: dst, calls: x.calls || y.calls, prep: func(m *machine) {
		if xp != nil {
			xp(m)
		}
		if yp != nil {
			yp(m)
		}
		f(m, m.s[dst:dst+size], m.s[xo:xo+size], m.s[yo:yo+size])
	}}
}

func (c *compiler) saturate(op string, x, y value, pos syntax.Pos) value {
	t := x.t
	xp, xo := c.stored(x)
	yp, yo := c.stored(y)
	size, w := t.size, t.width
	dst := c.alloc(size)
	lo, hi := limitsOf(t)
	low, high := c.constSlots(toLimbs(lo, w)), c.constSlots(toLimbs(hi, w))
	add, isSigned := op == "|+|", t.kind == kindInt
	out := value{t: t, pos: pos, off: dst, calls: x.calls || y.calls}
	run := func(m *machine) {
		if xp != nil {
			xp(m)
		}
		if yp != nil {
			yp(m)
		}
		d, a, b := m.s[dst:dst+size], m.s[xo:xo+size], m.s[yo:yo+size]
		limit := -1
		if add {
			wideAdd(d, a, b)
		} else {
			wideSub(d, a, b)
		}
		// A carry can go into the limb's spare bits or out of it.
		cut(d, w)
		switch {
		case isSigned:
			sa, sb, sd := wideBit(a, w-1), wideBit(b, w-1), wideBit(d, w-1)
			if !add {
				sb ^= 1
			}
			if sa == sb && sd != sa {
				if limit = high; sa == 1 {
					limit = low
				}
			}
		case add && wideLess(d, a):
			limit = high
		case !add && wideLess(a, b):
			limit = low
		}
		if limit >= 0 {
			copy(d, m.s[limit:limit+size])
		}
	}
	if t.narrow() {
		out.n = func(m *machine) uint64 { run(m); return m.s[dst] }
	} else {
		out.prep = run
	}
	return out
}

func (c *compiler) compare(op string, x, y value, pos syntax.Pos) value {
	out := value{t: boolType, pos: pos, calls: x.calls || y.calls}
	w, isSigned := x.t.width, x.t.kind == kindInt
	if x.t.narrow() {
		a, b := c.narrow(x), c.narrow(y)
		// The two are computed in their order, so the operator stays as it is.
		switch {
		case isSigned && op == "<":
			out.b = func(m *machine) bool { return signed(a(m), w) < signed(b(m), w) }
		case isSigned && op == "<=":
			out.b = func(m *machine) bool { return signed(a(m), w) <= signed(b(m), w) }
		case isSigned && op == ">":
			out.b = func(m *machine) bool { return signed(a(m), w) > signed(b(m), w) }
		case isSigned:
			out.b = func(m *machine) bool { return signed(a(m), w) >= signed(b(m), w) }
		case op == "<":
			out.b = func(m *machine) bool { return a(m) < b(m) }
		case op == "<=":
			out.b = func(m *machine) bool { return a(m) <= b(m) }
		case op == ">":
			out.b = func(m *machine) bool { return a(m) > b(m) }
		default:
			out.b = func(m *machine) bool { return a(m) >= b(m) }
		}
		return out
	}
	xp, xo := c.stored(x)
	yp, yo := c.stored(y)
	size := x.t.size
	// a > b is b < a, and the others are the opposite of one of these.
	swap, not := op == ">" || op == "<=", op == "<=" || op == ">="
	out.b = func(m *machine) bool {
		if xp != nil {
			xp(m)
		}
		if yp != nil {
			yp(m)
		}
		a, b := m.s[xo:xo+size], m.s[yo:yo+size]
		if swap {
			a, b = b, a
		}
		less := wideLess(a, b)
		if isSigned && wideBit(a, w-1) != wideBit(b, w-1) {
			less = wideBit(a, w-1) == 1
		}
		return less != not
	}
	return out
}

func (c *compiler) equality(op string, x, y value, pos syntax.Pos) value {
	not := op == "!="
	if x.t.kind == kindList && y.t.kind != kindList {
		x = c.convert(x, y.t, "the left side of "+op)
	} else if y.t.kind == kindList && x.t.kind != kindList {
		y = c.convert(y, x.t, "the right side of "+op)
	}
	x, y, ok := c.sameType(op, x, y, pos, true)
	if !ok {
		return c.badValue(pos)
	}
	out := value{t: boolType, pos: pos, calls: x.calls || y.calls}
	switch {
	case x.c != nil && y.c != nil:
		return boolConst(pos, (x.c.Cmp(y.c) == 0) != not)
	case x.t.kind == kindString || x.t.kind == kindList || x.t.kind == kindExtern:
		c.errorf(pos, "%s does not apply to %s", op, x.t)
		return c.badValue(pos)
	case x.t.kind == kindBool:
		a, b := c.truth(x), c.truth(y)
		if y.c != nil {
			// What programs write most often.
			want := (y.c.Sign() != 0) != not
			out.b = func(m *machine) bool { return a(m) == want }
			return out
		}
		out.b = func(m *machine) bool { return (a(m) == b(m)) != not }
	case x.t.narrow():
		if x.c != nil {
			x, y = y, x
		}
		a, b := c.narrow(x), c.narrow(y)
		switch {
		case x.direct && y.c != nil:
			off, k := x.off, b(nil)
			if not {
				out.b = func(m *machine) bool { return m.s[off] != k }
			} else {
				out.b = func(m *machine) bool { return m.s[off] == k }
			}
		case y.c != nil:
			k := b(nil)
			out.b = func(m *machine) bool { return (a(m) == k) != not }
		default:
			out.b = func(m *machine) bool { return (a(m) == b(m)) != not }
		}
	default:
		xp, xo := c.stored(x)
		yp, yo := c.stored(y)
		eq := sameFunc(x.t)
		out.b = func(m *machine) bool {
			if xp != nil {
				xp(m)
			}
			if yp != nil {
				yp(m)
			}
			return eq(m.s, xo, yo) != not
		}
	}
	return out
}

// sameFunc compares two values in slots. Two headers are the same if both are invalid, or both valid and their fields the
// same.
func sameFunc(t *typ) func(s []uint64, x, y int) bool {
	plain := func(n int) func(s []uint64, x, y int) bool {
		return func(s []uint64, x, y int) bool { return wideEqual(s[x:x+n], s[y:y+n]) }
	}
	switch t.kind {
	case kindHeader:
		size := t.size
		return func(s []uint64, x, y int) bool {
			if s[x] != s[y] {
				return false
			}
			return s[x] == 0 || wideEqual(s[x+1:x+size], s[y+1:y+size])
		}
	case kindStack:
		eq, n, size := sameFunc(t.elem), t.n, t.elem.size
		return func(s []uint64, x, y int) bool {
			for i := range n {
				if !eq(s, x+1+i*size, y+1+i*size) {
					return false
				}
			}
			return true
		}
	case kindStruct, kindUnion, kindTuple:
		type part struct {
			off int
			eq  func(s []uint64, x, y int) bool
		}
		var parts []part
		for _, f := range t.fields {
			parts = append(parts, part{f.off, sameFunc(f.typ)})
		}
		return func(s []uint64, x, y int) bool {
			for _, p := range parts {
				if !p.eq(s, x+p.off, y+p.off) {
					return false
				}
			}
			return true
		}
	}
	return plain(t.size)
}
