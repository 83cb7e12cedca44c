package p4

import (
	"strings"
	"testing"
)

// What a packet looks like after a feature of the language has touched it. in and out are the bytes of the packet; an out
// of "-" is one that is dropped.
func TestLanguage(t *testing.T) {
	type packet struct{ in, out string }
	for _, tc := range []struct {
		name    string
		parts   parts
		packets []packet
	}{
		{"assignment and literal", parts{ingress: "hdr.h.a = 8w0x5a; hdr.h.b = 7;"}, []packet{{"0102 ff", "5a07 ff"}}},
		{"literals of every base", parts{fields: "bit<8> a; bit<8> b; bit<8> c; bit<8> d; int<8> e;",
			ingress: "hdr.h.a = 0b1010_1010; hdr.h.b = 0o17; hdr.h.c = 0d99; hdr.h.d = 8w0xF_0; hdr.h.e = 8s0xff;"},
			[]packet{{"0000000000", "aa0f63f0ff"}}},
		{"if, else if, else", parts{ingress: "if (hdr.h.a == 1) { hdr.h.b = 10; } else if (hdr.h.a == 2) hdr.h.b = 20; else { hdr.h.b = 30; }"},
			[]packet{{"0100", "010a"}, {"0200", "0214"}, {"0300", "031e"}}},
		{"logical operators stop early", parts{
			globals: "bit<8> count(inout bit<8> n) { n = n + 1; return n; }",
			ingress: "if (hdr.h.a == 1 && count(hdr.h.b) > 0) { } if (hdr.h.a == 1 || count(hdr.h.b) > 0) { }"},
			[]packet{{"0100", "0101"}, {"0200", "0201"}}},
		{"not", parts{ingress: "bool x = hdr.h.a == 1; if (!x) { hdr.h.b = 9; }"}, []packet{{"0100", "0100"}, {"0200", "0209"}}},
		{"conditional expression", parts{ingress: "hdr.h.b = hdr.h.a > 5 ? hdr.h.a - 5 : 8w0xee;"}, []packet{{"0700", "0702"}, {"0500", "05ee"}}},
		{"conditional expression of a wide value", parts{fields: "bit<8> a; bit<128> b; bit<128> c;", ingress: "hdr.h.b = hdr.h.a == 0 ? hdr.h.b : hdr.h.c;"},
			[]packet{{"00 00112233445566778899aabbccddeeff ffeeddccbbaa99887766554433221100", "00 00112233445566778899aabbccddeeff ffeeddccbbaa99887766554433221100"},
				{"01 00112233445566778899aabbccddeeff ffeeddccbbaa99887766554433221100", "01 ffeeddccbbaa99887766554433221100 ffeeddccbbaa99887766554433221100"}}},
		{"slice of 16 bits of an address", parts{fields: "bit<128> a; bit<16> b;", ingress: "hdr.h.b = hdr.h.a[127:112];"},
			[]packet{{"ff020000000000000000000000000001 0000", "ff020000000000000000000000000001 ff02"}}},
		{"slice assigned", parts{fields: "bit<16> a;", ingress: "hdr.h.a[11:4] = 8w0xab;"}, []packet{{"1234", "1ab4"}}},
		{"slice of a slice assigned", parts{fields: "bit<16> a;", ingress: "hdr.h.a[11:0][11:8] = 4w0xf;"}, []packet{{"1234", "1f34"}}},
		{"slice across limbs", parts{fields: "bit<128> a;", ingress: "hdr.h.a[71:56] = 16w0xbeef;"},
			[]packet{{"00000000000000000000000000000000", "00000000000000beef00000000000000"}}},
		{"wide slice of a wide value", parts{fields: "bit<256> a; bit<96> b;", ingress: "hdr.h.b = hdr.h.a[131:36];"},
			[]packet{{"000102030405060708090a0b0c0d0e0f 101112131415161718191a1b1c1d1e1f 000000000000000000000000",
				"000102030405060708090a0b0c0d0e0f 101112131415161718191a1b1c1d1e1f f10111213141516171819 1a1"}}},
		{"concatenation", parts{fields: "bit<8> a; bit<8> b; bit<16> c;", ingress: "hdr.h.c = hdr.h.b ++ hdr.h.a;"}, []packet{{"1234 0000", "1234 3412"}}},
		{"concatenation beyond 64 bits", parts{fields: "bit<48> a; bit<48> b; bit<96> c;", ingress: "hdr.h.c = hdr.h.a ++ hdr.h.b;"},
			[]packet{{"010203040506 0708090a0b0c 000000000000000000000000", "010203040506 0708090a0b0c 0102030405060708090a0b0c"}}},
		{"casts", parts{fields: "bit<8> a; bit<16> b; bit<1> c; bit<7> d; int<16> e;",
			ingress: "hdr.h.b = (bit<16>) hdr.h.a; bool x = (bool) hdr.h.c; hdr.h.c = (bit<1>) (!x); hdr.h.e = (int<16>) (int<8>) hdr.h.a;"},
			[]packet{{"80 ffff 80 0000", "80 0080 00 ff80"}, {"7f ffff 00 0000", "7f 007f 80 007f"}}},
		{"shifts", parts{fields: "bit<8> a; bit<8> b; bit<8> c; int<8> d;", ingress: "hdr.h.b = hdr.h.a << 3; hdr.h.c = hdr.h.a >> hdr.h.c; hdr.h.d = hdr.h.d >> 2;"},
			[]packet{{"ff 00 04 f0", "ff f8 0f fc"}, {"ff 00 ff 70", "ff f8 00 1c"}}},
		{"bitwise operators", parts{fields: "bit<8> a; bit<8> b; bit<8> c; bit<8> d; bit<8> e; bit<8> f;",
			ingress: "hdr.h.c = hdr.h.a & hdr.h.b; hdr.h.d = hdr.h.a | hdr.h.b; hdr.h.e = hdr.h.a ^ hdr.h.b; hdr.h.f = ~hdr.h.a;"},
			[]packet{{"f0 3c 00 00 00 00", "f0 3c 30 fc cc 0f"}}},
		{"saturating operators", parts{fields: "bit<8> a; bit<8> b; int<8> c; int<8> d;",
			ingress: "hdr.h.a = hdr.h.a |+| 8w200; hdr.h.b = hdr.h.b |-| 8w200; hdr.h.c = hdr.h.c |+| 100; hdr.h.d = hdr.h.d |-| 100;"},
			[]packet{{"64 64 64 9c", "ff 00 7f 80"}, {"01 ff 01 ff", "c9 37 65 9b"}}},
		{"signed comparison", parts{fields: "int<8> a; bit<8> b;", ingress: "if (hdr.h.a < 0) { hdr.h.b = 1; } else { hdr.h.b = 2; }"},
			[]packet{{"ff00", "ff01"}, {"7f00", "7f02"}}},
		{"compound assignment", parts{ingress: "hdr.h.a += 3; hdr.h.b <<= 2; hdr.h.b >>= 1;"}, []packet{{"0102", "0404"}}},
		{"constants, typedef and type", parts{globals: "const bit<8> K = 8w1 + 2 * 3; typedef bit<8> byte_t; type bit<8> port_t; const byte_t L = K << 1;",
			ingress: "port_t p = (port_t) 8w4; byte_t x = L; hdr.h.a = K; hdr.h.b = x + (bit<8>) p;"}, []packet{{"0000", "0712"}}},
		{"constants may be used before they stand", parts{globals: "const bit<8> A = B + 1; const bit<8> B = 4;", ingress: "hdr.h.a = A;"}, []packet{{"0000", "0500"}}},
		{"enum", parts{globals: "enum color { red, green, blue }", ingress: "color c = color.green; if (hdr.h.a == 1) { c = color.blue; } if (c == color.blue) { hdr.h.b = 1; } else { hdr.h.b = 2; }"},
			[]packet{{"0100", "0101"}, {"0000", "0002"}}},
		{"enum with values", parts{globals: "enum bit<8> op_t { ask = 5, tell = 5 + 1 }", fields: "op_t a; bit<8> b;", ingress: "if (hdr.h.a == op_t.ask) { hdr.h.a = op_t.tell; } hdr.h.b = (bit<8>) hdr.h.a;"},
			[]packet{{"0500", "0606"}, {"0900", "0909"}}},
		{"struct and tuple values", parts{globals: "struct pair_t { bit<8> x; bit<8> y; }",
			ingress: "pair_t p = { hdr.h.b, hdr.h.a }; tuple<bit<8>, bit<8>> q = { p.x, p.y }; pair_t r = { y = q[1], x = q[0] }; if (p == r) { hdr.h.a = r.x; hdr.h.b = r.y; }"},
			[]packet{{"0102", "0201"}}},
		{"a list is computed before it is stored", parts{globals: "struct pair_t { bit<8> x; bit<8> y; }", ingress: "pair_t p = { hdr.h.a, hdr.h.b }; p = { p.y, p.x }; hdr.h.a = p.x; hdr.h.b = p.y;"},
			[]packet{{"0102", "0201"}}},
		{"a list makes a header valid", parts{headers: "h_t h; h_t g;", ingress: "hdr.g = { hdr.h.b, hdr.h.a };"}, []packet{{"0102 ff", "0102 0201 ff"}}},
		{"the header that is not valid", parts{headers: "h_t h; h_t g;", ingress: "hdr.g = hdr.h; hdr.h = {#}; if (hdr.h == (h_t) {#}) { hdr.g.a = 9; }"}, []packet{{"0102 ff", "0902 ff"}}},
		{"header assignment copies validity", parts{headers: "h_t h; h_t g; h_t i;", ingress: "hdr.g = hdr.h; hdr.h = hdr.i;"}, []packet{{"0102 ff", "0102 ff"}}},
		{"header comparison", parts{headers: "h_t h; h_t g; h_t i;", ingress: "if (hdr.g == hdr.i) { hdr.h.a = 1; } hdr.g = hdr.h; if (hdr.g != hdr.i && hdr.g == hdr.h) { hdr.h.b = 2; } hdr.g.setInvalid();"},
			[]packet{{"0708", "0102"}}},
		{"setValid and setInvalid", parts{headers: "h_t h; h_t g;", ingress: "hdr.g.setValid(); hdr.g.a = 9; if (hdr.g.isValid()) { hdr.h.setInvalid(); }"}, []packet{{"0102 ff", "0900 ff"}}},
		{"varbit", parts{headers: "h_t h; v_t v;", globals: "header v_t { bit<8> n; varbit<320> o; }",
			states:  "state start { pkt.extract(hdr.h); pkt.extract(hdr.v, (bit<32>) hdr.h.a * 8); transition accept; }",
			ingress: "hdr.h.b = 1; hdr.v.n = hdr.v.n + 1;"},
			[]packet{{"0300 10 aabbcc ff", "0301 11 aabbcc ff"}, {"0000 10 ff", "0001 11 ff"}, {"2900 10" + strings.Repeat("00", 50), "-"}, {"0400 10 aa", "-"}}},
		{"varbit copied", parts{headers: "h_t h; v_t v; v_t w;", globals: "header v_t { varbit<16> o; }",
			states: "state start { pkt.extract(hdr.h); pkt.extract(hdr.v, (bit<32>) hdr.h.a); transition accept; }", ingress: "hdr.w = hdr.v;"},
			[]packet{{"0800 ab 11", "0800 ab ab 11"}, {"1000 abcd 11", "1000 abcd abcd 11"}}},
		{"header stack", parts{headers: "h_t h; h_t[3] s;",
			states:  "state start { pkt.extract(hdr.h); transition more; } state more { pkt.extract(hdr.s.next); transition select(hdr.s.last.a) { 0: accept; default: more; } }",
			ingress: "hdr.s[0].b = 0xee; hdr.h.b = (bit<8>) hdr.s[1].a;"},
			[]packet{{"0000 0101 0002 ff", "0000 01ee 0002 ff"}, {"0000 0101 0102 0003", "0001 01ee 0102 0003"}, {"0000 0101 0101 0101 0000", "-"}, {"0000 0101", "-"}}},
		{"stack indexed by a variable", parts{headers: "h_t h; h_t[2] s;", states: "state start { pkt.extract(hdr.h); pkt.extract(hdr.s.next); pkt.extract(hdr.s.next); transition accept; }",
			ingress: "hdr.s[hdr.h.a].b = 0xee; hdr.h.b = hdr.s[hdr.h.a].a;"},
			[]packet{{"0000 1011 2021", "0010 10ee 2021"}, {"0100 1011 2021", "0120 1011 20ee"}, {"0900 1011 2021", "0900 1011 2021"}}},
		{"push and pop", parts{headers: "h_t h; h_t[3] s;", states: "state start { pkt.extract(hdr.h); pkt.extract(hdr.s.next); pkt.extract(hdr.s.next); transition accept; }",
			ingress: "if (hdr.h.a == 1) { hdr.s.push_front(1); hdr.s[0].setValid(); hdr.s[0].a = 9; hdr.s[0].b = 9; } else { hdr.s.pop_front(1); }"},
			[]packet{{"0100 1011 2021", "0100 0909 1011 2021"}, {"0000 1011 2021", "0000 2021"}}},
		{"size and lastIndex of a stack", parts{headers: "h_t h; h_t[3] s;",
			states:  "state start { pkt.extract(hdr.h); pkt.extract(hdr.s.next); pkt.extract(hdr.s.next); im.scratch = (bit<8>) hdr.s.lastIndex; transition accept; }",
			ingress: "hdr.h.a = im.scratch; hdr.h.b = (bit<8>) hdr.s.size;"}, []packet{{"0000 1011 2021", "0103 1011 2021"}}},
		{"header union", parts{globals: "header x_t { bit<8> x; } header y_t { bit<16> y; } header_union u_t { x_t x; y_t y; }", headers: "h_t h; u_t u;",
			states:  "state start { pkt.extract(hdr.h); transition select(hdr.h.a) { 1: x; 2: y; default: accept; } } state x { pkt.extract(hdr.u.x); transition accept; } state y { pkt.extract(hdr.u.y); transition accept; }",
			ingress: "if (hdr.u.isValid()) { hdr.h.b = 1; } if (hdr.u.x.isValid()) { hdr.u.y.setValid(); hdr.u.y.y = (bit<16>) hdr.u.x.x; }"},
			[]packet{{"0000 aabb", "0000 aabb"}, {"0100 aa ff", "0101 00aa ff"}, {"0200 aabb ff", "0201 aabb ff"}}},
		{"select on values, masks, ranges and sets", parts{fields: "bit<8> a; bit<8> b; bit<8> c;",
			states: `state start { pkt.extract(hdr.h); transition select(hdr.h.a, hdr.h.b) {
				(1, 2): one; (8w0x10 &&& 0xf0, _): two; (5..7, 8w0): three; (_, 0xff): four; default: reject; } }
				state one { hdr.h.c = 1; transition accept; } state two { hdr.h.c = 2; transition accept; }
				state three { hdr.h.c = 3; transition accept; } state four { hdr.h.c = 4; transition accept; }`},
			[]packet{{"010200", "010201"}, {"1f0000", "1f0002"}, {"050000", "050003"}, {"070000", "070003"}, {"080000", "-"}, {"08ff00", "08ff04"}}},
		{"select on a wide value", parts{fields: "bit<128> a; bit<8> b;",
			states: "state start { pkt.extract(hdr.h); transition select(hdr.h.a) { 128w0xff02_0000_0000_0000_0000_0000_0000_0000 &&& 128w0xffff_0000_0000_0000_0000_0000_0000_0000: multi; default: accept; } } state multi { hdr.h.b = 1; transition accept; }"},
			[]packet{{"ff020000000000000000000000000001 00", "ff020000000000000000000000000001 01"}, {"fe800000000000000000000000000001 00", "fe800000000000000000000000000001 00"}}},
		{"select with no case that fits", parts{states: "state start { pkt.extract(hdr.h); transition select(hdr.h.a) { 1: accept; } }"}, []packet{{"0100", "0100"}, {"0200", "-"}}},
		{"transition inside an if, as x4c has it", parts{states: "state start { pkt.extract(hdr.h); if (hdr.h.a == 8w1) { transition accept; } transition reject; }"}, []packet{{"0100", "0100"}, {"0200", "-"}}},
		{"a state that does not go on rejects", parts{states: "state start { pkt.extract(hdr.h); if (hdr.h.a == 8w1) { transition accept; } }"}, []packet{{"0100", "0100"}, {"0200", "-"}}},
		{"lookahead and advance", parts{states: "state start { bit<8> n = pkt.lookahead<bit<8>>(); if (n == 0xaa) { pkt.advance(8); } pkt.extract(hdr.h); transition accept; }"},
			[]packet{{"0102 ff", "0102 ff"}, {"aa 0102 ff", "0102 ff"}, {"", "-"}, {"aa 01", "-"}}},
		{"lookahead of a header", parts{states: "state start { h_t x = pkt.lookahead<h_t>(); im.scratch = x.b; pkt.extract(hdr.h); transition accept; }", ingress: "hdr.h.a = im.scratch;"}, []packet{{"0102", "0202"}, {"01", "-"}}},
		{"length of the packet", parts{states: "state start { pkt.extract(hdr.h); im.scratch = (bit<8>) pkt.length(); transition accept; }", ingress: "hdr.h.a = im.scratch;"}, []packet{{"0102 030405", "0502 030405"}}},
		{"verify", parts{globals: "error { TooSmall }", states: "state start { pkt.extract(hdr.h); verify(hdr.h.a >= 5, error.TooSmall); transition accept; }"}, []packet{{"0500", "0500"}, {"0400", "-"}}},
		{"extract to nowhere", parts{states: "state start { pkt.extract<h_t>(_); pkt.extract(hdr.h); transition accept; }"}, []packet{{"ffff 0102 03", "0102 03"}}},
		{"sub-parser", parts{globals: "parser sub(packet_in p, out h_t x, in bit<8> want) { state start { p.extract(x); transition select(x.a) { want: accept; default: reject; } } }", headers: "h_t h; h_t g;",
			states: "sub() s; state start { pkt.extract(hdr.h); s.apply(pkt, hdr.g, hdr.h.a); transition accept; }"},
			[]packet{{"0100 0155 ff", "0100 0155 ff"}, {"0100 0255 ff", "-"}}},
		{"local variables of a parser begin anew", parts{states: "bit<8> n = 3; state start { pkt.extract(hdr.h); n = n + hdr.h.a; im.scratch = n; transition accept; }", ingress: "hdr.h.b = im.scratch;"}, []packet{{"0100", "0104"}, {"0200", "0205"}}},
		{"local variables of a control begin anew", parts{locals: "bit<8> n; bit<8> m = 3;", ingress: "n = n + hdr.h.a; m = m + 1; hdr.h.a = n; hdr.h.b = m;"}, []packet{{"0700", "0704"}, {"0100", "0104"}}},
		{"action called with arguments", parts{locals: "action set(in bit<8> x, inout bit<8> y, bit<8> z) { y = y + x + z; }", ingress: "set(hdr.h.a, hdr.h.b, 1);"}, []packet{{"0203", "0206"}}},
		{"arguments of actions are copied in and out", parts{locals: "action mess(inout bit<8> x) { hdr.h.a = 9; x = x + 1; }", ingress: "mess(hdr.h.a);"}, []packet{{"0100", "0200"}}},
		{"NoAction and other actions outside of controls", parts{globals: "action set(inout bit<8> x) { x = 9; }", ingress: "NoAction(); set(hdr.h.a);"}, []packet{{"0102", "0902"}}},
		{"an extern outside of controls", parts{globals: "Checksum() sum;", fields: "bit<16> a;", ingress: "hdr.h.a = sum.run(hdr.h.a);"}, []packet{{"1234", "edcb"}}},
		{"actions may stand behind the code", parts{ingress: "late(); } action late() { hdr.h.a = 9;"}, []packet{{"0100", "0900"}}},
		{"functions", parts{globals: "bit<8> twice(in bit<8> x) { if (x > 100) { return 0; } return x + x; } void inc(inout bit<8> x) { x = x + 1; }", ingress: "hdr.h.a = twice(twice(hdr.h.a)); inc(hdr.h.b);"},
			[]packet{{"0301", "0c02"}, {"ff01", "0002"}}},
		{"control applied with arguments", parts{globals: "control add(inout bit<8> x, in bit<8> y) { apply { x = x + y; } }", locals: "add() a;", ingress: "a.apply(hdr.h.a, 3); a.apply(hdr.h.b, hdr.h.a);"}, []packet{{"0101", "0405"}}},
		{"arguments by name", parts{globals: "control add(inout bit<8> x, in bit<8> y) { apply { x = x + y; } }", locals: "add() a;", ingress: "a.apply(y = 3, x = hdr.h.a);"}, []packet{{"0101", "0401"}}},
		{"the same place read and written by one call", parts{globals: "control add(inout bit<8> x, in bit<8> y) { apply { x = 0; x = x + y; } }", locals: "add() a;", ingress: "a.apply(hdr.h.a, hdr.h.a);"}, []packet{{"0501", "0501"}}},
		{"control with constructor parameters", parts{globals: "control add(inout bit<8> x)(bit<8> n) { apply { x = x + n; } }", locals: "add(3) three; add(4) four;", ingress: "three.apply(hdr.h.a); four.apply(hdr.h.b);"}, []packet{{"0101", "0405"}}},
		{"control applied without an instance", parts{globals: "control one(inout bit<8> x) { apply { x = 1; } }", ingress: "one.apply(hdr.h.a);"}, []packet{{"0909", "0109"}}},
		{"return leaves the control only", parts{globals: "control c(inout bit<8> x) { apply { x = 1; if (x == 1) { return; } x = 2; } }", locals: "c() i;", ingress: "i.apply(hdr.h.a); hdr.h.b = 1;"}, []packet{{"0000", "0101"}}},
		{"exit leaves the whole block", parts{globals: "control c(inout bit<8> x) { action out_of_here() { exit; } apply { x = 1; out_of_here(); x = 2; } }", locals: "c() i;", ingress: "i.apply(hdr.h.a); hdr.h.b = 1;", egress: "hdr.h.b = 7;"}, []packet{{"0000", "0107"}}},
		{"switch on a number", parts{ingress: "switch (hdr.h.a) { 1: { hdr.h.b = 1; } 2: 3: { hdr.h.b = 23; } default: { hdr.h.b = 9; } }"},
			[]packet{{"0100", "0101"}, {"0200", "0217"}, {"0300", "0317"}, {"0400", "0409"}}},
		{"switch on action_run", parts{
			locals:  "action x() { } action y() { } action z() { } table t { key = { hdr.h.a: exact; } actions = { x; y; z; } const default_action = z; const entries = { 1: x(); 2: y(); } }",
			ingress: "switch (t.apply().action_run) { x: { hdr.h.b = 1; } y: { hdr.h.b = 2; } default: { hdr.h.b = 9; } }"},
			[]packet{{"0100", "0101"}, {"0200", "0202"}, {"0300", "0309"}}},
		{"hit and miss", parts{locals: "table t { key = { hdr.h.a: exact; } actions = { NoAction; } const entries = { 1: NoAction(); } }",
			ingress: "if (t.apply().hit) { hdr.h.b = 1; } if (t.apply().miss) { hdr.h.b = 2; }"}, []packet{{"0100", "0101"}, {"0000", "0002"}}},
		{"exit in an action of a table", parts{locals: "action stop() { hdr.h.b = 5; exit; } table t { key = { hdr.h.a: exact; } actions = { stop; NoAction; } const entries = { 1: stop(); } }",
			ingress: "if (t.apply().hit) { hdr.h.b = 1; } hdr.h.a = 9;"}, []packet{{"0100", "0105"}, {"0000", "0900"}}},
		{"table without a key", parts{locals: "action x() { hdr.h.a = 1; } table t { actions = { x; } default_action = x(); }", ingress: "t.apply();"}, []packet{{"0000", "0100"}}},
		{"action in a table with an argument of the program", parts{locals: "action x(in bit<8> y, bit<8> z) { hdr.h.b = y + z; } table t { key = { hdr.h.a: exact; } actions = { x(hdr.h.b); NoAction; } const entries = { 1: x(3); } }", ingress: "t.apply();"}, []packet{{"0105", "0108"}}},
		{"one table at two places", parts{globals: "control c(in bit<8> k, inout bit<8> x) { action set(bit<8> v) { x = v; } table t { key = { k: exact; } actions = { set; } const entries = { 1: set(0x11); 2: set(0x22); } } apply { t.apply(); } }",
			fields: "bit<8> a; bit<8> b; bit<8> c; bit<8> d;", locals: "c() i;", ingress: "i.apply(hdr.h.a, hdr.h.c); i.apply(hdr.h.b, hdr.h.d);"}, []packet{{"01020000", "01021122"}}},
		{"explicit deparser", parts{headers: "h_t h; h_t g;", states: "state start { pkt.extract(hdr.h); pkt.extract(hdr.g); transition accept; }", deparser: "pkt.emit(hdr.g); if (hdr.h.a != 1) { pkt.emit(hdr.h); }"}, []packet{{"0102 0304 ff", "0304 ff"}, {"0002 0304 ff", "0304 0002 ff"}}},
		{"fields of every size", parts{fields: "bit<1> a; bit<2> b; bit<5> c; bit<13> d; bit<3> e; bit<65> f; bit<7> g;",
			ingress: "hdr.h.a = ~hdr.h.a; hdr.h.d = hdr.h.d + 1; hdr.h.f = hdr.h.f + 1; hdr.h.g = hdr.h.g + 1;"},
			[]packet{{"00 0000 000000000000000000 99", "80 0008 000000000000000081" + " 99"}}},
		{"a header that does not end on a byte", parts{fields: "bit<12> a;", headers: "h_t h; g_t g;", globals: "header g_t { bit<4> x; bit<8> y; }",
			states: "state start { pkt.extract(hdr.h); pkt.extract(hdr.g); transition accept; }", ingress: "hdr.g.y = hdr.g.y + 1; hdr.h.a = hdr.h.a + 1;"}, []packet{{"abcd 10 ff", "abdd 11 ff"}}},
		{"macros", parts{globals: "#define ADD(x, y) ((x) + (y))\n#define TWO 8w2\n#if defined(TWO) && TWO2 == 0\n#define SET hdr.h.b = ADD(TWO, \\\n   hdr.h.a)\n#else\n#error no\n#endif", ingress: "SET;"}, []packet{{"0300", "0305"}}},
		{"annotations are let through", parts{locals: "@hidden @name(\"x\") action x() { hdr.h.a = 1; }", ingress: "@atomic { x(); }\n@pragma whatever, this is\nif (hdr.h.b == 0) @noWarn(\"x\") { hdr.h.b = 3; }"}, []packet{{"0000", "0103"}}},
		{"static_assert", parts{globals: "const bit<8> K = 3;", ingress: "static_assert(K == 3, \"K\");"}, []packet{{"0000", "0000"}}},
		{"sizes of types", parts{ingress: "hdr.h.a = (bit<8>) hdr.h.minSizeInBits(); hdr.h.b = (bit<8>) hdr.minSizeInBytes();"}, []packet{{"0000", "1002"}}},
		{"copies of structs that hold headers", parts{headers: "h_t h; h_t g;", ingress: "headers_t x = hdr; x.h.a = 9; x.g = x.h; hdr = x;"}, []packet{{"0102", "0902 0902"}}},
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
