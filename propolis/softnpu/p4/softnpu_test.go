package p4

import (
	"errors"
	"strings"
	"testing"
)

// What the switch makes of the metadata.
func TestEgress(t *testing.T) {
	for _, tc := range []struct {
		name    string
		ingress string
		egress  string
		in      uint16
		packet  string
		want    []string
		dropped DropReason
	}{
		{name: "unicast", ingress: "em.port = 3;", packet: "0102", want: []string{"3:0102"}},
		{name: "port 0 is a port as any other", ingress: "em.port = 0;", packet: "0102", want: []string{"0:0102"}},
		{name: "a port that was never set drops", ingress: "reset();", packet: "0102", dropped: NoEgressPort},
		{name: "a port that the switch does not have is given out all the same", ingress: "em.port = 1000;", packet: "0102", want: []string{"1000:0102"}},
		{name: "drop", ingress: "em.drop = true;", packet: "0102", dropped: Dropped},
		{name: "broadcast goes to all ports but the one that it came from", ingress: "em.broadcast = true;", in: 2, packet: "0102", want: []string{"0:0102", "1:0102", "3:0102"}},
		{name: "broadcast needs no port", ingress: "reset(); em.broadcast = true;", in: 0, packet: "0102", want: []string{"1:0102", "2:0102", "3:0102"}},
		{name: "broadcast that is dropped", ingress: "em.broadcast = true; em.drop = true;", packet: "0102", dropped: Dropped},
		{name: "egress sees the port of each copy", ingress: "em.broadcast = true;", egress: "hdr.h.a = (bit<8>) em.port;", in: 1, packet: "0902", want: []string{"0:0002", "2:0202", "3:0302"}},
		{name: "copies do not see each other's changes", ingress: "em.broadcast = true;", egress: "hdr.h.a = hdr.h.a + 1; im.scratch = im.scratch + 1; hdr.h.b = im.scratch;", in: 1, packet: "0902", want: []string{"0:0a01", "2:0a01", "3:0a01"}},
		{name: "egress drops one copy", ingress: "em.broadcast = true;", egress: "if (em.port == 2) { em.drop = true; }", in: 1, packet: "0902", want: []string{"0:0902", "3:0902"}},
		{name: "egress drops every copy", ingress: "em.broadcast = true;", egress: "em.drop = true;", in: 1, packet: "0902", dropped: Dropped},
		{name: "egress cannot change the port", egress: "em.port = 3;", packet: "0102", want: []string{"1:0102"}},
		{name: "egress drops", egress: "em.drop = true;", packet: "0102", dropped: Dropped},
		{name: "ingress sees the port", ingress: "hdr.h.a = (bit<8>) im.port;", in: 3, packet: "0102", want: []string{"1:0302"}},
		{name: "a division by zero drops", ingress: "hdr.h.a = hdr.h.a / hdr.h.b;", packet: "0100", dropped: DivisionByZero},
		{name: "a remainder by zero drops", ingress: "hdr.h.a = hdr.h.a % hdr.h.b;", packet: "0100", dropped: DivisionByZero},
		{name: "division", ingress: "hdr.h.a = hdr.h.a / hdr.h.b;", packet: "0902", want: []string{"1:0402"}},
		{name: "a port passed out of an action is set", ingress: "reset(); choose(em.port);", packet: "0102", want: []string{"2:0102"}},
		{name: "a port set in a control is set", ingress: "reset(); c.apply(em.port);", packet: "0102", want: []string{"3:0102"}},
		{name: "a port set in a copy of the metadata is set", ingress: "reset(); em_t x = em; x.port = 2; em = x;", packet: "0102", want: []string{"2:0102"}},
		{name: "a port set as part of a list is set", ingress: "reset(); em = { 2, false, false };", packet: "0102", want: []string{"2:0102"}},
		{name: "a port set bit by bit is set", ingress: "reset(); em.port[3:0] = 2;", packet: "0102", want: []string{"2:0102"}},
		{name: "a port that is not set reads as zero", ingress: "reset(); if (em.port == 0) { em.port = 2; }", packet: "0102", want: []string{"2:0102"}},
		{name: "a packet that is too short", packet: "01", dropped: PacketTooShort},
		{name: "no packet at all", packet: "", dropped: PacketTooShort},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pl := parts{
				globals: "control chooser(out bit<16> p) { apply { p = 3; } }",
				locals:  "chooser() c; action reset() { em_t fresh; em = fresh; } action choose(out bit<16> p) { p = 2; }",
				ingress: tc.ingress, egress: tc.egress,
			}.pipeline(t)
			if tc.dropped != NotDropped {
				drops(t, pl, tc.in, tc.packet, tc.dropped)
				if s := pl.Stats(); s.Packets != 1 || s.Drops[tc.dropped] != 1 {
					t.Errorf("the statistics are %+v", s)
				}
				return
			}
			expect(t, pl, tc.in, tc.packet, tc.want...)
			if s := pl.Stats(); s.Packets != 1 || len(s.Drops) != 0 {
				t.Errorf("the statistics are %+v", s)
			}
		})
	}
}

// Where the payload begins with the implicit deparser: behind as many bits as the headers have that are valid after the
// parser, whatever the parser has read.
func TestPayload(t *testing.T) {
	for _, tc := range []struct {
		name, in, want string
		parts          parts
	}{
		{"headers removed and added later do not move it", "0102 0304 ff", "0506 0304 ff", parts{headers: "h_t h; h_t g; h_t i;",
			states: "state start { pkt.extract(hdr.h); pkt.extract(hdr.g); transition accept; }", ingress: "hdr.h.setInvalid(); hdr.i = { 5, 6 }; hdr.h = hdr.i; hdr.i.setInvalid();"}},
		{"a header that is read into the metadata is still there", "0102 0304 ff", "0102 0304 ff", parts{meta: "h_t look;",
			states: "state start { pkt.extract(hdr.h); pkt.extract(im.look); transition accept; }"}},
		{"a header copied out of the metadata is taken from the packet", "0102 0304 ff", "0102 0404 ff", parts{meta: "h_t look;", headers: "h_t h; h_t g;",
			states: "state start { pkt.extract(hdr.h); pkt.extract(im.look); hdr.g.setValid(); hdr.g = im.look; transition accept; }", ingress: "hdr.g.a = 4;"}},
		{"what the parser goes over is gone", "0102 aa 0304 ff", "0102 0304 ff", parts{headers: "h_t h; h_t g;",
			states: "state start { pkt.extract(hdr.h); pkt.advance(8); pkt.extract(hdr.g); transition accept; }"}},
		{"more valid headers than bytes", "0102", "0102 0000", parts{headers: "h_t h; h_t g;",
			states: "state start { pkt.extract(hdr.h); hdr.g.setValid(); transition accept; }"}},
		{"with a deparser it begins behind what was read", "0102 0304 ff", "0102 ff", parts{meta: "h_t look;", deparser: "pkt.emit(hdr.h);",
			states: "state start { pkt.extract(hdr.h); pkt.extract(im.look); transition accept; }"}},
		{"a deparser that emits all headers in their order", "0102 0304 ff", "0102 0304 ff", parts{headers: "h_t h; h_t[2] g;", deparser: "pkt.emit(hdr);",
			states: "state start { pkt.extract(hdr.h); pkt.extract(hdr.g.next); transition accept; }"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			expect(t, tc.parts.pipeline(t), 0, tc.in, "1:"+tc.want)
		})
	}
}

// What x4c programs rely on although P4 leaves it open or has it otherwise.
func TestLikeX4c(t *testing.T) {
	for _, tc := range []struct {
		name, in, want string
		parts          parts
	}{
		{"an out parameter keeps its value", "0102", "0107", parts{
			globals: "control c(in bit<8> x, out bool y) { apply { if (x == 9) { y = false; } } }", locals: "c() i;",
			ingress: "bool ok = true; i.apply(hdr.h.a, ok); if (ok) { hdr.h.b = 7; }"}},
		{"a narrow value is widened", "0102", "0103", parts{fields: "bit<8> a; bit<8> b;", ingress: "bit<16> x = hdr.h.a; x = x + 2; hdr.h.b = x[7:0];"}},
		{"ingress.drop does nothing", "0102", "0102", parts{meta: "bool drop;", ingress: "im.drop = true;"}},
		{"an action, a table, a control and an instance of one name", "0102", "0902", parts{
			globals: "control local(inout bit<8> x) { action local() { x = 9; } table local { key = { x: exact; } actions = { local; } const entries = { 1: local(); } } apply { local.apply(); } }",
			locals:  "local() local;", ingress: "local.apply(hdr.h.a);"}},
		{"an action assigns to its parameter", "0102", "0602", parts{locals: "action set(bit<8> x) { x = x + 1; hdr.h.a = x; } table t { key = { hdr.h.a: exact; } actions = { set; } const entries = { 1: set(5); } }", ingress: "t.apply();"}},
		{"the default action need not be among the actions", "0102", "0902", parts{locals: "action a() { } action miss() { hdr.h.a = 9; } table t { key = { hdr.h.b: exact; } actions = { a; } default_action = miss; }", ingress: "t.apply();"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			expect(t, tc.parts.pipeline(t), 0, tc.in, "1:"+tc.want)
		})
	}
}

// An out parameter of headers begins with none of them valid, as P4 has it.
func TestOutHeadersBeginInvalid(t *testing.T) {
	pl := parts{headers: "h_t h; h_t g;", states: "state start { pkt.extract(hdr.h); pkt.extract(hdr.g); transition accept; }",
		globals: "control c(out h_t x) { apply { x.a = 9; } }", locals: "c() i;", ingress: "i.apply(hdr.g);"}.pipeline(t)
	expect(t, pl, 0, "0102 0304 ff", "1:0102 ff")
}

// A field that holds fewer ports than there are, or more.
func TestPortsOfOtherWidths(t *testing.T) {
	text := parts{ingress: "em.port = 0x10001; hdr.h.a = (bit<8>) im.port;"}.text()
	text = strings.Replace(text, "struct em_t { bit<16> port;", "struct em_t { bit<32> port;", 1)
	drops(t, newPipeline(t, text, 4), 0, "0102", BadPort)
	text = parts{ingress: "em.port = 4w15; hdr.h.a = (bit<8>) im.port;"}.text()
	text = strings.Replace(text, "struct em_t { bit<16> port;", "struct em_t { bit<4> port;", 1)
	text = strings.Replace(text, "struct im_t { bit<16> port;", "struct im_t { bit<4> port;", 1)
	expect(t, newPipeline(t, text, 4), 0x13, "0102", "15:0302")
}

func TestParserThatNeverEnds(t *testing.T) {
	pl := parts{states: "state start { pkt.extract(hdr.h); transition again; } state again { transition again; }"}.pipeline(t)
	drops(t, pl, 0, "0102", ParserLoop)
	expect(t, parts{}.pipeline(t), 0, "0102", "1:0102")
}

// What a packet leaves behind is not seen by the next one.
func TestPacketsDoNotSeeEachOther(t *testing.T) {
	pl := parts{headers: "h_t h; h_t g;", states: "state start { pkt.extract(hdr.h); transition select(hdr.h.a) { 1: more; default: accept; } } state more { pkt.extract(hdr.g); transition accept; }",
		locals: "bit<8> n; bit<128> w; h_t k;", ingress: "if (hdr.h.a == 1) { n = 5; w = 5; k = hdr.g; im.scratch = 5; } hdr.h.b = n + w[7:0] + k.a + im.scratch + hdr.g.a; if (k.isValid()) { hdr.h.b = 0xee; }"}.pipeline(t)
	expect(t, pl, 0, "0100 0304", "1:01ee 0304")
	expect(t, pl, 0, "0000 0304", "1:0000 0304")
}

func TestProgramWithoutPipeline(t *testing.T) {
	p := compile(t, "header h_t { bit<8> a; }")
	if _, err := p.New(2); !errors.Is(err, ErrNoPipeline) {
		t.Errorf("the error is %v", err)
	}
	if _, err := compile(t, parts{}.text()).New(0); err == nil {
		t.Error("a pipeline with no ports was made")
	}
}

// A program of its own may declare what the engine has, and leave out core.p4.
func TestOwnDeclarations(t *testing.T) {
	pl := parts{globals: `extern packet_in { void extract<T>(out T headerLvalue); T lookahead<T>(); bit<32> length(); void advance(bit<32> bits); }
		error { NoError, PacketTooShort, Mine } match_kind { exact, range } action NoAction() { } extern Checksum { bit<16> run<T>(in T data); }`,
		locals: "table t { key = { hdr.h.a: exact; } actions = { NoAction; } }", ingress: "t.apply();"}.pipeline(t)
	expect(t, pl, 0, "0102", "1:0102")
}

func TestTablesOfOneControlInBothBlocks(t *testing.T) {
	text := `header h_t { bit<8> a; } struct headers_t { h_t h; } struct im_t { bit<16> port; } struct em_t { bit<16> port; bool drop; bool broadcast; }
parser parse(packet_in pkt, out headers_t hdr, inout im_t im) { state start { pkt.extract(hdr.h); transition accept; } }
control foo(inout headers_t hdr, inout em_t em) { action fwd(bit<16> p) { em.port = p; } table tbl { key = { hdr.h.a: exact; } actions = { fwd; } } apply { tbl.apply(); } }
control both(inout headers_t hdr, inout im_t im, inout em_t em) { foo() foo; apply { foo.apply(hdr, em); } }
SoftNPU(parse(), both(), both()) main;`
	pl := newPipeline(t, text, 2)
	var names []string
	for _, x := range pl.Tables() {
		names = append(names, x.Name)
	}
	if len(names) != 2 || names[0] != "ingress.foo.tbl" || names[1] != "egress.foo.tbl" {
		t.Errorf("the tables are %v", names)
	}
}

// The blocks of the pipeline may be instances that are declared by themselves.
func TestPipelineOfInstances(t *testing.T) {
	text := strings.Replace(parts{}.text(), "SoftNPU(parse(), ingress(), egress()) main;", "parse() p; ingress() i; egress() e; SoftNPU(p, i, e) main;", 1)
	expect(t, newPipeline(t, text, 2), 0, "0102", "1:0102")
}

// Tables of a control that is instantiated twice are apart, and those of instances that are never applied exist too.
func TestInstancesHaveTheirOwnTables(t *testing.T) {
	pl := parts{globals: "control c(inout bit<8> x) { action set(bit<8> v) { x = v; } table t { key = { x: exact; } actions = { set; } } apply { t.apply(); } }",
		locals: "c() one; c() two; c() idle;", ingress: "one.apply(hdr.h.a); two.apply(hdr.h.b);"}.pipeline(t)
	add(t, pl, "ingress.one.t", "set", keys(exact("01")), "aa")
	add(t, pl, "ingress.two.t", "set", keys(exact("01")), "bb")
	add(t, pl, "ingress.idle.t", "set", keys(exact("01")), "cc")
	expect(t, pl, 0, "0101", "1:aabb")
}
