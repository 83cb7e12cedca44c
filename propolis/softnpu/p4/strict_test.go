package p4

import "testing"

// Of two entries that match, that with the smaller @priority wins, as BMv2 has it; one without has its place as its priority.
func TestPriorityOfEntries(t *testing.T) {
	pl := parts{
		locals: `action set(bit<8> v) { hdr.h.b = v; }
			table t { key = { hdr.h.a: ternary; } actions = { set; NoAction; } const entries = {
				0x11 &&& 0x0f: set(1) @priority(3);
				0x11:          set(2);
				0x11 &&& 0xf0: set(3) @priority(1);
				0x20 &&& 0xf0: set(4);
				0x22:          set(5) @name("x") @priority(2);
			} }`,
		ingress: "t.apply();",
	}.pipeline(t)
	expect(t, pl, 0, "1100", "1:1103")
	expect(t, pl, 0, "1200", "1:1203")
	expect(t, pl, 0, "2100", "1:2101")
	expect(t, pl, 0, "2200", "1:2205")
	expect(t, pl, 0, "2300", "1:2304")
}

// The members of a type are those of what it is made of, in a packet, in a key and in an action.
func TestDistinctTypes(t *testing.T) {
	pl := parts{
		globals: "type bit<8> port_t; type bit<9> wide_t; enum bit<8> e_t { one = 1 } type e_t alias_t; const port_t HOME = (port_t) 7; port_t pass(in port_t x) { return x; }",
		fields:  "port_t a; bit<8> b;",
		states:  "state start { pkt.extract(hdr.h); transition select(hdr.h.a) { HOME: home; (port_t) 9: reject; default: accept; } } state home { hdr.h.b = 1; transition accept; }",
		locals: `action set(port_t v) { hdr.h.a = pass(v); }
			table t { key = { hdr.h.a: exact; } actions = { set; NoAction; } const entries = { HOME: set((port_t) 8); (port_t) 3: set((port_t) 4); } }`,
		ingress: "t.apply(); if (hdr.h.a == (port_t) 4) { hdr.h.b = (bit<8>) hdr.h.a; } wide_t w = (wide_t) (bit<9>) hdr.h.b; alias_t e = (alias_t) e_t.one; if ((bit<8>) (e_t) e == 1 && (bit<9>) w == 5) { hdr.h.b = 6; }",
	}.pipeline(t)
	expect(t, pl, 0, "0700", "1:0801")
	expect(t, pl, 0, "0300", "1:0404")
	expect(t, pl, 0, "0505", "1:0506")
	drops(t, pl, 0, "0900", ParserReject)
}

// A hash of more than 8 bytes, and one into more than 64 bits, are what BMv2 has: the identity is that of the first 8 bytes.
func TestWideHashes(t *testing.T) {
	pl := parts{fields: "bit<96> a; bit<64> b; bit<100> c; bit<4> d;",
		ingress: `hash(hdr.h.b, HashAlgorithm.identity, 64w0, hdr.h.a, 64w0xffffffffffffffff);
			hash(hdr.h.c, HashAlgorithm.identity, 100w1, { hdr.h.a }, 128w0x1_0000_0000_0000_0100);`}.pipeline(t)
	expect(t, pl, 0, "000102030405060708090a0b 0000000000000000 00000000000000000000000000",
		"1:000102030405060708090a0b 0001020304050607 00000000000000000000000080")
	wide := parts{fields: "bit<96> a; bit<96> b;", locals: "Hash<bit<96>>(PSA_HashAlgorithm_t.IDENTITY) h;", ingress: "hdr.h.b = h.get_hash(hdr.h.a);"}.pipeline(t)
	expect(t, wide, 0, "000102030405060708090a0b 000000000000000000000000", "1:000102030405060708090a0b 000000000001020304050607")
}

// A mask and a range of an enum with values may have its members or numbers; so may those of a type the values of that type.
func TestMasksOfEnums(t *testing.T) {
	const globals = "enum bit<8> op_t { ask = 0x10, tell = 0x20, high = 0xf0 } type bit<8> port_t;"
	for name, p := range map[string]parts{
		"select": {globals: globals, fields: "op_t a; bit<8> b;", states: `state start { pkt.extract(hdr.h); transition select(hdr.h.a) { op_t.ask &&& op_t.high: one; 0x20 &&& 0xf0: two; op_t.high .. 0xf2: three; op_t.tell: reject; default: accept; } }
			state one { hdr.h.b = 1; transition accept; } state two { hdr.h.b = 2; transition accept; } state three { hdr.h.b = 3; transition accept; }`},
		"ternary": {globals: globals, fields: "op_t a; bit<8> b;", locals: `action set(bit<8> v) { hdr.h.b = v; }
			table t { key = { hdr.h.a: ternary; } actions = { set; NoAction; } const entries = { op_t.ask &&& op_t.high: set(1); 0x20 &&& op_t.high: set(2); (op_t) 0xf1: set(3); } }`, ingress: "t.apply();"},
		"range": {globals: globals, fields: "port_t a; bit<8> b;", locals: `action set(bit<8> v) { hdr.h.b = v; }
			table t { key = { hdr.h.a: range; } actions = { set; NoAction; } const entries = { (port_t) 0x10 .. (port_t) 0x1f: set(1); (port_t) 0x20 .. (port_t) 0x2f: set(2); (port_t) 0xf1: set(3); } }`, ingress: "t.apply();"},
	} {
		t.Run(name, func(t *testing.T) {
			pl := p.pipeline(t)
			expect(t, pl, 0, "1700", "1:1701")
			expect(t, pl, 0, "2300", "1:2302")
			expect(t, pl, 0, "f100", "1:f103")
			expect(t, pl, 0, "3300", "1:3300")
		})
	}
}
