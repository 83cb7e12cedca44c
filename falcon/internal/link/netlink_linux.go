package link

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
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
	group    int
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
		group:    int(a.Group),
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

// deviceGroup marks all devices of cables, so that they can be removed at
// once: one by one takes an RCU grace period for each.
const deviceGroup = 0xfa1c

// removeAll deletes the devices of cables in the thread's namespace. None is
// no error.
func removeAll() error {
	req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(deviceGroup)))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

func (r *rtnl) addVeth(name, peer string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Group = name, deviceGroup
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
	group    int
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
		{"set the group", want.group != 0 && d.group != want.group, func() error { return r.h.LinkSetGroup(l, want.group) }},
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

// ingressHandle is that of the ingress qdisc, of which a device has one.
const ingressHandle = 0xffff0000

// bpfFilterPrefix starts the name of a filter with our program; the index of
// the device that it redirects to follows.
const bpfFilterPrefix = "falcon_redirect_"

func ingress(index int) *netlink.Ingress {
	return &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index,
		Handle: ingressHandle, Parent: netlink.HANDLE_INGRESS}}
}

// everyFrame are the attributes of a filter that sees all that enters.
func everyFrame(index int) netlink.FilterAttrs {
	return netlink.FilterAttrs{LinkIndex: index, Parent: ingressHandle, Priority: 1, Protocol: unix.ETH_P_ALL}
}

// resetIngress gives a device an ingress qdisc without filters.
func (r *rtnl) resetIngress(index int) error {
	// The kernel says EINVAL or ENOENT when there is none.
	err := r.h.QdiscDel(ingress(index))
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("remove the ingress qdisc: %w", err)
	}
	if err := r.h.QdiscAdd(ingress(index)); err != nil {
		return fmt.Errorf("add an ingress qdisc: %w", tcError(err))
	}
	return nil
}

func (r *rtnl) addBPFFilter(index, target, prog int) error {
	err := r.h.FilterAdd(&netlink.BpfFilter{FilterAttrs: everyFrame(index), Fd: prog, DirectAction: true,
		Name: bpfFilterPrefix + strconv.Itoa(target)})
	if err != nil {
		return fmt.Errorf("add a bpf filter: %w", tcError(err))
	}
	return nil
}

// addMirred sends every frame that enters device index out of target.
func (r *rtnl) addMirred(index, target int) error {
	err := r.h.FilterAdd(&netlink.U32{FilterAttrs: everyFrame(index),
		// No key at all: a key that matches any value still needs four bytes
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

// redirectTarget returns the device out of which everything that enters
// device index leaves, by whichever means, or 0.
func (r *rtnl) redirectTarget(index int) (int, error) {
	filters, err := dump(func() ([]netlink.Filter, error) { return r.h.FilterList(ref(index), ingressHandle) })
	if err != nil {
		return 0, fmt.Errorf("list filters: %w", err)
	}
	for _, f := range filters { // the first one decides
		switch f := f.(type) {
		case *netlink.BpfFilter:
			target, _ := strconv.Atoi(strings.TrimPrefix(f.Name, bpfFilterPrefix))
			return target, nil
		case *netlink.U32:
			if len(f.Actions) > 0 { // else a hash table of u32's own
				return mirredTarget(f.Actions), nil
			}
		default:
			return 0, nil
		}
	}
	return 0, nil
}

func mirredTarget(actions []netlink.Action) int {
	if m, ok := actions[0].(*netlink.MirredAction); ok && m.MirredAction == netlink.TCA_EGRESS_REDIR {
		return m.Ifindex
	}
	return 0
}
