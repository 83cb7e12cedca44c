bit<8> f(in bit<8> x) { return g(x); }
bit<8> g(in bit<8> x) { return f(x); }
bit<8> h(in bit<8> x) { if (x == 1) { return 1; } }
control a(inout bit<8> x) { b() i; apply { i.apply(x); } }
control b(inout bit<8> x) { a() i; apply { i.apply(x); } }
control c(inout bit<8> x) { action p() { q(); } action q() { p(); } apply { p(); } }
