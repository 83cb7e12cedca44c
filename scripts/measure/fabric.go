//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// cableMTU is what falcon makes a cable's devices for.
const cableMTU = 9216 + 64

// fabric is a network namespace in which devices are made and joined. Its end
// ends them.
type fabric struct {
	ns netns.NsHandle
	*netlink.Handle
	closers []func() // what else is to end with it
}

func newFabric() (*fabric, error) {
	f := new(fabric)
	err := apart(func() (err error) {
		if f.ns, err = netns.New(); err != nil {
			return err
		}
		// The host is to say nothing on a cable.
		return os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	})
	if err != nil {
		return nil, fmt.Errorf("making a network namespace: %w", err)
	}
	if f.Handle, err = netlink.NewHandleAt(f.ns, unix.NETLINK_ROUTE); err != nil {
		f.ns.Close()
		return nil, err
	}
	return f, f.up("lo")
}

// apart runs a function on a thread that ends with it.
func apart(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and not unlocked
		done <- do()
	}()
	return <-done
}

func (f *fabric) close() {
	if f == nil {
		return
	}
	for _, c := range slices.Backward(f.closers) {
		c()
	}
	f.Handle.Close()
	f.ns.Close()
}

// path names the namespace for nsenter.
func (f *fabric) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(f.ns)) }

// up puts a device into operation.
func (f *fabric) up(name string) error {
	link, err := f.LinkByName(name)
	if err != nil {
		return err
	}
	return f.LinkSetUp(link)
}

// tap makes a tap as falcon's are. It lasts until the last who has it open closes it.
func (f *fabric) tap(name string) (*os.File, error) {
	var file *os.File
	err := apart(func() error {
		if err := netns.Set(f.ns); err != nil {
			return err
		}
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		file = os.NewFile(uintptr(fd), name)
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	})
	if err == nil {
		err = f.prepare(name)
	}
	if err != nil {
		if file != nil {
			file.Close()
		}
		return nil, fmt.Errorf("making the tap %s: %w", name, err)
	}
	return file, nil
}

// prepare gives a device falcon's MTU and puts it into operation.
func (f *fabric) prepare(name string) error {
	link, err := f.LinkByName(name)
	if err != nil {
		return err
	}
	if err := f.LinkSetMTU(link, cableMTU); err != nil {
		return err
	}
	return f.LinkSetUp(link)
}

// redirect joins two devices as falcon does: what enters one leaves the other.
func (f *fabric) redirect(a, b string) error {
	return f.both(a, b, func(attrs netlink.FilterAttrs, to int) error {
		prog, err := ebpf.NewProgramWithOptions(&ebpf.ProgramSpec{
			Type: ebpf.SchedCLS,
			Instructions: asm.Instructions{
				asm.Mov.Imm(asm.R1, int32(to)), asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call(), asm.Return(),
			},
			License: "Apache-2.0",
		}, ebpf.ProgramOptions{LogDisabled: true})
		if err != nil {
			return err
		}
		defer prog.Close() // the filter has it
		return f.FilterAdd(&netlink.BpfFilter{FilterAttrs: attrs, Fd: prog.FD(), Name: "redirect", DirectAction: true})
	})
}

// mirred joins two devices by the action of that name.
func (f *fabric) mirred(a, b string) error {
	return f.both(a, b, func(attrs netlink.FilterAttrs, to int) error {
		return f.FilterAdd(&netlink.U32{FilterAttrs: attrs, Actions: []netlink.Action{netlink.NewMirredAction(to)}})
	})
}

// both adds a filter to what enters each of two devices.
func (f *fabric) both(a, b string, add func(attrs netlink.FilterAttrs, to int) error) error {
	var index [2]int
	for i, name := range []string{a, b} {
		link, err := f.LinkByName(name)
		if err != nil {
			return err
		}
		index[i] = link.Attrs().Index
	}
	for i, from := range index {
		err := f.QdiscReplace(&netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: from, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}})
		if err == nil {
			err = add(netlink.FilterAttrs{LinkIndex: from, Parent: netlink.HANDLE_MIN_INGRESS, Priority: 1, Protocol: unix.ETH_P_ALL}, index[1-i])
		}
		if err != nil {
			return fmt.Errorf("joining %s and %s: %w", a, b, err)
		}
	}
	return nil
}

// bridge joins devices by a bridge.
func (f *fabric) bridge(name string, ports ...string) error {
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
	if err := f.LinkAdd(bridge); err != nil {
		return fmt.Errorf("making the bridge %s: %w", name, err)
	}
	for _, port := range ports {
		link, err := f.LinkByName(port)
		if err == nil {
			err = f.LinkSetMaster(link, bridge)
		}
		if err != nil {
			return err
		}
	}
	return f.prepare(name)
}

// veth makes a pair of devices, the far one in another namespace.
func (f *fabric) veth(name, far string, in *fabric) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	err := f.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: far, PeerNamespace: netlink.NsFd(in.ns)})
	if err != nil {
		return fmt.Errorf("making the veth pair %s, %s: %w", name, far, err)
	}
	if err := in.prepare(far); err != nil {
		return err
	}
	return f.prepare(name)
}
