package p4

import (
	"math/big"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"
)

// call compiles a call. What returns nothing is a value that has a stmt as its object.
func (c *compiler) call(sc *scope, e *syntax.CallExpr) value {
	switch f := e.Fun.(type) {
	case *syntax.MemberExpr:
		return c.method(sc, e, f)
	case *syntax.IdentExpr:
		scope := sc
		if f.Global {
			scope = c.global
		}
		switch ent := scope.lookup(catAction, f.Name).(type) {
		case *action:
			return c.callAction(sc, ent, e)
		case *function:
			if ent.decl.Extern {
				return c.externFunction(sc, e, ent.decl.Name)
			}
			return c.callFunction(sc, ent, e)
		}
		if scope.lookup(catValue, f.Name) != nil || scope.lookup(catType, f.Name) != nil {
			c.errorf(f.Pos, "%q cannot be called", f.Name)
		} else {
			c.errorf(f.Pos, "there is no action or function %q", f.Name)
		}
	default:
		c.errorf(e.Pos, "this cannot be called")
	}
	return c.badValue(e.Pos)
}

func void(pos syntax.Pos, run stmt) value { return value{t: voidType, pos: pos, obj: run, calls: true} }

// method compiles X.name(...).
func (c *compiler) method(sc *scope, e *syntax.CallExpr, f *syntax.MemberExpr) value {
	name := f.Name.Text
	x := c.receiver(sc, f.X)
	if x.bad() {
		return x
	}
	switch obj := x.obj.(type) {
	case *packetIn:
		return c.packetMethod(sc, e, name)
	case *packetOut:
		return c.emit(sc, e, name)
	case *tableSite:
		if name != "apply" {
			c.errorf(f.Pos, "a table has no method %q", name)
			return c.badValue(e.Pos)
		}
		if len(e.Args) > 0 {
			c.errorf(e.Pos, "the apply of a table takes no arguments")
		}
		return c.applyTable(sc, obj, e.Pos)
	case *instance:
		if name != "apply" {
			c.errorf(f.Pos, "%s has no method %q", obj.name, name)
			return c.badValue(e.Pos)
		}
		run := c.applyInstance(sc, obj, e.Args, e.Pos)
		if run == nil {
			return c.badValue(e.Pos)
		}
		return void(e.Pos, run)
	case *externInst:
		return c.externMethod(sc, obj, e, name)
	case *typ:
		return c.sizeMethod(obj, e, name)
	case nil:
	default:
		c.errorf(f.Pos, "there is no method %q here", name)
		return c.badValue(e.Pos)
	}
	return c.valueMethod(sc, x, e, name)
}

// receiver compiles the X of X.name(...). A control may be applied by its name without an instance.
func (c *compiler) receiver(sc *scope, x syntax.Expr) value {
	if id, ok := x.(*syntax.IdentExpr); ok && sc.lookup(catValue, id.Name) == nil && sc.body.inst != nil {
		ent := sc.lookup(catType, id.Name)
		_, isControl := ent.(*syntax.ControlDecl)
		_, isParser := ent.(*syntax.ParserDecl)
		if d, ok := ent.(syntax.Decl); ok && (isControl || isParser) {
			return value{t: voidType, pos: id.Pos, obj: c.instantiate(sc, id.Pos, id.Name, d, nil, d)}
		}
	}
	return c.expr(sc, x)
}

// noArgs reports arguments where there may be none.
func (c *compiler) noArgs(e *syntax.CallExpr, name string) {
	if len(e.Args) > 0 {
		c.errorf(e.Pos, "%s takes no arguments", name)
	}
}

func (c *compiler) sizeMethod(t *typ, e *syntax.CallExpr, name string) value {
	c.noArgs(e, name)
	lo, hi := bitsRange(t)
	switch name {
	case "minSizeInBits":
		return constValue(e.Pos, numberType, big.NewInt(int64(lo)))
	case "maxSizeInBits":
		return constValue(e.Pos, numberType, big.NewInt(int64(hi)))
	case "minSizeInBytes":
		return constValue(e.Pos, numberType, big.NewInt(int64(lo+7)/8))
	case "maxSizeInBytes":
		return constValue(e.Pos, numberType, big.NewInt(int64(hi+7)/8))
	}
	c.errorf(e.Pos, "type %s has no method %q", t, name)
	return c.badValue(e.Pos)
}

// bitsRange is how many bits a value takes in a packet, at least and at most.
func bitsRange(t *typ) (lo, hi int) {
	switch t.kind {
	case kindHeader:
		lo, hi = t.bits, t.bits
		if t.varbit != nil {
			hi += t.varbit.typ.width
		}
	case kindVarbit:
		hi = t.width
	case kindStack:
		l, h := bitsRange(t.elem)
		return l * t.n, h * t.n
	case kindUnion:
		for i, f := range t.fields {
			l, h := bitsRange(f.typ)
			if i == 0 || l < lo {
				lo = l
			}
			hi = max(hi, h)
		}
	case kindStruct, kindTuple:
		for _, f := range t.fields {
			l, h := bitsRange(f.typ)
			lo, hi = lo+l, hi+h
		}
	default:
		lo, hi = t.width, t.width
	}
	return lo, hi
}

// valueMethod compiles the methods of headers, unions and stacks.
func (c *compiler) valueMethod(sc *scope, x value, e *syntax.CallExpr, name string) value {
	unknown := func() value {
		c.errorf(e.Pos, "a value of type %s has no method %q", x.t, name)
		return c.badValue(e.Pos)
	}
	switch x.t.kind {
	case kindHeader, kindUnion:
		switch name {
		case "isValid":
			c.noArgs(e, name)
			return c.isValid(x, e.Pos)
		case "setValid", "setInvalid":
			if x.t.kind != kindHeader {
				return unknown()
			}
			c.noArgs(e, name)
			if !c.assignable(x) {
				return c.badValue(e.Pos)
			}
			return void(e.Pos, c.setValid(x.lv, name == "setValid"))
		}
		if isMethod(x.t, name) {
			return c.sizeMethod(x.t, e, name)
		}
	case kindStack:
		if name == "push_front" || name == "pop_front" {
			return c.shiftStack(sc, x, e, name == "push_front")
		}
		if isMethod(x.t, name) && name != "isValid" {
			return c.sizeMethod(x.t, e, name)
		}
	default:
		if isMethod(x.t, name) && name != "isValid" {
			return c.sizeMethod(x.t, e, name)
		}
	}
	return unknown()
}

func (c *compiler) isValid(x value, pos syntax.Pos) value {
	out := value{t: boolType, pos: pos, calls: x.calls}
	var at []int
	if x.t.kind == kindHeader {
		at = []int{0}
	} else {
		for _, f := range x.t.fields {
			at = append(at, f.off)
		}
	}
	if x.lv != nil && x.lv.dyn != nil {
		off, dyn := x.lv.off, x.lv.dyn
		out.b = func(m *machine) bool {
			base := off + dyn(m)
			for _, k := range at {
				if m.s[base+k] != 0 {
					return true
				}
			}
			return false
		}
		return out
	}
	prep, off := c.stored(x)
	if prep == nil && len(at) == 1 {
		out.b = func(m *machine) bool { return m.s[off] != 0 }
		return out
	}
	out.b = func(m *machine) bool {
		if prep != nil {
			prep(m)
		}
		for _, k := range at {
			if m.s[off+k] != 0 {
				return true
			}
		}
		return false
	}
	return out
}

func (c *compiler) setValid(lv *lvalue, valid bool) stmt {
	off, dyn, siblings := lv.off, lv.dyn, lv.siblings
	var to uint64
	if valid {
		to = 1
	} else {
		siblings = nil
	}
	if dyn == nil && len(siblings) == 0 {
		return func(m *machine) signal { m.s[off] = to; return next }
	}
	return func(m *machine) signal {
		at := off
		if dyn != nil {
			at += dyn(m)
		}
		m.s[at] = to
		for _, s := range siblings {
			m.s[at+s] = 0
		}
		return next
	}
}

// shiftStack compiles push_front and pop_front.
func (c *compiler) shiftStack(sc *scope, x value, e *syntax.CallExpr, push bool) value {
	if len(e.Args) != 1 || !c.assignable(x) {
		if len(e.Args) != 1 {
			c.errorf(e.Pos, "this takes one argument, how far to move")
		}
		return c.badValue(e.Pos)
	}
	k := c.constInt(sc, e.Args[0].Value, "how far to move")
	if k == nil {
		return c.badValue(e.Pos)
	}
	if k.Sign() < 0 {
		c.errorf(e.Pos, "a stack cannot be moved by %s", k)
		return c.badValue(e.Pos)
	}
	n, size := x.t.n, x.t.elem.size
	by := n
	if k.IsInt64() && k.Int64() < int64(n) {
		by = int(k.Int64())
	}
	off, dyn := x.lv.off, x.lv.dyn
	return void(e.Pos, func(m *machine) signal {
		at := off
		if dyn != nil {
			at += dyn(m)
		}
		count, el := int(m.s[at]), m.s[at+1:at+1+n*size]
		if push {
			copy(el[by*size:], el[:(n-by)*size])
			clear(el[:by*size])
			m.s[at] = uint64(min(count+by, n))
		} else {
			copy(el, el[by*size:])
			clear(el[(n-by)*size:])
			m.s[at] = uint64(max(count-by, 0))
		}
		return next
	})
}

// arguments puts arguments in the order of the parameters.
func (c *compiler) arguments(pos syntax.Pos, what string, params []syntax.Param, args []syntax.Arg) ([]syntax.Expr, bool) {
	out := make([]syntax.Expr, len(params))
	ok := true
	for i, a := range args {
		k := i
		if a.Name.Text != "" {
			k = -1
			for j := range params {
				if params[j].Name == a.Name.Text {
					k = j
				}
			}
			if k < 0 {
				c.errorf(a.Name.Pos, "%s has no parameter %q", what, a.Name.Text)
				ok = false
				continue
			}
		}
		if k >= len(params) {
			c.errorf(a.Value.At(), "%s takes %d arguments, and %d are given", what, len(params), len(args))
			return out, false
		}
		if out[k] != nil {
			c.errorf(a.Value.At(), "parameter %s of %s is given twice", params[k].Name, what)
			ok = false
		}
		out[k] = a.Value
	}
	for i, p := range params {
		if out[i] == nil && p.Default != nil {
			out[i] = p.Default
		}
		if out[i] == nil && ok {
			c.errorf(pos, "%s wants an argument for parameter %s", what, p.Name)
			ok = false
		}
	}
	return out, ok
}

// span is a run of slots that an argument is passed in without a copy.
type span struct {
	from, to int
	written  bool
}

// binder binds the parameters of one call.
type binder struct {
	c      *compiler
	outer  *scope
	inner  *scope
	before []stmt
	after  []stmt
	spans  []span
	// copies makes every argument be copied, for a body that can also reach the variables of its caller by their names.
	copies bool
}

// bind makes the parameters known in the inner scope and compiles what has to run before and after the body.
//
// The language says that arguments are copied in and out. A control and a parser see nothing of their caller but their
// arguments, so where those do not overlap the parameter is the argument itself. That makes the headers cost nothing.
func (b *binder) bind(what string, params []syntax.Param, args []syntax.Expr, types *scope) bool {
	c, ok := b.c, true
	vals := make([]value, len(params))
	for i, p := range params {
		t := c.resolveType(types, p.Type)
		if args[i] == nil || t.kind == kindBad {
			ok = false
			continue
		}
		if any, isAny := args[i].(*syntax.AnyExpr); isAny {
			if p.Dir != "out" {
				c.errorf(any.Pos, "only an argument for an out parameter may be left out")
				ok = false
				continue
			}
			off := c.alloc(t.size)
			vals[i] = c.place(any.Pos, t, &lvalue{off: off, flag: -1, advance: -1})
			b.before = append(b.before, clearStmt(off, t.size))
			continue
		}
		v := c.expr(b.outer, args[i])
		if t.kind == kindExtern {
			if !v.bad() && !externFits(v, t) {
				c.errorf(v.pos, "parameter %s of %s wants a %s", p.Name, what, t)
				v = c.badValue(v.pos)
			}
		} else if p.Dir == "out" || p.Dir == "inout" {
			if !c.assignable(v) {
				ok = false
				continue
			}
			if !v.t.equal(t) {
				c.errorf(v.pos, "parameter %s of %s is %s %s, and the argument is %s", p.Name, what, p.Dir, t, v.t)
				v = c.badValue(v.pos)
			}
		} else {
			v = c.convert(v, t, "parameter "+p.Name+" of "+what)
		}
		if v.bad() {
			ok = false
			continue
		}
		vals[i] = v
	}
	if !ok {
		return false
	}
	// What is written goes first, so that what is only read gives way to it.
	for _, written := range []bool{true, false} {
		for i, p := range params {
			if w := p.Dir == "out" || p.Dir == "inout"; w == written {
				b.one(p, vals[i], w)
			}
		}
	}
	return true
}

func externFits(v value, t *typ) bool {
	switch obj := v.obj.(type) {
	case *packetIn:
		return t.extern.decl.Name == "packet_in"
	case *packetOut:
		return t.extern.decl.Name == "packet_out"
	case *externInst:
		return obj.typ == t.extern
	}
	return false
}

func (b *binder) one(p syntax.Param, v value, written bool) {
	c, t := b.c, v.t
	declare := func(v value) { c.declare(b.inner, catValue, p.Pos, p.Name, &binding{v}) }
	if t.kind == kindExtern || v.obj != nil {
		declare(v)
		return
	}
	readOnly := ""
	if !written {
		readOnly = "the parameter " + p.Name + ", which is not out or inout,"
	}
	if v.c != nil {
		v.readOnly = readOnly
		declare(v)
		return
	}
	if lv := v.lv; lv != nil && lv.dyn == nil && !lv.sliced && len(lv.siblings) == 0 && lv.advance < 0 && !b.copies {
		s := span{lv.off, lv.off + t.size, written}
		free := true
		for _, o := range b.spans {
			if s.from < o.to && o.from < s.to && (s.written || o.written) {
				free = false
			}
		}
		if free {
			b.spans = append(b.spans, s)
			if p.Dir == "out" {
				b.before = append(b.before, c.invalidate(lv.off, t)...)
			}
			nv := c.place(p.Pos, t, lv)
			nv.readOnly = readOnly
			declare(nv)
			return
		}
	}
	off := c.alloc(t.size)
	local := &lvalue{off: off, flag: -1, advance: -1}
	b.before = append(b.before, c.store(local, v, t))
	if p.Dir == "out" {
		b.before = append(b.before, c.invalidate(off, t)...)
	}
	nv := c.place(p.Pos, t, local)
	nv.readOnly = readOnly
	declare(nv)
	if written {
		b.after = append(b.after, c.store(v.lv, nv, t))
	}
}

// invalidate makes the headers of an out parameter invalid, as the language has it. Everything else in it keeps its value:
// programs for x4c rely on that, and the language leaves it open.
func (c *compiler) invalidate(off int, t *typ) []stmt {
	var out []stmt
	switch t.kind {
	case kindHeader:
		out = append(out, clearStmt(off, 1))
	case kindStruct, kindUnion, kindTuple:
		for _, f := range t.fields {
			out = append(out, c.invalidate(off+f.off, f.typ)...)
		}
	case kindStack:
		out = append(out, clearStmt(off, t.size))
	}
	return out
}

// around puts what a call needs before and after a body.
func (b *binder) around(body stmt) stmt {
	if len(b.before) == 0 && len(b.after) == 0 {
		return body
	}
	before, after := sequence(b.before), sequence(b.after)
	return func(m *machine) signal {
		before(m)
		sig := body(m)
		after(m)
		return sig
	}
}

// maxCalls bounds how deep controls, parsers, actions and functions are called in each other.
const maxCalls = 100

// enter notes that a declaration is being compiled, and refuses one that calls itself.
func (c *compiler) enter(pos syntax.Pos, d syntax.Decl) bool {
	switch {
	case c.active[d]:
		c.errorf(pos, "%s calls itself, and P4 has no recursion", d.DeclName())
		return false
	case len(c.active) >= maxCalls:
		c.errorf(pos, "calls are nested more than %d deep", maxCalls)
		return false
	}
	c.active[d] = true
	return true
}

func (c *compiler) leave(d syntax.Decl) { delete(c.active, d) }

// action is an action at one place: its variables are those of the place.
type action struct {
	decl *syntax.ActionDecl
	sc   *scope
}

// function is a function of the program or of the architecture.
type function struct{ decl *syntax.FuncDecl }

func (c *compiler) callAction(sc *scope, a *action, e *syntax.CallExpr) value {
	bad := c.badValue(e.Pos)
	if sc.body.kind != bodyControl && sc.body.kind != bodyAction {
		c.errorf(e.Pos, "an action can be called only from a control or an action")
		return bad
	}
	run := c.actionRun(sc, a, e.Pos, e.Args)
	if run == nil {
		return bad
	}
	return void(e.Pos, run)
}

// actionRun compiles an action with arguments that the program gives.
func (c *compiler) actionRun(sc *scope, a *action, pos syntax.Pos, given []syntax.Arg) stmt {
	args, ok := c.arguments(pos, "action "+a.decl.Name, a.decl.Params, given)
	if !ok {
		return nil
	}
	inner := a.sc.inner()
	inner.body = &body{kind: bodyAction, inst: a.sc.body.inst}
	b := &binder{c: c, outer: sc, inner: inner, copies: true}
	if !b.bind("action "+a.decl.Name, a.decl.Params, args, a.sc) || !c.enter(pos, a.decl) {
		return nil
	}
	defer c.leave(a.decl)
	return b.around(c.actionBody(inner, a.decl))
}

func (c *compiler) actionBody(inner *scope, d *syntax.ActionDecl) stmt {
	run := c.block(inner, d.Body)
	name := d.Name
	return func(m *machine) signal {
		if m.trace != nil {
			m.trace.action(name)
		}
		if run(m) == exited {
			return exited
		}
		return next
	}
}

func (c *compiler) callFunction(sc *scope, f *function, e *syntax.CallExpr) value {
	d, bad := f.decl, c.badValue(e.Pos)
	if len(d.TypeParams) > 0 {
		c.errorf(e.Pos, "the generic function %s is not supported", d.Name)
		return bad
	}
	args, ok := c.arguments(e.Pos, "function "+d.Name, d.Params, e.Args)
	if !ok {
		return bad
	}
	result := voidType
	if b, ok := d.Result.(*syntax.BaseType); !ok || b.Name != "void" {
		result = c.resolveType(c.global, d.Result)
	}
	inner := c.global.inner()
	inner.body = &body{kind: bodyFunction, result: result, off: c.alloc(max(result.size, 1))}
	off := inner.body.off
	b := &binder{c: c, outer: sc, inner: inner, copies: true}
	if !b.bind("function "+d.Name, d.Params, args, c.global) || !c.enter(e.Pos, d) {
		return bad
	}
	defer c.leave(d)
	c.checked[d] = true
	if result.kind != kindVoid && !returns(d.Body) {
		c.errorf(d.Pos, "function %s can end without a result", d.Name)
	}
	body := c.block(inner, d.Body)
	run := b.around(func(m *machine) signal { body(m); return next })
	if result.kind == kindVoid {
		return void(e.Pos, run)
	}
	v := c.place(e.Pos, result, &lvalue{off: off, flag: -1, advance: -1})
	v.lv = nil
	return c.after(func(m *machine) { run(m) }, v, true)
}

// returns says whether a statement always ends in a return.
func returns(s syntax.Stmt) bool {
	switch s := s.(type) {
	case *syntax.Block:
		for _, x := range s.Stmts {
			if returns(x) {
				return true
			}
		}
	case *syntax.IfStmt:
		return s.Else != nil && returns(s.Then) && returns(s.Else)
	case *syntax.ReturnStmt:
		return true
	case *syntax.SwitchStmt:
		hasDefault := false
		for _, cs := range s.Cases {
			if _, ok := cs.Label.(*syntax.AnyExpr); ok {
				hasDefault = true
			}
			if cs.Body != nil && !returns(cs.Body) {
				return false
			}
		}
		return hasDefault
	}
	return false
}
