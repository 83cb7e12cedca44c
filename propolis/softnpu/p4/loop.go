package p4

import (
	"math/big"
	"strconv"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"
)

// maxRounds bounds how many rounds the loops of a block of the pipeline go through for one packet, all of them together.
const maxRounds = 1 << 16

// round counts one round of a loop, and says whether there may be one more.
func (m *machine) round() bool {
	if m.rounds--; m.rounds < 0 {
		m.fail(LoopLimit)
		m.next = stateReject
	}
	return m.fault == NotDropped
}

// loopBody compiles the body of a loop.
func (c *compiler) loopBody(sc *scope, s syntax.Stmt) stmt {
	sc.body.loops++
	defer func() { sc.body.loops-- }()
	return c.branch(sc, s)
}

func (c *compiler) breakStatement(sc *scope, s *syntax.BreakStmt) stmt {
	word, sig := "break", broken
	if s.Continue {
		word, sig = "continue", continued
	}
	if sc.body.loops == 0 {
		c.errorf(s.Pos, "%s stands only in a loop", word)
		return nil
	}
	return func(*machine) signal { return sig }
}

// forStatement compiles for (init; condition; update) body.
func (c *compiler) forStatement(sc *scope, s *syntax.ForStmt) stmt {
	sc = sc.inner()
	init := sequence(c.statements(sc, s.Init))
	cond := c.condition(sc, s.C)
	update := sequence(c.statements(sc, s.Update))
	body := c.loopBody(sc, s.Body)
	if cond.bad() {
		return nil
	}
	is := c.truth(cond)
	return func(m *machine) signal {
		sig := init(m)
		for ; sig == next && is(m) && !m.exiting && m.round(); sig = update(m) {
			if sig = body(m); sig == broken {
				return next
			} else if sig != next && sig != continued {
				return sig
			}
		}
		return m.leaves(sig)
	}
}

// leaves is how a loop ends whose condition no longer holds, or could not be computed.
func (m *machine) leaves(sig signal) signal {
	switch {
	case m.exiting:
		return exited
	case m.fault == LoopLimit:
		// The packet is dropped, whatever follows.
		return exited
	}
	return sig
}

// forIn compiles for (T x in a .. b) body, and the loop over the elements of a stack, a tuple or a list.
func (c *compiler) forIn(sc *scope, s *syntax.ForInStmt) stmt {
	sc = sc.inner()
	t := c.resolveType(sc, s.Type)
	x := c.expr(sc, s.X)
	if s.To != nil {
		return c.forRange(sc, s, t, x)
	}
	if x.list != nil && x.t.kind == kindList {
		x = c.convertList(x, c.tupleOf(s.Pos, t, len(x.list)), "this list")
	}
	var set []stmt
	to := &lvalue{off: c.alloc(t.size), flag: -1, advance: -1}
	var first func(*machine)
	switch {
	case x.bad() || t.kind == kindBad:
		return nil
	case x.t.kind == kindStack || x.t.kind == kindTuple:
		// What is gone through is what there is when the loop begins.
		x.list = nil
		x = c.snapshot(x)
		prep, at := c.stored(x)
		first = prep
		for _, f := range elements(x.t) {
			e := c.place(x.pos, f.typ, &lvalue{off: at + f.off, flag: -1, advance: -1})
			set = append(set, c.store(to, c.convert(e, t, "variable "+s.Name.Text), t))
		}
	default:
		c.errorf(x.pos, "a loop goes over a range, a stack, a tuple or a list, and this is %s", describeType(x))
	}
	body := c.forInBody(sc, s, t, to)
	return func(m *machine) signal {
		if first != nil {
			first(m)
		}
		for _, f := range set {
			if m.exiting || !m.round() {
				break
			}
			f(m)
			if sig := body(m); sig == broken {
				return next
			} else if sig != next && sig != continued {
				return sig
			}
		}
		return m.leaves(next)
	}
}

// tupleOf is the type of so many values of one type.
func (c *compiler) tupleOf(pos syntax.Pos, t *typ, n int) *typ {
	out := &typ{kind: kindTuple, name: "list<" + t.name + ">"}
	for i := range n {
		out.fields = append(out.fields, field{name: strconv.Itoa(i), typ: t})
	}
	c.layout(pos, out, 0)
	return out
}

// elements are those of a stack or a tuple, with their places in it.
func elements(t *typ) []field {
	if t.kind == kindTuple {
		return t.fields
	}
	var out []field
	for i := range t.n {
		out = append(out, field{typ: t.elem, off: 1 + i*t.elem.size})
	}
	return out
}

// forInBody declares the variable of a loop and compiles its body.
func (c *compiler) forInBody(sc *scope, s *syntax.ForInStmt, t *typ, at *lvalue) stmt {
	c.declare(sc, catValue, s.Name.Pos, s.Name.Text, &binding{v: c.place(s.Name.Pos, t, at)})
	return c.loopBody(sc, s.Body)
}

// forRange compiles the loop over the numbers from x to another, both included. They are computed once.
func (c *compiler) forRange(sc *scope, s *syntax.ForInStmt, t *typ, x value) stmt {
	x = c.convert(x, t, "the first number of the loop")
	y := c.convert(c.expr(sc, s.To), t, "the last number of the loop")
	if !x.bad() && !y.bad() && !t.integer() {
		c.errorf(s.Type.At(), "a range has numbers of type bit<W> or int<W>, and not %s", t)
		x = c.badValue(s.Pos)
	}
	at := &lvalue{off: c.alloc(t.size), flag: -1, advance: -1}
	body := c.forInBody(sc, s, t, at)
	if x.bad() || y.bad() {
		return nil
	}
	var before []stmt
	hold := func(v value) value {
		slot := &lvalue{off: c.alloc(t.size), flag: -1, advance: -1}
		before = append(before, c.store(slot, v, t))
		return c.place(v.pos, t, slot)
	}
	x, y = hold(x), hold(y)
	// The code may assign to its variable, and that changes nothing of what the loop goes through.
	count := &lvalue{off: c.alloc(t.size), flag: -1, advance: -1}
	i := c.place(s.Pos, t, count)
	some := c.truth(c.operate("<=", x, y, s.Pos))
	last := c.truth(c.equality("==", i, y, s.Pos))
	start, set := c.store(count, x, t), c.store(at, i, t)
	step := c.store(count, c.operate("+", i, constValue(s.Pos, t, big.NewInt(1)), s.Pos), t)
	first := sequence(before)
	return func(m *machine) signal {
		first(m)
		if m.exiting || !some(m) {
			return m.leaves(next)
		}
		for start(m); m.round(); step(m) {
			set(m)
			if sig := body(m); sig == broken {
				return next
			} else if sig != next && sig != continued {
				return sig
			}
			if last(m) {
				break
			}
		}
		return m.leaves(next)
	}
}
