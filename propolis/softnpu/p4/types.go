package p4

import (
	"fmt"
	"math/big"
	"strings"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"
)

// kind is the kind of a type.
type kind int

const (
	kindBad kind = iota
	kindVoid
	kindBool
	kindBit
	kindInt
	// kindNumber is an integer of any size, which only constants have.
	kindNumber
	kindVarbit
	kindString
	kindEnum
	kindError
	kindHeader
	kindStruct
	kindUnion
	kindStack
	kindTuple
	// kindList is a list in braces that has not met its type yet.
	kindList
	// kindExtern is an object of the architecture.
	kindExtern
	// kindResult is what applying a table gives.
	kindResult
	// kindAction is what action_run is.
	kindAction
)

// typ is a type and how its values lie in the slots of a machine.
//
// A slot has 64 bits. A scalar of up to 64 bits is one slot, a wider one as many as it needs, lowest first. A header is a
// slot that says whether it is valid and then its fields, a varbit its length and then its bits, a stack its nextIndex,
// its elements and one more: an index that is out of bounds leads there.
type typ struct {
	kind   kind
	name   string
	width  int
	fields []field
	elem   *typ
	n      int
	// members and values are those of an enum; values is nil for one that is not serializable.
	members []string
	values  []*big.Int
	size    int
	// bits is the number of bits of a header without its varbit, and leaves are its fields with those of the structs in it
	// in their place.
	bits   int
	leaves []field
	varbit *field
	extern *externType
	args   []*typ
	codec  *codec
	// origin is the generic type that this is one of, with the types args.
	origin *typeDecl
	// under is the type that a declaration with the word type makes this one of. The two are not the same.
	under *typ
}

// field is a part of a type. A tracked field has a second slot that says whether it was ever assigned.
type field struct {
	name    string
	typ     *typ
	off     int
	tracked bool
	// match is the kind of match that @match says, for a value set of what the field is in.
	match syntax.Name
}

var (
	badType    = &typ{kind: kindBad, name: "?", size: 1, width: 1}
	voidType   = &typ{kind: kindVoid, name: "void"}
	boolType   = &typ{kind: kindBool, name: "bool", size: 1, width: 1}
	numberType = &typ{kind: kindNumber, name: "int"}
	stringType = &typ{kind: kindString, name: "string"}
	listType   = &typ{kind: kindList, name: "list"}
	actionType = &typ{kind: kindAction, name: "action_run", size: 1, width: 32}
	bit32      = bitType(32)
)

func limbs(width int) int { return max(1, (width+63)/64) }

func bitType(width int) *typ {
	return &typ{kind: kindBit, name: fmt.Sprintf("bit<%d>", width), width: width, size: limbs(width)}
}

func intType(width int) *typ {
	return &typ{kind: kindInt, name: fmt.Sprintf("int<%d>", width), width: width, size: limbs(width)}
}

func varbitType(width int) *typ {
	return &typ{kind: kindVarbit, name: fmt.Sprintf("varbit<%d>", width), width: width, size: 1 + limbs(width)}
}

func (t *typ) String() string { return t.name }

// scalar says whether values are one number.
func (t *typ) scalar() bool {
	switch t.kind {
	case kindBool, kindBit, kindInt, kindEnum, kindError, kindAction, kindBad:
		return true
	}
	return false
}

// integer says whether values are numbers of a width that can be computed with.
func (t *typ) integer() bool { return (t.kind == kindBit || t.kind == kindInt) && t.under == nil }

// numeric says whether values are numbers that can be computed with, or one without a width.
func (t *typ) numeric() bool { return t.integer() || t.kind == kindNumber }

// numbered says whether values are members of an enum that stand for numbers.
func (t *typ) numbered() bool { return t.kind == kindEnum && t.values != nil && t.under == nil }

// narrow says whether values are one slot.
func (t *typ) narrow() bool { return t.scalar() && t.width <= 64 }

func (t *typ) field(name string) *field {
	for i := range t.fields {
		if t.fields[i].name == name {
			return &t.fields[i]
		}
	}
	return nil
}

// equal says whether two types are the same. Headers, structs, unions and enums are the same only if their declaration is.
func (t *typ) equal(u *typ) bool {
	if t == u {
		return true
	}
	if t.kind != u.kind || t.under != nil || u.under != nil {
		return false
	}
	switch t.kind {
	case kindBit, kindInt, kindVarbit:
		return t.width == u.width
	case kindBool, kindVoid, kindError, kindString, kindNumber:
		return true
	case kindStack:
		return t.n == u.n && t.elem.equal(u.elem)
	case kindTuple:
		if len(t.fields) != len(u.fields) {
			return false
		}
		for i := range t.fields {
			if !t.fields[i].typ.equal(u.fields[i].typ) {
				return false
			}
		}
		return true
	case kindExtern:
		return t.extern == u.extern
	}
	return false
}

// holds says whether a value of the type has a part for which ok holds.
func (t *typ) holds(ok func(*typ) bool) bool {
	if ok(t) {
		return true
	}
	if t.elem != nil && t.elem.holds(ok) {
		return true
	}
	for _, f := range t.fields {
		if f.typ.holds(ok) {
			return true
		}
	}
	return false
}

// These bound how many slots a value of one type and all variables of a program have.
const (
	maxTypeSlots = 1 << 15
	maxSlots     = 1 << 18
)

// layout places the fields one behind the other from slot off on.
func (c *compiler) layout(pos syntax.Pos, t *typ, off int) {
	for i := range t.fields {
		f := &t.fields[i]
		f.off = off
		off += f.typ.size
		if f.tracked {
			off++
		}
	}
	if off > maxTypeSlots {
		c.errorf(pos, "%s is too large", t.name)
		off = 1
	}
	t.size = max(off, 1)
}

// resolveType finds the type that is written.
func (c *compiler) resolveType(sc *scope, t syntax.Type) *typ {
	switch t := t.(type) {
	case *syntax.BaseType:
		switch t.Name {
		case "bool":
			return boolType
		case "void":
			return voidType
		case "error":
			return c.errors
		case "string":
			return stringType
		}
		c.errorf(t.Pos, "a value cannot have the type %s", t.Name)
		return badType
	case *syntax.BitType:
		return c.resolveBits(sc, t)
	case *syntax.StackType:
		return c.resolveStack(sc, t)
	case *syntax.TupleType:
		if t.List {
			c.errorf(t.Pos, "lists of unknown length are not supported")
			return badType
		}
		tuple := &typ{kind: kindTuple}
		var names []string
		for i, e := range t.Elems {
			et := c.resolveType(sc, e)
			names = append(names, et.name)
			tuple.fields = append(tuple.fields, field{name: fmt.Sprint(i), typ: et})
		}
		tuple.name = "tuple<" + strings.Join(names, ", ") + ">"
		c.layout(t.Pos, tuple, 0)
		return tuple
	case *syntax.NamedType:
		return c.resolveName(sc, t)
	}
	return badType
}

func (c *compiler) resolveBits(sc *scope, t *syntax.BitType) *typ {
	if t.Width == nil {
		switch t.Base {
		case "int":
			return numberType
		case "bit":
			return bitType(1)
		}
		c.errorf(t.Pos, "varbit needs a width")
		return badType
	}
	w := c.constInt(sc, t.Width, "a width")
	if w == nil {
		return badType
	}
	if !w.IsInt64() || w.Int64() < 1 || w.Int64() > syntax.MaxWidth {
		c.errorf(t.Width.At(), "the width %s is not within 1 and %d", w, syntax.MaxWidth)
		return badType
	}
	switch n := int(w.Int64()); t.Base {
	case "bit":
		return bitType(n)
	case "int":
		return intType(n)
	default:
		return varbitType(n)
	}
}

func (c *compiler) resolveStack(sc *scope, t *syntax.StackType) *typ {
	elem := c.resolveType(sc, t.Elem)
	n := c.constInt(sc, t.Size, "the size of a stack")
	if n == nil || elem.kind == kindBad {
		return badType
	}
	if elem.kind != kindHeader && elem.kind != kindUnion {
		c.errorf(t.Pos, "a stack is made of headers or header unions, and %s is neither", elem)
		return badType
	}
	if !n.IsInt64() || n.Int64() < 1 || n.Int64() > maxTypeSlots || n.Int64()*int64(elem.size) > maxTypeSlots {
		c.errorf(t.Size.At(), "a stack of %s elements is not possible", n)
		return badType
	}
	return &typ{kind: kindStack, name: fmt.Sprintf("%s[%s]", elem, n), elem: elem, n: int(n.Int64()), size: 1 + (int(n.Int64())+1)*elem.size}
}

func (c *compiler) resolveName(sc *scope, t *syntax.NamedType) *typ {
	if t.Global {
		sc = c.global
	}
	ent := sc.lookup(catType, t.Name)
	if ent == nil {
		c.errorf(t.Pos, "there is no type %q", t.Name)
		return badType
	}
	if x, ok := ent.(*externType); ok {
		et := &typ{kind: kindExtern, name: t.Name, extern: x}
		for _, a := range t.Args {
			if b, ok := a.(*syntax.BaseType); ok && b.Name == "_" {
				et.args = append(et.args, bit32)
				continue
			}
			et.args = append(et.args, c.resolveType(sc, a))
		}
		return et
	}
	d, isDecl := ent.(*typeDecl)
	if isDecl && len(d.params()) > 0 {
		return c.specialized(sc, d, t)
	}
	if len(t.Args) > 0 {
		c.errorf(t.Pos, "type %s is not generic, and takes no types", t.Name)
		return badType
	}
	if isDecl {
		return c.declaredType(d)
	}
	if e, ok := ent.(*typ); ok {
		return e
	}
	c.errorf(t.Pos, "%q is not the type of a value", t.Name)
	return badType
}

// typeDecl is a type that is declared and looked at when it is first used, since a program may use it before.
type typeDecl struct {
	decl    syntax.Decl
	typ     *typ
	pending bool
	// special are the types that a generic one was made into, by the types that were given; one that is being made is nil.
	special map[string]*typ
}

func (c *compiler) declaredType(d *typeDecl) *typ {
	if d.typ != nil {
		return d.typ
	}
	if d.pending {
		c.errorf(d.decl.At(), "type %s contains itself", d.decl.DeclName())
		d.typ = badType
		return badType
	}
	if c.typeDepth++; c.typeDepth > 200 {
		c.errorf(d.decl.At(), "types are nested too deep")
		c.typeDepth--
		return badType
	}
	d.pending = true
	t := c.makeType(d.decl)
	d.pending = false
	c.typeDepth--
	if d.typ == nil {
		d.typ = t
	}
	return d.typ
}

func (c *compiler) makeType(decl syntax.Decl) *typ {
	switch d := decl.(type) {
	case *syntax.TypedefDecl:
		t := c.resolveType(c.global, d.Type)
		if !d.New || t.kind == kindBad {
			return t
		}
		return c.newType(d, t)
	case *syntax.EnumDecl:
		return c.makeEnum(d)
	case *syntax.FieldsDecl:
		if len(d.Params) > 0 {
			c.errorf(d.Pos, "the generic type %s needs types, as in %s<bit<8>>", d.Name, d.Name)
			return badType
		}
		return c.makeFields(c.global, d, d.Name)
	}
	return badType
}

// newType makes the type of a declaration with the word type: one whose values are like those of another type, but only a
// cast makes one out of the other, and nothing can be computed with them.
func (c *compiler) newType(d *syntax.TypedefDecl, under *typ) *typ {
	if !under.scalar() || under.kind == kindAction {
		c.errorf(d.Type.At(), "type %s cannot be made of %s: of bit<W>, int<W>, bool, error and enums it can", d.Name, under)
		return badType
	}
	t := *under
	t.name, t.under = d.Name, under
	return &t
}

func (c *compiler) makeEnum(d *syntax.EnumDecl) *typ {
	t := &typ{kind: kindEnum, name: d.Name, width: 32, size: 1}
	var base *typ
	if d.Type != nil {
		base = c.resolveType(c.global, d.Type)
		if !base.integer() || !base.narrow() {
			c.errorf(d.Type.At(), "the values of an enum are bit<W> or int<W> of up to 64 bits")
			return badType
		}
		t.width, t.values = base.width, []*big.Int{}
		t.elem = base
	}
	seen := map[string]bool{}
	for _, m := range d.Members {
		if seen[m.Name.Text] {
			c.errorf(m.Name.Pos, "enum %s has two members %s", d.Name, m.Name.Text)
		}
		seen[m.Name.Text] = true
		t.members = append(t.members, m.Name.Text)
		switch {
		case base == nil && m.Value != nil:
			c.errorf(m.Name.Pos, "enum %s has no type, so its members have no values", d.Name)
		case base != nil && m.Value == nil:
			c.errorf(m.Name.Pos, "member %s needs a value, since enum %s has a type", m.Name.Text, d.Name)
			t.values = append(t.values, new(big.Int))
		case base != nil:
			v := c.convert(c.expr(c.global, m.Value), base, "the value of "+m.Name.Text)
			if v.c == nil {
				c.notConstant(v, "the value of "+m.Name.Text)
				v.c = new(big.Int)
			}
			t.values = append(t.values, v.c)
		}
	}
	return t
}

// makeFields makes a header, struct or union, whose fields have types of a scope.
func (c *compiler) makeFields(sc *scope, d *syntax.FieldsDecl, name string) *typ {
	t := &typ{name: name}
	start := 0
	switch d.Kind {
	case "header":
		t.kind, start = kindHeader, 1
	case "struct":
		t.kind = kindStruct
	default:
		t.kind = kindUnion
	}
	seen := map[string]bool{}
	for _, f := range d.Fields {
		ft := c.resolveType(sc, f.Type)
		if seen[f.Name.Text] {
			c.errorf(f.Name.Pos, "%s %s has two fields %s", d.Kind, d.Name, f.Name.Text)
			continue
		}
		seen[f.Name.Text] = true
		nf := field{name: f.Name.Text, typ: ft, tracked: c.tracked == d && f.Name.Text == "port", match: matchAnno(f.Annos)}
		switch {
		case ft.kind == kindBad:
		case ft.kind == kindNumber || ft.kind == kindVoid || ft.kind == kindString || ft.kind == kindExtern:
			c.errorf(f.Type.At(), "a field cannot be of type %s", ft)
			continue
		case t.kind == kindHeader && ft.kind == kindStruct && !ft.holds(func(u *typ) bool { return u.kind != kindStruct && !inHeader(u) }):
		case t.kind == kindHeader && ft.kind != kindVarbit && !inHeader(ft):
			c.errorf(f.Type.At(), "a field of a header cannot be of type %s", ft)
			continue
		case t.kind == kindUnion && ft.kind != kindHeader:
			c.errorf(f.Type.At(), "the fields of a header union are headers, and %s is not", ft)
			continue
		}
		t.fields = append(t.fields, nf)
	}
	c.layout(d.Pos, t, start)
	for i := range t.fields {
		if f := &t.fields[i]; t.kind == kindHeader && f.typ.kind == kindVarbit {
			if t.varbit != nil {
				c.errorf(d.Pos, "header %s has two varbit fields", d.Name)
			}
			t.varbit = f
		}
	}
	if t.kind == kindHeader {
		t.leaves = leavesOf(t.fields, "", 0)
		for _, f := range t.leaves {
			if f.typ.kind != kindVarbit {
				t.bits += f.typ.width
			}
		}
		t.codec = newCodec(t)
	}
	return t
}

// inHeader says whether a field of a header can be of a type, apart from structs and varbits.
func inHeader(t *typ) bool {
	return t.kind == kindBad || t.scalar() && t.kind != kindError && (t.kind != kindEnum || t.values != nil)
}

// leavesOf lists fields with those of structs in their place.
func leavesOf(fields []field, prefix string, off int) []field {
	var out []field
	for _, f := range fields {
		f.name, f.off = prefix+f.name, f.off+off
		if f.typ.kind == kindStruct {
			out = append(out, leavesOf(f.typ.fields, f.name+".", f.off)...)
			continue
		}
		out = append(out, f)
	}
	return out
}
