package link

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// rtnl speaks rtnetlink in the network namespace of the thread that opened
// it. It is the only user of the netlink library, whose types stay inside.
type rtnl struct{ h *netlink.Handle }

func openRTNL() (*rtnl, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	return &rtnl{h}, nil
}

func (r *rtnl) close() { r.h.Close() }

// Kinds of devices, as the kernel calls them.
const (
	kindTap     = "tuntap" // the library's word; the kernel's is tun
	kindVeth    = "veth"
	kindMacvtap = "macvtap"
)

// device is a network device as it stands.
type device struct {
	Device
	kind     string
	altNames []string
	noARP    bool
	allMulti bool
	// parent is the index of a macvtap's lower device, or of a veth's peer.
	parent int
	// master is the index of the bridge or bond that the device belongs to.
	master int
	// tapFlags are the IFF_ flags of a tap.
	tapFlags int
	// passthru is set for a macvlan or macvtap in this mode.
	passthru bool
}

func deviceOf(l netlink.Link) device {
	a := l.Attrs()
	d := device{
		Device: Device{Index: a.Index, Name: a.Name, MAC: a.HardwareAddr, MTU: a.MTU,
			Up: a.RawFlags&unix.IFF_UP != 0, Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0},
		kind:     l.Type(),
		altNames: a.AltNames,
		noARP:    a.RawFlags&unix.IFF_NOARP != 0,
		allMulti: a.RawFlags&unix.IFF_ALLMULTI != 0,
		parent:   a.ParentIndex,
		master:   a.MasterIndex,
	}
	if s := a.Statistics; s != nil {
		d.Rx = Counters{Bytes: s.RxBytes, Packets: s.RxPackets, Drops: s.RxDropped}
		d.Tx = Counters{Bytes: s.TxBytes, Packets: s.TxPackets, Drops: s.TxDropped}
	}
	switch l := l.(type) {
	case *netlink.Tuntap:
		d.tapFlags = int(l.Mode) | int(l.Flags)
		if !l.NonPersist {
			d.tapFlags |= unix.IFF_PERSIST
		}
	case *netlink.Macvtap:
		d.passthru = l.Mode == netlink.MACVLAN_MODE_PASSTHRU
	case *netlink.Macvlan:
		d.passthru = l.Mode == netlink.MACVLAN_MODE_PASSTHRU
	}
	return d
}

// devices returns all devices of the namespace by kernel name.
func (r *rtnl) devices() (map[string]device, error) {
	links, err := dump(r.h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	byName := make(map[string]device, len(links))
	for _, l := range links {
		byName[l.Attrs().Name] = deviceOf(l)
	}
	return byName, nil
}

// dump repeats a listing for as long as devices changed under it, which
// other programs can make happen at most so often.
func dump[T any](list func() ([]T, error)) (all []T, err error) {
	for range 10 {
		all, err = list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// byName finds a device by kernel or alternative name.
func (r *rtnl) byName(name string) (device, error) {
	l, err := r.h.LinkByName(name)
	if err == nil {
		return deviceOf(l), nil
	}
	if notFound := (netlink.LinkNotFoundError{}); errors.As(err, &notFound) || errors.Is(err, unix.ENODEV) {
		err = ErrNoInterface
	}
	return device{}, fmt.Errorf("%s: %w", name, err)
}

func (r *rtnl) addVeth(name, peer string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	// One queue each: a cable keeps the order of its frames.
	attrs.NumTxQueues, attrs.NumRxQueues = 1, 1
	veth := netlink.NewVeth(attrs)
	veth.PeerName = peer
	veth.PeerNumTxQueues, veth.PeerNumRxQueues = 1, 1
	return r.h.LinkAdd(veth)
}

func (r *rtnl) addMacvtap(name string, parent int, passthru bool) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = name, parent
	mode := netlink.MACVLAN_MODE_BRIDGE
	if passthru {
		mode = netlink.MACVLAN_MODE_PASSTHRU
	}
	return r.h.LinkAdd(&netlink.Macvtap{Macvlan: netlink.Macvlan{LinkAttrs: attrs, Mode: mode}})
}

// remove deletes a device; one that is gone already is no error.
func (r *rtnl) remove(index int) error {
	err := r.h.LinkDel(ref(index))
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// settings is how a device is to be; what is zero is left alone.
type settings struct {
	mac      net.HardwareAddr
	mtu      int
	altName  string
	noARP    bool
	allMulti bool
}

// settle brings a device to the settings, and up. It changes what differs.
func (r *rtnl) settle(d device, want settings) error {
	l := ref(d.Index)
	steps := []struct {
		what   string
		differ bool
		apply  func() error
	}{
		{"add the name " + want.altName, want.altName != "" && !slices.Contains(d.altNames, want.altName),
			func() error { return r.h.LinkAddAltName(l, want.altName) }},
		{"set the MAC", want.mac != nil && d.MAC.String() != want.mac.String(),
			func() error { return r.h.LinkSetHardwareAddr(l, want.mac) }},
		{"set the MTU", want.mtu != 0 && d.MTU != want.mtu,
			func() error { return r.h.LinkSetMTU(l, want.mtu) }},
		{"switch ARP off", want.noARP && !d.noARP, func() error { return r.h.LinkSetARPOff(l) }},
		{"accept all multicast", want.allMulti && !d.allMulti, func() error { return r.h.LinkSetAllmulticastOn(l) }},
		{"bring it up", !d.Up, func() error { return r.h.LinkSetUp(l) }},
	}
	for _, s := range steps {
		if !s.differ {
			continue
		}
		if err := s.apply(); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}

// ref stands for the device with an index in calls that use nothing else.
func ref(index int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

func ingress(index int) *netlink.Ingress {
	return &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index,
		Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS}}
}

// addMirred sends everything that enters device index out of target, with an
// ingress qdisc, a u32 filter that matches every frame, and mirred.
func (r *rtnl) addMirred(index, target int) error {
	q := ingress(index)
	if err := r.h.QdiscAdd(q); err != nil {
		return fmt.Errorf("add an ingress qdisc: %w", tcError(err))
	}
	err := r.h.FilterAdd(&netlink.U32{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: q.Handle, Priority: 1, Protocol: unix.ETH_P_ALL},
		// No keys at all: a key that matches any value still needs four bytes
		// after the Ethernet header to be there.
		Sel:     &netlink.TcU32Sel{Flags: netlink.TC_U32_TERMINAL},
		Actions: []netlink.Action{netlink.NewMirredAction(target)},
	})
	if err != nil {
		return fmt.Errorf("add a u32 filter with mirred: %w", tcError(err))
	}
	return nil
}

// tcError tells a kernel that lacks a qdisc, classifier or action: it says
// ENOENT then.
func tcError(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w by this kernel: %w", ErrNotSupported, err)
	}
	return err
}

// delIngress removes the ingress qdisc of a device and its filters, if any.
func (r *rtnl) delIngress(index int) error {
	err := r.h.QdiscDel(ingress(index))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

// mirredTarget returns the device to which all that enters device index is
// redirected by a single mirred filter, or 0.
func (r *rtnl) mirredTarget(index int) (int, error) {
	filters, err := dump(func() ([]netlink.Filter, error) {
		return r.h.FilterList(ref(index), netlink.MakeHandle(0xffff, 0))
	})
	if err != nil {
		return 0, fmt.Errorf("list filters: %w", err)
	}
	target := 0
	for _, f := range filters {
		u32, ok := f.(*netlink.U32)
		if !ok {
			return 0, nil
		}
		for _, a := range u32.Actions {
			if m, ok := a.(*netlink.MirredAction); ok && m.MirredAction == netlink.TCA_EGRESS_REDIR {
				target = m.Ifindex
			}
		}
	}
	return target, nil
}
