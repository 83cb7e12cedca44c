package match

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// reference is the naive table: a list, and the rules of precedence as they
// are documented.
type reference struct {
	fields  []Field
	entries []Entry[int]
}

// number is a field of a key, or a part of a match.
func number(b []byte) *big.Int { return new(big.Int).SetBytes(b) }

func (r *reference) matches(e *Entry[int], key []byte) bool {
	for i, f := range r.fields {
		v, m := number(key[:f.Size()]), e.Match[i]
		key = key[f.Size():]
		want := number(m.Value)
		switch f.Kind {
		case Exact:
		case LPM:
			v.Rsh(v, uint(f.Bits-m.Prefix))
			want.Rsh(want, uint(f.Bits-m.Prefix))
		case Ternary:
			v.And(v, number(m.Mask))
			want.And(want, number(m.Mask))
		case Range:
			if v.Cmp(want) >= 0 && v.Cmp(number(m.High)) <= 0 {
				continue
			}
			return false
		}
		if v.Cmp(want) != 0 {
			return false
		}
	}
	return true
}

func (r *reference) prioritised() bool {
	return slices.ContainsFunc(r.fields, func(f Field) bool { return f.Kind == Ternary || f.Kind == Range })
}

// precedes reports whether entry a, which is the earlier one, precedes b.
func (r *reference) precedes(a, b *Entry[int]) bool {
	if r.prioritised() && a.Priority != b.Priority {
		return a.Priority > b.Priority
	}
	for i, f := range r.fields {
		if f.Kind == LPM && a.Match[i].Prefix != b.Match[i].Prefix {
			return a.Match[i].Prefix > b.Match[i].Prefix
		}
	}
	return true
}

func (r *reference) lookup(key []byte) *Entry[int] {
	var best *Entry[int]
	for i := range r.entries {
		e := &r.entries[i]
		if r.matches(e, key) && (best == nil || !r.precedes(best, e)) {
			best = e
		}
	}
	return best
}

// find returns the index of the entry with the same match, -1 without.
func (r *reference) find(match []Match, priority int) int {
	return slices.IndexFunc(r.entries, func(e Entry[int]) bool {
		if r.prioritised() && e.Priority != priority {
			return false
		}
		for i, f := range r.fields {
			a, b := e.Match[i], match[i]
			x, y := number(a.Value), number(b.Value)
			switch f.Kind {
			case LPM:
				if a.Prefix != b.Prefix {
					return false
				}
				x.Rsh(x, uint(f.Bits-a.Prefix))
				y.Rsh(y, uint(f.Bits-a.Prefix))
			case Ternary:
				if !bytes.Equal(a.Mask, b.Mask) {
					return false
				}
				x.And(x, number(a.Mask))
				y.And(y, number(a.Mask))
			case Range:
				if !bytes.Equal(a.High, b.High) {
					return false
				}
			}
			if x.Cmp(y) != 0 {
				return false
			}
		}
		return true
	})
}

// values draws values of a field: few of them, so that entries meet.
func values(f Field) *rapid.Generator[[]byte] {
	return rapid.Custom(func(t *rapid.T) []byte {
		v := make([]byte, f.Size())
		for range rapid.IntRange(0, 2).Draw(t, "bits set") {
			bit := rapid.OneOf(rapid.IntRange(0, min(2, f.Bits-1)), rapid.IntRange(max(0, f.Bits-3), f.Bits-1)).Draw(t, "bit")
			v[len(v)-1-bit/8] |= 1 << (bit % 8)
		}
		return v
	})
}

func matches(fields []Field) *rapid.Generator[[]Match] {
	return rapid.Custom(func(t *rapid.T) []Match {
		var all []Match
		for _, f := range fields {
			m := Match{Value: values(f).Draw(t, "value")}
			switch f.Kind {
			case LPM:
				m.Prefix = rapid.OneOf(rapid.IntRange(0, min(3, f.Bits)), rapid.IntRange(max(0, f.Bits-3), f.Bits), rapid.IntRange(0, f.Bits)).Draw(t, "prefix")
			case Ternary:
				m.Mask = values(f).Draw(t, "mask")
			case Range:
				m.High = values(f).Draw(t, "high")
				if bytes.Compare(m.Value, m.High) > 0 {
					m.Value, m.High = m.High, m.Value
				}
			}
			all = append(all, m)
		}
		return all
	})
}

func fieldLists() *rapid.Generator[[]Field] {
	width := rapid.OneOf(rapid.IntRange(1, 20), rapid.SampledFrom([]int{24, 32, 48, 63, 64, 65, 128, 129, MaxBits}))
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Field {
		return Field{rapid.SampledFrom([]Kind{Exact, LPM, Ternary, Range}).Draw(t, "kind"), width.Draw(t, "bits")}
	}), 1, 4)
}

// checkAgainstReference does the same to a table and to the reference.
func checkAgainstReference(t *rapid.T, fields []Field) {
	table, err := New[int](fields...)
	if err != nil {
		t.Fatal(err)
	}
	ref := reference{fields: fields}
	match, priority := matches(fields), rapid.IntRange(-1, 2)
	n := 0
	t.Repeat(map[string]func(*rapid.T){
		"": func(t *rapid.T) {
			if table.Len() != len(ref.entries) {
				t.Fatalf("%d entries: want %d", table.Len(), len(ref.entries))
			}
		},
		"add": func(t *rapid.T) {
			n++
			e := Entry[int]{Match: match.Draw(t, "match"), Priority: priority.Draw(t, "priority"), Value: n}
			err := table.Add(e)
			if at := ref.find(e.Match, e.Priority); at < 0 {
				if err != nil {
					t.Fatal(err)
				}
				ref.entries = append(ref.entries, e)
			} else if !errors.Is(err, ErrExists) {
				t.Fatalf("adding an entry twice: %v", err)
			}
		},
		"set": func(t *rapid.T) {
			n++
			e := Entry[int]{Match: match.Draw(t, "match"), Priority: priority.Draw(t, "priority"), Value: n}
			old, err := table.Set(e)
			if err != nil {
				t.Fatal(err)
			}
			if at := ref.find(e.Match, e.Priority); at >= 0 {
				if old == nil || old.Value != ref.entries[at].Value {
					t.Fatalf("Set replaced %v: want %v", old, ref.entries[at])
				}
				ref.entries[at].Value = n
			} else {
				if old != nil {
					t.Fatalf("Set replaced %v: want none", old)
				}
				ref.entries = append(ref.entries, e)
			}
		},
		"remove": func(t *rapid.T) {
			m, p := match.Draw(t, "match"), priority.Draw(t, "priority")
			if len(ref.entries) > 0 && rapid.Bool().Draw(t, "one that is there") {
				e := rapid.SampledFrom(ref.entries).Draw(t, "entry")
				m, p = e.Match, e.Priority
			}
			found, err := table.Get(m, p)
			if err != nil {
				t.Fatal(err)
			}
			old, err := table.Remove(m, p)
			if found != old {
				t.Fatalf("Get found %v, and Remove %v", found, old)
			}
			if at := ref.find(m, p); at < 0 {
				if !errors.Is(err, ErrNoEntry) {
					t.Fatalf("removing what is not there: %v", err)
				}
			} else {
				if err != nil || old.Value != ref.entries[at].Value {
					t.Fatalf("removing %v: %v, %v", ref.entries[at], old, err)
				}
				ref.entries = slices.Delete(ref.entries, at, at+1)
			}
		},
		"look up": func(t *rapid.T) {
			for range 4 {
				var key []byte
				for _, f := range fields {
					key = append(key, values(f).Draw(t, "field")...)
				}
				got, want := table.Lookup(key), ref.lookup(key)
				if (got == nil) != (want == nil) || got != nil && got.Value != want.Value {
					t.Fatalf("%x: got %v, want %v", key, got, want)
				}
				if value, ok := table.Value(key); ok != (want != nil) || ok && value != want.Value {
					t.Fatalf("%x: got the value %v, %v, want %v", key, value, ok, want)
				}
			}
		},
		"dump": func(t *rapid.T) {
			all := table.Entries()
			if len(all) != len(ref.entries) {
				t.Fatalf("%d entries: want %d", len(all), len(ref.entries))
			}
			for i, e := range all {
				if e.Value != ref.entries[i].Value || ref.find(e.Match, e.Priority) != i && ref.prioritised() {
					t.Fatalf("entry %d is %v: want %v", i, e, ref.entries[i])
				}
			}
		},
	})
	for len(ref.entries) > 0 {
		at := rapid.IntRange(0, len(ref.entries)-1).Draw(t, "remove")
		if _, err := table.Remove(ref.entries[at].Match, ref.entries[at].Priority); err != nil {
			t.Fatal(err)
		}
		ref.entries = slices.Delete(ref.entries, at, at+1)
	}
	if n := len(*table.groups.Load()); n != 0 {
		t.Fatalf("%d groups are left of an empty table", n)
	}
}

func TestTableIsAsTheReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { checkAgainstReference(t, fieldLists().Draw(t, "fields")) })
}

// Short fields of one kind fill their structure far more than a mix does.
func TestTableOfOneKindIsAsTheReference(t *testing.T) {
	for _, fields := range [][]Field{
		{{Exact, 8}}, {{LPM, 4}}, {{LPM, 13}}, {{LPM, 32}}, {{Ternary, 4}}, {{Range, 4}}, {{Range, 5}, {Range, 3}},
		{{Exact, 2}, {LPM, 9}}, {{LPM, 7}, {Ternary, 2}}, {{LPM, 7}, {Range, 3}}, {{LPM, 4}, {LPM, 3}}, {{Exact, 3}, {Range, 4}},
	} {
		t.Run(fmt.Sprint(fields), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) { checkAgainstReference(t, fields) })
		})
	}
}

// A trie of random prefixes, tens of thousands of them, against the longest
// prefix that a map for each length finds.
func TestManyPrefixesAreFoundByLength(t *testing.T) {
	const seed = 7
	r := rand.New(rand.NewPCG(seed, seed))
	table := mustTable[int](t, Field{LPM, 32})
	lengths := [33]map[uint32]int{}
	for n := range lengths {
		lengths[n] = map[uint32]int{}
	}
	mask := func(v uint32, n int) uint32 { return v &^ uint32(1<<(32-n)-1) }
	check := func() {
		for range 20_000 {
			v := r.Uint32() & 0x0fff_ffff
			want := -1
			for n := 32; n >= 0 && want < 0; n-- {
				if value, ok := lengths[n][mask(v, n)]; ok {
					want = value
				}
			}
			got := -1
			if e := table.Lookup(binary.BigEndian.AppendUint32(nil, v)); e != nil {
				got = e.Value
			}
			if got != want {
				t.Fatalf("%08x: got %d, want %d", v, got, want)
			}
		}
	}
	for i := range 30_000 {
		n := 4 + r.IntN(29)
		v := mask(r.Uint32()&0x0fff_ffff, n)
		lengths[n][v] = i
		if _, err := table.Set(Entry[int]{Match: []Match{{Value: binary.BigEndian.AppendUint32(nil, v), Prefix: n}}, Value: i}); err != nil {
			t.Fatal(err)
		}
	}
	check()
	for n := range lengths {
		for v, i := range lengths[n] {
			if i%3 == 0 {
				continue
			}
			delete(lengths[n], v)
			if _, err := table.Remove([]Match{{Value: binary.BigEndian.AppendUint32(nil, v), Prefix: n}}, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	check()
}

// Prefixes that part at any bit of fields of any width.
func TestValueIsThatOfTheLongestPrefix(t *testing.T) {
	for _, width := range []int{1, 5, 6, 13, 32, 48, 63, 64, 65, 90, 100, 128, 129, 200} {
		for _, fields := range [][]Field{{{LPM, width}}, {{Exact, 8}, {LPM, width}}} {
			table := mustTable[int](t, fields...)
			r := rand.New(rand.NewPCG(3, uint64(width)))
			one := make([]byte, table.KeySize())
			// near is a key that differs from one in a few bits.
			near := func() []byte {
				key := slices.Clone(one)
				for range 1 + r.IntN(2) {
					at := 8*len(key) - 1 - r.IntN(width)
					key[at/8] ^= 0x80 >> (at % 8)
				}
				return key
			}
			for i := range 400 {
				key := near()
				match := make([]Match, len(fields))
				for f, at := 0, 0; f < len(fields); f++ {
					match[f] = Match{Value: key[at : at+fields[f].Size()], Prefix: r.IntN(width + 1)}
					at += fields[f].Size()
				}
				if _, err := table.Set(Entry[int]{Match: match, Value: i}); err != nil {
					t.Fatal(err)
				}
			}
			for range 4000 {
				key := near()
				e := table.Lookup(key)
				if value, ok := table.Value(key); ok != (e != nil) || ok && value != e.Value {
					t.Fatalf("width %d, key %x: %d, %v, and the entry is %v", width, key, value, ok, e)
				}
			}
		}
	}
}

func mustTable[V any](t testing.TB, fields ...Field) *Table[V] {
	t.Helper()
	table, err := New[V](fields...)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestBadFieldsAreRefused(t *testing.T) {
	for want, fields := range map[string][]Field{
		"needs a field": nil, "field 0 has 0 bits": {{Exact, 0}}, "field 1 has 2049 bits": {{Exact, 1}, {LPM, 2049}},
		"kind 9 is not a kind of match": {{Kind(9), 8}},
	} {
		if _, err := New[int](fields...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", fields, err, want)
		}
	}
}

func TestBadEntriesAreRefused(t *testing.T) {
	table := mustTable[int](t, Field{Exact, 12}, Field{LPM, 16}, Field{Ternary, 4}, Field{Range, 8})
	good := func() []Match {
		return []Match{{Value: []byte{0xf, 0xff}}, {Value: []byte{1, 2}, Prefix: 16}, {Value: []byte{3}, Mask: []byte{0xf}}, {Value: []byte{1}, High: []byte{1}}}
	}
	if err := table.Add(Entry[int]{Match: good()}); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func([]Match) []Match{
		"matches 3 fields: the table has 4":                                 func(m []Match) []Match { return m[:3] },
		"field 0 (exact, 12 bits): the value has 1 bytes: want 2":           func(m []Match) []Match { m[0].Value = []byte{1}; return m },
		"the value 0x1000 has more than 12 bits":                            func(m []Match) []Match { m[0].Value = []byte{0x10, 0}; return m },
		"field 1 (lpm, 16 bits): the prefix has 17 bits: want 0 to 16":      func(m []Match) []Match { m[1].Prefix = 17; return m },
		"the prefix has -1 bits":                                            func(m []Match) []Match { m[1].Prefix = -1; return m },
		"field 2 (ternary, 4 bits): the mask has 0 bytes: want 1":           func(m []Match) []Match { m[2].Mask = nil; return m },
		"the mask 0x10 has more than 4 bits":                                func(m []Match) []Match { m[2].Mask = []byte{0x10}; return m },
		"field 3 (range, 8 bits): the range from 0x02 to 0x01 is empty":     func(m []Match) []Match { m[3].Value = []byte{2}; return m },
		"field 3 (range, 8 bits): the upper end has 2 bytes: want 1":        func(m []Match) []Match { m[3].High = []byte{0, 2}; return m },
		"field 3 (range, 8 bits): the value has 0 bytes: want 1":            func(m []Match) []Match { m[3].Value = nil; return m },
		"matches 5 fields: the table has 4":                                 func(m []Match) []Match { return append(m, m[0]) },
		"field 1 (lpm, 16 bits): the value has 4 bytes: want 2":             func(m []Match) []Match { m[1].Value = make([]byte, 4); return m },
		"field 2 (ternary, 4 bits): the value 0xff has more than 4 bits":    func(m []Match) []Match { m[2].Value = []byte{0xff}; return m },
		"field 3 (range, 8 bits): the upper end has 0 bytes: want 1":        func(m []Match) []Match { m[3].High = nil; return m },
		"field 0 (exact, 12 bits): the value has 3 bytes: want 2":           func(m []Match) []Match { m[0].Value = make([]byte, 3); return m },
		"field 2 (ternary, 4 bits): the mask has 2 bytes: want 1":           func(m []Match) []Match { m[2].Mask = make([]byte, 2); return m },
		"field 1 (lpm, 16 bits): the prefix has 1000000 bits: want 0 to 16": func(m []Match) []Match { m[1].Prefix = 1_000_000; return m },
		"field 1 (lpm, 16 bits): the value has 0 bytes: want 2":             func(m []Match) []Match { m[1] = Match{}; return m },
		"field 0 (exact, 12 bits): the value 0xffff has more than 12 bits":  func(m []Match) []Match { m[0].Value = []byte{0xff, 0xff}; return m },
		"field 3 (range, 8 bits): the range from 0xff to 0x01 is empty":     func(m []Match) []Match { m[3].Value = []byte{0xff}; return m },
		"field 2 (ternary, 4 bits): the mask 0xf0 has more than 4 bits":     func(m []Match) []Match { m[2].Mask = []byte{0xf0}; return m },
	} {
		e := Entry[int]{Match: spoil(good())}
		for what, err := range map[string]error{"Add": table.Add(e), "Set": second(table.Set(e)), "Remove": second(table.Remove(e.Match, 0)), "Get": second(table.Get(e.Match, 0))} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q", what, err, want)
			}
		}
	}
	if table.Len() != 1 {
		t.Errorf("%d entries after refusals: want 1", table.Len())
	}
}

func second[T any](_ T, err error) error { return err }

func TestKeyOfAnotherLengthMatchesNothing(t *testing.T) {
	table := mustTable[int](t, Field{LPM, 32})
	if err := table.Add(Entry[int]{Match: []Match{{Value: make([]byte, 4)}}}); err != nil {
		t.Fatal(err)
	}
	for n := range 9 {
		if _, ok := table.Value(make([]byte, n)); ok != (n == 4) {
			t.Errorf("a key of %d bytes has a value: %v", n, ok)
		}
		if got := table.Lookup(make([]byte, n)) != nil; got != (n == 4) {
			t.Errorf("a key of %d bytes: found %v", n, got)
		}
	}
}

// What the caller does to its slices afterwards is its own affair.
func TestTableKeepsACopyWithoutBitsThatDoNotCount(t *testing.T) {
	table := mustTable[int](t, Field{LPM, 32}, Field{Ternary, 8})
	value, mask := []byte{10, 0, 1, 77}, []byte{0xf0}
	if err := table.Add(Entry[int]{Match: []Match{{Value: value, Prefix: 24}, {Value: []byte{0xab}, Mask: mask}}}); err != nil {
		t.Fatal(err)
	}
	value[0], mask[0] = 11, 0
	e := table.Lookup([]byte{10, 0, 1, 5, 0xa1})
	if e == nil || !bytes.Equal(e.Match[0].Value, []byte{10, 0, 1, 0}) || !bytes.Equal(e.Match[1].Value, []byte{0xa0}) || e.Match[1].Mask[0] != 0xf0 {
		t.Errorf("found %+v", e)
	}
	// So the same entry, written otherwise, is the same.
	if err := table.Add(Entry[int]{Match: []Match{{Value: []byte{10, 0, 1, 0}, Prefix: 24}, {Value: []byte{0xa0}, Mask: []byte{0xf0}}}}); !errors.Is(err, ErrExists) {
		t.Errorf("adding it again: %v", err)
	}
}

func TestPriorityMeansNothingWithoutTernaryAndRange(t *testing.T) {
	table := mustTable[string](t, Field{LPM, 8})
	for _, e := range []Entry[string]{
		{Match: []Match{{Value: []byte{0}, Prefix: 0}}, Priority: 9, Value: "short"},
		{Match: []Match{{Value: []byte{1}, Prefix: 8}}, Priority: 1, Value: "long"},
	} {
		if err := table.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	if got := table.Lookup([]byte{1}).Value; got != "long" {
		t.Errorf("found the %s prefix", got)
	}
	if _, err := table.Remove([]Match{{Value: []byte{1}, Prefix: 8}}, 7); err != nil {
		t.Errorf("removing with another priority: %v", err)
	}
}

// Two keys of one hash are kept apart. No two are known for a random seed, so
// the trie is told that they are.
func TestKeysOfOneHashAreToldApart(t *testing.T) {
	table := mustTable[int](t, Field{Exact, 8})
	const n, h = 5, 42
	var root *node[int]
	var entries []*Entry[int]
	for i := range n {
		e, err := table.entry(Entry[int]{Match: []Match{{Value: []byte{byte(i)}}}, Value: i})
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
		root = table.changed(root, 0, h, nil, e)
	}
	// One that shares the first steps only.
	other, _ := table.entry(Entry[int]{Match: []Match{{Value: []byte{100}}}, Value: 100})
	const near = h | 1<<40
	root = table.changed(root, 0, near, nil, other)
	mask := []byte{0xff}
	for gone := range n {
		for i := range n {
			leaf := root.find(h, []byte{byte(i)}, mask)
			if (leaf == nil) != (i < gone) || leaf != nil && leaf.stack.top.Value != i {
				t.Fatalf("key %d after %d removals: %v", i, gone, leaf)
			}
		}
		if leaf := root.find(near, []byte{100}, mask); leaf == nil || leaf.stack.top.Value != 100 {
			t.Fatalf("the key of another hash after %d removals: %v", gone, leaf)
		}
		root = table.changed(root, 0, h, entries[gone], nil)
	}
	if root.key == nil || root.next != nil {
		t.Error("the last leaf still hangs in a branch")
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	for _, k := range []Kind{Exact, LPM, Ternary, Range} {
		table := mustTable[int](t, Field{k, 128}, Field{Range, 16})
		e := Entry[int]{Match: []Match{
			{Value: make([]byte, 16), Prefix: 64, Mask: make([]byte, 16), High: bytes.Repeat([]byte{0xff}, 16)},
			{Value: []byte{0, 1}, High: []byte{0, 9}}}}
		if err := table.Add(e); err != nil {
			t.Fatal(err)
		}
		key := make([]byte, 18)
		key[17] = 5
		if n := testing.AllocsPerRun(100, func() {
			if table.Lookup(key) == nil {
				t.Fatal("nothing found")
			}
		}); n != 0 {
			t.Errorf("%v: %v allocations", k, n)
		}
	}
}

// A table is changed in two places at a time in such an order that each key
// has an entry at every moment. A look-up that saw one half of an update would
// miss.
func TestLookupSeesNoStateThatWasNot(t *testing.T) {
	for _, kind := range []Kind{LPM, Ternary, Range} {
		t.Run(kind.String(), func(t *testing.T) {
			table := mustTable[int](t, Field{kind, 16}, Field{Exact, 8})
			variants := [2][]Match{
				{{Value: []byte{1, 0}, Prefix: 8, Mask: []byte{0xff, 0}, High: []byte{1, 0xff}}, {Value: []byte{1}}},
				{{Value: []byte{1, 2}, Prefix: 16, Mask: []byte{0xff, 0xff}, High: []byte{1, 2}}, {Value: []byte{1}}},
			}
			if err := table.Add(Entry[int]{Match: variants[0]}); err != nil {
				t.Fatal(err)
			}
			stop := make(chan struct{})
			var readers sync.WaitGroup
			for range 3 {
				readers.Go(func() {
					key := []byte{1, 2, 1}
					for {
						select {
						case <-stop:
							return
						default:
						}
						if table.Lookup(key) == nil {
							t.Error("a key with an entry at every moment was not found")
							return
						}
						if n := len(table.Entries()); n < 1 || n > 32 {
							t.Errorf("%d entries in a dump", n)
							return
						}
					}
				})
			}
			r := rand.New(rand.NewPCG(1, 2))
			for i := range 2000 {
				if err := table.Add(Entry[int]{Match: variants[(i+1)%2], Value: i}); err != nil {
					t.Fatal(err)
				}
				other := Entry[int]{Match: slices.Clone(variants[1])}
				other.Match[1] = Match{Value: []byte{byte(2 + r.IntN(30))}}
				if _, err := table.Set(other); err != nil {
					t.Fatal(err)
				}
				if _, err := table.Remove(variants[i%2], 0); err != nil {
					t.Fatal(err)
				}
				if _, err := table.Remove(other.Match, 0); err != nil {
					t.Fatal(err)
				}
			}
			close(stop)
			readers.Wait()
		})
	}
}

// What a table has returned stays as it is, whatever is done to the table.
func TestClearLeavesReturnedEntriesAlone(t *testing.T) {
	table := mustTable[int](t, Field{Exact, 8})
	for i := range 100 {
		if err := table.Add(Entry[int]{Match: []Match{{Value: []byte{byte(i)}}}, Value: i}); err != nil {
			t.Fatal(err)
		}
	}
	all, one := table.Entries(), table.Lookup([]byte{5})
	table.Clear()
	if table.Len() != 0 || table.Lookup([]byte{5}) != nil || len(table.Entries()) != 0 {
		t.Error("entries are left")
	}
	if len(all) != 100 || one.Value != 5 || all[7].Value != 7 {
		t.Error("what was returned has changed")
	}
	if err := table.Add(Entry[int]{Match: []Match{{Value: []byte{5}}}}); err != nil {
		t.Error(err)
	}
}
