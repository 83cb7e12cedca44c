package p4

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/match"
)

func program(t testing.TB, name string, ports int) *Pipeline {
	t.Helper()
	p, err := CompileFile("testdata/programs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if w := p.Warnings(); len(w) > 0 {
		t.Errorf("warnings about %s: %v", name, w)
	}
	pl, err := p.New(ports)
	if err != nil {
		t.Fatal(err)
	}
	return pl
}

func TestHub(t *testing.T) {
	pl := program(t, "hub.p4", 4)
	const in = "a84025000001 a84025000002 0800 0102030405"
	expect(t, pl, 0, in, "1:"+in, "2:"+in, "3:"+in)
	expect(t, pl, 2, in, "0:"+in, "1:"+in, "3:"+in)
	drops(t, pl, 3, in, NoEgressPort)
}

// ipv4Packet is an Ethernet frame with an IPv4 packet whose checksum is right.
func ipv4Packet(src, dst netip.Addr, ttl byte, payload int) []byte {
	b := make([]byte, 14+20+8+payload)
	copy(b, []byte{0xa8, 0x40, 0x25, 0, 0, 0xff, 0xa8, 0x40, 0x25, 0, 0, 0xee, 0x08, 0x00})
	ip := b[14:]
	ip[0], ip[8], ip[9] = 0x45, ttl, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	copy(ip[12:], src.AsSlice())
	copy(ip[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(ip[10:], internetChecksum(ip[:20]))
	return b
}

// router is the router with one path for each of its front ports, and routes for 10.x.y.0/24 to them.
func router(t testing.TB, routes int) *Pipeline {
	pl := program(t, "router.p4", 5)
	for i := range 4 {
		next := netip.AddrFrom4([4]byte{192, 168, byte(i), 1}).AsSlice()
		mac := []byte{0xa8, 0x40, 0x25, 1, 0, byte(i)}
		must(t, pl.Add("ingress.routes.paths", Entry{Match: keys(match.Match{Value: []byte{0, byte(i)}}), Action: "via4", Args: [][]byte{{0, byte(i + 1)}, next}}))
		must(t, pl.Add("ingress.neighbours.v4", Entry{Match: keys(match.Match{Value: next}), Action: "rewrite", Args: [][]byte{mac}}))
		must(t, pl.Add("ingress.sources", Entry{Match: keys(match.Match{Value: []byte{0, byte(i + 1)}}), Action: "set_source", Args: [][]byte{{0xa8, 0x40, 0x25, 2, 0, byte(i)}}}))
	}
	must(t, pl.Add("ingress.local4", Entry{Match: keys(match.Match{Value: []byte{192, 168, 0, 254}}), Action: "local"}))
	for i := range routes {
		must(t, pl.Add("ingress.routes.v4", route(i)))
	}
	return pl
}

func route(i int) Entry {
	return Entry{Match: keys(match.Match{Value: []byte{byte(10 + i>>16), byte(i >> 8), byte(i), 0}, Prefix: 24}), Action: "path4", Args: [][]byte{{0, byte(i % 4)}, {1}}}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRouter(t *testing.T) {
	pl := router(t, 1000)
	src := netip.MustParseAddr("192.168.0.9")
	for i := range 1000 {
		dst := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 7})
		in := ipv4Packet(src, dst, 64, 10)
		out := run(t, pl, 0, fmt.Sprintf("%x", in))
		want := ipv4Packet(src, dst, 63, 10)
		copy(want, []byte{0xa8, 0x40, 0x25, 1, 0, byte(i % 4), 0xa8, 0x40, 0x25, 2, 0, byte(i % 4)})
		if len(out) != 1 || out[0].String() != fmt.Sprintf("%d:%x", i%4+1, want) {
			t.Fatalf("to %v: got %v, want %x", dst, out, want)
		}
	}
	local := fmt.Sprintf("%x", ipv4Packet(src, netip.MustParseAddr("192.168.0.254"), 64, 10))
	expect(t, pl, 3, local, "0:"+local)
	old := fmt.Sprintf("%x", ipv4Packet(src, netip.MustParseAddr("10.0.0.7"), 1, 10))
	expect(t, pl, 3, old, "0:"+old)
	drops(t, pl, 3, fmt.Sprintf("%x", ipv4Packet(src, netip.MustParseAddr("172.16.0.1"), 64, 10)), Dropped)
	drops(t, pl, 1, fmt.Sprintf("%x", ipv4Packet(src, netip.MustParseAddr("10.0.0.7"), 64, 10)), Dropped)
	drops(t, pl, 1, fmt.Sprintf("%x", ipv4Packet(src, netip.MustParseAddr("10.0.0.7"), 64, 10)[:30]), PacketTooShort)
}

// A frame costs no allocation on its way.
func TestNoAllocation(t *testing.T) {
	for name, pl := range map[string]*Pipeline{"hub": program(t, "hub.p4", 4), "router": router(t, 100)} {
		in := ipv4Packet(netip.MustParseAddr("192.168.0.9"), netip.MustParseAddr("10.0.1.7"), 64, 22)
		th, n := pl.Thread(), 0
		emit := func(uint16, []byte) { n++ }
		if a := testing.AllocsPerRun(200, func() { th.Process(0, in, emit) }); a != 0 || n == 0 {
			t.Errorf("%s: %v allocations a packet, %d packets came out", name, a, n)
		}
	}
}

// rate reports packets a second: by the clock, and by the time that the processor gave to this process, which other load
// on the machine does not change.
func rate(b *testing.B, packets int, cpu time.Duration) {
	b.ReportMetric(float64(packets)/b.Elapsed().Seconds(), "packets/s")
	b.ReportMetric(float64(packets)/cpu.Seconds(), "packets/cpu-s")
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchmark(b *testing.B, pl *Pipeline, in [][]byte, out int) {
	th, n, i := pl.Thread(), 0, 0
	emit := func(uint16, []byte) { n++ }
	b.ReportAllocs()
	before := cpuTime(b)
	for b.Loop() {
		th.Process(0, in[i], emit)
		if i++; i == len(in) {
			i = 0
		}
	}
	cpu := cpuTime(b) - before
	if n != out*b.N {
		b.Fatalf("%d packets came out of %d, want %d of each", n, b.N, out)
	}
	rate(b, b.N, cpu)
}

func BenchmarkHub(b *testing.B) {
	benchmark(b, program(b, "hub.p4", 4), [][]byte{make([]byte, 64)}, 3)
}

func BenchmarkRouter(b *testing.B) {
	for _, routes := range []int{1, 1000, 10000, 100000} {
		b.Run(fmt.Sprintf("routes=%d", routes), func(b *testing.B) {
			pl := router(b, routes)
			var in [][]byte
			for i := range 4096 {
				k := i * 7919 % routes
				in = append(in, ipv4Packet(netip.MustParseAddr("192.168.0.9"), netip.AddrFrom4([4]byte{byte(10 + k>>16), byte(k >> 8), byte(k), 7}), 64, 22))
			}
			benchmark(b, pl, in, 1)
		})
	}
}

func BenchmarkAddRoutes(b *testing.B) {
	before := cpuTime(b)
	for b.Loop() {
		pl := router(b, 100000)
		if c, err := pl.Counters("ingress.routes.v4"); err != nil || c.Entries != 100000 {
			b.Fatal(c, err)
		}
	}
	cpu := cpuTime(b) - before
	b.ReportMetric(float64(100000*b.N)/b.Elapsed().Seconds(), "routes/s")
	b.ReportMetric(float64(100000*b.N)/cpu.Seconds(), "routes/cpu-s")
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		if _, err := CompileFile("testdata/programs/router.p4"); err != nil {
			b.Fatal(err)
		}
	}
}

func TestVLANSwitch(t *testing.T) {
	pl := program(t, "vlan_switch.p4", 4)
	for i, mac := range []string{"a84025000001", "a84025000002", "a84025000003"} {
		add(t, pl, "ingress.fib.fib", "forward", keys(exact(mac)), fmt.Sprintf("%04x", i+1))
	}
	add(t, pl, "ingress.vlan.vlan", "tagged", keys(exact("0001")), "002f")
	add(t, pl, "ingress.vlan.vlan", "tagged", keys(exact("0002")), "002f")
	const one, two, three = "a84025000001", "a84025000002", "a84025000003"

	tagged := two + one + "8100 602f 0800 aabb"
	expect(t, pl, 1, tagged, "2:"+tagged)
	drops(t, pl, 1, two+one+"8100 0030 0800 aabb", NoEgressPort)
	drops(t, pl, 1, two+one+"0800 aabb", NoEgressPort)
	drops(t, pl, 1, "a84025000009"+one+"8100 002f 0800 aabb", NoEgressPort)
	// Port 3 takes no tags, and what came in without one does not leave by a port that wants one.
	drops(t, pl, 3, one+three+"0800 aabb", Dropped)
	drops(t, pl, 3, three+three+"0800 aabb", Dropped)
	multicast := "010000000000" + one
	expect(t, pl, 1, multicast+"8100 002f 0800 aabb", "0:"+multicast+"0901 01 0001 8100 0000000000000000000000000001701d 002f 0800 aabb")
	expect(t, pl, 0, multicast+"0901 00 0002 8100 00000000000000000000000000000000 602f 0800 aabb", "2:"+multicast+"8100 602f 0800 aabb")
	drops(t, pl, 1, two+one+"8100 60", PacketTooShort)
}
