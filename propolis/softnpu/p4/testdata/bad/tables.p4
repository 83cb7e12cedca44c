header h_t { bit<8> a; bit<32> b; int<8> i; }
control c(inout h_t h) {
    action one(bit<8> x) { }
    action two(bit<8> x, inout bit<8> y) { }
    action three(in bit<8> x, bit<8> y) { h.a = x; }
    action apply_in_action() { t.apply(); }
    table t {
        key = { h.a: exact; h.b: lpm; h.a: selector; h.i: range; h: exact; }
        actions = { one; two; three; three(h.a); four; }
        default_action = one;
        size = 0;
        implementation = 3;
    }
    table e {
        key = { h.a: exact; h.b: lpm; }
        actions = { one; }
        const default_action = one(h.a);
        const entries = {
            (1, 0x0a000000 &&& 0xff00ff00): one(1);
            (1): one(1);
            (1, 2, 3): one(1);
            (_, 1): one(1);
            (1 &&& 2, 1): one(1);
            (1..2, 1): one(1);
            (h.a, 1): one(1);
            (1, 1): one(1, 2);
            (1, 1): five();
        }
    }
    table r {
        key = { h.a: range; }
        actions = { one; }
        entries = { 5..3: one(1); 300: one(1); }
    }
    table n { key = { h.a: exact; } }
    apply {
        t.apply(); e.apply(); r.apply();
        if (e.apply()) { }
        if (e.apply().hits) { }
        switch (e.apply().action_run) { one: { } one: { } six: { } }
        h.a = e.apply().action_run;
    }
}

control d(inout h_t h) {
    action two(inout bit<8> y, bit<8> x) { y = x; }
    table t {
        key = { h.a: optional; h.b: ternary; }
        actions = { two(h.a); }
        default_action = two(h.b, 1);
        const entries = {
            (1 &&& 2, _): two(1);
            (1, 5): two(1);
            (_, 5): two(1);
            (1, 5): two(h.a, 2);
            (): two(1);
            {}: two(1);
        }
    }
    apply { t.apply(); }
}
