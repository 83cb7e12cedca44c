package p4

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// seeds are all programs of the tests.
func seeds(f *testing.F) []string {
	f.Helper()
	var out []string
	for _, pattern := range []string{"testdata/programs/*.p4", "testdata/bad/*.p4"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("no programs: %v", err)
		}
		for _, name := range files {
			b, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			out = append(out, string(b))
		}
	}
	return append(out, everything.text(), tables.text())
}

// everything uses most of what the language has.
var everything = parts{
	globals: `#define N 3
	typedef bit<8> byte_t; enum color { red, green } enum bit<8> op_t { ask = 1, tell = 2 }
	header v_t { bit<8> n; varbit<64> o; } header x_t { bit<8> x; } header y_t { bit<16> y; } header_union u_t { x_t x; y_t y; }
	header wide_t { bit<65> w; int<7> i; bit<128> a; bit<2048> z; }
	struct pair_t { bit<8> l; bit<8> r; } error { Mine } type bit<8> port_t; struct two_t<T> { T l; T r; }
	T larger<T>(in T x, in T y) { for (bit<8> i in 0..3) { if (x > y) { return x; } } return y; }
	bit<8> twice(in bit<8> x) { if (x > 100) { return 0; } return x + x; }
	control sub(inout bit<8> x, in bit<8> y)(bit<8> n) { action set(bit<8> v) { x = v + n; exit; }
		table t { key = { y: exact; x: ternary; y: range; } actions = { set; NoAction; } const entries = { (1, _, 0..9): set(3); (2, 1 &&& 3, _): NoAction(); } }
		apply { if (t.apply().hit) { return; } x = twice(y); } }`,
	fields:  "bit<8> a; bit<8> b; bit<4> c; bit<12> d;",
	headers: "h_t h; v_t v; x_t[N] s; u_t u; wide_t w;",
	meta:    "pair_t p; color k;",
	states: `value_set<pair_t>(4) vs; state start { pkt.extract(hdr.h); verify(hdr.h.a != 0xff, error.Mine);
		transition select(hdr.h.a, hdr.h.b) { (1, _): stack; (2, 8w0 &&& 8w1): var; (3, 1..5): union; (4, _): wide; (5, _): look; (6, _): again; vs: wide; default: accept; } }
	state stack { pkt.extract(hdr.s.next); transition select(hdr.s.last.x) { 0: accept; default: stack; } }
	state var { pkt.extract(hdr.v, (bit<32>) hdr.h.b); transition accept; }
	state union { if (hdr.h.b == 1) { pkt.extract(hdr.u.x); transition accept; } pkt.extract(hdr.u.y); transition accept; }
	state wide { pkt.extract(hdr.w); transition accept; }
	state look { im.p = { pkt.lookahead<bit<8>>(), 1 }; pkt.advance((bit<32>) hdr.h.b); transition accept; }
	state again { transition again; }`,
	locals: `action put(inout bit<8> x, two_t<bit<8>> v) { x = v.l; } table kept { key = { hdr.h.b: ternary; } actions = { put(hdr.h.b); NoAction; }
		const entries = { 1 &&& 3: put({ 2, 3 }) @priority(2); 1: NoAction(); } } register<two_t<bit<8>>>(4) pairs; Replicate() rep; sub(1) one; sub(2) two; Checksum() sum; InternetChecksum() ones; Register<bit<16>, bit<8>>(8) reg; Counter<bit<32>, bit<8>>(8, PSA_CounterType_t.BYTES) cnt; Hash<bit<16>>(PSA_HashAlgorithm_t.CRC16) hsh; Random<bit<8>>(1, 2) rnd; Meter<bit<8>>(8, PSA_MeterType_t.BYTES) mtr;`,
	ingress: `kept.apply(); rep.replicate(112w0 ++ 15w0 ++ em.port[0:0]); two_t<bit<8>> t = { 1, 2 }; pairs.read(t, (bit<32>) hdr.h.a); pairs.write(1, t);
	for (bit<8> i = 0, bit<8> k = 1; i < hdr.h.b; i = i + 1) { if (i == 200) { break; } if (i[0:0] == 1) { continue; } hdr.h.a = larger(hdr.h.a, i); }
	for (x_t x in hdr.s) { hdr.h.b = hdr.h.b + x.x; } hdr.w.a[hdr.h.a+:8] = hdr.w.a[hdr.h.b+:8]; port_t pt = (port_t) hdr.h.a; hdr.s[larger(hdr.h.a, 1)].x += 1; one.apply(hdr.h.a, hdr.h.b); two.apply(hdr.h.b, 2);
	switch (hdr.h.a) { 1: 2: { hdr.h.d = hdr.h.d << hdr.h.b; } default: { hdr.h.c = hdr.h.c |+| 3; } }
	hdr.s.push_front(1); hdr.s[hdr.h.a].x = hdr.s[hdr.h.b].x; im.p = { im.p.r, im.p.l };
	hdr.w.w = hdr.w.w + hdr.w.a[64:0] * 3; hdr.w.i = -hdr.w.i >> 1; hdr.w.z = hdr.w.z % (hdr.w.z + 1); hdr.w.a[71:8] = hdr.w.a[63:0];
	reg.write(hdr.h.a, reg.read(hdr.h.b) + sum.run({ hdr.h, hdr.v, hdr.w })); cnt.count(hdr.h.a); im.p.l = rnd.read(); ones.clear(); ones.add(hdr); reg.write(0, ones.get() ^ hsh.get_hash({ hdr.u, hdr.s }));
	if (mtr.execute(hdr.h.b) == PSA_MeterColor_t.RED) { em.drop = true; } em.broadcast = hdr.h.b[0:0] == 1; hdr.h.d = hdr.h.d / hdr.h.d;`,
	egress: "hdr.h.b = (bit<8>) em.port; if (hdr.u.isValid()) { hdr.u.y = { 7 }; }",
}

// FuzzCompile: whatever the program is, it is compiled or refused with diagnostics that have a text, and one that compiles
// takes any packet.
func FuzzCompile(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Compile(Files("test.p4", map[string]string{"test.p4": text}))
		if err != nil {
			ds, ok := err.(Diagnostics)
			if !ok || !slices.ContainsFunc(ds, func(d Diagnostic) bool { return d.Severity == Error && d.Message != "" }) {
				t.Fatalf("refused without a reason: %v", err)
			}
			return
		}
		pl, err := p.New(3)
		if err != nil {
			return
		}
		for _, in := range [][]byte{nil, make([]byte, 64), []byte(text[:min(len(text), 200)])} {
			pl.Process(1, in, func(uint16, []byte) {})
		}
		pl.Trace(1, make([]byte, 64))
	})
}

// FuzzPacket: any packet by any port goes through the programs of the tests, twice with the same outcome unless the program
// keeps something between packets, and what comes out is no longer than the headers and the packet together.
func FuzzPacket(f *testing.F) {
	for _, in := range [][]byte{nil, make([]byte, 14), make([]byte, 64), {1, 1, 0x10, 1, 5, 6, 7, 0}, {2, 8, 0, 0, 1, 2}, {3, 1, 0, 0, 1}, {4, 0, 0, 0}, {5, 16, 0, 0, 1, 2}, {6}, {0x45}} {
		f.Add(uint16(1), in)
	}
	text := func(p parts) *Pipeline {
		return newPipeline(f, p.text(), 4)
	}
	pls := []*Pipeline{text(everything), text(tables), program(f, "hub.p4", 4), router(f, 10)}
	f.Fuzz(func(t *testing.T, port uint16, in []byte) {
		keep := slices.Clone(in)
		for i, pl := range pls {
			var first, second []frame
			most := len(in) + pl.program.hdrBits/8 + 8
			collect := func(to *[]frame) func(uint16, []byte) {
				return func(p uint16, b []byte) {
					if len(b) > most {
						t.Fatalf("%d bytes came out of %d", len(b), len(in))
					}
					*to = append(*to, frame{p, slices.Clone(b)})
				}
			}
			r := pl.Process(port, in, collect(&first))
			if (r == NotDropped) != (len(first) > 0) {
				t.Fatalf("program %d: %d packets came out, and the result is %v", i, len(first), r)
			}
			if i == 0 {
				continue
			}
			pl.Process(port, in, collect(&second))
			if len(first) != len(second) {
				t.Fatalf("program %d: %d packets came out, and the second time %d", i, len(first), len(second))
			}
			for k := range first {
				if first[k].String() != second[k].String() {
					t.Fatalf("program %d: %v came out, and the second time %v", i, first[k], second[k])
				}
			}
		}
		if !slices.Equal(keep, in) {
			t.Fatal("the packet was changed")
		}
	})
}
