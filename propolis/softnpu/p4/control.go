package p4

import (
	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"
)

// packetIn and packetOut are the packet that a parser reads and that a deparser writes.
type (
	packetIn  struct{}
	packetOut struct{}
)

// instance is a control or parser that is instantiated. Its name is the path of names that leads to it from the pipeline,
// which is what the tables in it are known by.
type instance struct {
	name     string
	decl     syntax.Decl
	parent   *instance
	args     map[string]value
	children map[syntax.Decl]*instance
	externs  map[syntax.Decl]*externInst
	tables   map[*syntax.TableDecl]*tableInfo
	sets     map[*syntax.ValueSetDecl]*valueSet
	applied  bool
	// discard says that the instance is only looked at for errors, and is no part of the pipeline.
	discard bool
}

// instantiate makes the instance that a declaration asks for, or finds it if it is already made: a control that is
// applied twice is compiled twice and has its instances and tables once.
func (c *compiler) instantiate(sc *scope, pos syntax.Pos, name string, decl syntax.Decl, args []syntax.Arg, key syntax.Decl) *instance {
	parent := sc.body.inst
	if parent != nil {
		if i := parent.children[key]; i != nil {
			return i
		}
	}
	i := &instance{name: name, decl: decl, parent: parent, args: map[string]value{}, children: map[syntax.Decl]*instance{},
		externs: map[syntax.Decl]*externInst{}, tables: map[*syntax.TableDecl]*tableInfo{}}
	if parent != nil {
		i.name = parent.name + "." + name
		i.discard = parent.discard
		parent.children[key] = i
	}
	for p := parent; p != nil; p = p.parent {
		if p.decl == decl {
			c.errorf(pos, "%s contains itself", decl.DeclName())
			i.applied = true
			return i
		}
	}
	var ctor []syntax.Param
	switch d := decl.(type) {
	case *syntax.ControlDecl:
		ctor = d.Ctor
	case *syntax.ParserDecl:
		ctor = d.Ctor
	}
	vals, ok := c.arguments(pos, decl.DeclName(), ctor, args)
	for k, p := range ctor {
		t := c.resolveType(c.global, p.Type)
		v := c.badValue(pos)
		if ok {
			v = c.expr(sc, vals[k])
			if t.kind != kindExtern {
				v = c.convert(v, t, "parameter "+p.Name)
				if v.c == nil && !v.bad() {
					c.notConstant(v, "an argument of an instance")
				}
			}
		}
		v.readOnly = "the parameter " + p.Name
		i.args[p.Name] = v
	}
	return i
}

// applyInstance compiles one place where a control or parser is applied.
func (c *compiler) applyInstance(sc *scope, i *instance, given []syntax.Arg, pos syntax.Pos) stmt {
	var params []syntax.Param
	ctl, isControl := i.decl.(*syntax.ControlDecl)
	prs, isParser := i.decl.(*syntax.ParserDecl)
	switch {
	case isControl:
		params = ctl.Params
		if sc.body.kind != bodyControl {
			c.errorf(pos, "a control can be applied only in a control")
			return nil
		}
	case isParser:
		params = prs.Params
		if sc.body.kind != bodyParser {
			c.errorf(pos, "a parser can be applied only in a parser")
			return nil
		}
	}
	i.applied = true
	args, ok := c.arguments(pos, i.decl.DeclName(), params, given)
	if !ok {
		return nil
	}
	inner := c.instanceScope(i)
	b := &binder{c: c, outer: sc, inner: inner}
	if !b.bind(i.decl.DeclName(), params, args, c.global) || !c.enter(pos, i.decl) {
		return nil
	}
	defer c.leave(i.decl)
	if isParser {
		run := c.parserBody(inner, prs)
		return b.around(func(m *machine) signal {
			if run(m) {
				return next
			}
			m.next = stateReject
			return moved
		})
	}
	run := c.controlBody(inner, ctl)
	return b.around(func(m *machine) signal {
		if run(m) == exited {
			return exited
		}
		return next
	})
}

// instanceScope is the scope that the parameters of an instance are declared in.
func (c *compiler) instanceScope(i *instance) *scope {
	inner := c.global.inner()
	kind := bodyControl
	if _, ok := i.decl.(*syntax.ParserDecl); ok {
		kind = bodyParser
	}
	inner.body = &body{kind: kind, inst: i}
	for name, v := range i.args {
		inner.set(catValue, name, &binding{v, true})
	}
	return inner.inner()
}

// checkInstance compiles a control or parser only to find what is wrong with it, with variables of its own as arguments.
func (c *compiler) checkInstance(i *instance) {
	if !c.enter(i.decl.At(), i.decl) {
		return
	}
	defer c.leave(i.decl)
	i.applied = true
	inner := c.instanceScope(i)
	var params []syntax.Param
	switch d := i.decl.(type) {
	case *syntax.ControlDecl:
		params = d.Params
	case *syntax.ParserDecl:
		params = d.Params
	}
	for _, p := range params {
		t := c.resolveType(c.global, p.Type)
		v := value{t: t, pos: p.Pos}
		if t.kind == kindExtern {
			v = c.externParam(t, p.Pos)
		} else {
			v = c.place(p.Pos, t, &lvalue{off: c.alloc(t.size), flag: -1, advance: -1})
		}
		if p.Dir == "" || p.Dir == "in" {
			v.readOnly = "the parameter " + p.Name
		}
		c.declare(inner, catValue, p.Pos, p.Name, &binding{v, true})
	}
	switch d := i.decl.(type) {
	case *syntax.ControlDecl:
		c.controlBody(inner, d)
	case *syntax.ParserDecl:
		c.parserBody(inner, d)
	}
}

// externParam is the value of a parameter that is an object of the architecture.
func (c *compiler) externParam(t *typ, pos syntax.Pos) value {
	v := value{t: t, pos: pos}
	switch t.extern.decl.Name {
	case "packet_in":
		v.obj = &packetIn{}
	case "packet_out":
		v.obj = &packetOut{}
	default:
		v.obj = &externInst{typ: t.extern, kind: t.extern.kind, args: t.args, size: 1, broken: len(t.args) == 0 && t.extern.kind != externChecksum && t.extern.kind != externInternetChecksum}
	}
	return v
}

// locals declares what stands in a control or parser before its code, and gives the statements that run first.
func (c *compiler) locals(sc *scope, list []syntax.Decl) []stmt {
	var first []stmt
	var tables []*tableSite
	var actions []*action
	// Actions may stand behind the code and the tables that use them, so all names are known before any is looked at.
	for _, d := range list {
		switch d := d.(type) {
		case *syntax.ActionDecl:
			a := &action{decl: d, sc: sc}
			c.declare(sc, catAction, d.Pos, d.Name, a)
			actions = append(actions, a)
		case *syntax.TableDecl:
			t := &tableSite{decl: d, sc: sc}
			c.declare(sc, catValue, d.Pos, d.Name, t)
			tables = append(tables, t)
		}
	}
	for _, d := range list {
		switch d := d.(type) {
		case *syntax.InstanceDecl:
			c.declareInstance(sc, d)
		case *syntax.ActionDecl, *syntax.TableDecl:
		case *syntax.ValueSetDecl:
			c.declare(sc, catValue, d.Pos, d.Name, c.valueSet(sc, d))
		default:
			if run := c.local(sc, d); run != nil {
				first = append(first, run)
			}
		}
	}
	for _, t := range tables {
		c.compileTable(t)
	}
	for _, a := range actions {
		c.checkAction(a)
	}
	return first
}

// checkAction compiles an action that is neither called nor in a table, to find what is wrong with it.
func (c *compiler) checkAction(a *action) {
	if c.checked[a.decl] || len(a.decl.TypeParams) > 0 {
		return
	}
	c.checked[a.decl] = true
	c.tableAction(a.sc, a, nil, a.decl.Pos)
}

// declareInstance declares T(args) name.
func (c *compiler) declareInstance(sc *scope, d *syntax.InstanceDecl) {
	named, ok := d.Type.(*syntax.NamedType)
	if !ok {
		c.errorf(d.Pos, "%s cannot be instantiated", d.Name)
		return
	}
	if d.Body {
		c.errorf(d.Pos, "an instance with functions of its own is not supported")
	}
	switch e := sc.lookup(catType, named.Name).(type) {
	case *externType:
		if x := c.externInstance(sc, d, c.resolveType(sc, named)); x != nil {
			c.declare(sc, catValue, d.Pos, d.Name, &binding{v: value{t: &typ{kind: kindExtern, name: named.Name, extern: e, args: x.args}, pos: d.Pos, obj: x}})
		}
	case *syntax.ControlDecl:
		if sc.body.kind == bodyParser {
			c.errorf(d.Pos, "a control cannot be instantiated in a parser")
		}
		c.declare(sc, catValue, d.Pos, d.Name, c.instantiate(sc, d.Pos, d.Name, e, d.Args, d))
	case *syntax.ParserDecl:
		if sc.body.kind == bodyControl {
			c.errorf(d.Pos, "a parser cannot be instantiated in a control")
		}
		c.declare(sc, catValue, d.Pos, d.Name, c.instantiate(sc, d.Pos, d.Name, e, d.Args, d))
	case nil:
		c.errorf(d.Type.At(), "there is no control, parser or extern %q", named.Name)
	default:
		c.errorf(d.Type.At(), "%q is not a control, parser or extern, so it cannot be instantiated", named.Name)
	}
}

func (c *compiler) controlBody(sc *scope, d *syntax.ControlDecl) stmt {
	c.checked[d] = true
	if !d.HasBody || len(d.TypeParams) > 0 {
		c.errorf(d.Pos, "control %s is generic or has no body, which is not supported", d.Name)
		return sequence(nil)
	}
	if !c.counted(d.Pos) {
		return sequence(nil)
	}
	sc = sc.inner()
	sc.members = true
	run := c.locals(sc, d.Locals)
	if d.Body != nil {
		inner := sc.inner()
		if c.isIngress(sc.body.inst) {
			c.top = inner
		}
		run = append(run, c.statements(inner, d.Body.Stmts)...)
	}
	c.checkChildren(sc.body.inst)
	return sequence(run)
}

// checkChildren looks at the instances that are never applied. Their tables exist all the same.
func (c *compiler) checkChildren(i *instance) {
	for _, d := range c.childOrder(i) {
		if k := i.children[d]; !k.applied {
			c.checkInstance(k)
		}
	}
}

// childOrder gives the keys of the instances in the order of the program.
func (c *compiler) childOrder(i *instance) []syntax.Decl {
	var out []syntax.Decl
	var list []syntax.Decl
	switch d := i.decl.(type) {
	case *syntax.ControlDecl:
		list = d.Locals
	case *syntax.ParserDecl:
		list = d.Locals
	}
	for _, d := range list {
		if i.children[d] != nil {
			out = append(out, d)
		}
	}
	return out
}

// stateCode is a compiled state of a parser.
type stateCode struct {
	name string
	run  []stmt
}

// maxParserStates bounds how many states a packet goes through.
const maxParserStates = 4096

// parserBody compiles a parser; the result says whether the packet is accepted.
func (c *compiler) parserBody(sc *scope, d *syntax.ParserDecl) func(*machine) bool {
	c.checked[d] = true
	never := func(*machine) bool { return false }
	if !d.HasBody || len(d.TypeParams) > 0 {
		c.errorf(d.Pos, "parser %s is generic or has no body, which is not supported", d.Name)
		return never
	}
	if !c.counted(d.Pos) {
		return never
	}
	states := map[string]int{}
	for i, s := range d.States {
		if _, ok := states[s.Name]; ok {
			c.errorf(s.Pos, "parser %s has two states %s", d.Name, s.Name)
		}
		if s.Name == "accept" || s.Name == "reject" {
			c.errorf(s.Pos, "state %s cannot be defined", s.Name)
		}
		states[s.Name] = i
	}
	sc.body.states = states
	start, ok := states["start"]
	if !ok {
		c.errorf(d.Pos, "parser %s has no state start", d.Name)
		start = stateReject
	}
	sc = sc.inner()
	sc.members = true
	first := c.locals(sc, d.Locals)
	code := make([]stateCode, len(d.States))
	for i, s := range d.States {
		if s.Body == nil {
			continue
		}
		if n := len(s.Body.Stmts); n == 0 || !transitions(s.Body.Stmts[n-1]) {
			c.rep.Warnf(s.Pos, "state %s can end without a transition, which rejects the packet", s.Name)
		}
		code[i] = stateCode{s.Name, c.statements(sc.inner(), s.Body.Stmts)}
	}
	c.checkChildren(sc.body.inst)
	return func(m *machine) bool {
		runAll(m, first)
		st := start
		for st >= 0 {
			if m.states++; m.states > maxParserStates {
				m.fail(ParserLoop)
				return false
			}
			s := &code[st]
			if m.trace != nil {
				m.trace.state(s.name)
			}
			m.next = stateReject
			for _, run := range s.run {
				if run(m) != next {
					break
				}
				if m.fault != NotDropped {
					return false
				}
			}
			if m.fault != NotDropped {
				return false
			}
			st = m.next
		}
		if st != stateAccept {
			m.fail(ParserReject)
			return false
		}
		return true
	}
}

func transitions(s syntax.Stmt) bool {
	switch s := s.(type) {
	case *syntax.TransitionStmt:
		return true
	case *syntax.Block:
		return len(s.Stmts) > 0 && transitions(s.Stmts[len(s.Stmts)-1])
	case *syntax.IfStmt:
		return s.Else != nil && transitions(s.Then) && transitions(s.Else)
	}
	return false
}
