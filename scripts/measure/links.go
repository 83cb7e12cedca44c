//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/falcon-vm/falcon-go/internal/agent"
)

const (
	sectionGuests     = "links between guests"
	sectionNamespaces = "links between network namespaces"
)

// end is what is at an end of a link: a guest or a network namespace. Its device
// on the link is called by name.
type end struct {
	device string
	// run runs a program there, which has to succeed, until ctx ends.
	run func(ctx context.Context, argv ...string) ([]byte, error)
}

// wire is a kind of link with its two ends, for as long as close is not called.
type wire struct {
	who  peer
	make func(ctx context.Context) (a, b end, close func(), err error)
}

// links measures what passes through links.
func (b *bench) links(ctx context.Context) error {
	guests, err := b.guestWires(ctx)
	if err != nil {
		b.report.fail(sectionGuests, "all", "falcon", err)
	}
	for range b.plan.repeat {
		for _, s := range []struct {
			section string
			wires   []wire
		}{{sectionGuests, guests}, {sectionNamespaces, b.namespaceWires(ctx)}} {
			for _, w := range s.wires {
				b.report.introduce(w.who)
				slog.Info("measuring links", "what", s.section, "who", w.who.Name)
				if err := b.link(ctx, s.section, w); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// The figures of a link.
const (
	whatRoundTrip = "round trip of a ping"
	whatPackets   = "UDP of 64 bytes, packets that arrive"
)

func whatTCP(streams, mtu int) string {
	return fmt.Sprintf("TCP, %s, MTU %d", plural(streams, "stream"), mtu)
}

// link measures one link. Only the end of ctx is an error.
func (b *bench) link(ctx context.Context, section string, w wire) error {
	one, other, closeWire, err := w.make(ctx)
	if err == nil {
		defer closeWire()
		err = address(ctx, one, other)
	}
	// A figure is the error of what came before it, if there was one.
	measure := func(before error, what, unit string, do func() (float64, error)) {
		value, err := 0.0, before
		if err == nil {
			value, err = do()
		}
		if err != nil {
			b.report.fail(section, what, w.who.Name, err)
			return
		}
		b.report.add(section, what, w.who.Name, unit, value)
	}
	if err == nil {
		serving, stop := context.WithCancel(ctx)
		stopped := make(chan struct{})
		go func() { _, _ = other.run(serving, "iperf3", "-s"); close(stopped) }()
		defer func() { stop(); <-stopped }()
	}
	for _, mtu := range []int{1500, 9000} {
		ready := err
		if ready == nil {
			ready = errors.Join(setMTU(ctx, one, mtu), setMTU(ctx, other, mtu))
		}
		for _, streams := range []int{1, 4} {
			measure(ready, whatTCP(streams, mtu), "Mbit/s", func() (float64, error) { return b.tcp(ctx, one, streams) })
		}
		if mtu == 1500 {
			measure(ready, whatRoundTrip, "ms", func() (float64, error) { return roundTrip(ctx, one) })
			measure(ready, whatPackets, "k/s", func() (float64, error) { return b.packets(ctx, one) })
		}
	}
	return ctx.Err()
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// Addresses of the ends.
const addressA, addressB = "10.77.0.1", "10.77.0.2"

// The node of an ASIC, and the address of all its front ports.
const asicNode, asicMAC = "asic", "02:00:00:00:00:01"

// address sets the ends up, and waits until they reach each other: a guest's
// interface takes a moment.
func address(ctx context.Context, a, b end) error {
	for ip, e := range map[string]end{addressA: a, addressB: b} {
		for _, argv := range [][]string{{"ip", "address", "replace", ip + "/24", "dev", e.device}, {"ip", "link", "set", e.device, "up"}} {
			if _, err := e.run(ctx, argv...); err != nil {
				return err
			}
		}
	}
	_, err := a.run(ctx, "ping", "-c", "3", "-W", "5", addressB)
	return err
}

func setMTU(ctx context.Context, e end, mtu int) error {
	_, err := e.run(ctx, "ip", "link", "set", e.device, "mtu", strconv.Itoa(mtu))
	return err
}

// iperf is the part of iperf3's result that is used here.
type iperf struct {
	End struct {
		Received struct {
			BitsPerSecond float64 `json:"bits_per_second"`
		} `json:"sum_received"`
		Sum struct {
			Packets, Seconds float64
			Lost             float64 `json:"lost_packets"`
		}
	}
	Error string
}

// client runs iperf3 towards the other end.
func (b *bench) client(ctx context.Context, e end, flags ...string) (iperf, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, commandDeadline, fmt.Errorf("iperf3 did not end within %v", commandDeadline))
	defer cancel()
	argv := append([]string{"iperf3", "-J", "-c", addressB, "-t", strconv.Itoa(int(b.plan.transfer.Seconds()))}, flags...)
	begun := time.Now()
	for {
		var result iperf
		out, err := e.run(ctx, argv...)
		if jsonErr := json.Unmarshal(out, &result); err == nil {
			err = jsonErr
		}
		if result.Error != "" {
			err = errors.New("iperf3: " + result.Error)
		}
		// The server says nothing when it listens, or again.
		again := strings.Contains(result.Error, "refused") || strings.Contains(result.Error, "busy")
		if err == nil || !again || time.Since(begun) > startDeadline {
			return result, err
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return result, err
		}
	}
}

// tcp returns what arrives, in Mbit/s.
func (b *bench) tcp(ctx context.Context, e end, streams int) (float64, error) {
	result, err := b.client(ctx, e, "-P", strconv.Itoa(streams))
	if err == nil && result.End.Received.BitsPerSecond == 0 {
		err = errors.New("nothing has arrived")
	}
	return result.End.Received.BitsPerSecond / 1e6, err
}

// packets returns how many thousand small packets arrive in a second.
func (b *bench) packets(ctx context.Context, e end) (float64, error) {
	result, err := b.client(ctx, e, "-u", "-b", "0", "-l", "64")
	sum := result.End.Sum
	if err == nil && (sum.Seconds == 0 || sum.Packets <= sum.Lost) {
		err = errors.New("nothing has arrived")
	}
	if err != nil {
		return 0, err
	}
	return (sum.Packets - sum.Lost) / sum.Seconds / 1000, nil
}

var averageRoundTrip = regexp.MustCompile(`min/avg/max[^=]*= [\d.]+/([\d.]+)/`)

// roundTrip returns how long an answer takes, in ms: the average of many, each
// sent when the last has been answered.
func roundTrip(ctx context.Context, e end) (float64, error) {
	out, err := e.run(ctx, "ping", "-q", "-A", "-c", "200", addressB)
	if err != nil {
		return 0, err
	}
	found := averageRoundTrip.FindSubmatch(out)
	if found == nil {
		return 0, fmt.Errorf("ping says nothing of the time: %q", out)
	}
	return strconv.ParseFloat(string(found[1]), 64)
}

// guest is an end in a guest.
func guest(a *agent.Client) end {
	return end{device: "eth0", run: func(ctx context.Context, argv ...string) ([]byte, error) {
		var out, stderr bytes.Buffer
		exit, err := a.Exec(ctx, agent.Command{Exec: agent.Exec{Argv: argv}, Stdout: &out, Stderr: &stderr})
		if err == nil && exit.Code() != 0 {
			err = fmt.Errorf("%s in the guest: status %d: %s", argv[0], exit.Code(), strings.TrimSpace(stderr.String()))
		}
		return out.Bytes(), err
	}}
}

// cableRing is the lab whose cable is measured, and whose command lines are
// those of the guests on other links.
var cableRing = ring{"micro", 2}

// guestWires are the links between guests.
func (b *bench) guestWires(ctx context.Context) ([]wire, error) {
	f := &falcon{b: b, lines: make(map[ring][]commandLine)}
	if err := b.rememberLines(ctx, f); err != nil {
		return nil, err
	}
	lines := f.lines[cableRing]
	tapWire := func(join func(f *fabric) error) func(context.Context) (end, end, func(), error) {
		return func(ctx context.Context) (end, end, func(), error) { return b.tapGuests(ctx, lines, join) }
	}
	version := b.packageVersion(ctx, "openvswitch-switch")
	const guests = "guests of micro, QEMU as falcon starts it; "
	wires := []wire{
		{peer{Name: "falcon's cable", Settings: guests + "the taps of a lab of falcon's, as root"}, func(ctx context.Context) (end, end, func(), error) {
			l, err := f.open(ctx, cableRing)
			if err != nil {
				return end{}, end{}, nil, err
			}
			if _, err := timed(ctx, l.launch); err != nil {
				l.close()
				return end{}, end{}, nil, err
			}
			fl := l.(*falconLab)
			return guest(fl.agent(0)), guest(fl.agent(1)), l.close, nil
		}},
		{peer{Name: "falcon's SoftNPU, hub", Settings: guests + "front ports of an ASIC that runs examples/p4hub/hub.p4"}, func(ctx context.Context) (end, end, func(), error) {
			program, err := filepath.Abs("examples/p4hub/hub.p4") // scripts/bench works in the tree's root
			if err != nil {
				return end{}, end{}, nil, err
			}
			return b.asicGuests(ctx, f, "--program", program)
		}},
		{peer{Name: "falcon's SoftNPU, built-in program", Settings: guests + "front ports of an ASIC that routes between them"}, func(ctx context.Context) (end, end, func(), error) {
			return b.asicGuests(ctx, f)
		}},
		{peer{Name: "taps, mirred", Settings: guests + "taps joined by tc's u32 and mirred, which falcon uses where there is no eBPF"},
			tapWire(func(f *fabric) error { return f.mirred("t0", "t1") })},
		{peer{Name: "taps, Linux bridge", Settings: guests + "taps on a bridge of the kernel's; it does not pass LACP, LLDP or PAUSE"},
			tapWire(func(f *fabric) error { return f.bridge("br0", "t0", "t1") })},
		{peer{Name: "taps, Open vSwitch", Version: version, Settings: guests + "taps on a switch of Open vSwitch's in the kernel"},
			tapWire(func(f *fabric) error { return b.openVSwitch(ctx, f, "t0", "t1") })},
	}
	for _, s := range []struct{ name, settings, a, b string }{
		{"QEMU dgram sockets", "Unix datagram sockets, `-netdev dgram`; falcon's cable for an ordinary user is this",
			"dgram,id=%s,local.type=unix,local.path=DIR/a,remote.type=unix,remote.path=DIR/b", "dgram,id=%s,local.type=unix,local.path=DIR/b,remote.type=unix,remote.path=DIR/a"},
		{"QEMU stream socket", "a Unix stream socket, `-netdev stream`",
			"stream,id=%s,server=on,addr.type=unix,addr.path=DIR/a", "stream,id=%s,server=off,addr.type=unix,addr.path=DIR/a"},
		{"QEMU UDP socket", "UDP on the loopback, `-netdev socket,udp=`: a point-to-point link of libvirt's",
			"socket,id=%s,udp=127.0.0.1:20002,localaddr=127.0.0.1:20001", "socket,id=%s,udp=127.0.0.1:20001,localaddr=127.0.0.1:20002"},
	} {
		wires = append(wires, wire{peer{Name: s.name, Settings: guests + s.settings}, func(ctx context.Context) (end, end, func(), error) {
			return b.socketGuests(ctx, lines, s.a, s.b)
		}})
	}
	return wires, nil
}

// asicGuests launches two guests on the ASIC of a third, which can route between
// the addresses of a link.
func (b *bench) asicGuests(ctx context.Context, f *falcon, flags ...string) (end, end, func(), error) {
	dir, err := os.MkdirTemp(b.work, "l")
	if err != nil {
		return end{}, end{}, nil, err
	}
	l := &falconLab{falcon: f, ring: cableRing, dir: dir, flags: append([]string{"--asic", asicNode}, flags...)}
	ends := []end{guest(l.agent(0)), guest(l.agent(1))}
	err = l.launch(ctx)
	if err == nil && len(flags) == 0 {
		err = l.route(ctx, ends)
	}
	if err != nil {
		l.close()
		return end{}, end{}, nil, err
	}
	return ends[0], ends[1], l.close, nil
}

// route sets the tables of the built-in program, by which the ends reach each
// other.
func (l *falconLab) route(ctx context.Context, ends []end) error {
	for i, address := range []string{addressA, addressB} {
		mac, err := ends[i].run(ctx, "cat", "/sys/class/net/"+ends[i].device+"/address")
		if err != nil {
			return err
		}
		port := strconv.Itoa(i + 1)
		for _, verb := range [][]string{
			{"add-route4", asicNode, address, "32", port, address},
			{"add-arp-entry", asicNode, address, strings.TrimSpace(string(mac))},
			{"set-mac", asicNode, port, asicMAC},
			{"add-proxy-arp", asicNode, address, address, asicMAC},
		} {
			if _, err := l.run(ctx, append([]string{"softnpu"}, verb...)...); err != nil {
				return err
			}
		}
	}
	return nil
}

// rememberLines launches a lab for its command lines.
func (b *bench) rememberLines(ctx context.Context, f *falcon) error {
	l, err := f.open(ctx, cableRing)
	if err != nil {
		return err
	}
	defer l.close()
	if _, err := timed(ctx, l.launch); err != nil {
		return err
	}
	return l.(*falconLab).remember(ctx)
}

// tapGuests starts two guests with taps that are joined.
func (b *bench) tapGuests(ctx context.Context, lines []commandLine, join func(*fabric) error) (end, end, func(), error) {
	f, err := newFabric()
	if err != nil {
		return end{}, end{}, nil, err
	}
	taps := make([]*os.File, 2)
	for i := range taps {
		if taps[i], err = f.tap(fmt.Sprintf("t%d", i)); err != nil {
			break
		}
	}
	if err == nil {
		err = join(f)
	}
	closeTaps := func() {
		for _, t := range taps {
			if t != nil {
				t.Close()
			}
		}
		f.close()
	}
	if err != nil {
		closeTaps()
		return end{}, end{}, nil, err
	}
	x, y, stop, err := b.twoGuests(ctx, lines, func(i int, m *bareMachine) {
		m.args = interfaces(m.args, "")
		m.taps = taps[i : i+1]
	})
	if err != nil {
		closeTaps()
		return end{}, end{}, nil, err
	}
	return x, y, func() { stop(); closeTaps() }, nil
}

// socketGuests starts two guests whose interfaces are QEMU's sockets.
func (b *bench) socketGuests(ctx context.Context, lines []commandLine, netdevs ...string) (end, end, func(), error) {
	dir, err := os.MkdirTemp(b.work, "s")
	if err != nil {
		return end{}, end{}, nil, err
	}
	x, y, stop, err := b.twoGuests(ctx, lines, func(i int, m *bareMachine) {
		m.args = interfaces(m.args, strings.ReplaceAll(netdevs[i], "DIR", dir))
	})
	if err != nil {
		os.RemoveAll(dir)
		return end{}, end{}, nil, err
	}
	return x, y, func() { stop(); os.RemoveAll(dir) }, nil
}

// twoGuests starts the two machines of the cable's ring, changed by change. The
// second one starts when the first listens.
func (b *bench) twoGuests(ctx context.Context, lines []commandLine, change func(i int, m *bareMachine)) (x, y end, stop func(), err error) {
	dir, err := os.MkdirTemp(b.work, "g")
	if err != nil {
		return x, y, nil, err
	}
	var machines []*bareMachine
	stop = func() {
		for _, m := range machines {
			m.stop()
		}
		os.RemoveAll(dir)
	}
	for i, line := range lines {
		m, err := b.newMachine(ctx, line, filepath.Join(dir, fmt.Sprintf("n%d.qcow2", i)))
		if err == nil {
			machines = append(machines, m)
			change(i, m)
			err = m.start(ctx)
		}
		if err != nil {
			stop()
			return x, y, nil, err
		}
	}
	_, err = timed(ctx, func(ctx context.Context) error {
		return each(ctx, len(machines), 0, func(ctx context.Context, i int) error { return answers(ctx, machines[i].agent) })
	})
	if err != nil {
		stop()
		return x, y, nil, err
	}
	return guest(machines[0].agent), guest(machines[1].agent), stop, nil
}

// interfaces leaves a machine its first interface, and changes what that is
// connected to if netdev is given: a value of -netdev with %s for its id.
func interfaces(args []string, netdev string) []string {
	var kept []string
	var gone []string
	first := true
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if i+1 == len(args) || arg != "-netdev" && arg != "-device" {
			kept = append(kept, arg)
			continue
		}
		i++
		value := args[i]
		id := idPattern.FindStringSubmatch(value)
		switch {
		case arg == "-netdev" && first:
			first = false
			if netdev != "" && id != nil {
				value = fmt.Sprintf(netdev, id[1])
			}
		case arg == "-netdev":
			if id != nil {
				gone = append(gone, "netdev="+id[1])
			}
			continue
		case uses(value, gone):
			continue
		}
		kept = append(kept, arg, value)
	}
	return kept
}

// uses reports whether an option has one of some pairs.
func uses(option string, pairs []string) bool {
	for part := range strings.SplitSeq(option, ",") {
		for _, p := range pairs {
			if part == p {
				return true
			}
		}
	}
	return false
}

// namespaceWires are the links between network namespaces of the host.
func (b *bench) namespaceWires(ctx context.Context) []wire {
	version := b.packageVersion(ctx, "openvswitch-switch")
	const ends = "two network namespaces of the host; "
	joined := func(join func(middle *fabric) error) func(context.Context) (end, end, func(), error) {
		return func(context.Context) (end, end, func(), error) {
			return b.namespaces(func(x, y, middle *fabric) error {
				if err := errors.Join(middle.veth("m0", "e0", x), middle.veth("m1", "e0", y)); err != nil {
					return err
				}
				return join(middle)
			})
		}
	}
	return []wire{
		{peer{Name: "veth pair", Settings: ends + "what falcon's cable is between two programs of the host"}, func(context.Context) (end, end, func(), error) {
			return b.namespaces(func(x, y, _ *fabric) error { return x.veth("e0", "e0", y) })
		}},
		{peer{Name: "veth pairs, falcon's redirect", Settings: ends + "a veth pair from each to a third, joined there by the redirect of falcon's cable (eBPF)"},
			joined(func(m *fabric) error { return m.redirect("m0", "m1") })},
		{peer{Name: "veth pairs, mirred", Settings: ends + "the same, joined by u32 and mirred"},
			joined(func(m *fabric) error { return m.mirred("m0", "m1") })},
		{peer{Name: "veth pairs, Linux bridge", Settings: ends + "the same, joined by a bridge"},
			joined(func(m *fabric) error { return m.bridge("br0", "m0", "m1") })},
		{peer{Name: "veth pairs, Open vSwitch", Version: version, Settings: ends + "the same, joined by a switch of Open vSwitch's in the kernel"},
			joined(func(m *fabric) error { return b.openVSwitch(ctx, m, "m0", "m1") })},
	}
}

// namespaces makes three namespaces and joins the first two, whose devices are
// called e0, through the third.
func (b *bench) namespaces(join func(x, y, middle *fabric) error) (end, end, func(), error) {
	if err := b.missing("iperf3", "ping", "nsenter"); err != nil {
		return end{}, end{}, nil, err
	}
	var all []*fabric
	closeAll := func() {
		for _, f := range all {
			f.close()
		}
	}
	for range 3 {
		f, err := newFabric()
		if err != nil {
			closeAll()
			return end{}, end{}, nil, err
		}
		all = append(all, f)
	}
	if err := join(all[0], all[1], all[2]); err != nil {
		closeAll()
		return end{}, end{}, nil, err
	}
	at := func(f *fabric) end {
		return end{device: "e0", run: func(ctx context.Context, argv ...string) ([]byte, error) {
			return finish(ctx, b.command(ctx, "nsenter", append([]string{"--net=" + f.path()}, argv...)...))
		}}
	}
	return at(all[0]), at(all[1]), closeAll, nil
}
