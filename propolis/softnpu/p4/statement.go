package p4

import (
	"math/big"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"
)

// maxStatements bounds the compiled program: a control is compiled once for every place that applies it, which can
// multiply.
const maxStatements = 1 << 18

// block compiles statements in a scope of their own.
func (c *compiler) block(sc *scope, b *syntax.Block) stmt {
	if b == nil {
		return sequence(nil)
	}
	return sequence(c.statements(sc.inner(), b.Stmts))
}

func (c *compiler) statements(sc *scope, list []syntax.Stmt) []stmt {
	var out []stmt
	for _, s := range list {
		if c.rep.Full() {
			break
		}
		if run := c.statement(sc, s); run != nil {
			out = append(out, run)
		}
	}
	return out
}

func (c *compiler) statement(sc *scope, s syntax.Stmt) stmt {
	if !c.counted(s.At()) {
		return nil
	}
	switch s := s.(type) {
	case *syntax.Block:
		return c.block(sc, s)
	case *syntax.EmptyStmt:
		return nil
	case *syntax.DeclStmt:
		return c.local(sc, s.Decl)
	case *syntax.AssignStmt:
		return c.assign(sc, s)
	case *syntax.CallStmt:
		return c.callStatement(sc, s)
	case *syntax.IfStmt:
		return c.ifStatement(sc, s)
	case *syntax.ForStmt:
		return c.forStatement(sc, s)
	case *syntax.ForInStmt:
		return c.forIn(sc, s)
	case *syntax.BreakStmt:
		return c.breakStatement(sc, s)
	case *syntax.ReturnStmt:
		return c.returnStatement(sc, s)
	case *syntax.ExitStmt:
		if sc.body.kind == bodyParser || sc.body.kind == bodyFunction {
			c.errorf(s.Pos, "exit stands only in a control or an action")
		}
		return func(m *machine) signal { m.exiting = true; return exited }
	case *syntax.SwitchStmt:
		return c.switchStatement(sc, s)
	case *syntax.TransitionStmt:
		return c.transition(sc, s)
	}
	c.errorf(s.At(), "this statement is not supported")
	return nil
}

// counted counts a statement, and says whether the program may still grow.
func (c *compiler) counted(pos syntax.Pos) bool {
	if c.count++; c.count > maxStatements && !c.tooLarge {
		c.tooLarge = true
		c.errorf(pos, "the program has more than %d statements once its controls are put in their places", maxStatements)
	}
	return c.count <= maxStatements
}

// local compiles a declaration among statements.
func (c *compiler) local(sc *scope, d syntax.Decl) stmt {
	switch d := d.(type) {
	case *syntax.ConstDecl:
		k := &constant{decl: d, sc: sc}
		c.constantValue(k)
		c.declare(sc, catValue, d.Pos, d.Name, k)
		return nil
	case *syntax.VarDecl:
		return c.variable(sc, d)
	}
	c.errorf(d.At(), "%s cannot be declared among statements", d.DeclName())
	return nil
}

// variable gives a variable its slots, and the statement that gives it its first value. One without a value begins as
// zero or invalid, so that nothing of another packet can be seen in it.
func (c *compiler) variable(sc *scope, d *syntax.VarDecl) stmt {
	t := c.resolveType(sc, d.Type)
	switch t.kind {
	case kindVoid, kindString, kindExtern, kindNumber:
		c.errorf(d.Type.At(), "a variable cannot have the type %s", t)
		t = badType
	}
	off := c.alloc(t.size)
	lv := &lvalue{off: off, flag: -1, advance: -1}
	var run stmt
	if d.Value != nil {
		run = c.store(lv, c.convert(c.expr(sc, d.Value), t, "variable "+d.Name), t)
	} else {
		run = clearStmt(off, t.size)
	}
	v := c.place(d.Pos, t, lv)
	c.declare(sc, catValue, d.Pos, d.Name, &binding{v: v})
	return run
}

func clearStmt(off, size int) stmt {
	if size == 1 {
		return func(m *machine) signal { m.s[off] = 0; return next }
	}
	return func(m *machine) signal { clear(m.s[off : off+size]); return next }
}

// assignable says whether a value is a place that may be written, and tells why if it may not.
func (c *compiler) assignable(v value) bool {
	switch {
	case v.bad():
		return false
	case v.lv == nil || v.c != nil:
		c.errorf(v.pos, "this cannot be assigned to")
		return false
	case v.readOnly != "":
		c.errorf(v.pos, "%s cannot be assigned to", v.readOnly)
		return false
	}
	return true
}

func (c *compiler) assign(sc *scope, s *syntax.AssignStmt) stmt {
	x := c.expr(sc, s.X)
	applied := c.applied
	y := c.expr(sc, s.Y)
	applies := c.applied > applied
	if !c.assignable(x) || y.bad() {
		return nil
	}
	calls := x.calls || y.calls
	var first stmt
	if calls {
		x, first = c.pin(x)
	}
	if s.Op != "" {
		y = c.operate(s.Op, x, y, s.Pos)
	}
	y = c.convert(y, x.t, "the left side")
	if y.bad() {
		return nil
	}
	var before []stmt
	if first != nil {
		before = append(before, first)
	}
	if applies {
		// An exit in what is computed leaves the place as it is.
		prep, off := c.stored(y)
		y = c.place(y.pos, y.t, &lvalue{off: off, flag: -1, advance: -1})
		if prep != nil {
			before = append(before, c.withExit(true, func(m *machine) signal { prep(m); return next }))
		}
	}
	return c.withExit(calls, sequence(append(before, c.store(x.lv, y, x.t))))
}

// withExit makes a statement end the block when an action in its expression did.
func (c *compiler) withExit(calls bool, run stmt) stmt {
	if !calls || run == nil {
		return run
	}
	return func(m *machine) signal {
		sig := run(m)
		if m.exiting {
			return exited
		}
		return sig
	}
}

// store compiles an assignment.
func (c *compiler) store(lv *lvalue, v value, t *typ) stmt {
	if t.holds(func(u *typ) bool { return u.kind == kindHeader }) {
		c.makesValid(lv.span(t.size))
	}
	c.writes(lv.span(t.size))
	if v.bad() || t.kind == kindBad {
		return func(*machine) signal { return next }
	}
	if v.list != nil && v.t.kind == kindList {
		v = c.convertList(v, t, "this place")
		if v.bad() {
			return func(*machine) signal { return next }
		}
	}
	if len(lv.siblings) > 0 && t.kind == kindHeader && lv.dyn != nil {
		// What is stored may be what the index is made of.
		pinned, first := c.pin(value{t: t, pos: v.pos, lv: lv})
		return sequence([]stmt{first, c.storeMember(pinned.lv, v, t)})
	}
	return c.storeMember(lv, v, t)
}

// storeMember stores a value, and notes that a place was assigned to or that the other members of a union are invalid.
func (c *compiler) storeMember(lv *lvalue, v value, t *typ) stmt {
	run := c.storePlain(lv, v, t)
	if flag := lv.flag; flag >= 0 {
		plain := run
		run = func(m *machine) signal {
			plain(m)
			m.s[flag] = 1
			return next
		}
	}
	if len(lv.siblings) > 0 && t.kind == kindHeader {
		off, dyn, plain, siblings := lv.off, lv.dyn, run, lv.siblings
		run = func(m *machine) signal {
			plain(m)
			at := off
			if dyn != nil {
				at += dyn(m)
			}
			if m.s[at] != 0 {
				for _, s := range siblings {
					m.s[at+s] = 0
				}
			}
			return next
		}
	}
	return run
}

func (c *compiler) storePlain(lv *lvalue, v value, t *typ) stmt {
	off, dyn := lv.off, lv.dyn
	switch {
	case lv.sliced:
		return c.storeSlice(lv, v, t)
	case t.kind == kindBool && v.c == nil && !v.direct:
		b := c.truth(v)
		if dyn == nil {
			return func(m *machine) signal {
				var x uint64
				if b(m) {
					x = 1
				}
				m.s[off] = x
				return next
			}
		}
		return func(m *machine) signal {
			var x uint64
			if b(m) {
				x = 1
			}
			m.s[off+dyn(m)] = x
			return next
		}
	case t.narrow() && dyn != nil:
		n := c.narrow(v)
		return func(m *machine) signal { x := n(m); m.s[off+dyn(m)] = x; return next }
	case t.narrow() && v.c != nil:
		k := toLimbs(v.c, t.width)[0]
		return func(m *machine) signal { m.s[off] = k; return next }
	case t.narrow() && v.direct:
		src := v.off
		return func(m *machine) signal { m.s[off] = m.s[src]; return next }
	case t.narrow():
		n := c.narrow(v)
		return func(m *machine) signal { m.s[off] = n(m); return next }
	}
	list := v.list
	v.list = nil
	if list != nil && v.prep == nil {
		v.list = list
		v = c.materialize(v)
	}
	prep, src := c.stored(v)
	size := t.size
	return func(m *machine) signal {
		if prep != nil {
			prep(m)
		}
		at := off
		if dyn != nil {
			at += dyn(m)
		}
		copy(m.s[at:at+size], m.s[src:src+size])
		return next
	}
}

func (c *compiler) callStatement(sc *scope, s *syntax.CallStmt) stmt {
	call, ok := s.Call.(*syntax.CallExpr)
	if !ok {
		c.expr(sc, s.Call)
		c.errorf(s.Pos, "this statement has no effect")
		return nil
	}
	v := c.call(sc, call)
	if v.bad() {
		return nil
	}
	if run, ok := v.obj.(stmt); ok {
		return run
	}
	if n := v.n; n != nil && v.c == nil {
		// The apply of a table, most often.
		return func(m *machine) signal {
			if n(m); m.exiting {
				return exited
			}
			return next
		}
	}
	return c.withExit(true, c.effect(v))
}

// effect runs an expression for what it does.
func (c *compiler) effect(v value) stmt {
	switch {
	case v.c != nil:
		return nil
	case v.b != nil:
		b := v.b
		return func(m *machine) signal { b(m); return next }
	case v.n != nil:
		n := v.n
		return func(m *machine) signal { n(m); return next }
	case v.prep != nil:
		p := v.prep
		return func(m *machine) signal { p(m); return next }
	}
	return nil
}

func (c *compiler) ifStatement(sc *scope, s *syntax.IfStmt) stmt {
	cond := c.condition(sc, s.C)
	then := c.branch(sc, s.Then)
	var other stmt
	if s.Else != nil {
		other = c.branch(sc, s.Else)
	}
	if cond.bad() {
		return nil
	}
	if cond.direct && !cond.calls {
		return ifSlot(cond.off, then, other)
	}
	b := c.truth(cond)
	if cond.calls {
		plain := b
		return func(m *machine) signal {
			ok := plain(m)
			switch {
			case m.exiting:
				return exited
			case ok:
				return then(m)
			case other != nil:
				return other(m)
			}
			return next
		}
	}
	if other == nil {
		return func(m *machine) signal {
			if b(m) {
				return then(m)
			}
			return next
		}
	}
	return func(m *machine) signal {
		if b(m) {
			return then(m)
		}
		return other(m)
	}
}

// ifSlot is an if whose condition is a slot, as whether a header is valid is one.
func ifSlot(off int, then, other stmt) stmt {
	if other == nil {
		return func(m *machine) signal {
			if m.s[off] != 0 {
				return then(m)
			}
			return next
		}
	}
	return func(m *machine) signal {
		if m.s[off] != 0 {
			return then(m)
		}
		return other(m)
	}
}

func (c *compiler) branch(sc *scope, s syntax.Stmt) stmt {
	if run := c.statement(sc.inner(), s); run != nil {
		return run
	}
	return sequence(nil)
}

func (c *compiler) returnStatement(sc *scope, s *syntax.ReturnStmt) stmt {
	b := sc.body
	switch {
	case b.kind == bodyParser:
		c.errorf(s.Pos, "return does not stand in a parser")
		return nil
	case b.kind == bodyFunction && b.result.kind != kindVoid:
		if s.X == nil {
			c.errorf(s.Pos, "this function returns %s", b.result)
			return nil
		}
		v := c.convert(c.expr(sc, s.X), b.result, "the result")
		run := c.store(&lvalue{off: b.off, flag: -1, advance: -1}, v, b.result)
		return func(m *machine) signal { run(m); return returned }
	case s.X != nil:
		c.errorf(s.Pos, "nothing is returned here")
	}
	return func(*machine) signal { return returned }
}

// zero is the number 0.
var zero = new(big.Int)
