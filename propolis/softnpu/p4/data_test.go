package p4

import (
	"bytes"
	"testing"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/match"
)

const hopTypes = "struct mac_t { bit<12> hi; bit<100> lo; } struct hop_t { bit<8> port; mac_t mac; bool ok; } const hop_t HOME = { 5, { 0x123, 0x1_0000_0000_0000_0000_0000_0007 }, true };"

// A parameter of an action that is a struct is set field by field.
func TestStructsInEntries(t *testing.T) {
	pl := parts{globals: hopTypes, fields: "bit<8> a; bit<8> b; bit<12> c; bit<100> d;", locals: `
		action go(bit<8> n, hop_t h, bit<8> k) { if (h.ok) { hdr.h.a = n + k; hdr.h.b = h.port; hdr.h.c = h.mac.hi; hdr.h.d = h.mac.lo; } }
		table t { key = { hdr.h.a: exact; } actions = { go; NoAction; } default_action = go(1, HOME, 2);
			entries = { 1: go(3, { mac = { lo = 100w9, hi = 8 }, port = 7, ok = true }, 4); } }`,
		ingress: "t.apply();"}.pipeline(t)
	const zero = "00 000 0000000000000000000000000"
	expect(t, pl, 0, "01"+zero, "1:07 07 008 0000000000000000000000009")
	expect(t, pl, 0, "02"+zero, "1:03 05 123 1000000000000000000000007")

	tab := pl.Tables()[0]
	var names []string
	for _, p := range tab.Actions[0].Params {
		names = append(names, p.Name)
	}
	want := []string{"n", "h.port", "h.mac.hi", "h.mac.lo", "h.ok", "k"}
	if len(names) != len(want) {
		t.Fatalf("the parameters are %v, want %v", names, want)
	}
	for i := range want {
		if names[i] != want[i] {
			t.Errorf("parameter %d is %s, want %s", i, names[i], want[i])
		}
	}
	args := [][]byte{{0x10}, {0x20}, {0x03, 0x45}, bytes.Repeat([]byte{0x01}, 13), {1}, {0x02}}
	if err := pl.Add(tab.Name, Entry{Match: []match.Match{{Value: []byte{9}}}, Action: "go", Args: args}); err != nil {
		t.Fatal(err)
	}
	expect(t, pl, 0, "09"+zero, "1:12 20 345 1010101010101010101010101")
	es, err := pl.Entries(tab.Name)
	if err != nil || len(es) != 2 {
		t.Fatalf("the entries are %v, %v", es, err)
	}
	for i, a := range es[1].Args {
		if !bytes.Equal(a, args[i]) {
			t.Errorf("argument %d is %x, want %x", i, a, args[i])
		}
	}
	if err := pl.SetDefault(tab.Name, "go", args); err != nil {
		t.Fatal(err)
	}
	expect(t, pl, 0, "77"+zero, "1:12 20 345 1010101010101010101010101")
	if err := pl.SetDefault(tab.Name, "go", args[:3]); err == nil {
		t.Error("an action was set with too few arguments")
	}
}

// A register of structs keeps them whole.
func TestRegistersOfStructs(t *testing.T) {
	pl := parts{globals: hopTypes, fields: "bit<8> a; bit<8> b; bit<12> c; bit<100> d;", locals: "register<hop_t>(4) r; Register<mac_t, bit<8>>(4) q;",
		ingress: "hop_t x; r.read(x, (bit<32>) hdr.h.a); hdr.h.b = x.port; hdr.h.c = x.mac.hi; x.port = x.port + 1; x.mac = q.read(2); x.ok = !x.ok; r.write((bit<32>) hdr.h.a, x); hdr.h.d = x.mac.lo; q.write(3, { 1, 2 });"}.pipeline(t)
	expect(t, pl, 0, "01 00 000 0000000000000000000000000", "1:01 00 000 0000000000000000000000000")
	expect(t, pl, 0, "01 00 000 0000000000000000000000000", "1:01 01 000 0000000000000000000000000")
	if v, err := pl.Register("ingress.q", 3); err != nil || !bytes.Equal(v, unhex(t, "001 0000000000000000000000002")) {
		t.Errorf("the register holds %x, %v", v, err)
	}
	if err := pl.SetRegister("ingress.q", 2, unhex(t, "345 1000000000000000000000009")); err != nil {
		t.Fatal(err)
	}
	expect(t, pl, 0, "01 00 000 0000000000000000000000000", "1:01 02 000 1000000000000000000000009")
	expect(t, pl, 0, "01 00 000 0000000000000000000000000", "1:01 03 345 1000000000000000000000009")
	// 8 bits of the port, 12 and 100 of the address, and one that says that it is good, which begins as false.
	if v, err := pl.Register("ingress.r", 1); err != nil || !bytes.Equal(v, unhex(t, "00 08 68 a2 0000000000000000000000 12")) {
		t.Errorf("the register holds %x, %v", v, err)
	}
	if err := pl.SetRegister("ingress.r", 1, make([]byte, 15)); err == nil {
		t.Error("a register was set to a number of another size")
	}
	expect(t, pl, 0, "09 00 000 0000000000000000000000000", "1:09 00 000 1000000000000000000000009")
}
