package link

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// VNICKind is what a [VNICName] leads to.
type VNICKind string

// The kinds of a VNICName, as they stand before the colon.
const (
	// VNICDevice is a kernel device in the topology's namespace.
	VNICDevice VNICKind = ""
	// VNICHost is a kernel device in the host's namespace: a macvtap.
	VNICHost VNICKind = "host"
	// VNICSocket is a pair of Unix datagram sockets.
	VNICSocket VNICKind = "dgram"
	// VNICUser is QEMU's own NAT.
	VNICUser VNICKind = "user"
	// VNICSidecar is one of several NICs that share a cable on which frames
	// have a sidecar header: a kernel device, or sockets with a Peer.
	VNICSidecar VNICKind = "sidecar"
)

// VNICName is the vnic_name of a network backend in a Propolis instance spec.
// A plain name is what any Propolis understands; the rest is an extension of
// our own server for Linux:
//
//	NAME[?mtu=N]                           kernel device
//	host:NAME[?mtu=N]                      kernel device of the host
//	dgram:LOCAL?peer=PEER&mac=MAC[&mtu=N]  Unix sockets
//	user:?mac=MAC[&mtu=N]                  QEMU's own NAT
//	sidecar:NAME?port=N&header=N&mac=MAC[&peer=PEER][&mtu=N]
//
// LOCAL stands as it is; the values after the question mark are encoded as
// in the query of a URL.
type VNICName struct {
	Kind VNICKind
	// Name is the device, or the file name of the own socket.
	Name string
	// Peer is the file name of the other end's socket.
	Peer string
	// MAC is the guest's address. Kernel devices do not need it: it is
	// theirs.
	MAC string
	// MTU in bytes is announced to the guest; 0 leaves the guest's alone.
	MTU int
	// Port is the number of the NIC among those that share a cable, and Header
	// the length of the header there in bytes.
	Port, Header int
}

// KernelVNIC returns the vnic_name of a cable's end.
func KernelVNIC(device string, mtu int) string {
	return VNICName{Kind: VNICDevice, Name: device, MTU: mtu}.String()
}

// HostVNIC returns the vnic_name of an external link.
func HostVNIC(device string, mtu int) string {
	return VNICName{Kind: VNICHost, Name: device, MTU: mtu}.String()
}

// SocketVNIC returns the vnic_name of the end of a cable between two socket
// files.
func SocketVNIC(local, peer, mac string, mtu int) string {
	return VNICName{Kind: VNICSocket, Name: local, Peer: peer, MAC: mac, MTU: mtu}.String()
}

// UserVNIC returns the vnic_name of an interface behind QEMU's own NAT.
func UserVNIC(mac string, mtu int) string {
	return VNICName{Kind: VNICUser, MAC: mac, MTU: mtu}.String()
}

// Sidecar returns the vnic_name of a NIC that shares what this one is plugged
// into.
func (v VNICName) Sidecar(port, header int, mac string) VNICName {
	v.Kind, v.Port, v.Header, v.MAC = VNICSidecar, port, header, mac
	return v
}

// String returns the name as it stands in a spec.
func (v VNICName) String() string {
	var b, query strings.Builder
	if v.Kind != VNICDevice {
		b.WriteString(string(v.Kind) + ":")
	}
	b.WriteString(v.Name)
	option := func(key, value string) {
		query.WriteString("&" + key + "=" + value)
	}
	if v.Peer != "" {
		option("peer", url.QueryEscape(v.Peer))
	}
	if v.Kind == VNICSidecar {
		option("port", strconv.Itoa(v.Port))
		option("header", strconv.Itoa(v.Header))
	}
	if v.MAC != "" {
		option("mac", v.MAC)
	}
	if v.MTU != 0 {
		option("mtu", strconv.Itoa(v.MTU))
	}
	if query.Len() > 0 {
		b.WriteString("?" + query.String()[1:])
	}
	return b.String()
}

// ParseVNICName is the inverse of String.
func ParseVNICName(s string) (VNICName, error) {
	name, query, _ := strings.Cut(s, "?")
	v := VNICName{Name: name}
	options, err := url.ParseQuery(query)
	if kind, rest, ok := strings.Cut(name, ":"); ok {
		v.Kind, v.Name = VNICKind(kind), rest
		if kind == "" {
			err = errors.Join(err, errors.New("there is no kind before the colon"))
		}
	}
	for key, values := range options {
		err = errors.Join(err, v.set(key, values[len(values)-1]))
	}
	if err = errors.Join(err, v.check()); err != nil {
		return VNICName{}, fmt.Errorf("vnic name %q: %w", s, err)
	}
	return v, nil
}

func (v *VNICName) set(key, value string) (err error) {
	switch key {
	case "peer":
		v.Peer = value
	case "mac":
		var mac net.HardwareAddr
		if mac, err = net.ParseMAC(value); err == nil {
			v.MAC, err = mac.String(), checkMAC(mac)
		}
	case "mtu":
		v.MTU, err = strconv.Atoi(value)
		if err == nil && (v.MTU < MinMTU || v.MTU > MaxMTU) {
			err = fmt.Errorf("MTU %d is not within %d to %d", v.MTU, MinMTU, MaxMTU)
		}
	case "port":
		v.Port, err = strconv.Atoi(value)
	case "header":
		v.Header, err = strconv.Atoi(value)
	default:
		err = fmt.Errorf("the option %q is unknown", key)
	}
	return err
}

// check reports what the kind needs and does not have, or has and does not
// know.
func (v *VNICName) check() error {
	var named, peer, mac bool // what the kind needs
	switch v.Kind {
	case VNICDevice, VNICHost:
		named, mac = true, v.MAC != "" // a MAC of one's own is allowed
	case VNICSocket:
		named, peer, mac = true, true, true
	case VNICUser:
		mac = true
	case VNICSidecar:
		named, peer, mac = true, v.Peer != "", true
	default:
		return fmt.Errorf("the kind %q is unknown", v.Kind)
	}
	if shares := v.Kind == VNICSidecar; v.Port < 0 || v.Header < 0 || shares != (v.Header != 0) || !shares && v.Port != 0 {
		return fmt.Errorf("port %d and header %d: only the kind %q has them", v.Port, v.Header, VNICSidecar)
	}
	if named != (v.Name != "") || peer != (v.Peer != "") || mac != (v.MAC != "") {
		return fmt.Errorf("the kind %q is KIND:NAME?peer=PEER&mac=MAC with name %v, peer %v, MAC %v", v.Kind, named, peer, mac)
	}
	return nil
}
