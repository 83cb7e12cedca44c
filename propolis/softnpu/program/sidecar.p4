// The program that an ASIC runs if it is given no other: a router for IPv4 and
// IPv6 with VLANs, NAT by Geneve, proxy ARP and a port for the CPU. Its tables
// are those of sidecar-lite, and so are the forms of its headers.
//
// Where it does something else, that is because sidecar-lite cannot or forgets:
//
//   - A packet that is routed has one hop less to go, and one that has none
//     left is dropped.
//   - Only the CPU can say by which port a frame is to leave.
//   - Fragments have no ports, and those of IPv4 keep their offset.
//   - A tunnel that is carried on keeps its options, in their order. What is in
//     one can be NATed once more.
//   - A route with no slots has one.
//   - Flows to one address are spread over the paths of its route by their ports
//     too.
//   - Proxy ARP answers requests only.
#include <core.p4>
#include "headers.p4"
#include "parser.p4"

const bit<16> CPU_PORT = 0;

// Code and payload of a sidecar header to the CPU.
const bit<8> SIDECAR_TO_CPU = 1;
const bit<128> SIDECAR_MARK = 0x1701d;

// The near end of every tunnel for NAT.
const bit<128> TUNNEL_SOURCE = 0xfd000099000000000000000000000001;
const bit<8> TUNNEL_HOP_LIMIT = 255;
// What is around a packet in a tunnel, without the outer IPv6 header: UDP,
// Geneve, one option and Ethernet.
const bit<16> TUNNEL_OVERHEAD = 8 + 8 + 4 + 14;
const bit<16> IPV6_SIZE = 40;

// local says whether a packet is for the switch itself.
control local(
    in headers_t hdr,
    out bool is_local
) {
    action local() {
        is_local = true;
    }
    action nonlocal() {
        is_local = false;
    }
    table local_v6 {
        key = { hdr.ipv6.dst: exact; }
        actions = { local; nonlocal; }
        default_action = nonlocal;
    }
    table local_v4 {
        key = { hdr.ipv4.dst: exact; }
        actions = { local; nonlocal; }
        default_action = nonlocal;
    }
    apply {
        if (hdr.ipv4.isValid()) {
            local_v4.apply();
        } else if (hdr.ipv6.isValid() && hdr.ipv6.dst[127:112] != 0xff02) {
            local_v6.apply();
        } else {
            // ff02::/16, ARP and LLDP.
            is_local = true;
        }
    }
}

// cpu takes frames from the CPU and to it.
control cpu(
    inout headers_t hdr,
    in ingress_metadata_t ingress,
    inout egress_metadata_t egress
) {
    apply {
        if (hdr.sidecar.isValid()) {
            egress.port = hdr.sidecar.egress;
            egress.drop = ingress.port != CPU_PORT;
            hdr.ethernet.ether_type = hdr.sidecar.ether_type;
            hdr.sidecar.setInvalid();
        } else {
            hdr.sidecar = { SIDECAR_TO_CPU, 0, ingress.port, ingress.port, hdr.ethernet.ether_type, SIDECAR_MARK };
            hdr.ethernet.ether_type = TYPE_SIDECAR;
            egress.port = CPU_PORT;
        }
    }
}

// proxy_arp answers requests for addresses that others have.
control proxy_arp(
    inout headers_t hdr,
    in ingress_metadata_t ingress,
    inout egress_metadata_t egress,
    out bool answered
) {
    action proxy_arp_reply(bit<48> mac) {
        bit<32> wanted = hdr.arp.target_ip;
        hdr.ethernet.dst = hdr.ethernet.src;
        hdr.ethernet.src = mac;
        hdr.arp.opcode = 2;
        hdr.arp.target_mac = hdr.arp.sender_mac;
        hdr.arp.target_ip = hdr.arp.sender_ip;
        hdr.arp.sender_mac = mac;
        hdr.arp.sender_ip = wanted;
        egress.port = ingress.port;
        answered = true;
    }
    table proxy_arp {
        key = { hdr.arp.target_ip: range; }
        actions = { proxy_arp_reply; NoAction; }
        default_action = NoAction;
    }
    apply {
        answered = false;
        if (hdr.arp.opcode == 1) {
            proxy_arp.apply();
        }
    }
}

// attached finds the sled that a subnet behind NAT is attached to.
control attached(
    in headers_t hdr,
    inout ingress_metadata_t ingress
) {
    action forward_to_sled(bit<128> target, bit<24> vni, bit<48> mac) {
        ingress.forward_needed = true;
        ingress.forward_target = target;
        ingress.forward_vni = vni;
        ingress.forward_mac = mac;
    }
    table attached_subnet_v4 {
        key = { hdr.ipv4.dst: lpm; }
        actions = { forward_to_sled; NoAction; }
        default_action = NoAction;
    }
    table attached_subnet_v6 {
        key = { hdr.ipv6.dst: lpm; }
        actions = { forward_to_sled; NoAction; }
        default_action = NoAction;
    }
    apply {
        if (hdr.ipv4.isValid()) {
            attached_subnet_v4.apply();
        } else {
            attached_subnet_v6.apply();
        }
    }
}

// nat finds the sled that an address and port behind NAT belong to.
control nat(
    in headers_t hdr,
    inout ingress_metadata_t ingress
) {
    action forward_to_sled(bit<128> target, bit<24> vni, bit<48> mac) {
        ingress.forward_needed = true;
        ingress.forward_target = target;
        ingress.forward_vni = vni;
        ingress.forward_mac = mac;
    }
    table nat_v4 {
        key = { hdr.ipv4.dst: exact; ingress.nat_id: range; }
        actions = { forward_to_sled; NoAction; }
        default_action = NoAction;
    }
    table nat_v6 {
        key = { hdr.ipv6.dst: exact; ingress.nat_id: range; }
        actions = { forward_to_sled; NoAction; }
        default_action = NoAction;
    }
    apply {
        if (hdr.ipv4.isValid()) {
            nat_v4.apply();
        } else {
            nat_v6.apply();
        }
    }
}

// tunnel puts packets into Geneve and takes them out.
control tunnel(
    inout headers_t hdr,
    in ingress_metadata_t ingress
) {
    // The lengths of a packet that is too long for them are wrong: it is one that
    // a guest's NIC has yet to cut, and its segments come here one by one.
    action encapsulate(bit<16> size) {
        bit<16> len = size + TUNNEL_OVERHEAD;
        hdr.tunnel_ethernet = { ingress.forward_mac, hdr.ethernet.src, hdr.ethernet.ether_type };
        hdr.tunnel_external = { OX_CLASS, 0, OX_EXTERNAL, 0, 0 };
        hdr.tunnel_geneve = { 0, 1, 0, 0, 0, TYPE_ETHERNET, ingress.forward_vni, 0 };
        hdr.tunnel_udp = { PORT_GENEVE, PORT_GENEVE, len, 0 };
        hdr.tunnel_ipv6 = { 6, 0, 0, len, PROTOCOL_UDP, TUNNEL_HOP_LIMIT, TUNNEL_SOURCE, ingress.forward_target };
        hdr.ethernet.ether_type = TYPE_IPV6;
    }
    action decapsulate() {
        hdr.ethernet = hdr.inner_ethernet;
        hdr.ipv4 = hdr.inner_ipv4;
        hdr.ipv6 = hdr.inner_ipv6;
        hdr.udp.setInvalid();
        hdr.geneve.setInvalid();
        hdr.external.setInvalid();
        hdr.multicast_opt.setInvalid();
        hdr.multicast.setInvalid();
        hdr.mss_opt.setInvalid();
        hdr.mss.setInvalid();
        hdr.geneve_options.setInvalid();
        hdr.inner_ethernet.setInvalid();
        hdr.inner_ipv4.setInvalid();
        hdr.inner_ipv6.setInvalid();
    }
    apply {
        if (!ingress.forward_needed) {
            decapsulate();
        } else if (hdr.ipv4.isValid()) {
            encapsulate(hdr.ipv4.total_len);
        } else {
            encapsulate(hdr.ipv6.payload_len + IPV6_SIZE);
        }
    }
}

// age takes a hop from a packet, and drops it if it has none left.
control age(
    inout headers_t hdr,
    inout egress_metadata_t egress
) {
    apply {
        if (hdr.ipv4.isValid()) {
            egress.drop = hdr.ipv4.ttl <= 1;
            hdr.ipv4.ttl = hdr.ipv4.ttl - 1;
            // The checksum follows the one word that has changed (RFC 1624).
            bit<17> sum = (bit<17>) ~hdr.ipv4.checksum + 0xfeff;
            hdr.ipv4.checksum = ~(sum[15:0] + (bit<16>) sum[16:16]);
        } else {
            egress.drop = hdr.ipv6.hop_limit <= 1;
            hdr.ipv6.hop_limit = hdr.ipv6.hop_limit - 1;
        }
    }
}

// A route leads to the first of the paths for a prefix. If there are several,
// the slots, a packet takes that of its flow.
control v4_index(
    in bit<32> dst,
    in headers_t hdr,
    inout ingress_metadata_t ingress,
    inout egress_metadata_t egress
) {
    Hash<bit<16>>(PSA_HashAlgorithm_t.CRC16) flow;

    action index(bit<16> idx, bit<8> slots) {
        ingress.path_idx = idx;
        if (slots > 1) {
            ingress.path_idx = idx + flow.get_hash({ hdr.ipv4.src, dst, ingress.src_port, ingress.nat_id }) % (bit<16>) slots;
        }
    }
    action drop() {
        egress.drop = true;
    }
    table rtr {
        key = { dst: lpm; }
        actions = { index; drop; }
        default_action = drop;
    }
    apply {
        rtr.apply();
    }
}

control v6_index(
    in bit<128> dst,
    in headers_t hdr,
    inout ingress_metadata_t ingress,
    inout egress_metadata_t egress
) {
    Hash<bit<16>>(PSA_HashAlgorithm_t.CRC16) flow;

    action index(bit<16> idx, bit<8> slots) {
        ingress.path_idx = idx;
        if (slots > 1) {
            ingress.path_idx = idx + flow.get_hash({ hdr.ipv6.src, dst, ingress.src_port, ingress.nat_id }) % (bit<16>) slots;
        }
    }
    action drop() {
        egress.drop = true;
    }
    table rtr {
        key = { dst: lpm; }
        actions = { index; drop; }
        default_action = drop;
    }
    apply {
        rtr.apply();
    }
}

// A path is a port and the next hop behind it, which for IPv4 can be one with
// an address of IPv6.
control v4_path(
    in bit<16> path_idx,
    inout egress_metadata_t egress
) {
    action forward(bit<16> port, bit<32> nexthop) {
        egress.port = port;
        egress.nexthop_v4 = nexthop;
    }
    action forward_v6(bit<16> port, bit<128> nexthop) {
        egress.port = port;
        egress.nexthop_v6 = nexthop;
    }
    action forward_vlan(bit<16> port, bit<32> nexthop, bit<12> vlan_id) {
        egress.port = port;
        egress.nexthop_v4 = nexthop;
        egress.vlan_id = vlan_id;
    }
    action forward_vlan_v6(bit<16> port, bit<128> nexthop, bit<12> vlan_id) {
        egress.port = port;
        egress.nexthop_v6 = nexthop;
        egress.vlan_id = vlan_id;
    }
    action drop() {
        egress.drop = true;
    }
    table rtr {
        key = { path_idx: exact; }
        actions = { forward; forward_v6; forward_vlan; forward_vlan_v6; drop; }
        default_action = drop;
    }
    apply {
        rtr.apply();
    }
}

control v6_path(
    in bit<16> path_idx,
    inout egress_metadata_t egress
) {
    action forward(bit<16> port, bit<128> nexthop) {
        egress.port = port;
        egress.nexthop_v6 = nexthop;
    }
    action forward_vlan(bit<16> port, bit<128> nexthop, bit<12> vlan_id) {
        egress.port = port;
        egress.nexthop_v6 = nexthop;
        egress.vlan_id = vlan_id;
    }
    action drop() {
        egress.drop = true;
    }
    table rtr {
        key = { path_idx: exact; }
        actions = { forward; forward_vlan; drop; }
        default_action = drop;
    }
    apply {
        rtr.apply();
    }
}

control router(
    in headers_t hdr,
    inout ingress_metadata_t ingress,
    inout egress_metadata_t egress
) {
    v4_index() v4_idx;
    v6_index() v6_idx;
    v4_path() v4_route;
    v6_path() v6_route;

    apply {
        if (ingress.forward_needed) {
            v6_idx.apply(ingress.forward_target, hdr, ingress, egress);
        } else if (hdr.ipv6.isValid()) {
            v6_idx.apply(hdr.ipv6.dst, hdr, ingress, egress);
        } else {
            v4_idx.apply(hdr.ipv4.dst, hdr, ingress, egress);
            if (!egress.drop) {
                v4_route.apply(ingress.path_idx, egress);
            }
            return;
        }
        if (!egress.drop) {
            v6_route.apply(ingress.path_idx, egress);
        }
    }
}

// resolver finds the address of the next hop.
control resolver(
    inout headers_t hdr,
    inout egress_metadata_t egress
) {
    action rewrite_dst(bit<48> mac) {
        hdr.ethernet.dst = mac;
    }
    action drop() {
        egress.drop = true;
    }
    table resolver_v4 {
        key = { egress.nexthop_v4: exact; }
        actions = { rewrite_dst; drop; }
        default_action = drop;
    }
    table resolver_v6 {
        key = { egress.nexthop_v6: exact; }
        actions = { rewrite_dst; drop; }
        default_action = drop;
    }
    apply {
        if (egress.nexthop_v4 != 0) {
            resolver_v4.apply();
        } else {
            resolver_v6.apply();
        }
    }
}

// mac gives a packet the address of the port that it leaves by.
control mac(
    inout headers_t hdr,
    in egress_metadata_t egress
) {
    action rewrite(bit<48> mac) {
        hdr.ethernet.src = mac;
    }
    table mac_rewrite {
        key = { egress.port: exact; }
        actions = { rewrite; NoAction; }
        default_action = NoAction;
    }
    apply {
        mac_rewrite.apply();
    }
}

control ingress(
    inout headers_t hdr,
    inout ingress_metadata_t ingress,
    inout egress_metadata_t egress
) {
    cpu() cpu;
    proxy_arp() pxarp;
    local() local;
    tunnel() tunnel;
    age() age;
    attached() attached;
    nat() nat;
    router() router;
    resolver() resolver;
    mac() mac;

    apply {
        if (hdr.sidecar.isValid()) {
            cpu.apply(hdr, ingress, egress);
            return;
        }
        if (hdr.arp.isValid()) {
            bool answered;
            pxarp.apply(hdr, ingress, egress, answered);
            if (answered) {
                return;
            }
        }
        bool is_local;
        local.apply(hdr, is_local);
        if (is_local && !hdr.inner_ipv4.isValid() && !hdr.inner_ipv6.isValid()) {
            cpu.apply(hdr, ingress, egress);
            return;
        }

        // A tag is for one cable: the route says whether there is one on the
        // next.
        if (hdr.vlan.isValid()) {
            hdr.ethernet.ether_type = hdr.vlan.ether_type;
            hdr.vlan.setInvalid();
        }
        if (is_local) {
            tunnel.apply(hdr, ingress);
        }
        age.apply(hdr, egress);
        if (egress.drop) {
            return;
        }
        if (!is_local) {
            attached.apply(hdr, ingress);
            if (!ingress.forward_needed) {
                nat.apply(hdr, ingress);
            }
            if (ingress.forward_needed) {
                tunnel.apply(hdr, ingress);
            }
        }

        router.apply(hdr, ingress, egress);
        if (egress.drop) {
            return;
        }
        resolver.apply(hdr, egress);
        mac.apply(hdr, egress);
        if (egress.port == ingress.port) {
            egress.drop = true;
        }
        if (egress.vlan_id != 0) {
            hdr.vlan = { 0, 0, egress.vlan_id, hdr.ethernet.ether_type };
            hdr.ethernet.ether_type = TYPE_VLAN;
        }
    }
}

control egress(
    inout headers_t hdr,
    inout ingress_metadata_t ingress,
    inout egress_metadata_t egress
) {
    apply { }
}

SoftNPU(parse(), ingress(), egress()) main;
