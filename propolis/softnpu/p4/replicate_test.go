package p4

import (
	"fmt"
	"testing"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/match"
)

// replicating is a program whose ports are what a table says for the port that a packet comes in by.
func replicating(egress string) string {
	return `#include <core.p4>
#include <softnpu_mcast.p4>
SoftNPU(parse(), ingress(), egress()) main;
struct headers_t { h_t h; }
header h_t { bit<8> a; bit<8> b; }
parser parse(packet_in pkt, out headers_t headers, inout ingress_metadata_t ingress,) { state start { pkt.extract(headers.h); transition accept; } }
control ingress(inout headers_t hdr, inout ingress_metadata_t ingress, inout egress_metadata_t egress,) {
    Replicate() rep;
    Replicate() spare;
    action drop() { }
    action forward(bit<16> port) { egress.port = port; }
    action ports(bit<128> bitmap) { egress.bitmap_a = bitmap; }
    action ports_broadcast(bit<128> bitmap) { egress.bitmap_a = bitmap; egress.broadcast = true; }
    action ports_drop(bit<128> bitmap) { egress.bitmap_a = bitmap; egress.drop = true; }
    table tbl {
        key = { ingress.port: exact; }
        actions = { drop; forward; ports; ports_broadcast; ports_drop; }
        default_action = drop;
    }
    apply {
        tbl.apply();
        rep.replicate(egress.bitmap_a | egress.bitmap_b);
        if (hdr.h.a == 9) { egress.bitmap_b = 128w1 << 3; }
    }
}
control egress(inout headers_t hdr, inout ingress_metadata_t ingress, inout egress_metadata_t egress,) { apply { ` + egress + ` } }
`
}

func TestReplicate(t *testing.T) {
	bits := func(ports ...int) []byte {
		b := make([]byte, 16)
		for _, p := range ports {
			b[15-p/8] |= 1 << (p % 8)
		}
		return b
	}
	for _, tc := range []struct {
		name, action string
		arg          []byte
		packet       string
		egress       string
		want         []int
		reason       DropReason
	}{
		{name: "some ports", action: "ports", arg: bits(1, 2), want: []int{1, 2}},
		{name: "not the port that it came in by", action: "ports", arg: bits(0, 1, 2), want: []int{1, 2}},
		{name: "that port alone", action: "ports", arg: bits(0), reason: NoEgressPort},
		{name: "none", action: "ports", arg: bits(), reason: NoEgressPort},
		{name: "none, and a port", action: "forward", arg: []byte{0, 1}, want: []int{1}},
		{name: "none, and broadcast", action: "ports_broadcast", arg: bits(), want: []int{1, 2, 3}},
		{name: "ports before broadcast", action: "ports_broadcast", arg: bits(1), want: []int{1}},
		{name: "drop before ports", action: "ports_drop", arg: bits(1, 2), reason: Dropped},
		{name: "ports that there are not", action: "ports", arg: bits(1, 127), want: []int{1}},
		{name: "what ingress does behind it counts", action: "ports", arg: bits(1), packet: "0900", want: []int{1, 3}},
		{name: "each copy has its own metadata", action: "ports", arg: bits(1, 2, 3), egress: "if (ingress.nat == true) { egress.drop = true; } ingress.nat = true;", want: []int{1, 2, 3}},
		{name: "egress drops one", action: "ports", arg: bits(1, 2, 3), egress: "if (egress.port == 2) { egress.drop = true; }", want: []int{1, 3}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pl := newPipeline(t, replicating(tc.egress), 4)
			if err := pl.Add("ingress.tbl", Entry{Match: []match.Match{{Value: []byte{0, 0}}}, Action: tc.action, Args: [][]byte{tc.arg}}); err != nil {
				t.Fatal(err)
			}
			if tc.packet == "" {
				tc.packet = "0000"
			}
			if len(tc.want) == 0 {
				drops(t, pl, 0, tc.packet, tc.reason)
				return
			}
			var want []string
			for _, p := range tc.want {
				want = append(want, fmt.Sprintf("%d:%s", p, tc.packet))
			}
			expect(t, pl, 0, tc.packet, want...)
		})
	}
}
