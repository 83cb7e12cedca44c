package p4

import "testing"

// What has an effect is computed once, and when its turn comes: an index on the left before the right side, an argument
// before the next one, and what is copied out goes where the argument pointed to when the call began.
func TestOrderOfEvaluation(t *testing.T) {
	const (
		stack  = "h_t h; h_t[3] s;"
		states = "state start { pkt.extract(hdr.h); pkt.extract(hdr.s.next); pkt.extract(hdr.s.next); pkt.extract(hdr.s.next); transition accept; }"
		inc    = "bit<8> inc(inout bit<8> n) { n = n + 1; return n; } void move(inout h_t x, inout bit<8> n) { n = n + 1; x.b = x.b + 0x10; }\n"
	)
	for _, tc := range []struct {
		name    string
		globals string
		locals  string
		ingress string
		in, out string
	}{
		{name: "an index with an effect, and an operator", ingress: "hdr.s[inc(hdr.h.a)].b += 1;", in: "0000 0000 0000 0000", out: "0100 0000 0001 0000"},
		{name: "the index before the right side", ingress: "hdr.s[hdr.h.a].b = inc(hdr.h.a);", in: "0000 0000 0000 0000", out: "0100 0001 0000 0000"},
		{name: "the index before the right side, of a header", globals: "h_t make(inout bit<8> n) { n = n + 1; h_t x; x.setValid(); x.a = n; x.b = 7; return x; }\n",
			ingress: "hdr.s[hdr.h.a] = make(hdr.h.a);", in: "0000 0000 0000 0000", out: "0100 0107 0000 0000"},
		{name: "the index before the right side, of a slice", ingress: "hdr.s[hdr.h.a].b[7:4] = inc(hdr.h.a)[3:0];", in: "0000 0000 0000 0000", out: "0100 0010 0000 0000"},
		{name: "an index with an effect, of a slice and an operator", ingress: "hdr.s[inc(hdr.h.a)].b[7:4] += 1;", in: "0000 0000 0000 0000", out: "0100 0000 0010 0000"},
		{name: "a function that moves the index of its argument", ingress: "move(hdr.s[hdr.h.a], hdr.h.a);", in: "0000 0000 0000 0000", out: "0100 0010 0000 0000"},
		{name: "a control that moves the index of its argument", globals: "control k(inout h_t x, inout h_t m) { apply { m.a = m.a + 1; x.b = 9; } }\n", locals: "k() c;",
			ingress: "c.apply(hdr.s[hdr.h.a], hdr.h);", in: "0000 0000 0000 0000", out: "0100 0009 0000 0000"},
		{name: "an action that moves the index of its argument", locals: "action act(inout bit<8> x) { hdr.h.a = 2; x = 9; }",
			ingress: "act(hdr.s[hdr.h.a].b);", in: "0000 0000 0000 0000", out: "0200 0009 0000 0000"},
		{name: "an action of a table that moves the index of its argument", locals: "action act(inout bit<8> x, bit<8> v) { hdr.h.a = 2; x = v; } table t { actions = { act(hdr.s[hdr.h.a].b); } default_action = act(9); }",
			ingress: "t.apply();", in: "0000 0000 0000 0000", out: "0200 0009 0000 0000"},
		{name: "an argument before the one behind it that changes it", globals: "void both(in bit<8> x, in bit<8> y, inout bit<8> z) { z = (x << 4) + y; }\n",
			ingress: "both(hdr.h.a, inc(hdr.h.a), hdr.h.b);", in: "0100 0000 0000 0000", out: "0212 0000 0000 0000"},
		{name: "an argument of a control before the one behind it that changes it", globals: "control both(in bit<8> x, in bit<8> y, inout bit<8> z) { apply { z = (x << 4) + y; } }\n", locals: "both() c;",
			ingress: "c.apply(hdr.h.a, inc(hdr.h.a), hdr.h.b);", in: "0100 0000 0000 0000", out: "0212 0000 0000 0000"},
		{name: "what is read before what is written if it stands before it", globals: "void both(in bit<8> x, inout bit<8> z) { z = z + x; }\n",
			ingress: "both(inc(hdr.h.a), hdr.s[hdr.h.a].b);", in: "0000 0000 0000 0000", out: "0100 0000 0001 0000"},
		{name: "a header that is read and made new by one call", globals: "control both(out h_t x, in h_t y) { apply { x.setValid(); x.a = 5; if (y.isValid()) { x.b = y.b; } } }\n", locals: "both() c;",
			ingress: "c.apply(hdr.h, hdr.h);", in: "0107 0000 0000 0000", out: "0507 0000 0000 0000"},
		{name: "what stands behind in the arguments is copied out behind", globals: "control both(inout h_t x, inout headers_t y) { apply { x.b = 1; y.h.b = 2; } }\n", locals: "both() c;",
			ingress: "c.apply(hdr.s[hdr.h.a], hdr);", in: "0000 0000 0000 0000", out: "0002 0000 0000 0000"},
		{name: "both sides of a comparison", ingress: "if (hdr.h.a - 0 > inc(hdr.h.a)) { hdr.h.b = 1; } if (inc(hdr.h.a) - 0 <= hdr.h.a) { hdr.h.b = 2; }", in: "0000 0000 0000 0000", out: "0202 0000 0000 0000"},
		{name: "both sides of a comparison with effects", ingress: "if (inc(hdr.h.a) > inc(hdr.h.a)) { hdr.h.b = 1; } if (inc(hdr.h.a) <= inc(hdr.h.a)) { hdr.h.b = 2; }", in: "0000 0000 0000 0000", out: "0402 0000 0000 0000"},
		{name: "an exit on the right side", locals: "action stop() { exit; } table t { actions = { stop; } default_action = stop; }",
			ingress: "hdr.h.a = t.apply().hit ? 8w1 : 8w2; hdr.h.b = 9;", in: "0700 0000 0000 0000", out: "0700 0000 0000 0000"},
		{name: "a register read into a place whose index the cell moves", locals: "register<bit<8>>(4) r;", ingress: "r.write(32w1, 8w5); r.read(hdr.s[hdr.h.a].b, (bit<32>) inc(hdr.h.a));",
			in: "0000 0000 0000 0000", out: "0100 0005 0000 0000"},
		{name: "a hash of what moves the index of its result", ingress: "hash(hdr.s[hdr.h.a].b, HashAlgorithm.identity, 8w0, { inc(hdr.h.a) }, 32w256);",
			in: "0000 0000 0000 0000", out: "0100 0001 0000 0000"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pl := parts{headers: stack, states: states, locals: tc.locals, ingress: tc.ingress, globals: inc + tc.globals}.pipeline(t)
			expect(t, pl, 0, tc.in, "1:"+tc.out)
		})
	}
}

// The keys of a select are computed in their order too.
func TestOrderOfSelect(t *testing.T) {
	pl := parts{globals: "bit<8> inc(inout bit<8> n) { n = n + 1; return n; }",
		states: "state start { pkt.extract(hdr.h); transition select(hdr.h.a, inc(hdr.h.a)) { (1, 2): good; default: reject; } } state good { hdr.h.b = 9; transition accept; }"}.pipeline(t)
	expect(t, pl, 0, "0100", "1:0209")
}

// A member of a union that a stack has is stored where its index pointed to before.
func TestOrderOfUnions(t *testing.T) {
	pl := parts{globals: "header x_t { bit<8> x; } header y_t { bit<8> y; } header_union u_t { x_t x; y_t y; }", headers: "h_t h; u_t[2] u;",
		states:  "state start { pkt.extract(hdr.h); pkt.extract(hdr.u[0].x); pkt.extract(hdr.u[1].x); transition accept; }",
		ingress: "hdr.u[hdr.u[0].x.x].x = { 1 }; if (hdr.u[0].x.isValid()) { hdr.h.a = 1; } hdr.u[hdr.u[1].x.x].y = { 7 };"}.pipeline(t)
	expect(t, pl, 0, "0000 00 01", "1:0100 01 07")
}
