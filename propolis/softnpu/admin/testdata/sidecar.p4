// The tables of sidecar-lite with their names, keys and actions, and a pipeline
// that applies them all and drops the packet.
#include "headers.p4"

parser parse(packet_in pkt, out headers_t hdr, inout ingress_metadata_t ingress) {
    state start {
        pkt.extract(hdr.v4);
        pkt.extract(hdr.v6);
        transition accept;
    }
}

control local(inout headers_t hdr) {
    action local() { }
    action nonlocal() { }
    table local_v4 { key = { hdr.v4.dst: exact; } actions = { local; nonlocal; } default_action = nonlocal; }
    table local_v6 { key = { hdr.v6.dst: exact; } actions = { local; nonlocal; } default_action = nonlocal; }
    apply { local_v4.apply(); local_v6.apply(); }
}

control resolver(inout headers_t hdr) {
    action rewrite_dst(bit<48> mac) { hdr.v4.mac = mac; }
    action drop() { }
    table resolver_v4 { key = { hdr.v4.dst: exact; } actions = { rewrite_dst; drop; } default_action = drop; }
    table resolver_v6 { key = { hdr.v6.dst: exact; } actions = { rewrite_dst; drop; } default_action = drop; }
    apply { resolver_v4.apply(); resolver_v6.apply(); }
}

control nat(inout headers_t hdr) {
    action forward_to_sled(bit<128> target, bit<24> vni, bit<48> mac) { hdr.v6.dst = target; hdr.v4.mac = mac; }
    table nat_v4 { key = { hdr.v4.dst: exact; hdr.v4.id: range; } actions = { forward_to_sled; } default_action = NoAction; }
    table nat_v6 { key = { hdr.v6.dst: exact; hdr.v4.id: range; } actions = { forward_to_sled; } default_action = NoAction; }
    apply { nat_v4.apply(); nat_v6.apply(); }
}

control v4_index(inout headers_t hdr) {
    action index(bit<16> idx, bit<8> slots) { hdr.v4.id = idx; }
    action drop() { }
    table rtr { key = { hdr.v4.dst: lpm; } actions = { index; drop; } default_action = drop; }
    apply { rtr.apply(); }
}

control v6_index(inout headers_t hdr) {
    action index(bit<16> idx, bit<8> slots) { hdr.v4.id = idx; }
    action drop() { }
    table rtr { key = { hdr.v6.dst: lpm; } actions = { index; drop; } default_action = drop; }
    apply { rtr.apply(); }
}

control v4_path(inout headers_t hdr) {
    action forward(bit<16> port, bit<32> nexthop) { hdr.v4.dst = nexthop; }
    action forward_v6(bit<16> port, bit<128> nexthop) { hdr.v6.dst = nexthop; }
    action forward_vlan(bit<16> port, bit<32> nexthop, bit<12> vlan_id) { hdr.v4.dst = nexthop; }
    action forward_vlan_v6(bit<16> port, bit<128> nexthop, bit<12> vlan_id) { hdr.v6.dst = nexthop; }
    action drop() { }
    table rtr {
        key = { hdr.v4.id: exact; }
        actions = { forward; forward_v6; forward_vlan; forward_vlan_v6; drop; }
        default_action = drop;
    }
    apply { rtr.apply(); }
}

control v6_path(inout headers_t hdr) {
    action forward(bit<16> port, bit<128> nexthop) { hdr.v6.dst = nexthop; }
    action forward_vlan(bit<16> port, bit<128> nexthop, bit<12> vlan_id) { hdr.v6.dst = nexthop; }
    action drop() { }
    table rtr { key = { hdr.v4.id: exact; } actions = { forward; forward_vlan; drop; } default_action = drop; }
    apply { rtr.apply(); }
}

control router(inout headers_t hdr) {
    v4_index() v4_idx;
    v6_index() v6_idx;
    v4_path() v4_route;
    v6_path() v6_route;
    apply { v4_idx.apply(hdr); v6_idx.apply(hdr); v4_route.apply(hdr); v6_route.apply(hdr); }
}

control mac_rewriter(inout headers_t hdr) {
    action rewrite(bit<48> mac) { hdr.v4.mac = mac; }
    table mac_rewrite { key = { hdr.v4.id: exact; } actions = { rewrite; } default_action = NoAction; }
    apply { mac_rewrite.apply(); }
}

control proxy(inout headers_t hdr) {
    action proxy_arp_reply(bit<48> mac) { hdr.v4.mac = mac; }
    table proxy_arp { key = { hdr.v4.dst: range; } actions = { proxy_arp_reply; } default_action = NoAction; }
    apply { proxy_arp.apply(); }
}

control ingress(inout headers_t hdr, inout ingress_metadata_t ingress, inout egress_metadata_t egress) {
    local() local;
    resolver() resolver;
    nat() nat;
    router() router;
    mac_rewriter() mac;
    proxy() pxarp;
    apply {
        local.apply(hdr);
        resolver.apply(hdr);
        nat.apply(hdr);
        router.apply(hdr);
        mac.apply(hdr);
        pxarp.apply(hdr);
        egress.drop = true;
    }
}

control egress(inout headers_t hdr, inout ingress_metadata_t ingress, inout egress_metadata_t egress) {
    apply { }
}

SoftNPU(parse(), ingress(), egress()) main;
