package p4

import (
	"fmt"
	"slices"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"
)

// compiler makes a program out of its tree. It checks types and makes code in one pass: a control is looked at once for
// every place where it is applied, with the slots of that place, and what is not applied anywhere is looked at for its
// errors alone.
type compiler struct {
	rep     *syntax.Report
	global  *scope
	errors  *typ
	tracked *syntax.FieldsDecl

	slots  int
	consts []constInit
	// sums are the slots that checksums add up in.
	sums []int
	// constAt is where a constant lies, by its limbs.
	constAt map[string]int
	// cells is how much the registers, counters and meters hold.
	cells    int
	tables   []*tableInfo
	externs  []*externInst
	keyBytes int
	// scratchBits and emitBits are how much the buffers of a machine hold.
	scratchBits, emitBits int

	// ingress is the control of that role, and top the scope of its code; replicate are the ports that its Replicate names.
	ingress   *syntax.ControlDecl
	top       *scope
	replicate func(*machine) portSet

	// parts are the headers of the pipeline, and valid those of them that the code of the block at hand can make valid by
	// something else than an extract.
	parts []headerPart
	valid partSet

	// applied counts the tables that are applied.
	typeDepth, count, applied int
	tooLarge                  bool
	// active are the declarations that are being compiled, checked those that once were.
	active, checked map[syntax.Decl]bool
}

// declareGlobals makes the names of a program known.
func (c *compiler) declareGlobals(sc *scope, decls []syntax.Decl) {
	for _, d := range decls {
		switch d := d.(type) {
		case *syntax.ConstDecl:
			c.declare(sc, catValue, d.Pos, d.Name, &constant{decl: d, sc: c.global})
		case *syntax.FieldsDecl, *syntax.EnumDecl, *syntax.TypedefDecl:
			c.declare(sc, catType, d.At(), d.DeclName(), &typeDecl{decl: d})
		case *syntax.ErrorDecl:
			if !d.MatchKind {
				c.declareErrors(d)
			}
		case *syntax.ExternDecl:
			c.declare(sc, catType, d.Pos, d.Name, &externType{decl: d, kind: externKinds[d.Name]})
		case *syntax.FuncDecl:
			// Functions of the architecture may be declared once for each number of parameters.
			if _, ok := sc.names[catAction][d.Name]; ok && d.Extern {
				continue
			}
			c.declare(sc, catAction, d.Pos, d.Name, &function{d})
		case *syntax.ActionDecl:
			c.declare(sc, catAction, d.Pos, d.Name, &action{decl: d, sc: c.global})
		case *syntax.ParserDecl, *syntax.ControlDecl, *syntax.PackageDecl:
			c.declare(sc, catType, d.At(), d.DeclName(), d)
		case *syntax.InstanceDecl:
		case *syntax.ValueSetDecl:
			c.errorf(d.Pos, "value set %s stands outside of a parser", d.Name)
		case *syntax.VarDecl:
			c.errorf(d.Pos, "variable %s stands outside of a parser or control; only constants may", d.Name)
		default:
			c.errorf(d.At(), "%s cannot stand here", d.DeclName())
		}
	}
}

func (c *compiler) declareErrors(d *syntax.ErrorDecl) {
	for _, n := range d.Members {
		known := false
		for _, m := range c.errors.members {
			known = known || m == n.Text
		}
		if !known {
			c.errors.members = append(c.errors.members, n.Text)
		}
	}
}

// pipelineDecls are the blocks that the pipeline is made of.
type pipelineDecls struct {
	inst            *syntax.InstanceDecl
	parser          *syntax.ParserDecl
	ingress, egress *syntax.ControlDecl
	deparser        *syntax.ControlDecl
}

// program compiles the declarations.
func (c *compiler) program(decls []syntax.Decl) *Program {
	p := &Program{}
	c.declareGlobals(c.global, decls)
	pd := c.findPipeline(decls)
	if pd != nil && pd.ingress != nil && len(pd.ingress.Params) == 3 {
		// How the egress port is told from one that was never set has to be known before any type is laid out.
		if n, ok := pd.ingress.Params[2].Type.(*syntax.NamedType); ok {
			c.tracked = c.fieldsDecl(n.Name, 0)
		}
	}
	for _, d := range decls {
		switch d := d.(type) {
		case *syntax.FieldsDecl, *syntax.EnumDecl, *syntax.TypedefDecl:
			if t, ok := c.global.lookup(catType, d.DeclName()).(*typeDecl); ok && len(t.params()) == 0 {
				c.declaredType(t)
			}
		}
	}
	if pd != nil {
		c.layoutPipeline(p, pd)
	}
	for _, d := range decls {
		switch d := d.(type) {
		case *syntax.ConstDecl:
			if k, ok := c.global.lookup(catValue, d.Name).(*constant); ok {
				c.constantValue(k)
			}
		case *syntax.InstanceDecl:
			if n, ok := d.Type.(*syntax.NamedType); pd == nil || d != pd.inst && !(ok && n.Name == "SoftNPU") {
				c.declareInstance(c.global, d)
			}
		}
	}
	if pd != nil {
		c.pipeline(p, pd)
	}
	c.checkRest(decls)
	c.finish(p)
	return p
}

// fieldsDecl follows typedefs to the struct that a name means.
func (c *compiler) fieldsDecl(name string, depth int) *syntax.FieldsDecl {
	t, ok := c.global.lookup(catType, name).(*typeDecl)
	if !ok || depth > 20 {
		return nil
	}
	switch d := t.decl.(type) {
	case *syntax.FieldsDecl:
		return d
	case *syntax.TypedefDecl:
		if n, ok := d.Type.(*syntax.NamedType); ok {
			return c.fieldsDecl(n.Name, depth+1)
		}
	}
	return nil
}

// findPipeline finds the instance of the package SoftNPU. A program that has none is only good for its types.
func (c *compiler) findPipeline(decls []syntax.Decl) *pipelineDecls {
	var pd *pipelineDecls
	for _, d := range decls {
		inst, ok := d.(*syntax.InstanceDecl)
		if !ok {
			continue
		}
		named, ok := inst.Type.(*syntax.NamedType)
		if !ok {
			continue
		}
		_, isPackage := c.global.lookup(catType, named.Name).(*syntax.PackageDecl)
		switch {
		case named.Name != "SoftNPU" && (isPackage || inst.Name == "main"):
			if c.global.lookup(catType, named.Name) == nil || isPackage {
				c.errorf(inst.Type.At(), "the package %s is not supported, only SoftNPU is", named.Name)
				pd = &pipelineDecls{inst: inst}
			}
		case named.Name != "SoftNPU":
		case pd != nil:
			c.errorf(inst.Pos, "the program has two pipelines")
		default:
			pd = c.packageArgs(inst, decls)
		}
	}
	return pd
}

// packageArgs finds the blocks that the package is made of.
func (c *compiler) packageArgs(inst *syntax.InstanceDecl, decls []syntax.Decl) *pipelineDecls {
	pd := &pipelineDecls{inst: inst}
	if n := len(inst.Args); n != 3 && n != 4 {
		c.errorf(inst.Type.At(), "SoftNPU is made of a parser, an ingress control, an egress control and, if one is wanted, a deparser; %d arguments are given", n)
		return pd
	}
	for i, a := range inst.Args {
		role := [...]string{"parser", "ingress control", "egress control", "deparser"}[i]
		var name string
		switch x := a.Value.(type) {
		case *syntax.CallExpr:
			if id, ok := x.Fun.(*syntax.IdentExpr); ok {
				name = id.Name
			}
			if len(x.Args) > 0 {
				c.errorf(x.Pos, "the %s of a pipeline takes no arguments", role)
			}
		case *syntax.IdentExpr:
			// An instance that is declared by itself.
			for _, d := range decls {
				if i, ok := d.(*syntax.InstanceDecl); ok && i.Name == x.Name && len(i.Args) == 0 {
					if n, ok := i.Type.(*syntax.NamedType); ok {
						name = n.Name
					}
				}
			}
		}
		if name == "" {
			c.errorf(a.Value.At(), "the %s of a pipeline is given as name()", role)
			continue
		}
		switch d := c.global.lookup(catType, name).(type) {
		case *syntax.ParserDecl:
			if i == 0 {
				pd.parser = d
				continue
			}
		case *syntax.ControlDecl:
			switch i {
			case 1:
				pd.ingress = d
				continue
			case 2:
				pd.egress = d
				continue
			case 3:
				pd.deparser = d
				continue
			}
		case nil:
			c.errorf(a.Value.At(), "there is no parser or control %q", name)
			continue
		}
		c.errorf(a.Value.At(), "%q cannot be the %s of a pipeline", name, role)
	}
	return pd
}

// layoutPipeline gives the headers and the metadata the first slots, which are cleared for every packet.
func (c *compiler) layoutPipeline(p *Program, pd *pipelineDecls) {
	if pd.parser == nil || pd.ingress == nil || pd.egress == nil {
		return
	}
	want := func(d syntax.Decl, params []syntax.Param, n int, what string) bool {
		if len(params) != n {
			c.errorf(d.At(), "%s has %d parameters, and SoftNPU wants %s", d.DeclName(), len(params), what)
			return false
		}
		return true
	}
	if n := len(pd.parser.Params); n != 2 && n != 3 {
		want(pd.parser, pd.parser.Params, 3, "packet_in, out headers, inout ingress metadata")
		return
	}
	const three = "inout headers, inout ingress metadata, inout egress metadata"
	if !want(pd.ingress, pd.ingress.Params, 3, three) || !want(pd.egress, pd.egress.Params, 3, three) ||
		pd.deparser != nil && !want(pd.deparser, pd.deparser.Params, 2, "packet_out, in headers") {
		return
	}
	p.headers = c.resolveType(c.global, pd.ingress.Params[0].Type)
	p.ingressMeta = c.resolveType(c.global, pd.ingress.Params[1].Type)
	p.egressMeta = c.resolveType(c.global, pd.ingress.Params[2].Type)
	for _, x := range []struct {
		t *typ
		p syntax.Param
	}{{p.headers, pd.ingress.Params[0]}, {p.ingressMeta, pd.ingress.Params[1]}, {p.egressMeta, pd.ingress.Params[2]}} {
		if x.t.kind != kindStruct && x.t.kind != kindBad && (x.t != p.headers || x.t.kind != kindHeader) {
			c.errorf(x.p.Pos, "%s has to be a struct, and is %s", x.p.Name, x.t)
			p.headers = nil
			return
		}
		if x.t.kind == kindBad {
			p.headers = nil
			return
		}
	}
	p.hdrAt = c.alloc(p.headers.size)
	p.inAt = c.alloc(p.ingressMeta.size)
	p.egAt = c.alloc(p.egressMeta.size)
	p.state = c.slots
	p.parts = headerParts(p.headers, "", p.hdrAt)
	c.parts, c.valid = p.parts, newPartSet(len(p.parts))
	p.inPort, p.egPort, p.egFlag = -1, -1, -1
	p.egDrop, p.egBroadcast = -1, -1
	slot := func(t *typ, at int, name string, pos syntax.Pos, flag bool) int {
		f := t.field(name)
		if f == nil {
			return -1
		}
		if flag && f.typ.kind != kindBool && (f.typ.kind != kindBit || f.typ.width != 1) || !flag && (f.typ.kind != kindBit || !f.typ.narrow()) {
			c.errorf(pos, "field %s of %s cannot be %s", name, t, f.typ)
			return -1
		}
		return at + f.off
	}
	p.inPort = slot(p.ingressMeta, p.inAt, "port", pd.ingress.Params[1].Pos, false)
	if p.egPort = slot(p.egressMeta, p.egAt, "port", pd.ingress.Params[2].Pos, false); p.egPort >= 0 {
		p.egFlag = p.egPort + 1
	}
	if f := p.ingressMeta.field("port"); f != nil {
		p.inMask = ones(f.typ.width)
	}
	if f := p.egressMeta.field("port"); f != nil {
		p.egMask = ones(f.typ.width)
	}
	p.egDrop = slot(p.egressMeta, p.egAt, "drop", pd.ingress.Params[2].Pos, true)
	p.egBroadcast = slot(p.egressMeta, p.egAt, "broadcast", pd.ingress.Params[2].Pos, true)
	if p.egPort < 0 && p.egBroadcast < 0 {
		c.errorf(pd.ingress.Params[2].Pos, "%s has neither a field port nor a field broadcast, so no packet could ever come out", p.egressMeta)
	}
}

// pipeline compiles the blocks of the pipeline.
func (c *compiler) pipeline(p *Program, pd *pipelineDecls) {
	if p.headers == nil {
		return
	}
	place := func(t *typ, at int) value { return c.place(syntax.Pos{}, t, &lvalue{off: at, flag: -1, advance: -1}) }
	hdr, in, eg := place(p.headers, p.hdrAt), place(p.ingressMeta, p.inAt), place(p.egressMeta, p.egAt)

	block := func(d syntax.Decl, name string, params []syntax.Param, args ...value) (*scope, bool) {
		i := &instance{name: name, decl: d, args: map[string]value{}, children: map[syntax.Decl]*instance{},
			externs: map[syntax.Decl]*externInst{}, tables: map[*syntax.TableDecl]*tableInfo{}, applied: true}
		sc := c.instanceScope(i)
		ok := true
		for k, q := range params {
			t := c.resolveType(c.global, q.Type)
			v := args[k]
			switch {
			case t.kind == kindBad:
				ok = false
				continue
			case v.obj != nil:
				if t.kind != kindExtern || !externFits(v, t) {
					want := "packet_in"
					if _, ok := v.obj.(*packetOut); ok {
						want = "packet_out"
					}
					c.errorf(q.Pos, "parameter %s of %s is %s, and SoftNPU gives it a %s", q.Name, d.DeclName(), t, want)
					ok = false
				}
				v.t = t
			case !t.equal(v.t):
				c.errorf(q.Pos, "parameter %s of %s is %s, and in the other blocks of the pipeline it is %s", q.Name, d.DeclName(), t, v.t)
				ok = false
			}
			if q.Dir == "in" || q.Dir == "" && v.obj == nil {
				v.readOnly = "the parameter " + q.Name + ", which is not out or inout,"
			}
			c.declare(sc, catValue, q.Pos, q.Name, &binding{v, true})
		}
		return sc, ok
	}
	run := func(d *syntax.ControlDecl, name string, args ...value) stmt {
		sc, ok := block(d, name, d.Params, args...)
		if !ok || !c.enter(d.Pos, d) {
			return nil
		}
		defer c.leave(d)
		return c.controlBody(sc, d)
	}
	if sc, ok := block(pd.parser, pd.parser.Name, pd.parser.Params, value{obj: &packetIn{}}, hdr, in); ok && c.enter(pd.parser.Pos, pd.parser) {
		p.parse = c.parserBody(sc, pd.parser)
		c.leave(pd.parser)
	}
	p.parsed = slices.Clone(c.valid)
	// Tables are known by the names of the controls that they are in.
	ingress, egress := pd.ingress.Name, pd.egress.Name
	if ingress == egress {
		ingress, egress = "ingress", "egress"
	}
	c.ingress = pd.ingress
	p.ingress = run(pd.ingress, ingress, hdr, in, eg)
	p.replicate, c.ingress = c.replicate, nil
	p.egress = run(pd.egress, egress, hdr, in, eg)
	p.egressEmpty = pd.egress.Body == nil || len(pd.egress.Body.Stmts) == 0
	for _, d := range pd.egress.Locals {
		if v, ok := d.(*syntax.VarDecl); ok && v.Value != nil {
			p.egressEmpty = false
		}
	}
	if pd.deparser != nil {
		c.emitBits = 0
		p.deparse = run(pd.deparser, pd.deparser.Name, value{obj: &packetOut{}}, hdr)
		p.hdrBits = c.emitBits
	} else {
		for _, h := range p.parts {
			_, most := bitsRange(h.typ)
			p.hdrBits += most
		}
	}
	p.made = c.valid
}

// checkRest looks at all that the pipeline does not use.
func (c *compiler) checkRest(decls []syntax.Decl) {
	for _, d := range decls {
		if c.rep.Full() {
			return
		}
		switch d := d.(type) {
		case *syntax.ControlDecl:
			if !c.checked[d] && d.HasBody {
				c.checkUnused(d, d.TypeParams, d.Ctor)
			}
		case *syntax.ParserDecl:
			if !c.checked[d] && d.HasBody {
				c.checkUnused(d, d.TypeParams, d.Ctor)
			}
		case *syntax.ActionDecl:
			if a, ok := c.global.lookup(catAction, d.Name).(*action); ok {
				c.checkAction(a)
			}
		case *syntax.FuncDecl:
			if d.Body != nil && !c.checked[d] {
				c.checkFunction(d)
			}
		}
	}
}

func (c *compiler) checkUnused(d syntax.Decl, typeParams []syntax.Name, ctor []syntax.Param) {
	if len(typeParams) > 0 {
		c.errorf(d.At(), "%s is generic, which is not supported", d.DeclName())
		return
	}
	i := &instance{name: d.DeclName(), decl: d, args: map[string]value{}, children: map[syntax.Decl]*instance{},
		externs: map[syntax.Decl]*externInst{}, tables: map[*syntax.TableDecl]*tableInfo{}, discard: true}
	for _, p := range ctor {
		t := c.resolveType(c.global, p.Type)
		v := value{t: t, pos: p.Pos}
		if t.kind == kindExtern {
			v = c.externParam(t, p.Pos)
		} else {
			v.c = zero
		}
		i.args[p.Name] = v
	}
	c.checkInstance(i)
}

func (c *compiler) checkFunction(d *syntax.FuncDecl) {
	if len(d.TypeParams) > 0 {
		// What its types are is known where it is called.
		return
	}
	e := &syntax.CallExpr{Place: d.Place, Fun: &syntax.IdentExpr{Place: d.Place, Name: d.Name}}
	sc := c.global.inner()
	sc.body = &body{kind: bodyFunction, result: voidType}
	for i, p := range d.Params {
		t := c.resolveType(c.global, p.Type)
		name := fmt.Sprintf("argument %d", i)
		sc.set(catValue, name, &binding{v: c.place(p.Pos, t, &lvalue{off: c.alloc(t.size), flag: -1, advance: -1})})
		e.Args = append(e.Args, syntax.Arg{Value: &syntax.IdentExpr{Place: p.Place, Name: name}})
	}
	c.call(sc, e)
}

// finish sees to it that no two tables have one name, and gives the program what was made for it.
func (c *compiler) finish(p *Program) {
	seen := map[string]bool{}
	for _, t := range c.tables {
		if seen[t.Name] {
			c.errorf(syntax.Pos{}, "the pipeline has two tables %s", t.Name)
		}
		seen[t.Name] = true
	}
	p.tables, p.externs = c.tables, c.externs
	p.slots, p.consts, p.sums = c.slots, c.consts, c.sums
	p.keyBytes = c.keyBytes
	p.scratchBits = c.scratchBits
	p.errors = c.errors.members
}
