package match

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// node is part of a group: a hash trie with a branch of up to 64 children for
// six bits of the hash, and leaves. It never changes once it is published.
type node[V any] struct {
	// Of a branch: the children that are there, and those in their order.
	have     uint64
	children []*node[V]

	// Of a leaf.
	key      []byte // nil in a branch; the bits outside of the mask do not count
	hash     uint64
	next     *node[V]   // another leaf with the same hash
	prefixes *prefix[V] // in a table with an lpm field
	stack    *item[V]   // in another
	value    V          // of the stack's top
}

const (
	stride    = 6 // bits of a step, in a hash and in a prefix
	strideMax = 1<<stride - 1
)

// find returns the leaf for a key, nil without one.
func (n *node[V]) find(h uint64, key, mask []byte) *node[V] {
	for rest := h; n != nil && n.key == nil; rest >>= stride {
		bit := uint64(1) << (rest & strideMax)
		if n.have&bit == 0 {
			return nil
		}
		n = n.children[bits.OnesCount64(n.have&(bit-1))]
	}
	for ; n != nil; n = n.next {
		if n.hash == h && same(n.key, key, mask) {
			return n
		}
	}
	return nil
}

// changed returns a trie without one entry and with another, both of which may
// be nil. shift is how many bits of the hash were used on the way to n.
func (t *Table[V]) changed(n *node[V], shift int, h uint64, old, added *Entry[V]) *node[V] {
	switch {
	case n == nil:
		return t.leaf(nil, h, old, added)
	case n.key != nil && n.hash == h:
		return t.chain(n, h, old, added)
	case n.key != nil:
		// Another hash: a branch takes the leaf's place.
		n = &node[V]{have: 1 << (n.hash >> shift & strideMax), children: []*node[V]{n}}
	}
	bit := uint64(1) << (h >> shift & strideMax)
	at := bits.OnesCount64(n.have & (bit - 1))
	c := &node[V]{have: n.have | bit}
	if n.have&bit == 0 {
		child := t.leaf(nil, h, old, added)
		c.children = make([]*node[V], 0, len(n.children)+1)
		c.children = append(append(append(c.children, n.children[:at]...), child), n.children[at:]...)
		return c
	}
	child := t.changed(n.children[at], shift+stride, h, old, added)
	switch {
	// A leaf needs no branch of its own.
	case len(n.children) == 1 && (child == nil || child.key != nil):
		return child
	case len(n.children) == 2 && child == nil && n.children[1-at].key != nil:
		return n.children[1-at]
	case child != nil:
		c.children = slices.Clone(n.children)
		c.children[at] = child
	default:
		c.have &^= bit
		c.children = slices.Concat(n.children[:at], n.children[at+1:])
	}
	return c
}

// chain changes the leaf of an entry among those with the same hash.
func (t *Table[V]) chain(n *node[V], h uint64, old, added *Entry[V]) *node[V] {
	e := added
	if e == nil {
		e = old
	}
	if n == nil || same(n.key, e.values, e.masks) {
		return t.leaf(n, h, old, added)
	}
	c := *n
	c.next = t.chain(n.next, h, old, added)
	return &c
}

// leaf returns a leaf with other entries; nil, or the next leaf, if none is
// left. n may be nil.
func (t *Table[V]) leaf(n *node[V], h uint64, old, added *Entry[V]) *node[V] {
	c := &node[V]{hash: h}
	if n != nil {
		*c = *n
	} else if added != nil {
		c.key = added.values
	}
	if t.lpm >= 0 {
		c.prefixes = t.prefixed(c.prefixes, old, added)
	} else {
		if c.stack = t.stacked(c.stack, old, added); c.stack != nil {
			c.value = c.stack.top.Value
		}
	}
	if c.prefixes == nil && c.stack == nil {
		return c.next
	}
	return c
}

// hash hashes the bits of a key that are in a mask.
func hash(seed uint64, key, mask []byte) uint64 {
	h := seed
	for len(key) > 8 {
		h = mix(h ^ binary.LittleEndian.Uint64(key)&binary.LittleEndian.Uint64(mask))
		key, mask = key[8:], mask[8:]
	}
	return mix(mix(h ^ word(key)&word(mask)))
}

func mix(h uint64) uint64 {
	high, low := bits.Mul64(h, 0x9e3779b97f4a7c15)
	return high ^ low
}

// word returns a number that is different for each content of up to eight
// bytes of one length, and to which each bit of them goes by itself.
func word(b []byte) uint64 {
	switch n := len(b); {
	case n == 8:
		return binary.LittleEndian.Uint64(b)
	case n >= 4:
		return uint64(binary.LittleEndian.Uint32(b)) | uint64(binary.LittleEndian.Uint32(b[n-4:]))<<32
	case n > 0:
		return uint64(b[0]) | uint64(b[n/2])<<8 | uint64(b[n-1])<<16
	}
	return 0
}

// same reports whether two keys are equal in the bits of a mask.
func same(a, b, mask []byte) bool {
	for len(a) > 8 {
		if (binary.LittleEndian.Uint64(a)^binary.LittleEndian.Uint64(b))&binary.LittleEndian.Uint64(mask) != 0 {
			return false
		}
		a, b, mask = a[8:], b[8:], mask[8:]
	}
	return (word(a)^word(b))&word(mask) == 0
}
