package link

import "net"

// Redirect is a means to send every frame that enters one device out of
// another.
type Redirect int

const (
	// Auto takes BPF where the kernel has it, else Mirred; which, is
	// found by trying.
	Auto Redirect = iota
	// BPF is an eBPF program on the device's ingress (Linux 4.5).
	BPF
	// Mirred is a u32 filter with the mirred action there (any Linux).
	Mirred
)

// String returns "auto", "bpf" or "mirred".
func (r Redirect) String() string {
	switch r {
	case BPF:
		return "bpf"
	case Mirred:
		return "mirred"
	}
	return "auto"
}

// Kernel makes cables of kernel devices inside one named network namespace,
// which `ip netns` lists, and external links as macvtaps in the namespace of
// this process. Its methods need root.
type Kernel struct {
	// Namespace is the name of the namespace; it starts with
	// NamespacePrefix.
	Namespace string
	// Redirect is how taps are joined.
	Redirect Redirect
}

// Counters count the frames that one direction of a device has carried.
type Counters struct {
	Bytes, Packets, Drops uint64
}

// Device is the state of a kernel device.
type Device struct {
	Index int
	// Name is the kernel's name.
	Name string
	MAC  net.HardwareAddr
	// MTU is the device's own, in bytes: a cable's MTU and room for tags.
	MTU int
	// Up is the administrative state; Carrier tells whether a tap is opened
	// by a VM.
	Up, Carrier bool
	// Rx is what the host received, so for a tap what the guest sent; Tx is
	// the other direction.
	Rx, Tx Counters
}

// Interface is a network interface of the host, as a candidate for an
// external link.
type Interface struct {
	Device
	// Master is the bridge or bond that the interface belongs to, or empty.
	Master string
	// Addresses are the IP addresses that the host has on the interface.
	Addresses []string
	// DefaultRoute tells that the host's default route leads over it. Given
	// away exclusively, the host is off the network.
	DefaultRoute bool
	// Macvtaps are the macvlan and macvtap devices that stand on it, by
	// kernel name.
	Macvtaps []string
	// Passthru tells that one of them has the interface for itself.
	Passthru bool
}

// Capabilities tells what this process can do on this host. Each field is nil
// where it can, else the reason why not.
type Capabilities struct {
	Namespace error // make network namespaces
	Tap       error // make taps
	BPF       error // join taps by an eBPF program
	Mirred    error // join taps by u32 and mirred
	Veth      error // make veth pairs
	Macvtap   error // make macvtaps
}
