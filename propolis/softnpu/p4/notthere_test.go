package p4

import (
	"strings"
	"testing"
)

// What the documentation of the package says is not there is an error, with its place, and nothing is left out silently.
func TestNotThere(t *testing.T) {
	for name, p := range map[string]parts{
		"bit<0>":                            {ingress: "bit<0> x;"},
		"a width above 2048":                {ingress: "bit<2049> x;"},
		"a list type":                       {ingress: "list<bit<8>> x;"},
		"a value of match_kind":             {globals: "const match_kind K = exact;"},
		"a value of int":                    {globals: "int f(in int x) { return x; }", ingress: "hdr.h.a = f(1);"},
		"a variable of int":                 {ingress: "int x = 1;"},
		"a type that is to follow":          {globals: "T f<T>(in T x) { return x; }", ingress: "hdr.h.a = f<_>(hdr.h.a);"},
		"an array of numbers":               {globals: "struct s_t { bit<8>[4] x; }", ingress: "s_t s;"},
		"a stack of structs":                {globals: "struct i_t { bit<8> x; } struct s_t { i_t[4] x; }", ingress: "s_t s;"},
		"a list as a stack":                 {ingress: "h_t[2] s = { { 1, 2 }, { 3, 4 } };"},
		"dots as a first value":             {ingress: "h_t x = ...;"},
		"dots in a list":                    {ingress: "h_t x = { a = 1, ... };"},
		"lists in a conditional":            {ingress: "h_t x = hdr.h.a == 1 ? { 1, 2 } : { 3, 4 };"},
		"two varbits":                       {globals: "header v_t { varbit<8> a; varbit<8> b; }"},
		"a string on two lines":             {globals: "const string S = \"a\nb\";"},
		"strings put together":              {globals: "const string S = \"a\" ++ \"b\";"},
		"a struct in a struct":              {globals: "struct s_t { struct i_t { bit<8> x; } y; }"},
		"a generic control":                 {globals: "control c<T>(inout T x) { apply { } }"},
		"a generic parser":                  {globals: "parser q<T>(packet_in p, out T x) { state start { transition accept; } }"},
		"a control as an argument":          {globals: "control ct(inout bit<8> x); control c(inout bit<8> x)(ct k) { apply { k.apply(x); } } control d(inout bit<8> x) { apply { x = 1; } }", locals: "c(d()) i;", ingress: "i.apply(hdr.h.a);"},
		"an array of instances":             {locals: "Checksum[2]() c;"},
		"an abstract extern":                {globals: "extern V { V(); abstract bit<8> f(in bit<8> x); }", locals: "V() v = { bit<8> f(in bit<8> x) { return x; } };"},
		"a typedef of an extern":            {globals: "typedef Checksum sum_t;", locals: "sum_t() s;"},
		"functions of one name":             {globals: "bit<8> f(in bit<8> x) { return x; } bit<8> f(in bit<8> x, in bit<8> y) { return y; }"},
		"controls of one name":              {globals: "control c(inout bit<8> x) { apply { } } control c(inout bit<8> x, in bit<8> y) { apply { } }"},
		"a function in a constant":          {globals: "bit<8> f(in bit<8> x) { return x; } const bit<8> K = f(1);"},
		"lists compared in a constant":      {globals: "const bool K = { 1, 2 } == { 1, 2 };"},
		"select on a struct":                {globals: "struct s_t { bit<8> x; }", states: "state start { s_t s; s.x = 1; transition select(s) { default: accept; } }"},
		"select on a list":                  {states: "state start { pkt.extract(hdr.h); transition select({ hdr.h.a, hdr.h.b }) { default: accept; } }"},
		"a switch on a string":              {ingress: "switch (\"a\") { \"a\": { } }"},
		"lookahead of a stack":              {globals: "struct s_t { h_t[2] x; }", states: "state start { s_t s = pkt.lookahead<s_t>(); transition accept; }"},
		"lookahead of a union":              {globals: "header x_t { bit<8> x; } header_union u_t { x_t a; } struct s_t { u_t u; }", states: "state start { s_t s = pkt.lookahead<s_t>(); transition accept; }"},
		"lookahead of a varbit":             {globals: "header v_t { varbit<8> a; }", states: "state start { v_t s = pkt.lookahead<v_t>(); transition accept; }"},
		"lookahead of an error":             {states: "state start { error e = pkt.lookahead<error>(); transition accept; }"},
		"lookahead of an enum":              {globals: "enum e_t { a, b }", states: "state start { e_t e = pkt.lookahead<e_t>(); transition accept; }"},
		"a header that an entry sets":       {locals: "action a(h_t x) { } table t { actions = { a; } } ", ingress: "t.apply();"},
		"a tuple that an entry sets":        {locals: "action a(tuple<bit<8>> x) { } table t { actions = { a; } } ", ingress: "t.apply();"},
		"an error that an entry sets":       {locals: "action a(error x) { } table t { actions = { a; } } ", ingress: "t.apply();"},
		"a register of headers":             {locals: "register<h_t>(4) r;"},
		"a register of tuples":              {locals: "register<tuple<bit<8>>>(4) r;"},
		"minus of an enum":                  {globals: "enum bit<8> e_t { a = 1 }", ingress: "hdr.h.a = -e_t.a;"},
		"the first value of a register":     {locals: "Register<bit<8>, bit<8>>(4, 1) r;"},
		"a value set outside of parsers":    {globals: "value_set<bit<8>>(4) vs;"},
		"a match kind of the program's own": {globals: "match_kind { mine }", locals: "table t { key = { hdr.h.a: mine; } actions = { NoAction; } }", ingress: "t.apply();"},
		"selector":                          {locals: "table t { key = { hdr.h.a: selector; } actions = { NoAction; } }", ingress: "t.apply();"},
		"an implementation":                 {locals: "table t { key = { hdr.h.a: exact; } actions = { NoAction; } implementation = 1; }", ingress: "t.apply();"},
		"meters of a table":                 {locals: "table t { key = { hdr.h.a: exact; } actions = { NoAction; } meters = 1; }", ingress: "t.apply();"},
		"a timeout":                         {locals: "table t { key = { hdr.h.a: exact; } actions = { NoAction; } support_timeout = true; }", ingress: "t.apply();"},
		"an extern that is not known":       {globals: "extern M { M(); void f(); }", locals: "M() m;"},
		"a function that is not known":      {globals: "extern void clone(in bit<8> x);", ingress: "clone(1);"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Compile(Files("test.p4", map[string]string{"test.p4": p.text()}))
			if err == nil {
				t.Fatal("it compiles")
			}
			if !strings.Contains(err.Error(), "test.p4:") {
				t.Errorf("no place: %v", err)
			}
		})
	}
}
