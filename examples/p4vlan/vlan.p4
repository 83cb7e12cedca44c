// Vlan is a switch with two VLANs: what comes in by a port goes out by the other
// ports of the same VLAN. The nodes know nothing of it: there are no tags.
#include <core.p4>

header ethernet_h { bit<48> dst; bit<48> src; bit<16> type; }

struct headers_t { ethernet_h ethernet; }
struct ingress_t { bit<16> port; bit<16> vlan; }
struct egress_t { bit<16> port; bool drop; bool broadcast; }

parser frames(packet_in packet, out headers_t headers, inout ingress_t from) {
    state start {
        packet.extract(headers.ethernet);
        transition accept;
    }
}

control forward(inout headers_t headers, inout ingress_t from, inout egress_t to) {
    action vlan(bit<16> id) { from.vlan = id; to.broadcast = true; }
    action drop() { to.drop = true; }
    table ports {
        key = { from.port: exact; }
        actions = { vlan; drop; }
        default_action = drop;
        const entries = { 1: vlan(10); 2: vlan(10); 3: vlan(20); 4: vlan(20); }
    }
    apply { ports.apply(); }
}

control leave(inout headers_t headers, inout ingress_t from, inout egress_t to) {
    action pass() { }
    action drop() { to.drop = true; }
    table members {
        key = { from.vlan: exact; to.port: exact; }
        actions = { pass; drop; }
        default_action = drop;
        const entries = { (10, 1): pass(); (10, 2): pass(); (20, 3): pass(); (20, 4): pass(); }
    }
    apply { members.apply(); }
}

SoftNPU(frames(), forward(), leave()) main;
