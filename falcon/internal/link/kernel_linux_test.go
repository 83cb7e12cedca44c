package link

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// needRoot skips a test that makes devices.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("makes network devices: needs root")
	}
}

// newKernel returns a Kernel with a namespace of its own, which must be gone
// with everything in it when the test is over.
func newKernel(t *testing.T, mode Redirect) *Kernel {
	t.Helper()
	needRoot(t)
	k := &Kernel{Namespace: fmt.Sprintf("%stest-%d-%s", NamespacePrefix, os.Getpid(), safe(t.Name())), Redirect: mode}
	t.Cleanup(func() {
		if err := k.Destroy(t.Context(), nil); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return k
}

func safe(name string) string {
	return string(bytes.Map(func(r rune) rune {
		if r == '/' || r == ' ' {
			return '.'
		}
		return r
	}, []byte(name)))
}

func testMAC(n int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 0xfa, 0x1c, 0, byte(n >> 8), byte(n)}
}

// testCable returns the nth cable between two VMs.
func testCable(n int) Cable {
	return Cable{
		A: End{Name: fmt.Sprintf("topo_left_vn_vnic%d", n), Device: fmt.Sprintf("l%d", n), MAC: testMAC(2 * n)},
		B: End{Name: fmt.Sprintf("topo_right_vn_vnic%d", n), Device: fmt.Sprintf("r%d", n), MAC: testMAC(2*n + 1)},
	}
}

// tap is the guest's side of a tap, opened as the propolis server does.
type tap struct {
	t *testing.T
	f *os.File
}

func plug(t *testing.T, k *Kernel, device string) tap {
	t.Helper()
	ns, err := netns.GetFromPath(k.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ns.Close() }()
	updates, done := make(chan netlink.LinkUpdate), make(chan struct{})
	defer close(done)
	err = netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{Namespace: &ns, ListExisting: true})
	if err != nil {
		t.Fatal(err)
	}
	var f *os.File
	err = within(k.Path(), func() (err error) {
		f, err = openTap(device, tapFlags)
		return err
	})
	if err != nil {
		t.Fatalf("open tap %s: %v", device, err)
	}
	t.Cleanup(func() { _ = f.Close() })
	awaitOperational(t, updates, device)
	return tap{t, f}
}

// awaitOperational waits until the kernel has noticed that a tap was opened:
// it drops frames until then.
func awaitOperational(t *testing.T, updates <-chan netlink.LinkUpdate, device string) {
	t.Helper()
	timeout := time.After(5 * time.Second)
	for {
		select {
		case u := <-updates:
			a := u.Attrs()
			if a.Name == device && a.OperState == netlink.OperUp {
				return
			}
		case <-timeout:
			t.Fatalf("tap %s: not operational 5 s after it was opened", device)
		}
	}
}

const vnetHeader = 10

func (p tap) send(frame []byte) {
	p.t.Helper()
	if _, err := p.f.Write(append(make([]byte, vnetHeader), frame...)); err != nil {
		p.t.Fatalf("send: %v", err)
	}
}

// receive returns the next frame, or nil when none comes within wait.
func (p tap) receive(wait time.Duration) []byte {
	p.t.Helper()
	deadline := time.Now().Add(wait)
	for {
		fds := []unix.PollFd{{Fd: int32(p.f.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, max(0, int(time.Until(deadline).Milliseconds())))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			p.t.Fatalf("poll: %v", err)
		}
		if n == 0 {
			return nil
		}
		buf := make([]byte, 1<<16)
		n, err = p.f.Read(buf)
		if err != nil {
			p.t.Fatalf("receive: %v", err)
		}
		return buf[vnetHeader:n]
	}
}

// frames are those that the experiments sent: what bridges keep to
// themselves, tags and sizes.
func frames() map[string][]byte {
	frame := func(dst string, size int, after ...byte) []byte {
		mac, err := net.ParseMAC(dst)
		if err != nil {
			panic(err)
		}
		f := append(append(mac, 0x02, 0xfa, 0x1c, 0xff, 0, 1), after...)
		for i := len(f); i < size; i++ {
			f = append(f, byte(i*7))
		}
		return f
	}
	const guest = "02:fa:1c:ff:00:02"
	return map[string][]byte{
		"STP":               frame("01:80:c2:00:00:00", 60, 0, 38, 0x42, 0x42, 3),
		"PAUSE":             frame("01:80:c2:00:00:01", 60, 0x88, 0x08, 0, 1, 0xff, 0xff),
		"LACP":              frame("01:80:c2:00:00:02", 124, 0x88, 0x09, 1, 1),
		"802.1X":            frame("01:80:c2:00:00:03", 60, 0x88, 0x8e, 2, 1),
		"LLDP":              frame("01:80:c2:00:00:0e", 80, 0x88, 0xcc, 2, 7),
		"ARP broadcast":     frame("ff:ff:ff:ff:ff:ff", 60, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1),
		"IPv6 multicast":    frame("33:33:00:00:00:01", 90, 0x86, 0xdd, 0x60, 0, 0, 0),
		"802.1Q":            frame(guest, 64, 0x81, 0x00, 0x00, 0x64, 0x08, 0x00),
		"802.1Q priority":   frame(guest, 64, 0x81, 0x00, 0xe0, 0x00, 0x08, 0x00),
		"QinQ":              frame(guest, 68, 0x88, 0xa8, 0x00, 0x0a, 0x81, 0x00, 0x00, 0x14, 0x08, 0x00),
		"MPLS":              frame(guest, 64, 0x88, 0x47, 0, 1, 0x01, 0x40),
		"unknown ethertype": frame(guest, 60, 0x88, 0xb5, 1, 2, 3),
		"shortest":          frame(guest, 14, 0x88, 0xb5),
		"1514":              frame(guest, 1514, 0x08, 0x00),
		"tagged 1518":       frame(guest, 1518, 0x81, 0x00, 0x00, 0x64, 0x08, 0x00),
		"9014":              frame(guest, 9014, 0x08, 0x00),
		"9230":              frame(guest, 9230, 0x08, 0x00),
		"QinQ 9238":         frame(guest, 9238, 0x88, 0xa8, 0x00, 0x0a, 0x81, 0x00, 0x00, 0x14, 0x08, 0x00),
	}
}

func TestCablePassesEveryFrameUnchanged(t *testing.T) {
	for _, mode := range []Redirect{BPF, Mirred, Auto} {
		t.Run(mode.String(), func(t *testing.T) {
			k := newKernel(t, mode)
			c := testCable(0)
			if err := k.Create(t.Context(), []Cable{c}, nil); err != nil {
				t.Fatal(err)
			}
			a, b := plug(t, k, c.A.Device), plug(t, k, c.B.Device)
			for name, frame := range frames() {
				t.Run(name, func(t *testing.T) {
					passes(t, a, b, frame)
					passes(t, b, a, frame)
				})
			}
		})
	}
}

func passes(t *testing.T, from, to tap, frame []byte) {
	t.Helper()
	from.send(frame)
	got := to.receive(time.Second)
	if got == nil {
		t.Fatalf("frame of %d bytes did not arrive", len(frame))
	}
	if !bytes.Equal(got, frame) {
		t.Fatalf("frame changed on the way:\nsent %d bytes %x\ngot  %d bytes %x", len(frame), frame[:14], len(got), got[:14])
	}
}
