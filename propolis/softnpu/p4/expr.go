package p4

import (
	"math/big"
	"slices"
	"strconv"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"
)

func (c *compiler) errorf(pos syntax.Pos, format string, args ...any) {
	c.rep.Errorf(pos, format, args...)
}

// expr compiles an expression.
func (c *compiler) expr(sc *scope, e syntax.Expr) value {
	switch e := e.(type) {
	case *syntax.IntExpr:
		switch {
		case e.Width == 0:
			return constValue(e.Pos, numberType, e.Value)
		case e.Signed:
			return constValue(e.Pos, intType(e.Width), e.Value)
		}
		return constValue(e.Pos, bitType(e.Width), e.Value)
	case *syntax.BoolExpr:
		return boolConst(e.Pos, e.Value)
	case *syntax.StringExpr:
		return value{t: stringType, pos: e.Pos, str: e.Value}
	case *syntax.IdentExpr:
		return c.ident(sc, e)
	case *syntax.MemberExpr:
		return c.member(sc, e)
	case *syntax.IndexExpr:
		return c.index(sc, e)
	case *syntax.SliceExpr:
		return c.slice(sc, e)
	case *syntax.UnaryExpr:
		return c.unary(sc, e)
	case *syntax.BinaryExpr:
		return c.binary(sc, e)
	case *syntax.CondExpr:
		return c.conditional(sc, e)
	case *syntax.CastExpr:
		t := c.resolveType(sc, e.Type)
		return c.cast(c.expr(sc, e.X), t, e.Pos)
	case *syntax.CallExpr:
		return c.call(sc, e)
	case *syntax.ListExpr:
		v := value{t: listType, pos: e.Pos, list: []value{}}
		for _, el := range e.Elems {
			x := c.expr(sc, el.Value)
			v.calls = v.calls || x.calls
			v.list = append(v.list, x)
			if el.Name.Text != "" {
				v.names = append(v.names, el.Name)
			}
		}
		if len(v.names) > 0 && len(v.names) != len(v.list) {
			c.errorf(e.Pos, "either all elements of a list have names or none")
			v.names = nil
		}
		return v
	case *syntax.InvalidExpr:
		return value{t: listType, pos: e.Pos, list: []value{}, invalid: true}
	case *syntax.TypeExpr:
		return value{t: voidType, pos: e.Pos, obj: c.resolveType(sc, e.Type)}
	case *syntax.AnyExpr:
		c.errorf(e.Pos, "\"_\" has no value here")
	}
	return c.badValue(e.At())
}

// constInt works out an integer that has to be known before the program runs; nil after an error.
func (c *compiler) constInt(sc *scope, e syntax.Expr, what string) *big.Int {
	v := c.expr(sc, e)
	if v.bad() {
		return nil
	}
	v = c.number(v)
	if v.c == nil || !v.t.numeric() {
		c.notConstant(v, what)
		return nil
	}
	return v.c
}

func (c *compiler) notConstant(v value, what string) {
	if !v.bad() {
		c.errorf(v.pos, "%s has to be a constant number", what)
	}
}

func (c *compiler) ident(sc *scope, e *syntax.IdentExpr) value {
	if e.Global {
		sc = c.global
	}
	ent := sc.lookup(catValue, e.Name)
	if ent == nil {
		ent = sc.lookup(catAction, e.Name)
	}
	if ent == nil {
		ent = sc.lookup(catType, e.Name)
	}
	switch x := ent.(type) {
	case nil:
		c.errorf(e.Pos, "%q is not declared", e.Name)
		return c.badValue(e.Pos)
	case *binding:
		v := x.v
		v.pos = e.Pos
		return v
	case *constant:
		v := c.constantValue(x)
		v.pos = e.Pos
		return v
	case *typeDecl:
		return value{t: voidType, pos: e.Pos, obj: c.declaredType(x)}
	default:
		return value{t: voidType, pos: e.Pos, obj: x}
	}
}

func (c *compiler) constantValue(k *constant) value {
	if k.v != nil {
		return *k.v
	}
	if k.pending {
		c.errorf(k.decl.Pos, "constant %s is defined by itself", k.decl.Name)
		return c.badValue(k.decl.Pos)
	}
	k.pending = true
	t := c.resolveType(k.sc, k.decl.Type)
	v := c.convert(c.expr(k.sc, k.decl.Value), t, "constant "+k.decl.Name)
	if v.c == nil && !v.bad() && v.t.kind != kindString && !c.constantList(v) {
		c.errorf(k.decl.Value.At(), "the value of constant %s is not known before the program runs", k.decl.Name)
		v = c.badValue(k.decl.Pos)
	}
	k.pending = false
	k.v = &v
	return v
}

// constantList says whether a list or struct is made of constants.
func (c *compiler) constantList(v value) bool {
	if v.list == nil {
		return false
	}
	for _, x := range v.list {
		if x.c == nil && !c.constantList(x) {
			return false
		}
	}
	return true
}

func (c *compiler) member(sc *scope, e *syntax.MemberExpr) value {
	x := c.expr(sc, e.X)
	if x.bad() {
		return x
	}
	name := e.Name.Text
	if x.obj != nil {
		return c.objectMember(x, e)
	}
	if x.list != nil {
		for i, n := range x.names {
			if n.Text == name {
				return x.list[i]
			}
		}
	}
	switch x.t.kind {
	case kindHeader, kindStruct, kindUnion:
		f := x.t.field(name)
		if f == nil {
			if isMethod(x.t, name) {
				c.errorf(e.Pos, "%s is a method and needs (): %s()", name, name)
			} else {
				c.errorf(e.Pos, "%s %s has no field %q", typeWord(x.t), x.t, name)
			}
			return c.badValue(e.Pos)
		}
		return c.fieldOf(x, f, e.Pos)
	case kindStack:
		return c.stackMember(sc, x, e)
	case kindResult:
		return c.resultMember(x, e)
	}
	c.errorf(e.Pos, "a value of type %s has no member %q", x.t, name)
	return c.badValue(e.Pos)
}

func typeWord(t *typ) string {
	switch t.kind {
	case kindHeader:
		return "header"
	case kindUnion:
		return "header union"
	case kindStack:
		return "header stack"
	}
	return "struct"
}

func isMethod(t *typ, name string) bool {
	switch name {
	case "isValid", "minSizeInBits", "minSizeInBytes", "maxSizeInBits", "maxSizeInBytes":
		return true
	case "setValid", "setInvalid":
		return t.kind == kindHeader
	}
	return false
}

// fieldOf is the field of a header, struct or union.
func (c *compiler) fieldOf(x value, f *field, pos syntax.Pos) value {
	if x.lv == nil {
		// The value of a call or of a list lies in slots that nothing else is in.
		prep, off := c.stored(x)
		v := c.place(pos, f.typ, &lvalue{off: off + f.off, flag: -1, advance: -1})
		v.lv = nil
		return c.after(prep, v, x.calls)
	}
	lv := &lvalue{off: x.lv.off + f.off, dyn: x.lv.dyn, within: x.lv.within, flag: -1, advance: x.lv.advance, size: x.lv.size}
	if f.tracked && x.lv.dyn == nil {
		lv.flag = lv.off + 1
	}
	if x.t.kind == kindUnion {
		for i := range x.t.fields {
			if g := &x.t.fields[i]; g != f {
				lv.siblings = append(lv.siblings, g.off-f.off)
			}
		}
	}
	v := c.place(pos, f.typ, lv)
	v.readOnly, v.calls = x.readOnly, x.calls
	return v
}

// after makes a value that is computed when prep has run.
func (c *compiler) after(prep func(*machine), v value, calls bool) value {
	v.calls = v.calls || calls
	if prep == nil {
		return v
	}
	v.direct = false
	switch {
	case v.b != nil:
		b := v.b
		v.b = func(m *machine) bool { prep(m); return b(m) }
	case v.n != nil:
		n := v.n
		v.n = func(m *machine) uint64 { prep(m); return n(m) }
	case v.prep != nil:
		p := v.prep
		v.prep = func(m *machine) { prep(m); p(m) }
	default:
		v.prep = prep
	}
	return v
}

// objectMember is X.name where X is a type or an object.
func (c *compiler) objectMember(x value, e *syntax.MemberExpr) value {
	name := e.Name.Text
	t, ok := x.obj.(*typ)
	if !ok {
		c.errorf(e.Pos, "%q cannot be used as a value", name)
		return c.badValue(e.Pos)
	}
	switch t.kind {
	case kindEnum, kindError:
		i := slices.Index(t.members, name)
		if i < 0 {
			c.errorf(e.Pos, "%s has no member %q", t, name)
			return c.badValue(e.Pos)
		}
		if t.values != nil {
			return constValue(e.Pos, t, t.values[i])
		}
		return constValue(e.Pos, t, big.NewInt(int64(i)))
	}
	c.errorf(e.Pos, "type %s has no member %q", t, name)
	return c.badValue(e.Pos)
}

func (c *compiler) stackMember(sc *scope, x value, e *syntax.MemberExpr) value {
	n := x.t.n
	switch name := e.Name.Text; name {
	case "size":
		return constValue(e.Pos, bit32, big.NewInt(int64(n)))
	case "lastIndex", "last", "next":
		if x.lv == nil {
			c.errorf(e.Pos, "%s needs a stack that is a variable", name)
			return c.badValue(e.Pos)
		}
		if sc.body.kind != bodyParser {
			c.errorf(e.Pos, "%s of a header stack can be used only in a parser", name)
			return c.badValue(e.Pos)
		}
		base, dyn, size := x.lv.off, x.lv.dyn, x.t.elem.size
		count := func(m *machine) uint64 { return m.s[base] }
		if dyn != nil {
			count = func(m *machine) uint64 { return m.s[base+dyn(m)] }
		}
		if name == "lastIndex" {
			return value{t: bit32, pos: e.Pos, n: func(m *machine) uint64 { return (count(m) - 1) & ones(32) }}
		}
		last := name == "last"
		lv := &lvalue{off: base + 1, within: x.lv.span(x.t.size), flag: -1, advance: -1}
		lv.dyn = func(m *machine) int {
			i, shift := int(count(m)), 0
			if dyn != nil {
				shift = dyn(m)
			}
			if last {
				i--
			}
			if i < 0 || i >= n {
				m.fail(StackBounds)
				i = n
				clear(m.s[base+1+shift+n*size : base+1+shift+(n+1)*size])
			}
			return shift + i*size
		}
		if !last {
			lv.advance, lv.size = base, n
		}
		v := c.place(e.Pos, x.t.elem, lv)
		v.readOnly = x.readOnly
		return v
	}
	c.errorf(e.Pos, "a header stack has no member %q", e.Name.Text)
	return c.badValue(e.Pos)
}

func (c *compiler) index(sc *scope, e *syntax.IndexExpr) value {
	x, i := c.expr(sc, e.X), c.expr(sc, e.I)
	if x.bad() || i.bad() {
		return c.badValue(e.Pos)
	}
	i = c.number(i)
	if !i.t.numeric() {
		c.errorf(i.pos, "an index is a number, and this is %s", i.t)
		return c.badValue(e.Pos)
	}
	if x.t.kind == kindTuple || x.t.kind == kindList {
		if i.c == nil || !i.c.IsInt64() {
			c.notConstant(i, "the index of a tuple")
			return c.badValue(e.Pos)
		}
		k := i.c.Int64()
		if x.list != nil && k >= 0 && k < int64(len(x.list)) {
			return x.list[k]
		}
		f := x.t.field(strconv.FormatInt(k, 10))
		if f == nil {
			c.errorf(i.pos, "%s has no element %d", x.t, k)
			return c.badValue(e.Pos)
		}
		return c.fieldOf(x, f, e.Pos)
	}
	if x.t.kind != kindStack || x.lv == nil {
		c.errorf(e.Pos, "only a header stack or a tuple has elements, and this is %s", x.t)
		return c.badValue(e.Pos)
	}
	n, size, outer := x.t.n, x.t.elem.size, x.lv.dyn
	lv := &lvalue{off: x.lv.off + 1, dyn: outer, within: x.lv.span(x.t.size), flag: -1, advance: -1}
	switch {
	case i.c != nil:
		if i.c.Sign() < 0 || i.c.Cmp(big.NewInt(int64(n))) >= 0 {
			c.errorf(i.pos, "index %s is outside of a stack of %d", i.c, n)
			return c.badValue(e.Pos)
		}
		lv.off += int(i.c.Int64()) * size
	case i.t.width > 64:
		c.errorf(i.pos, "an index has up to 64 bits, and this has %d", i.t.width)
		return c.badValue(e.Pos)
	default:
		at, base := c.narrow(i), lv.off
		lv.dyn = func(m *machine) int {
			shift := 0
			if outer != nil {
				shift = outer(m)
			}
			k := at(m)
			if k >= uint64(n) {
				// Out of bounds reads as an invalid header, and writes to it go nowhere.
				clear(m.s[base+shift+n*size : base+shift+(n+1)*size])
				k = uint64(n)
			}
			return shift + int(k)*size
		}
	}
	v := c.place(e.Pos, x.t.elem, lv)
	v.readOnly, v.calls = x.readOnly, x.calls || i.calls
	return v
}

func (c *compiler) slice(sc *scope, e *syntax.SliceExpr) value {
	x := c.expr(sc, e.X)
	hi, lo := c.constInt(sc, e.Hi, "the bound of a slice"), c.constInt(sc, e.Lo, "the bound of a slice")
	if x.bad() || hi == nil || lo == nil {
		return c.badValue(e.Pos)
	}
	if x.t.numbered() {
		// The place stays one, and its bits are those of the number.
		x.t = x.t.elem
	}
	if !x.t.integer() {
		c.errorf(e.Pos, "only bit<W> and int<W> have slices, and this is %s", x.t)
		return c.badValue(e.Pos)
	}
	if lo.Sign() < 0 || hi.Cmp(lo) < 0 || hi.Cmp(big.NewInt(int64(x.t.width))) >= 0 {
		c.errorf(e.Pos, "the slice [%s:%s] is not within the %d bits", hi, lo, x.t.width)
		return c.badValue(e.Pos)
	}
	h, l := int(hi.Int64()), int(lo.Int64())
	t := bitType(h - l + 1)
	if x.c != nil {
		v := new(big.Int).SetBytes(bigBytes(toLimbs(x.c, x.t.width)))
		return constValue(e.Pos, t, mask(v.Rsh(v, uint(l)), t.width))
	}
	if x.lv != nil {
		lv := *x.lv
		if lv.sliced {
			l, h = lv.lo+l, lv.lo+h
		}
		lv.sliced, lv.hi, lv.lo = true, h, l
		v := c.place(e.Pos, t, &lv)
		v.readOnly, v.calls = x.readOnly, x.calls
		return v
	}
	return c.bitsOf(x, l, t, e.Pos)
}

// loadSlice is the value of a place that is a slice of bits.
func (c *compiler) loadSlice(v value) value {
	lv := *v.lv
	whole := lv
	whole.sliced = false
	var x value
	if lv.hi < 64 {
		x = c.place(v.pos, bitType(64), &whole)
	} else {
		x = c.place(v.pos, bitType(lv.hi+1), &whole)
	}
	out := c.bitsOf(x, lv.lo, v.t, v.pos)
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

func (c *compiler) conditional(sc *scope, e *syntax.CondExpr) value {
	cond := c.condition(sc, e.C)
	x, y := c.expr(sc, e.X), c.expr(sc, e.Y)
	if x.bad() || y.bad() {
		return c.badValue(e.Pos)
	}
	if x.t.kind == kindNumber && y.t.kind != kindNumber {
		x = c.convert(x, y.t, "this")
	} else if y.t.kind == kindNumber && x.t.kind != kindNumber {
		y = c.convert(y, x.t, "this")
	}
	if x.bad() || y.bad() {
		return c.badValue(e.Pos)
	}
	if !x.t.equal(y.t) || x.obj != nil || x.t.kind == kindList {
		c.errorf(e.Pos, "the two values of ?: are %s and %s, and need one type", x.t, y.t)
		return c.badValue(e.Pos)
	}
	if cond.c != nil {
		if cond.c.Sign() != 0 {
			return x
		}
		return y
	}
	if x.t.kind == kindNumber {
		c.errorf(e.Pos, "a value of ?: needs a width, as in 8w1, since it is chosen when the program runs")
		return c.badValue(e.Pos)
	}
	b := c.truth(cond)
	out := value{t: x.t, pos: e.Pos, calls: cond.calls || x.calls || y.calls}
	switch {
	case x.t.kind == kindBool:
		xb, yb := c.truth(x), c.truth(y)
		out.b = func(m *machine) bool {
			if b(m) {
				return xb(m)
			}
			return yb(m)
		}
	case x.t.narrow():
		xn, yn := c.narrow(x), c.narrow(y)
		out.n = func(m *machine) uint64 {
			if b(m) {
				return xn(m)
			}
			return yn(m)
		}
	default:
		dst, size := c.alloc(x.t.size), x.t.size
		xp, xo := c.stored(x)
		yp, yo := c.stored(y)
		out.off = dst
		out.prep = func(m *machine) {
			p, o := yp, yo
			if b(m) {
				p, o = xp, xo
			}
			if p != nil {
				p(m)
			}
			copy(m.s[dst:dst+size], m.s[o:o+size])
		}
	}
	return out
}

// condition compiles an expression that has to be a bool.
func (c *compiler) condition(sc *scope, e syntax.Expr) value {
	v := c.expr(sc, e)
	if !v.bad() && (v.t.kind != kindBool || v.t.under != nil) {
		c.errorf(v.pos, "a condition is a bool, and this is %s", describeType(v))
		return c.badValue(v.pos)
	}
	return v
}

func describeType(v value) string {
	if v.obj != nil || v.t.kind == kindVoid {
		return "no value"
	}
	return v.t.name
}
