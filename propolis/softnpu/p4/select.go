package p4

import (
	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"
)

// transition compiles a transition of a parser.
func (c *compiler) transition(sc *scope, s *syntax.TransitionStmt) stmt {
	if sc.body.kind != bodyParser {
		c.errorf(s.Pos, "a transition stands only in a state of a parser")
		return nil
	}
	if s.Next.Text != "" {
		to := c.state(sc, s.Next)
		return func(m *machine) signal { m.next = to; return moved }
	}
	if len(s.Select) == 0 {
		c.errorf(s.Pos, "select() needs something to select on")
		return nil
	}
	var keys []value
	for _, e := range s.Select {
		v := c.expr(sc, e)
		if v.bad() {
			return nil
		}
		if v.t.kind == kindNumber {
			c.errorf(v.pos, "what is selected on needs a width, as in 8w1")
			return nil
		}
		if !v.t.scalar() {
			c.errorf(v.pos, "%s cannot be selected on", describeType(v))
			return nil
		}
		keys = append(keys, v)
	}
	// Each key is computed once, and before those behind it.
	preps := make([]func(*machine), len(keys))
	for i, v := range keys {
		for _, later := range keys[i+1:] {
			if later.calls {
				v = c.snapshot(v)
			}
		}
		prep, off := c.stored(v)
		preps[i] = prep
		keys[i] = c.place(v.pos, v.t, &lvalue{off: off, flag: -1, advance: -1})
	}
	type line struct {
		tests []func(*machine) bool
		to    int
	}
	var lines []line
	all := false
	for _, cs := range s.Cases {
		l := line{to: c.state(sc, cs.Next)}
		if all {
			c.rep.Warnf(cs.Pos, "this case is never reached, a case before it fits everything")
		}
		if len(cs.Keys) == 1 && len(keys) != 1 {
			if _, ok := cs.Keys[0].(*syntax.AnyExpr); ok {
				lines, all = append(lines, l), true
				continue
			}
		}
		if vs := c.setLabel(sc, cs.Keys); vs != nil {
			l.tests = append(l.tests, c.inSet(vs, keys, cs.Pos))
			lines = append(lines, l)
			continue
		}
		if len(cs.Keys) != len(keys) {
			c.errorf(cs.Pos, "this case has %d keys, and %d are selected on", len(cs.Keys), len(keys))
			continue
		}
		for i, k := range cs.Keys {
			if test := c.keySet(sc, k, keys[i]); test != nil {
				l.tests = append(l.tests, test)
			}
		}
		all = all || len(l.tests) == 0
		lines = append(lines, l)
	}
	if run := c.selectTable(keys, preps, s, sc); run != nil {
		return run
	}
	return func(m *machine) signal {
		for _, p := range preps {
			if p != nil {
				p(m)
			}
		}
	lines:
		for i := range lines {
			l := &lines[i]
			for _, test := range l.tests {
				if !test(m) {
					continue lines
				}
			}
			m.next = l.to
			return moved
		}
		m.fail(NoSelectMatch)
		m.parserError = errNoMatch
		m.next = stateReject
		return moved
	}
}

// selectTable makes the most usual kind of select, one key against constants, a plain comparison of numbers.
func (c *compiler) selectTable(keys []value, preps []func(*machine), s *syntax.TransitionStmt, sc *scope) stmt {
	if len(keys) != 1 || !keys[0].t.narrow() || c.rep.Failed() {
		return nil
	}
	type line struct {
		k  uint64
		to int
	}
	var lines []line
	other := stateReject
	hasOther := false
	for _, cs := range s.Cases {
		if len(cs.Keys) != 1 {
			return nil
		}
		if _, ok := cs.Keys[0].(*syntax.AnyExpr); ok {
			other, hasOther = c.state(sc, cs.Next), true
			break
		}
		if b, ok := cs.Keys[0].(*syntax.BinaryExpr); ok && (b.Op == "&&&" || b.Op == "..") {
			return nil
		}
		v := c.expr(sc, cs.Keys[0])
		if _, ok := v.obj.(*valueSet); ok {
			return nil
		}
		if v = c.convert(v, keys[0].t, "the key"); v.c == nil {
			return nil
		}
		lines = append(lines, line{toLimbs(v.c, v.t.width)[0], c.state(sc, cs.Next)})
	}
	prep, off := preps[0], keys[0].off
	return func(m *machine) signal {
		if prep != nil {
			prep(m)
		}
		k := m.s[off]
		for i := range lines {
			if lines[i].k == k {
				m.next = lines[i].to
				return moved
			}
		}
		if !hasOther {
			m.fail(NoSelectMatch)
			m.parserError = errNoMatch
		}
		m.next = other
		return moved
	}
}

// maskPart is one side of &&& or .. in the key of a type: numbers as well as members where the type is an enum.
func (c *compiler) maskPart(sc *scope, e syntax.Expr, t *typ) value {
	v := c.expr(sc, e)
	if t.numbered() {
		return c.convert(c.number(v), t.elem, "the key")
	}
	v = c.convert(v, t, "the key")
	v.t = plainType(v.t)
	return v
}

// plainType is the type of the numbers that the values of a type are.
func plainType(t *typ) *typ {
	for {
		switch {
		case t.under != nil:
			t = t.under
		case t.numbered():
			t = t.elem
		default:
			return t
		}
	}
}

// keySet compiles the test of one key against a value, a mask or a range; nil fits everything.
func (c *compiler) keySet(sc *scope, e syntax.Expr, key value) func(*machine) bool {
	if _, ok := e.(*syntax.AnyExpr); ok {
		return nil
	}
	never := func(*machine) bool { return false }
	if b, ok := e.(*syntax.BinaryExpr); ok && (b.Op == "&&&" || b.Op == "..") {
		x, y := c.maskPart(sc, b.X, key.t), c.maskPart(sc, b.Y, key.t)
		if x.bad() || y.bad() {
			return never
		}
		key.t = plainType(key.t)
		if b.Op == ".." {
			if x.c != nil && y.c != nil && x.c.Cmp(y.c) > 0 {
				c.errorf(b.Pos, "the range from %s to %s is empty", x.c, y.c)
			}
			lo := c.truth(c.operate("<=", x, key, b.Pos))
			hi := c.truth(c.operate("<=", key, y, b.Pos))
			return func(m *machine) bool { return lo(m) && hi(m) }
		}
		return c.truth(c.equality("==", c.operate("&", key, y, b.Pos), c.operate("&", x, y, b.Pos), b.Pos))
	}
	v := c.expr(sc, e)
	if vs, ok := v.obj.(*valueSet); ok {
		return c.inSet(vs, []value{key}, e.At())
	}
	v = c.convert(v, key.t, "the key")
	if v.bad() {
		return never
	}
	return c.truth(c.equality("==", key, v, e.At()))
}

// state finds a state of the parser by its name.
func (c *compiler) state(sc *scope, n syntax.Name) int {
	switch n.Text {
	case "accept":
		return stateAccept
	case "reject":
		return stateReject
	}
	k, ok := sc.body.states[n.Text]
	if !ok {
		c.errorf(n.Pos, "there is no state %q", n.Text)
		return stateReject
	}
	return k
}
