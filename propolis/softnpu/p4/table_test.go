package p4

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/match"
)

func digits(s string) []byte {
	var b []byte
	fmt.Sscanf(strings.ReplaceAll(s, " ", ""), "%x", &b)
	return b
}

func keys(ms ...match.Match) []match.Match { return ms }
func exact(v string) match.Match           { return match.Match{Value: digits(v)} }
func prefix(v string, n int) match.Match   { return match.Match{Value: digits(v), Prefix: n} }
func masked(v, m string) match.Match       { return match.Match{Value: digits(v), Mask: digits(m)} }
func between(lo, hi string) match.Match    { return match.Match{Value: digits(lo), High: digits(hi)} }

func entry(action string, m []match.Match, priority int, args ...string) Entry {
	e := Entry{Match: m, Priority: priority, Action: action}
	for _, a := range args {
		e.Args = append(e.Args, digits(a))
	}
	return e
}

func add(t testing.TB, pl *Pipeline, table, action string, m []match.Match, args ...string) {
	t.Helper()
	if err := pl.Add(table, entry(action, m, 0, args...)); err != nil {
		t.Fatal(err)
	}
}

// tables has a table of each kind, chosen by the first byte of the packet; the action writes its parameter.
var tables = parts{fields: "bit<8> which; bit<32> addr; bit<16> port; bit<128> addr6; bit<4> nibble; bit<12> vid; bit<8> res;",
	locals: `action set(bit<8> x) { hdr.h.res = x; }
	action wide(bit<12> vid, bit<128> a) { hdr.h.vid = vid; hdr.h.addr6 = a; }
	action miss() { hdr.h.res = 0xff; }
	table t_exact { key = { hdr.h.addr: exact; hdr.h.vid: exact; } actions = { set; wide; miss; } default_action = miss; }
	table t_lpm { key = { hdr.h.addr: lpm; } actions = { set; miss; } default_action = miss; }
	table t_lpm6 { key = { hdr.h.addr6: lpm @name("destination"); } actions = { set; miss; } default_action = miss; }
	table t_ternary { key = { hdr.h.addr: ternary; hdr.h.port: ternary; } actions = { set; miss; } default_action = miss; }
	table t_range { key = { hdr.h.nibble: exact; hdr.h.port: range; } actions = { set; miss; } default_action = miss; }
	table t_mixed { key = { hdr.h.nibble: exact; hdr.h.addr: lpm; hdr.h.port: ternary; hdr.h.vid: range; } actions = { set; miss; } default_action = miss; }
	table t_odd { key = { hdr.h.addr6[70:5]: exact; hdr.h.which == 7: exact; } actions = { set; miss; } default_action = miss; }
	table t_optional { key = { hdr.h.port: optional; } actions = { set; miss; } default_action = miss; }`,
	ingress: `if (hdr.h.which == 0) { t_exact.apply(); } if (hdr.h.which == 1) { t_lpm.apply(); } if (hdr.h.which == 2) { t_lpm6.apply(); }
	if (hdr.h.which == 3) { t_ternary.apply(); } if (hdr.h.which == 4) { t_range.apply(); } if (hdr.h.which == 5) { t_mixed.apply(); }
	if (hdr.h.which == 7) { t_odd.apply(); } if (hdr.h.which == 8) { t_optional.apply(); }`}

// packet is one for the tables.
func packet(which, addr, port, addr6, nibbleVid string) string {
	return which + addr + port + addr6 + nibbleVid + "00"
}

func TestTables(t *testing.T) {
	const a6 = "fd000001000000000000000000000001"
	type look struct{ packet, want string }
	for _, tc := range []struct {
		table   string
		entries []Entry
		looks   []look
	}{
		{"t_exact", []Entry{entry("set", keys(exact("0a000001"), exact("0123")), 0, "11"), entry("set", keys(exact("0a000001"), exact("0124")), 0, "12")},
			[]look{{packet("00", "0a000001", "0000", a6, "f123"), "11"}, {packet("00", "0a000001", "0000", a6, "0124"), "12"}, {packet("00", "0a000002", "0000", a6, "0124"), "ff"}}},
		{"t_lpm", []Entry{entry("set", keys(prefix("00000000", 0)), 0, "01"), entry("set", keys(prefix("0a000000", 8)), 0, "08"), entry("set", keys(prefix("0a010000", 16)), 0, "10"), entry("set", keys(prefix("0a010203", 32)), 0, "20")},
			[]look{{packet("01", "0a010203", "0000", a6, "0000"), "20"}, {packet("01", "0a010204", "0000", a6, "0000"), "10"}, {packet("01", "0a020204", "0000", a6, "0000"), "08"}, {packet("01", "0b020204", "0000", a6, "0000"), "01"}}},
		{"t_lpm6", []Entry{entry("set", keys(prefix("fd000001000000000000000000000000", 64)), 0, "40")},
			[]look{{packet("02", "00000000", "0000", a6, "0000"), "40"}, {packet("02", "00000000", "0000", "fd000002000000000000000000000001", "0000"), "ff"}}},
		{"t_ternary", []Entry{entry("set", keys(masked("0a000000", "ff000000"), masked("0000", "0000")), 1, "01"), entry("set", keys(masked("00000000", "00000000"), masked("0050", "ffff")), 2, "02"), entry("set", keys(masked("0a000001", "ffffffff"), masked("0050", "ffff")), 3, "03")},
			[]look{{packet("03", "0a000002", "0051", a6, "0000"), "01"}, {packet("03", "0a000002", "0050", a6, "0000"), "02"}, {packet("03", "0a000001", "0050", a6, "0000"), "03"}, {packet("03", "0b000001", "0051", a6, "0000"), "ff"}}},
		{"t_range", []Entry{entry("set", keys(exact("01"), between("03e8", "07d0")), 0, "01"), entry("set", keys(exact("01"), between("07d1", "ffff")), 0, "02")},
			[]look{{packet("04", "00000000", "03e8", a6, "1000"), "01"}, {packet("04", "00000000", "07d0", a6, "1000"), "01"}, {packet("04", "00000000", "07d1", a6, "1000"), "02"}, {packet("04", "00000000", "03e7", a6, "1000"), "ff"}, {packet("04", "00000000", "03e8", a6, "2000"), "ff"}}},
		{"t_mixed", []Entry{entry("set", keys(exact("01"), prefix("0a000000", 8), masked("0000", "0001"), between("0000", "00ff")), 5, "01"), entry("set", keys(exact("01"), prefix("0a010000", 16), masked("0000", "0000"), between("0000", "0fff")), 5, "02"), entry("set", keys(exact("01"), prefix("0a000000", 8), masked("0000", "0000"), between("0100", "01ff")), 9, "03")},
			[]look{{packet("05", "0a020000", "0002", a6, "1010"), "01"}, {packet("05", "0a010000", "0002", a6, "1010"), "02"}, {packet("05", "0a010000", "0002", a6, "1101"), "03"}, {packet("05", "0a020000", "0001", a6, "1010"), "ff"}}},
		{"t_odd", []Entry{entry("set", keys(exact("03 5555555555555555"), exact("01")), 0, "01")},
			[]look{{packet("07", "00000000", "0000", "000000000000006a aaaaaaaaaaaaaaa0", "0000"), "01"}, {packet("07", "00000000", "0000", a6, "0000"), "ff"}}},
		{"t_optional", []Entry{entry("set", keys(masked("0050", "ffff")), 2, "01"), entry("set", keys(masked("0000", "0000")), 1, "02")},
			[]look{{packet("08", "00000000", "0050", a6, "0000"), "01"}, {packet("08", "00000000", "0051", a6, "0000"), "02"}}},
	} {
		t.Run(tc.table, func(t *testing.T) {
			pl := tables.pipeline(t)
			name := "ingress." + tc.table
			for _, e := range tc.entries {
				if err := pl.Add(name, e); err != nil {
					t.Fatal(err)
				}
			}
			misses := 0
			for _, l := range tc.looks {
				out := run(t, pl, 0, l.packet)
				if len(out) != 1 || fmt.Sprintf("%x", out[0].data[len(out[0].data)-1:]) != l.want {
					t.Errorf("%s: got %v, want %s", l.packet, out, l.want)
				}
				if l.want == "ff" {
					misses++
				}
			}
			count, err := pl.Counters(name)
			if err != nil || count != (TableCount{Hits: uint64(len(tc.looks) - misses), Misses: uint64(misses), Entries: len(tc.entries)}) {
				t.Errorf("the table counts %+v, %v", count, err)
			}
			got, err := pl.Entries(name)
			if err != nil || len(got) != len(tc.entries) {
				t.Fatalf("%d entries, %v", len(got), err)
			}
			hits := uint64(0)
			for i, e := range got {
				hits += e.Count.Packets
				want := tc.entries[i]
				if e.Action != want.Action || fmt.Sprint(e.Match) != fmt.Sprint(want.Match) || fmt.Sprint(e.Args) != fmt.Sprint(want.Args) || e.Priority != want.Priority {
					t.Errorf("entry %d is %+v, want %+v", i, e, want)
				}
				if e.Count.Bytes != e.Count.Packets*26 {
					t.Errorf("entry %d counts %+v of packets of 26 bytes", i, e.Count)
				}
				if err := pl.Remove(name, e.Match, e.Priority); err != nil {
					t.Error(err)
				}
			}
			if hits != count.Hits {
				t.Errorf("the entries count %d hits, the table %d", hits, count.Hits)
			}
			for _, l := range tc.looks {
				out := run(t, pl, 0, l.packet)
				if len(out) != 1 || out[0].data[len(out[0].data)-1] != 0xff {
					t.Errorf("%s still matches after all entries are removed: %v", l.packet, out)
				}
			}
		})
	}
}

func TestTableDescription(t *testing.T) {
	got := fmt.Sprintf("%+v", tables.pipeline(t).Tables()[:3])
	want := `[{Name:ingress.t_exact Keys:[{Name:hdr.h.addr Kind:exact Bits:32} {Name:hdr.h.vid Kind:exact Bits:12}] Actions:[{Name:set Params:[{Name:x Bits:8}]} {Name:wide Params:[{Name:vid Bits:12} {Name:a Bits:128}]} {Name:miss Params:[]}] Size:0 ConstEntries:false ConstDefault:false} {Name:ingress.t_lpm Keys:[{Name:hdr.h.addr Kind:lpm Bits:32}] Actions:[{Name:set Params:[{Name:x Bits:8}]} {Name:miss Params:[]}] Size:0 ConstEntries:false ConstDefault:false} {Name:ingress.t_lpm6 Keys:[{Name:destination Kind:lpm Bits:128}] Actions:[{Name:set Params:[{Name:x Bits:8}]} {Name:miss Params:[]}] Size:0 ConstEntries:false ConstDefault:false}]`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Parameters of an action that are wider than a slot or no whole bytes.
func TestActionParameters(t *testing.T) {
	pl := tables.pipeline(t)
	add(t, pl, "ingress.t_exact", "wide", keys(exact("00000000"), exact("0001")), "0abc", "000102030405060708090a0b0c0d0e0f")
	expect(t, pl, 0, packet("00", "00000000", "0000", "fd000001000000000000000000000001", "1001"), "1:00 00000000 0000 000102030405060708090a0b0c0d0e0f 1abc 00")
}

func TestConstEntries(t *testing.T) {
	pl := parts{fields: "bit<8> a; bit<8> b; bit<8> c;", locals: `
	action set(bit<8> x) { hdr.h.c = x; }
	table t { key = { hdr.h.a: ternary; hdr.h.b: range; } actions = { set; } const default_action = set(0xff);
		const entries = { (1, 2): set(1); (0x10 &&& 0xf0, _): set(2); (_, 5..7): set(3); _: set(4); } }
	table l { key = { hdr.h.a: lpm; } actions = { set; NoAction; } entries = { 0x10 &&& 0xf0: set(0xa0); const 0x12: set(0xa1); _: set(0xa2); } }
	table p { key = { hdr.h.a: ternary; } actions = { set; } entries = { priority = 1: _: set(0xb1); priority = 5: 9: set(0xb2); } }`,
		ingress: "if (hdr.h.c == 0) { t.apply(); } else if (hdr.h.c == 1) { l.apply(); } else { p.apply(); }"}.pipeline(t)
	for in, want := range map[string]string{
		"010200": "01", "1fff00": "02", "090600": "03", "090800": "04", "120001": "a1", "130001": "a0", "230001": "a2", "090002": "b2", "080002": "b1",
	} {
		expect(t, pl, 0, in, "1:"+in[:4]+want)
	}
	if err := pl.Add("ingress.t", entry("set", keys(masked("01", "ff"), between("01", "01")), 9, "05")); !errors.Is(err, ErrConst) {
		t.Errorf("an entry was added to constant ones: %v", err)
	}
	if err := pl.SetDefault("ingress.t", "set", [][]byte{{1}}); !errors.Is(err, ErrConst) {
		t.Errorf("a constant default was changed: %v", err)
	}
	if err := pl.Remove("ingress.l", keys(prefix("12", 8)), 0); !errors.Is(err, ErrConst) {
		t.Errorf("a constant entry was removed: %v", err)
	}
	if err := pl.Set("ingress.l", entry("set", keys(prefix("12", 8)), 0, "77")); !errors.Is(err, ErrConst) {
		t.Errorf("a constant entry was replaced: %v", err)
	}
	expect(t, pl, 0, "120001", "1:1200a1")
	if err := pl.Remove("ingress.l", keys(prefix("10", 4)), 0); err != nil {
		t.Errorf("an entry of the program that is not constant cannot be removed: %v", err)
	}
	expect(t, pl, 0, "130001", "1:1300a2")
	es, err := pl.Entries("ingress.l")
	if err != nil || len(es) != 2 || !es[0].Const || es[1].Const {
		t.Errorf("the entries are %+v, %v", es, err)
	}
}

func TestUpdates(t *testing.T) {
	pl := parts{locals: `
	action set(bit<12> x) { hdr.h.b = x[7:0]; }
	@tableonly action only() { } action other() { }
	table t { key = { hdr.h.a: exact; } actions = { set; @tableonly only; @defaultonly other; } size = 2; }
	table none { actions = { set; } default_action = set(3); }`, ingress: "t.apply(); if (hdr.h.a == 9) { none.apply(); }"}.pipeline(t)
	one := keys(exact("01"))
	for _, tc := range []struct {
		name string
		err  error
		want string
	}{
		{"unknown table", pl.Add("ingress.x", entry("set", one, 0, "0001")), `table "ingress.x": there is no such table`},
		{"unknown action", pl.Add("ingress.t", entry("sett", one, 0, "0001")), `table ingress.t has no action "sett"; it has [set only other NoAction]`},
		{"missing argument", pl.Add("ingress.t", entry("set", one, 0)), "action set takes 1 parameters, and 0 are given"},
		{"short argument", pl.Add("ingress.t", entry("set", one, 0, "01")), "parameter x of action set has 2 bytes, and 1 are given"},
		{"large argument", pl.Add("ingress.t", entry("set", one, 0, "1000")), "parameter x of action set: 0x1000 has more than 12 bits"},
		{"short key", pl.Add("ingress.t", entry("set", keys(exact("")), 0, "0001")), "table ingress.t: field 0 (exact, 8 bits): the value has 0 bytes: want 1"},
		{"no key", pl.Add("ingress.t", entry("set", nil, 0, "0001")), "table ingress.t: the entry matches 0 fields: the table has 1"},
		{"table without a key", pl.Add("ingress.none", entry("set", nil, 0, "0001")), "table ingress.none has no key, so it can have no entries"},
		{"action for the default only", pl.Add("ingress.t", entry("other", one, 0)), "action other of table ingress.t can only be the default action"},
		{"action for entries only", pl.SetDefault("ingress.t", "only", nil), "action only of table ingress.t cannot be the default action"},
		{"the first", pl.Add("ingress.t", entry("set", one, 0, "0007")), ""},
		{"the same again", pl.Add("ingress.t", entry("set", one, 0, "0008")), "table ingress.t: the entry exists"},
		{"the same again, in its place", pl.Set("ingress.t", entry("set", one, 0, "0009")), ""},
		{"the second", pl.Add("ingress.t", entry("only", keys(exact("02")), 0)), ""},
		{"more than its size", pl.Set("ingress.t", entry("set", keys(exact("03")), 0, "0003")), ""},
		{"removing one that is not there", pl.Remove("ingress.t", keys(exact("04")), 0), "table ingress.t: there is no such entry"},
		{"another default", pl.SetDefault("ingress.none", "set", [][]byte{{0, 0x44}}), ""},
	} {
		got := ""
		if tc.err != nil {
			got = tc.err.Error()
		}
		if got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
	expect(t, pl, 0, "0100", "1:0109")
	expect(t, pl, 0, "0300", "1:0303")
	expect(t, pl, 0, "0900", "1:0944")
	if action, args, err := pl.Default("ingress.none"); err != nil || action != "set" || fmt.Sprint(args) != "[[0 68]]" {
		t.Errorf("the default is %s %v, %v", action, args, err)
	}
}

// Packets see each table as it was before or after an update, while it is updated from several sides.
func TestUpdatesWhilePacketsFlow(t *testing.T) {
	pl := parts{fields: "bit<32> a; bit<8> b;", locals: `
	action set(bit<8> x) { hdr.h.b = x; }
	table t { key = { hdr.h.a: lpm; } actions = { set; } default_action = set(1); }`, ingress: "t.apply();"}.pipeline(t)
	add(t, pl, "ingress.t", "set", keys(prefix("0a000000", 8)), "08")
	var updates, packets sync.WaitGroup
	stop := make(chan struct{})
	for w := range 2 {
		updates.Add(1)
		go func() {
			defer updates.Done()
			for i := range 500 {
				m := keys(match.Match{Value: []byte{10, byte(w), byte(i), 0}, Prefix: 24})
				if err := pl.Add("ingress.t", entry("set", m, 0, "18")); err != nil {
					t.Error(err)
				}
				if err := pl.Remove("ingress.t", m, 0); err != nil {
					t.Error(err)
				}
				if _, err := pl.Entries("ingress.t"); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	for w := range 2 {
		packets.Add(1)
		go func() {
			defer packets.Done()
			in := []byte{10, byte(w), 0, 1, 0}
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				in[2] = byte(i)
				pl.Process(0, in, func(_ uint16, out []byte) {
					if out[4] != 8 && out[4] != 0x18 {
						t.Errorf("packet %x came out as %x", in, out)
					}
				})
			}
		}()
	}
	updates.Wait()
	close(stop)
	packets.Wait()
	if c, _ := pl.Counters("ingress.t"); c.Misses != 0 || c.Hits != pl.Stats().Packets {
		t.Errorf("the table counts %+v for %d packets", c, pl.Stats().Packets)
	}
}

// What a look-up reads of an entry fits in one line of the cache.
func TestEntryFitsInALine(t *testing.T) {
	if n := reflect.TypeFor[bound]().Size(); n > 64 {
		t.Errorf("it has %d bytes", n)
	}
}
