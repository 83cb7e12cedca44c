package p4

import "encoding/binary"

// codec moves the fields of a header between a packet and the slots.
//
// As many fields next to each other as fill whole bytes together, up to eight, are read at once. A field that is too wide
// for that and any that does not end on a byte go bit by bit.
type codec struct {
	typ    *typ
	groups []group
	// slow says that some field cannot be reached through whole bytes.
	slow bool
	// bits are those of the header without its varbit, if it has one.
	bits   int
	varbit *field
}

// group is a run of bytes of a header.
type group struct {
	off, n int
	parts  []part
	// slot is where a field of more than eight bytes begins; parts is nil then, or holds the one part if the field fills
	// the group alone.
	slot  int
	wide  bool
	alone bool
}

type part struct {
	slot  int
	shift uint
	mask  uint64
}

func newCodec(t *typ) *codec {
	c := &codec{typ: t, bits: t.bits, varbit: t.varbit}
	if t.varbit != nil {
		c.slow = true
		return c
	}
	bit := 0
	for i := 0; i < len(t.leaves); {
		if bit%8 != 0 {
			c.slow = true
			return c
		}
		f := t.leaves[i]
		if f.typ.width > 64 {
			if f.typ.width%8 != 0 {
				c.slow = true
				return c
			}
			c.groups = append(c.groups, group{off: bit / 8, n: f.typ.width / 8, slot: f.off, wide: true})
			bit += f.typ.width
			i++
			continue
		}
		n, k := 0, i
		for sum, j := 0, i; j < len(t.leaves) && sum+t.leaves[j].typ.width <= 64; {
			sum += t.leaves[j].typ.width
			if j++; sum%8 == 0 {
				n, k = sum, j
			}
		}
		if n == 0 {
			c.slow = true
			return c
		}
		g := group{off: bit / 8, n: n / 8}
		shift := n
		for ; i < k; i++ {
			f := t.leaves[i]
			shift -= f.typ.width
			g.parts = append(g.parts, part{f.off, uint(shift), ones(f.typ.width)})
		}
		if len(g.parts) == 1 {
			g.alone, g.slot = true, g.parts[0].slot
		}
		c.groups = append(c.groups, g)
		bit += n
	}
	return c
}

func load(b []byte, n int) uint64 {
	switch n {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.BigEndian.Uint16(b))
	case 4:
		return uint64(binary.BigEndian.Uint32(b))
	case 6:
		return uint64(binary.BigEndian.Uint32(b))<<16 | uint64(binary.BigEndian.Uint16(b[4:]))
	case 8:
		return binary.BigEndian.Uint64(b)
	}
	var v uint64
	for _, c := range b[:n] {
		v = v<<8 | uint64(c)
	}
	return v
}

func store(b []byte, n int, v uint64) {
	switch n {
	case 1:
		b[0] = byte(v)
	case 2:
		binary.BigEndian.PutUint16(b, uint16(v))
	case 4:
		binary.BigEndian.PutUint32(b, uint32(v))
	case 6:
		binary.BigEndian.PutUint32(b, uint32(v>>16))
		binary.BigEndian.PutUint16(b[4:], uint16(v))
	case 8:
		binary.BigEndian.PutUint64(b, v)
	default:
		for i := n - 1; i >= 0; i-- {
			b[i] = byte(v)
			v >>= 8
		}
	}
}

// loadWide reads n bytes into limbs.
func loadWide(s []uint64, b []byte, n int) {
	for i := 0; n > 0; i++ {
		k := min(n, 8)
		s[i] = load(b[n-k:], k)
		n -= k
	}
}

// storeWide writes limbs into n bytes.
func storeWide(b []byte, n int, s []uint64) {
	for i := 0; n > 0; i++ {
		k := min(n, 8)
		store(b[n-k:], k, s[i])
		n -= k
	}
}

// readBits reads up to 64 bits of a packet from bit off on.
func readBits(b []byte, off, width int) uint64 {
	var v uint64
	for width > 0 {
		inByte := off & 7
		n := min(8-inByte, width)
		v = v<<uint(n) | uint64(b[off>>3]>>uint(8-inByte-n))&ones(n)
		off += n
		width -= n
	}
	return v
}

// writeBits writes up to 64 bits from bit off on.
func writeBits(b []byte, off, width int, v uint64) {
	for width > 0 {
		inByte := off & 7
		n := min(8-inByte, width)
		shift := uint(8 - inByte - n)
		mask := byte(ones(n)) << shift
		b[off>>3] = b[off>>3]&^mask | byte(v>>uint(width-n))<<shift&mask
		off += n
		width -= n
	}
}

// readWideBits reads a number of any width into limbs.
func readWideBits(s []uint64, b []byte, off, width int) {
	for i := 0; width > 0; i++ {
		n := min(width, 64)
		s[i] = readBits(b, off+width-n, n)
		width -= n
	}
}

func writeWideBits(b []byte, off, width int, s []uint64) {
	for i := 0; width > 0; i++ {
		n := min(width, 64)
		writeBits(b, off+width-n, n, s[i])
		width -= n
	}
}

// decode reads a header from bit off of a packet into the slots from base on. The caller has seen that the packet is long
// enough. varBits is the length of the varbit field.
func (c *codec) decode(s []uint64, base int, b []byte, off, varBits int) {
	if c.slow || off&7 != 0 {
		c.decodeBits(s, base, b, off, varBits)
		return
	}
	b = b[off>>3:]
	for i := range c.groups {
		g := &c.groups[i]
		if g.wide {
			loadWide(s[base+g.slot:], b[g.off:], g.n)
			continue
		}
		v := load(b[g.off:], g.n)
		if g.alone {
			s[base+g.slot] = v
			continue
		}
		for _, p := range g.parts {
			s[base+p.slot] = v >> (p.shift & 63) & p.mask
		}
	}
}

func (c *codec) decodeBits(s []uint64, base int, b []byte, off, varBits int) {
	for i := range c.typ.leaves {
		f := &c.typ.leaves[i]
		at, w := base+f.off, f.typ.width
		if f.typ.kind == kindVarbit {
			w = varBits
			s[at] = uint64(w)
			at++
			clear(s[at : at+limbs(f.typ.width)])
		}
		readWideBits(s[at:], b, off, w)
		off += w
	}
}

// bitLen is how many bits the header takes in a packet.
func (c *codec) bitLen(s []uint64, base int) int {
	if c.varbit == nil {
		return c.bits
	}
	return c.bits + int(s[base+c.varbit.off])
}

// encode writes a header to bit off of a packet and gives the bit behind it.
func (c *codec) encode(s []uint64, base int, b []byte, off int) int {
	if c.slow || off&7 != 0 {
		for i := range c.typ.leaves {
			f := &c.typ.leaves[i]
			at, w := base+f.off, f.typ.width
			if f.typ.kind == kindVarbit {
				w = int(s[at])
				at++
			}
			writeWideBits(b, off, w, s[at:])
			off += w
		}
		return off
	}
	b = b[off>>3:]
	for i := range c.groups {
		g := &c.groups[i]
		if g.wide {
			storeWide(b[g.off:], g.n, s[base+g.slot:])
			continue
		}
		if g.alone {
			store(b[g.off:], g.n, s[base+g.slot])
			continue
		}
		var v uint64
		for _, p := range g.parts {
			v |= s[base+p.slot] << (p.shift & 63)
		}
		store(b[g.off:], g.n, v)
	}
	return off + c.bits
}
