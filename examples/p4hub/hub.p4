// Hub sends what comes in by a port out by all others.
#include <core.p4>
#include <softnpu.p4>

header ethernet_h {
    bit<48> dst;
    bit<48> src;
    bit<16> type;
}

struct headers_t {
    ethernet_h ethernet;
}

parser frames(packet_in packet, out headers_t headers, inout ingress_metadata_t ingress) {
    state start {
        packet.extract(headers.ethernet);
        transition accept;
    }
}

control forward(inout headers_t headers, inout ingress_metadata_t ingress, inout egress_metadata_t egress) {
    apply {
        egress.broadcast = true;
    }
}

control leave(inout headers_t headers, inout ingress_metadata_t ingress, inout egress_metadata_t egress) {
    apply { }
}

SoftNPU(frames(), forward(), leave()) main;
