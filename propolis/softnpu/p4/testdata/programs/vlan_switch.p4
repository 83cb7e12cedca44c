// A switch with VLANs and a CPU port, written the way programs for x4c are: the pipeline before its parts, commas behind
// the last parameter, transitions within an if, actions behind the code that uses them, instances with the names of their
// controls, and out parameters that keep what they had.
#include <core.p4>
#include <metadata.p4>
#include <headers.p4>

SoftNPU(
    parse(),
    ingress(),
    egress(),
) main;

struct headers_t {
    ethernet_h ethernet;
    cpu_h cpu;
    vlan_h vlan;
}

parser parse(
    packet_in pkt,
    out headers_t hdr,
    inout from_t from,
){
    state start {
        pkt.extract(hdr.ethernet);
        if (hdr.ethernet.type == 16w0x0901) { transition cpu; }
        if (hdr.ethernet.type == 16w0x8100) { transition vlan; }
        transition accept;
    }
    state cpu {
        pkt.extract(hdr.cpu);
        transition accept;
    }
    state vlan {
        pkt.extract(from.tag);
        hdr.vlan.setValid();
        hdr.vlan = from.tag;
        from.vid = hdr.vlan.vid;
        transition accept;
    }
}

control ingress(
    inout headers_t hdr,
    inout from_t from,
    inout to_t to,
) {
    vlan() vlan;
    fib() fib;

    apply {
        if (hdr.cpu.isValid()) { from_cpu(); return; }
        bool member = false;
        vlan.apply(from.port, from.vid, member);
        if (member == false) { return; }
        fib.apply(hdr, to);
        if (hdr.ethernet.dst[47:40] == 8w0x01) { to_cpu(); return; }
        if (to.port != 16w0) {
            bool leaves = false;
            vlan.apply(to.port, from.vid, leaves);
            if (leaves == false) { to.drop = true; }
        }
        bit<16> same = to.port - from.port;
        if (same == 0) { to.drop = true; }
    }

    action from_cpu() {
        to.port = hdr.cpu.port;
        hdr.ethernet.type = hdr.cpu.type;
        hdr.cpu.setInvalid();
    }

    action to_cpu() {
        hdr.cpu.setValid();
        hdr.cpu.code = 8w1;
        hdr.cpu.port = from.port;
        hdr.cpu.type = hdr.ethernet.type;
        hdr.cpu.data = 128w0x1701d;
        hdr.ethernet.type = 16w0x0901;
        to.port = 16w0;
    }
}

control vlan(
    in bit<16> port,
    in bit<12> vid,
    out bool member,
) {
    table vlan {
        key = { port: exact; }
        actions = { untagged; tagged; }
        default_action = untagged;
    }

    apply { vlan.apply(); }

    action untagged() { if (vid == 12w0) { member = true; } }
    action tagged(bit<12> only) { if (vid == only) { member = true; } }
}

control fib(
    inout headers_t hdr,
    inout to_t to,
) {
    table fib {
        key = { hdr.ethernet.dst: exact; }
        actions = { forward; }
        default_action = NoAction;
    }

    apply { fib.apply(); }

    action forward(bit<16> port) { to.port = port; }
}

control egress(
    inout headers_t hdr,
    inout from_t from,
    inout to_t to,
) { }
