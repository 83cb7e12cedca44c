header h_t {
    bit<8> a
    bit<8> b;
}

struct s_t { bit<8> switch; }

control c(inout h_t h) {
    action a( { }
    table t {
        key = { h.a exact; }
        actions = { a; }
    }
    apply {
        h.a = ;
        h.b = 1;
        if h.a == 1 { }
        h.a + 1;
        for (;;) { }
        h.b = (1 + ;
    }
}

parser p(packet_in pkt) {
    state start {
        transition select(1w1) { 1 accept; };
    }
}

}
const bit<8> fine = 1;
control unfinished() { apply {
