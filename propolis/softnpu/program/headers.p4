// The headers that the switch knows, and what it remembers of a packet.

const bit<16> TYPE_IPV4 = 0x0800;
const bit<16> TYPE_ARP = 0x0806;
const bit<16> TYPE_SIDECAR = 0x0901;
const bit<16> TYPE_ETHERNET = 0x6558;
const bit<16> TYPE_VLAN = 0x8100;
const bit<16> TYPE_IPV6 = 0x86dd;
const bit<16> TYPE_LLDP = 0x88cc;

const bit<8> PROTOCOL_ICMP = 1;
const bit<8> PROTOCOL_TCP = 6;
const bit<8> PROTOCOL_UDP = 17;
const bit<8> PROTOCOL_ICMP6 = 58;

const bit<16> PORT_GENEVE = 6081;

// The options of Geneve that the switch knows: all are of one class.
const bit<16> OX_CLASS = 0x0129;
const bit<7> OX_EXTERNAL = 0;
const bit<7> OX_MULTICAST = 1;
const bit<7> OX_MSS = 2;

header ethernet_h {
    bit<48> dst;
    bit<48> src;
    bit<16> ether_type;
}

// Says to the CPU by which port a frame came in, and the CPU says with it by
// which port one is to leave.
header sidecar_h {
    bit<8> code;
    bit<8> pad;
    bit<16> ingress;
    bit<16> egress;
    bit<16> ether_type;
    bit<128> payload;
}

header vlan_h {
    bit<3> pcp;
    bit<1> dei;
    bit<12> vid;
    bit<16> ether_type;
}

header arp_h {
    bit<16> hw_type;
    bit<16> proto_type;
    bit<8> hw_len;
    bit<8> proto_len;
    bit<16> opcode;
    bit<48> sender_mac;
    bit<32> sender_ip;
    bit<48> target_mac;
    bit<32> target_ip;
}

header ipv4_h {
    bit<4> version;
    bit<4> ihl;
    bit<8> diffserv;
    bit<16> total_len;
    bit<16> identification;
    bit<3> flags;
    bit<13> frag_offset;
    bit<8> ttl;
    bit<8> protocol;
    bit<16> checksum;
    bit<32> src;
    bit<32> dst;
}

header ipv6_h {
    bit<4> version;
    bit<8> traffic_class;
    bit<20> flow_label;
    bit<16> payload_len;
    bit<8> next_hdr;
    bit<8> hop_limit;
    bit<128> src;
    bit<128> dst;
}

header icmp_h {
    bit<8> type;
    bit<8> code;
    bit<16> checksum;
    bit<16> identifier;
    bit<16> sequence;
}

header tcp_h {
    bit<16> src_port;
    bit<16> dst_port;
    bit<32> seq;
    bit<32> ack;
    bit<4> data_offset;
    bit<4> reserved;
    bit<8> flags;
    bit<16> window;
    bit<16> checksum;
    bit<16> urgent;
}

header udp_h {
    bit<16> src_port;
    bit<16> dst_port;
    bit<16> len;
    bit<16> checksum;
}

header geneve_h {
    bit<2> version;
    bit<6> opt_len;
    bit<1> oam;
    bit<1> crit;
    bit<6> reserved;
    bit<16> protocol;
    bit<24> vni;
    bit<8> reserved2;
}

// What every option begins with. Lengths are in words of 32 bits: those of an
// option do not count this one.
header geneve_opt_h {
    bit<16> class;
    bit<1> crit;
    bit<7> type;
    bit<3> reserved;
    bit<5> opt_len;
}

header oxg_opt_multicast_h {
    bit<2> replication;
    bit<30> reserved;
}

header oxg_opt_mss_h {
    bit<32> mss;
}

header geneve_options_h {
    varbit<2016> data;
}

// A packet leaves with those of these that are valid, in this order.
struct headers_t {
    ethernet_h ethernet;
    sidecar_h sidecar;
    vlan_h vlan;
    arp_h arp;

    // What NAT puts around a packet.
    ipv6_h tunnel_ipv6;
    udp_h tunnel_udp;
    geneve_h tunnel_geneve;
    geneve_opt_h tunnel_external;
    ethernet_h tunnel_ethernet;

    ipv4_h ipv4;
    ipv6_h ipv6;
    icmp_h icmp;
    tcp_h tcp;
    udp_h udp;

    // What another has put around one. The last of the options is all those
    // that have no header of their own.
    geneve_h geneve;
    geneve_opt_h external;
    geneve_opt_h multicast_opt;
    oxg_opt_multicast_h multicast;
    geneve_opt_h mss_opt;
    oxg_opt_mss_h mss;
    geneve_options_h geneve_options;
    ethernet_h inner_ethernet;
    ipv4_h inner_ipv4;
    ipv6_h inner_ipv6;
}

struct ingress_metadata_t {
    bit<16> port;
    // The ports of TCP or UDP; for ICMP nat_id is its identifier.
    bit<16> src_port;
    bit<16> nat_id;
    // The words of options that the parser has yet to read, and how far it is
    // in the order in which they have headers.
    bit<6> geneve_words;
    bit<2> geneve_step;
    // What NAT found.
    bool forward_needed;
    bit<128> forward_target;
    bit<24> forward_vni;
    bit<48> forward_mac;
    // The path that a route leads to.
    bit<16> path_idx;
}

struct egress_metadata_t {
    bit<16> port;
    bit<32> nexthop_v4;
    bit<128> nexthop_v6;
    bit<12> vlan_id;
    bool drop;
}
