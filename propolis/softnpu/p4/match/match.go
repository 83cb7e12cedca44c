// Package match has the look-up tables of a match-action pipeline: an entry
// says for each field of the key what it wants of it, and a look-up finds the
// entry that wants the key and precedes all others that do.
//
// A key is the fields in their order, each big-endian in whole bytes: a field
// of 12 bits takes two bytes, and its upper four bits are zero.
//
// Which entry precedes:
//
//   - In a table of exact and lpm fields, the longest prefix. An entry's
//     priority means nothing there.
//   - In a table with a ternary or a range field, the larger priority. Among
//     equal ones the longest prefix, if there is an lpm field.
//   - Then the entry that was added first.
//
// With more than one lpm field, which P4 leaves open, the first decides before
// the second.
//
// A look-up takes no lock and allocates nothing: all that it follows never
// changes once it is published, and an update publishes a changed copy of its
// own path. So a look-up sees a table as it was between two updates, and
// never a state that was not: where one entry is added before another is
// removed, one of them is found.
//
// Exact and ternary fields are found by hash, one look-up for each combination
// of masks in the table (tuple space search), and lpm fields in a trie.
// Entries that differ in ranges alone are in an interval tree over the first
// range field. A table of exact fields, of one lpm field, of both, or of these
// and one range field has a fast look-up whatever is in it; the price of
// ternary fields is the number of different masks, and that of a second range
// field the number of entries whose first range holds the key.
package match

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Kind is how a field is matched.
type Kind uint8

// Kinds of match, with what an entry says of a field in [Match].
const (
	// Exact wants the field equal to Value.
	Exact Kind = iota
	// LPM wants the upper Prefix bits of the field equal to those of Value.
	LPM
	// Ternary wants the bits that are set in Mask equal to those of Value.
	Ternary
	// Range wants the field from Value to High, both included.
	Range
)

// String returns the kind as P4 spells it.
func (k Kind) String() string {
	switch k {
	case Exact:
		return "exact"
	case LPM:
		return "lpm"
	case Ternary:
		return "ternary"
	case Range:
		return "range"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// MaxBits is the width of the widest field.
const MaxBits = 2048

// Field is one field of a table's key.
type Field struct {
	Kind Kind
	Bits int
}

// Size returns the bytes that the field takes in a key.
func (f Field) Size() int { return (f.Bits + 7) / 8 }

// Match is what an entry wants of one field. Which parts count depends on the
// field's kind. Value, Mask and High are as long as the field is in a key.
type Match struct {
	Value  []byte
	Prefix int    // LPM: bits of Value that count
	Mask   []byte // Ternary: bits of Value that count
	High   []byte // Range: the upper end, where Value is the lower one
}

// Entry is an entry of a table. An entry that a table has returned is shared
// and must not be changed.
type Entry[V any] struct {
	// Match has one element for each field of the table.
	Match    []Match
	Priority int
	Value    V

	values []byte // Value of each match, as a key; of ranges the lower end
	masks  []byte // bits of values that the hash is made of
	highs  []byte // upper ends of ranges, at their place in a key
	lens   []int  // of the prefixes of lpm fields, in their order
	seq    uint64 // of all entries that were added
}

// Errors of updates.
var (
	// ErrExists is an added entry whose match is in the table already, with
	// the same priority where the table has priorities.
	ErrExists = errors.New("the entry exists")
	// ErrNoEntry is a removed entry that is not in the table.
	ErrNoEntry = errors.New("there is no such entry")
)

// Table finds entries by key. All its methods may be called at once.
type Table[V any] struct {
	fields      []Field
	offsets     []int // of the fields in a key
	size        int   // of a key
	lpm         int   // first lpm field, -1 without
	ranges      []int // range fields
	prioritised bool
	seed        uint64

	groups atomic.Pointer[[]*group[V]] // best first by bound

	mu      sync.Mutex // of updates and all below
	entries map[string]*Entry[V]
	seq     uint64
}

// group has the entries whose exact, ternary and second lpm fields have the
// same mask.
type group[V any] struct {
	mask  []byte
	bound int // no entry has a larger priority
	root  *node[V]
}

// New returns an empty table whose keys have the given fields.
func New[V any](fields ...Field) (*Table[V], error) {
	if len(fields) == 0 {
		return nil, errors.New("a table needs a field to match on")
	}
	t := &Table[V]{fields: slices.Clone(fields), lpm: -1, seed: rand.Uint64(), entries: map[string]*Entry[V]{}}
	for i, f := range fields {
		if f.Bits < 1 || f.Bits > MaxBits {
			return nil, fmt.Errorf("field %d has %d bits: want 1 to %d", i, f.Bits, MaxBits)
		}
		switch f.Kind {
		case Exact:
		case LPM:
			if t.lpm < 0 {
				t.lpm = i
			}
		case Ternary:
			t.prioritised = true
		case Range:
			t.prioritised = true
			t.ranges = append(t.ranges, i)
		default:
			return nil, fmt.Errorf("field %d: %v is not a kind of match", i, f.Kind)
		}
		t.offsets = append(t.offsets, t.size)
		t.size += f.Size()
	}
	t.groups.Store(new([]*group[V]))
	return t, nil
}

// Fields returns the fields of the table's keys.
func (t *Table[V]) Fields() []Field { return slices.Clone(t.fields) }

// KeySize returns the length of the table's keys in bytes.
func (t *Table[V]) KeySize() int { return t.size }

// Prioritised reports whether priorities of entries count.
func (t *Table[V]) Prioritised() bool { return t.prioritised }

// Len returns the number of entries.
func (t *Table[V]) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.entries)
}

// Entries returns all entries as they are at one moment, in the order in which
// they were added.
func (t *Table[V]) Entries() []*Entry[V] {
	t.mu.Lock()
	all := make([]*Entry[V], 0, len(t.entries))
	for _, e := range t.entries {
		all = append(all, e)
	}
	t.mu.Unlock()
	slices.SortFunc(all, func(a, b *Entry[V]) int {
		if a.seq < b.seq {
			return -1
		}
		return 1
	})
	return all
}

// Get returns the entry that [Table.Remove] would remove, nil if there is none.
func (t *Table[V]) Get(match []Match, priority int) (*Entry[V], error) {
	e, err := t.entry(Entry[V]{Match: match, Priority: priority})
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.entries[t.identity(e)], nil
}

// Lookup returns the entry for a key, nil if none matches. A key of another
// length than [Table.KeySize] matches none.
func (t *Table[V]) Lookup(key []byte) *Entry[V] {
	if len(key) != t.size {
		return nil
	}
	var best *Entry[V]
	for _, g := range *t.groups.Load() {
		if best != nil && best.Priority > g.bound {
			break
		}
		leaf := g.root.find(hash(t.seed, key, g.mask), key, g.mask)
		switch {
		case leaf == nil:
		case t.lpm >= 0:
			best = t.longest(leaf.prefixes, key, best)
		default:
			best = t.within(leaf.stack, key, best)
		}
	}
	return best
}

// Value returns the value of the entry for a key, and whether there is one. It
// is faster than [Table.Lookup], since it need not go to the entry.
func (t *Table[V]) Value(key []byte) (value V, ok bool) {
	groups := *t.groups.Load()
	if len(groups) == 0 {
		return value, false
	}
	if t.prioritised || len(groups) != 1 || len(key) != t.size || t.lpm >= 0 && t.fields[t.lpm].Bits > maxLead {
		if e := t.Lookup(key); e != nil {
			return e.Value, true
		}
		return value, false
	}
	leaf := groups[0].root
	if len(t.fields) > 1 || t.lpm < 0 {
		if leaf = leaf.find(hash(t.seed, key, groups[0].mask), key, groups[0].mask); leaf == nil {
			return value, false
		}
	}
	if t.lpm >= 0 {
		return t.nearest(leaf.prefixes, key)
	}
	return leaf.value, true
}

// Add adds an entry. The table keeps a copy in which bits that do not count
// are zero.
func (t *Table[V]) Add(e Entry[V]) error {
	_, err := t.put(e, false)
	return err
}

// Set adds an entry, in the place of the one with the same match (and
// priority, where the table has priorities) if there is one, which it returns.
func (t *Table[V]) Set(e Entry[V]) (*Entry[V], error) { return t.put(e, true) }

func (t *Table[V]) put(e Entry[V], replace bool) (*Entry[V], error) {
	added, err := t.entry(e)
	if err != nil {
		return nil, err
	}
	id := t.identity(added)
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.entries[id]
	switch {
	case old == nil:
		added.seq = t.seq
		t.seq++
	case replace:
		added.seq = old.seq
	default:
		return nil, ErrExists
	}
	t.publish(old, added)
	t.entries[id] = added
	return old, nil
}

// Remove removes the entry with a match, and a priority where the table has
// priorities, and returns it.
func (t *Table[V]) Remove(match []Match, priority int) (*Entry[V], error) {
	e, err := t.entry(Entry[V]{Match: match, Priority: priority})
	if err != nil {
		return nil, err
	}
	id := t.identity(e)
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.entries[id]
	if old == nil {
		return nil, ErrNoEntry
	}
	t.publish(old, nil)
	delete(t.entries, id)
	return old, nil
}

// Clear removes all entries.
func (t *Table[V]) Clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.groups.Store(new([]*group[V]))
	clear(t.entries)
}

// publish lets look-ups see the table without one entry and with another.
// Either may be nil; if neither is, they have the same match and priority.
func (t *Table[V]) publish(old, added *Entry[V]) {
	e := added
	if e == nil {
		e = old
	}
	groups := slices.Clone(*t.groups.Load())
	at := slices.IndexFunc(groups, func(g *group[V]) bool { return bytes.Equal(g.mask, e.masks) })
	g := &group[V]{mask: e.masks, bound: e.Priority}
	if at >= 0 {
		// The bound stays where it is when entries are removed. It only
		// saves looks into groups, and a tree of priorities is not worth
		// that.
		*g = *groups[at]
		g.bound = max(g.bound, e.Priority)
	}
	g.root = t.changed(g.root, 0, hash(t.seed, e.values, e.masks), old, added)
	if at >= 0 && g.root != nil && g.bound == groups[at].bound {
		groups[at] = g
	} else {
		if at >= 0 {
			groups = slices.Delete(groups, at, at+1)
		}
		if g.root != nil {
			to, _ := slices.BinarySearchFunc(groups, g.bound, func(g *group[V], bound int) int { return cmp.Compare(bound, g.bound) })
			groups = slices.Insert(groups, to, g)
		}
	}
	t.groups.Store(&groups)
}

// entry returns a copy of an entry that was checked, with zeros for the bits
// that do not count.
func (t *Table[V]) entry(e Entry[V]) (*Entry[V], error) {
	if len(e.Match) != len(t.fields) {
		return nil, fmt.Errorf("the entry matches %d fields: the table has %d", len(e.Match), len(t.fields))
	}
	room := make([]byte, 3*t.size)
	c := &Entry[V]{Match: make([]Match, len(t.fields)), Value: e.Value,
		values: room[:t.size:t.size], masks: room[t.size : 2*t.size : 2*t.size], highs: room[2*t.size:]}
	if t.prioritised {
		c.Priority = e.Priority
	}
	for i, f := range t.fields {
		if err := t.field(c, i, e.Match[i]); err != nil {
			return nil, fmt.Errorf("field %d (%v, %d bits): %w", i, f.Kind, f.Bits, err)
		}
	}
	return c, nil
}

// field checks the match of one field and stores it.
func (t *Table[V]) field(e *Entry[V], i int, m Match) error {
	f := t.fields[i]
	from, to := t.offsets[i], t.offsets[i]+f.Size()
	value, mask, high := e.values[from:to:to], e.masks[from:to:to], e.highs[from:to:to]
	if err := fill(value, m.Value, f.Bits, "value"); err != nil {
		return err
	}
	c := &e.Match[i]
	c.Value = value
	switch f.Kind {
	case Exact:
		ones(mask, f.Bits, f.Bits)
	case Ternary:
		if err := fill(mask, m.Mask, f.Bits, "mask"); err != nil {
			return err
		}
		and(value, mask)
		c.Mask = mask
	case Range:
		if err := fill(high, m.High, f.Bits, "upper end"); err != nil {
			return err
		}
		if bytes.Compare(value, high) > 0 {
			return fmt.Errorf("the range from %#x to %#x is empty", value, high)
		}
		c.High = high
	case LPM:
		if m.Prefix < 0 || m.Prefix > f.Bits {
			return fmt.Errorf("the prefix has %d bits: want 0 to %d", m.Prefix, f.Bits)
		}
		c.Prefix = m.Prefix
		e.lens = append(e.lens, m.Prefix)
		ones(mask, f.Bits, m.Prefix)
		and(value, mask)
		if i == t.lpm {
			clear(mask) // the trie's
		}
	}
	return nil
}

// fill copies a value of a field that was checked.
func fill(dst, src []byte, bits int, what string) error {
	switch {
	case len(src) != len(dst):
		return fmt.Errorf("the %s has %d bytes: want %d", what, len(src), len(dst))
	case bits%8 != 0 && src[0]>>(bits%8) != 0:
		return fmt.Errorf("the %s %#x has more than %d bits", what, src, bits)
	}
	copy(dst, src)
	return nil
}

// ones sets the upper n bits of a field.
func ones(field []byte, bits, n int) {
	pad := 8*len(field) - bits
	for i := range field {
		left := pad + n - 8*i // bits from the start of this byte on
		switch {
		case left >= 8:
			field[i] = 0xff
		case left > 0:
			field[i] = ^byte(0xff >> left)
		}
	}
	if n > 0 {
		field[0] &= 0xff >> pad
	}
}

func and(field, mask []byte) {
	for i := range field {
		field[i] &= mask[i]
	}
}

// identity returns what no two entries of a table have in common.
func (t *Table[V]) identity(e *Entry[V]) string {
	var id strings.Builder
	id.Grow(3*t.size + 2*len(e.lens) + 8)
	id.Write(e.values)
	id.Write(e.masks)
	id.Write(e.highs)
	for _, n := range e.lens {
		id.Write([]byte{byte(n >> 8), byte(n)})
	}
	for n := range 8 {
		id.WriteByte(byte(uint64(e.Priority) >> (8 * n)))
	}
	return id.String()
}

// before reports whether an entry precedes another, which may be nil.
func (e *Entry[V]) before(other *Entry[V]) bool {
	switch {
	case other == nil:
		return true
	case e.Priority != other.Priority:
		return e.Priority > other.Priority
	}
	if d := slices.Compare(e.lens, other.lens); d != 0 {
		return d > 0
	}
	return e.seq < other.seq
}
