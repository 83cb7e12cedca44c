package V1Switch<H, M>(bit<8> x);
header g_t<T> { T x; }
struct in_t { bit<8> x; }
header n_t { in_t x; }
extern Mystery { void solve(); }
extern void oracle(in bit<8> x);
T same<T>(in T x) { return x; }
control generic<T>(inout T x) { apply { } }
bit<8> global_variable;
parser p(packet_in pkt) {
    value_set<bit<8>>(4) vs;
    state start {
        truncate(32w1);
        transition accept;
    }
}
control c(inout in_t s) {
    Mystery() m;
    Register<bit<8>>(0) r;
    Hash<bit<16>>(3) h;
    Checksum(1) k;
    Checksum() sum;
    packet_in() q;
    apply {
        m.solve();
        oracle(1);
        s.x = same(s.x);
        sum.walk();
        sum.run();
        sum.run({ 1, s });
        verify(true, error.NoError);
        static_assert(1 == 2, "one is not two");
        hash(s.x, 1, 0, s.x, 1);
    }
}
V1Switch(1) main;
