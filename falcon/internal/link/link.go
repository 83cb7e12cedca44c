// Package link turns the links of a topology into something that carries
// frames: devices of the Linux kernel in a network namespace of the
// topology's own ([Kernel]), or Unix sockets between two QEMU processes where
// there is no privilege ([Sockets]).
//
// A [Cable] has two ends and passes every frame unchanged: LLDP, LACP, STP,
// 802.1X, PAUSE, VLAN tags and jumbo frames included, which is why no bridge
// is involved. Nothing on the host speaks on it. An [External] connects a
// guest to an interface of the host.
//
// The caller decides all names and addresses; this package applies them,
// leaves alone what already stands, and takes away what it made.
package link

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"unicode"
)

// Limits that the kernel sets on names and sizes.
const (
	// MaxDevice is the longest kernel device name in bytes (IFNAMSIZ less
	// its terminating zero).
	MaxDevice = 15
	// MaxName is the longest alternative name in bytes (ALTIFNAMSIZ less
	// its terminating zero).
	MaxName = 127
	// DefaultMTU is the largest payload in bytes that a cable with no MTU of
	// its own is made for.
	DefaultMTU = 9216
	// MinMTU is the smallest MTU in bytes that IPv4 works with (RFC 791).
	MinMTU = 68
	// MaxMTU is the largest MTU in bytes of a cable. The kernel's limit for
	// a tap is 65521.
	MaxMTU = 65000
)

// TagRoom is added to a cable's MTU for its devices, so that a payload of the
// full MTU passes with VLAN tags (4 bytes each), MPLS labels (4 each) or a
// MACsec header (32) in front of it.
const TagRoom = 64

// EndKind says what is plugged into an end of a cable.
type EndKind int

const (
	// VM is a virtual machine: the end is a tap, which QEMU opens.
	VM EndKind = iota
	// Host is a program or the kernel of the host (a SoftNPU port, a
	// capture): the end is one side of a veth pair. As on any veth, what a
	// guest sends can arrive with its checksum not yet filled in and as a
	// segment of up to 64 KiB; a packet socket with PACKET_VNET_HDR is told
	// so, and one with PACKET_AUXDATA gets the outer VLAN tag.
	Host
)

// String returns "vm" or "host".
func (k EndKind) String() string {
	if k == Host {
		return "host"
	}
	return "vm"
}

// End is one end of a cable.
type End struct {
	// Name is the full name (duo_violin_vn_vnic0), which the device carries
	// as its alternative name, at most MaxName bytes.
	Name string
	// Device is the kernel's name, at most MaxDevice bytes; one less for a
	// Host end that is joined to a VM, see [Cable.Devices].
	Device string
	// MAC is the address of the device. For a VM end it is the guest's own:
	// the propolis server takes the guest's address from the device.
	MAC net.HardwareAddr
	// Kind is what is plugged in.
	Kind EndKind
}

// Cable is a link between two ends.
type Cable struct {
	A, B End
	// MTU is the largest payload in bytes, 0 for DefaultMTU.
	MTU int
}

// Devices returns the kernel names of all devices that the cable is made of.
// A Host end joined to a VM has a second one, named as the end with "~"
// appended: the inner side of its veth pair, which is joined to the tap.
func (c Cable) Devices() []string {
	names := []string{c.A.Device, c.B.Device}
	if c.A.Kind == Host && c.B.Kind == Host {
		return names
	}
	for _, e := range []End{c.A, c.B} {
		if e.Kind == Host {
			names = append(names, innerDevice(e))
		}
	}
	return names
}

// String names the cable by its ends.
func (c Cable) String() string { return c.A.Name + " - " + c.B.Name }

// deviceMTU is the MTU in bytes given to the cable's devices.
func (c Cable) deviceMTU() int {
	if c.MTU == 0 {
		return DefaultMTU + TagRoom
	}
	return c.MTU + TagRoom
}

func innerDevice(e End) string { return e.Device + "~" }

// External is a guest's interface on an interface of the host.
type External struct {
	// Name is the full name, which the device carries as its alternative
	// name.
	Name string
	// Device is the kernel's name; it must be unique on the host.
	Device string
	// MAC is the guest's address.
	MAC net.HardwareAddr
	// Host is the host's interface.
	Host string
	// Exclusive gives the guest the interface for itself. While it lasts,
	// Host has the guest's MAC and the host cannot use it.
	Exclusive bool
}

// validate reports everything about the cables and externals that the kernel
// would refuse, or accept and mean something else by.
func validate(cables []Cable, externals []External) error {
	seen := names{}
	var errs []error
	for _, c := range cables {
		err := errors.Join(c.validate(), seen.add(c.A.Name), seen.add(c.B.Name))
		for _, d := range c.Devices() {
			err = errors.Join(err, checkName(d, MaxDevice), seen.add(d))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("link %s: %w", c, err))
		}
	}
	for _, x := range externals {
		err := errors.Join(checkName(x.Name, MaxName), checkName(x.Device, MaxDevice),
			checkName(x.Host, MaxDevice), checkMAC(x.MAC), seen.add(x.Name), seen.add(x.Device))
		if err != nil {
			errs = append(errs, fmt.Errorf("external link %s: %w", x.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (c Cable) validate() error {
	err := errors.Join(checkName(c.A.Name, MaxName), checkName(c.B.Name, MaxName),
		checkMAC(c.A.MAC), checkMAC(c.B.MAC))
	if c.MTU != 0 && (c.MTU < MinMTU || c.MTU > MaxMTU) {
		err = errors.Join(err, fmt.Errorf("MTU %d is not within %d to %d", c.MTU, MinMTU, MaxMTU))
	}
	return err
}

// names holds each name once: the kernel looks devices up by kernel name and
// alternative name alike.
type names map[string]bool

func (n names) add(name string) error {
	if n[name] {
		return fmt.Errorf("the name %q is used twice", name)
	}
	n[name] = true
	return nil
}

// checkName applies the kernel's rules for device names, and refuses '%',
// which makes the kernel choose a number in its place.
func checkName(name string, most int) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("%q is not a device name", name)
	case len(name) > most:
		return fmt.Errorf("the name %q has %d bytes, more than %d", name, len(name), most)
	case strings.ContainsAny(name, "/:%") || strings.ContainsFunc(name, unfitForName):
		return fmt.Errorf("the name %q has a character that a device name cannot have", name)
	}
	return nil
}

func unfitForName(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }

func checkMAC(mac net.HardwareAddr) error {
	if len(mac) != 6 {
		return fmt.Errorf("the MAC %q has %d bytes, not 6", mac, len(mac))
	}
	if mac[0]&1 != 0 {
		return fmt.Errorf("the MAC %s is a multicast address", mac)
	}
	if [6]byte(mac) == [6]byte{} {
		return errors.New("the MAC is all zero")
	}
	return nil
}
