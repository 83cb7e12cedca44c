package p4

import (
	"math/big"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"
)

// The errors that the language itself knows, in the order in which they are declared.
const (
	errNoError uint64 = iota
	errPacketTooShort
	errNoMatch
	errStackOutOfBounds
	errHeaderTooShort
	errParserTimeout
	errParserInvalidArgument
)

var builtinErrors = []string{"NoError", "PacketTooShort", "NoMatch", "StackOutOfBounds", "HeaderTooShort", "ParserTimeout", "ParserInvalidArgument"}

func (m *machine) tooShort() {
	m.fail(PacketTooShort)
	m.parserError = errPacketTooShort
	m.next = stateReject
}

// packetMethod compiles the methods of packet_in.
func (c *compiler) packetMethod(sc *scope, e *syntax.CallExpr, name string) value {
	if sc.body.kind != bodyParser {
		c.errorf(e.Pos, "a packet_in can be used only in a parser")
		return c.badValue(e.Pos)
	}
	switch name {
	case "extract":
		return c.extract(sc, e)
	case "lookahead":
		return c.lookahead(sc, e)
	case "length":
		c.noArgs(e, name)
		return value{t: bit32, pos: e.Pos, n: func(m *machine) uint64 { return uint64(len(m.pkt)) }}
	case "advance":
		if len(e.Args) != 1 {
			c.errorf(e.Pos, "advance takes one argument, the number of bits")
			return c.badValue(e.Pos)
		}
		v := c.convert(c.expr(sc, e.Args[0].Value), bit32, "advance")
		if v.bad() {
			return v
		}
		n := c.narrow(v)
		return void(e.Pos, func(m *machine) signal {
			by := int(n(m))
			if by > 8*len(m.pkt)-m.cur {
				m.tooShort()
				return moved
			}
			m.cur += by
			m.advanced += by
			return next
		})
	}
	c.errorf(e.Pos, "packet_in has no method %q", name)
	return c.badValue(e.Pos)
}

// extract compiles the extraction of a header, with the length of its varbit if it has one.
func (c *compiler) extract(sc *scope, e *syntax.CallExpr) value {
	bad := c.badValue(e.Pos)
	if len(e.Args) != 1 && len(e.Args) != 2 {
		c.errorf(e.Pos, "extract takes a header, and the number of bits of its varbit field if it has one")
		return bad
	}
	if _, ok := e.Args[0].Value.(*syntax.AnyExpr); ok && len(e.TypeArgs) == 1 {
		t := c.resolveType(sc, e.TypeArgs[0])
		if t.kind != kindHeader || t.varbit != nil {
			c.errorf(e.Pos, "only a header of fixed size can be extracted to nowhere")
			return bad
		}
		bits := t.bits
		return void(e.Pos, func(m *machine) signal {
			if bits > 8*len(m.pkt)-m.cur {
				m.tooShort()
				return moved
			}
			m.cur += bits
			m.advanced += bits
			return next
		})
	}
	v := c.expr(sc, e.Args[0].Value)
	if !c.assignable(v) {
		return bad
	}
	if v.t.kind != kindHeader {
		c.errorf(v.pos, "only a header can be extracted, and this is %s", v.t)
		return bad
	}
	t, lv := v.t, v.lv
	switch {
	case t.varbit == nil && len(e.Args) == 2:
		c.errorf(e.Pos, "header %s has no varbit field", t)
		return bad
	case t.varbit != nil && len(e.Args) == 1:
		c.errorf(e.Pos, "header %s has a varbit field, so extract needs the number of its bits as well", t)
		return bad
	}
	var varBits func(*machine) uint64
	maxVar := 0
	if t.varbit != nil {
		n := c.convert(c.expr(sc, e.Args[1].Value), bit32, "extract")
		if n.bad() {
			return bad
		}
		varBits, maxVar = c.narrow(n), t.varbit.typ.width
	}
	off, dyn, siblings, advance, codec, fixed, name := lv.off, lv.dyn, lv.siblings, lv.advance, t.codec, t.bits, exprText(e.Args[0].Value)
	var bit uint64
	part := c.partAt(off)
	if dyn != nil {
		c.makesValid(lv.span(t.size))
		c.writes(lv.span(t.size))
	} else if part >= 0 {
		bit = 1 << part
	}
	part = max(part, 0)
	if dyn == nil && varBits == nil && len(siblings) == 0 && advance < 0 {
		return void(e.Pos, func(m *machine) signal {
			if fixed > 8*len(m.pkt)-m.cur {
				m.tooShort()
				return moved
			}
			codec.decode(m.s, off, m.pkt, m.cur, 0)
			m.s[off] = 1
			if bit != 0 {
				m.seen |= bit
				m.from[part] = m.cur
			}
			m.cur += fixed
			if m.trace != nil {
				m.trace.extract(name, t, m.s, off)
			}
			return next
		})
	}
	return void(e.Pos, func(m *machine) signal {
		bits, extra, at := fixed, 0, off
		if dyn != nil {
			at += dyn(m)
			if m.fault != NotDropped {
				m.parserError = errStackOutOfBounds
				m.next = stateReject
				return moved
			}
		}
		if varBits != nil {
			n := varBits(m)
			if n > uint64(maxVar) {
				m.fail(HeaderTooShort)
				m.parserError = errHeaderTooShort
				m.next = stateReject
				return moved
			}
			extra = int(n)
			bits += extra
		}
		if bits > 8*len(m.pkt)-m.cur {
			m.tooShort()
			return moved
		}
		codec.decode(m.s, at, m.pkt, m.cur, extra)
		m.s[at] = 1
		if bit != 0 {
			m.seen |= bit
			m.from[part] = m.cur
		}
		for _, s := range siblings {
			m.s[at+s] = 0
		}
		m.cur += bits
		if advance >= 0 {
			m.s[advance]++
		}
		if m.trace != nil {
			m.trace.extract(name, t, m.s, at)
		}
		return next
	})
}

// exprText shows an expression that is a path of names.
func exprText(e syntax.Expr) string {
	switch e := e.(type) {
	case *syntax.IdentExpr:
		return e.Name
	case *syntax.MemberExpr:
		return exprText(e.X) + "." + e.Name.Text
	case *syntax.IndexExpr:
		if n, ok := e.I.(*syntax.IntExpr); ok {
			return exprText(e.X) + "[" + n.Value.String() + "]"
		}
		return exprText(e.X) + "[…]"
	case *syntax.SliceExpr:
		return exprText(e.X) + "[" + exprText(e.Hi) + ":" + exprText(e.Lo) + "]"
	case *syntax.PlusSliceExpr:
		return exprText(e.X) + "[" + exprText(e.From) + "+:" + exprText(e.Width) + "]"
	case *syntax.IntExpr:
		return e.Value.String()
	case *syntax.CallExpr:
		return exprText(e.Fun) + "()"
	}
	return "…"
}

// lookahead compiles a read that does not move the parser on.
func (c *compiler) lookahead(sc *scope, e *syntax.CallExpr) value {
	c.noArgs(e, "lookahead")
	if len(e.TypeArgs) != 1 {
		c.errorf(e.Pos, "lookahead needs a type, as in lookahead<bit<8>>()")
		return c.badValue(e.Pos)
	}
	t := c.resolveType(sc, e.TypeArgs[0])
	if t.kind == kindBad {
		return c.badValue(e.Pos)
	}
	read, bits, ok := reader(t)
	if !ok {
		c.errorf(e.Pos, "lookahead of %s is not possible", t)
		return c.badValue(e.Pos)
	}
	dst, size := c.alloc(t.size), t.size
	v := c.place(e.Pos, t, &lvalue{off: dst, flag: -1, advance: -1})
	v.lv = nil
	return c.after(func(m *machine) {
		if bits > 8*len(m.pkt)-m.cur {
			clear(m.s[dst : dst+size])
			m.tooShort()
			return
		}
		read(m.s, dst, m.pkt, m.cur)
	}, v, true)
}

// reader gives the function that reads a value of fixed size from a packet.
func reader(t *typ) (read func(s []uint64, at int, b []byte, off int), bits int, ok bool) {
	switch {
	case t.kind == kindHeader && t.varbit == nil:
		return func(s []uint64, at int, b []byte, off int) {
			t.codec.decode(s, at, b, off, 0)
			s[at] = 1
		}, t.bits, true
	case t.scalar() && t.kind != kindError && (t.kind != kindEnum || t.values != nil):
		w := t.width
		return func(s []uint64, at int, b []byte, off int) { readWideBits(s[at:], b, off, w) }, w, true
	case t.kind == kindStruct || t.kind == kindTuple:
		type part struct {
			read      func(s []uint64, at int, b []byte, off int)
			slot, off int
		}
		var parts []part
		for _, f := range t.fields {
			r, n, ok := reader(f.typ)
			if !ok {
				return nil, 0, false
			}
			parts = append(parts, part{r, f.off, bits})
			bits += n
		}
		return func(s []uint64, at int, b []byte, off int) {
			for _, p := range parts {
				p.read(s, at+p.slot, b, off+p.off)
			}
		}, bits, true
	}
	return nil, 0, false
}

// writer gives the function that writes a value to bit off of a buffer, and the bit behind it. Headers that are not valid
// write nothing. max is the most bits it writes.
func writer(t *typ) (write func(s []uint64, at int, b []byte, off int) int, max int) {
	switch t.kind {
	case kindHeader:
		codec := t.codec
		_, max = bitsRange(t)
		return func(s []uint64, at int, b []byte, off int) int {
			if s[at] == 0 {
				return off
			}
			return codec.encode(s, at, b, off)
		}, max
	case kindVarbit:
		return func(s []uint64, at int, b []byte, off int) int {
			w := int(s[at])
			writeWideBits(b, off, w, s[at+1:])
			return off + w
		}, t.width
	case kindStack:
		w, n := writer(t.elem)
		size, count := t.elem.size, t.n
		return func(s []uint64, at int, b []byte, off int) int {
			for i := range count {
				off = w(s, at+1+i*size, b, off)
			}
			return off
		}, n * count
	case kindStruct, kindUnion, kindTuple:
		type part struct {
			write func(s []uint64, at int, b []byte, off int) int
			slot  int
		}
		var parts []part
		for _, f := range t.fields {
			w, n := writer(f.typ)
			parts = append(parts, part{w, f.off})
			max += n
		}
		return func(s []uint64, at int, b []byte, off int) int {
			for _, p := range parts {
				off = p.write(s, at+p.slot, b, off)
			}
			return off
		}, max
	}
	w := t.width
	return func(s []uint64, at int, b []byte, off int) int {
		writeWideBits(b, off, w, s[at:])
		return off + w
	}, w
}

// headerPart is a header somewhere in the struct of headers.
type headerPart struct {
	name  string
	at    int
	typ   *typ
	codec *codec
	// written says that some code changes fields of it, so that it may not leave as it came.
	written bool
}

// headerParts lists the headers of a type in the order in which they are emitted.
func headerParts(t *typ, name string, at int) []headerPart {
	var out []headerPart
	sub := func(n string) string {
		if name == "" {
			return n
		}
		return name + "." + n
	}
	switch t.kind {
	case kindHeader:
		return []headerPart{{name: name, at: at, typ: t, codec: t.codec}}
	case kindStack:
		for i := range t.n {
			out = append(out, headerParts(t.elem, name+"["+big.NewInt(int64(i)).String()+"]", at+1+i*t.elem.size)...)
		}
	case kindStruct, kindUnion, kindTuple:
		for _, f := range t.fields {
			out = append(out, headerParts(f.typ, sub(f.name), at+f.off)...)
		}
	}
	return out
}

// emit compiles packet_out.emit.
func (c *compiler) emit(sc *scope, e *syntax.CallExpr, name string) value {
	bad := c.badValue(e.Pos)
	if name != "emit" {
		c.errorf(e.Pos, "packet_out has no method %q", name)
		return bad
	}
	if len(e.Args) != 1 {
		c.errorf(e.Pos, "emit takes one argument")
		return bad
	}
	v := c.expr(sc, e.Args[0].Value)
	if v.bad() {
		return bad
	}
	if v.list != nil && v.t.kind == kindList {
		var all []stmt
		for _, x := range v.list {
			if run := c.emitOne(x); run != nil {
				all = append(all, run)
			}
		}
		return void(e.Pos, sequence(all))
	}
	run := c.emitOne(v)
	if run == nil {
		return bad
	}
	return void(e.Pos, run)
}

func (c *compiler) emitOne(v value) stmt {
	if v.bad() {
		return nil
	}
	if v.obj != nil || v.t.holds(func(t *typ) bool { return t.scalar() }) && !v.t.holds(func(t *typ) bool {
		return t.kind == kindHeader
	}) {
		c.errorf(v.pos, "only headers, and stacks, unions and structs of headers, can be emitted")
		return nil
	}
	for _, f := range v.t.fields {
		if v.t.kind == kindStruct && f.typ.scalar() {
			c.errorf(v.pos, "struct %s cannot be emitted, since its field %s is no header", v.t, f.name)
			return nil
		}
	}
	prep, off := c.stored(v)
	write, most := writer(v.t)
	c.emitBits += most
	return func(m *machine) signal {
		if prep != nil {
			prep(m)
		}
		m.hdrBits = write(m.s, off, m.hdr, m.hdrBits)
		return next
	}
}
