// A hub: every frame goes to all ports but the one that it came from, as long as its port is in the table.
#include <core.p4>

header ethernet_h {
    bit<48> dst;
    bit<48> src;
    bit<16> type;
}

struct headers_t {
    ethernet_h ethernet;
}

struct ingress_t {
    bit<16> port;
}

struct egress_t {
    bit<16> port;
    bool drop;
    bool broadcast;
}

parser parse(packet_in packet, out headers_t hdr, inout ingress_t from) {
    state start {
        packet.extract(hdr.ethernet);
        transition accept;
    }
}

control ingress(inout headers_t hdr, inout ingress_t from, inout egress_t to) {
    action repeat() {
        to.broadcast = true;
    }
    table ports {
        key = { from.port: exact; }
        actions = { repeat; NoAction; }
        const entries = {
            0: repeat();
            1: repeat();
            2: repeat();
        }
    }
    apply {
        ports.apply();
    }
}

control egress(inout headers_t hdr, inout ingress_t from, inout egress_t to) {
    apply { }
}

SoftNPU(parse(), ingress(), egress()) main;
