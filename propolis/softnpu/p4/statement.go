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
	c.declare(sc, catValue, d.Pos, d.Name, &binding{v})
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
	y := c.expr(sc, s.Y)
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
	run := c.store(x.lv, y, x.t)
	if first != nil {
		run = sequence([]stmt{first, run})
	}
	return c.withExit(calls, run)
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
	if t.narrow() {
		x := c.narrow(v)
		return func(m *machine) signal { k := x(m); setBits(at(m), lo, w, k); return next }
	}
	// The source may be part of the place itself, so it is copied first.
	prep, src := c.stored(v)
	tmp, size := c.alloc(t.size), t.size
	return func(m *machine) signal {
		if prep != nil {
			prep(m)
		}
		copy(m.s[tmp:tmp+size], m.s[src:src+size])
		moveBits(at(m), lo, m.s[tmp:tmp+size], 0, w)
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

func (c *compiler) switchStatement(sc *scope, s *syntax.SwitchStmt) stmt {
	if sc.body.kind == bodyParser {
		c.errorf(s.Pos, "switch does not stand in a parser")
	}
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
			if isDefault || other != nil {
				c.errorf(cs.Pos, "this switch has two defaults")
			}
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

// transition compiles a transition of a parser.
func (c *compiler) transition(sc *scope, s *syntax.TransitionStmt) stmt {
	if sc.body.kind != bodyParser {
		c.errorf(s.Pos, "a transition stands only in a state of a parser")
		return nil
	}
	if s.Select == nil {
		to := c.state(sc, s.Next)
		return func(m *machine) signal { m.next = to; return moved }
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
		v := c.convert(c.expr(sc, cs.Keys[0]), keys[0].t, "the key")
		if v.c == nil {
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

// keySet compiles the test of one key against a value, a mask or a range; nil fits everything.
func (c *compiler) keySet(sc *scope, e syntax.Expr, key value) func(*machine) bool {
	if _, ok := e.(*syntax.AnyExpr); ok {
		return nil
	}
	never := func(*machine) bool { return false }
	if b, ok := e.(*syntax.BinaryExpr); ok && (b.Op == "&&&" || b.Op == "..") {
		x := c.convert(c.expr(sc, b.X), key.t, "the key")
		y := c.convert(c.expr(sc, b.Y), key.t, "the key")
		if x.bad() || y.bad() {
			return never
		}
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
	if _, ok := v.obj.(*syntax.ValueSetDecl); ok {
		return never
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

// zero is the number 0.
var zero = new(big.Int)
