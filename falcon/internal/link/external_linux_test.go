package link

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hostPair makes an interface on the host for external links, and returns its
// name and what is plugged into it.
func hostPair(t *testing.T) (host string, wire port) {
	t.Helper()
	r, err := openRTNL()
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	host, far := testPrefix+"host", testPrefix+"wire"
	if err := r.addVeth(host, far); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeHostDevice(t, host) })
	for _, name := range []string{host, far} {
		if err := disableIPv6(name); err != nil {
			t.Fatal(err)
		}
		d, err := r.byName(name)
		if err == nil {
			err = r.settle(d, settings{noARP: true})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return host, listen(t, threadNamespace, far)
}

func removeHostDevice(t *testing.T, name string) {
	t.Helper()
	r, err := openRTNL()
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	d, err := r.byName(name)
	if err == nil {
		err = r.remove(d.Index)
	}
	if err != nil && !errors.Is(err, ErrNoInterface) {
		t.Errorf("remove %s: %v", name, err)
	}
}

func testExternal(host string, exclusive bool) External {
	return External{Name: "topo_left_ext_vnic0", Device: testPrefix + "x", MAC: testMAC(500), Host: host, Exclusive: exclusive}
}

// plugExternal opens the character device of a macvtap.
func plugExternal(t *testing.T, d Device) tap {
	t.Helper()
	path := fmt.Sprintf("/dev/tap%d", d.Index)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open %s: %v", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	t.Cleanup(func() { _ = f.Close() })
	return tap{t, f}
}

func TestExternalLinkReachesTheWire(t *testing.T) {
	for _, exclusive := range []bool{false, true} {
		t.Run(fmt.Sprintf("exclusive=%v", exclusive), func(t *testing.T) {
			k := newKernel(t, Auto)
			host, wire := hostPair(t)
			before := hostInterface(t, host)
			x := testExternal(host, exclusive)
			if err := k.Create(t.Context(), nil, []External{x}); err != nil {
				t.Fatal(err)
			}
			d := inspect(t, k, x)[x.Name]
			if d.Name != x.Device || d.MAC.String() != x.MAC.String() || !d.Up {
				t.Errorf("device: %+v", d)
			}
			guest := plugExternal(t, d)
			crossExternal(t, guest, wire, x)
			if frame := wire.receive(time.Second); frame != nil {
				t.Errorf("unasked frame %x", frame)
			}
			now := hostInterface(t, host)
			if !slices.Equal(now.Macvtaps, []string{x.Device}) || now.Passthru != exclusive {
				t.Errorf("interface in use: %+v", now)
			}
			destroyTwice(t, k, x, d)
			if after := hostInterface(t, host); after.MAC.String() != before.MAC.String() || len(after.Macvtaps) != 0 {
				t.Errorf("interface before: %+v, after: %+v", before, after)
			}
		})
	}
}

// crossExternal sends frames of the guest's to the wire, and from the wire
// those that are the guest's to hear.
func crossExternal(t *testing.T, guest, wire port, x External) {
	t.Helper()
	for _, name := range []string{"ARP broadcast", "IPv6 multicast", "802.1Q", "1514"} {
		frame := frames()[name]
		copy(frame[6:], x.MAC)
		passes(t, guest, wire, frame)
	}
	for _, name := range []string{"ARP broadcast", "IPv6 multicast", "IPv6 neighbour solicitation", "LLDP", "802.1Q", "1514"} {
		frame := frames()[name]
		if frame[0]&1 == 0 {
			copy(frame, x.MAC)
		}
		passes(t, wire, guest, frame)
	}
}

func destroyTwice(t *testing.T, k *Kernel, x External, d Device) {
	t.Helper()
	for range 2 {
		if err := k.Destroy(t.Context(), []External{x}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(fmt.Sprintf("/dev/tap%d", d.Index)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the character device is left: %v", err)
	}
}

func hostInterface(t *testing.T, name string) Interface {
	t.Helper()
	i, err := HostInterface(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestExternalIsLeftAloneWhenItStands(t *testing.T) {
	for _, exclusive := range []bool{false, true} {
		k := newKernel(t, Auto)
		host, _ := hostPair(t)
		x := testExternal(host, exclusive)
		var index int
		for range 2 {
			if err := k.Create(t.Context(), nil, []External{x}); err != nil {
				t.Fatal(err)
			}
			now := inspect(t, k, x)[x.Name].Index
			if index != 0 && now != index {
				t.Errorf("exclusive=%v: made again", exclusive)
			}
			index = now
		}
		if err := k.Destroy(t.Context(), []External{x}); err != nil {
			t.Fatal(err)
		}
		removeHostDevice(t, host)
	}
}

func TestHalfMadeExternalIsCompleted(t *testing.T) {
	for _, exclusive := range []bool{false, true} {
		k := newKernel(t, Auto)
		host, wire := hostPair(t)
		x := testExternal(host, exclusive)
		r, err := openRTNL()
		if err != nil {
			t.Fatal(err)
		}
		defer r.close()
		if err := r.addMacvtap(x.Device, hostInterface(t, host).Index, exclusive); err != nil {
			t.Fatal(err)
		}
		if err := k.Create(t.Context(), nil, []External{x}); err != nil {
			t.Fatal(err)
		}
		crossExternal(t, plugExternal(t, inspect(t, k, x)[x.Name]), wire, x)
		if err := k.Destroy(t.Context(), []External{x}); err != nil {
			t.Fatal(err)
		}
		removeHostDevice(t, host)
	}
}

func TestInterfaceIsSharedOrExclusiveButNotBoth(t *testing.T) {
	for _, exclusiveFirst := range []bool{false, true} {
		t.Run(fmt.Sprintf("exclusive first=%v", exclusiveFirst), func(t *testing.T) {
			k := newKernel(t, Auto)
			host, _ := hostPair(t)
			first := testExternal(host, exclusiveFirst)
			second := External{Name: "topo_right_ext_vnic0", Device: testPrefix + "y", MAC: testMAC(501), Host: host, Exclusive: !exclusiveFirst}
			if err := k.Create(t.Context(), nil, []External{first}); err != nil {
				t.Fatal(err)
			}
			err := k.Create(t.Context(), nil, []External{second})
			if !errors.Is(err, ErrInUse) {
				t.Errorf("second: %v", err)
			}
			if all := inspect(t, k, first, second); len(all) != 1 {
				t.Errorf("external links: %v", all)
			}
			if err := k.Destroy(t.Context(), []External{first, second}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestTwoGuestsShareAnInterface(t *testing.T) {
	k := newKernel(t, Auto)
	host, wire := hostPair(t)
	a := testExternal(host, false)
	b := External{Name: "topo_right_ext_vnic0", Device: testPrefix + "y", MAC: testMAC(501), Host: host}
	if err := k.Create(t.Context(), nil, []External{a, b}); err != nil {
		t.Fatal(err)
	}
	all := inspect(t, k, a, b)
	crossExternal(t, plugExternal(t, all[a.Name]), wire, a)
	crossExternal(t, plugExternal(t, all[b.Name]), wire, b)
	if err := k.Destroy(t.Context(), []External{a, b}); err != nil {
		t.Fatal(err)
	}
}

func TestExternalDoesNotTouchDevicesOfOthers(t *testing.T) {
	k := newKernel(t, Auto)
	host, _ := hostPair(t)
	x := testExternal(host, false)
	x.Device = testPrefix + "wire" // not ours
	if err := k.Create(t.Context(), nil, []External{x}); !errors.Is(err, ErrInUse) {
		t.Errorf("create: %v", err)
	}
	if err := k.Destroy(t.Context(), []External{x}); err != nil {
		t.Errorf("destroy: %v", err)
	}
	hostInterface(t, x.Device)
}

func TestExternalNeedsAnInterfaceThatIsUp(t *testing.T) {
	k := newKernel(t, Auto)
	host, _ := hostPair(t)
	if err := k.Create(t.Context(), nil, []External{testExternal(testPrefix+"none", false)}); !errors.Is(err, ErrNoInterface) {
		t.Errorf("missing: %v", err)
	}
	r, err := openRTNL()
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	if err := r.h.LinkSetDown(ref(hostInterface(t, host).Index)); err != nil {
		t.Fatal(err)
	}
	if err := k.Create(t.Context(), nil, []External{testExternal(host, false)}); err == nil {
		t.Error("an interface that is down was accepted")
	}
	if _, err := os.Lstat(k.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the namespace is left: %v", err)
	}
}

func TestFailedCreateUndoesExternals(t *testing.T) {
	k := newKernel(t, Auto)
	host, _ := hostPair(t)
	good, bad := testExternal(host, false), testExternal(testPrefix+"none", false)
	bad.Name, bad.Device = "topo_right_ext_vnic0", testPrefix+"y"
	if err := k.Create(t.Context(), nil, []External{good, bad}); !errors.Is(err, ErrNoInterface) {
		t.Errorf("create: %v", err)
	}
	if left := hostInterface(t, host).Macvtaps; len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestDestroyAfterTheHostInterfaceWentAway(t *testing.T) {
	k := newKernel(t, Auto)
	host, _ := hostPair(t)
	x := testExternal(host, false)
	if err := k.Create(t.Context(), []Cable{testCable(0)}, []External{x}); err != nil {
		t.Fatal(err)
	}
	removeHostDevice(t, host)
	if err := k.Destroy(t.Context(), []External{x}); err != nil {
		t.Fatal(err)
	}
}

func TestTapNodeIsMadeWhereNobodyElseDoes(t *testing.T) {
	needRoot(t)
	node := tapNode{path: filepath.Join(t.TempDir(), "tap9"), dev: unix.Mkdev(1, 3)} // as /dev/null
	for _, left := range []string{"nothing", "the right node", "a stale node"} {
		if left == "a stale node" {
			err := errors.Join(os.Remove(node.path), unix.Mknod(node.path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))))
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := node.make(); err != nil {
			t.Fatalf("%s: %v", left, err)
		}
		if !node.stands() {
			t.Errorf("%s: no node", left)
		}
	}
	if err := node.remove(); err != nil || node.stands() {
		t.Errorf("remove: %v", err)
	}
}

func TestTapNodeIsAwaited(t *testing.T) {
	needRoot(t)
	node := tapNode{path: filepath.Join(t.TempDir(), "tap9"), dev: unix.Mkdev(1, 3)}
	err := node.await(t.Context(), 50*time.Millisecond)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("await of a node that does not come: %v", err)
	}
	made := make(chan error)
	go func() { made <- node.make() }()
	if err := node.await(t.Context(), 10*time.Second); err != nil {
		t.Error(err)
	}
	if err := <-made; err != nil {
		t.Fatal(err)
	}
}
