package qemu

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/falcon-vm/falcon-go/propolis/internal/confine"
	"github.com/falcon-vm/falcon-go/propolis/softnpu"
)

// Range of the MTU that a virtio NIC can announce (virtio 1.1, 5.1.4.1; the
// field has 16 bits).
const (
	minMTU = 68
	maxMTU = 65535
)

// Kinds of virtio_network_backend, by the prefix of vnic_name.
const (
	vnicDevice = ""
	vnicHost   = "host"
	vnicDgram  = "dgram"
	vnicUser   = "user"
	// vnicSidecar is one of several NICs that share a cable to a switch.
	vnicSidecar = "sidecar"
)

// vnic is a vnic_name, taken apart. The forms are
//
//	NAME[?mtu=N]                           a tap or macvtap in Config.NetNS
//	host:NAME[?mtu=N]                      the same, in our own namespace
//	dgram:LOCAL?peer=PEER&mac=MAC[&mtu=N]  a cable of two Unix sockets
//	user:?mac=MAC[&mtu=N]                  QEMU's own NAT
//	sidecar:NAME?port=N&header=N&mac=MAC[&peer=PEER][&mtu=N]
//	                                       one of the NICs that share a cable
//	                                       of frames with a sidecar header:
//	                                       a device, or sockets with a peer
//
// What follows the question mark is encoded as in a URL. A device takes a mac
// too, which replaces the device's own address.
type vnic struct {
	kind string
	name string // of the device, or the local socket's path
	peer string
	mac  string
	mtu  int // 0: the guest's own choice
	// port is the NIC's number on a sidecar cable, and header the length of
	// the header there.
	port, header int
}

// link is the device's key in Host.Links, empty if there is no device.
func (v vnic) link() string {
	switch v.kind {
	case vnicDevice:
		return v.name
	case vnicHost:
		return vnicHost + ":" + v.name
	}
	return ""
}

func parseVNIC(s string) (vnic, error) {
	rest, query, _ := strings.Cut(s, "?")
	kind, name, prefixed := strings.Cut(rest, ":")
	if !prefixed {
		kind, name = vnicDevice, rest
	}
	v := vnic{kind: kind, name: name}
	options, err := url.ParseQuery(query)
	if err != nil {
		return v, fmt.Errorf("vnic name %q: %w", s, err)
	}
	for key, values := range options {
		if err := v.set(key, values[len(values)-1]); err != nil {
			return v, fmt.Errorf("vnic name %q: %w", s, err)
		}
	}
	if err := v.check(); err != nil {
		return v, fmt.Errorf("vnic name %q: %w", s, err)
	}
	return v, nil
}

func (v *vnic) set(key, value string) error {
	switch key {
	case "mtu":
		mtu, err := strconv.Atoi(value)
		if err != nil || mtu < minMTU || mtu > maxMTU {
			return fmt.Errorf("MTU %q is not a number from %d to %d", value, minMTU, maxMTU)
		}
		v.mtu = mtu
	case "mac":
		mac, err := net.ParseMAC(value)
		if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
			return fmt.Errorf("%q is not a unicast MAC address", value)
		}
		v.mac = mac.String()
	case "peer":
		v.peer = value
	case "port", "header":
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			return fmt.Errorf("%s %q is not a number", key, value)
		}
		if key == "port" {
			v.port = n
		} else {
			v.header = n
		}
	default:
		return fmt.Errorf("option %q is unknown", key)
	}
	return nil
}

func (v *vnic) check() error {
	if v.peer != "" && v.kind != vnicDgram && v.kind != vnicSidecar {
		return errors.New("only a vnic of the kind dgram or sidecar has a peer")
	}
	if v.kind != vnicSidecar && (v.port != 0 || v.header != 0) {
		return errors.New("only a vnic of the kind sidecar has a port and a header")
	}
	switch v.kind {
	case vnicDevice, vnicHost:
		if v.name == "" {
			return errors.New("the device's name is empty")
		}
		return nil
	case vnicDgram:
		if err := errors.Join(checkSocketPath(v.name), checkSocketPath(v.peer)); err != nil {
			return err
		}
	case vnicSidecar:
		if v.name == "" {
			return errors.New("the name of the cable is empty")
		}
		if v.header != softnpu.SidecarHeader && v.header != softnpu.OldSidecarHeader {
			return fmt.Errorf("a sidecar header has %d or %d bytes, not %d", softnpu.SidecarHeader, softnpu.OldSidecarHeader, v.header)
		}
	case vnicUser:
		if v.name != "" {
			return errors.New("a vnic of the kind user has no name")
		}
	default:
		return fmt.Errorf("the kind %q is unknown; there are host, dgram, user and sidecar", v.kind)
	}
	if v.mac == "" {
		return fmt.Errorf("a vnic of the kind %s needs a mac option", v.kind)
	}
	return nil
}

// nic adds a virtio NIC and what it is plugged into.
func (b *builder) nic(name string, c propolis.VirtioNIC, at []string) {
	backend, ok := b.spec.Components[c.BackendID].(propolis.VirtioNetworkBackend)
	if !ok {
		b.refuseBackend(name, c.BackendID, "virtio_network_backend")
		return
	}
	v, err := parseVNIC(backend.VNICName)
	if err != nil {
		b.refuse(c.BackendID, "%v", err)
		return
	}
	id := objectID("net", name)
	if b.cfg.Template.making() {
		b.looseCable(id, v, c.PCIPath)
		v.mac = placeholder(c.PCIPath).String()
	}
	switch {
	case b.cfg.Template.making():
	case v.kind == vnicDgram:
		b.sockets(id, v)
	case v.kind == vnicUser:
		b.add("-netdev", option("user", "id", id))
		b.cmd.HostNetwork = true
	case v.kind == vnicSidecar:
		b.cmd.sidecars = append(b.cmd.sidecars, v)
		b.ownCable(id, FD{Kind: FDSidecar})
	default:
		link, known := b.host.Links[v.link()]
		if !known {
			link.Err = fmt.Errorf("network device %q was not looked for", v.link())
		}
		if link.Err != nil {
			b.refuse(c.BackendID, "%v", link.Err)
			return
		}
		b.tap(id, link)
		if v.mac == "" {
			v.mac = link.MAC
		}
	}
	b.ownAddress(c.PCIPath, v.mac)
	pairs := []string{"netdev", id, "mac", v.mac, "romfile", ""}
	if v.mtu != 0 {
		pairs = append(pairs, "host_mtu", strconv.Itoa(v.mtu))
	}
	b.device("virtio-net-pci", objectID("dev", name), at, pairs...)
}

// sockets plugs a NIC into a cable of two Unix sockets. QEMU sees the folder of
// each, where it makes its own, and finds the other whenever that is there.
func (b *builder) sockets(id string, v vnic) {
	netdev := func(local, peer string) string {
		return option("dgram", "id", id, "local.type", "unix", "local.path", local, "remote.type", "unix", "remote.path", peer)
	}
	b.hand("-netdev", netdev(v.name, v.peer))
	at := make(map[string]string)
	for i, path := range []string{v.name, v.peer} {
		if dir := filepath.Dir(path); at[dir] == "" {
			at[dir] = b.inside(confine.Mount{Source: dir, Target: fmt.Sprintf("/falcon/%s-%d", id, i), Writable: true, Owned: true})
		}
	}
	inside := func(path string) string { return filepath.Join(at[filepath.Dir(path)], filepath.Base(path)) }
	b.served("-netdev", netdev(inside(v.name), inside(v.peer)))
}

// ownCable plugs a NIC into a cable to ourselves. A person's QEMU has one with
// nobody at its end.
func (b *builder) ownCable(id string, fd FD) {
	b.served("-netdev", option("dgram", "id", id, "local.type", "fd", "local.str", strconv.Itoa(b.inherit(fd))))
	b.hand("-netdev", option("hubport", "id", id, "hubid", strconv.Itoa(len(b.cmd.FDs))))
}

// looseCable stands for what a template's NIC will be plugged into: nobody is
// there yet, and who will be is not known. It offers the NIC the same, for a
// guest keeps what it has once agreed on with its NIC.
func (b *builder) looseCable(id string, v vnic, at propolis.PCIPath) {
	switch v.kind {
	case vnicDgram, vnicUser, vnicSidecar:
		hub := strconv.Itoa(int(at.Bus)<<8 | int(at.Device)<<3 | int(at.Function))
		b.add("-netdev", option("hubport", "id", id, "hubid", hub))
	default:
		fd := b.inherit(FD{Kind: FDLooseTap})
		b.served("-netdev", option("tap", "id", id, "fd", strconv.Itoa(fd)))
		b.hand("-netdev", option("tap", "id", id, "script", "no", "downscript", "no"))
	}
}

// tap adds a network device of the host, which we open for QEMU: only we may
// have the right to, and QEMU stays outside the device's namespace. By hand
// the shell opens a macvtap, and QEMU a tap from within the namespace.
func (b *builder) tap(id string, link Link) {
	fd := strconv.Itoa(b.inherit(FD{Kind: FDLink, Link: link}))
	b.served("-netdev", option("tap", "id", id, "fd", fd))
	if link.MacVTap {
		b.hand("-netdev", option("tap", "id", id, "fd", fd))
		b.cmd.redir = append(b.cmd.redir, fmt.Sprintf("%s<>/dev/tap%d", fd, link.Index))
		return
	}
	b.hand("-netdev", option("tap", "id", id, "ifname", link.Name, "script", "no", "downscript", "no"))
	if link.NetNS != "" {
		b.cmd.wrap = []string{"nsenter", "--net=" + link.NetNS}
	}
}
