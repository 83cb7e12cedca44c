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
	case *syntax.PlusSliceExpr:
		return c.plusSlice(sc, e)
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
