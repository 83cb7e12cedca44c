package p4

import (
	"fmt"
	"strings"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"
)

// params are the type parameters of a generic type.
func (d *typeDecl) params() []syntax.Name {
	if f, ok := d.decl.(*syntax.FieldsDecl); ok {
		return f.Params
	}
	return nil
}

// maxTypeName bounds the names of generic types, which can grow without end as they are put into each other.
const maxTypeName = 1 << 12

// specialized is the type that a generic one is with the types that are written behind it.
func (c *compiler) specialized(sc *scope, d *typeDecl, t *syntax.NamedType) *typ {
	params := d.params()
	if len(t.Args) != len(params) {
		c.errorf(t.Pos, "the generic type %s takes %d types, and %d are given", t.Name, len(params), len(t.Args))
		return badType
	}
	args := make([]*typ, len(params))
	inner := c.global.inner()
	var keys, names []string
	for i, a := range t.Args {
		if args[i] = c.resolveType(sc, a); args[i].kind == kindBad {
			return badType
		}
		inner.set(catType, params[i].Text, args[i])
		keys, names = append(keys, typeKey(args[i])), append(names, args[i].name)
	}
	key := strings.Join(keys, ", ")
	if made, ok := d.special[key]; ok {
		if made == nil {
			c.errorf(d.decl.At(), "type %s contains itself", d.decl.DeclName())
			return badType
		}
		return made
	}
	name := d.decl.DeclName() + "<" + strings.Join(names, ", ") + ">"
	if c.typeDepth++; c.typeDepth > 200 || len(name) > maxTypeName {
		c.errorf(d.decl.At(), "types are nested too deep")
		c.typeDepth--
		return badType
	}
	if d.special == nil {
		d.special = map[string]*typ{}
	}
	d.special[key] = nil
	made := c.makeFields(inner, d.decl.(*syntax.FieldsDecl), name)
	made.origin, made.args = d, args
	d.special[key] = made
	c.typeDepth--
	return made
}

// typeKey tells types apart as equal does.
func typeKey(t *typ) string {
	switch {
	case t.under == nil && (t.kind == kindBit || t.kind == kindInt || t.kind == kindVarbit || t.kind == kindBool || t.kind == kindError):
		return t.name
	case t.kind == kindStack:
		return fmt.Sprintf("%s[%d]", typeKey(t.elem), t.n)
	case t.kind == kindTuple:
		var parts []string
		for _, f := range t.fields {
			parts = append(parts, typeKey(f.typ))
		}
		return "tuple<" + strings.Join(parts, ", ") + ">"
	}
	return fmt.Sprintf("%s@%p", t.name, t)
}

// infer gives the scope that the types of a function's or action's parameters are looked for in: that of its declaration,
// with a type for each of its type parameters, which is written at the call or follows from the arguments. It is nil
// after an error.
func (b *binder) infer(pos syntax.Pos, what string, sc *scope, names []syntax.Name, params []syntax.Param, written []syntax.Type, args []syntax.Expr) *scope {
	c := b.c
	if len(names) == 0 {
		if len(written) > 0 {
			c.errorf(pos, "%s is not generic, and takes no types", what)
			return nil
		}
		return sc
	}
	types := sc.inner()
	if len(written) > 0 {
		if len(written) != len(names) {
			c.errorf(pos, "%s takes %d types, and %d are given", what, len(names), len(written))
			return nil
		}
		for i, n := range names {
			types.set(catType, n.Text, c.resolveType(b.outer, written[i]))
		}
		return types
	}
	b.given = make([]value, len(args))
	found := map[string]*typ{}
	for _, n := range names {
		found[n.Text] = nil
	}
	for i, a := range args {
		if _, ok := a.(*syntax.AnyExpr); ok || a == nil {
			continue
		}
		if b.given[i] = c.expr(b.outer, a); b.given[i].bad() {
			return nil
		}
		unify(params[i].Type, b.given[i].t, found)
	}
	for _, n := range names {
		if found[n.Text] == nil {
			c.errorf(pos, "what the type %s of %s is does not follow from the arguments, and has to be written, as in NAME<bit<8>>(…)", n.Text, what)
			return nil
		}
		types.set(catType, n.Text, found[n.Text])
	}
	return types
}

// unify finds the types that type parameters stand for, from a type as it is written and the one that it has to be. The
// first one that is found stays; whether the others are the same is seen when the arguments are bound.
func unify(written syntax.Type, t *typ, found map[string]*typ) {
	switch w := written.(type) {
	case *syntax.NamedType:
		if old, ok := found[w.Name]; ok && len(w.Args) == 0 {
			if old == nil && t.kind != kindNumber && t.kind != kindList && t.kind != kindVoid {
				found[w.Name] = t
			}
			return
		}
		for i, a := range w.Args {
			if i < len(t.args) {
				unify(a, t.args[i], found)
			}
		}
	case *syntax.TupleType:
		for i, e := range w.Elems {
			if t.kind == kindTuple && i < len(t.fields) {
				unify(e, t.fields[i].typ, found)
			}
		}
	case *syntax.StackType:
		if t.kind == kindStack {
			unify(w.Elem, t.elem, found)
		}
	}
}
