package p4

import "github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"

// isIngress says whether an instance is the ingress control of the pipeline itself.
func (c *compiler) isIngress(i *instance) bool {
	return c.ingress != nil && i.parent == nil && i.decl == syntax.Decl(c.ingress)
}

// replicateTo compiles Replicate.replicate(bitmap). As the compiler of SoftNPU has it, the pipeline works the ports out of
// the metadata once ingress is done, so the call stands once, in the code of ingress itself and in no block of it.
func (c *compiler) replicateTo(sc *scope, e *syntax.CallExpr, v value) value {
	bad := c.badValue(e.Pos)
	if v = c.convert(v, bitType(128), "replicate"); v.bad() {
		return bad
	}
	if sc.body.inst != nil && sc.body.inst.discard {
		return void(e.Pos, sequence(nil))
	}
	switch {
	case sc != c.top:
		c.errorf(e.Pos, "replicate stands only in the apply block of the ingress control itself, and in no block within it")
		return bad
	case c.replicate != nil:
		c.errorf(e.Pos, "replicate stands once in a program, since a pipeline has one set of ports")
		return bad
	}
	meta := map[string]bool{c.ingress.Params[1].Name: true, c.ingress.Params[2].Name: true}
	if pos, ok := madeOf(e.Args[0].Value, meta); !ok {
		c.errorf(pos, "the ports of replicate are made of the metadata and of constants, with operators between them")
		return bad
	}
	prep, off := c.stored(v)
	c.replicate = func(m *machine) portSet {
		if prep != nil {
			prep(m)
		}
		return portSet{bits: [2]uint64{m.s[off], m.s[off+1]}}
	}
	return void(e.Pos, sequence(nil))
}

// madeOf says whether an expression is made of fields of some names, and where it is not.
func madeOf(e syntax.Expr, names map[string]bool) (syntax.Pos, bool) {
	all := func(es ...syntax.Expr) (syntax.Pos, bool) {
		for _, x := range es {
			if pos, ok := madeOf(x, names); !ok {
				return pos, false
			}
		}
		return e.At(), true
	}
	switch e := e.(type) {
	case *syntax.IntExpr, *syntax.BoolExpr:
		return e.At(), true
	case *syntax.IdentExpr:
		return e.Pos, names[e.Name]
	case *syntax.MemberExpr:
		return all(e.X)
	case *syntax.SliceExpr:
		return all(e.X)
	case *syntax.UnaryExpr:
		return all(e.X)
	case *syntax.BinaryExpr:
		return all(e.X, e.Y)
	case *syntax.CastExpr:
		return all(e.X)
	}
	return e.At(), false
}
