package softnpu

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4"
)

// The tests of the built-in program write frames as their headers, from the
// formats and not from the program.

// join puts the parts of a frame together. A string is hexadecimal, with blanks
// where it helps to read.
func join(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case []byte:
			b = append(b, p...)
		case string:
			digits, err := hex.DecodeString(strings.ReplaceAll(p, " ", ""))
			if err != nil {
				panic(fmt.Sprintf("%q: %v", p, err))
			}
			b = append(b, digits...)
		default:
			panic(fmt.Sprintf("%T is no part of a frame", p))
		}
	}
	return b
}

// addr returns the bytes of an IP address.
func addr(s string) []byte { return netip.MustParseAddr(s).AsSlice() }

func ipv4Head(src, dst string, ttl, protocol byte, length int) []byte {
	b := join("4500 0000 1234 4000", []byte{ttl, protocol}, "0000", addr(src), addr(dst))
	binary.BigEndian.PutUint16(b[2:], uint16(20+length))
	return seal(b)
}

// seal writes the checksum of an IPv4 header.
func seal(b []byte) []byte {
	binary.BigEndian.PutUint16(b[10:], 0)
	binary.BigEndian.PutUint16(b[10:], ^fold(sum(b)))
	return b
}

func ipv4(src, dst string, ttl, protocol byte, payload []byte) []byte {
	return append(ipv4Head(src, dst, ttl, protocol, len(payload)), payload...)
}

func ipv6(src, dst string, hops, next byte, payload []byte) []byte {
	b := join("6123 4567 0000", []byte{next, hops}, addr(src), addr(dst), payload)
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	return b
}

const (
	protoICMP, protoTCP, protoUDP, protoICMP6 = 1, 6, 17, 58
	protoFragment, protoDDM                   = 44, 0xdd
)

func udp(src, dst int, payload []byte) []byte {
	b := join("0000 0000 0000 beef", payload)
	binary.BigEndian.PutUint16(b, uint16(src))
	binary.BigEndian.PutUint16(b[2:], uint16(dst))
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	return b
}

// tcp is a segment with options.
func tcp(src, dst int, payload []byte) []byte {
	b := join("0000 0000 00000001 00000002 8018 1000 beef 0000 0101080a0000000100000002", payload)
	binary.BigEndian.PutUint16(b, uint16(src))
	binary.BigEndian.PutUint16(b[2:], uint16(dst))
	return b
}

func echo(kind byte, id int, payload []byte) []byte {
	b := join([]byte{kind}, "00 beef 0000 0007", payload)
	binary.BigEndian.PutUint16(b[4:], uint16(id))
	return b
}

func arp(op, senderMAC, senderIP, targetMAC, targetIP string) []byte {
	return join("0001 0800 06 04", op, senderMAC, addr(senderIP), targetMAC, addr(targetIP))
}

// toCPU is a sidecar header to the CPU.
func toCPU(port int, etherType string) string {
	return fmt.Sprintf("01 00 %04x %04x %s 0000000000000000000000000001701d", port, port, etherType)
}

// fromCPU is a sidecar header from the CPU.
func fromCPU(port int, etherType string) string {
	return fmt.Sprintf("00 00 0000 %04x %s 00000000000000000000000000000000", port, etherType)
}

// Addresses of the tests. A station sends to the address of the switch's port.
const (
	station, portMAC       = "0200000000ee", "a84025010001"
	next1, next2, next3    = "020000000101", "020000000202", "020000000303"
	next62                 = "020000000602"
	mac1, mac2, mac3       = "a84025000001", "a84025000002", "a84025000003"
	proxyMAC, sledMAC      = "a8e1de01701d", "a840250000aa"
	attachedMAC, broadcast = "a840250000bb", "ffffffffffff"
)

// entry adds an entry in the bytes of the management channel.
func entry(t testing.TB, a *ASIC, table, action string, keys, args []byte) {
	t.Helper()
	if _, err := a.Do(TableAdd{Table: table, Action: action, Keys: keys, Arguments: args}); err != nil {
		t.Fatal(err)
	}
}

// le returns bytes in the order of the management channel.
func le(parts ...any) []byte {
	b := join(parts...)
	slices.Reverse(b)
	return b
}

// builtIn is an ASIC with the built-in program and four front ports: port n
// leads to a next hop for 10.n.0.0/16 and fd00:n::/32, and what else the tests
// need.
func builtIn(t testing.TB) *ASIC {
	t.Helper()
	var wires []Wire
	for range 4 {
		wires = append(wires, newMemoryWire())
	}
	a, err := New(Config{Ports: wires, CPU: newMemoryWire(), Log: newTestLog(&logLines{})})
	if err != nil {
		t.Fatal(err)
	}
	add := func(table, action string, keys []byte, args ...[]byte) {
		t.Helper()
		entry(t, a, "ingress."+table, action, keys, slices.Concat(args...))
	}
	add("local.local_v4", "local", le(addr("10.0.0.1")))
	for _, ip := range []string{"fd00:99::1", "fe80::1"} {
		add("local.local_v6", "local", le(addr(ip)))
	}
	// Port 4 has no address of its own.
	for i, mac := range []string{mac1, mac2, mac3} {
		add("mac.mac_rewrite", "rewrite", le([]byte{0, byte(i + 1)}), le(mac))
	}
	for ip, mac := range map[string]string{"10.1.0.9": next1, "10.2.0.9": next2, "10.3.0.9": next3, "10.4.0.9": next1} {
		add("resolver.resolver_v4", "rewrite_dst", le(addr(ip)), le(mac))
	}
	for ip, mac := range map[string]string{"fe80::101": next1, "fe80::602": next62, "fe80::303": next3} {
		add("resolver.resolver_v6", "rewrite_dst", le(addr(ip)), le(mac))
	}
	index := func(prefix string, idx, slots byte) {
		t.Helper()
		p := netip.MustParsePrefix(prefix)
		version := 6
		if p.Addr().Is4() {
			version = 4
		}
		add(fmt.Sprintf("router.v%d_idx.rtr", version), "index", append(p.Addr().AsSlice(), byte(p.Bits())), []byte{idx, 0, slots})
	}
	path := func(version int, idx byte, action string, port byte, nexthop, vlan string) {
		t.Helper()
		add(fmt.Sprintf("router.v%d_route.rtr", version), action, []byte{idx, 0}, []byte{port, 0}, le(addr(nexthop)), le(vlan))
	}
	index("10.1.0.0/16", 1, 1)
	path(4, 1, "forward", 1, "10.1.0.9", "")
	index("10.2.0.0/16", 2, 1)
	path(4, 2, "forward", 2, "10.2.0.9", "")
	index("10.3.0.0/16", 3, 1)
	path(4, 3, "forward_vlan", 3, "10.3.0.9", "0064")
	index("10.4.0.0/16", 4, 1)
	path(4, 4, "forward", 4, "10.4.0.9", "")
	index("10.22.0.0/16", 22, 1)
	path(4, 22, "forward_v6", 2, "fe80::602", "")
	index("10.33.0.0/16", 33, 1)
	path(4, 33, "forward_vlan_v6", 3, "fe80::303", "0fff")
	index("10.2.5.0/24", 5, 1) // a path that there is not
	index("10.2.6.0/24", 6, 1)
	path(4, 6, "forward", 2, "10.2.0.66", "") // a next hop that nobody knows
	index("10.2.7.0/24", 2, 0)                // no slots
	index("10.2.8.0/24", 80, 3)
	path(4, 80, "forward", 1, "10.1.0.9", "")
	path(4, 81, "forward", 2, "10.2.0.9", "")
	path(4, 82, "forward", 4, "10.4.0.9", "")
	add("router.v4_idx.rtr", "drop", join(addr("10.2.9.0"), "18"))
	add("router.v4_route.rtr", "drop", []byte{90, 0})
	index("10.2.10.0/24", 90, 1)
	add("resolver.resolver_v4", "drop", le(addr("10.2.0.67")))
	index("10.2.11.0/24", 91, 1)
	path(4, 91, "forward", 2, "10.2.0.67", "")

	index("fd00:1::/32", 1, 1)
	path(6, 1, "forward", 1, "fe80::101", "")
	index("fd00:2::/32", 2, 1)
	path(6, 2, "forward", 2, "fe80::602", "")
	index("fd00:3::/32", 3, 1)
	path(6, 3, "forward_vlan", 3, "fe80::303", "0064")
	index("fd00:2:5::/48", 5, 1)
	index("fd00:2:6::/48", 6, 1)
	path(6, 6, "forward", 2, "fe80::66", "")
	index("fd00:2:8::/48", 80, 2)
	path(6, 80, "forward", 1, "fe80::101", "")
	path(6, 81, "forward", 2, "fe80::602", "")
	add("router.v6_idx.rtr", "drop", join(addr("fd00:2:9::"), "30"))

	// Sleds are behind port 2, those of 7 behind a VLAN of port 3.
	index("fd00:1122::/32", 2, 1)
	index("fd00:1122:7::/48", 3, 1)
	sled := func(ip, vni, mac string) []byte { return slices.Concat(le(addr(ip)), le(vni), le(mac)) }
	for _, ip := range []string{"198.51.100.5", "2001:db8::5"} {
		version := 4 + 2*min(1, strings.Count(ip, ":"))
		table := fmt.Sprintf("nat.nat_v%d", version)
		add(table, "forward_to_sled", join(le(addr(ip)), "e803 cf07"), sled("fd00:1122::5", "001e61", sledMAC))
		add(table, "forward_to_sled", join(le(addr(ip)), "d007 d007"), sled("fd00:1122:7::5", "001e61", sledMAC))
	}
	add("nat.nat_v4", "forward_to_sled", join(le(addr("198.51.100.6")), "0000 ffff"), sled("fd00:1122::6", "ffffff", sledMAC))
	add("attached.attached_subnet_v4", "forward_to_sled", join(addr("203.0.113.0"), "18"), sled("fd00:1122::9", "00002a", attachedMAC))
	add("attached.attached_subnet_v6", "forward_to_sled", join(addr("2001:db8:1::"), "30"), sled("fd00:1122::9", "00002a", attachedMAC))
	// An attached subnet goes before NAT.
	add("nat.nat_v4", "forward_to_sled", join(le(addr("203.0.113.7")), "0000 ffff"), sled("fd00:1122::5", "001e61", sledMAC))

	add("pxarp.proxy_arp", "proxy_arp_reply", join(le(addr("10.0.0.50")), le(addr("10.0.0.60"))), le(proxyMAC))
	return a
}

// outer is what NAT puts around a packet of so many bytes.
func outer(dst, vni, inner, innerSrc, etherType string, length int) []byte {
	n := fmt.Sprintf("%04x", length+34)
	return join("60000000", n, "11 ff", addr("fd00:99::1"), addr(dst), "17c1 17c1", n, "0000",
		"01 00 6558", vni, "00", "0129 00 00", inner, innerSrc, etherType)
}

// geneve is a tunnel to an address with options and what is in it.
func geneve(dst, options string, hops byte, inner ...any) []byte {
	words := byte(len(join(options)) / 4)
	return ipv6("fd00:1122::5", dst, hops, protoUDP, udp(51234, 6081, join([]byte{words}, "00 6558 001e61 00", options, join(inner...))))
}

// Options of a tunnel.
const (
	external   = "0129 00 00"
	multicast  = "0129 01 01 40000000"
	mss        = "0129 02 01 000005b4"
	elseOption = "0130 80 02 1122334455667788"
	brokenMSS  = "0129 02 01"
)

// path of a frame through the built-in program.
type way struct {
	name    string
	ingress uint16
	in      []byte
	// egress is where out leaves, if the frame is not dropped for a reason.
	egress  uint16
	out     []byte
	dropped p4.DropReason
}

// ways are the ways that the tables of builtIn lead a frame, and those that
// they do not.
func ways() []way {
	data := []byte("payload of an odd length!")
	eth := func(dst, src, etherType string, rest ...any) []byte { return join(dst, src, etherType, join(rest...)) }
	// came is a frame of a station, went one of the switch to a next hop.
	came := func(etherType string, rest ...any) []byte { return eth(portMAC, station, etherType, rest...) }
	const from4, from6 = "192.0.2.9", "2001:db8:ffff::9"
	v4 := func(dst string, ttl byte) []byte { return ipv4(from4, dst, ttl, protoUDP, udp(5000, 6000, data)) }
	v6 := func(dst string, hops byte) []byte {
		return ipv6(from6, dst, hops, protoTCP, tcp(5000, 6000, data))
	}
	forward := func(name string, ingress uint16, in []byte, egress uint16, out []byte) way {
		return way{name: name, ingress: ingress, in: in, egress: egress, out: out}
	}
	drop := func(name string, ingress uint16, in []byte, why p4.DropReason) way {
		return way{name: name, ingress: ingress, in: in, dropped: why}
	}
	cpu := func(name string, ingress uint16, etherType string, rest ...any) way {
		in := came(etherType, rest...)
		return forward(name, ingress, in, CPUPort, eth(portMAC, station, "0901", toCPU(int(ingress), etherType), join(rest...)))
	}
	// nat is a packet, with a hop less, in a tunnel.
	nat := func(sled, vni, mac, etherType string, packet []byte) []byte {
		return join(outer(sled, vni, mac, station, etherType, len(packet)), packet)
	}

	// Checksums that change in all of their bits when a hop is taken.
	edge := func(checksum uint16, ttl byte) []byte {
		b := v4("10.2.0.7", ttl)
		// The identification makes it so: the sum of all words is 0xffff.
		binary.BigEndian.PutUint16(b[4:], 0)
		binary.BigEndian.PutUint16(b[10:], checksum)
		binary.BigEndian.PutUint16(b[4:], ^fold(sum(b[:20])))
		return b
	}
	fragment := func(dst string, ttl byte, flags string, payload []byte) []byte {
		b := ipv4(from4, dst, ttl, protoUDP, payload)
		copy(b[6:], join(flags))
		seal(b[:20])
		return b
	}
	options := func(dst string, ttl byte) []byte {
		p := udp(5000, 1500, data)
		b := ipv4Head(from4, dst, ttl, protoUDP, 4+len(p))
		b[0] = 0x46
		seal(append(b, 7, 4, 4, 0)) // record route
		b = append(b, 7, 4, 4, 0)
		binary.BigEndian.PutUint16(b[10:], 0)
		binary.BigEndian.PutUint16(b[10:], ^fold(sum(b)))
		return append(b, p...)
	}
	bogus := func(first byte) []byte {
		b := v4("10.2.0.7", 64)
		b[0] = first
		return b
	}
	inner4 := func(ttl byte) []byte { return ipv4("172.30.0.5", "10.2.0.7", ttl, protoTCP, tcp(443, 5000, data)) }
	inner6 := func(hops byte) []byte { return ipv6("fd77::5", "fd00:2::7", hops, protoUDP, udp(443, 5000, data)) }
	const innerEth = "a840250000cc a840250000dd"
	tunnels := func(options string) []way {
		var all []way
		for _, in := range []struct{ etherType, inner, routed []byte }{
			{join("0800"), inner4(64), inner4(63)}, {join("86dd"), inner6(64), inner6(63)},
		} {
			t := fmt.Sprintf("%x", in.etherType)
			dst := next2
			if t == "86dd" {
				dst = next62
			}
			all = append(all,
				forward("tunnel ends, type "+t+", options "+options, 1, came("86dd", geneve("fd00:99::1", options, 64, innerEth, in.etherType, in.inner)),
					2, eth(dst, mac2, t, in.routed)),
				forward("tunnel is carried on, type "+t+", options "+options, 1, came("86dd", geneve("fd00:2::7", options, 64, innerEth, in.etherType, in.inner)),
					2, eth(next62, mac2, "86dd", geneve("fd00:2::7", options, 63, innerEth, in.etherType, in.inner))))
		}
		return all
	}

	all := []way{
		// Local.
		cpu("local v4", 3, "0800", v4("10.0.0.1", 1)),
		cpu("local v6", 4, "86dd", v6("fd00:99::1", 0)),
		cpu("link-local v6", 2, "86dd", ipv6("fe80::9", "fe80::1", 255, protoICMP6, echo(136, 0, data))),
		cpu("multicast of a link", 2, "86dd", ipv6("fe80::9", "ff02::1:ff00:1", 255, protoICMP6, echo(135, 0, data))),
		cpu("DDM", 2, "86dd", ipv6("fe80::9", "ff02::dd", 255, protoDDM, data)),
		drop("multicast of a site", 2, came("86dd", v6("ff05::1", 64)), p4.Dropped),
		cpu("ARP request", 2, "0806", arp("0001", station, "10.0.0.9", "000000000000", "10.0.0.1"), make([]byte, 18)),
		cpu("ARP reply", 2, "0806", arp("0002", station, "10.0.0.9", portMAC, "10.0.0.1")),
		cpu("LLDP", 2, "88cc", "0207040011223344550000"),
		cpu("nothing but a type", 2, "88cc"),
		cpu("local behind a tag", 2, "8100", "a064 0800", v4("10.0.0.1", 64)),
		cpu("ARP behind a tag", 2, "8100", "0064 0806", arp("0001", station, "10.0.0.9", "000000000000", "10.0.0.1")),
		cpu("LLDP behind a tag", 2, "8100", "0064 88cc 0207040011223344550000"),

		// From the CPU.
		forward("from the CPU", CPUPort, eth(station, portMAC, "0901", fromCPU(3, "0800"), v4("10.2.0.7", 1)),
			3, eth(station, portMAC, "0800", v4("10.2.0.7", 1))),
		forward("from the CPU, with a tag", CPUPort, eth(station, portMAC, "0901", fromCPU(1, "8100"), "0064 0800 00"),
			1, eth(station, portMAC, "8100", "0064 0800 00")),
		forward("from the CPU, of any type", CPUPort, eth(station, portMAC, "0901", fromCPU(4, "ffff")), 4, eth(station, portMAC, "ffff")),
		forward("from the CPU to itself", CPUPort, eth(station, portMAC, "0901", fromCPU(0, "0800")), 0, eth(station, portMAC, "0800")),
		forward("from the CPU, to be routed", CPUPort, came("0800", v4("10.2.0.7", 64)), 2, eth(next2, mac2, "0800", v4("10.2.0.7", 63))),
		drop("a sidecar header from a port", 1, eth(station, portMAC, "0901", fromCPU(3, "0800"), v4("10.2.0.7", 64)), p4.Dropped),
		drop("a short sidecar header", CPUPort, eth(station, portMAC, "0901", fromCPU(3, "0800"))[:37], p4.PacketTooShort),

		// Routed.
		forward("v4", 1, came("0800", v4("10.2.0.7", 64)), 2, eth(next2, mac2, "0800", v4("10.2.0.7", 63))),
		forward("v4, UDP without ports", 1, came("0800", ipv4(from4, "10.2.0.7", 64, 47, data)), 2, eth(next2, mac2, "0800", ipv4(from4, "10.2.0.7", 63, 47, data))),
		forward("v4, padded", 1, came("0800", v4("10.2.0.7", 64), "0000"), 2, eth(next2, mac2, "0800", v4("10.2.0.7", 63), "0000")),
		forward("v4, no address of the port", 1, came("0800", v4("10.4.0.7", 64)), 4, eth(next1, station, "0800", v4("10.4.0.7", 63))),
		forward("v4 by v6", 1, came("0800", v4("10.22.0.7", 64)), 2, eth(next62, mac2, "0800", v4("10.22.0.7", 63))),
		forward("v4 into a VLAN", 1, came("0800", v4("10.3.0.7", 64)), 3, eth(next3, mac3, "8100", "0064 0800", v4("10.3.0.7", 63))),
		forward("v4 by v6 into a VLAN", 1, came("0800", v4("10.33.0.7", 64)), 3, eth(next3, mac3, "8100", "0fff 0800", v4("10.33.0.7", 63))),
		forward("v4 out of a VLAN", 1, came("8100", "e064 0800", v4("10.2.0.7", 64)), 2, eth(next2, mac2, "0800", v4("10.2.0.7", 63))),
		forward("v4 from a VLAN to a VLAN", 1, came("8100", "e0c8 0800", v4("10.3.0.7", 64)), 3, eth(next3, mac3, "8100", "0064 0800", v4("10.3.0.7", 63))),
		forward("v6", 1, came("86dd", v6("fd00:2::7", 64)), 2, eth(next62, mac2, "86dd", v6("fd00:2::7", 63))),
		forward("v6 into a VLAN", 1, came("86dd", v6("fd00:3::7", 64)), 3, eth(next3, mac3, "8100", "0064 86dd", v6("fd00:3::7", 63))),
		forward("v6 out of a VLAN", 1, came("8100", "0064 86dd", v6("fd00:2::7", 64)), 2, eth(next62, mac2, "86dd", v6("fd00:2::7", 63))),
		forward("v6 fragment", 1, came("86dd", ipv6(from6, "fd00:2::7", 64, protoFragment, join("11000008 00000001", data))),
			2, eth(next62, mac2, "86dd", ipv6(from6, "fd00:2::7", 63, protoFragment, join("11000008 00000001", data)))),
		forward("v4 ICMP", 1, came("0800", ipv4(from4, "10.2.0.7", 64, protoICMP, echo(8, 1500, data))),
			2, eth(next2, mac2, "0800", ipv4(from4, "10.2.0.7", 63, protoICMP, echo(8, 1500, data)))),
		forward("v4 options", 1, came("0800", options("10.2.0.7", 64)), 2, eth(next2, mac2, "0800", options("10.2.0.7", 63))),
		forward("last hop but one", 1, came("0800", v4("10.2.0.7", 2)), 2, eth(next2, mac2, "0800", v4("10.2.0.7", 1))),
		forward("checksum that becomes zero", 1, came("0800", edge(0xfeff, 64)), 2, eth(next2, mac2, "0800", seal(slices.Concat(edge(0xfeff, 64)[:8], []byte{63}, edge(0xfeff, 64)[9:20])), edge(0xfeff, 64)[20:])),
		forward("checksum that overflows", 1, came("0800", edge(0xff01, 64)), 2, eth(next2, mac2, "0800", seal(slices.Concat(edge(0xff01, 64)[:8], []byte{63}, edge(0xff01, 64)[9:20])), edge(0xff01, 64)[20:])),
		forward("no slots are one", 1, came("0800", v4("10.2.7.7", 64)), 2, eth(next2, mac2, "0800", v4("10.2.7.7", 63))),
		drop("v4, last hop", 1, came("0800", v4("10.2.0.7", 1)), p4.Dropped),
		drop("v4, no hops", 1, came("0800", v4("10.2.0.7", 0)), p4.Dropped),
		drop("v6, last hop", 1, came("86dd", v6("fd00:2::7", 1)), p4.Dropped),
		drop("v6, no hops", 1, came("86dd", v6("fd00:2::7", 0)), p4.Dropped),
		drop("v4 without a route", 1, came("0800", v4("10.99.0.7", 64)), p4.Dropped),
		drop("v6 without a route", 1, came("86dd", v6("fd00:99::7", 64)), p4.Dropped),
		drop("v4 without a path", 1, came("0800", v4("10.2.5.7", 64)), p4.Dropped),
		drop("v6 without a path", 1, came("86dd", v6("fd00:2:5::7", 64)), p4.Dropped),
		drop("v4, unknown next hop", 1, came("0800", v4("10.2.6.7", 64)), p4.Dropped),
		drop("v6, unknown next hop", 1, came("86dd", v6("fd00:2:6::7", 64)), p4.Dropped),
		drop("v4, route that drops", 1, came("0800", v4("10.2.9.7", 64)), p4.Dropped),
		drop("v6, route that drops", 1, came("86dd", v6("fd00:2:9::7", 64)), p4.Dropped),
		drop("v4, path that drops", 1, came("0800", v4("10.2.10.7", 64)), p4.Dropped),
		drop("v4, next hop that drops", 1, came("0800", v4("10.2.11.7", 64)), p4.Dropped),
		drop("v4 back", 2, came("0800", v4("10.2.0.7", 64)), p4.Dropped),
		drop("v6 back", 2, came("86dd", v6("fd00:2::7", 64)), p4.Dropped),
		drop("v4 back, into a VLAN", 3, came("0800", v4("10.3.0.7", 64)), p4.Dropped),

		// Fragments.
		forward("first fragment", 1, came("0800", fragment("10.2.0.7", 64, "2000", udp(5000, 6000, data))),
			2, eth(next2, mac2, "0800", fragment("10.2.0.7", 63, "2000", udp(5000, 6000, data)))),
		forward("second fragment", 1, came("0800", fragment("10.2.0.7", 64, "2003", data)), 2, eth(next2, mac2, "0800", fragment("10.2.0.7", 63, "2003", data))),
		forward("last fragment", 1, came("0800", fragment("10.2.0.7", 64, "1abc", data)), 2, eth(next2, mac2, "0800", fragment("10.2.0.7", 63, "1abc", data))),
		forward("fragment of one byte", 1, came("0800", fragment("10.2.0.7", 64, "0003", data[:1])), 2, eth(next2, mac2, "0800", fragment("10.2.0.7", 63, "0003", data[:1]))),
		forward("fragment to NAT of all ports", 1, came("0800", fragment("198.51.100.6", 64, "2003", data)),
			2, eth(next62, mac2, "86dd", nat("fd00:1122::6", "ffffff", sledMAC, "0800", fragment("198.51.100.6", 63, "2003", data)))),
		// Its payload looks like one of those ports.
		drop("fragment to NAT of some ports", 1, came("0800", fragment("198.51.100.5", 64, "2003", udp(5000, 1500, data))), p4.Dropped),

		// What is none of these.
		drop("unknown type", 1, came("1234", data), p4.ParserReject),
		drop("unknown type behind a tag", 1, came("8100", "0064 1234", data), p4.ParserReject),
		drop("two tags", 1, came("8100", "0064 8100 0065 0800", v4("10.2.0.7", 64)), p4.ParserReject),
		drop("a length and no type", 1, came("0026", data), p4.ParserReject),
		drop("v4 of another version", 1, came("0800", bogus(0x65)), p4.ParserReject),
		drop("v4 with a short header", 1, came("0800", bogus(0x44)), p4.ParserReject),
		drop("nothing", 1, nil, p4.PacketTooShort),
		drop("half of Ethernet", 1, came("0800")[:13], p4.PacketTooShort),

		// Proxy ARP.
		forward("proxy ARP", 2, eth(broadcast, station, "0806", arp("0001", station, "10.0.0.9", "000000000000", "10.0.0.50"), make([]byte, 18)),
			2, eth(station, proxyMAC, "0806", arp("0002", proxyMAC, "10.0.0.50", station, "10.0.0.9"), make([]byte, 18))),
		forward("proxy ARP, last of the range", 4, eth(broadcast, station, "0806", arp("0001", station, "10.0.0.9", "000000000000", "10.0.0.60")),
			4, eth(station, proxyMAC, "0806", arp("0002", proxyMAC, "10.0.0.60", station, "10.0.0.9"))),
		forward("proxy ARP behind a tag", 2, eth(broadcast, station, "8100", "0064 0806", arp("0001", station, "10.0.0.9", "000000000000", "10.0.0.55")),
			2, eth(station, proxyMAC, "8100", "0064 0806", arp("0002", proxyMAC, "10.0.0.55", station, "10.0.0.9"))),
		cpu("ARP before the range", 2, "0806", arp("0001", station, "10.0.0.9", "000000000000", "10.0.0.49")),
		cpu("ARP behind the range", 2, "0806", arp("0001", station, "10.0.0.9", "000000000000", "10.0.0.61")),
		cpu("ARP reply from the range", 2, "0806", arp("0002", station, "10.0.0.9", portMAC, "10.0.0.55")),
		drop("short ARP", 2, came("0806", arp("0001", station, "10.0.0.9", "000000000000", "10.0.0.50")[:27]), p4.PacketTooShort),

		// NAT and attached subnets.
		drop("NAT, below the ports", 1, came("0800", ipv4(from4, "198.51.100.5", 64, protoTCP, tcp(5000, 999, data))), p4.Dropped),
		drop("NAT, above the ports", 1, came("0800", ipv4(from4, "198.51.100.5", 64, protoTCP, tcp(5000, 2001, data))), p4.Dropped),
		// Its options look like one of those ports.
		drop("NAT, behind options", 1, came("0800", options("198.51.100.5", 64)), p4.Dropped),
		drop("NAT, last hop", 1, came("0800", ipv4(from4, "198.51.100.5", 1, protoTCP, tcp(5000, 1500, data))), p4.Dropped),
		drop("NAT back", 2, came("0800", ipv4(from4, "198.51.100.5", 64, protoTCP, tcp(5000, 1500, data))), p4.Dropped),
		forward("NAT into a VLAN", 1, came("0800", ipv4(from4, "198.51.100.5", 64, protoTCP, tcp(5000, 2000, data))),
			3, eth(next3, mac3, "8100", "0064 86dd", nat("fd00:1122:7::5", "001e61", sledMAC, "0800", ipv4(from4, "198.51.100.5", 63, protoTCP, tcp(5000, 2000, data))))),
		forward("NAT out of a VLAN", 1, came("8100", "0064 0800", ipv4(from4, "198.51.100.5", 64, protoTCP, tcp(5000, 1500, data))),
			2, eth(next62, mac2, "86dd", nat("fd00:1122::5", "001e61", sledMAC, "0800", ipv4(from4, "198.51.100.5", 63, protoTCP, tcp(5000, 1500, data))))),
		forward("attached v4", 1, came("0800", v4("203.0.113.7", 64)),
			2, eth(next62, mac2, "86dd", nat("fd00:1122::9", "00002a", attachedMAC, "0800", v4("203.0.113.7", 63)))),
		forward("attached v6", 1, came("86dd", v6("2001:db8:1::7", 64)),
			2, eth(next62, mac2, "86dd", nat("fd00:1122::9", "00002a", attachedMAC, "86dd", v6("2001:db8:1::7", 63)))),
		// A tunnel of somebody else, to an address behind NAT.
		forward("a tunnel in a tunnel", 1, came("86dd", geneve("2001:db8:1::7", external+mss, 64, innerEth, "0800", inner4(64))),
			2, eth(next62, mac2, "86dd", nat("fd00:1122::9", "00002a", attachedMAC, "86dd", geneve("2001:db8:1::7", external+mss, 63, innerEth, "0800", inner4(64))))),

		// Tunnels.
		forward("tunnel ends, into a VLAN", 1, came("86dd", geneve("fd00:99::1", external, 1, innerEth, "0800", ipv4("172.30.0.5", "10.3.0.7", 64, protoUDP, udp(1, 2, data)))),
			3, eth(next3, mac3, "8100", "0064 0800", ipv4("172.30.0.5", "10.3.0.7", 63, protoUDP, udp(1, 2, data)))),
		forward("tunnel ends, out of a VLAN", 1, came("8100", "0064 86dd", geneve("fd00:99::1", external, 64, innerEth, "0800", inner4(64))), 2, eth(next2, mac2, "0800", inner4(63))),
		forward("tunnel of v4 ends", 1, came("0800", ipv4("10.9.9.9", "10.0.0.1", 64, protoUDP, udp(6081, 6081, join("0100 6558 001e61 00", external, innerEth, "86dd", inner6(64))))),
			2, eth(next62, mac2, "86dd", inner6(63))),
		forward("tunnel ends, not NAT again", 1, came("86dd", geneve("fd00:99::1", external, 64, innerEth, "0800", ipv4("172.30.0.5", "10.2.0.7", 64, protoTCP, tcp(1, 1500, data)))),
			2, eth(next2, mac2, "0800", ipv4("172.30.0.5", "10.2.0.7", 63, protoTCP, tcp(1, 1500, data)))),
		drop("tunnel ends, last hop", 1, came("86dd", geneve("fd00:99::1", external, 64, innerEth, "0800", inner4(1))), p4.Dropped),
		drop("tunnel ends, back", 2, came("86dd", geneve("fd00:99::1", external, 64, innerEth, "0800", inner4(64))), p4.Dropped),
		cpu("tunnel ends, without a packet", 1, "86dd", geneve("fd00:99::1", external, 64, innerEth, "0806", arp("0001", station, "10.0.0.9", "000000000000", "10.0.0.50"))),
		cpu("tunnel ends, without Ethernet", 1, "86dd", ipv6(from6, "fd00:99::1", 64, protoUDP, udp(1, 6081, join("0000 0800 001e61 00", innerEth, "0800", inner4(64))))),
		forward("tunnel without Ethernet is carried on", 1, came("86dd", ipv6(from6, "fd00:2::7", 64, protoUDP, udp(1, 6081, join("0000 0800 001e61 00", data)))),
			2, eth(next62, mac2, "86dd", ipv6(from6, "fd00:2::7", 63, protoUDP, udp(1, 6081, join("0000 0800 001e61 00", data))))),
		drop("tunnel that ends within its options", 1, came("86dd", ipv6(from6, "fd00:2::7", 64, protoUDP, udp(1, 6081, join("3f00 6558 001e61 00", external, elseOption)))), p4.PacketTooShort),
		drop("option that ends behind the options", 1, came("86dd", geneve("fd00:2::7", external+brokenMSS, 64, innerEth, "0800", inner4(64))), p4.VerifyFailed),
	}
	for _, l4 := range []struct {
		name     string
		protocol byte
		payload  []byte
	}{
		{"TCP", protoTCP, tcp(5000, 1000, data)}, {"UDP", protoUDP, udp(5000, 1999, data)},
		{"ICMP", protoICMP, echo(0, 1500, data)}, {"ICMPv6", protoICMP6, echo(129, 1500, data)},
	} {
		if l4.protocol != protoICMP6 {
			in, out := ipv4(from4, "198.51.100.5", 64, l4.protocol, l4.payload), ipv4(from4, "198.51.100.5", 63, l4.protocol, l4.payload)
			all = append(all, forward("NAT v4 "+l4.name, 1, came("0800", in), 2, eth(next62, mac2, "86dd", nat("fd00:1122::5", "001e61", sledMAC, "0800", out))))
		}
		if l4.protocol != protoICMP {
			in, out := ipv6(from6, "2001:db8::5", 64, l4.protocol, l4.payload), ipv6(from6, "2001:db8::5", 63, l4.protocol, l4.payload)
			all = append(all, forward("NAT v6 "+l4.name, 1, came("86dd", in), 2, eth(next62, mac2, "86dd", nat("fd00:1122::5", "001e61", sledMAC, "86dd", out))))
		}
	}
	for _, o := range []string{"", external, external + multicast, external + mss, external + multicast + mss, multicast, mss,
		mss + external, multicast + external + mss, multicast + multicast, mss + mss, elseOption, external + elseOption + mss, strings.Repeat(elseOption, 21)} {
		all = append(all, tunnels(o)...)
	}
	return all
}

// left is a frame that left.
type left struct {
	egress uint16
	frame  []byte
}

// pass runs a frame through the program of an ASIC.
func pass(th Thread, ingress uint16, frame []byte) (all []left, why p4.DropReason) {
	why = th.Process(ingress, frame, func(egress uint16, frame []byte) {
		all = append(all, left{egress, bytes.Clone(frame)})
	})
	return all, why
}

func TestBuiltInForwardsEveryKindOfFrame(t *testing.T) {
	a := builtIn(t)
	th := a.Pipeline().NewThread()
	for _, w := range ways() {
		in := bytes.Clone(w.in)
		out, why := pass(th, w.ingress, in)
		switch {
		case !bytes.Equal(in, w.in):
			t.Errorf("%s: the frame that came in was changed", w.name)
		case w.out == nil && (why != w.dropped || len(out) > 0):
			t.Errorf("%s: %q and %d frames left, want %q", w.name, why, len(out), w.dropped)
		case w.out != nil && (len(out) != 1 || out[0].egress != w.egress || !bytes.Equal(out[0].frame, w.out)):
			t.Errorf("%s: %q, want by port %d\n%x\ngot\n%x", w.name, why, w.egress, w.out, out)
		}
	}
}

// A frame that ends early leaves cut short too, or is dropped, and what is left
// of it is not touched.
func TestBuiltInTakesFramesThatEndAnywhere(t *testing.T) {
	a := builtIn(t)
	th := a.Pipeline().NewThread()
	for _, w := range ways() {
		whole, why := pass(th, w.ingress, w.in)
		for n := range w.in {
			cut, cutWhy := pass(th, w.ingress, w.in[:n])
			switch {
			case cutWhy == p4.PacketTooShort || cutWhy == why && len(whole) == 0:
			case len(cut) != len(whole) || len(cut[0].frame) != len(whole[0].frame)-len(w.in)+n ||
				!bytes.HasPrefix(whole[0].frame, cut[0].frame):
				// What the headers say is still within them.
				t.Errorf("%s, %d bytes of %d: %q and %x left", w.name, n, len(w.in), cutWhy, cut)
			}
		}
	}
}

func TestBuiltInHasTheTablesOfSidecarLite(t *testing.T) {
	const idx, port, v4, v6, vlan = "(idx 16, slots 8)", "(port 16, nexthop ", "32", "128", ", vlan_id 12)"
	const sled = "forward_to_sled(target 128, vni 24, mac 48)"
	want := map[string]string{
		"ingress.local.local_v6":              "exact 128: local() nonlocal()",
		"ingress.local.local_v4":              "exact 32: local() nonlocal()",
		"ingress.router.v4_idx.rtr":           "lpm 32: drop() index" + idx,
		"ingress.router.v6_idx.rtr":           "lpm 128: drop() index" + idx,
		"ingress.router.v4_route.rtr":         "exact 16: drop() forward" + port + v4 + ") forward_v6" + port + v6 + ") forward_vlan" + port + v4 + vlan + " forward_vlan_v6" + port + v6 + vlan,
		"ingress.router.v6_route.rtr":         "exact 16: drop() forward" + port + v6 + ") forward_vlan" + port + v6 + vlan,
		"ingress.nat.nat_v4":                  "exact 32, range 16: " + sled,
		"ingress.nat.nat_v6":                  "exact 128, range 16: " + sled,
		"ingress.attached.attached_subnet_v4": "lpm 32: " + sled,
		"ingress.attached.attached_subnet_v6": "lpm 128: " + sled,
		"ingress.resolver.resolver_v4":        "exact 32: drop() rewrite_dst(mac 48)",
		"ingress.resolver.resolver_v6":        "exact 128: drop() rewrite_dst(mac 48)",
		"ingress.mac.mac_rewrite":             "exact 16: rewrite(mac 48)",
		"ingress.pxarp.proxy_arp":             "range 32: proxy_arp_reply(mac 48)",
	}
	got, err := builtIn(t).Do(TablesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	tables := got.([]Table)
	for _, table := range tables {
		var keys, actions []string
		for _, k := range table.Keys {
			keys = append(keys, fmt.Sprintf("%s %d", k.Kind, k.Bits))
		}
		for _, a := range table.Actions {
			if a.Name == "NoAction" {
				continue
			}
			var params []string
			for _, p := range a.Parameters {
				params = append(params, fmt.Sprintf("%s %d", p.Name, p.Bits))
			}
			actions = append(actions, fmt.Sprintf("%s(%s)", a.Name, strings.Join(params, ", ")))
		}
		slices.Sort(actions)
		if s := strings.Join(keys, ", ") + ": " + strings.Join(actions, " "); s != want[table.Name] {
			t.Errorf("%s: %s, want %s", table.Name, s, want[table.Name])
		}
	}
	if len(tables) != len(want) {
		t.Errorf("%d tables, want %d", len(tables), len(want))
	}
}

func TestBuiltInCompilesWithoutWarnings(t *testing.T) {
	p, err := p4.Compile(p4.Files(BuiltIn().Main, BuiltIn().Files))
	if err != nil {
		t.Fatal(err)
	}
	if w := p.Warnings(); len(w) > 0 {
		t.Error(w)
	}
}

// Flows spread over the paths of a route, and each has its own.
func TestBuiltInSpreadsFlowsOverPaths(t *testing.T) {
	a := builtIn(t)
	th := a.Pipeline().NewThread()
	egress := func(etherType string, packet []byte) uint16 {
		out, why := pass(th, 3, join(portMAC, station, etherType, packet))
		if len(out) != 1 {
			t.Fatalf("%q: %x", why, packet)
		}
		return out[0].egress
	}
	used4, used6 := map[uint16]int{}, map[uint16]int{}
	const flows = 600
	for i := range flows {
		for _, payload := range [][]byte{nil, []byte("other")} {
			used4[egress("0800", ipv4("192.0.2.9", "10.2.8.7", 64, protoUDP, udp(5000+i, 6000, payload)))]++
			used6[egress("86dd", ipv6("2001:db8::9", "fd00:2:8::7", 64, protoTCP, tcp(5000, 6000+i, payload)))]++
		}
	}
	for port, n := range used4 {
		// Two packets each.
		if n%2 != 0 || n < 2*flows/3-flows/5 {
			t.Errorf("%d packets of %d flows over 3 paths by port %d", n, flows, port)
		}
	}
	for port, n := range used6 {
		if n%2 != 0 || n < flows-flows/5 {
			t.Errorf("%d packets of %d flows over 2 paths by port %d", n, flows, port)
		}
	}
	if len(used4) != 3 || len(used6) != 2 {
		t.Errorf("ports used: %v and %v", used4, used6)
	}
	// Fragments of one packet go one way, though the first has ports.
	for i := range 50 {
		first := ipv4(fmt.Sprintf("192.0.2.%d", i), "10.2.8.7", 64, protoUDP, udp(5000+i, 6000, nil))
		second := ipv4(fmt.Sprintf("192.0.2.%d", i), "10.2.8.7", 64, protoUDP, []byte("the rest"))
		first[6], second[7] = 0x20, 1
		if x, y := egress("0800", first), egress("0800", second); x != y {
			t.Fatalf("fragments of a packet leave by ports %d and %d", x, y)
		}
	}
}

// A packet that one switch puts into a tunnel is taken out of it by the one at
// its end, but for a hop.
func TestBuiltInTunnelsEndAsTheyBegan(t *testing.T) {
	begin := builtIn(t)
	end := builtIn(t)
	entry(t, end, "ingress.local.local_v6", "local", le(addr("fd00:1122::9")), nil)
	entry(t, end, "ingress.router.v4_idx.rtr", "index", join(addr("203.0.113.0"), "18"), []byte{1, 0, 1})
	entry(t, end, "ingress.router.v6_idx.rtr", "index", join(addr("2001:db8:1::"), "30"), []byte{1, 0, 1})
	thread, endThread := begin.Pipeline().NewThread(), end.Pipeline().NewThread()
	rapid.Check(t, func(t *rapid.T) {
		payload := rapid.SliceOf(rapid.Byte()).Draw(t, "payload")
		protocol := rapid.SampledFrom([]byte{0, protoTCP, protoUDP, protoICMP, protoICMP6, 50}).Draw(t, "protocol")
		switch protocol {
		case protoTCP:
			payload = tcp(1, 2, payload)
		case protoUDP:
			payload = udp(1, rapid.SampledFrom([]int{2, 6082}).Draw(t, "port"), payload)
		case protoICMP, protoICMP6:
			payload = echo(8, 3, payload)
		}
		ttl := rapid.ByteRange(3, 255).Draw(t, "ttl")
		packet := func(ttl byte) []byte {
			return join("0800", ipv4("192.0.2.9", "203.0.113.7", ttl, protocol, payload))
		}
		if rapid.Bool().Draw(t, "v6") {
			packet = func(ttl byte) []byte {
				return join("86dd", ipv6("2001:db8:f::9", "2001:db8:1::7", ttl, protocol, payload))
			}
		}
		middle, why := pass(thread, 1, join(portMAC, station, packet(ttl)))
		if len(middle) != 1 || middle[0].egress != 2 {
			t.Fatalf("into the tunnel: %q, %x", why, middle)
		}
		out, why := pass(endThread, 2, middle[0].frame)
		if want := join(next1, mac1, packet(ttl-2)); len(out) != 1 || out[0].egress != 1 || !bytes.Equal(out[0].frame, want) {
			t.Fatalf("out of the tunnel: %q\n%x\nwant\n%x", why, out, want)
		}
	})
}

// An ASIC that is told of no program runs the built-in one.
func TestAnASICRunsTheBuiltInProgram(t *testing.T) {
	a := &testASIC{cpu: newMemoryWire(), ports: []*memoryWire{newMemoryWire()}, log: &logLines{}}
	var err error
	if a.ASIC, err = New(Config{CPU: a.cpu, Ports: []Wire{a.ports[0]}, Log: newTestLog(a.log)}); err != nil {
		t.Fatal(err)
	}
	a.serve(t)
	a.ports[0].in <- Frame{Data: join(portMAC, station, "88cc 0000")}
	want := join(portMAC, station, "0901", toCPU(1, "88cc"), "0000")
	if f := a.cpu.next(t); !bytes.Equal(f.Data, want) {
		t.Errorf("the CPU got %x, want %x", f.Data, want)
	}
	bad := Source{Main: "bad.p4", Files: map[string]string{"bad.p4": "control {"}}
	if _, err := New(Config{Ports: []Wire{newMemoryWire()}, Program: &bad, Log: newTestLog(a.log)}); err == nil || !strings.Contains(err.Error(), "bad.p4:1") {
		t.Errorf("a program with a fault: %v", err)
	}
}

// A long frame of a guest passes as it is when it is routed, and is cut when it
// must go into a tunnel.
func TestBuiltInPassesLongFrames(t *testing.T) {
	a := &testASIC{cpu: newMemoryWire(), log: &logLines{}}
	c := Config{CPU: a.cpu, Log: newTestLog(a.log)}
	for range 2 {
		w := newMemoryWire()
		w.offloads = true
		a.ports, c.Ports = append(a.ports, w), append(c.Ports, w)
	}
	var err error
	if a.ASIC, err = New(c); err != nil {
		t.Fatal(err)
	}
	entry(t, a.ASIC, "ingress.router.v4_idx.rtr", "index", join(addr("10.0.0.0"), "18"), []byte{1, 0, 1})
	entry(t, a.ASIC, "ingress.router.v4_route.rtr", "forward", []byte{1, 0}, join([]byte{2, 0}, le(addr("10.0.0.9"))))
	entry(t, a.ASIC, "ingress.resolver.resolver_v4", "rewrite_dst", le(addr("10.0.0.9")), le(next2))
	entry(t, a.ASIC, "ingress.router.v6_idx.rtr", "index", join(addr("fd00::"), "10"), []byte{1, 0, 1})
	entry(t, a.ASIC, "ingress.router.v6_route.rtr", "forward", []byte{1, 0}, join([]byte{2, 0}, le(addr("fe80::9"))))
	entry(t, a.ASIC, "ingress.resolver.resolver_v6", "rewrite_dst", le(addr("fe80::9")), le(next2))
	a.serve(t)

	long := func() Frame {
		f := segmented(false, false, testFrame(false, false, false, bytes.Repeat([]byte("0123456789"), 6000)), 1000)
		f.Offload.HeaderLength = f.Offload.ChecksumStart + 32
		return f
	}
	in := long()
	a.ports[0].in <- long()
	out := a.ports[1].next(t)
	if len(out.Data) != len(in.Data) || out.Offload != in.Offload {
		t.Fatalf("%d bytes of %d and %+v left", len(out.Data), len(in.Data), out.Offload)
	}
	if ttl := out.Data[22]; ttl != in.Data[22]-1 || fold(sum(out.Data[14:34])) != 0xffff {
		t.Errorf("the header of IP is %x", out.Data[14:34])
	}
	entry(t, a.ASIC, "ingress.attached.attached_subnet_v4", "forward_to_sled", join(addr("10.0.0.0"), "18"),
		join(le(addr("fd00::9")), "2a0000", le(sledMAC)))
	a.ports[0].in <- long()
	for i := range 60 {
		f := a.ports[1].next(t)
		if f.Offload != (Offload{}) || len(f.Data) != 14+40+8+8+4+14+20+32+1000 {
			t.Fatalf("segment %d has %d bytes and %+v", i, len(f.Data), f.Offload)
		}
		checkChecksums(t, join(f.Data[14+40+8+8+4:]), false, false, false)
	}
}

// A frame costs no allocation on its way.
func TestBuiltInAllocatesNothing(t *testing.T) {
	th := builtIn(t).Pipeline().NewThread()
	emit := func(uint16, []byte) {}
	for _, w := range ways() {
		if n := testing.AllocsPerRun(20, func() { th.Process(w.ingress, w.in, emit) }); n != 0 {
			t.Errorf("%s: %v allocations", w.name, n)
		}
	}
}

// FuzzBuiltIn: whatever frame comes in by whatever port, the program drops it or
// sends one that is not longer than its headers can make it, and the same one
// each time.
func FuzzBuiltIn(f *testing.F) {
	for _, w := range ways() {
		f.Add(w.ingress, w.in)
	}
	const tunnel, tag, sidecar = 14 + 40 + 8 + 8 + 4, 4, 24
	th := builtIn(f).Pipeline().NewThread()
	f.Fuzz(func(t *testing.T, ingress uint16, in []byte) {
		came := bytes.Clone(in)
		out, why := pass(th, ingress, in)
		again, whyAgain := pass(th, ingress, in)
		if !bytes.Equal(came, in) {
			t.Fatalf("the frame that came in was changed to %x", in)
		}
		if (why == p4.NotDropped) != (len(out) == 1) || len(out) > 1 {
			t.Fatalf("%q, and %d frames left", why, len(out))
		}
		if why != whyAgain || len(out) == 1 && (out[0].egress != again[0].egress || !bytes.Equal(out[0].frame, again[0].frame)) {
			t.Fatalf("%q, %x, and then %q, %x", why, out, whyAgain, again)
		}
		if len(out) == 0 {
			return
		}
		if n := len(out[0].frame); n < 14 || n > len(in)+max(tunnel+tag, sidecar) {
			t.Fatalf("%d bytes left of %d", n, len(in))
		}
		// All but the CPU can reach ports that tables name, the CPU, and back
		// by proxy ARP.
		if e := out[0].egress; e > 4 && e != ingress && ingress != CPUPort {
			t.Fatalf("a frame left by port %d", e)
		}
	})
}

// processorTime is what the processor has given to this process, which other
// load on the machine does not change.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// reportRate reports packets a second: by the clock, and by the time of the
// processor.
func reportRate(b *testing.B, used time.Duration) {
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
	b.ReportMetric(float64(b.N)/used.Seconds(), "packets/cpu-s")
}

// drain is a wire that counts what is written to it.
type drain struct{ frames *int }

func (d drain) Read([]Frame) (int, error) { return 0, net.ErrClosed }

func (d drain) Write(frames []Frame) (int, error) { return d.TryWrite(frames), nil }

func (d drain) TryWrite(frames []Frame) int {
	*d.frames += len(frames)
	return len(frames)
}

func (d drain) Offloads() bool { return false }
func (d drain) Close() error   { return nil }

// One core has to route 500,000 packets a second: from frame to frame in the
// program, and as much as possible of it from port to port of the ASIC.
func BenchmarkBuiltInRouted(b *testing.B) {
	const routes = 10000
	a := builtIn(b)
	// Frames lie one behind the other, so that what is measured is not how far
	// apart they are: a port reads them into few buffers.
	frames, room := map[string][][]byte{}, make([]byte, 2*routes*64)
	add := func(version string, frame []byte) {
		n := copy(room, frame)
		frames[version] = append(frames[version], room[:n:n])
		room = room[n:]
	}
	for i := range routes {
		// Far apart, as those of a table of the internet are, and none soon
		// after it was looked up.
		k := i * 7919 % routes
		hi, lo, path := byte(k>>8), byte(k), []byte{byte(1 + k%2), 0, 1}
		v4, v6 := []byte{100 + lo%100, hi, lo}, join("2a00", []byte{lo, hi, lo, 0})
		entry(b, a, "ingress.router.v4_idx.rtr", "index", join(v4, "00 18"), path)
		entry(b, a, "ingress.router.v6_idx.rtr", "index", join(v6, "0000 0000 0000 0000 0000 30"), path)
		to4, _ := netip.AddrFromSlice(join(v4, "07"))
		to6, _ := netip.AddrFromSlice(join(v6, "0000 0000 0000 0000 0007"))
		add("v4", join(portMAC, station, "0800", ipv4("192.0.2.9", to4.String(), 64, protoUDP, udp(5000, 6000, make([]byte, 22)))))
		add("v6", join(portMAC, station, "86dd", ipv6("2001:db8::9", to6.String(), 64, protoUDP, udp(5000, 6000, nil))))
	}
	for _, version := range []string{"v4", "v6"} {
		in := frames[version]
		b.Run(version, func(b *testing.B) {
			th, n, i := a.Pipeline().NewThread(), 0, 0
			emit := func(uint16, []byte) { n++ }
			b.ReportAllocs()
			before := processorTime(b)
			for b.Loop() {
				th.Process(3, in[i], emit)
				if i++; i == routes {
					i = 0
				}
			}
			reportRate(b, processorTime(b)-before)
			if n != b.N {
				b.Fatalf("%d packets of %d left", n, b.N)
			}
		})
		b.Run("ports/"+version, func(b *testing.B) {
			r := &runner{asic: a, port: a.ports[3]}
			r.emit, r.staged = r.emitted, make([][]*buffer, len(a.ports))
			n := 0
			for _, p := range a.ports {
				p.wire = drain{&n}
			}
			b.ReportAllocs()
			f, i := Frame{}, 0
			before := processorTime(b)
			for b.Loop() {
				f.Data = in[i]
				r.receive(&f)
				if i++; i == routes {
					i = 0
				}
				if i%batchFrames == 0 {
					r.flush()
				}
			}
			reportRate(b, processorTime(b)-before)
			r.flush()
			if n != b.N {
				b.Fatalf("%d packets of %d left", n, b.N)
			}
		})
	}
}
