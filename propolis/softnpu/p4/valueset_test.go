package p4

import (
	"errors"
	"testing"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/match"
)

// A value set begins empty, and a select finds in it what is added while the program runs.
func TestValueSets(t *testing.T) {
	one := func(v ...byte) []match.Match {
		var m []match.Match
		for _, b := range v {
			m = append(m, match.Match{Value: []byte{b}})
		}
		return m
	}
	for _, tc := range []struct {
		name, set, label string
		match            []match.Match
		hit, miss        []string
	}{
		{"a number", "value_set<bit<8>>(4) vs;", "select(hdr.h.a) { vs: good; 0x7f: reject; default: accept; }", one(5), []string{"0500"}, []string{"0600"}},
		{"a number among others", "value_set<bit<8>>(4) vs;", "select(hdr.h.a, hdr.h.b) { (vs, 0): good; default: accept; }", one(5), []string{"0500"}, []string{"0501", "0600"}},
		{"a type of its own", "value_set<port_t>(4) vs;", "select((port_t) hdr.h.a) { vs: good; default: accept; }", one(5), []string{"0500"}, []string{"0600"}},
		{"a struct", "value_set<pair_t>(4) vs;", "select(hdr.h.a, hdr.h.b) { vs: good; (0x7f, 0x7f): reject; default: accept; }",
			[]match.Match{{Value: []byte{5}}, {Value: []byte{0x10}, Mask: []byte{0xf0}}}, []string{"0510", "051f"}, []string{"0520", "0610"}},
		{"a struct in a struct", "value_set<outer_t>(4) vs;", "select(hdr.h.a, hdr.h.b, hdr.h.a) { vs: good; default: accept; }",
			[]match.Match{{Value: []byte{5}}, {Value: []byte{0}, Mask: []byte{0}}, {Value: []byte{5}}}, []string{"0510", "0500"}, []string{"0610"}},
		{"a tuple", "value_set<tuple<bit<8>, bit<8>>>(4) vs;", "select(hdr.h.a, hdr.h.b) { vs: good; default: accept; }", one(5, 6), []string{"0506"}, []string{"0605"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pl := parts{globals: "type bit<8> port_t; struct pair_t { bit<8> x; @match(ternary) bit<8> y; } struct outer_t { pair_t p; bit<8> z; }",
				states: tc.set + "state start { pkt.extract(hdr.h); transition " + tc.label + " } state good { im.scratch = 1; transition accept; }", ingress: "if (im.scratch == 1) { em.port = 2; }"}.pipeline(t)
			all := append(tc.hit, tc.miss...)
			for _, p := range all {
				expect(t, pl, 0, p, "1:"+p)
			}
			entry := Entry{Match: tc.match, Action: "member"}
			if err := pl.Add("parse.vs", entry); err != nil {
				t.Fatal(err)
			}
			if err := pl.Add("parse.vs", entry); !errors.Is(err, match.ErrExists) {
				t.Errorf("a member was added twice: %v", err)
			}
			for _, p := range tc.hit {
				expect(t, pl, 0, p, "2:"+p)
			}
			for _, p := range tc.miss {
				expect(t, pl, 0, p, "1:"+p)
			}
			if err := pl.Remove("parse.vs", tc.match, 0); err != nil {
				t.Fatal(err)
			}
			for _, p := range all {
				expect(t, pl, 0, p, "1:"+p)
			}
		})
	}
}

// A parser that is applied twice has its value set once, and each instance one of its own.
func TestValueSetsOfInstances(t *testing.T) {
	pl := parts{fields: "bit<8> a; bit<8> b;",
		globals: "parser sub(inout bit<8> x) { value_set<bit<8>>(4) vs; state start { transition select(x) { vs: yes; default: accept; } } state yes { x = 0xff; transition accept; } }",
		states:  "sub() s; sub() t; state start { pkt.extract(hdr.h); s.apply(hdr.h.a); s.apply(hdr.h.b); t.apply(hdr.h.b); transition accept; }"}.pipeline(t)
	for set, v := range map[string]byte{"parse.s.vs": 1, "parse.t.vs": 2} {
		if err := pl.Add(set, Entry{Match: []match.Match{{Value: []byte{v}}}, Action: "member"}); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, pl, 0, "0101", "1:ffff")
	expect(t, pl, 0, "0202", "1:02ff")
	for _, err := range []error{pl.SetDefault("parse.s.vs", "member", nil), pl.Add("parse.s.vs", Entry{Match: []match.Match{{Value: []byte{9}}}, Action: "NoAction"})} {
		if err == nil {
			t.Error("a value set took something that is no member")
		}
	}
}
