package link

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestDevicesAreAsPlanned(t *testing.T) {
	k, c := newKernel(t, Auto), testCable(7)
	c.MTU = 1500
	create(t, k, c)
	all := inspect(t, k)
	for _, e := range []End{c.A, c.B} {
		d, ok := all[e.Name]
		if !ok {
			t.Fatalf("no device is named %s: %v", e.Name, all)
		}
		if d.Name != e.Device || d.MAC.String() != e.MAC.String() || d.MTU != 1500+TagRoom || !d.Up || d.Carrier {
			t.Errorf("device of %+v: %+v", e, d)
		}
	}
	inside(t, k, func(r *rtnl) error {
		lo, err := r.byName("lo")
		if lo.Up {
			t.Error("the loopback device is up")
		}
		return err
	})
}

func TestInspectCountsFrames(t *testing.T) {
	k, c := newKernel(t, Auto), testCable(0)
	create(t, k, c)
	a, b := plug(t, k, c.A.Device), plug(t, k, c.B.Device)
	passes(t, a, b, frames()["1514"])
	all := inspect(t, k)
	if d := all[c.A.Name]; !d.Carrier || d.Rx.Packets != 1 || d.Rx.Bytes != 1514 || d.Tx.Packets != 0 {
		t.Errorf("sender: %+v", d)
	}
	if d := all[c.B.Name]; !d.Carrier || d.Tx.Packets != 1 || d.Tx.Bytes != 1514 || d.Rx.Packets != 0 {
		t.Errorf("receiver: %+v", d)
	}
}

func TestInspectFindsNothingWithoutNamespace(t *testing.T) {
	if all := inspect(t, newKernel(t, Auto)); len(all) != 0 {
		t.Errorf("found %v", all)
	}
}

func TestCreateLeavesAloneWhatStands(t *testing.T) {
	for _, mode := range []Redirect{BPF, Mirred} {
		t.Run(mode.String(), func(t *testing.T) {
			k := newKernel(t, mode)
			cables := []Cable{testCable(0), testCable(1), testCable(2)}
			cables[1].B.Kind = Host
			cables[2].A.Kind, cables[2].B.Kind = Host, Host
			create(t, k, cables...)
			before := inspect(t, k)
			// An open tap would be lost if it were made again, and nothing
			// needs to be joined again.
			a, b := plug(t, k, cables[0].A.Device), plug(t, k, cables[0].B.Device)
			joined := filterTypes(t, k, cables[0].A.Device)
			again := &Kernel{Namespace: k.Namespace, Redirect: BPF + Mirred - mode}
			watch := watchChanges(t, k)
			create(t, again, cables...)
			if n := watch(); n != 0 {
				t.Errorf("%d changes to what was right", n)
			}
			if now := filterTypes(t, k, cables[0].A.Device); !slices.Equal(now, joined) {
				t.Errorf("joined by %v, then by %v", joined, now)
			}
			passes(t, a, b, frames()["LLDP"])
			for name, d := range inspect(t, k) {
				if d.Index != before[name].Index {
					t.Errorf("%s was made again", name)
				}
			}
		})
	}
}

func filterTypes(t *testing.T, k *Kernel, device string) (types []string) {
	t.Helper()
	inside(t, k, func(r *rtnl) error {
		d, err := r.byName(device)
		if err != nil {
			return err
		}
		filters, err := r.h.FilterList(ref(d.Index), ingressHandle)
		for _, f := range filters {
			types = append(types, f.Type())
		}
		return err
	})
	return types
}

// watchChanges counts what changes about the devices of k until the returned
// function is called.
func watchChanges(t *testing.T, k *Kernel) (count func() int) {
	t.Helper()
	updates, done := make(chan netlink.LinkUpdate, 100), make(chan struct{})
	inside(t, k, func(*rtnl) error { return netlink.LinkSubscribe(updates, done) })
	return func() int {
		// A change of our own marks the end of the changes.
		inside(t, k, func(r *rtnl) error { return r.addVeth("mark0", "mark1") })
		n := 0
		for u := range updates {
			if u.Attrs().Name == "mark0" || u.Attrs().Name == "mark1" {
				break
			}
			n++
		}
		close(done)
		inside(t, k, func(r *rtnl) error {
			d, err := r.byName("mark0")
			return errors.Join(err, r.remove(d.Index))
		})
		return n
	}
}

// TestCreateRepairs breaks a standing cable in many ways.
func TestCreateRepairs(t *testing.T) {
	type breakage struct {
		name string
		do   func(r *rtnl, d device) error
	}
	breakages := []breakage{
		{"device removed", func(r *rtnl, d device) error { return r.remove(d.Index) }},
		{"redirect removed", func(r *rtnl, d device) error { return r.h.QdiscDel(ingress(d.Index)) }},
		{"filter removed", func(r *rtnl, d device) error { return r.resetIngress(d.Index) }},
		{"redirected to itself", func(r *rtnl, d device) error {
			return errors.Join(r.resetIngress(d.Index), r.addMirred(d.Index, d.Index))
		}},
		{"redirected to itself by bpf", func(r *rtnl, d device) error {
			return errors.Join(r.resetIngress(d.Index), r.addBPF(d.Index, d.Index))
		}},
		{"set down", func(r *rtnl, d device) error { return r.h.LinkSetDown(ref(d.Index)) }},
		{"MTU changed", func(r *rtnl, d device) error { return r.h.LinkSetMTU(ref(d.Index), 1400) }},
		{"MAC changed", func(r *rtnl, d device) error { return r.h.LinkSetHardwareAddr(ref(d.Index), testMAC(999)) }},
		{"name removed", func(r *rtnl, d device) error { return r.h.LinkDelAltName(ref(d.Index), d.altNames[0]) }},
		{"ARP on", func(r *rtnl, d device) error { return r.h.LinkSetARPOn(ref(d.Index)) }},
		{"tap without virtio-net header", func(r *rtnl, d device) error {
			plain := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: d.Name}, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_NO_PI}
			return errors.Join(r.remove(d.Index), r.h.LinkAdd(plain))
		}},
		{"other kind of device", func(r *rtnl, d device) error {
			return errors.Join(r.remove(d.Index), r.addVeth(d.Name, "other"))
		}},
	}
	for _, mode := range []Redirect{BPF, Mirred} {
		for _, b := range breakages {
			t.Run(mode.String()+" "+b.name, func(t *testing.T) {
				k, c := newKernel(t, mode), testCable(0)
				create(t, k, c)
				inside(t, k, func(r *rtnl) error {
					d, err := r.byName(c.A.Device)
					return errors.Join(err, b.do(r, d))
				})
				create(t, k, c)
				d := inspect(t, k)[c.A.Name]
				if d.Name != c.A.Device || d.MAC.String() != c.A.MAC.String() || d.MTU != c.deviceMTU() || !d.Up {
					t.Errorf("repaired device: %+v", d)
				}
				left, right := plug(t, k, c.A.Device), plug(t, k, c.B.Device)
				passes(t, left, right, frames()["LLDP"])
				passes(t, right, left, frames()["9230"])
			})
		}
	}
}

func TestCreateRepairsHostEnds(t *testing.T) {
	c := testCable(0)
	c.B.Kind = Host
	for _, broken := range c.Devices() {
		t.Run(broken+" removed", func(t *testing.T) {
			k := newKernel(t, Auto)
			create(t, k, c)
			inside(t, k, func(r *rtnl) error {
				d, err := r.byName(broken)
				return errors.Join(err, r.remove(d.Index))
			})
			create(t, k, c)
			a, b := plug(t, k, c.A.Device), listen(t, k.Path(), c.B.Device)
			passes(t, a, b, frames()["LLDP"])
			passes(t, b, a, frames()["LLDP"])
		})
	}
}

func TestAutoFallsBackToMirred(t *testing.T) {
	onTestHost(t, func(r *rtnl) error {
		if err := r.addVeth("v0", "v1"); err != nil {
			return err
		}
		a, err := r.byName("v0")
		if err != nil {
			return err
		}
		// What an old kernel has not, this thread may not for a moment.
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var all, some [2]unix.CapUserData
		if err := unix.Capget(&header, &all[0]); err != nil {
			return err
		}
		some = all
		some[0].Effective = 1 << unix.CAP_NET_ADMIN
		some[1].Effective = 0
		if err := unix.Capset(&header, &some[0]); err != nil {
			return err
		}
		bpf, auto := r.redirect(a.Index, a.Index, BPF), r.redirect(a.Index, a.Index, Auto)
		if err := unix.Capset(&header, &all[0]); err != nil {
			return err
		}
		if !errors.Is(bpf, unix.EPERM) || auto != nil {
			t.Errorf("BPF: %v, auto: %v", bpf, auto)
		}
		return nil
	})
}

func TestDestroyIsIdempotent(t *testing.T) {
	k, c := newKernel(t, Auto), testCable(0)
	create(t, k, c)
	for range 2 {
		if err := k.Destroy(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(k.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", k.Path(), err)
	}
}

func TestDestroyAfterPartsWereRemoved(t *testing.T) {
	k, c := newKernel(t, Auto), testCable(0)
	create(t, k, c)
	inside(t, k, func(r *rtnl) error {
		d, err := r.byName(c.A.Device)
		return errors.Join(err, r.remove(d.Index))
	})
	if err := k.Destroy(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
}

// A process killed between the two steps of making a namespace leaves a file
// with no namespace on it.
func TestHalfMadeNamespace(t *testing.T) {
	leave := func(t *testing.T, k *Kernel) {
		t.Helper()
		unlock, err := lockNamespaceDir(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		unlock()
		if err := os.WriteFile(k.Path(), nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("is listed and destroyed", func(t *testing.T) {
		k := newKernel(t, Auto)
		leave(t, k)
		if all, err := Namespaces(t.Context()); err != nil || !slices.Contains(all, k.Namespace) {
			t.Errorf("namespaces: %v, %v", all, err)
		}
		if err := k.Destroy(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("is completed by Create", func(t *testing.T) {
		k, c := newKernel(t, Auto), testCable(0)
		leave(t, k)
		create(t, k, c)
		if len(inspect(t, k)) != 2 {
			t.Error("the cable was not made")
		}
	})
}

func TestCreateWaitsForTheLockNoLongerThanItsContext(t *testing.T) {
	k := newKernel(t, Auto)
	unlock, err := lockNamespaceDir(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := k.Create(ctx, nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("create: %v", err)
	}
}

// cancelAfter is a context that is cancelled when it has been asked n times.
type cancelAfter struct {
	context.Context
	n atomic.Int64
}

func (c *cancelAfter) Err() error {
	if c.n.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

func TestCancelledCreateUndoesWhatItMade(t *testing.T) {
	t.Run("namespace and all", func(t *testing.T) {
		k := newKernel(t, BPF)
		ctx := &cancelAfter{Context: t.Context()}
		ctx.n.Store(1)
		err := k.Create(ctx, []Cable{testCable(0), testCable(1)}, nil)
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), testCable(1).A.Name) {
			t.Errorf("create: %v", err)
		}
		if _, err := os.Lstat(k.Path()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the namespace is left: %v", err)
		}
	})
	t.Run("but not what stood before", func(t *testing.T) {
		k, stood := newKernel(t, BPF), testCable(0)
		create(t, k, stood)
		ctx := &cancelAfter{Context: t.Context()}
		ctx.n.Store(2)
		made := testCable(1)
		made.B.Kind = Host
		err := k.Create(ctx, []Cable{stood, made, testCable(2)}, nil)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("create: %v", err)
		}
		inside(t, k, func(r *rtnl) error {
			all, err := r.devices()
			if len(all) != 3 { // two taps and lo
				t.Errorf("devices left: %v", all)
			}
			return err
		})
	})
}

func TestFailedCreateNamesTheLinkAndUndoes(t *testing.T) {
	k, stood, failing := newKernel(t, Auto), testCable(0), testCable(1)
	create(t, k, stood)
	failing.B.Name = stood.A.Name // taken, in the kernel only
	err := k.Create(t.Context(), []Cable{failing}, nil)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), failing.A.Name) {
		t.Errorf("create: %v", err)
	}
	inside(t, k, func(r *rtnl) error {
		all, err := r.devices()
		if len(all) != 3 {
			t.Errorf("devices left: %v", all)
		}
		return err
	})
}

func TestCreateRefusesNamespacesOfOthers(t *testing.T) {
	for _, name := range []string{"", "blue", "falcon-../x", "falcon-a b"} {
		k := &Kernel{Namespace: name}
		if err := k.Create(t.Context(), nil, nil); err == nil {
			t.Errorf("create in %q", name)
		}
		if err := k.Destroy(t.Context(), nil); err == nil {
			t.Errorf("destroy %q", name)
		}
	}
}

// A QEMU that was left behind must not keep the topology's devices alive.
func TestDestroyTakesTheDeviceFromAProcessThatHasItOpen(t *testing.T) {
	k, c := newKernel(t, Auto), testCable(0)
	create(t, k, c)
	left := plug(t, k, c.A.Device)
	if err := k.Destroy(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := left.f.Write(make([]byte, vnetHeader+60)); !errors.Is(err, unix.EBADFD) {
		t.Errorf("write to the tap: %v", err)
	}
}

// One round in ten must do, because the tests of other packages run meanwhile.
func TestTwoHundredLinksTakeUnderTwoSeconds(t *testing.T) {
	var cables []Cable
	for i := range 200 {
		cables = append(cables, testCable(i))
	}
	for _, mode := range []Redirect{Auto, Mirred} {
		t.Run(mode.String(), func(t *testing.T) {
			best := time.Hour
			for round := 0; round < 10 && best > 2*time.Second; round++ {
				k := newKernel(t, mode)
				start := time.Now()
				create(t, k, cables...)
				created := time.Since(start)
				if err := k.Destroy(t.Context(), nil); err != nil {
					t.Fatal(err)
				}
				best = min(best, time.Since(start))
				t.Logf("created in %v, with removal %v", created, time.Since(start))
			}
			if best > 2*time.Second {
				t.Errorf("200 links took %v", best)
			}
		})
	}
}
