package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/propolis/softnpu"
)

// node is a node's ASIC with its management channel.
type node struct {
	t    *testing.T
	path string
	asic *softnpu.ASIC
}

// wire is that of a port without a cable.
type wire struct{ closed chan struct{} }

func (w wire) Read([]softnpu.Frame) (int, error)    { <-w.closed; return 0, net.ErrClosed }
func (w wire) Write(f []softnpu.Frame) (int, error) { return len(f), nil }
func (w wire) TryWrite(f []softnpu.Frame) int       { return len(f) }
func (w wire) Offloads() bool                       { return false }
func (w wire) Close() error                         { return nil }

func newASIC(t *testing.T) *softnpu.ASIC {
	a, err := softnpu.New(softnpu.Config{Ports: []softnpu.Wire{wire{}, wire{}, wire{}}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// newNode serves the management channel on a socket until the test ends.
func newNode(t *testing.T) *node {
	n := &node{t: t, path: filepath.Join(t.TempDir(), "channel"), asic: newASIC(t)}
	l, err := net.Listen("unix", n.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go n.asic.ServeManagement(context.Background(), conn)
		}
	}()
	return n
}

// npuadm runs a command line.
func (n *node) npuadm(args ...string) (string, error) {
	var out bytes.Buffer
	c := Command()
	c.SetArgs(append([]string{"--device", n.path, "--timeout", "10s"}, args...))
	c.SetOut(&out)
	c.SetErr(&out)
	err := c.ExecuteContext(n.t.Context())
	return out.String(), err
}

// must runs a command line that works.
func (n *node) must(args ...string) string {
	n.t.Helper()
	out, err := n.npuadm(args...)
	if err != nil {
		n.t.Fatalf("npuadm %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// anyPath hides the number of a path, which follows from the prefix.
var anyPath = regexp.MustCompile(`(index\(idx )[0-9]+|\n[0-9]+( → forward)`)

// state is what dump-state prints, without the alignment.
func (n *node) state() string {
	n.t.Helper()
	var lines []string
	for line := range strings.Lines(n.must("dump-state")) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(lines, "\n")
}

func TestVerbsSetWhatTheySay(t *testing.T) {
	for _, tt := range []struct{ add, want, remove string }{
		{"add-address4 10.0.0.2", "ingress.local.local_v4\n10.0.0.2 → local()", "remove-address4 10.0.0.2"},
		{"add-address6 fd00::1", "ingress.local.local_v6\nfd00::1 → local()", "remove-address6 fd00::1"},
		{"add-arp-entry 10.0.0.1 a8:40:25:00:00:01", "ingress.resolver.resolver_v4\n10.0.0.1 → rewrite_dst(mac a8:40:25:00:00:01)", "remove-arp-entry 10.0.0.1"},
		{"add-ndp-entry fe80::1 a8:40:25:00:00:01", "ingress.resolver.resolver_v6\nfe80::1 → rewrite_dst(mac a8:40:25:00:00:01)", "remove-ndp-entry fe80::1"},
		{"set-mac 2 a8:40:25:00:00:02", "ingress.mac.mac_rewrite\n2 → rewrite(mac a8:40:25:00:00:02)", "clear-mac 2"},
		{"add-proxy-arp 10.0.0.50 10.0.0.60 a8:40:25:00:00:03", "ingress.pxarp.proxy_arp\n10.0.0.50..10.0.0.60 → proxy_arp_reply(mac a8:40:25:00:00:03)", "remove-proxy-arp 10.0.0.50 10.0.0.60"},
		{"add-nat4 10.9.0.1 1000 1999 fd00:1122::1 77 a8:40:25:00:00:04", "ingress.nat.nat_v4\n10.9.0.1 1000..1999 → forward_to_sled(target fd00:1122::1, vni 77, mac a8:40:25:00:00:04)", "remove-nat4 10.9.0.1 1000 1999"},
		{"add-nat6 fd00::9 1000 1999 fd00:1122::1 77 a8:40:25:00:00:04", "ingress.nat.nat_v6\nfd00::9 1000..1999 → forward_to_sled(target fd00:1122::1, vni 77, mac a8:40:25:00:00:04)", "remove-nat6 fd00::9 1000 1999"},
		{"add-route4 10.0.1.0 24 2 10.0.0.1", "ingress.router.v4_idx.rtr\n10.0.1.0/24 → index(idx N, slots 1)\ningress.router.v4_route.rtrN → forward(port 2, nexthop 10.0.0.1)", "remove-route4 10.0.1.0 24"},
		{"add-route4 10.0.1.0 24 2 10.0.0.1 --vlan 100", "ingress.router.v4_idx.rtr\n10.0.1.0/24 → index(idx N, slots 1)\ningress.router.v4_route.rtrN → forward_vlan(port 2, nexthop 10.0.0.1, vlan_id 100)", "remove-route4 10.0.1.0 24"},
		{"add-route4 0.0.0.0 0 1 fe80::1", "ingress.router.v4_idx.rtr\n0.0.0.0/0 → index(idx N, slots 1)\ningress.router.v4_route.rtrN → forward_v6(port 1, nexthop fe80::1)", "remove-route4 0.0.0.0 0"},
		{"add-route4 0.0.0.0 0 1 fe80::1 --vlan 7", "ingress.router.v4_idx.rtr\n0.0.0.0/0 → index(idx N, slots 1)\ningress.router.v4_route.rtrN → forward_vlan_v6(port 1, nexthop fe80::1, vlan_id 7)", "remove-route4 0.0.0.0 0"},
		{"add-route6 fd00:1:: 32 3 fe80::2", "ingress.router.v6_idx.rtr\nfd00:1::/32 → index(idx N, slots 1)\ningress.router.v6_route.rtrN → forward(port 3, nexthop fe80::2)", "remove-route6 fd00:1:: 32"},
		{"add ingress.nat.nat_v4 forward_to_sled 10.9.0.1 53 fd00::1 0x4d a8:40:25:00:00:04", "ingress.nat.nat_v4\n10.9.0.1 53 → forward_to_sled(target fd00::1, vni 77, mac a8:40:25:00:00:04)", "remove ingress.nat.nat_v4 10.9.0.1 53"},
	} {
		t.Run(tt.add, func(t *testing.T) {
			n := newNode(t)
			n.must(strings.Fields(tt.add)...)
			if got := anyPath.ReplaceAllString(n.state(), "${1}N${2}"); got != tt.want {
				t.Errorf("the state is\n%s\nwant\n%s", got, tt.want)
			}
			// Twice is refused, but for a route's path.
			if _, err := n.npuadm(strings.Fields(tt.add)...); err == nil || !strings.Contains(err.Error(), "the entry exists") {
				t.Errorf("the same again: %v", err)
			}
			if got := anyPath.ReplaceAllString(n.state(), "${1}N${2}"); got != tt.want {
				t.Errorf("the state after the same again is\n%s\nwant\n%s", got, tt.want)
			}
			n.must(strings.Fields(tt.remove)...)
			if got := n.state(); got != "" {
				t.Errorf("the state after the removal is\n%s", got)
			}
			if _, err := n.npuadm(strings.Fields(tt.remove)...); err == nil || !strings.Contains(err.Error(), "there is no such entry") {
				t.Errorf("removing it again: %v", err)
			}
		})
	}
}

func TestEachRouteHasItsOwnPath(t *testing.T) {
	n := newNode(t)
	n.must("add-route4", "10.0.1.0", "24", "2", "10.0.0.1")
	n.must("add-route4", "10.0.2.0", "24", "2", "10.0.0.1")
	if got := n.state(); strings.Count(got, "forward(port 2, nexthop 10.0.0.1)") != 2 {
		t.Errorf("the state is\n%s", got)
	}
	n.must("remove-route4", "10.0.1.0", "24")
	got := n.state()
	if strings.Count(got, "forward(") != 1 || strings.Contains(got, "10.0.1.0") || !strings.Contains(got, "10.0.2.0/24 → index(") {
		t.Errorf("the state is\n%s", got)
	}
	// Its number is another's by now: the next that is free is taken.
	route := strings.Fields(strings.Split(got, "\n")[3])[0]
	n.must("remove-route4", "10.0.2.0", "24")
	n.must("add", tablePath(4), "forward", route, "9", "9.9.9.9")
	n.must("add-route4", "10.0.2.0", "24", "2", "10.0.0.1")
	number, err := strconv.Atoi(route)
	if err != nil {
		t.Fatal(err)
	}
	if got := n.state(); !strings.Contains(got, fmt.Sprintf("10.0.2.0/24 → index(idx %d, slots 1)", number+1)) {
		t.Errorf("path %s is taken, and the state is\n%s", route, got)
	}
}

// What others have set beside a route is left alone.
func TestRoutesOfOthersLoseNoPaths(t *testing.T) {
	n := newNode(t)
	n.must("add", tablePath(4), "forward", "1", "1", "10.0.0.1")
	n.must("add", tablePath(4), "forward", "2", "2", "10.0.0.2")
	n.must("add", tableIndex(4), "index", "10.1.0.0/16", "1", "2")
	n.must("add", tableIndex(4), "drop", "10.2.0.0/16")
	n.must("add", tableIndex(4), "index", "10.3.0.0/16", "77", "1")
	for _, dst := range []string{"10.1.0.0", "10.2.0.0", "10.3.0.0"} {
		n.must("remove-route4", dst, "16")
	}
	if got := n.state(); strings.Count(got, "forward(") != 2 || strings.Contains(got, "/16") {
		t.Errorf("the state is\n%s", got)
	}
}

func TestBadArgumentsAreRefused(t *testing.T) {
	n := newNode(t)
	for args, want := range map[string]string{
		"add-address4 fd00::1":                                     `"fd00::1" is not an IPv4 address`,
		"add-address6 10.0.0.1":                                    `"10.0.0.1" is not an IPv6 address`,
		"add-address6 ::ffff:10.0.0.1%1":                           `is not an IPv6 address`,
		"add-address4":                                             "want npuadm add-address4 ADDRESS",
		"add-arp-entry 10.0.0.1 a8:40:25":                          `"a8:40:25" is not a MAC address`,
		"set-mac 65536 a8:40:25:00:00:01":                          `"65536" is not a number from 0 to 65535`,
		"set-mac -- -1 a8:40:25:00:00:01":                          `"-1" is not a number`,
		"add-nat4 10.0.0.1 2 1 fd00::1 1 a8:40:25:0:0:1":           `"a8:40:25:0:0:1" is not a MAC address`,
		"add-nat4 10.0.0.1 2 1 fd00::1 1 a8:40:25:00:00:01":        "the range from 0x0002 to 0x0001 is empty",
		"add-nat4 10.0.0.1 1 2 fd00::1 16777216 a8:40:25:00:00:01": "is not a number from 0 to 16777215",
		"add-route4 10.0.1.7 24 1 10.0.0.1":                        "10.0.1.7 has bits outside of the prefix: the route would be to 10.0.1.0/24",
		"add-route4 10.0.1.0 255.255.255.0 1 10.0.0.1":             `"255.255.255.0" is not a mask`,
		"add-route4 10.0.1.0 33 1 10.0.0.1":                        "want the length of the prefix, 0 to 32",
		"add-route4 10.0.1.0 24 1 nowhere":                         `"nowhere" is not the address of a next hop`,
		"add-route4 10.0.1.0 24 70000 10.0.0.1":                    `"70000" is not a number from 0 to 65535`,
		"add-route4 10.0.1.0 24 1 10.0.0.1 --vlan 4095":            "VLAN 4095: want 1 to 4094",
		"add-route6 fd00:: 16 1 10.0.0.1":                          `"10.0.0.1" is not an IPv6 address`,
		"add nowhere x":                                            `the program has no table "nowhere": tables lists them`,
		"add ingress.local.local_v4 x 10.0.0.1":                    `table ingress.local.local_v4 has no action "x"`,
		"add ingress.local.local_v4 local":                         "table ingress.local.local_v4 has 1 keys, and 0 were given",
		"add ingress.local.local_v4 local 10.0.0.1 7":              "action local has 0 parameters, and 1 were given",
		"add ingress.mac.mac_rewrite rewrite 1 7.7.7.7":            "parameter mac (48 bits): 7.7.7.7 is an address of 32 bits",
		"remove ingress.local.local_v4 10.0.0.1 10.0.0.2":          "table ingress.local.local_v4 has 1 keys, and 2 were given",
		"save":                          "save needs the name of a file",
		"restore --filename /nowhere/x": "no such file",
		"load-program /nowhere/x.p4":    "no such file",
		"reboot":                        "unknown command",
	} {
		if _, err := n.npuadm(strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("npuadm %s: %v, want %q", args, err, want)
		}
	}
	if got := n.state(); got != "" {
		t.Errorf("the state after all that is\n%s", got)
	}
}

func TestWhatIsPrinted(t *testing.T) {
	n := newNode(t)
	if got := n.must("port-count"); got != "3\n" {
		t.Errorf("port-count: %q", got)
	}
	if got := n.must("tables"); !strings.Contains(got, "ingress.nat.nat_v4  (hdr.ipv4.dst exact 32, ingress.nat_id range 16)\n  forward_to_sled(target 128, vni 24, mac 48)\n") {
		t.Errorf("tables:\n%s", got)
	}
	if got := n.must("counters"); strings.Count(got, "\n") != 5 || !strings.Contains(got, "CPU") {
		t.Errorf("counters:\n%s", got)
	}
	n.must("add-address4", "10.0.0.2")
	var entries []entryText
	if err := json.Unmarshal([]byte(n.must("dump-state", "--json")), &entries); err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Table != "ingress.local.local_v4" || entries[0].Keys["hdr.ipv4.dst"] != "10.0.0.2" || entries[0].Action != "local" {
		t.Errorf("dump-state --json: %+v", entries)
	}
	var all []portCounters
	if err := json.Unmarshal([]byte(n.must("counters", "--json")), &all); err != nil || len(all) != 4 || all[3].Port != 3 {
		t.Errorf("counters --json: %v, %v", all, err)
	}
	n.must("add-route4", "10.0.1.0", "24", "2", "10.0.0.1")
	n.must("add-arp-entry", "10.0.0.1", "a8:40:25:00:00:01")
	way := n.must("trace", "1", "020000000009 020000000001 0800 45000014 00000000 40fd0000 0a000002 0a000102")
	for _, want := range []string{"dst 02:00:00:00:00:09", "ether_type 0x0800", "ingress.router.v4_idx.rtr [dst 10.0.1.2] hit", "forward(port 2, nexthop 10.0.0.1)", "ethernet.dst 02:00:00:00:00:09 → a8:40:25:00:00:01"} {
		if !strings.Contains(way, want) {
			t.Errorf("trace does not say %q:\n%s", want, way)
		}
	}
}

func TestRestoreSetsWhatWasSaved(t *testing.T) {
	n := newNode(t)
	file := filepath.Join(t.TempDir(), "tables.json")
	n.must("add-address4", "10.0.0.2")
	n.must("add-arp-entry", "10.0.0.1", "a8:40:25:00:00:01")
	n.must("add-route4", "10.0.1.0", "24", "2", "10.0.0.1")
	want := n.state()
	n.must("save", file)
	if got := n.must("restore", "--filename", file); got != "added 0 entries, replaced 0\n" {
		t.Errorf("restoring what is there: %s", got)
	}
	n.must("remove-address4", "10.0.0.2")
	n.must("remove-arp-entry", "10.0.0.1")
	n.must("add-arp-entry", "10.0.0.1", "a8:40:25:00:00:99")
	n.must("add-address6", "fd00::1")
	if got := n.must("restore", "--filename", file); got != "added 1 entries, replaced 1\n" {
		t.Errorf("restore: %s", got)
	}
	n.must("remove-address6", "fd00::1") // others are left alone
	if got := n.state(); got != want {
		t.Errorf("the state is\n%s\nwant\n%s", got, want)
	}
	for content, why := range map[string]string{
		"no JSON": "is not a file of npuadm save", `{"nowhere":[]}`: "is of another program: this one has no table nowhere",
		`{"ingress.local.local_v4":[{"action_id":"local","keyset_data":[1],"parameter_data":[]}]}`: "after 0 entries were added and 0 replaced",
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := n.npuadm("restore", "--filename", file); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("restoring %s: %v", content, err)
		}
	}
}

func TestLoadProgramSendsWhatItIncludes(t *testing.T) {
	n := newNode(t)
	n.must("add-address4", "10.0.0.2")
	main := filepath.Join("..", "program", "sidecar.p4")
	text, err := os.ReadFile(main)
	if err != nil {
		t.Fatal(err)
	}
	alone := filepath.Join(t.TempDir(), "sidecar.p4")
	if err := os.WriteFile(alone, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := n.npuadm("load-program", alone); err == nil || !strings.Contains(err.Error(), alone+":18:") || !strings.Contains(err.Error(), "headers.p4") {
		t.Errorf("without what it includes: %v", err)
	}
	if got := n.state(); got == "" {
		t.Error("a program that does not compile has emptied the tables")
	}
	n.must("load-program", main)
	if got := n.state(); got != "" {
		t.Errorf("the state after a load is\n%s", got)
	}
}

// A serial port as a guest has it: with echo and lines until npuadm sets it
// otherwise, and again afterwards.
func TestSerialPort(t *testing.T) {
	far, near := openSerialPair(t)
	n := &node{t: t, path: near.Name(), asic: newASIC(t)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- n.asic.ServeManagement(ctx, far) }()
	defer func() { cancel(); <-done }()
	before := settingsOf(t, near)
	if _, err := near.WriteString("debian login: "); err != nil { // what a console has left
		t.Fatal(err)
	}
	for i := range 200 {
		n.must("add-address6", fmt.Sprintf("fd00::%x", i+1))
	}
	// A dump that is longer than any buffer on its way.
	if got := strings.Count(n.state(), "local()"); got != 200 {
		t.Errorf("%d entries: want 200", got)
	}
	// Many more at once, the last of which is there already: what is in front of
	// it on the line is done.
	more := softnpu.Dump{}
	for i := range 101 {
		more["ingress.local.local_v4"] = append(more["ingress.local.local_v4"], softnpu.DumpEntry{Action: "local", Keys: []byte{byte(i % 100), 0, 0, 10}})
	}
	content, err := json.Marshal(more)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "tables.json")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := n.npuadm("restore", file); err == nil || !strings.HasPrefix(err.Error(), "after 100 entries were added and 0 replaced: not added: ") {
		t.Errorf("restoring an entry twice: %v", err)
	}
	if after := settingsOf(t, near); after != before {
		t.Errorf("the port's settings were %+v and are %+v", before, after)
	}
}

func TestAnASICThatDoesNotAnswerIsNamed(t *testing.T) {
	far, near := openSerialPair(t)
	run := func() error {
		c := Command()
		c.SetArgs([]string{"--device", near.Name(), "--timeout", "300ms", "port-count"})
		return c.ExecuteContext(t.Context())
	}
	if err := run(); err == nil || err.Error() != fmt.Sprintf("the ASIC on %s has not answered in 300ms", near.Name()) {
		t.Errorf("a silent channel: %v", err)
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			if _, err := far.Read(buf); err != nil {
				return
			}
			far.Write([]byte("debian login: \n{\"Answer\":{\"id\":3,\"result\":4}}\n"))
		}
	}()
	if err := run(); err == nil || !strings.Contains(err.Error(), `the last line that came was "{\"Answer\":{\"id\":3`) {
		t.Errorf("a channel with somebody else: %v", err)
	}
	if _, err := (&node{t: t, path: "/dev/nothing"}).npuadm("port-count"); err == nil || !strings.Contains(err.Error(), "has this node an ASIC?") {
		t.Errorf("no channel: %v", err)
	}
	if _, err := (&node{t: t, path: os.DevNull}).npuadm("port-count"); err == nil || !strings.Contains(err.Error(), "is no serial port") {
		t.Errorf("not a serial port: %v", err)
	}
}

func TestInterruptEndsTheWait(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "channel"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	c := Command()
	c.SetArgs([]string{"--device", filepath.Join(dir, "channel"), "--timeout", "1h", "port-count"})
	if err := c.ExecuteContext(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
