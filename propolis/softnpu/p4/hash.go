package p4

import (
	"hash/crc32"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"
)

// algorithm names a hash by the member of an enum.
func (c *compiler) algorithm(v value) string {
	if v.t.kind != kindEnum || v.c == nil || v.t.values != nil {
		c.errorf(v.pos, "the kind of a hash is a member of HashAlgorithm")
		return ""
	}
	switch name := v.t.members[int(v.c.Int64())]; name {
	case "crc32", "CRC32", "TARGET_DEFAULT":
		return "crc32"
	case "crc16", "CRC16":
		return "crc16"
	case "identity", "IDENTITY":
		return "identity"
	case "csum16", "ONES_COMPLEMENT16":
		return "csum16"
	case "xor16":
		return "xor16"
	default:
		c.errorf(v.pos, "the hash %s is not supported: crc32, crc16, csum16, xor16 and identity are", name)
	}
	return ""
}

// data compiles what puts a value into the scratch bytes of the machine; the result is how many bytes that are. The last
// byte is filled up with zeros.
func (c *compiler) data(v value) func(*machine) int {
	write, most := c.dataBits(v)
	if write == nil {
		return nil
	}
	c.scratchBits = max(c.scratchBits, most+64)
	return func(m *machine) int {
		bits := write(m, 0)
		if rest := bits % 8; rest != 0 {
			writeBits(m.scratch, bits, 8-rest, 0)
		}
		return (bits + 7) / 8
	}
}

func (c *compiler) dataBits(v value) (func(m *machine, off int) int, int) {
	switch {
	case v.bad():
		return nil, 0
	case v.obj != nil || v.t.kind == kindNumber || v.t.kind == kindString || v.t.kind == kindVoid:
		c.errorf(v.pos, "a checksum or hash is made of values with a width, and this is %s", describeType(v))
		return nil, 0
	case v.list != nil:
		var all []func(m *machine, off int) int
		most := 0
		for _, x := range v.list {
			w, n := c.dataBits(x)
			if w == nil {
				return nil, 0
			}
			all = append(all, w)
			most += n
		}
		return func(m *machine, off int) int {
			for _, w := range all {
				off = w(m, off)
			}
			return off
		}, most
	}
	if v.t.narrow() {
		n, w := c.narrow(v), v.t.width
		return func(m *machine, off int) int {
			x := n(m)
			if off&7 == 0 && w&7 == 0 {
				store(m.scratch[off>>3:], w>>3, x)
			} else {
				writeBits(m.scratch, off, w, x)
			}
			return off + w
		}, w
	}
	prep, at := c.stored(v)
	if v.t.scalar() && v.t.width%8 == 0 {
		w, size := v.t.width, v.t.size
		return func(m *machine, off int) int {
			if prep != nil {
				prep(m)
			}
			if off&7 == 0 {
				storeWide(m.scratch[off>>3:], w>>3, m.s[at:at+size])
			} else {
				writeWideBits(m.scratch, off, w, m.s[at:])
			}
			return off + w
		}, w
	}
	write, most := writer(v.t)
	return func(m *machine, off int) int {
		if prep != nil {
			prep(m)
		}
		return write(m.s, at, m.scratch, off)
	}, most
}

// onesSum is the ones-complement sum of 16-bit words; a last odd byte is the upper half of one.
func onesSum(b []byte) uint64 {
	var sum uint64
	for ; len(b) >= 4; b = b[4:] {
		sum += uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3])
	}
	if len(b) >= 2 {
		sum += uint64(b[0])<<8 | uint64(b[1])
		b = b[2:]
	}
	if len(b) == 1 {
		sum += uint64(b[0]) << 8
	}
	return foldSum(sum)
}

func foldSum(sum uint64) uint64 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return sum
}

func crc16(b []byte) uint64 {
	// CRC-16/ARC, the crc16 of v1model.
	var crc uint16
	for _, x := range b {
		crc ^= uint16(x)
		for range 8 {
			if crc&1 != 0 {
				crc = crc>>1 ^ 0xa001
			} else {
				crc >>= 1
			}
		}
	}
	return uint64(crc)
}

// hashBytes works out a hash.
func hashBytes(algorithm string, b []byte) uint64 {
	switch algorithm {
	case "crc32":
		return uint64(crc32.ChecksumIEEE(b))
	case "crc16":
		return crc16(b)
	case "csum16":
		return ^onesSum(b) & 0xffff
	case "xor16":
		var x uint64
		for i, v := range b {
			x ^= uint64(v) << (8 * uint(1-i%2))
		}
		return x
	}
	// The identity of more than 8 bytes is the first 8 of them, as BMv2 has it.
	var x uint64
	for _, v := range b[:min(len(b), 8)] {
		x = x<<8 | uint64(v)
	}
	return x
}

// getHash compiles get_hash(data) and get_hash(base, data, max).
func (c *compiler) getHash(t *typ, algorithm string, e *syntax.CallExpr, vals []value) value {
	bad := c.badValue(e.Pos)
	if len(vals) != 1 && len(vals) != 3 {
		c.errorf(e.Pos, "get_hash takes the data, or a base, the data and a maximum")
		return bad
	}
	d := 0
	if len(vals) == 3 {
		d = 1
	}
	data := c.data(vals[d])
	if data == nil {
		return bad
	}
	if len(vals) == 1 {
		return c.number64(t, e.Pos, func(m *machine) uint64 { return hashBytes(algorithm, m.scratch[:data(m)]) })
	}
	base, limit := c.plainNumber(vals[0]), c.plainNumber(vals[2])
	if base == nil || limit == nil {
		return bad
	}
	return c.number64(t, e.Pos, func(m *machine) uint64 {
		b, h, l := base(m), hashBytes(algorithm, m.scratch[:data(m)]), limit(m)
		if l == 0 {
			return b
		}
		return b + h%l
	})
}

// number64 makes a number of type bit<W> of one of 64 bits: a narrower one has its lower bits, a wider one zeros above it.
func (c *compiler) number64(t *typ, pos syntax.Pos, n func(*machine) uint64) value {
	v := value{t: t, pos: pos, calls: true}
	if t.narrow() {
		mk := ones(t.width)
		v.n = func(m *machine) uint64 { return n(m) & mk }
		return v
	}
	off, size := c.alloc(t.size), t.size
	v.off = off
	v.prep = func(m *machine) {
		clear(m.s[off : off+size])
		m.s[off] = n(m)
	}
	return v
}

// plainNumber computes the lower 64 bits of a number.
func (c *compiler) plainNumber(v value) func(*machine) uint64 {
	if v.t.kind == kindNumber {
		v = c.convert(v, bitType(64), "this argument")
	}
	if v.bad() {
		return nil
	}
	if v.t.kind != kindBit {
		c.errorf(v.pos, "this argument is bit<W>, and not %s", describeType(v))
		return nil
	}
	if v.t.narrow() {
		return c.narrow(v)
	}
	prep, off := c.stored(v)
	return func(m *machine) uint64 {
		if prep != nil {
			prep(m)
		}
		return m.s[off]
	}
}
