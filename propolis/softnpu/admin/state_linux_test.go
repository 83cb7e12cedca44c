package admin

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// stateProgram has one of everything that keeps something between packets.
const stateProgram = `#include <core.p4>
#include <softnpu.p4>
SoftNPU(parse(), ingress(), egress()) main;
header h_t { bit<8> a; bit<8> b; }
struct headers_t { h_t h; }
struct hop_t { bit<16> port; bit<48> mac; }
parser parse(packet_in pkt, out headers_t hdr, inout ingress_metadata_t im) {
    value_set<bit<8>>(4) odd;
    state start { pkt.extract(hdr.h); transition select(hdr.h.a) { odd: mark; default: accept; } }
    state mark { hdr.h.b = 0xee; transition accept; }
}
control ingress(inout headers_t hdr, inout ingress_metadata_t im, inout egress_metadata_t em) {
    register<hop_t>(4) hops;
    Register<bit<32>, bit<8>>(4) seen;
    Counter<bit<32>, bit<8>>(4, PSA_CounterType_t.PACKETS_AND_BYTES) count;
    Meter<bit<8>>(4, PSA_MeterType_t.PACKETS) limit;
    DirectCounter<bit<32>>(PSA_CounterType_t.PACKETS) hits;
    action go(bit<8> v, hop_t h) { hits.count(); hdr.h.b = v; em.port = h.port; }
    action none() { em.port = 2; }
    table t {
        key = { hdr.h.a: ternary; }
        actions = { go; none; }
        default_action = none;
        counters = hits;
    }
    apply {
        t.apply();
        seen.write(1, seen.read(1) + 1);
        count.count(2);
        if (limit.execute(3) == PSA_MeterColor_t.RED) { em.drop = true; }
    }
}
control egress(inout headers_t hdr, inout ingress_metadata_t im, inout egress_metadata_t em) { apply { } }
`

func TestStateIsReadAndSet(t *testing.T) {
	n := newNode(t)
	file := filepath.Join(t.TempDir(), "state.p4")
	if err := os.WriteFile(file, []byte(stateProgram), 0o600); err != nil {
		t.Fatal(err)
	}
	n.must("load-program", file)
	want := func(out string, parts ...string) {
		t.Helper()
		out = strings.Join(strings.Fields(out), " ")
		for _, p := range parts {
			if !strings.Contains(out, p) {
				t.Errorf("%q is not in\n%s", p, out)
			}
		}
	}
	want(n.must("arrays"), "ingress.hops register 4 port 16, mac 48", "ingress.seen register 4 32", "ingress.count counter 4", "ingress.limit meter 4")

	// The entry with the larger priority wins, whichever came first.
	n.must("add", "ingress.t", "go", "0x10&&&0xf0", "1", "1", "02:00:00:00:00:01")
	n.must("add", "--priority", "5", "ingress.t", "go", "0x12", "2", "3", "02:00:00:00:00:02")
	n.must("add", "--priority", "7", "ingress.t", "go", "0x12", "3", "3", "02:00:00:00:00:03")
	want(n.must("trace", "1", "1200"), "go(v 3, h.port 3, h.mac 02:00:00:00:00:03)")
	want(n.must("dump-state"), "18 → go(v 3, h.port 3, h.mac 02:00:00:00:00:03), priority 7")
	want(n.must("entries", "ingress.t"), "18 7 go(v 3, h.port 3, h.mac 02:00:00:00:00:03) 1 2 1", "16&&&0xf0 0 go(")
	saved := filepath.Join(t.TempDir(), "tables.json")
	n.must("save", saved)
	n.must("remove", "ingress.t", "0x12", "--priority", "7")
	if _, err := n.npuadm("remove", "ingress.t", "0x12"); err == nil {
		t.Error("an entry was removed by another priority")
	}
	want(n.must("trace", "1", "1200"), "go(v 2, h.port 3,")
	want(n.must("restore", saved), "added 1 entries, replaced 0")
	want(n.must("trace", "1", "1200"), "go(v 3, h.port 3,")

	want(n.must("defaults"), "ingress.t → none()", "parse.odd → NoAction()")
	want(n.must("trace", "1", "7700"), "out by port 2, 2 bytes: 7700")
	n.must("set-default", "ingress.t", "go", "9", "3", "02:00:00:00:00:09")
	want(n.must("defaults"), "ingress.t → go(v 9, h.port 3, h.mac 02:00:00:00:00:09)")
	want(n.must("trace", "1", "7700"), "out by port 3, 2 bytes: 7709")

	n.must("add", "parse.odd", "member", "0x33")
	want(n.must("trace", "1", "3300"), "state mark")

	want(n.must("read", "ingress.seen", "1"), "1 6")
	n.must("write", "ingress.seen", "1", "0x100")
	n.must("trace", "1", "7700")
	want(n.must("read", "ingress.seen"), "0 0 1 257 2 0 3 0")
	n.must("write", "ingress.hops", "2", "7", "02:00:00:00:00:07")
	want(n.must("read", "ingress.hops", "2"), "2 port 7, mac 02:00:00:00:00:07")
	n.must("write", "ingress.count", "2", "100", "5000")
	n.must("trace", "1", "7700")
	want(n.must("read", "ingress.count", "1", "2"), "1 packets 0, bytes 0", "2 packets 101, bytes 5002")
	n.must("write", "ingress.limit", "3", "0", "0", "0", "1")
	want(n.must("read", "ingress.limit", "3"), "3 committed rate 0, burst 0, peak rate 0, burst 1")
	n.must("trace", "1", "7700")
	want(n.must("trace", "1", "7700"), "dropped: dropped by the program")

	var cells []cellText
	if err := json.Unmarshal([]byte(n.must("read", "ingress.hops", "2", "--json")), &cells); err != nil || len(cells) != 1 || cells[0].Values["mac"] != "02:00:00:00:00:07" {
		t.Errorf("read --json: %+v, %v", cells, err)
	}
	for args, why := range map[string]string{
		"read ingress.nothing":                         "the program has no register, counter or meter \"ingress.nothing\": arrays lists them",
		"read ingress.seen 4":                          "ingress.seen has 4 cells, counted from 0",
		"read ingress.seen 2 3":                        "ingress.seen has 4 cells, counted from 0",
		"read ingress.seen x":                          "\"x\" is not a number of cells",
		"write ingress.seen 1 2 3":                     "register ingress.seen has 1 parameters, and 2 were given",
		"write ingress.seen 4 0":                       "register ingress.seen has 4 cells, and no cell 4",
		"write ingress.count 1 2":                      "a cell of a counter has 2 numbers, and 1 were given",
		"write ingress.limit 1 2 0 1 0":                "the committed rate of 2 is above the peak rate of 1",
		"write ingress.hops 1 70000 02:00:00:00:00:01": "70000 has more than 16 bits",
		"set-default parse.odd member":                 "table parse.odd has a constant default action",
		"set-default ingress.t go 1":                   "action go has 3 parameters, and 1 were given",
		"entries ingress.nothing":                      "the program has no table",
		"add --priority 7 ingress.t none 0x12":         "the entry exists",
	} {
		if _, err := n.npuadm(strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("npuadm %s: %v, want %q", args, err, why)
		}
	}
}
