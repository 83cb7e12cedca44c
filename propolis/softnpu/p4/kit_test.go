package p4

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
)

// reporter is what the kit needs of a test, a benchmark, or a check of rapid.
type reporter interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// The tests write programs as the parts that differ, and packets as hexadecimal digits, with blanks where it helps to read.

// frame is a packet and its port.
type frame struct {
	port uint16
	data []byte
}

func (f frame) String() string { return fmt.Sprintf("%d:%x", f.port, f.data) }

func unhex(t reporter, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return b
}

func compile(t reporter, text string) *Program {
	t.Helper()
	p, err := Compile(Files("test.p4", map[string]string{"test.p4": text}))
	if err != nil {
		t.Fatalf("the program does not compile:\n%v", err)
	}
	return p
}

func newPipeline(t reporter, text string, ports int) *Pipeline {
	t.Helper()
	pl, err := compile(t, text).New(ports)
	if err != nil {
		t.Fatal(err)
	}
	return pl
}

// run sends a packet and gives what comes out.
func run(t reporter, pl *Pipeline, ingress uint16, packet string) []frame {
	t.Helper()
	in := unhex(t, packet)
	keep := bytes.Clone(in)
	var out []frame
	r := pl.Process(ingress, in, func(port uint16, data []byte) {
		out = append(out, frame{port, bytes.Clone(data)})
	})
	if !bytes.Equal(in, keep) {
		t.Fatalf("the packet that came in was changed from %x to %x", keep, in)
	}
	if (r == NotDropped) != (len(out) > 0) {
		t.Fatalf("the result is %q, and %d packets came out", r, len(out))
	}
	return out
}

// expect sends a packet and wants these to come out, each written as "port: digits".
func expect(t reporter, pl *Pipeline, ingress uint16, packet string, want ...string) {
	t.Helper()
	var wanted []string
	for _, w := range want {
		port, data, _ := strings.Cut(w, ":")
		wanted = append(wanted, fmt.Sprintf("%s:%x", port, unhex(t, data)))
	}
	var got []string
	for _, f := range run(t, pl, ingress, packet) {
		got = append(got, f.String())
	}
	if strings.Join(got, " ") != strings.Join(wanted, " ") {
		t.Errorf("in by port %d: %s\ngot  %v\nwant %v", ingress, packet, got, wanted)
	}
}

// drops sends a packet and wants it dropped for a reason.
func drops(t reporter, pl *Pipeline, ingress uint16, packet string, want DropReason) {
	t.Helper()
	got := pl.Process(ingress, unhex(t, packet), func(port uint16, data []byte) {
		t.Errorf("%x came out by port %d", data, port)
	})
	if got != want {
		t.Errorf("packet %s: dropped as %q, want %q", packet, got, want)
	}
}

// parts are those of a program that a test cares for; the others are as plain as possible.
type parts struct {
	globals string
	// fields are those of the header h, which is the only one if headers is empty.
	fields  string
	headers string
	// states replaces the state start, which extracts h.
	states  string
	locals  string
	ingress string
	egress  string
	// deparser is the body of an explicit one.
	deparser string
	meta     string
}

// text is the program. Packets leave by port 1 unless the ingress says otherwise.
func (p parts) text() string {
	if p.fields == "" {
		p.fields = "bit<8> a; bit<8> b;"
	}
	if p.headers == "" {
		p.headers = "h_t h;"
	}
	if p.states == "" {
		p.states = "state start { pkt.extract(hdr.h); transition accept; }"
	}
	deparser, arg := "", ""
	if p.deparser != "" {
		deparser, arg = "control deparse(packet_out pkt, in headers_t hdr) { apply { "+p.deparser+" } }\n", ", deparse()"
	}
	return `#include <core.p4>
header h_t { ` + p.fields + ` }
` + p.globals + `
struct headers_t { ` + p.headers + ` }
struct im_t { bit<16> port; bit<8> scratch; ` + p.meta + ` }
struct em_t { bit<16> port; bool drop; bool broadcast; }
parser parse(packet_in pkt, out headers_t hdr, inout im_t im) {
` + p.states + `
}
control ingress(inout headers_t hdr, inout im_t im, inout em_t em) {
` + p.locals + `
    apply {
        em.port = 1;
` + p.ingress + `
    }
}
control egress(inout headers_t hdr, inout im_t im, inout em_t em) {
    apply { ` + p.egress + ` }
}
` + deparser + `SoftNPU(parse(), ingress(), egress()` + arg + `) main;
`
}

func (p parts) pipeline(t reporter) *Pipeline {
	t.Helper()
	return newPipeline(t, p.text(), 4)
}
