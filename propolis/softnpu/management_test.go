package softnpu

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/match"
)

// channel is the guest's end of a management channel.
type channel struct {
	t    testing.TB
	conn net.Conn
	from *bufio.Reader
}

func (a *testASIC) manage(t testing.TB) *channel {
	guest, host := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.ServeManagement(ctx, host) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("ServeManagement: %v", err)
		}
		guest.Close()
	})
	return &channel{t, guest, bufio.NewReader(guest)}
}

func (c *channel) write(b []byte) {
	c.t.Helper()
	if err := c.conn.SetDeadline(time.Now().Add(testPatience)); err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// request writes JSON as a client of SoftNPU does.
func (c *channel) request(json string) { c.t.Helper(); c.write([]byte("\xe5" + json + "\n")) }

func (c *channel) line() string {
	c.t.Helper()
	s, err := c.from.ReadString('\n')
	if err != nil {
		c.t.Fatalf("after %q: %v", s, err)
	}
	return strings.TrimSuffix(s, "\n")
}

// The lines that clients of SoftNPU send for these intents, byte for byte.
var upstreamLines = []struct{ intent, request, table, action, keys, args string }{
	{"10.0.1.0/24 has path 5, in one slot",
		`{"TableAdd":{"table":"ingress.router.v4_idx.rtr","action":"index","keyset_data":[10,0,1,0,24],"parameter_data":[5,0,1]}}`,
		"ingress.router.v4_idx.rtr", "index", "0a000100/24", "0005 01"},
	{"path 5 goes to 10.0.0.1 by port 2",
		`{"TableAdd":{"table":"ingress.router.v4_route.rtr","action":"forward","keyset_data":[5,0],"parameter_data":[2,0,1,0,0,10]}}`,
		"ingress.router.v4_route.rtr", "forward", "0005", "0002 0a000001"},
	{"the same in VLAN 100, with a key of 64 bits",
		`{"TableAdd":{"table":"ingress.router.v4_route.rtr","action":"forward_vlan","keyset_data":[6,0,0,0,0,0,0,0],"parameter_data":[2,0,1,0,0,10,100,0]}}`,
		"ingress.router.v4_route.rtr", "forward_vlan", "0006", "0002 0a000001 0064"},
	{"10.0.0.2 is an address of ours",
		`{"TableAdd":{"table":"ingress.local.local_v4","action":"local","keyset_data":[2,0,0,10],"parameter_data":[]}}`,
		"ingress.local.local_v4", "local", "0a000002", ""},
	{"10.9.0.1 from 1000 to 1999 is at fd00:1122::1",
		`{"TableAdd":{"table":"ingress.nat.nat_v4","action":"forward_to_sled","keyset_data":[1,0,9,10,232,3,207,7],"parameter_data":[1,0,0,0,0,0,0,0,0,0,0,0,34,17,0,253,77,0,0,1,0,0,37,64,168]}}`,
		"ingress.nat.nat_v4", "forward_to_sled", "0a090001 03e8..07cf", "fd001122000000000000000000000001 00004d a84025000001"},
	{"any VLAN is denied",
		`{"TableAdd":{"table":"ingress.acl.acl","action":"deny","keyset_data":[0,0,0],"parameter_data":[]}}`,
		"ingress.acl.acl", "deny", "0000&0000", ""},
}

func spellMatch(kinds []Key, all []match.Match) string {
	var b []string
	for i, k := range kinds {
		m := all[i]
		switch k.Kind {
		case "lpm":
			b = append(b, fmt.Sprintf("%x/%d", m.Value, m.Prefix))
		case "range":
			b = append(b, fmt.Sprintf("%x..%x", m.Value, m.High))
		case "ternary":
			b = append(b, fmt.Sprintf("%x&%x", m.Value, m.Mask))
		default:
			b = append(b, fmt.Sprintf("%x", m.Value))
		}
	}
	return strings.Join(b, " ")
}

func TestUpstreamsLinesSetTables(t *testing.T) {
	a := newASIC(t, 4, nil)
	p := newScripted(t, hub(4))
	a.Load(p)
	c := a.manage(t)
	for _, l := range upstreamLines {
		c.request(l.request)
	}
	c.request(`"DumpRequest"`)
	var dump Dump
	if err := json.Unmarshal([]byte(c.line()), &dump); err != nil {
		t.Fatal(err)
	}
	if len(dump) != len(p.tables) {
		t.Errorf("the dump has %d tables: want %d", len(dump), len(p.tables))
	}
	seen := map[string]int{}
	for _, l := range upstreamLines {
		at := seen[l.table]
		seen[l.table]++
		entries, err := p.Entries(l.table)
		if err != nil || len(entries) <= at {
			t.Fatalf("%s: table %s has %d entries, %v", l.intent, l.table, len(entries), err)
		}
		e := entries[at]
		args := make([]string, len(e.Args))
		for i, a := range e.Args {
			args[i] = fmt.Sprintf("%x", a)
		}
		keys := spellMatch(a.program.Load().byName[l.table].Keys, e.Match)
		if e.Action != l.action || keys != l.keys || strings.Join(args, " ") != l.args {
			t.Errorf("%s: got %s %s (%s)", l.intent, keys, e.Action, args)
		}
		// The dump has it as it was added, but for padding.
		r, err := UnmarshalRequest([]byte(l.request))
		if err != nil {
			t.Fatal(err)
		}
		add, d := r.(TableAdd), dump[l.table][at]
		if d.Action != add.Action || !bytes.HasPrefix(add.Keys, d.Keys) || !bytes.Equal(d.Arguments, add.Arguments) {
			t.Errorf("%s: dumped as %+v", l.intent, d)
		}
	}
	// A stray byte behind the key of a route, as scadm sends it.
	c.request(`{"TableRemove":{"table":"ingress.router.v4_route.rtr","keyset_data":[5,0,24]}}`)
	c.request(`{"TableRemove":{"table":"ingress.router.v4_idx.rtr","keyset_data":[10,0,1,0,24]}}`)
	c.request(`"RadixRequest"`)
	if got := c.line(); got != "4" {
		t.Errorf("the radix is %q", got)
	}
	for table, want := range map[string]int{"ingress.router.v4_route.rtr": 1, "ingress.router.v4_idx.rtr": 0} {
		if got, _ := p.Entries(table); len(got) != want {
			t.Errorf("table %s has %d entries after the removal: want %d", table, len(got), want)
		}
	}
}

// After each of these the channel works as before, and no table has changed.
func TestMisuseOfTheChannelIsHarmless(t *testing.T) {
	a := newASIC(t, 4, nil)
	p := newScripted(t, hub(4))
	a.Load(p)
	c := a.manage(t)
	for name, garbage := range map[string]string{
		"nothing":              "\n",
		"a console":            "debian login: root\r\nPassword:\n",
		"preamble only":        "\xe5\n",
		"bad JSON":             "\xe5{\"TableAdd\":\n",
		"binary":               "\x00\x01\xff\xfe\xe5\xe5\xe5\x7f\n",
		"a number":             "\xe57\n",
		"null":                 "\xe5null\n",
		"an unknown request":   "\xe5\"Reboot\"\n",
		"an unknown object":    "\xe5{\"Reboot\":{}}\n",
		"two requests in one":  "\xe5{\"TableRemove\":{\"table\":\"x\",\"keyset_data\":[]},\"TableAdd\":{}}\n",
		"content missing":      "\xe5\"TableAdd\"\n",
		"content too much":     "\xe5{\"RadixRequest\":1}\n",
		"members missing":      "\xe5{\"TableAdd\":{\"table\":\"ingress.local.local_v4\"}}\n",
		"null members":         "\xe5{\"TableAdd\":{\"table\":\"ingress.local.local_v4\",\"action\":null,\"keyset_data\":null,\"parameter_data\":null}}\n",
		"not bytes":            "\xe5{\"TableRemove\":{\"table\":\"ingress.local.local_v4\",\"keyset_data\":[256,0,0,-1]}}\n",
		"base64":               "\xe5{\"TableRemove\":{\"table\":\"ingress.local.local_v4\",\"keyset_data\":\"AAAA\"}}\n",
		"unknown table":        "\xe5{\"TableAdd\":{\"table\":\"x\",\"action\":\"local\",\"keyset_data\":[1,2,3,4],\"parameter_data\":[]}}\n",
		"unknown action":       "\xe5{\"TableAdd\":{\"table\":\"ingress.local.local_v4\",\"action\":\"x\",\"keyset_data\":[1,2,3,4],\"parameter_data\":[]}}\n",
		"short key":            "\xe5{\"TableAdd\":{\"table\":\"ingress.local.local_v4\",\"action\":\"local\",\"keyset_data\":[1,2,3],\"parameter_data\":[]}}\n",
		"short prefix":         "\xe5{\"TableAdd\":{\"table\":\"ingress.router.v4_idx.rtr\",\"action\":\"drop\",\"keyset_data\":[1,2,3,4],\"parameter_data\":[]}}\n",
		"long prefix":          "\xe5{\"TableAdd\":{\"table\":\"ingress.router.v4_idx.rtr\",\"action\":\"drop\",\"keyset_data\":[1,2,3,4,33],\"parameter_data\":[]}}\n",
		"empty range":          "\xe5{\"TableAdd\":{\"table\":\"ingress.nat.nat_v4\",\"action\":\"forward_to_sled\",\"keyset_data\":[1,2,3,4,2,0,1,0],\"parameter_data\":[1,0,0,0,0,0,0,0,0,0,0,0,34,17,0,253,77,0,0,1,0,0,37,64,168]}}\n",
		"short parameters":     "\xe5{\"TableAdd\":{\"table\":\"ingress.router.v4_idx.rtr\",\"action\":\"index\",\"keyset_data\":[1,2,3,4,24],\"parameter_data\":[1,0]}}\n",
		"a parameter too wide": "\xe5{\"TableAdd\":{\"table\":\"ingress.router.v4_route.rtr\",\"action\":\"forward_vlan\",\"keyset_data\":[1,2],\"parameter_data\":[1,0,1,2,3,4,0,16]}}\n",
		"a bad care byte":      "\xe5{\"TableAdd\":{\"table\":\"ingress.acl.acl\",\"action\":\"deny\",\"keyset_data\":[3,0,0],\"parameter_data\":[]}}\n",
		"no such entry":        "\xe5{\"TableRemove\":{\"table\":\"ingress.local.local_v4\",\"keyset_data\":[9,9,9,9]}}\n",
		"no compiler":          "\xe5{\"ProgramLoad\":{\"main\":\"x.p4\",\"files\":{\"x.p4\":\"\"}}}\n",
		"a long line":          "\xe5" + strings.Repeat("x", MaxLine+1) + "\n",
		"a long line of none":  strings.Repeat("x", MaxLine+77) + "\n",
		"deep JSON":            "\xe5" + strings.Repeat("[", 100_000) + "\n",
		"an ask in an ask":     "\xe5{\"Ask\":{\"id\":1}}\n",
	} {
		t.Run(name, func(t *testing.T) {
			c.t = t
			c.write([]byte(garbage))
			c.write([]byte("noise before\xe5\"Radi\x00xReq\ruest\"\r\n"))
			if got := c.line(); got != "4" {
				t.Errorf("the answer to the next request is %q", got)
			}
			for _, table := range p.tables {
				if entries, _ := p.Entries(table.Name); len(entries) > 0 {
					t.Errorf("table %s has an entry", table.Name)
				}
			}
		})
	}
}

func TestAnAskIsAnswered(t *testing.T) {
	compile := func(s Source, radix int) (Pipeline, error) {
		if s.Files[s.Main] == "" {
			return nil, errors.New("hub.p4:3:7: expected ';'\nhub.p4:9:1: no control named egress")
		}
		return newScripted(t, hub(radix)), nil
	}
	a := newASIC(t, 2, compile)
	c := a.manage(t)
	ask := func(inner string) Answer {
		t.Helper()
		c.request(fmt.Sprintf(`{"Ask":{"id":77,"request":%s}}`, inner))
		line := c.line()
		answer, ok := UnmarshalAnswer([]byte(line))
		if !ok || answer.ID != 77 {
			t.Fatalf("%s: answered %q", inner, line)
		}
		return answer
	}
	const add = `{"TableAdd":{"table":"ingress.local.local_v4","action":"local","keyset_data":[1,2,3,4],"parameter_data":[]}}`
	for _, tt := range []struct{ request, err, result string }{
		{`"RadixRequest"`, "", "2"},
		{`"DumpRequest"`, "no program is loaded", ""},
		{add, "no program is loaded", ""},
		{`{"ProgramLoad":{"main":"hub.p4","files":{}}}`, "load program hub.p4: hub.p4:3:7: expected ';'\nhub.p4:9:1: no control named egress", ""},
		{`{"ProgramLoad":{"main":"hub.p4","files":{"hub.p4":"control"}}}`, "", ""},
		{add, "", ""},
		{add, "not added: the entry exists", ""},
		{`{"TableRemove":{"table":"ingress.local.local_v4","keyset_data":[1,2,3,5]}}`, "not removed: there is no such entry", ""},
		{`{"TableRemove":{"table":"ingress.local.local_v4","keyset_data":[1,2]}}`, "key dst (exact, 32 bits): the bytes end early", ""},
		{`{"TableGet":{"table":"ingress.local.local_v4","keyset_data":[1,2,3,4]}}`, "", `{"action_id":"local","keyset_data":[1,2,3,4],"parameter_data":[]}`},
		{`{"TableGet":{"table":"ingress.local.local_v4","keyset_data":[1,2,3,5]}}`, "there is no such entry", ""},
		{`{"TableGet":{"table":"x","keyset_data":[1,2,3,5]}}`, `the program has no table "x"`, ""},
		{`"Reboot"`, `"Reboot" is not a request`, ""},
		{`{"Ask":{"id":1,"request":"RadixRequest"}}`, `"Ask" is not a request`, ""},
		{`"CountersRequest"`, "", `[{"received_frames":0`},
		{`"TablesRequest"`, "", `[{"name":"ingress.local.local_v4","keys":[{"name":"dst","kind":"exact","bits":32}],`},
		{`"DumpRequest"`, "", `{"ingress.acl.acl":[],"ingress.local.local_v4":[{"action_id":"local","keyset_data":[1,2,3,4],"parameter_data":[]}],`},
	} {
		got := ask(tt.request)
		if !strings.Contains(got.Error, tt.err) || (got.Error == "") != (tt.err == "") || !strings.HasPrefix(string(got.Result), tt.result) {
			t.Errorf("%s: answered %q, %s", tt.request, got.Error, got.Result)
		}
		if (got.Code == CodeExists) != strings.Contains(got.Error, "the entry exists") ||
			(got.Code == CodeNoEntry) != strings.Contains(got.Error, "there is no such entry") {
			t.Errorf("%s: answered %q with code %q", tt.request, got.Error, got.Code)
		}
	}
}

// A guest cannot fill the host's memory with entries, nor its log with errors.
func TestAGuestIsBounded(t *testing.T) {
	a := newASIC(t, 1, nil)
	a.Load(newScripted(t, hub(1)))
	a.program.Load().added.Store(maxEntries - 1)
	entry := func(n byte) TableAdd {
		return TableAdd{Table: "ingress.local.local_v4", Action: "local", Keys: Octets{n, 0, 0, 10}}
	}
	if _, err := a.Do(entry(1)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a refusal counts for nothing
		if _, err := a.Do(entry(2)); err == nil || !strings.Contains(err.Error(), "1048576 entries were added") {
			t.Errorf("one entry too many: %v", err)
		}
	}
	if _, err := a.Do(TableRemove{Table: "ingress.local.local_v4", Keys: entry(1).Keys}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Do(entry(2)); err != nil {
		t.Errorf("after a removal: %v", err)
	}
	for range 100 {
		a.reply([]byte(`{"TableRemove":{"table":"` + strings.Repeat("x", 1<<14) + `","keyset_data":[]}}`))
	}
	if n := a.log.text.Len(); n == 0 || n > 2*logText {
		t.Errorf("the log has %d bytes", n)
	}
}

// A program that does not compile changes nothing, whoever loads it.
func TestABadProgramLeavesTheRunningOne(t *testing.T) {
	a := newASIC(t, 2, func(Source, int) (Pipeline, error) { return nil, errors.New("x.p4:1:1: no main") })
	p := newScripted(t, hub(2))
	a.Load(p)
	if err := a.LoadSource(Source{Main: "x.p4"}); err == nil || err.Error() != "x.p4:1:1: no main" {
		t.Errorf("LoadSource: %v", err)
	}
	if a.Pipeline() != Pipeline(p) {
		t.Error("the running program is another")
	}
}

// A guest that does not read its replies can still be heard when it reads again.
func TestRepliesThatAreNotReadAreGivenUp(t *testing.T) {
	guest, host := net.Pipe()
	defer guest.Close()
	w := replyWriter{to: impatient{host}}
	if err := w.write([]byte("4")); !errors.Is(err, errUnread) {
		t.Fatalf("a reply that nobody reads: %v", err)
	}
	// One byte of a reply gets through.
	half := make(chan byte)
	go func() {
		b := make([]byte, 1)
		guest.Read(b)
		half <- b[0]
	}()
	if err := w.write([]byte("12345")); !errors.Is(err, errUnread) || <-half != '1' {
		t.Fatalf("a reply of which one byte is read: %v", err)
	}
	go func() {
		if err := (&w).write([]byte("6")); err != nil {
			t.Error(err)
		}
	}()
	from := bufio.NewReader(guest)
	for _, want := range []string{"\n", "6\n"} {
		if got, err := from.ReadString('\n'); got != want || err != nil {
			t.Errorf("read %q, %v: want %q", got, err, want)
		}
	}
}

// impatient has no patience of 30 seconds.
type impatient struct{ net.Conn }

func (c impatient) SetWriteDeadline(time.Time) error {
	return c.Conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
}

func TestChannelThatEndsIsNoError(t *testing.T) {
	a := newASIC(t, 1, nil)
	guest, host := net.Pipe()
	done := make(chan error)
	go func() { done <- a.ServeManagement(context.Background(), host) }()
	guest.Write([]byte("\xe5\"Rad"))
	guest.Close()
	if err := <-done; err != nil {
		t.Errorf("ServeManagement: %v", err)
	}
}

func keyLists() *rapid.Generator[[]Key] {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Key {
		return Key{"k", rapid.SampledFrom([]string{"exact", "lpm", "ternary", "range"}).Draw(t, "kind"),
			rapid.OneOf(rapid.IntRange(1, 40), rapid.SampledFrom([]int{128, 255, 256, 2048})).Draw(t, "bits")}
	}), 1, 4)
}

func TestKeysSurviveTheirBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := keyLists().Draw(t, "keys")
		var want []match.Match
		for _, k := range keys {
			value := func(what string) []byte {
				v := rapid.SliceOfN(rapid.Byte(), byteLen(k.Bits), byteLen(k.Bits)).Draw(t, what)
				if k.Bits%8 != 0 {
					v[0] &= 1<<(k.Bits%8) - 1
				}
				return v
			}
			m := match.Match{Value: value("value")}
			switch k.Kind {
			case "lpm":
				m.Prefix = rapid.IntRange(0, k.Bits).Draw(t, "prefix")
			case "ternary":
				m.Mask = value("mask")
			case "range":
				m.High = value("high")
			}
			want = append(want, m)
		}
		data, err := EncodeKeys(keys, want)
		if err != nil {
			t.Fatal(err)
		}
		padding := rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "padding")
		got, err := DecodeKeys(keys, append(bytes.Clone(data), padding...))
		if err != nil || spellMatch(keys, got) != spellMatch(keys, want) {
			t.Fatalf("got %v, %v, want %v", got, err, want)
		}
		short := rapid.IntRange(0, len(data)-1).Draw(t, "short")
		if _, err := DecodeKeys(keys, data[:short]); err == nil {
			t.Fatalf("%d of %d bytes are enough", short, len(data))
		}
	})
}

func FuzzManagementLine(f *testing.F) {
	for _, l := range upstreamLines {
		f.Add([]byte("\xe5" + l.request + "\n"))
	}
	f.Add([]byte("\xe5{\"Ask\":{\"id\":1,\"request\":\"DumpRequest\"}}\n\xe5\"RadixRequest\"\n"))
	f.Add([]byte("\xe5{\"TableRemove\":{\"table\":\"ingress.acl.acl\",\"keyset_data\":[2,1,0,255,15]}}\r\n\x00\xe5"))
	f.Fuzz(func(t *testing.T, data []byte) {
		a := newASIC(t, 2, func(Source, int) (Pipeline, error) { return nil, errors.New("no") })
		a.Load(newScripted(t, hub(2)))
		lines := newLineReader(bytes.NewReader(data), 10_240)
		for {
			line, err := lines.next()
			if errors.Is(err, errLongLine) {
				continue
			}
			if err != nil {
				break
			}
			if len(line) > 10_240 || bytes.ContainsAny(line, "\r\n\x00") {
				t.Fatalf("a line of %d bytes: %q", len(line), line)
			}
			request, ok := requestIn(line)
			if !ok {
				continue
			}
			reply := a.reply(request)
			if bytes.ContainsRune(reply, '\n') || reply != nil && !json.Valid(reply) {
				t.Fatalf("%q: replied %q", request, reply)
			}
			if r, err := UnmarshalRequest(request); err == nil {
				again, err := MarshalRequest(r)
				if err != nil {
					t.Fatal(err)
				}
				if r2, err := UnmarshalRequest(again); err != nil || fmt.Sprint(r2) != fmt.Sprint(r) {
					t.Fatalf("%q became %q: %v", request, again, err)
				}
			}
		}
		// Whatever is in the tables can be dumped.
		if _, err := a.Do(DumpRequest{}); err != nil {
			t.Fatal(err)
		}
	})
}
