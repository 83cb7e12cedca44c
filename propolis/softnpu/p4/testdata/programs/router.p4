// A router for IPv4 and IPv6 with the tables of a real one: local addresses, routes that lead to one of several next hops,
// neighbours, and the addresses of the ports.
#include <core.p4>

const bit<16> IPV4 = 0x0800;
const bit<16> IPV6 = 0x86dd;
const bit<16> CPU_PORT = 0;

header ethernet_h {
    bit<48> dst;
    bit<48> src;
    bit<16> type;
}

header vlan_h {
    bit<3>  priority;
    bit<1>  eligible;
    bit<12> id;
    bit<16> type;
}

header ipv4_h {
    bit<4>  version;
    bit<4>  words;
    bit<8>  service;
    bit<16> length;
    bit<16> id;
    bit<3>  flags;
    bit<13> offset;
    bit<8>  ttl;
    bit<8>  protocol;
    bit<16> checksum;
    bit<32> src;
    bit<32> dst;
}

header ipv6_h {
    bit<4>   version;
    bit<8>   class;
    bit<20>  flow;
    bit<16>  length;
    bit<8>   protocol;
    bit<8>   hops;
    bit<128> src;
    bit<128> dst;
}

header ports_h {
    bit<16> src;
    bit<16> dst;
}

struct headers_t {
    ethernet_h ethernet;
    vlan_h     vlan;
    ipv4_h     ipv4;
    ipv6_h     ipv6;
    ports_h    ports;
}

struct ingress_t {
    bit<16> port;
}

struct egress_t {
    bit<16>  port;
    bit<16>  path;
    bit<32>  next4;
    bit<128> next6;
    bool     drop;
    bool     broadcast;
}

parser parse(packet_in packet, out headers_t hdr, inout ingress_t from) {
    state start {
        packet.extract(hdr.ethernet);
        transition select(hdr.ethernet.type) {
            0x8100: vlan;
            IPV4: ipv4;
            IPV6: ipv6;
            default: accept;
        }
    }
    state vlan {
        packet.extract(hdr.vlan);
        transition select(hdr.vlan.type) {
            IPV4: ipv4;
            IPV6: ipv6;
            default: accept;
        }
    }
    state ipv4 {
        packet.extract(hdr.ipv4);
        verify(hdr.ipv4.version == 4, error.ParserInvalidArgument);
        transition select(hdr.ipv4.words, hdr.ipv4.protocol) {
            (5, 6): ports;
            (5, 17): ports;
            default: accept;
        }
    }
    state ipv6 {
        packet.extract(hdr.ipv6);
        transition select(hdr.ipv6.protocol) {
            6: ports;
            17: ports;
            default: accept;
        }
    }
    state ports {
        packet.extract(hdr.ports);
        transition accept;
    }
}

control routes(inout headers_t hdr, inout egress_t to) {
    Checksum() sum;

    action drop() {
        to.drop = true;
    }
    action to_cpu() {
        to.port = CPU_PORT;
    }
    action path4(bit<16> first, bit<8> paths) {
        bit<16> n = sum.run({ hdr.ipv4.src, hdr.ipv4.dst, hdr.ports });
        to.path = first + n % (bit<16>) paths;
    }
    action path6(bit<16> first, bit<8> paths) {
        bit<16> n = sum.run({ hdr.ipv6.src, hdr.ipv6.dst, hdr.ports });
        to.path = first + n % (bit<16>) paths;
    }
    action via4(bit<16> port, bit<32> next) {
        to.port = port;
        to.next4 = next;
    }
    action via6(bit<16> port, bit<128> next) {
        to.port = port;
        to.next6 = next;
    }
    table v4 {
        key = { hdr.ipv4.dst: lpm; }
        actions = { path4; to_cpu; drop; }
        default_action = drop;
    }
    table v6 {
        key = { hdr.ipv6.dst: lpm; }
        actions = { path6; to_cpu; drop; }
        default_action = drop;
    }
    table paths {
        key = { to.path: exact; }
        actions = { via4; via6; drop; }
        default_action = drop;
    }
    apply {
        bool routed = false;
        if (hdr.ipv4.isValid()) {
            switch (v4.apply().action_run) {
                path4: { routed = true; }
                default: { }
            }
        } else {
            switch (v6.apply().action_run) {
                path6: { routed = true; }
                default: { }
            }
        }
        if (routed) {
            paths.apply();
        }
    }
}

control neighbours(inout headers_t hdr, inout egress_t to) {
    action drop() {
        to.drop = true;
    }
    action rewrite(bit<48> mac) {
        hdr.ethernet.dst = mac;
    }
    table v4 {
        key = { to.next4: exact; }
        actions = { rewrite; drop; }
        default_action = drop;
    }
    table v6 {
        key = { to.next6: exact; }
        actions = { rewrite; drop; }
        default_action = drop;
    }
    apply {
        if (to.next4 != 0) {
            v4.apply();
        } else if (to.next6 != 0) {
            v6.apply();
        }
    }
}

control ingress(inout headers_t hdr, inout ingress_t from, inout egress_t to) {
    routes() routes;
    neighbours() neighbours;
    InternetChecksum() sum;

    action local() {
        to.port = CPU_PORT;
    }
    action set_source(bit<48> mac) {
        hdr.ethernet.src = mac;
    }
    table local4 {
        key = { hdr.ipv4.dst: exact; }
        actions = { local; NoAction; }
    }
    table local6 {
        key = { hdr.ipv6.dst: exact; }
        actions = { local; NoAction; }
    }
    table sources {
        key = { to.port: exact; }
        actions = { set_source; NoAction; }
    }
    apply {
        if (hdr.ipv4.isValid()) {
            if (local4.apply().hit) {
                return;
            }
            if (hdr.ipv4.ttl <= 1) {
                to.port = CPU_PORT;
                return;
            }
            routes.apply(hdr, to);
            sum.clear();
            sum.subtract({ hdr.ipv4.checksum, hdr.ipv4.ttl, hdr.ipv4.protocol });
            hdr.ipv4.ttl = hdr.ipv4.ttl - 1;
            sum.add({ hdr.ipv4.ttl, hdr.ipv4.protocol });
            hdr.ipv4.checksum = sum.get();
        } else if (hdr.ipv6.isValid()) {
            if (local6.apply().hit) {
                return;
            }
            routes.apply(hdr, to);
            hdr.ipv6.hops = hdr.ipv6.hops - 1;
        } else {
            to.port = CPU_PORT;
            return;
        }
        neighbours.apply(hdr, to);
        sources.apply();
        if (to.port == from.port) {
            to.drop = true;
        }
    }
}

control egress(inout headers_t hdr, inout ingress_t from, inout egress_t to) {
    apply { }
}

SoftNPU(parse(), ingress(), egress()) main;
