// What of a frame the switch looks at. All behind that is payload and leaves as
// it came. A frame with an Ethernet type that is not known here is dropped, and
// so is one that ends within a header.
parser parse(
    packet_in pkt,
    out headers_t hdr,
    inout ingress_metadata_t ingress
) {
    state start {
        pkt.extract(hdr.ethernet);
        transition select(hdr.ethernet.ether_type) {
            TYPE_IPV4: ipv4;
            TYPE_IPV6: ipv6;
            TYPE_VLAN: vlan;
            TYPE_SIDECAR: sidecar;
            TYPE_ARP: arp;
            TYPE_LLDP: accept;
            default: reject;
        }
    }

    // Whatever the CPU sends leaves as it is.
    state sidecar {
        pkt.extract(hdr.sidecar);
        transition accept;
    }

    state vlan {
        pkt.extract(hdr.vlan);
        transition select(hdr.vlan.ether_type) {
            TYPE_IPV4: ipv4;
            TYPE_IPV6: ipv6;
            TYPE_ARP: arp;
            TYPE_LLDP: accept;
            default: reject;
        }
    }

    state arp {
        pkt.extract(hdr.arp);
        transition accept;
    }

    // Ports are looked for only where they are: not behind options, and not in
    // fragments. A first fragment has them, but the others could not follow it
    // by them.
    state ipv4 {
        pkt.extract(hdr.ipv4);
        transition select(hdr.ipv4.version, hdr.ipv4.ihl, hdr.ipv4.flags, hdr.ipv4.frag_offset) {
            (4, 5, 0 &&& 1, 0): ipv4_whole;
            (4, 5..15, _, _): accept;
            default: reject;
        }
    }

    state ipv4_whole {
        transition select(hdr.ipv4.protocol) {
            PROTOCOL_TCP: tcp;
            PROTOCOL_UDP: udp;
            PROTOCOL_ICMP: icmp;
            default: accept;
        }
    }

    state ipv6 {
        pkt.extract(hdr.ipv6);
        transition select(hdr.ipv6.next_hdr) {
            PROTOCOL_TCP: tcp;
            PROTOCOL_UDP: udp;
            PROTOCOL_ICMP6: icmp;
            default: accept;
        }
    }

    state icmp {
        pkt.extract(hdr.icmp);
        ingress.nat_id = hdr.icmp.identifier;
        transition accept;
    }

    state tcp {
        pkt.extract(hdr.tcp);
        ingress.src_port = hdr.tcp.src_port;
        ingress.nat_id = hdr.tcp.dst_port;
        transition accept;
    }

    state udp {
        pkt.extract(hdr.udp);
        ingress.src_port = hdr.udp.src_port;
        ingress.nat_id = hdr.udp.dst_port;
        transition select(hdr.udp.dst_port) {
            PORT_GENEVE: geneve;
            default: accept;
        }
    }

    state geneve {
        pkt.extract(hdr.geneve);
        ingress.geneve_words = hdr.geneve.opt_len;
        transition geneve_options;
    }

    state geneve_options {
        transition select(ingress.geneve_words) {
            0: inner;
            default: geneve_option;
        }
    }

    // Options that come in the order of their headers are told apart. Others,
    // and all behind them, are kept as they are: what carries a tunnel on must
    // change nothing in it.
    state geneve_option {
        geneve_opt_h opt = pkt.lookahead<geneve_opt_h>();
        transition select(opt.class, opt.type, opt.opt_len, ingress.geneve_step) {
            (OX_CLASS, OX_EXTERNAL, 0, 0): external;
            (OX_CLASS, OX_MULTICAST, 1, 0..1): multicast;
            (OX_CLASS, OX_MSS, 1, 0..2): mss;
            default: other_options;
        }
    }

    state external {
        pkt.extract(hdr.external);
        ingress.geneve_words = ingress.geneve_words - 1;
        ingress.geneve_step = 1;
        transition geneve_options;
    }

    state multicast {
        verify(ingress.geneve_words >= 2, error.HeaderTooShort);
        pkt.extract(hdr.multicast_opt);
        pkt.extract(hdr.multicast);
        ingress.geneve_words = ingress.geneve_words - 2;
        ingress.geneve_step = 2;
        transition geneve_options;
    }

    state mss {
        verify(ingress.geneve_words >= 2, error.HeaderTooShort);
        pkt.extract(hdr.mss_opt);
        pkt.extract(hdr.mss);
        ingress.geneve_words = ingress.geneve_words - 2;
        ingress.geneve_step = 3;
        transition geneve_options;
    }

    state other_options {
        pkt.extract(hdr.geneve_options, (bit<32>) ingress.geneve_words * 32);
        transition inner;
    }

    // What is in a tunnel matters only if the tunnel ends here, and then it must
    // be a packet.
    state inner {
        transition select(hdr.geneve.protocol) {
            TYPE_ETHERNET: inner_ethernet;
            default: accept;
        }
    }

    state inner_ethernet {
        pkt.extract(hdr.inner_ethernet);
        transition select(hdr.inner_ethernet.ether_type) {
            TYPE_IPV4: inner_ipv4;
            TYPE_IPV6: inner_ipv6;
            default: accept;
        }
    }

    state inner_ipv4 {
        pkt.extract(hdr.inner_ipv4);
        transition accept;
    }

    state inner_ipv6 {
        pkt.extract(hdr.inner_ipv6);
        transition accept;
    }
}
