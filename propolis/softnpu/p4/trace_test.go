package p4

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestTrace(t *testing.T) {
	pl := parts{headers: "h_t h; h_t g;", states: "state start { pkt.extract(hdr.h); transition select(hdr.h.a) { 1: more; default: reject; } } state more { pkt.extract(hdr.g); transition accept; }",
		locals: `action set(bit<8> x) { hdr.h.b = x; } action gone() { hdr.g.setInvalid(); }
		table t { key = { hdr.h.a: exact; im.port: ternary @name("from"); } actions = { set; } }`,
		ingress: "t.apply(); t.apply(); gone();"}.pipeline(t)
	if err := pl.Add("ingress.t", entry("set", keys(exact("01"), masked("0002", "ffff")), 1, "77")); err != nil {
		t.Fatal(err)
	}
	got := pl.Trace(2, unhex(t, "0102 0304 ff"))
	want := `in by port 2
state start
extract hdr.h [a 0x01, b 0x02]
state more
extract hdr.g [a 0x03, b 0x04]
table ingress.t [hdr.h.a 0x01, from 0x0002] hit → set(x 0x77)
table ingress.t [hdr.h.a 0x01, from 0x0002] hit → set(x 0x77)
action gone
egress 1
rewritten h.b 0x02 → 0x77, g valid → invalid
out by port 1, 3 bytes: 0177ff
`
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	b, err := json.Marshal(got)
	if err != nil || !strings.Contains(string(b), `"outputs":[{"port":1,"frame":"AXf/"}]`) {
		t.Errorf("as JSON: %s, %v", b, err)
	}
	if got := pl.Trace(1, unhex(t, "0102 0304")).String(); !strings.Contains(got, "table ingress.t [hdr.h.a 0x01, from 0x0001] miss → NoAction()\n") {
		t.Errorf("a miss: %s", got)
	}
	if got := pl.Trace(1, unhex(t, "0902")).String(); !strings.HasSuffix(got, "extract hdr.h [a 0x09, b 0x02]\ndropped: rejected by the parser\n") {
		t.Errorf("a reject: %s", got)
	}
	if got := pl.Trace(1, unhex(t, "0102")).String(); !strings.HasSuffix(got, "state more\ndropped: packet too short\n") {
		t.Errorf("a short packet: %s", got)
	}
}

// A trace names the error that a verify of the program stopped with.
func TestTraceNamesTheParserError(t *testing.T) {
	pl := parts{globals: "error { TooSmall }", states: "state start { pkt.extract(hdr.h); verify(hdr.h.a >= 5, error.TooSmall); transition accept; }"}.pipeline(t)
	if got := pl.Trace(1, unhex(t, "0102")); got.Dropped != "verify failed: error.TooSmall" {
		t.Errorf("dropped: %s", got.Dropped)
	}
}
