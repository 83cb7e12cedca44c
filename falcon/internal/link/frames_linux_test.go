package link

import (
	"bytes"
	"net"
	"testing"
	"time"
)

// frames are those that the experiments sent: what bridges keep to
// themselves, tags and sizes.
func frames() map[string][]byte {
	frame := func(dst string, size int, after ...byte) []byte {
		mac, err := net.ParseMAC(dst)
		if err != nil {
			panic(err)
		}
		f := append(append(mac, 0x02, 0xfa, 0x1c, 0xff, 0, 1), after...)
		for i := len(f); i < size; i++ {
			f = append(f, byte(i*7))
		}
		return f
	}
	const guest = "02:fa:1c:ff:00:02"
	return map[string][]byte{
		"STP":                         frame("01:80:c2:00:00:00", 60, 0, 38, 0x42, 0x42, 3),
		"PAUSE":                       frame("01:80:c2:00:00:01", 60, 0x88, 0x08, 0, 1, 0xff, 0xff),
		"LACP":                        frame("01:80:c2:00:00:02", 124, 0x88, 0x09, 1, 1),
		"802.1X":                      frame("01:80:c2:00:00:03", 60, 0x88, 0x8e, 2, 1),
		"LLDP":                        frame("01:80:c2:00:00:0e", 80, 0x88, 0xcc, 2, 7),
		"ARP broadcast":               frame("ff:ff:ff:ff:ff:ff", 60, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1),
		"IPv6 multicast":              frame("33:33:00:00:00:01", 90, 0x86, 0xdd, 0x60, 0, 0, 0),
		"IPv6 neighbour solicitation": frame("33:33:ff:12:34:56", 90, 0x86, 0xdd, 0x60, 0, 0, 0),
		"802.1Q":                      frame(guest, 64, 0x81, 0x00, 0x00, 0x64, 0x08, 0x00),
		"802.1Q priority":             frame(guest, 64, 0x81, 0x00, 0xe0, 0x00, 0x08, 0x00),
		"QinQ":                        frame(guest, 68, 0x88, 0xa8, 0x00, 0x0a, 0x81, 0x00, 0x00, 0x14, 0x08, 0x00),
		"MPLS":                        frame(guest, 64, 0x88, 0x47, 0, 1, 0x01, 0x40),
		"unknown ethertype":           frame(guest, 60, 0x88, 0xb5, 1, 2, 3),
		"shortest":                    frame(guest, 14, 0x88, 0xb5),
		"1514":                        frame(guest, 1514, 0x08, 0x00),
		"tagged 1518":                 frame(guest, 1518, 0x81, 0x00, 0x00, 0x64, 0x08, 0x00),
		"9014":                        frame(guest, 9014, 0x08, 0x00),
		"9230":                        frame(guest, 9230, 0x08, 0x00),
		"QinQ 9238":                   frame(guest, 9238, 0x88, 0xa8, 0x00, 0x0a, 0x81, 0x00, 0x00, 0x14, 0x08, 0x00),
	}
}

func TestCablePassesEveryFrameUnchanged(t *testing.T) {
	for _, mode := range []Redirect{BPF, Mirred, Auto} {
		t.Run(mode.String(), func(t *testing.T) {
			k, c := newKernel(t, mode), testCable(0)
			create(t, k, c)
			passAll(t, plug(t, k, c.A.Device), plug(t, k, c.B.Device))
		})
		t.Run(mode.String()+" to a host end", func(t *testing.T) {
			k, c := newKernel(t, mode), testCable(0)
			c.B.Kind = Host
			create(t, k, c)
			passAll(t, plug(t, k, c.A.Device), listen(t, k.Path(), c.B.Device))
		})
	}
	t.Run("between host ends", func(t *testing.T) {
		k, c := newKernel(t, Auto), testCable(0)
		c.A.Kind, c.B.Kind = Host, Host
		create(t, k, c)
		passAll(t, listen(t, k.Path(), c.A.Device), listen(t, k.Path(), c.B.Device))
	})
}

func TestCableWithMTUPassesThatSizeDoublyTagged(t *testing.T) {
	k, c := newKernel(t, Auto), testCable(0)
	c.B.Kind, c.MTU = Host, 1500
	create(t, k, c)
	frame := frames()["QinQ 9238"][:1500+14+8]
	a, b := plug(t, k, c.A.Device), listen(t, k.Path(), c.B.Device)
	passes(t, a, b, frame)
	passes(t, b, a, frame)
}

func passAll(t *testing.T, a, b port) {
	for name, frame := range frames() {
		t.Run(name, func(t *testing.T) {
			passes(t, a, b, frame)
			passes(t, b, a, frame)
		})
	}
}

func passes(t *testing.T, from, to port, frame []byte) {
	t.Helper()
	from.send(frame)
	got := to.receive(time.Second)
	if got == nil {
		t.Fatalf("frame of %d bytes did not arrive", len(frame))
	}
	if !bytes.Equal(got, frame) {
		t.Fatalf("frame changed on the way:\nsent %d bytes %x\ngot  %d bytes %x",
			len(frame), frame[:min(24, len(frame))], len(got), got[:min(24, len(got))])
	}
}

func TestNothingOnTheHostSpeaksOnACable(t *testing.T) {
	k := newKernel(t, Auto)
	vms, mixed, hosts := testCable(0), testCable(1), testCable(2)
	mixed.B.Kind, hosts.A.Kind, hosts.B.Kind = Host, Host, Host
	create(t, k, vms, mixed, hosts)
	ports := map[string]port{
		"tap":          plug(t, k, vms.A.Device),
		"other tap":    plug(t, k, vms.B.Device),
		"tap to host":  plug(t, k, mixed.A.Device),
		"host end":     listen(t, k.Path(), mixed.B.Device),
		"veth":         listen(t, k.Path(), hosts.A.Device),
		"veth's other": listen(t, k.Path(), hosts.B.Device),
	}
	// A tap gets its carrier when it is opened, and only then would the
	// kernel begin to speak on it; it repeats itself for some seconds.
	deadline := time.Now().Add(2 * time.Second)
	for name, p := range ports {
		if frame := p.receive(max(0, time.Until(deadline))); frame != nil {
			t.Errorf("%s: unasked frame %x", name, frame)
		}
	}
	// and the listeners do hear
	passes(t, ports["tap"], ports["other tap"], frames()["LLDP"])
}
