package match

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// prefix is a node of a trie of prefixes. It stands for six bits of the field,
// from depth on, which is a multiple of six, and has the prefixes that end
// before the last of them; nodes that would have one child and nothing else
// are left out. It never changes once it is published.
type prefix[V any] struct {
	depth int
	// Prefix v of n bits, after depth, is at 1<<n + v.
	have uint64
	next uint64    // children that are there, by the value of the six bits
	lead [2]uint64 // of via
	// What [Table.Value] needs of the stacks: the value of the first, and of
	// all if there are more.
	value    V
	children []*prefix[V]
	// With a value of eight bytes, all that is before this is one line of the
	// cache, and the whole is two.
	values []V
	stacks []*item[V]
	via    *Entry[V] // has a key that leads here: the field's first depth bits count
}

// shorter has for each value of six bits the places of all its prefixes of
// less than six bits.
var shorter = func() (s [1 << stride]uint64) {
	for v := range s {
		for n := range stride {
			s[v] |= 1 << (1<<n + v>>(stride-n))
		}
	}
	return s
}()

// longest returns the first of the best entry so far and those whose prefix
// is one of the key's.
func (t *Table[V]) longest(n *prefix[V], key []byte, best *Entry[V]) *Entry[V] {
	from := t.offsets[t.lpm]
	field := key[from : from+t.fields[t.lpm].Size()]
	pad := 8*len(field) - t.fields[t.lpm].Bits
	// Without priorities the longest prefix of this trie precedes all others
	// in it, and is all that has to be looked at.
	var last *item[V]
	for known := 0; n != nil; known += stride {
		if n.depth > known {
			if equalBits(field, n.via.values[from:from+len(field)], pad+known, pad+n.depth) < pad+n.depth {
				break
			}
			known = n.depth
		}
		v := six(field, pad+known)
		found := n.have & shorter[v]
		if t.prioritised {
			for ; found != 0; found &= found - 1 {
				at := bits.OnesCount64(n.have & (found&-found - 1))
				best = t.within(n.stacks[at], key, best)
			}
		} else if found != 0 {
			at := 63 - bits.LeadingZeros64(found)
			last = n.stacks[bits.OnesCount64(n.have&(1<<at-1))]
		}
		bit := uint64(1) << v
		if n.next&bit == 0 {
			break
		}
		n = n.children[bits.OnesCount64(n.next&(bit-1))]
	}
	if last != nil && last.top.before(best) {
		return last.top
	}
	return best
}

// nearest is longest for a table without priorities and a field of up to
// maxLead bits, and returns the value alone.
func (t *Table[V]) nearest(n *prefix[V], key []byte) (value V, ok bool) {
	k := t.lead(key)
	var last *prefix[V]
	var lastFound uint64
	for known := 0; n != nil; known += stride {
		if n.depth > known {
			if !sameLead(k, n.lead, n.depth) {
				break
			}
			known = n.depth
		}
		v := k[1] << max(known-64, 0)
		if known < 64 {
			v = k[0]<<known | k[1]>>(64-known)
		}
		v >>= 64 - stride
		if found := n.have & shorter[v]; found != 0 {
			last, lastFound = n, found
		}
		bit := uint64(1) << v
		if n.next&bit == 0 {
			break
		}
		n = n.children[bits.OnesCount64(n.next&(bit-1))]
	}
	if last == nil {
		return value, false
	}
	at := 63 - bits.LeadingZeros64(lastFound)
	if i := bits.OnesCount64(last.have & (1<<at - 1)); i > 0 {
		return last.values[i], true
	}
	return last.value, true
}

// maxLead is how many bits of a field are compared at once.
const maxLead = 128

// lead returns the first bits of the lpm field of a key.
func (t *Table[V]) lead(key []byte) (k [2]uint64) {
	from := t.offsets[t.lpm]
	f := t.fields[t.lpm]
	b := key[from : from+f.Size()]
	switch {
	case len(b) == 4:
		k[0] = uint64(binary.BigEndian.Uint32(b)) << 32
	case len(b) >= 16:
		k[0], k[1] = binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	default:
		for i, c := range b {
			k[i/8] |= uint64(c) << (56 - i%8*8)
		}
	}
	pad := 8*len(b) - f.Bits
	return [2]uint64{k[0]<<pad | k[1]>>(64-pad), k[1] << pad}
}

// sameLead reports whether two fields have the same first n bits.
func sameLead(a, b [2]uint64, n int) bool {
	if n <= 64 {
		return (a[0]^b[0])>>(64-n) == 0
	}
	return a[0] == b[0] && (a[1]^b[1])>>(128-n) == 0
}

// six returns the six bits from bit at on; those behind the end are zero.
func six(field []byte, at int) uint {
	i := at / 8
	if i >= len(field) {
		return 0
	}
	w := uint(field[i]) << 8
	if i+1 < len(field) {
		w |= uint(field[i+1])
	}
	return w >> (16 - stride - at%8) & strideMax
}

// equalBits returns the first bit at which two fields differ, from one on, or
// to if they do not before.
func equalBits(a, b []byte, from, to int) int {
	for i := from / 8; 8*i < to; i++ {
		d := a[i] ^ b[i]
		if i == from/8 {
			d &= 0xff >> (from % 8)
		}
		if d != 0 {
			return min(to, 8*i+bits.LeadingZeros8(d))
		}
	}
	return to
}

// prefixed returns a trie without one entry and with another, both of which
// may be nil.
func (t *Table[V]) prefixed(n *prefix[V], old, added *Entry[V]) *prefix[V] {
	e := added
	if e == nil {
		e = old
	}
	length := e.lens[0]
	depth := length / stride * stride
	from, size := t.offsets[t.lpm], t.fields[t.lpm].Size()
	pad := 8*size - t.fields[t.lpm].Bits
	field := e.values[from : from+size]
	if n == nil {
		n = &prefix[V]{depth: depth, via: e, lead: t.lead(e.values)}
	}
	shared := min(depth, n.depth)
	shared = (equalBits(field, n.via.values[from:from+size], pad, pad+shared) - pad) / stride * stride
	if shared < n.depth {
		// The way to the node and that to the entry part above it.
		n = &prefix[V]{depth: shared, via: e, lead: t.lead(e.values),
			next: 1 << six(n.via.values[from:from+size], pad+shared), children: []*prefix[V]{n}}
	}
	c := *n
	if depth == n.depth {
		v := six(field, pad+depth) >> (stride - (length - depth))
		c.have, c.stacks = t.restacked(n.have, n.stacks, uint64(1)<<(1<<(length-depth)+v), old, added)
		c.value, c.values = t.tops(c.stacks)
	} else {
		bit := uint64(1) << six(field, pad+n.depth)
		at := bits.OnesCount64(n.next & (bit - 1))
		var child *prefix[V]
		if n.next&bit != 0 {
			child = n.children[at]
		}
		c.next, c.children = replaced(n.next, n.children, bit, t.prefixed(child, old, added))
	}
	switch {
	case c.have == 0 && c.next == 0:
		return nil
	case c.have == 0 && len(c.children) == 1:
		return c.children[0]
	}
	return &c
}

func (t *Table[V]) restacked(have uint64, stacks []*item[V], bit uint64, old, added *Entry[V]) (uint64, []*item[V]) {
	var stack *item[V]
	if have&bit != 0 {
		stack = stacks[bits.OnesCount64(have&(bit-1))]
	}
	return replaced(have, stacks, bit, t.stacked(stack, old, added))
}

// tops returns the values of the first of some stacks, and of all if there are
// more. Those of a table with priorities are not needed.
func (t *Table[V]) tops(stacks []*item[V]) (first V, all []V) {
	if t.prioritised || len(stacks) == 0 {
		return first, nil
	}
	if len(stacks) > 1 {
		all = make([]V, len(stacks))
		for i, s := range stacks {
			all[i] = s.top.Value
		}
	}
	return stacks[0].top.Value, all
}

// replaced returns a copy of a list with an element for each bit of have, in
// which one is another, or is gone.
func replaced[T any](have uint64, list []*T, bit uint64, with *T) (uint64, []*T) {
	at := bits.OnesCount64(have & (bit - 1))
	there := have&bit != 0
	switch {
	case with == nil && !there:
		return have, list
	case with == nil:
		return have &^ bit, slices.Concat(list[:at], list[at+1:])
	case there:
		list = slices.Clone(list)
		list[at] = with
		return have, list
	}
	c := make([]*T, 0, len(list)+1)
	return have | bit, append(append(append(c, list[:at]...), with), list[at:]...)
}
