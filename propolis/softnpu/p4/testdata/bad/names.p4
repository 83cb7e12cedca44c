struct s_t { bit<8> a; missing_t m; }
struct s_t { bit<8> b; }
header loop_t { loop_t x; }
header twice_t { bit<8> x; bit<8> x; }
const bit<8> ONE = TWO;
const bit<8> TWO = ONE;

control c(inout s_t s, in bit<8> i) {
    bit<8> v = 1;
    bit<8> v = 2;
    action a() { s.nothing = 1; }
    action a() { }
    table t {
        key = { s.a: exact; w: exact; }
        actions = { a; b; a; }
        default_action = d;
    }
    c() again;
    nobody() x;
    s_t() y;
    apply {
        u = v;
        i = 3;
        ONE = 3;
        t.apply(1);
        t.run();
        z.apply();
        f(1);
        v(1);
        s.a.apply();
        a;
    }
}

parser p(packet_in pkt, out twice_t h) {
    state begin { transition nowhere; }
    state begin { transition accept; }
    state accept { }
}
