header h_t { bit<8> a; bit<16> b; }
header v_t { varbit<32> v; }
control sub(in bit<8> x, out bit<16> y) { apply { } }
parser ps(packet_in pkt, out h_t h) { state start { pkt.extract(h); transition accept; } }
parser p(packet_in pkt, out h_t h, out v_t v, inout h_t[2] s) {
    sub() nope;
    state start {
        pkt.extract();
        pkt.extract(h, 8);
        pkt.extract(v);
        pkt.extract(h.a);
        pkt.extract(3);
        h.a = pkt.lookahead();
        h.a = pkt.lookahead<bit<16>>();
        pkt.advance(true);
        pkt.rewind();
        transition select(h.a, h.b) { 1: accept; (1, 2, 3): accept; (true, 1): accept; (5..3, 1): accept; _: accept; (1, 1): accept; (): accept; };
    }
    state other { h.a = 1; }
    state third { transition select(h.a) { 1: fourth; } return; exit; }
}
control c(inout h_t h) {
    sub() s;
    ps() q;
    action act(in bit<8> x, out bit<8> y) { }
    apply {
        s.apply(h.a);
        s.apply(h.a, h.a);
        s.apply(h.a, 3);
        s.apply(h.a, h.b, 1);
        s.apply(x = h.a, z = h.b);
        s.apply(h.a, x = h.a, y = h.b);
        act(h.b, h.a);
        act(_, h.a);
        transition accept;
    }
}
