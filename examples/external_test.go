//go:build linux

package examples_test

import (
	"bufio"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// addVeth makes a pair of interfaces: one of the host, whose name it returns,
// and one with an address in a namespace of the test's own, "outside".
func addVeth(t *testing.T, address string) string {
	t.Helper()
	host := fmt.Sprintf("fe%d", newNumber(t))
	outside := newNamespace(t, host)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = host
	check(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "outside", PeerNamespace: netlink.NsFd(outside)}))
	t.Cleanup(func() {
		if l, err := netlink.LinkByName(host); err == nil {
			_ = netlink.LinkDel(l)
		}
	})
	inside, err := netlink.LinkByName(host)
	check(t, err)
	check(t, netlink.LinkSetUp(inside))
	h, err := netlink.NewHandleAt(outside)
	check(t, err)
	defer h.Close()
	peer, err := h.LinkByName("outside")
	check(t, err)
	addr, err := netlink.ParseAddr(address)
	check(t, err)
	check(t, h.AddrAdd(peer, addr))
	check(t, h.LinkSetUp(peer))
	return host
}

// newNumber returns a number for names that are unique on the host.
func newNumber(t *testing.T) int {
	t.Helper()
	for n := range 1000 {
		if _, err := netlink.LinkByName(fmt.Sprintf("fe%d", n)); err != nil && !exists(fmt.Sprintf("/run/netns/fe%d", n)) {
			return n
		}
	}
	t.Fatal("a thousand tests are running")
	return 0
}

// newNamespace makes a named namespace for the time of the test.
func newNamespace(t *testing.T, name string) netns.NsHandle {
	t.Helper()
	runtime.LockOSThread() // the thread is in the new namespace for a moment
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	check(t, err)
	defer home.Close()
	ns, err := netns.NewNamed(name)
	check(t, err)
	t.Cleanup(func() {
		ns.Close()
		_ = netns.DeleteNamed(name)
	})
	check(t, netns.Set(home))
	return ns
}

// inNamespace does something in a network namespace, together with what it
// starts.
func inNamespace(t *testing.T, ns netns.NsHandle, do func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	check(t, err)
	defer home.Close()
	check(t, netns.Set(ns))
	defer func() { check(t, netns.Set(home)) }()
	do()
}

// dial returns what a TCP server has to say. It keeps to the calling thread.
func dial(address string) (string, error) {
	conn, err := net.DialTimeout("tcp", address, 30*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return line, err
}

func TestExternalLinkReachesTheHostsNetwork(t *testing.T) {
	s := newSite(t)
	host := addVeth(t, "198.51.100.1/24")
	l := s.lab("ext", "duo", "--ext", host)
	l.launch()
	link := l.node("violin").Links[1]
	dev := "dev=$(grep -l " + link.MAC + " /sys/class/net/*/address | cut -d/ -f5); "
	l.sh("violin", dev+"ip link set $dev up && ip addr add 198.51.100.2/24 dev $dev")
	l.pings("violin", "198.51.100.1")
	l.sh("violin", "{ echo hello | nc -l -p 7000 >/dev/null 2>&1 & }; until grep -qi ':1b58 .* 0a ' /proc/net/tcp /proc/net/tcp6; do usleep 100000; kill -0 $! || exit 1; done")
	outside, err := netns.GetFromName(host)
	check(t, err)
	defer outside.Close()
	inNamespace(t, outside, func() {
		if got, err := dial("198.51.100.2:7000"); err != nil || got != "hello\n" {
			t.Errorf("from outside the guest says %q (%v)", got, err)
		}
	})
	device, err := netlink.LinkByName(link.Device)
	if err != nil || device.Type() != "macvtap" || device.Attrs().HardwareAddr.String() != link.MAC {
		t.Errorf("the device %s is %+v (%v)", link.Device, device, err)
	}
	exclusive := s.lab("exclusive", "any", "--node", "a", "--exclusive", "a:"+host)
	exclusive.refuse(exclusive.launchArgs(), host, "duo")
	exclusive.gone()

	l.must("hyperstop", "violin")
	check(t, netlink.LinkDel(device)) // as after a restart of the host
	l.must("hyperstart", "violin")
	l.sh("violin", dev+"ip link set $dev up && ip addr add 198.51.100.2/24 dev $dev")
	l.pings("violin", "198.51.100.1")
	l.destroy()
	if _, err := netlink.LinkByName(host); err != nil {
		t.Errorf("the host's interface after destroy: %v", err)
	}
}

func TestUserExternalLinkGivesALease(t *testing.T) {
	l := newSite(t).lab("ext", "any", "--node", "a", "--ext", "a:user")
	l.launch()
	out := l.sh("a", "dev=$(grep -l "+l.node("a").Links[0].MAC+" /sys/class/net/*/address | cut -d/ -f5); ip link set $dev up && "+
		"udhcpc -i $dev -n -q -t 10 -s /bin/true 2>&1")
	if !strings.Contains(out, "lease of 10.0.2.") {
		t.Errorf("DHCP says\n%s", out)
	}
	l.destroy()
}
