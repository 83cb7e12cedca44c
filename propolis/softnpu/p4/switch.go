package p4

import (
	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"
)

// defaults sees to it that a switch has one default at most, and no label behind it.
func (c *compiler) defaults(cases []syntax.SwitchCase) {
	seen := false
	for _, cs := range cases {
		_, isDefault := cs.Label.(*syntax.AnyExpr)
		switch {
		case isDefault && seen:
			c.errorf(cs.Pos, "this switch has two defaults")
		case seen:
			c.errorf(cs.Pos, "a label stands behind the default of this switch, which comes last")
		}
		seen = seen || isDefault
	}
}

func (c *compiler) switchStatement(sc *scope, s *syntax.SwitchStmt) stmt {
	if sc.body.kind == bodyParser {
		c.errorf(s.Pos, "switch does not stand in a parser")
	}
	c.defaults(s.Cases)
	x := c.expr(sc, s.X)
	if x.bad() {
		return nil
	}
	if x.t.kind == kindAction {
		return c.switchAction(sc, s, x)
	}
	if !x.t.scalar() {
		c.errorf(x.pos, "a switch is over a number, an enum, or the action_run of a table, and this is %s", describeType(x))
		return nil
	}
	if x.t.kind == kindNumber {
		c.errorf(x.pos, "the number of a switch needs a width, as in 8w1")
		return nil
	}
	type branch struct {
		is   func(*machine) bool
		body stmt
	}
	var branches []branch
	var other stmt
	var pending []func(*machine) bool
	// The value is computed once, and every label is compared with that.
	x = c.snapshot(x)
	prep, off := c.stored(x)
	held := c.place(x.pos, x.t, &lvalue{off: off, flag: -1, advance: -1})
	isDefault, seen := false, map[string]bool{}
	for i, cs := range s.Cases {
		if _, ok := cs.Label.(*syntax.AnyExpr); ok {
			isDefault = true
		} else {
			label := c.convert(c.expr(sc, cs.Label), x.t, "the label")
			if label.bad() {
				continue
			}
			if label.c == nil {
				c.notConstant(label, "a label")
				continue
			}
			if seen[label.c.String()] {
				c.errorf(cs.Pos, "this switch has the label %s twice", label.c)
			}
			seen[label.c.String()] = true
			pending = append(pending, c.truth(c.equality("==", held, label, cs.Pos)))
		}
		if cs.Body == nil {
			if i == len(s.Cases)-1 {
				pending, isDefault = nil, false
			}
			continue
		}
		body := c.block(sc, cs.Body)
		for _, is := range pending {
			branches = append(branches, branch{is, body})
		}
		if isDefault {
			other = body
		}
		pending, isDefault = nil, false
	}
	calls := x.calls
	return func(m *machine) signal {
		if prep != nil {
			prep(m)
		}
		if calls && m.exiting {
			return exited
		}
		for i := range branches {
			if branches[i].is(m) {
				return branches[i].body(m)
			}
		}
		if other != nil {
			return other(m)
		}
		return next
	}
}

// switchAction is a switch over the action that a table ran.
func (c *compiler) switchAction(sc *scope, s *syntax.SwitchStmt, x value) stmt {
	info := x.table
	bodies := make([]stmt, len(info.Actions))
	var other stmt
	var pending []int
	isDefault, seen := false, map[int]bool{}
	for _, cs := range s.Cases {
		switch l := cs.Label.(type) {
		case *syntax.AnyExpr:
			isDefault = true
		case *syntax.IdentExpr:
			k := info.action(l.Name)
			if k < 0 {
				c.errorf(l.Pos, "table %s has no action %q", info.Name, l.Name)
				break
			}
			if seen[k] {
				c.errorf(l.Pos, "this switch has the action %s twice", l.Name)
			}
			seen[k] = true
			pending = append(pending, k)
		default:
			c.errorf(cs.Pos, "a label here is the name of an action")
		}
		if cs.Body == nil {
			continue
		}
		body := c.block(sc, cs.Body)
		for _, k := range pending {
			bodies[k] = body
		}
		if isDefault {
			other = body
		}
		pending, isDefault = nil, false
	}
	run := x.n
	return func(m *machine) signal {
		k := int(run(m))
		if m.exiting {
			return exited
		}
		if k < len(bodies) && bodies[k] != nil {
			return bodies[k](m)
		}
		if other != nil && (k >= len(bodies) || bodies[k] == nil) {
			return other(m)
		}
		return next
	}
}
