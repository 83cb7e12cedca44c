header h_t { bit<8> a; bit<16> b; int<8> c; bit<0> z; bit<2049> y; string s; bool f; }
struct s_t { h_t h; bit<8> x; }
enum e_t { one, two }
enum bit<8> v_t { three = 3, four }

control c(inout s_t s, inout h_t[4] k, inout bit<128> w) {
    bit<8> n = s.h.b;
    apply {
        s.h.a = s.h.b;
        s.h.a = s.h.c;
        s.h.a = s.h.a + s.h.b;
        s.h.a = true;
        s.h = s;
        if (s.h.a) { }
        if (s.h.a == 1 && 3) { }
        s.h.a = !s.h.a;
        s.h.a = s.h.b[7:8];
        s.h.a = s.h.b[16:9];
        s.h.a = s.h.b[n:0];
        s.h.f = (bool) s.h.a;
        s.h.a = (bit<8>) (int<16>) s.h.b;
        s.h.a = (bit<8>) e_t.one;
        s.h.a = e_t.three;
        s.h.a = s.h.a << s.h.c;
        s.h.a = s.h.a / 0;
        s.h.c = s.h.c / s.h.c;
        s.h.a = k[4].a;
        s.h.a = s.x[0];
        k.next.a = 1;
        s = { 1, 2, 3 };
        s.h = { a = 1, q = 2 };
        s.h.a = s.h.f ? 1 : 2;
        s.h.a = s.h.f ? s.h.a : s.h.b;
        3 = s.h.a;
        s.h.a = c;
        s.h.a = { 1 };
        s.h.isValid;
        s.h.frob();
        w = s.h.a ++ 1;
        return 1;
    }
}
