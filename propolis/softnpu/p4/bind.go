package p4

import (
	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"
)

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

// span is a run of slots that an argument lies in.
type span struct {
	from, to int
	written  bool
}

// binder binds the parameters of one call.
type binder struct {
	c     *compiler
	outer *scope
	inner *scope
	// before is what computes the arguments, in their order, and fresh what makes out parameters new once all are.
	before []stmt
	fresh  []stmt
	after  []stmt
	spans  []span
	// copies makes every argument be copied, for a body that can also reach the variables of its caller by their names.
	copies bool
	// given are the arguments if they are compiled already.
	given []value
}

func isWritten(p syntax.Param) bool { return p.Dir == "out" || p.Dir == "inout" }

// bind makes the parameters known in the inner scope and compiles what has to run before and after the body.
//
// The language says that arguments are computed from left to right, copied in, and copied out. A control and a parser see
// nothing of their caller but their arguments, so where those do not overlap, and computing one changes no other, the
// parameter is the argument itself. That makes the headers cost nothing.
func (b *binder) bind(what string, params []syntax.Param, args []syntax.Expr, types *scope) bool {
	vals := make([]value, len(params))
	ok := true
	for i, p := range params {
		vals[i] = b.argument(what, p, i, args[i], types)
		ok = ok && !vals[i].bad()
		b.copies = b.copies || vals[i].calls
	}
	if !ok {
		return false
	}
	// What is written goes first, so that what is only read gives way to it.
	direct := make([]bool, len(params))
	for _, written := range []bool{true, false} {
		for i, p := range params {
			if isWritten(p) == written {
				direct[i] = b.direct(vals[i], written)
			}
		}
	}
	for i, p := range params {
		b.one(p, vals[i], direct[i])
	}
	return true
}

// argument computes what a parameter is given; the value is bad if it cannot be given that.
func (b *binder) argument(what string, p syntax.Param, i int, arg syntax.Expr, types *scope) value {
	c, t := b.c, b.c.resolveType(types, p.Type)
	if arg == nil || t.kind == kindBad {
		return c.badValue(p.Pos)
	}
	if any, isAny := arg.(*syntax.AnyExpr); isAny {
		if p.Dir != "out" {
			c.errorf(any.Pos, "only an argument for an out parameter may be left out")
			return c.badValue(any.Pos)
		}
		off := c.alloc(t.size)
		b.before = append(b.before, clearStmt(off, t.size))
		return c.place(any.Pos, t, &lvalue{off: off, flag: -1, advance: -1})
	}
	var v value
	if b.given != nil {
		v = b.given[i]
	} else {
		v = c.expr(b.outer, arg)
	}
	switch {
	case v.bad():
	case t.kind == kindExtern:
		if !externFits(v, t) {
			c.errorf(v.pos, "parameter %s of %s wants a %s", p.Name, what, t)
			return c.badValue(v.pos)
		}
	case !isWritten(p):
		return c.convert(v, t, "parameter "+p.Name+" of "+what)
	case !c.assignable(v):
		return c.badValue(v.pos)
	case !v.t.equal(t):
		c.errorf(v.pos, "parameter %s of %s is %s %s, and the argument is %s", p.Name, what, p.Dir, t, v.t)
		return c.badValue(v.pos)
	}
	return v
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

// direct says whether a parameter can be its argument itself.
func (b *binder) direct(v value, written bool) bool {
	if v.t.kind == kindExtern || v.obj != nil || v.c != nil || v.lv == nil {
		return false
	}
	s := v.lv.span(v.t.size)
	s.written = written
	free := !b.copies && v.lv.plain()
	for _, o := range b.spans {
		if s.from < o.to && o.from < s.to && (s.written || o.written) {
			free = false
		}
	}
	if free || written {
		b.spans = append(b.spans, s)
	}
	return free
}

func (b *binder) one(p syntax.Param, v value, direct bool) {
	c, t, written := b.c, v.t, isWritten(p)
	declare := func(v value) { c.declare(b.inner, catValue, p.Pos, p.Name, &binding{v, true}) }
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
	if direct {
		if p.Dir == "out" {
			b.fresh = append(b.fresh, c.invalidate(v.lv.off, t)...)
		}
		nv := c.place(p.Pos, t, v.lv)
		nv.readOnly = readOnly
		declare(nv)
		return
	}
	if written {
		var fix stmt
		if v, fix = c.pin(v); fix != nil {
			b.before = append(b.before, fix)
		}
	}
	off := c.alloc(t.size)
	local := &lvalue{off: off, flag: -1, advance: -1}
	b.before = append(b.before, c.store(local, v, t))
	if p.Dir == "out" {
		b.fresh = append(b.fresh, c.invalidate(off, t)...)
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
		c.writes(span{from: off, to: off + t.size})
		out = append(out, clearStmt(off, t.size))
	}
	return out
}

// around puts what a call needs before and after a body.
func (b *binder) around(body stmt) stmt {
	if len(b.before) == 0 && len(b.fresh) == 0 && len(b.after) == 0 {
		return body
	}
	before, after := sequence(append(b.before, b.fresh...)), sequence(b.after)
	return func(m *machine) signal {
		before(m)
		sig := body(m)
		after(m)
		return sig
	}
}
