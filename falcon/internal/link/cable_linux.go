package link

import (
	"os"

	"golang.org/x/sys/unix"
)

// tapFlags are those of every tap. The propolis server attaches to the tap
// with the same ones. The virtio-net header lets segmentation and checksum
// offload pass from guest to guest, which is worth a factor of two to three
// in throughput.
const tapFlags = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR

// cableMaker makes cables on a thread inside the namespace.
type cableMaker struct {
	*rtnl
	// standing are the devices that stood before, by kernel name.
	standing map[string]device
	// made is told the name of each device that was made.
	made func(device string)
	mode Redirect
}

// ensure makes the cable, or what is missing of it.
func (m *cableMaker) ensure(c Cable) error {
	if c.A.Kind == Host && c.B.Kind == Host {
		a, b, err := m.ensureVeth(c.A.Device, c.B.Device)
		if err != nil {
			return err
		}
		if err := m.settleHostEnd(a, c.A, c.deviceMTU()); err != nil {
			return err
		}
		return m.settleHostEnd(b, c.B, c.deviceMTU())
	}
	a, err := m.ensureEnd(c.A, c.deviceMTU())
	if err != nil {
		return err
	}
	b, err := m.ensureEnd(c.B, c.deviceMTU())
	if err != nil {
		return err
	}
	if err := m.join(a, b, m.mode); err != nil {
		return opError("join", c.A.Device+" and "+c.B.Device, err, "")
	}
	return nil
}

// ensureEnd makes one end and returns the index of the device to join: the
// tap, or the inner side of a host end's veth pair.
func (m *cableMaker) ensureEnd(e End, mtu int) (int, error) {
	if e.Kind == VM {
		return m.ensureTap(e, mtu)
	}
	outer, inner, err := m.ensureVeth(e.Device, innerDevice(e))
	if err != nil {
		return 0, err
	}
	if err := m.settle(inner, settings{mtu: mtu, noARP: true, group: deviceGroup}); err != nil {
		return 0, opError("set up veth", inner.Name, err, "")
	}
	return inner.Index, m.settleHostEnd(outer, e, mtu)
}

func (m *cableMaker) settleHostEnd(d device, e End, mtu int) error {
	err := m.settle(d, settings{mac: e.MAC, mtu: mtu, altName: e.Name, group: deviceGroup})
	return opError("set up veth", d.Name, err, "")
}

func (m *cableMaker) ensureTap(e End, mtu int) (int, error) {
	d, stands := m.standing[e.Device]
	if stands && (d.kind != kindTap || d.tapFlags != tapFlags|unix.IFF_PERSIST) {
		if err := m.remove(d.Index); err != nil {
			return 0, opError("remove wrong device", e.Device, err, "")
		}
		stands = false
	}
	if !stands {
		if err := m.addTap(e.Device); err != nil {
			return 0, opError("create tap", e.Device, err, "")
		}
		m.made(e.Device)
		var err error
		if d, err = m.byName(e.Device); err != nil {
			return 0, opError("find the new tap", e.Device, err, "")
		}
	}
	err := m.settle(d, settings{mac: e.MAC, mtu: mtu, altName: e.Name, noARP: true, group: deviceGroup})
	return d.Index, opError("set up tap", e.Device, err, "")
}

func (m *cableMaker) addTap(name string) error {
	tap, err := openTap(name, tapFlags|unix.IFF_TUN_EXCL)
	if err != nil {
		return err
	}
	defer func() { _ = tap.Close() }()
	return os.NewSyscallError("TUNSETPERSIST", unix.IoctlSetInt(int(tap.Fd()), unix.TUNSETPERSIST, 1))
}

// openTap opens the tap of that name in the thread's namespace, and creates
// it when there is none. Unless it is made persistent, a tap that was created
// goes when it is closed.
func openTap(name string, flags uint16) (*os.File, error) {
	const control = "/dev/net/tun"
	// Not os.Open: the runtime would poll the descriptor before it has a tap.
	fd, err := unix.Open(control, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: control, Err: err}
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(flags)
		err = os.NewSyscallError("TUNSETIFF", unix.IoctlIfreq(fd, unix.TUNSETIFF, req))
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), control), nil
}

// ensureVeth makes a veth pair with these two names in the namespace.
func (m *cableMaker) ensureVeth(name, peer string) (a, b device, err error) {
	a, aStands := m.standing[name]
	b, bStands := m.standing[peer]
	if aStands && bStands && a.kind == kindVeth && b.kind == kindVeth && a.parent == b.Index {
		return a, b, nil
	}
	for _, d := range []device{a, b} {
		if d.Index == 0 {
			continue
		}
		if err := m.remove(d.Index); err != nil {
			return a, b, opError("remove wrong device", d.Name, err, "")
		}
	}
	if err := m.addVeth(name, peer); err != nil {
		return a, b, opError("create veth pair", name+" and "+peer, err, "")
	}
	m.made(name) // removing one removes both
	a, err = m.byName(name)
	if err == nil {
		b, err = m.byName(peer)
	}
	return a, b, opError("find the new veth pair", name+" and "+peer, err, "")
}
