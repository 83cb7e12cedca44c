package p4

import (
	"strings"
	"testing"
)

func TestLoops(t *testing.T) {
	type packet struct{ in, out string }
	for _, tc := range []struct {
		name    string
		parts   parts
		packets []packet
	}{
		{"three parts", parts{ingress: "for (bit<8> i = 0; i < hdr.h.a; i = i + 1) { hdr.h.b = hdr.h.b + i; }"}, []packet{{"0500", "050a"}, {"0000", "0000"}}},
		{"several variables and updates", parts{ingress: "for (bit<8> i = 0, bit<8> k = 1; i < hdr.h.a; i += 1, k = k << 1) hdr.h.b = k;"}, []packet{{"0500", "0510"}}},
		{"nothing before and behind the condition", parts{ingress: "for (; hdr.h.a != 0;) { hdr.h.a = hdr.h.a - 1; hdr.h.b = hdr.h.b + 2; }"}, []packet{{"0500", "000a"}}},
		{"calls before and behind the condition", parts{globals: "void inc(inout bit<8> n) { n = n + 1; }", ingress: "for (inc(hdr.h.b), inc(hdr.h.b); hdr.h.b < 10; inc(hdr.h.b)) { hdr.h.a = hdr.h.a + 1; }"}, []packet{{"0000", "080a"}}},
		{"break and continue", parts{ingress: "for (bit<8> i = 0; i < 10; i = i + 1) { if (i == hdr.h.a) { break; } if (i[0:0] == 1) continue; hdr.h.b = hdr.h.b + i; }"}, []packet{{"0500", "0506"}, {"ff00", "ff14"}}},
		{"break leaves the loop that it is in", parts{ingress: "for (bit<8> i in 1..3) { for (bit<8> k in 1..5) { if (k == 3) break; hdr.h.b = hdr.h.b + 1; } }"}, []packet{{"0000", "0006"}}},
		{"break in a switch", parts{ingress: "for (bit<8> i in 1..5) { switch (i) { 3: { break; } default: { hdr.h.b = i; } } }"}, []packet{{"0000", "0002"}}},
		{"a range up to the largest number", parts{ingress: "for (bit<8> i in 250 .. 255) { hdr.h.b = hdr.h.b + 1; }"}, []packet{{"0000", "0006"}}},
		{"a range of variables, computed once", parts{ingress: "for (bit<8> i in hdr.h.a .. hdr.h.b) { hdr.h.b = hdr.h.b + 1; }"}, []packet{{"0205", "0209"}, {"0502", "0502"}, {"0505", "0506"}}},
		{"a range of signed numbers", parts{ingress: "for (int<8> i in -2 .. 2) { hdr.h.a = hdr.h.a + (bit<8>) (i * i); }"}, []packet{{"0000", "0a00"}}},
		{"a range of wide numbers", parts{fields: "bit<128> a; bit<8> b;", ingress: "for (bit<128> i in hdr.h.a .. hdr.h.a + 4) { hdr.h.b = hdr.h.b + 1; }"}, []packet{{"00000000000000010000000000000000 00", "00000000000000010000000000000000 05"}}},
		{"the variable of a range may be assigned to", parts{ingress: "for (bit<8> i in 1 .. 3) { i = i * 2; hdr.h.b = hdr.h.b + i; }"}, []packet{{"0000", "000c"}}},
		{"a list", parts{ingress: "for (bit<8> x in { hdr.h.a, hdr.h.b, 1 }) { hdr.h.b = 0; hdr.h.a = hdr.h.a + x; }"}, []packet{{"0102", "0500"}}},
		{"a tuple", parts{ingress: "tuple<bit<8>, bit<8>> p = { hdr.h.a, hdr.h.b }; for (bit<8> x in p) { hdr.h.b = hdr.h.b + x; }"}, []packet{{"0102", "0105"}}},
		{"the headers of a stack", parts{headers: "h_t h; h_t[3] s;", states: "state start { pkt.extract(hdr.h); pkt.extract(hdr.s.next); pkt.extract(hdr.s.next); transition accept; }",
			ingress: "for (h_t x in hdr.s) { if (x.isValid()) { hdr.h.a = hdr.h.a + x.a; } x.a = 0; }"}, []packet{{"0000 0100 0200", "0300 0100 0200"}}},
		{"return leaves the function", parts{globals: "bit<8> log(in bit<8> x) { bit<8> v = x; for (bit<8> n in 0 .. 8) { if (v == 0) return n; v = v >> 1; } return 99; }", ingress: "hdr.h.b = log(hdr.h.a);"}, []packet{{"0500", "0503"}, {"ff00", "ff08"}, {"0000", "0000"}}},
		{"exit leaves the block", parts{locals: "action stop() { exit; }", ingress: "for (bit<8> i in 1 .. 9) { hdr.h.b = i; if (i == 4) { stop(); } } hdr.h.a = 7;"}, []packet{{"0000", "0004"}}},
		{"in an action", parts{locals: "action sum(bit<8> n) { for (bit<8> i in 1 .. n) { hdr.h.b = hdr.h.b + i; } } table t { key = { hdr.h.a: exact; } actions = { sum; NoAction; } const entries = { 1: sum(4); } }", ingress: "t.apply();"}, []packet{{"0100", "010a"}}},
		{"in a parser", parts{states: "state start { pkt.extract(hdr.h); for (bit<8> i in 1 .. 3) { if (hdr.h.a == i) { transition good; } } transition reject; } state good { hdr.h.b = 1; transition accept; }"}, []packet{{"0200", "0201"}, {"0400", "-"}}},
		{"a loop without an end", parts{ingress: "for (; hdr.h.a == 1;) { hdr.h.b = hdr.h.b + 1; }"}, []packet{{"0000", "0000"}, {"0100", "-"}}},
		{"loops without an end in each other", parts{ingress: "for (bit<32> i in 0 .. 0xffffffff) { for (bit<32> k in 0 .. 0xffffffff) { hdr.h.b = hdr.h.b + 1; } }"}, []packet{{"0000", "-"}}},
		{"a loop without an end in a function", parts{globals: "bit<8> spin(in bit<8> x) { for (; x == 1;) { } return x; }", ingress: "hdr.h.b = spin(hdr.h.a); hdr.h.b = hdr.h.b + spin(hdr.h.a);"}, []packet{{"0000", "0000"}, {"0100", "-"}}},
		{"a slice from a variable on", parts{fields: "bit<16> a; bit<8> i; bit<4> n; bit<4> k;", ingress: "hdr.h.n = hdr.h.a[hdr.h.i+:4]; hdr.h.k = hdr.h.a[4+:4];"},
			[]packet{{"1234 04 00", "1234 04 33"}, {"1234 0c 00", "1234 0c 13"}, {"f234 0e 00", "f234 0e 33"}, {"1234 ff 00", "1234 ff 03"}}},
		{"a slice from a variable on assigned", parts{fields: "bit<16> a; bit<8> i;", ingress: "hdr.h.a[hdr.h.i+:4] = 0xf; hdr.h.a[0+:2] = 3;"},
			[]packet{{"0000 04", "00f3 04"}, {"0000 0e", "c003 0e"}, {"0000 10", "0003 10"}, {"0000 ff", "0003 ff"}}},
		{"a slice from a variable on, with an operator and an effect", parts{globals: "bit<8> inc(inout bit<8> n) { n = n + 4; return n; }", fields: "bit<16> a; bit<8> i;", ingress: "hdr.h.a[inc(hdr.h.i)+:4] += 1; hdr.h.a[hdr.h.i+:4] = inc(hdr.h.i)[3:0];"},
			[]packet{{"1234 00", "1284 08"}}},
		{"slices of slices from variables on", parts{fields: "bit<16> a; bit<8> i; bit<4> n; bit<4> k;", ingress: "hdr.h.n = hdr.h.a[hdr.h.i+:8][hdr.h.i+:4]; hdr.h.a[hdr.h.i+:8][3:0] = 0xe; hdr.h.k = hdr.h.a[15:4][hdr.h.i+:4];"},
			[]packet{{"1234 04 00", "12e4 04 22"}, {"1234 02 00", "1238 02 38"}}},
		{"wide slices from variables on", parts{fields: "bit<128> a; bit<8> i; bit<96> b;", ingress: "hdr.h.b = hdr.h.a[hdr.h.i+:96]; hdr.h.a[hdr.h.i+:96] = 96w1;"},
			[]packet{{"00112233445566778899aabbccddeeff 08 000000000000000000000000", "00112200000000000000000000000 1ff 08 33445566778899aabbccddee"},
				{"00112233445566778899aabbccddeeff 40 000000000000000000000000", "0000000000000001 8899aabbccddeeff 40 00000000 0011223344556677"}}},
		{"a slice from a variable on is an argument", parts{globals: "void set(inout bit<4> x, inout bit<8> i) { i = 0; x = x + 1; }", fields: "bit<16> a; bit<8> i;", ingress: "set(hdr.h.a[hdr.h.i+:4], hdr.h.i);"}, []packet{{"1234 08", "1334 00"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pl := tc.parts.pipeline(t)
			for _, p := range tc.packets {
				if p.out == "-" {
					expect(t, pl, 0, p.in)
				} else {
					expect(t, pl, 0, p.in, "1:"+p.out)
				}
			}
		})
	}
}

// A packet that a program cannot come to an end with is dropped for that, and the next one is not.
func TestLoopLimit(t *testing.T) {
	pl := parts{ingress: "for (; hdr.h.a == 1;) { }", egress: "for (; hdr.h.a == 2;) { }"}.pipeline(t)
	drops(t, pl, 0, "0100", LoopLimit)
	drops(t, pl, 0, "0200", LoopLimit)
	expect(t, pl, 0, "0300", "1:0300")
	if s := LoopLimit.String(); !strings.Contains(s, "loop") {
		t.Errorf("the reason is %q", s)
	}
}
