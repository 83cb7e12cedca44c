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
		out.direct, out.off = true, off
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
		c.makesValid(lv.span(1))
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
	c.makesValid(x.lv.span(x.t.size))
	c.writes(x.lv.span(x.t.size))
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
	run := c.actionRun(sc, a, e.Pos, e.TypeArgs, e.Args)
	if run == nil {
		return bad
	}
	return void(e.Pos, run)
}

// actionRun compiles an action with arguments that the program gives.
func (c *compiler) actionRun(sc *scope, a *action, pos syntax.Pos, typeArgs []syntax.Type, given []syntax.Arg) stmt {
	args, ok := c.arguments(pos, "action "+a.decl.Name, a.decl.Params, given)
	if !ok {
		return nil
	}
	b := &binder{c: c, outer: sc, copies: true}
	types := b.infer(pos, "action "+a.decl.Name, a.sc, a.decl.TypeParams, a.decl.Params, typeArgs, args)
	if types == nil {
		return nil
	}
	inner := types.inner()
	inner.body = &body{kind: bodyAction, inst: a.sc.body.inst}
	b.inner = inner
	if !b.bind("action "+a.decl.Name, a.decl.Params, args, types) || !c.enter(pos, a.decl) {
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
	args, ok := c.arguments(e.Pos, "function "+d.Name, d.Params, e.Args)
	if !ok {
		return bad
	}
	b := &binder{c: c, outer: sc, copies: true}
	types := b.infer(e.Pos, "function "+d.Name, c.global, d.TypeParams, d.Params, e.TypeArgs, args)
	if types == nil {
		return bad
	}
	result := voidType
	if b, ok := d.Result.(*syntax.BaseType); !ok || b.Name != "void" {
		result = c.resolveType(types, d.Result)
	}
	inner := types.inner()
	b.inner = inner
	inner.body = &body{kind: bodyFunction, result: result, off: c.alloc(max(result.size, 1))}
	off := inner.body.off
	if !b.bind("function "+d.Name, d.Params, args, types) || !c.enter(e.Pos, d) {
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
