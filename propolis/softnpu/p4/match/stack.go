package match

import (
	"bytes"
	"encoding/binary"
)

// item is a node of a stack: the entries that are the same but for their
// ranges and priorities. A stack is a treap over the lower ends of the first
// range field, which is also an interval tree. It never changes once it is
// published.
type item[V any] struct {
	entry       *Entry[V]
	left, right *item[V]
	weight      uint64 // larger than those of both children
	// Of the whole tree: the entry that precedes all others, and the one
	// whose first range ends last.
	top, last *Entry[V]
	// The first bytes of the entry's lower end and of last's upper end,
	// which decide most comparisons without a look at either entry.
	low, high uint64
}

// within returns the first of the best entry so far and those of a stack that
// have the key in their ranges.
func (t *Table[V]) within(n *item[V], key []byte, best *Entry[V]) *Entry[V] {
	if len(t.ranges) == 0 {
		if n.top.before(best) {
			return n.top
		}
		return best
	}
	from, to := t.firstRange()
	return t.stab(n, head(key[from:to]), key, best)
}

// stab is within for a key whose first range field starts with some bytes.
func (t *Table[V]) stab(n *item[V], start uint64, key []byte, best *Entry[V]) *Entry[V] {
	from, to := t.firstRange()
	for n != nil && (best == nil || n.top.before(best)) {
		if start > n.high || start == n.high && to-from > 8 && bytes.Compare(key[from:to], n.last.highs[from:to]) > 0 {
			break // all end before
		}
		if n.left != nil {
			best = t.stab(n.left, start, key, best)
		}
		if start < n.low || start == n.low && to-from > 8 && bytes.Compare(key[from:to], n.entry.values[from:to]) < 0 {
			break // and so to the right
		}
		if (best == nil || n.entry.before(best)) && t.holds(n.entry, key) {
			best = n.entry
		}
		n = n.right
	}
	return best
}

// head returns the number that up to eight bytes at the start of a value make.
func head(b []byte) uint64 {
	if len(b) >= 8 {
		return binary.BigEndian.Uint64(b)
	}
	var v uint64
	for _, c := range b {
		v = v<<8 | uint64(c)
	}
	return v
}

// firstRange returns the place of the first range field in a key.
func (t *Table[V]) firstRange() (from, to int) {
	from = t.offsets[t.ranges[0]]
	return from, from + t.fields[t.ranges[0]].Size()
}

// holds reports whether all ranges of an entry hold the key.
func (t *Table[V]) holds(e *Entry[V], key []byte) bool {
	for _, i := range t.ranges {
		from, to := t.offsets[i], t.offsets[i]+t.fields[i].Size()
		if bytes.Compare(key[from:to], e.values[from:to]) < 0 || bytes.Compare(key[from:to], e.highs[from:to]) > 0 {
			return false
		}
	}
	return true
}

// stacked returns a stack without one entry and with another, both of which
// may be nil, or have the same place.
func (t *Table[V]) stacked(n *item[V], old, added *Entry[V]) *item[V] {
	e := added
	if e == nil {
		e = old
	}
	under, rest := t.split(n, e, false)
	_, over := t.split(rest, e, true) // leaves old out
	if added != nil {
		under = t.join(under, t.tree(item[V]{entry: added, weight: mix(t.seed ^ mix(added.seq+1))}))
	}
	return t.join(under, over)
}

// order compares the places of entries in a stack.
func (t *Table[V]) order(a, b *Entry[V]) int {
	if len(t.ranges) > 0 {
		from, to := t.firstRange()
		if d := bytes.Compare(a.values[from:to], b.values[from:to]); d != 0 {
			return d
		}
	}
	switch {
	case a.seq < b.seq:
		return -1
	case a.seq > b.seq:
		return 1
	}
	return 0
}

// split parts a stack at the place of an entry. What has this place goes to
// the left if included.
func (t *Table[V]) split(n *item[V], e *Entry[V], included bool) (left, right *item[V]) {
	if n == nil {
		return nil, nil
	}
	c := *n
	if d := t.order(n.entry, e); d < 0 || d == 0 && included {
		c.right, right = t.split(n.right, e, included)
		return t.tree(c), right
	}
	left, c.left = t.split(n.left, e, included)
	return left, t.tree(c)
}

// join joins two stacks, all of the first before all of the second.
func (t *Table[V]) join(a, b *item[V]) *item[V] {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.weight > b.weight:
		c := *a
		c.right = t.join(a.right, b)
		return t.tree(c)
	}
	c := *b
	c.left = t.join(a, b.left)
	return t.tree(c)
}

// tree returns an item that knows what is below it.
func (t *Table[V]) tree(c item[V]) *item[V] {
	c.top, c.last = c.entry, c.entry
	for _, child := range [2]*item[V]{c.left, c.right} {
		if child != nil && child.top.before(c.top) {
			c.top = child.top
		}
	}
	if len(t.ranges) == 0 {
		return &c
	}
	from, to := t.firstRange()
	for _, child := range [2]*item[V]{c.left, c.right} {
		if child != nil && bytes.Compare(child.last.highs[from:to], c.last.highs[from:to]) > 0 {
			c.last = child.last
		}
	}
	c.low, c.high = head(c.entry.values[from:to]), head(c.last.highs[from:to])
	return &c
}
