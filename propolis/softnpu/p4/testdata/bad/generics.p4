struct pair_t<T> { T x; T y; }
struct loop_t<T> { loop_t<T> x; }
struct grow_t<T> { grow_t<tuple<T, T>> x; }
struct plain_t { bit<8> x; }
T same<T>(in T x) { return x; }
T make<T>() { T x; return x; }
void two<A, B>(in A x, in B y) { }
bit<8> plain(in bit<8> x) { return x; }
control c(inout plain_t s) {
    action set<T>(inout T x, T y) { x = y; }
    action late<T>(T y) { }
    table t { actions = { set(s.x); late; } }
    pair_t p;
    pair_t<bit<8>, bit<8>> q;
    plain_t<bit<8>> r;
    loop_t<bit<8>> l;
    grow_t<bit<8>> g;
    pair_t<bit<8>> u;
    pair_t<bit<16>> v;
    apply {
        s.x = same(1);
        s.x = make();
        two<bit<8>>(s.x, s.x);
        s.x = plain<bit<8>>(s.x);
        s.x = same(true);
        u = v;
        s.x = same<nothing_t>(s.x);
        t.apply();
    }
}
