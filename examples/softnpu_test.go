//go:build linux

package examples_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/falcon-vm/falcon-go/propolis/softnpu"
)

// onBothFabrics runs a part of a test as root, whose links are kernel devices, and
// as an ordinary user, whose links are sockets.
func onBothFabrics(t *testing.T, f func(t *testing.T, s *site)) {
	t.Run("kernel", func(t *testing.T) { f(t, newSite(t)) })
	t.Run("sockets", func(t *testing.T) { f(t, newSiteOf(t, ordinary())) })
}

// npuCargo copies what an example mounts into the site, with npuadm.
func (s *site) npuCargo() string {
	s.t.Helper()
	dir := s.mkdir("cargo")
	files, err := filepath.Glob("softnpu/cargo-bay/*")
	check(s.t, err)
	for _, f := range append(files, filepath.Join(built.dir, "guest", "npuadm")) {
		data, err := os.ReadFile(f)
		check(s.t, err)
		check(s.t, os.WriteFile(filepath.Join(dir, filepath.Base(f)), data, 0o755))
	}
	return dir
}

// counters are those of a node's ASIC, by port.
func (l *lab) counters(node string) []softnpu.Counters {
	l.t.Helper()
	var all []softnpu.Counters
	check(l.t, json.Unmarshal([]byte(l.must("softnpu", "counters", "--json", node)), &all))
	return all
}

// nicCounters returns how many frames a guest has sent and received by its only
// interface.
func (l *lab) nicCounters(node string) (sent, received uint64) {
	l.t.Helper()
	out := l.sh(node, "cd /sys/class/net/eth0/statistics && cat tx_packets rx_packets")
	if _, err := fmt.Sscan(out, &sent, &received); err != nil {
		l.t.Fatalf("the counters of %s are %q", node, out)
	}
	return sent, received
}

// unreachable fails the test if a guest gets an answer from an address.
func (l *lab) unreachable(node, address string) {
	l.t.Helper()
	if out := l.run("exec", "--timeout", "60s", node, "ping -c 2 -W 2 "+address); out.status != 1 || !strings.Contains(out.stdout, "100% packet loss") {
		l.t.Errorf("%s is to get no answer from %s: %s", node, address, out)
	}
}

// pingsAreCounted looks that the first front ports of an ASIC count, while the
// first of the nodes at their other ends pings, what the nodes do.
func (l *lab) pingsAreCounted(asic, address string, nodes ...string) {
	l.t.Helper()
	type counted struct{ sent, received uint64 }
	look := func() (all []counted) {
		ports := l.counters(asic)
		for i, n := range nodes {
			sent, received := l.nicCounters(n)
			all = append(all, counted{ports[i+1].ReceivedFrames - sent, ports[i+1].TransmittedFrames - received})
		}
		return all
	}
	// A guest may say something at any moment, and counts what it has sent
	// when it sends the next.
	const pings = 10
	last := ""
	for range 5 {
		before, ports := look(), l.counters(asic)
		l.sh(nodes[0], fmt.Sprintf("ping -c %d -i 0.1 %s", pings, address))
		after := look()
		for i, c := range l.counters(asic)[1 : len(nodes)+1] {
			if n := c.TransmittedFrames - ports[i+1].TransmittedFrames; n < pings {
				l.t.Errorf("%d pings and their answers were sent by port %d %d times", pings, i+1, n)
			}
		}
		if slices.Equal(before, after) {
			return
		}
		last = fmt.Sprintf("the difference of what %v and their ports count was %v before, and is %v", nodes, before, after)
	}
	l.t.Error(last)
}

func TestScrimletSetsItsASICByNpuadm(t *testing.T) {
	onBothFabrics(t, func(t *testing.T, s *site) {
		l := s.lab("npu", "softnpu", "--cargo-bay", s.npuCargo())
		l.launch()
		if out := l.sh("scrimlet", "sh /opt/cargo-bay/tables"); !strings.Contains(out, "10.0.2.0/24  → index(idx ") {
			t.Errorf("npuadm dump-state says\n%s", out)
		}
		for i, n := range []string{"gimlet1", "gimlet2"} {
			l.sh(n, fmt.Sprintf("sh /opt/cargo-bay/gimlet %d", i+1))
		}
		l.pings("gimlet1", "10.0.2.2")
		l.pings("gimlet2", "fd00:1::2")
		if got := l.sh("gimlet1", "ip neigh show 10.0.1.1"); !strings.Contains(got, "02:00:00:00:01:01") {
			t.Errorf("gimlet1 has learned of the ASIC %q", got)
		}
		l.pingsAreCounted("scrimlet", "10.0.2.2", "gimlet1", "gimlet2")

		l.must("softnpu", "remove-route4", "scrimlet", "10.0.2.0", "24")
		l.unreachable("gimlet1", "10.0.2.2")
		l.sh("scrimlet", "/opt/cargo-bay/npuadm add-route4 10.0.2.0 24 2 10.0.2.2")
		l.pings("gimlet1", "10.0.2.2")

		out := l.must("softnpu", "dump", "scrimlet")
		for _, want := range []string{
			"→ forward(port 2, nexthop 10.0.2.2)", "10.0.2.2  → rewrite_dst(mac 02:00:00:00:02:02)", "10.0.1.1  → proxy_arp_reply(mac 02:00:00:00:01:01)",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("softnpu dump has no %q:\n%s", want, out)
			}
		}
		l.destroy()
	})
}

func TestTopologiesNameTheProgramsOfTheirASICs(t *testing.T) {
	onBothFabrics(t, func(t *testing.T, s *site) {
		hub, err := filepath.Abs("p4hub/hub.p4")
		check(t, err)
		l := s.lab("hub", "p4hub", "--program", hub)
		l.launch()
		for i, n := range []string{"a", "b", "c"} {
			l.sh(n, fmt.Sprintf("ip link set eth0 up && ip addr add 10.0.0.%[1]d/24 dev eth0 && ip addr add fd00::%[1]d/64 dev eth0 nodad", i+1))
		}
		l.pings("a", "10.0.0.2")
		l.pings("c", "fd00::1")
		if out := l.must("softnpu", "trace", "switch", "2", "ffffffffffff 020000000001 0800 45"); !strings.Contains(out, "state start\nextract headers.ethernet [dst ff:ff:ff:ff:ff:ff") || !strings.Contains(out, "out by port 3, 15 bytes") {
			t.Errorf("the way of a packet is\n%s", out)
		}

		bad := filepath.Join(l.dir, "bad.p4")
		check(t, os.WriteFile(bad, []byte("#include <core.p4>\ncontrol c() { apply { x = 1; } }\n"), 0o644))
		l.refuse([]string{"softnpu", "load", "switch", bad}, "bad.p4:2:23", "x = 1")
		l.pings("b", "10.0.0.3")

		// It is there again, with the program, after the machine was off.
		l.must("hyperstop", "switch")
		l.unreachable("a", "10.0.0.2")
		l.must("hyperstart", "switch")
		l.pings("a", "10.0.0.2")
		l.refuse([]string{"softnpu", "tables", "a"}, "node a", "no SoftNPU ASIC")
		l.refuse([]string{"softnpu", "add", "switch", "nowhere", "x"}, "nowhere")
		l.refuse([]string{"softnpu", "nonsense"}, "nonsense")
		l.destroy()

		refused := s.lab("refused", "p4hub", "--program", bad)
		refused.refuse(refused.launchArgs(), "node switch", bad+":2:23")
		refused.gone()
	})
}

func TestVLANsInP4(t *testing.T) {
	s := newSite(t)
	program, err := filepath.Abs("p4vlan/vlan.p4")
	check(t, err)
	l := s.lab("vlan", "p4vlan", "--program", program)
	l.launch()
	for i, n := range []string{"a", "b", "c", "d"} {
		l.sh(n, fmt.Sprintf("ip link set eth0 up && ip addr add 10.0.0.%d/24 dev eth0", i+1))
	}
	l.pings("a", "10.0.0.2")
	l.pings("d", "10.0.0.3")
	l.unreachable("a", "10.0.0.3")
	l.destroy()
}

// TestSidecarLinksShareACable has a driver with three interfaces, whose frames
// have a header on the one link to the switch.
func TestSidecarLinksShareACable(t *testing.T) {
	for header, fields := range map[string][2]string{
		// What the driver sends, and what the switch does: code, padding,
		// ingress, egress, type and 16 bytes.
		"24": {"0000" + "0000" + "0002" + "88b5", "0100" + "0001" + "0000" + "88b5"},
		"23": {"00" + "0000" + "0002" + "88b5", "01" + "0001" + "0000" + "88b5"},
	} {
		t.Run(header, func(t *testing.T) {
			onBothFabrics(t, func(t *testing.T, s *site) {
				guest := filepath.Join(built.dir, "guest")
				l := s.lab("sidecar", "any", "--node", "s,d", "--sidecar", "s:d:3:"+header,
					"--mount", "s:"+guest+":/guest", "--mount", "d:"+guest+":/guest")
				l.launch()
				if got := l.sh("d", "cat /sys/class/net/eth*/address | wc -l"); got != "3\n" {
					t.Errorf("the driver has %s interfaces", got)
				}
				plain := frame("02fa1c0e2eff", "88b5", 70)
				macs, payload := plain[:24], plain[28:]
				const zeros = "00000000000000000000000000000000"
				l.passes("d", "eth2", plain, "s", "eth0", macs+"0901"+fields[0]+zeros+payload)
				l.passes("s", "eth0", macs+"0901"+fields[1]+zeros+payload, "d", "eth1", plain)
				l.destroy()
			})
		})
	}
}

// passes has a node send a frame, which another one is to receive as it is said.
func (l *lab) passes(from, out, sent, to, in, want string) {
	l.t.Helper()
	l.sh(from, "ip link set "+out+" up")
	l.sh(to, "rm -f /tmp/got*; ip link set "+in+" up; cp /guest/frames /tmp && { /tmp/frames receive "+in+" 1 /tmp/got >/tmp/log 2>&1 & } && "+
		"until [ -e /tmp/got.ready ]; do usleep 50000; kill -0 $! || exit 1; done")
	l.sh(from, "/guest/frames send "+out+" "+sent)
	if got := strings.TrimSpace(l.sh(to, "until [ -e /tmp/got ]; do usleep 50000; done; cat /tmp/got")); got != want {
		l.t.Errorf("%s has sent by %s\n%s, to %s of %s comes\n%s, want\n%s", from, out, sent, in, to, got, want)
	}
}
