package p4

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"
)

// externKind is an object of the architecture that the engine has.
type externKind int

const (
	externNone externKind = iota
	externPacketIn
	externPacketOut
	externChecksum
	externInternetChecksum
	externRegister
	externCounter
	externDirectCounter
	externMeter
	externHash
	externRandom
	externReplicate
)

var externKinds = map[string]externKind{
	"packet_in": externPacketIn, "packet_out": externPacketOut, "Checksum": externChecksum, "InternetChecksum": externInternetChecksum,
	"Register": externRegister, "register": externRegister, "Counter": externCounter, "counter": externCounter,
	"DirectCounter": externDirectCounter, "direct_counter": externDirectCounter, "Meter": externMeter, "meter": externMeter,
	"Hash": externHash, "Random": externRandom, "Replicate": externReplicate,
}

// externType is an extern that is declared.
type externType struct {
	decl *syntax.ExternDecl
	kind externKind
}

// externInst is an extern that is instantiated.
type externInst struct {
	name  string
	typ   *externType
	kind  externKind
	args  []*typ
	index int
	size  int
	// broken says that there is an error in its declaration, which is enough said about it.
	broken bool
	// table is the table that a direct counter belongs to.
	table *tableInfo
	// algorithm is that of a hash; lo and hi bound a random number.
	algorithm string
	lo, hi    uint64
	// data are the numbers in a cell of a register, and flags the slots that say of some that they were assigned.
	data  []datum
	flags []int
	// sum is the slot that an InternetChecksum adds up in.
	sum int
}

// externState is what an extern remembers between packets.
type externState struct {
	info  *externInst
	cells []atomic.Uint64
	// wide are cells of more than 64 bits, which mu guards.
	mu     sync.Mutex
	wide   []uint64
	counts []counterCell
	meters []meterCell
}

type counterCell struct{ packets, bytes atomic.Uint64 }

// maxCells bounds all registers, counters and meters of a program together, in words of 64 bits.
const maxCells = 1 << 22

// externInstance makes the instance that a declaration asks for, or finds it.
func (c *compiler) externInstance(sc *scope, d *syntax.InstanceDecl, t *typ) *externInst {
	if t.kind != kindExtern {
		return nil
	}
	inst := sc.body.inst
	if inst != nil && inst.externs[d] != nil {
		return inst.externs[d]
	}
	x := &externInst{name: d.Name, typ: t.extern, kind: t.extern.kind, args: t.args}
	if inst != nil {
		x.name = inst.name + "." + d.Name
		inst.externs[d] = x
	}
	vals := make([]value, len(d.Args))
	for i, a := range d.Args {
		vals[i] = c.expr(sc, a.Value)
		if vals[i].bad() {
			x.broken = true
			return x
		}
	}
	c.configure(x, d, inst, vals)
	if inst == nil || !inst.discard {
		x.index = len(c.externs)
		c.externs = append(c.externs, x)
	}
	return x
}

// configure works out the arguments of an instance.
func (c *compiler) configure(x *externInst, d *syntax.InstanceDecl, inst *instance, vals []value) {
	args := func(lo, hi int) bool {
		if len(vals) < lo || len(vals) > hi {
			want := fmt.Sprint(lo)
			if hi != lo {
				want += " or " + fmt.Sprint(hi)
			}
			c.errorf(d.Pos, "%s takes %s arguments, and %d are given", x.typ.decl.Name, want, len(vals))
			return false
		}
		return true
	}
	types := func(least int) bool {
		if len(x.args) < least {
			x.broken = true
			c.errorf(d.Pos, "%s needs a type, as in %s<bit<32>>", x.typ.decl.Name, x.typ.decl.Name)
			return false
		}
		for _, t := range x.args {
			if t.kind == kindBad {
				return false
			}
		}
		return true
	}
	number := func(v value, what string, limit int64) int64 {
		if v.c == nil || v.t.kind != kindNumber && v.t.kind != kindBit {
			c.notConstant(v, what)
			return 1
		}
		if v.c.Sign() <= 0 || v.c.Cmp(big.NewInt(limit)) > 0 {
			c.errorf(v.pos, "%s is not within 1 and %d", what, limit)
			return 1
		}
		return v.c.Int64()
	}
	switch x.kind {
	case externPacketIn, externPacketOut:
		c.errorf(d.Pos, "%s cannot be instantiated", x.typ.decl.Name)
	case externChecksum:
		args(0, 0)
	case externReplicate:
		args(0, 0)
		if inst != nil && !inst.discard && !c.isIngress(inst) {
			c.errorf(d.Pos, "Replicate stands only in the ingress control of a pipeline")
		}
	case externInternetChecksum:
		args(0, 0)
		x.sum = c.alloc(1)
		c.sums = append(c.sums, x.sum)
	case externRegister:
		// A value that the cells begin with may follow the size; only zero is possible.
		if types(1) && args(1, 2) {
			var ok bool
			if x.data, x.flags, ok = dataOf(x.args[0], "", 0); !ok {
				c.errorf(d.Pos, "a register holds numbers, or structs of numbers, and not %s", x.args[0])
				x.args[0] = badType
			}
			x.size = int(number(vals[0], "the size of a register", maxCells))
			c.reserve(d, x, x.args[0].size)
			if len(vals) == 2 && (vals[1].c == nil || vals[1].c.Sign() != 0) {
				c.errorf(vals[1].pos, "a register begins as zero; another first value is not supported")
			}
		}
	case externCounter, externMeter:
		if args(1, 2) {
			x.size = int(number(vals[0], "the size of "+x.typ.decl.Name, maxCells))
			if len(vals) == 2 && (vals[1].t.kind != kindEnum || vals[1].t.values != nil) {
				c.errorf(vals[1].pos, "the kind of %s is a member of an enum without values, and this is %s", x.typ.decl.Name, describeType(vals[1]))
			}
		}
		if x.kind == externMeter {
			c.reserve(d, x, 16)
		} else {
			c.reserve(d, x, 2)
		}
		if len(vals) == 2 && vals[1].t.kind == kindEnum && vals[1].t.values == nil && vals[1].c != nil && x.kind == externMeter {
			x.algorithm = vals[1].t.members[int(vals[1].c.Int64())]
		}
	case externDirectCounter:
		args(0, 1)
	case externHash:
		if types(1) && args(1, 1) {
			if !x.args[0].scalar() {
				c.errorf(d.Pos, "a hash is a number, and not %s", x.args[0])
				x.args[0] = bit32
			}
			x.algorithm = c.algorithm(vals[0])
		}
	case externRandom:
		if types(1) && args(2, 2) {
			lo, hi := c.convert(vals[0], x.args[0], "the least number"), c.convert(vals[1], x.args[0], "the largest number")
			switch {
			case lo.bad() || hi.bad():
			case lo.c == nil || hi.c == nil || !x.args[0].narrow() || x.args[0].kind != kindBit:
				c.errorf(d.Pos, "the bounds of a random number are constants of up to 64 bits")
			case lo.c.Cmp(hi.c) > 0:
				c.errorf(d.Pos, "no number is from %s to %s", lo.c, hi.c)
			default:
				x.lo, x.hi = lo.c.Uint64(), hi.c.Uint64()
			}
		}
	default:
		x.broken = true
		c.errorf(d.Pos, "the extern %s is not one of this engine", x.typ.decl.Name)
	}
}

// reserve counts the words of an array whose cells have some words each.
func (c *compiler) reserve(d *syntax.InstanceDecl, x *externInst, words int) {
	if c.cells += x.size * words; c.cells > maxCells {
		c.errorf(d.Pos, "the registers, counters and meters of the program are too large with the %d cells of this one", x.size)
		x.size = 1
	}
}

// externMethod compiles X.name(...) where X is an extern.
func (c *compiler) externMethod(sc *scope, x *externInst, e *syntax.CallExpr, name string) value {
	bad := c.badValue(e.Pos)
	vals := make([]value, len(e.Args))
	for i, a := range e.Args {
		vals[i] = c.expr(sc, a.Value)
		if vals[i].bad() {
			return bad
		}
	}
	count := func(n int) bool {
		if len(vals) != n {
			c.errorf(e.Pos, "%s of %s takes %d arguments, and %d are given", name, x.typ.decl.Name, n, len(vals))
			return false
		}
		return true
	}
	if x.broken {
		return bad
	}
	if x.table == nil && x.kind == externDirectCounter && sc.body.kind != bodyAction {
		c.errorf(e.Pos, "a direct counter counts in an action of its table")
		return bad
	}
	switch x.kind {
	case externChecksum:
		if name == "run" {
			if !count(1) {
				return bad
			}
			if data := c.data(vals[0]); data != nil {
				return value{t: bitType(16), pos: e.Pos, calls: true, n: func(m *machine) uint64 {
					return ^onesSum(m.scratch[:data(m)]) & 0xffff
				}}
			}
			return bad
		}
	case externInternetChecksum:
		return c.internetChecksum(x, e, name, vals, count)
	case externRegister:
		return c.registerMethod(x, e, name, vals, count)
	case externCounter:
		if name == "count" && count(1) {
			if at := c.cell(x, vals[0]); at != nil {
				index := x.index
				return void(e.Pos, func(m *machine) signal {
					if k := at(m); k < uint64(len(m.externs[index].counts)) {
						cell := &m.externs[index].counts[k]
						cell.packets.Add(1)
						cell.bytes.Add(uint64(len(m.pkt)))
					}
					return next
				})
			}
			return bad
		}
	case externDirectCounter:
		if name == "count" && count(0) {
			return void(e.Pos, func(m *machine) signal {
				if m.entry != nil && m.entry.direct != nil {
					m.entry.direct.packets.Add(1)
					m.entry.direct.bytes.Add(uint64(len(m.pkt)))
				}
				return next
			})
		}
	case externReplicate:
		if name == "replicate" {
			if !count(1) {
				return bad
			}
			return c.replicateTo(sc, e, vals[0])
		}
	case externMeter:
		return c.meterMethod(sc, x, e, name, vals, count)
	case externHash:
		if name == "get_hash" {
			return c.getHash(x.args[0], x.algorithm, e, vals)
		}
	case externRandom:
		if name == "read" && count(0) {
			return value{t: x.args[0], pos: e.Pos, calls: true, n: random(x.lo, x.hi)}
		}
	}
	c.errorf(e.Pos, "the extern %s has no method %q", x.typ.decl.Name, name)
	return bad
}

func random(lo, hi uint64) func(*machine) uint64 {
	return func(*machine) uint64 {
		if n := hi - lo + 1; n != 0 {
			return lo + rand.Uint64N(n)
		}
		return rand.Uint64()
	}
}

// cell compiles the index of an array.
func (c *compiler) cell(x *externInst, v value) func(*machine) uint64 {
	if v.t.kind == kindNumber {
		v = c.convert(v, bit32, "the index")
	}
	if v.bad() {
		return nil
	}
	if v.t.kind != kindBit || !v.t.narrow() {
		c.errorf(v.pos, "an index is bit<W> of up to 64 bits, and this is %s", describeType(v))
		return nil
	}
	if v.c != nil && v.c.Cmp(big.NewInt(int64(x.size))) >= 0 {
		c.rep.Warnf(v.pos, "index %s is outside of %s, which has %d cells", v.c, x.name, x.size)
	}
	return c.narrow(v)
}

func (c *compiler) internetChecksum(x *externInst, e *syntax.CallExpr, name string, vals []value, count func(int) bool) value {
	sum := x.sum
	switch name {
	case "clear":
		if count(0) {
			return void(e.Pos, func(m *machine) signal { m.s[sum] = 0; return next })
		}
	case "add", "subtract":
		if !count(1) {
			break
		}
		data := c.data(vals[0])
		if data == nil {
			break
		}
		add := name == "add"
		return void(e.Pos, func(m *machine) signal {
			v := onesSum(m.scratch[:data(m)])
			if !add {
				v = ^v & 0xffff
			}
			m.s[sum] = foldSum(m.s[sum] + v)
			return next
		})
	case "get":
		if count(0) {
			return value{t: bitType(16), pos: e.Pos, calls: true, n: func(m *machine) uint64 { return ^m.s[sum] & 0xffff }}
		}
	case "get_state":
		if count(0) {
			return value{t: bitType(16), pos: e.Pos, calls: true, n: func(m *machine) uint64 { return m.s[sum] }}
		}
	case "set_state":
		if !count(1) {
			break
		}
		if v := c.convert(vals[0], bitType(16), "the state"); !v.bad() {
			n := c.narrow(v)
			return void(e.Pos, func(m *machine) signal { m.s[sum] = n(m); return next })
		}
	default:
		c.errorf(e.Pos, "InternetChecksum has no method %q", name)
	}
	return c.badValue(e.Pos)
}

// externFunction compiles a function of the architecture.
func (c *compiler) externFunction(sc *scope, e *syntax.CallExpr, name string) value {
	bad := c.badValue(e.Pos)
	count := func(n int) bool {
		if len(e.Args) != n {
			c.errorf(e.Pos, "%s takes %d arguments, and %d are given", name, n, len(e.Args))
			return false
		}
		return true
	}
	switch name {
	case "verify":
		if !count(2) {
			return bad
		}
		if sc.body.kind != bodyParser {
			c.errorf(e.Pos, "verify stands only in a parser")
			return bad
		}
		cond := c.condition(sc, e.Args[0].Value)
		err := c.convert(c.expr(sc, e.Args[1].Value), c.errors, "verify")
		if cond.bad() || err.bad() {
			return bad
		}
		b, n := c.truth(cond), c.narrow(err)
		return void(e.Pos, func(m *machine) signal {
			if b(m) {
				return next
			}
			m.fail(VerifyFailed)
			m.parserError = n(m)
			m.next = stateReject
			return moved
		})
	case "static_assert":
		if len(e.Args) != 1 && len(e.Args) != 2 {
			c.errorf(e.Pos, "static_assert takes a condition and a text")
			return bad
		}
		cond := c.condition(sc, e.Args[0].Value)
		if cond.bad() {
			return bad
		}
		text := ""
		if len(e.Args) == 2 {
			text = c.expr(sc, e.Args[1].Value).str
		}
		switch {
		case cond.c == nil:
			c.errorf(e.Pos, "static_assert needs a condition that is known before the program runs")
		case cond.c.Sign() == 0:
			c.errorf(e.Pos, "static_assert does not hold: %s", text)
		}
		return boolConst(e.Pos, true)
	case "hash":
		if !count(5) {
			return bad
		}
		out := c.expr(sc, e.Args[0].Value)
		if !c.assignable(out) {
			return bad
		}
		if out.t.kind != kindBit {
			c.errorf(out.pos, "a hash goes into bit<W>, and this is %s", out.t)
			return bad
		}
		alg := c.expr(sc, e.Args[1].Value)
		if alg.bad() {
			return bad
		}
		v := c.getHash(out.t, c.algorithm(alg), e, []value{c.expr(sc, e.Args[2].Value), c.expr(sc, e.Args[3].Value), c.expr(sc, e.Args[4].Value)})
		if v.bad() {
			return bad
		}
		return void(e.Pos, c.storeAfter(out, v))
	case "random":
		if !count(3) {
			return bad
		}
		out := c.expr(sc, e.Args[0].Value)
		if !c.assignable(out) {
			return bad
		}
		if out.t.kind != kindBit || !out.t.narrow() {
			c.errorf(out.pos, "a random number goes into bit<W> of up to 64 bits, and this is %s", out.t)
			return bad
		}
		lo, hi := c.plainNumber(c.expr(sc, e.Args[1].Value)), c.plainNumber(c.expr(sc, e.Args[2].Value))
		if lo == nil || hi == nil {
			return bad
		}
		mk := ones(out.t.width)
		v := value{t: out.t, pos: e.Pos, n: func(m *machine) uint64 {
			a, b := lo(m), hi(m)
			if a > b {
				return a & mk
			}
			return random(a, b)(m) & mk
		}}
		return void(e.Pos, c.storeAfter(out, v))
	}
	c.errorf(e.Pos, "the extern function %s is not one of this engine", name)
	return bad
}
