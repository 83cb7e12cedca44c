package p4

import "testing"

func TestGenerics(t *testing.T) {
	for _, tc := range []struct {
		name    string
		parts   parts
		in, out string
	}{
		{"a function of several types", parts{globals: "T largest<T>(in T x, in T y) { if (x > y) { return x; } return y; }", fields: "bit<8> a; bit<16> b; int<8> c;",
			ingress: "hdr.h.a = largest(hdr.h.a, 7); hdr.h.b = largest(300, hdr.h.b); hdr.h.c = largest<int<8>>(-1, hdr.h.c);"}, "05 0001 80", "07 012c ff"},
		{"a function of two types", parts{globals: "void swap<A, B>(inout A x, inout B y) { A t = x; x = (A) y; y = (B) t; }", fields: "bit<8> a; int<8> b;", ingress: "swap(hdr.h.a, hdr.h.b);"}, "0180", "8001"},
		{"a function that calls a generic one", parts{globals: "T id<T>(in T x) { return x; } T twice<T>(in T x) { return id(x) + id<T>(x); }", ingress: "hdr.h.a = twice(hdr.h.b);"}, "0003", "0603"},
		{"a function of a generic struct", parts{globals: "struct pair_t<T> { T x; T y; } T sum<T>(in pair_t<T> p) { return p.x + p.y; } T first<T>(in tuple<T, T> p) { return p[0]; }",
			ingress: "pair_t<bit<8>> p = { hdr.h.a, hdr.h.b }; hdr.h.a = sum(p); tuple<bit<8>, bit<8>> q = { 9, 8 }; hdr.h.b = first(q);"}, "0103", "0409"},
		{"a function of a stack", parts{globals: "bool full<T>(in T[2] s) { return s[0].isValid() && s[1].isValid(); }", headers: "h_t h; h_t[2] s;",
			states: "state start { pkt.extract(hdr.h); pkt.extract(hdr.s.next); pkt.extract(hdr.s.next); transition accept; }", ingress: "if (full(hdr.s)) { hdr.h.a = 9; }"}, "0000 0101 0202", "0900 0101 0202"},
		{"an action", parts{locals: "action set<T>(inout T x, in T y) { x = y; }", fields: "bit<8> a; bit<16> b;", ingress: "set(hdr.h.a, 7); set<bit<16>>(hdr.h.b, 300);"}, "00 0000", "07 012c"},
		{"an action of a table", parts{locals: `action set<T>(inout T x, T y) { x = y; }
			table t { actions = { set(hdr.h.a); } default_action = set(7); } table u { actions = { set<bit<16>>(hdr.h.b); } default_action = set(300); }`,
			fields: "bit<8> a; bit<16> b;", ingress: "t.apply(); u.apply();"}, "00 0000", "07 012c"},
		{"a struct", parts{globals: "struct pair_t<A, B> { A x; B y; } struct deep_t<T> { pair_t<T, pair_t<bit<8>, T>> p; } typedef pair_t<bit<8>, bit<8>> bytes_t;",
			ingress: "deep_t<bit<8>> d; d.p = { hdr.h.b, { 1, hdr.h.a } }; bytes_t b = d.p.y; pair_t<bit<8>, bit<8>> c = b; hdr.h.a = d.p.x; hdr.h.b = c.y + c.x;"}, "0507", "0706"},
		{"a constant", parts{globals: "struct pair_t<T> { T x; T y; } const pair_t<bit<8>> P = { 4, 5 };", ingress: "hdr.h.a = P.y; hdr.h.b = ((pair_t<bit<8>>) { 6, 7 }).x;"}, "0000", "0506"},
		{"a header, a stack and a union", parts{globals: "header g_t<T> { T x; } header_union u_t<T> { g_t<T> one; g_t<bit<16>> two; }", headers: "h_t h; g_t<bit<8>>[2] s; u_t<bit<8>> u;",
			states:  "state start { pkt.extract(hdr.h); pkt.extract(hdr.s.next); pkt.extract(hdr.u.two); transition accept; }",
			ingress: "hdr.s[0].x = 7; hdr.h.a = hdr.u.two.x[7:0]; hdr.u.one = { 9 };"}, "0000 01 0203", "0300 07 09"},
		{"a register and a hash of a generic struct", parts{globals: "struct pair_t<T> { T x; T y; }", locals: "Register<pair_t<bit<8>>, bit<32>>(4) r; Checksum() c;", fields: "bit<8> a; bit<8> b; bit<16> c;",
			ingress: "r.write(1, { hdr.h.a, hdr.h.b }); pair_t<bit<8>> p = r.read(1); hdr.h.c = c.run(p); hdr.h.a = p.y;"}, "1234 0000", "3434 edcb"},
	} {
		t.Run(tc.name, func(t *testing.T) { expect(t, tc.parts.pipeline(t), 0, tc.in, "1:"+tc.out) })
	}
}
