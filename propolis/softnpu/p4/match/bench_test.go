package match

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
)

// benchTable is a shape of table with n entries and keys that they match.
type benchTable struct {
	name   string
	fields []Field
	entry  func(i int) []Match
	key    func(i int) []byte
}

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
func be128(high uint64) []byte {
	return append(binary.BigEndian.AppendUint64(nil, high), make([]byte, 8)...)
}

// scatter is a permutation that keeps the upper bits of small numbers busy.
func scatter(i int) uint32 { return uint32(i) * 2654435761 }

var benchTables = []benchTable{
	{"exact", []Field{{Exact, 32}},
		func(i int) []Match { return []Match{{Value: be32(scatter(i))}} },
		func(i int) []byte { return be32(scatter(i)) }},
	// Lengths as of routes in the Internet: most have 24 bits.
	{"lpm4", []Field{{LPM, 32}},
		func(i int) []Match { return []Match{{Value: be32(scatter(i)), Prefix: 24 - max(0, i%16-8) + i%3}} },
		func(i int) []byte { return be32(scatter(i)) }},
	{"lpm6", []Field{{LPM, 128}},
		func(i int) []Match {
			return []Match{{Value: be128(0x2001_0db8<<32 | uint64(scatter(i))), Prefix: 64 - i%17}}
		},
		func(i int) []byte { return be128(0x2001_0db8<<32 | uint64(scatter(i))) }},
	// An address, and a range of ports beside many others of the address.
	{"exact+range", []Field{{Exact, 32}, {Range, 16}},
		func(i int) []Match {
			return []Match{{Value: be32(scatter(i / 64))}, {Value: be16(uint16(i % 64 * 1024)), High: be16(uint16(i%64*1024 + 1023))}}
		},
		func(i int) []byte { return append(be32(scatter(i/64)), be16(uint16(i%64*1024+500))...) }},
	{"range", []Field{{Range, 32}},
		func(i int) []Match { return []Match{{Value: be32(uint32(i) * 64), High: be32(uint32(i)*64 + 50)}} },
		func(i int) []byte { return be32(uint32(i)*64 + 7) }},
	{"ternary16masks", []Field{{Ternary, 32}, {Ternary, 16}},
		func(i int) []Match {
			return []Match{{Value: be32(scatter(i)), Mask: be32(0xffff_ffff << (i % 4))}, {Value: be16(80), Mask: be16(0xffff << (i / 4 % 4))}}
		},
		func(i int) []byte { return append(be32(scatter(i)), be16(80)...) }},
}

func (b *benchTable) fill(t testing.TB, n int) *Table[int] {
	table := mustTable[int](t, b.fields...)
	for i := range n {
		if _, err := table.Set(Entry[int]{Match: b.entry(i), Value: i}); err != nil {
			t.Fatal(err)
		}
	}
	return table
}

func BenchmarkLookup(b *testing.B) {
	for _, shape := range benchTables {
		for _, n := range []int{10, 10_000, 100_000} {
			b.Run(fmt.Sprintf("%s/%d", shape.name, n), func(b *testing.B) {
				table := shape.fill(b, n)
				r := rand.New(rand.NewPCG(1, 2))
				keys := make([][]byte, 4096)
				for i := range keys {
					keys[i] = shape.key(r.IntN(n))
				}
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if _, ok := table.Value(keys[i%len(keys)]); !ok {
						b.Fatal("a key has no entry")
					}
					i++
				}
			})
		}
	}
}

func BenchmarkAdd100000(b *testing.B) {
	for _, shape := range benchTables {
		b.Run(shape.name, func(b *testing.B) {
			for b.Loop() {
				shape.fill(b, 100_000)
			}
		})
	}
}

// Look-ups while another goroutine adds and removes as fast as it can.
func BenchmarkLookupWhileChanging(b *testing.B) {
	shape := benchTables[1]
	table := shape.fill(b, 100_000)
	key := shape.key(50)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			m := shape.entry(100_000 + i%1000)
			if _, err := table.Set(Entry[int]{Match: m}); err != nil {
				b.Error(err)
				return
			}
			if _, err := table.Remove(m, 0); err != nil {
				b.Error(err)
				return
			}
		}
	}()
	for b.Loop() {
		table.Lookup(key)
	}
	close(stop)
	<-done
}
