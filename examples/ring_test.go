//go:build linux

package examples_test

import (
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestRingPingsAllTheWayAround(t *testing.T) {
	const n = 4
	l := newSite(t).lab("ring", "ring", "-n", fmt.Sprint(n))
	l.launch()
	macs := make(map[string]bool)
	for i := range n {
		a, b := fmt.Sprintf("n%d", i), fmt.Sprintf("n%d", (i+1)%n)
		l.addresses(a, b, i)
		l.pings(a, fmt.Sprintf("10.9.%d.2", i))
		for _, link := range l.node(a).Links {
			macs[link.MAC] = true
		}
	}
	if len(macs) != 2*n {
		t.Errorf("%d links have %d different MACs: %v", n, len(macs), macs)
	}
	l.destroy()
}

func TestExtraHasCommandsOfItsOwn(t *testing.T) {
	l := newSite(t).lab("extra", "extra")
	l.launch()
	l.must("addresses")
	if out := l.must("ping-all"); strings.Count(out, ": done") != 4 || !strings.Contains(out, "hub, link 1: done") {
		t.Errorf("two links have four ends; ping-all says\n%s", out)
	}
	l.destroy()
	l.refuse([]string{"ping-all"}, "hub")
}

// source is the sender's address in the frames of the tests, by which the
// guests' own frames are told apart.
const source = "02fa1c0e2e00"

// frame returns a frame in hexadecimal, with text in its payload as far as size
// bytes allow.
func frame(destination, types string, size int) string {
	head := destination + source + types
	text := strings.Repeat("every frame passes unchanged. ", size/30+1)
	return head + hex.EncodeToString([]byte(text))[:2*size-len(head)]
}

func TestLinksCarryEveryFrameUnchanged(t *testing.T) {
	s := newSite(t)
	frames := []struct{ name, hex string }{
		{"LLDP", frame("0180c200000e", "88cc", 90)},
		{"LACP", frame("0180c2000002", "8809", 124)},
		{"STP", frame("0180c2000000", "0026"+"424203", 60)},
		{"802.1X", frame("0180c2000003", "888e", 64)},
		{"pause", frame("0180c2000001", "8808", 60)},
		{"unicast to nobody", frame("02fa1c0e2eff", "88b5", 60)},
		{"broadcast", frame("ffffffffffff", "88b5", 1514)},
		{"IPv6 multicast", frame("333300000001", "86dd", 80)},
		{"VLAN", frame("ffffffffffff", "8100"+"2064"+"0800", 80)},
		{"priority tag", frame("ffffffffffff", "8100"+"e000"+"88b5", 80)},
		{"QinQ", frame("ffffffffffff", "88a8"+"0064"+"8100"+"00c8"+"0800", 80)},
		{"VLAN in VLAN", frame("ffffffffffff", "8100"+"0064"+"8100"+"00c8"+"0800", 80)},
		{"tagged LACP", frame("0180c2000002", "8100"+"0064"+"8809", 124)},
		{"jumbo of 9000 bytes", frame("ffffffffffff", "88b5", 9000)},
		{"largest packet", frame("ffffffffffff", "88b5", 9216+14)},
	}
	l := s.lab("pair", "any", "--node", "a,b", "--link", "a:b",
		"--mount", "a:"+filepath.Join(built.dir, "guest")+":/guest", "--mount", "b:"+filepath.Join(built.dir, "guest")+":/guest")
	l.launch()
	var script []string
	names := make(map[string]string)
	for _, f := range frames {
		script, names[f.hex] = append(script, f.hex), f.name
	}
	for _, way := range [][2]string{{"a", "b"}, {"b", "a"}} {
		from, to := way[0], way[1]
		for _, end := range [][2]string{{from, to}, {to, from}} {
			l.sh(end[0], l.device(end[0], end[1])+" && ip link set $dev mtu 9216 up")
		}
		l.sh(to, l.device(to, from)+" && cp /guest/frames /tmp && { /tmp/frames receive $dev "+fmt.Sprint(len(frames))+" /tmp/got >/tmp/log 2>&1 & } && "+
			"until [ -e /tmp/got.ready ]; do usleep 50000; kill -0 $! || exit 1; done")
		l.sh(from, l.device(from, to)+" && /guest/frames send $dev "+strings.Join(script, " "))
		got := strings.Fields(l.sh(to, "until [ -e /tmp/got ]; do usleep 50000; done; cat /tmp/got"))
		// A guest's kernel hands frames of protocols that it knows over before
		// those that it does not: their order here is not that of the link.
		for _, hex := range got {
			if names[hex] == "" {
				t.Errorf("from %s to %s a frame arrives that was not sent: %s", from, to, hex)
			}
		}
		for _, f := range frames {
			if !slices.Contains(got, f.hex) {
				t.Errorf("from %s to %s the frame %q does not arrive: %s", from, to, f.name, f.hex)
			}
		}
		if len(got) != len(frames) {
			t.Errorf("from %s to %s %d frames arrive, %d were sent", from, to, len(got), len(frames))
		}
	}
	l.destroy()
}
