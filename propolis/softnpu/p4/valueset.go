package p4

import (
	"fmt"
	"slices"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"
	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/match"
)

// valueSet is a value set of a parser: a table without anything to run, whose entries are its members.
type valueSet struct {
	decl *syntax.ValueSetDecl
	info *tableInfo
}

// memberAction is what an entry of a value set has as its action.
const memberAction = "member"

// matchAnno is the kind of match that an annotation @match names.
func matchAnno(as syntax.Annotations) syntax.Name {
	for _, a := range as {
		if a.Name.Text == "match" && len(a.Body) == 1 {
			return syntax.Name{Text: a.Body[0].Text, Pos: a.Body[0].Pos}
		}
	}
	return syntax.Name{}
}

// valueSet declares a value set, which exists once for every instance of its parser.
func (c *compiler) valueSet(sc *scope, d *syntax.ValueSetDecl) *valueSet {
	inst := sc.body.inst
	if vs := inst.sets[d]; vs != nil {
		return vs
	}
	if inst.sets == nil {
		inst.sets = map[*syntax.ValueSetDecl]*valueSet{}
	}
	info := &tableInfo{index: -1, def: boundSpec{action: 1}}
	info.Name, info.ConstDefault = inst.name+"."+d.Name, true
	info.Actions, info.actions = []Action{{Name: memberAction}, {Name: "NoAction"}}, []actionInfo{{}, {defaultOnly: true}}
	vs := &valueSet{d, info}
	inst.sets[d] = vs
	if n := c.constInt(sc, d.Size, "the size of a value set"); n != nil && n.IsInt64() {
		info.Size = int(min(max(n.Int64(), 0), 1<<31))
	}
	t := c.resolveType(sc, d.Type)
	parts := []field{{name: d.Name, typ: t, match: matchAnno(d.Annos)}}
	if t.kind == kindStruct || t.kind == kindTuple {
		parts = leavesOf(t.fields, "", 0)
	}
	for _, f := range parts {
		kind, ok := match.Exact, true
		if f.match.Text != "" {
			kind, ok = matchKinds[f.match.Text]
		}
		switch {
		case f.typ.kind == kindBad:
			return vs
		case !ok:
			c.errorf(f.match.Pos, "the match kind %q is not supported", f.match.Text)
			return vs
		case !f.typ.scalar():
			c.errorf(d.Type.At(), "a value set has numbers, or structs or tuples of numbers, and not %s", f.typ)
			return vs
		}
		info.keys = append(info.keys, f.typ)
		info.Keys = append(info.Keys, Key{Name: f.name, Kind: kind, Bits: max(f.typ.width, 1)})
	}
	if !inst.discard && !c.rep.Failed() {
		info.index = len(c.tables)
		c.tables = append(c.tables, info)
	}
	return vs
}

// setLabel is the value set that alone is the label of a case of a select.
func (c *compiler) setLabel(sc *scope, label []syntax.Expr) *valueSet {
	if len(label) != 1 {
		return nil
	}
	id, ok := label[0].(*syntax.IdentExpr)
	if !ok {
		return nil
	}
	vs, _ := sc.lookup(catValue, id.Name).(*valueSet)
	return vs
}

// inSet compiles the test whether keys are a member of a value set.
func (c *compiler) inSet(vs *valueSet, keys []value, pos syntax.Pos) func(*machine) bool {
	info := vs.info
	never := func(*machine) bool { return false }
	if len(keys) != len(info.keys) {
		if len(info.keys) > 0 {
			c.errorf(pos, "value set %s has members of %d numbers, and %d are selected on", vs.decl.Name, len(info.keys), len(keys))
		}
		return never
	}
	keys = slices.Clone(keys)
	for i := range keys {
		if keys[i] = c.convert(keys[i], info.keys[i], fmt.Sprintf("value set %s", vs.decl.Name)); keys[i].bad() {
			return never
		}
	}
	if info.index < 0 || c.rep.Failed() {
		return never
	}
	find := c.lookupFunc(info, keys, make([]actionCode, len(info.actions)))
	return func(m *machine) bool { find(m); return m.hit }
}
