package softnpu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/propolis/internal/networkns"
)

// namespace makes a network namespace with veth pairs a0-b0, a1-b1 and so on,
// and returns its path.
func namespace(t *testing.T, pairs int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("makes network devices: needs root")
	}
	path := make(chan string)
	failed := make(chan error)
	end := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // never unlocked: the thread, and with it the namespace, ends with us
		if err := makePairs(pairs); err != nil {
			failed <- err
			return
		}
		path <- fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		<-end
	}()
	t.Cleanup(func() { close(end); <-ended })
	select {
	case p := <-path:
		return p
	case err := <-failed:
		t.Fatalf("make veth pairs: %v", err)
		return ""
	}
}

func makePairs(pairs int) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	ns, err := netns.Get()
	if err != nil {
		return err
	}
	defer ns.Close()
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer handle.Close()
	// What the kernel itself would say on a device is not for these tests.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for i := range pairs {
		a, b := fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i)
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = a, 9280
		if err := handle.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: b, PeerMTU: 9280}); err != nil {
			return err
		}
		for _, name := range []string{a, b} {
			l, err := handle.LinkByName(name)
			if err != nil {
				return err
			}
			if err := handle.LinkSetUp(l); err != nil {
				return err
			}
		}
		for _, name := range []string{a, b} {
			if err := awaitUp(handle, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// awaitUp waits until the kernel has noticed that a device has a carrier.
// Before, it drops what is sent.
func awaitUp(handle *netlink.Handle, name string) error {
	deadline := time.Now().Add(testPatience)
	for {
		l, err := handle.LinkByName(name)
		if err != nil {
			return err
		}
		state := l.Attrs().OperState
		if state == netlink.OperUp {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v for device %s: it is %v", testPatience, name, state)
		}
		time.Sleep(time.Millisecond) // it takes some, and subscribing is more than this is worth
	}
}

func open(t *testing.T, device, path string) Wire {
	t.Helper()
	w, err := OpenDevice(device, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// reader reads the frames of a wire one by one, and ends with the test.
func reader(t *testing.T, w Wire) <-chan Frame {
	c := make(chan Frame, 1024)
	go func() {
		frames := make([]Frame, 7)
		for {
			for i := range frames {
				frames[i] = Frame{Data: make([]byte, MaxFrame)}
			}
			n, err := w.Read(frames)
			if err != nil {
				close(c)
				return
			}
			for _, f := range frames[:n] {
				c <- f
			}
		}
	}()
	return c
}

func receive(t *testing.T, c <-chan Frame) Frame {
	t.Helper()
	select {
	case f := <-c:
		return f
	case <-time.After(testPatience):
		t.Fatalf("no frame in %v", testPatience)
		return Frame{}
	}
}

func write(t *testing.T, w Wire, frames ...Frame) {
	t.Helper()
	if n, err := w.Write(frames); n != len(frames) || err != nil {
		t.Fatalf("sent %d of %d frames: %v", n, len(frames), err)
	}
}

// longFrame is a frame of a length with an ethertype, or more, behind the
// addresses.
func longFrame(length int, after ...byte) []byte {
	b := append([]byte("\x01\x80\xc2\x00\x00\x0esrcsrc"), after...)
	for i := len(b); i < length; i++ {
		b = append(b, byte(i*7))
	}
	return b
}

var wireFrames = map[string][]byte{
	"shortest":        longFrame(14, 0x88, 0xb5),
	"LLDP":            longFrame(60, 0x88, 0xcc),
	"1514":            longFrame(1514, 0x08, 0x00),
	"9230":            longFrame(9230, 0x08, 0x00),
	"802.1Q":          longFrame(64, 0x81, 0x00, 0x00, 0x64, 0x08, 0x00),
	"802.1Q priority": longFrame(64, 0x81, 0x00, 0xe0, 0x00, 0x08, 0x00),
	"QinQ":            longFrame(9238, 0x88, 0xa8, 0x00, 0x0a, 0x81, 0x00, 0x00, 0x14, 0x08, 0x00),
	"sidecar":         longFrame(200, 0x09, 0x01, 0, 0, 0, 1),
}

func TestDevicePassesEveryFrameUnchanged(t *testing.T) {
	path := namespace(t, 1)
	a, b := open(t, "a0", path), open(t, "b0", path)
	from := reader(t, b)
	for name, frame := range wireFrames {
		write(t, a, Frame{Data: frame})
		if f := receive(t, from); !bytes.Equal(f.Data, frame) || f.Offload != (Offload{}) {
			t.Errorf("%s: %d bytes arrived of %d, offload %+v", name, len(f.Data), len(frame), f.Offload)
		}
	}
	// In a batch they keep their order.
	const n = 3 * batchFrames
	frames := make([]Frame, n)
	for i := range frames {
		frames[i].Data = ethernet(i)
	}
	write(t, a, frames...)
	for i := range n {
		if f := receive(t, from); !bytes.Equal(f.Data, ethernet(i)) {
			t.Fatalf("frame %d is %q", i, f.Data)
		}
	}
}

// A frame that the kernel refuses is lost, and those around it are not.
func TestDeviceThatRefusesAFrameTakesTheNext(t *testing.T) {
	path := namespace(t, 1)
	a, b := open(t, "a0", path), open(t, "b0", path)
	from := reader(t, b)
	n, err := a.Write([]Frame{{Data: ethernet(1)}, {Data: make([]byte, 20_000)}, {Data: []byte("short")}, {Data: ethernet(2)}})
	if n != 2 || err != nil {
		t.Errorf("sent %d, %v: want 2", n, err)
	}
	for i := 1; i <= 2; i++ {
		if f := receive(t, from); !bytes.Equal(f.Data, ethernet(i)) {
			t.Errorf("got %q", f.Data)
		}
	}
}

// What a guest's NIC leaves to do comes along, tagged or not, and the kernel
// on the far side does it.
func TestDevicePassesOffloads(t *testing.T) {
	path := namespace(t, 1)
	a, b := open(t, "a0", path), open(t, "b0", path)
	from := reader(t, b)
	for _, v6 := range []bool{false, true} {
		for _, tagged := range []bool{false, true} {
			f := segmented(v6, false, testFrame(v6, false, tagged, bytes.Repeat([]byte("payload "), 4000)), 1400)
			write(t, a, f)
			got := receive(t, from)
			if !bytes.Equal(got.Data, f.Data) {
				t.Errorf("v6 %v, tagged %v: %d bytes arrived of %d", v6, tagged, len(got.Data), len(f.Data))
			}
			if got.Offload.HeaderLength == 0 {
				t.Errorf("no length of the headers: %+v", got.Offload)
			}
			got.Offload.HeaderLength = 0
			if got.Offload != f.Offload {
				t.Errorf("v6 %v, tagged %v: offload %+v, want %+v", v6, tagged, got.Offload, f.Offload)
			}
		}
	}
	f := testFrame(false, true, false, []byte("a datagram"))
	write(t, a, f)
	if got := receive(t, from); !bytes.Equal(got.Data, f.Data) || got.Offload != f.Offload {
		t.Errorf("a datagram arrived with %+v: want %+v", got.Offload, f.Offload)
	}
}

func TestDeviceThatGoesDownComesBack(t *testing.T) {
	path := namespace(t, 1)
	a, b := open(t, "a0", path), open(t, "b0", path)
	from := reader(t, b)
	set := func(f func(*netlink.Handle, netlink.Link) error) {
		t.Helper()
		ns, err := netns.GetFromPath(path)
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		l, err := h.LinkByName("b0")
		if err == nil {
			err = f(h, l)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	set(func(h *netlink.Handle, l netlink.Link) error { return h.LinkSetDown(l) })
	if n, err := b.Write([]Frame{{Data: ethernet(0)}}); n != 0 || err != nil {
		t.Errorf("a device that is down took %d frames, %v", n, err)
	}
	set(func(h *netlink.Handle, l netlink.Link) error { return h.LinkSetUp(l) })
	// The kernel needs its time to find the carrier.
	deadline := time.Now().Add(testPatience)
	for {
		if _, err := a.Write([]Frame{{Data: ethernet(1)}}); err != nil {
			t.Fatal(err)
		}
		select {
		case f := <-from:
			if !bytes.Equal(f.Data, ethernet(1)) {
				t.Errorf("got %q", f.Data)
			}
			return
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for a frame after the device came up", testPatience)
		}
	}
}

func TestDeviceThatIsNotThereIsNamed(t *testing.T) {
	path := namespace(t, 0)
	if _, err := OpenDevice("nothing", path); err == nil || !strings.Contains(err.Error(), "open network device nothing for a port: ") {
		t.Errorf("OpenDevice: %v", err)
	}
	if _, err := OpenDevice("lo", "/nowhere"); err == nil || !strings.Contains(err.Error(), "network namespace /nowhere") {
		t.Errorf("OpenDevice: %v", err)
	}
}

func TestCloseEndsRead(t *testing.T) {
	dir := t.TempDir()
	sockets, err := OpenSockets(filepath.Join(dir, "a"), filepath.Join(dir, "b"))
	if err != nil {
		t.Fatal(err)
	}
	pair, far, err := SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	wires := map[string]Wire{"sockets": sockets, "pair": pair}
	if os.Geteuid() == 0 {
		wires["device"] = open(t, "a0", namespace(t, 1))
	}
	for name, w := range wires {
		from := reader(t, w)
		if err := w.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		select {
		case <-from:
		case <-time.After(testPatience):
			t.Errorf("%s: Read goes on after Close", name)
		}
		if n, err := w.Write([]Frame{{Data: ethernet(1)}}); n != 0 || err == nil {
			t.Errorf("%s: Write after Close: %d, %v", name, n, err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// QEMU's end of a link on sockets: it may start before or after the port, end,
// and start anew.
func TestSocketsFindTheirPeer(t *testing.T) {
	dir := t.TempDir()
	local, peer := filepath.Join(dir, "port"), filepath.Join(dir, "qemu")
	if err := os.WriteFile(local+".left", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := OpenSockets(local, peer)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	from := reader(t, w)
	// Nobody is there: the frame is lost.
	if n, err := w.Write([]Frame{{Data: ethernet(0)}}); n != 0 || err != nil {
		t.Errorf("without a peer: sent %d, %v", n, err)
	}
	for start := range 3 {
		q, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: peer, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		// First the peer speaks: it is not held off by what was before.
		if _, err := q.WriteToUnix(ethernet(start), &net.UnixAddr{Name: local, Net: "unixgram"}); err != nil {
			t.Fatalf("start %d: %v", start, err)
		}
		if f := receive(t, from); !bytes.Equal(f.Data, ethernet(start)) {
			t.Errorf("start %d: got %q", start, f.Data)
		}
		for name, frame := range wireFrames {
			write(t, w, Frame{Data: frame})
			got := make([]byte, MaxFrame)
			if err := q.SetReadDeadline(time.Now().Add(testPatience)); err != nil {
				t.Fatal(err)
			}
			n, err := q.Read(got)
			if err != nil || !bytes.Equal(got[:n], frame) {
				t.Errorf("start %d: %s: %d bytes of %d, %v", start, name, n, len(frame), err)
			}
		}
		q.Close()
		if err := os.Remove(peer); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	// An end that an earlier one has left is taken over; a file is not.
	second, err := OpenSockets(local, peer)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
	if _, err := OpenSockets(local+".left", peer); err == nil {
		t.Error("a file that is no socket was taken for one")
	}
}

// A peer with a short queue gets all frames if it reads them soon enough, and
// one that does not read holds nobody up for long.
func TestSocketsWaitForASlowPeer(t *testing.T) {
	dir := t.TempDir()
	peer := filepath.Join(dir, "qemu")
	q, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: peer, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	w, err := OpenSockets(filepath.Join(dir, "port"), peer)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	const n = 2000 // more than any queue holds
	frames := make([]Frame, n)
	for i := range frames {
		frames[i].Data = ethernet(i)
	}
	begin := time.Now()
	sent, err := w.Write(frames)
	if took := time.Since(begin); err != nil || sent == 0 || sent >= n || took > 100*sendPatience {
		t.Fatalf("nobody reads: sent %d of %d in %v, %v", sent, n, took, err)
	}
	got := make(chan error, 1)
	go func() {
		b := make([]byte, 100)
		for i := range sent + n {
			want := ethernet(i)
			if i >= sent {
				want = ethernet(i - sent)
			}
			size, err := q.Read(b)
			if err != nil || !bytes.Equal(b[:size], want) {
				got <- fmt.Errorf("frame %d is %q, %w", i, b[:size], err)
				return
			}
		}
		got <- nil
	}()
	for done := 0; done < n; {
		more, err := w.Write(frames[done:])
		if err != nil {
			t.Fatal(err)
		}
		done += more
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// The whole ASIC between devices and sockets: segments go whole from device to
// device, and cut to where there are none.
func TestASICBetweenDevicesAndSockets(t *testing.T) {
	path := namespace(t, 2)
	cpu, far, err := SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	guest, err := net.FilePacketConn(far)
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Close()
	log := &logLines{}
	a, err := New(Config{CPU: cpu, Ports: []Wire{open(t, "a0", path), open(t, "a1", path)}, Log: newTestLog(log)})
	if err != nil {
		t.Fatal(err)
	}
	a.Load(newScripted(t, func(ingress uint16, frame []byte, emit func(uint16, []byte)) {
		// The fifth byte of the address is the port.
		emit(uint16(frame[4]), frame)
	}))
	(&testASIC{ASIC: a}).serve(t)
	b0, b1 := open(t, "b0", path), open(t, "b1", path)
	from := reader(t, b1)

	f := segmented(false, false, testFrame(false, false, false, bytes.Repeat([]byte("payload "), 4000)), 1400)
	f.Data[4] = 2
	write(t, b0, f)
	if got := receive(t, from); !bytes.Equal(got.Data, f.Data) || got.Offload.Segments != SegmentTCP4 {
		t.Errorf("%d bytes arrived of %d, %+v", len(got.Data), len(f.Data), got.Offload)
	}
	f.Data[4] = CPUPort
	write(t, b0, f)
	buf := make([]byte, MaxFrame)
	payload := 0
	for payload < 32_000 {
		if err := guest.SetReadDeadline(time.Now().Add(testPatience)); err != nil {
			t.Fatal(err)
		}
		n, _, err := guest.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		checkChecksums(t, buf[:n], false, false, false)
		payload += n - 66
	}
	// And what the guest sends.
	out := longFrame(100, 0x08, 0x00)
	out[4] = 2
	if _, err := far.Write(out); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, from); !bytes.Equal(got.Data, out) {
		t.Errorf("got %x", got.Data)
	}
	if log.text.Len() > 0 {
		t.Errorf("the log has %s", log.text.String())
	}
}

// The pace of a port on devices: frames go in by one veth, and out by another.
func BenchmarkASICOnDevices(b *testing.B) {
	for _, size := range []int{64, 1514} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			t := &testing.T{}
			if os.Geteuid() != 0 {
				b.Skip("makes network devices: needs root")
			}
			path := namespace(t, 2)
			var wires [4]Wire
			for i, name := range []string{"a0", "a1", "b0", "b1"} {
				w, err := OpenDevice(name, path)
				if err != nil {
					b.Fatal(err)
				}
				wires[i] = w
			}
			a, err := New(Config{Ports: wires[:2], Log: newTestLog(&logLines{})})
			if err != nil {
				b.Fatal(err)
			}
			p := &scripted{process: hub(2)}
			a.Load(p)
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error)
			go func() { done <- a.Serve(ctx) }()
			batch := make([]Frame, batchFrames)
			for i := range batch {
				batch[i].Data = longFrame(size, 0x88, 0xb5)
			}
			in := make([]Frame, batchFrames)
			for i := range in {
				in[i].Data = make([]byte, MaxFrame)
			}
			b.SetBytes(int64(size))
			b.ResetTimer()
			// As many are on their way as queues hold, and no more.
			room := make(chan struct{}, queueFrames/batchFrames/2)
			go func() {
				for sent := 0; sent < b.N; sent += batchFrames {
					room <- struct{}{}
					if _, err := wires[2].Write(batch); err != nil {
						b.Error(err)
						return
					}
				}
			}()
			for got, batches := 0, 0; got < b.N; {
				for i := range in {
					in[i].Data = in[i].Data[:MaxFrame]
				}
				n, err := wires[3].Read(in)
				if err != nil {
					b.Fatal(err)
				}
				for got += n; batches < got/batchFrames; batches++ {
					<-room
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1000, "kframes/s")
			cancel()
			if err := <-done; err != nil {
				b.Fatal(err)
			}
			wires[2].Close()
			wires[3].Close()
		})
	}
}

// noOffloads is a wire to where no segments can go.
type noOffloads struct{ Wire }

func (noOffloads) Offloads() bool { return false }

// TCP of two kernels through the ASIC, with their own checksums and segments,
// whole and cut.
func TestTCPThroughTheASIC(t *testing.T) {
	for _, whole := range []bool{true, false} {
		t.Run(fmt.Sprintf("whole %v", whole), func(t *testing.T) {
			asic, client, server := namespace(t, 2), namespace(t, 0), namespace(t, 0)
			move(t, asic, "b0", client, "10.0.0.1/24")
			move(t, asic, "b1", server, "10.0.0.2/24")
			wires := []Wire{open(t, "a0", asic), open(t, "a1", asic)}
			if !whole {
				wires = []Wire{noOffloads{wires[0]}, noOffloads{wires[1]}}
			}
			log := &logLines{}
			a, err := New(Config{Ports: wires, Log: newTestLog(log)})
			if err != nil {
				t.Fatal(err)
			}
			a.Load(newScripted(t, hub(2)))
			(&testASIC{ASIC: a}).serve(t)

			var listener net.Listener
			if err := networkns.Run(server, func() (err error) {
				listener, err = net.Listen("tcp4", "10.0.0.2:5201")
				return err
			}); err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			const size = 32 << 20
			sent := make([]byte, size)
			for i := range sent {
				sent[i] = byte(i * i >> 8)
			}
			begin := time.Now()
			var conn net.Conn
			if err := networkns.Run(client, func() (err error) {
				conn, err = net.DialTimeout("tcp4", "10.0.0.2:5201", testPatience)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() {
				_, err := conn.Write(sent)
				done <- errors.Join(err, conn.Close())
			}()
			from, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer from.Close()
			if err := from.SetDeadline(time.Now().Add(6 * testPatience)); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(from)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%d bytes arrived of %d: %v", len(got), size, err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			c := a.Counters()
			t.Logf("%d MiB in %v, in %d frames, of which %d were lost", size>>20, time.Since(begin), c[2].TransmittedFrames, c[2].Lost)
			if longest := c[2].TransmittedBytes / c[2].TransmittedFrames; (longest > 9300) != whole {
				t.Errorf("frames had %d bytes on average", longest)
			}
			if c[1].Refused+c[2].Refused > 0 || log.text.Len() > 0 {
				t.Errorf("counters %+v, log %s", c, log.text.String())
			}
		})
	}
}

// move moves a device to another namespace and gives it an address there.
func move(t *testing.T, from, device, to, address string) {
	t.Helper()
	target, err := netns.GetFromPath(to)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	if err := networkns.Run(from, func() error {
		l, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		return netlink.LinkSetNsFd(l, int(target))
	}); err != nil {
		t.Fatal(err)
	}
	if err := networkns.Run(to, func() error {
		l, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(address)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(l, a); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
		ns, err := netns.Get()
		if err != nil {
			return err
		}
		defer ns.Close()
		h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		return awaitUp(h, device)
	}); err != nil {
		t.Fatal(err)
	}
}
