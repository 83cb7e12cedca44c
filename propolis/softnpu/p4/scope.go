package p4

import (
	"math/big"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"
)

// category keeps names apart that mean different things in different places: programs for x4c have a control, an action
// and an instance of one name side by side.
type category int

const (
	catType category = iota
	catValue
	catAction
	categories
)

// scope is what the names at a place mean.
type scope struct {
	parent *scope
	names  [categories]map[string]any
	body   *body
	// members says that these are the members of a control or parser. The language lets them hide its parameters, and lets
	// nothing in its code do that.
	members bool
}

// bodyKind is what kind of code is compiled.
type bodyKind int

const (
	bodyNone bodyKind = iota
	bodyParser
	bodyControl
	bodyAction
	bodyFunction
)

// body is the code that a scope is in.
type body struct {
	kind bodyKind
	inst *instance
	// states are those of the parser.
	states map[string]int
	// loops is how many loops are around the code.
	loops int
	// result is what a function returns, and where it goes.
	result *typ
	off    int
}

func (s *scope) inner() *scope { return &scope{parent: s, body: s.body} }

func (s *scope) lookup(cat category, name string) any {
	for ; s != nil; s = s.parent {
		if e, ok := s.names[cat][name]; ok {
			return e
		}
	}
	return nil
}

func (s *scope) set(cat category, name string, e any) {
	if s.names[cat] == nil {
		s.names[cat] = map[string]any{}
	}
	s.names[cat][name] = e
}

// declare adds a name and objects to one that is there.
func (c *compiler) declare(s *scope, cat category, pos syntax.Pos, name string, e any) {
	if name == "" {
		return
	}
	if _, ok := s.names[cat][name]; ok {
		c.errorf(pos, "%q is declared twice", name)
		return
	}
	if b, ok := e.(*binding); !ok || !b.param {
		if p, ok := s.lookup(cat, name).(*binding); ok && p.param {
			tell := c.rep.Errorf
			if s.members {
				tell = c.rep.Warnf
			}
			tell(pos, "%q hides the parameter of this name", name)
		}
	}
	s.set(cat, name, e)
}

// binding is a variable, a parameter, or a constant that is already worked out.
type binding struct {
	v     value
	param bool
}

// constant is a constant that is worked out when it is first used.
type constant struct {
	decl    *syntax.ConstDecl
	sc      *scope
	v       *value
	pending bool
}

// value is a compiled expression.
type value struct {
	t   *typ
	pos syntax.Pos
	// c is set for a constant.
	c *big.Int
	// n computes a scalar of up to 64 bits, and b a bool.
	n func(*machine) uint64
	b func(*machine) bool
	// Everything larger lies in the slots from off on, once prep has run, if there is one. A narrow value that is just a
	// slot has direct set and lies there too.
	off    int
	prep   func(*machine)
	direct bool
	// lv says that the value is a place; readOnly is why it cannot be assigned to, "" if it can.
	lv       *lvalue
	readOnly string
	// list are the elements of a list in braces.
	list  []value
	names []syntax.Name
	// invalid says that the list is {#}.
	invalid bool
	str     string
	// obj is what a name means that is no value: an instance, a table, a type.
	obj any
	// table is the table whose result this is.
	table *tableInfo
	// calls says that computing it has effects.
	calls bool
}

func (v value) bad() bool { return v.t == nil || v.t.kind == kindBad }

func (c *compiler) badValue(pos syntax.Pos) value {
	return value{t: badType, pos: pos, c: new(big.Int)}
}

func constValue(pos syntax.Pos, t *typ, v *big.Int) value { return value{t: t, pos: pos, c: v} }

func boolConst(pos syntax.Pos, v bool) value {
	if v {
		return constValue(pos, boolType, big.NewInt(1))
	}
	return constValue(pos, boolType, new(big.Int))
}

// place makes a value of a place.
func (c *compiler) place(pos syntax.Pos, t *typ, lv *lvalue) value {
	v := value{t: t, pos: pos, lv: lv, off: lv.off}
	off, dyn := lv.off, lv.dyn
	switch {
	case lv.sliced:
		return c.loadSlice(v)
	case t.kind == kindBool && dyn == nil:
		v.direct = true
		v.b = func(m *machine) bool { return m.s[off] != 0 }
	case t.kind == kindBool:
		v.b = func(m *machine) bool { return m.s[off+dyn(m)] != 0 }
	case t.narrow() && dyn == nil:
		v.direct = true
		v.n = func(m *machine) uint64 { return m.s[off] }
	case t.narrow():
		v.n = func(m *machine) uint64 { return m.s[off+dyn(m)] }
	case dyn != nil:
		tmp, size := c.alloc(t.size), t.size
		v.off = tmp
		v.prep = func(m *machine) {
			at := off + dyn(m)
			copy(m.s[tmp:tmp+size], m.s[at:at+size])
		}
	}
	return v
}

// narrow gives the function that computes a scalar of up to 64 bits.
func (c *compiler) narrow(v value) func(*machine) uint64 {
	switch {
	case v.c != nil:
		k := toLimbs(v.c, max(v.t.width, 1))[0]
		return func(*machine) uint64 { return k }
	case v.direct:
		off := v.off
		return func(m *machine) uint64 { return m.s[off] }
	case v.n != nil:
		return v.n
	case v.b != nil:
		b := v.b
		return func(m *machine) uint64 {
			if b(m) {
				return 1
			}
			return 0
		}
	}
	return func(*machine) uint64 { return 0 }
}

// truth gives the function that computes a bool.
func (c *compiler) truth(v value) func(*machine) bool {
	switch {
	case v.c != nil:
		k := v.c.Sign() != 0
		return func(*machine) bool { return k }
	case v.b != nil:
		return v.b
	case v.n != nil:
		n := v.n
		return func(m *machine) bool { return n(m) != 0 }
	}
	return func(*machine) bool { return false }
}

// stored gives the slot that the value lies in after prep has run; prep may be nil.
func (c *compiler) stored(v value) (prep func(*machine), off int) {
	switch {
	case v.direct:
		return nil, v.off
	case v.c != nil:
		return nil, c.constSlots(toLimbs(v.c, max(v.t.width, 1)))
	case v.t.narrow():
		n, tmp := c.narrow(v), c.alloc(1)
		return func(m *machine) { m.s[tmp] = n(m) }, tmp
	case v.list != nil && v.prep == nil:
		c.errorf(v.pos, "a list cannot stand here")
		return nil, 0
	}
	return v.prep, v.off
}

// constInit is a constant that lies in the slots of every machine.
type constInit struct {
	off   int
	limbs []uint64
}

func (c *compiler) constSlots(l []uint64) int {
	key := string(bigBytes(l))
	if off, ok := c.constAt[key]; ok {
		return off
	}
	off := c.alloc(len(l))
	c.constAt[key] = off
	c.consts = append(c.consts, constInit{off, l})
	return off
}

// alloc gives out slots.
func (c *compiler) alloc(n int) int {
	off := c.slots
	if c.slots+n > maxSlots {
		if !c.tooLarge {
			c.tooLarge = true
			c.rep.Errorf(syntax.Pos{}, "the program needs more than %d words of memory for a packet", maxSlots)
		}
		return 0
	}
	c.slots += n
	return off
}
