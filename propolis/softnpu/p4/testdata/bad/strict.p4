type bit<8> port_t;
type bit<8> other_t;
type bool flag_t;
header h_t { bit<8> a; port_t p; other_t o; flag_t f; bit<7> rest; }
struct s_t { h_t h; }
type s_t t_t;

bit<8> fun(in bit<8> x) { bit<8> x = 1; return x; }

parser p(packet_in pkt, out s_t s) {
    state start { bit<8> s = 1; transition select() { default: accept; } }
    state next { transition select(s.h.p) { 1: accept; (port_t) 2: accept; } }
}
control c(inout s_t s, in bit<8> x) {
    bit<8> x = 3;
    action one(bit<8> v) { bit<8> v = 1; s.h.a = v; }
    action two(bit<8> v) { const bit<8> s = 1; }
    table t {
        entries = { 1: one(1); }
        key = { s.h.a: exact; }
        actions = { @tableonly one; @defaultonly two; NoAction; }
        default_action = one(1);
    }
    table u {
        key = { s.h.a: ternary; }
        actions = { one; @defaultonly two; }
        default_action = two(1);
        const entries = {
            1: two(1);
            2: one(1) @priority("high");
            3: one(1) @priority(1, 2);
            priority = 4: 4: one(1) @priority(1);
        }
    }
    table l {
        key = { s.h.a: lpm; }
        actions = { one; }
        const entries = { 1: one(1) @priority(3); }
    }
    apply {
        { bit<8> s = 1; }
        s.h.p = 1;
        s.h.p = s.h.a;
        s.h.a = s.h.p;
        s.h.p = s.h.o;
        s.h.p = s.h.p + s.h.p;
        s.h.p = s.h.p << 1;
        s.h.p = ~s.h.p;
        s.h.p[0:0] = 1;
        if (s.h.p < s.h.p) { }
        if (s.h.p == s.h.a) { }
        if (s.h.p == 1) { }
        if (s.h.f) { }
        if (!s.h.f) { }
        s.h.a = s.h.p ++ s.h.p;
        switch (s.h.a) { 1: { } default: { } 2: { } }
        switch (s.h.a) { default: { } default: { } }
        switch (t.apply().action_run) { default: { } one: { } }
        switch (u.apply().action_run) { default: { } default: { } }
        l.apply();
    }
}
control loops(inout h_t h) {
    action leave() { break; }
    apply {
        continue;
        for (bit<8> i in 1 .. 16w2) { leave(); }
        for (bit<8> i = 0; i; i = i + 1) { }
        for (bool b in true .. false) { }
        for (bit<8> x in h) { }
        for (bit<8> x in { 1, true }) { }
        h.a = h.a[h.a+:9];
        h.a[3:0] = h.a[5+:4];
        h.a[3:0] = h.a[h.f+:4];
        h.a[3:0] = h.a[0+:0];
        h.a = h.p[0+:8];
    }
}
