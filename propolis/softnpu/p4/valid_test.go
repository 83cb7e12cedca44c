package p4

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// Headers that are copied from the packet, and those that are not looked at, leave as they would if all were looked at and
// written field by field.
func TestUntouchedHeaders(t *testing.T) {
	const chain = `state start { pkt.extract(hdr.h); transition select(hdr.h.a[1:0]) { 0: accept; 1: s; 2: g; default: v; } }
		state s { pkt.extract(hdr.s.next); transition select(hdr.s.last.a[0:0]) { 1: g; default: s; } }
		state g { pkt.extract(hdr.g); transition select(hdr.g.a[1:0]) { 0: accept; 1: x; default: v; } }
		state x { pkt.extract(hdr.x); transition v; }
		state v { pkt.extract(hdr.v, (bit<32>) (hdr.h.b[2:0] ++ 3w0)); transition accept; }`
	p := parts{globals: "header v_t { bit<4> n; varbit<64> o; bit<4> p; } header x_t { bit<12> q; } control blank(out h_t[4] s) { apply { } } control copy(inout h_t x, in h_t y) { apply { x = y; } }",
		headers: "h_t h; h_t[4] s; h_t g; x_t x; v_t v; h_t last;", states: chain}
	texts := map[string]string{}
	for _, code := range []string{"", "hdr.g.a = 9;", "hdr.h.setInvalid();", "hdr.g.setValid();", "hdr.s.push_front(1); hdr.s[0].setValid();", "hdr.s.pop_front(1);",
		"hdr.last = hdr.g;", "hdr.s[hdr.h.b].b = 7;", "hdr.x.setInvalid(); hdr.x.setValid();", "blank() k; ", "hdr.g = {#};", "headers_t o = hdr; o.last = o.h; o.g.setInvalid(); hdr = o;"} {
		q := p
		q.ingress = code
		if code == "blank() k; " {
			q.locals, q.ingress = code, "k.apply(hdr.s); hdr.s[1].setValid();"
		}
		texts["code "+code] = q.text()
	}
	for _, f := range []string{"hub.p4", "router.p4", "vlan_switch.p4"} {
		texts[f] = ""
	}
	r := rand.New(rand.NewPCG(1, 2))
	for name, text := range texts {
		t.Run(name, func(t *testing.T) {
			compiled := func() *Pipeline {
				if text != "" {
					return newPipeline(t, text, 4)
				}
				return program(t, name, 4)
			}
			fast, plain := compiled(), compiled()
			for i := range plain.program.parts {
				plain.program.parts[i].written = true
				plain.program.parsed[i/64] |= 1 << (i % 64)
				plain.program.made[i/64] |= 1 << (i % 64)
			}
			pass := func(pl *Pipeline, in []byte) string {
				out := ""
				r := pl.Process(1, in, func(port uint16, frame []byte) { out += fmt.Sprintf("%d:%x ", port, frame) })
				return out + r.String()
			}
			for range 3000 {
				in := make([]byte, r.IntN(40))
				for i := range in {
					in[i] = byte(r.Uint32())
				}
				if r.IntN(2) == 0 && len(in) > 14 {
					copy(in[12:], [][]byte{{0x08, 0x00, 0x45}, {0x86, 0xdd}, {0x81, 0x00}}[r.IntN(3)])
				}
				keep := bytes.Clone(in)
				if a, b := pass(fast, in), pass(plain, in); a != b || !bytes.Equal(in, keep) {
					t.Fatalf("packet %x came out as\n%s\nand otherwise as\n%s", keep, a, b)
				}
			}
		})
	}
}

// A program may have more headers than a word has bits.
func TestManyHeaders(t *testing.T) {
	pl := parts{fields: "bit<8> a;", headers: "h_t h; h_t[100] s; h_t last;",
		states:  "state start { pkt.extract(hdr.h); transition select(hdr.h.a) { 0: end; default: more; } } state more { pkt.extract(hdr.s.next); transition select(hdr.s.last.a) { 0: end; default: more; } } state end { pkt.extract(hdr.last); transition accept; }",
		ingress: "hdr.s[70].setInvalid(); if (hdr.s[80].isValid()) { hdr.s[81].a = 0xee; }"}.pipeline(t)
	in, out := "01", "01"
	for i := range 90 {
		b := fmt.Sprintf("%02x", (i+1)%90)
		in += b
		switch i {
		case 70:
		case 81:
			out += "ee"
		default:
			out += b
		}
	}
	expect(t, pl, 0, in+"55 aabb", "1:"+out+"55 aabb")
	expect(t, pl, 0, "00 66 cc", "1:0066cc")
}
