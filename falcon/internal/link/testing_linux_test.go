package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
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

// newKernel returns a Kernel with a namespace of its own. When the test is
// over, that and every device of the test on the host must be gone.
func newKernel(t *testing.T, mode Redirect) *Kernel {
	t.Helper()
	needRoot(t)
	name := fmt.Sprintf("%stest-%d-%s", NamespacePrefix, os.Getpid(), strings.ReplaceAll(t.Name(), "/", "."))
	k := &Kernel{Namespace: name, Redirect: mode}
	before := hostDevices(t)
	t.Cleanup(func() {
		if err := k.Destroy(context.Background(), nil); err != nil {
			t.Errorf("clean up: %v", err)
		}
		left, err := Namespaces(context.Background())
		if err != nil || slices.Contains(left, name) {
			t.Errorf("namespaces after the test: %v, %v", left, err)
		}
		if after := hostDevices(t); !slices.Equal(before, after) {
			t.Errorf("devices of the host before the test: %v, after it: %v", before, after)
		}
	})
	return k
}

// testPrefix starts the name of every device that a test makes.
const testPrefix = "fxt"

// hostDevices returns the devices of tests among those of the host.
func hostDevices(t *testing.T) []string {
	t.Helper()
	all, err := listDevices()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(slices.Sorted(maps.Keys(all)),
		func(name string) bool { return !strings.HasPrefix(name, testPrefix) })
}

func create(t *testing.T, k *Kernel, cables ...Cable) {
	t.Helper()
	if err := k.Create(t.Context(), cables, nil); err != nil {
		t.Fatalf("create: %v", err)
	}
}

// inside runs fn with netlink in the namespace of k.
func inside(t *testing.T, k *Kernel, fn func(*rtnl) error) {
	t.Helper()
	err := within(k.Path(), func() error {
		r, err := openRTNL()
		if err != nil {
			return err
		}
		defer r.close()
		return fn(r)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func inspect(t *testing.T, k *Kernel, externals ...External) map[string]Device {
	t.Helper()
	found, err := k.Inspect(t.Context(), externals)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func testMAC(n int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 0xfa, 0x1c, 0, byte(n >> 8), byte(n)}
}

// testCable returns the nth cable between two VMs.
func testCable(n int) Cable {
	return Cable{
		A: End{Name: fmt.Sprintf("topo_left_vn_vnic%d", n), Device: fmt.Sprintf(testPrefix+"l%d", n), MAC: testMAC(2 * n)},
		B: End{Name: fmt.Sprintf("topo_right_vn_vnic%d", n), Device: fmt.Sprintf(testPrefix+"r%d", n), MAC: testMAC(2*n + 1)},
	}
}

// port is where a test sends and receives frames.
type port interface {
	send(frame []byte)
	// receive returns the next frame, or nil when none comes within wait.
	receive(wait time.Duration) []byte
}

// tap is the guest's side of a tap or macvtap, opened as the propolis server
// does.
type tap struct {
	t *testing.T
	f *os.File
}

func plug(t *testing.T, k *Kernel, device string) tap {
	t.Helper()
	var f *os.File
	operational(t, k.Path(), []string{device}, func() (err error) {
		f, err = openTap(device, tapFlags)
		return err
	})
	t.Cleanup(func() { _ = f.Close() })
	return tap{t, f}
}

// operational runs open in the namespace at path, and waits until the kernel
// has noticed that the devices have a carrier: it drops frames until then.
func operational(t *testing.T, path string, devices []string, open func() error) {
	t.Helper()
	ns, err := netns.GetFromPath(path)
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
	if err := within(path, open); err != nil {
		t.Fatalf("open %v: %v", devices, err)
	}
	timeout := time.After(5 * time.Second)
	for len(devices) > 0 {
		select {
		case u := <-updates:
			if a := u.Attrs(); a.OperState == netlink.OperUp {
				devices = slices.DeleteFunc(devices, func(name string) bool { return name == a.Name })
			}
		case <-timeout:
			t.Fatalf("%v: not operational 5 s after it was opened", devices)
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

func (p tap) receive(wait time.Duration) []byte {
	p.t.Helper()
	if !readable(p.t, int(p.f.Fd()), wait) {
		return nil
	}
	buf := make([]byte, 1<<16)
	n, err := p.f.Read(buf)
	if err != nil {
		p.t.Fatalf("receive: %v", err)
	}
	return buf[vnetHeader:n]
}

func readable(t *testing.T, fd int, wait time.Duration) bool {
	t.Helper()
	deadline := time.Now().Add(wait)
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, max(0, int(time.Until(deadline).Milliseconds())))
		if err == nil {
			return n > 0
		}
		if !errors.Is(err, unix.EINTR) {
			t.Fatalf("poll: %v", err)
		}
	}
}

// packetPort is a program of the host at a device.
type packetPort struct {
	t  *testing.T
	fd int
}

const networkALL = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8

// listen opens a packet socket on one side of a veth pair, which is in the
// namespace at path with both.
func listen(t *testing.T, path, device string) packetPort {
	t.Helper()
	var fd int
	operational(t, path, pair(t, path, device), func() (err error) {
		i, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkALL, Ifindex: i.Index})
	})
	t.Cleanup(func() { _ = unix.Close(fd) })
	return packetPort{t, fd}
}

func pair(t *testing.T, path, device string) []string {
	t.Helper()
	var names []string
	err := within(path, func() error {
		all, err := listDevices()
		for name, d := range all {
			if name == device || d.Index == all[device].parent {
				names = append(names, name)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func (p packetPort) send(frame []byte) {
	p.t.Helper()
	if _, err := unix.Write(p.fd, frame); err != nil {
		p.t.Fatalf("send: %v", err)
	}
}

func (p packetPort) receive(wait time.Duration) []byte {
	p.t.Helper()
	if !readable(p.t, p.fd, wait) {
		return nil
	}
	buf, oob := make([]byte, 1<<16), make([]byte, 256)
	n, oobn, _, _, err := unix.Recvmsg(p.fd, buf, oob, 0)
	if err != nil {
		p.t.Fatalf("receive: %v", err)
	}
	return withTag(p.t, buf[:n], oob[:oobn])
}

// withTag puts the outer VLAN tag back, which the kernel takes out of every
// frame and hands to packet sockets beside it.
func withTag(t *testing.T, frame, oob []byte) []byte {
	t.Helper()
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA {
			continue
		}
		// struct tpacket_auxdata: status at 0, vlan_tci at 16, vlan_tpid at 18
		if binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_VLAN_VALID != 0 {
			tag := binary.BigEndian.AppendUint16(nil, binary.NativeEndian.Uint16(m.Data[18:]))
			tag = binary.BigEndian.AppendUint16(tag, binary.NativeEndian.Uint16(m.Data[16:]))
			frame = slices.Insert(frame, 12, tag...)
		}
	}
	return frame
}
