package sim

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// nic is a network interface of a guest with as much of IPv4 as ping needs.
type nic struct {
	links *links
	// device is the host's name for it, peer that of the other end's; empty
	// where nobody is at the other end.
	device, peer string

	mu      sync.Mutex
	name    string
	mac     net.HardwareAddr
	mtu     int
	maxMTU  int
	up      bool
	addrs   []netip.Prefix
	arp     map[netip.Addr]net.HardwareAddr
	heard   chan struct{} // closed and renewed with each frame that tells something
	replies map[echo]bool
	tap     func(frame []byte) // sees what comes; nil for nobody

	rxFrames, rxBytes, txFrames, txBytes uint64
}

// echo is an echo request of ICMP by what answers carry.
type echo struct{ id, seq uint16 }

// maxMTU is the largest MTU of a link, as package falcon has it.
const maxMTU = 9216

func newNIC(l *links, name string, mac net.HardwareAddr, mtu int) *nic {
	n := &nic{
		links: l, name: name, mac: mac, mtu: 1500, maxMTU: maxMTU,
		arp: make(map[netip.Addr]net.HardwareAddr), heard: make(chan struct{}), replies: make(map[echo]bool),
	}
	if mtu != 0 { // announced by the host: it cannot be exceeded
		n.mtu, n.maxMTU = mtu, mtu
	}
	return n
}

const (
	etherHeader  = 14
	etherIPv4    = 0x0800
	etherARP     = 0x0806
	protocolICMP = 1
	echoReply    = 0
	echoRequest  = 8
)

var broadcast = net.HardwareAddr{255, 255, 255, 255, 255, 255}

// send sends a frame as it is.
func (n *nic) send(frame []byte) {
	n.mu.Lock()
	if !n.up {
		n.mu.Unlock()
		return
	}
	n.txFrames++
	n.txBytes += uint64(len(frame))
	n.mu.Unlock()
	if n.device != "" {
		n.links.send(n.device, frame)
	}
}

// receive takes a frame from the cable.
func (n *nic) receive(frame []byte) {
	n.mu.Lock()
	if !n.up {
		n.mu.Unlock()
		return
	}
	n.rxFrames++
	n.rxBytes += uint64(len(frame))
	if n.tap != nil {
		n.tap(frame)
	}
	var reply []byte
	if len(frame) >= etherHeader && (bytes.Equal(frame[:6], n.mac) || bytes.Equal(frame[:6], broadcast)) {
		switch binary.BigEndian.Uint16(frame[12:]) {
		case etherARP:
			reply = n.receiveARP(frame[etherHeader:])
		case etherIPv4:
			reply = n.receiveIPv4(frame)
		}
	}
	n.mu.Unlock()
	if reply != nil {
		n.send(reply)
	}
}

// own reports whether an address is the interface's. The caller holds mu.
func (n *nic) own(a netip.Addr) bool {
	return slices.ContainsFunc(n.addrs, func(p netip.Prefix) bool { return p.Addr() == a })
}

// tell wakes those who wait for frames. The caller holds mu.
func (n *nic) tell() {
	close(n.heard)
	n.heard = make(chan struct{})
}

func ether(to, from net.HardwareAddr, kind uint16, payload []byte) []byte {
	f := make([]byte, 0, etherHeader+len(payload))
	f = append(append(f, to...), from...)
	f = binary.BigEndian.AppendUint16(f, kind)
	return append(f, payload...)
}

func arpPacket(op uint16, mac net.HardwareAddr, ip netip.Addr, toMAC net.HardwareAddr, to netip.Addr) []byte {
	p := []byte{0, 1, 8, 0, 6, 4}
	p = binary.BigEndian.AppendUint16(p, op)
	p = append(append(p, mac...), ip.AsSlice()...)
	return append(append(p, toMAC...), to.AsSlice()...)
}

func (n *nic) receiveARP(p []byte) []byte {
	if len(p) < 28 || !bytes.Equal(p[:6], []byte{0, 1, 8, 0, 6, 4}) {
		return nil
	}
	sender, _ := netip.AddrFromSlice(p[14:18])
	target, _ := netip.AddrFromSlice(p[24:28])
	mac := net.HardwareAddr(bytes.Clone(p[8:14]))
	if !n.own(target) {
		return nil
	}
	n.arp[sender] = mac
	n.tell()
	if binary.BigEndian.Uint16(p[6:]) != 1 {
		return nil
	}
	return ether(mac, n.mac, etherARP, arpPacket(2, n.mac, target, mac, sender))
}

func (n *nic) receiveIPv4(frame []byte) []byte {
	p := frame[etherHeader:]
	if len(p) < 20 || p[0]>>4 != 4 {
		return nil
	}
	header, total := int(p[0]&15)*4, int(binary.BigEndian.Uint16(p[2:]))
	if header < 20 || total < header+8 || total > len(p) || p[9] != protocolICMP {
		return nil
	}
	from, _ := netip.AddrFromSlice(p[12:16])
	to, _ := netip.AddrFromSlice(p[16:20])
	icmp := p[header:total]
	if !n.own(to) || checksum(icmp) != 0 {
		return nil
	}
	switch icmp[0] {
	case echoRequest:
		answer := bytes.Clone(icmp)
		answer[0] = echoReply
		return ether(net.HardwareAddr(bytes.Clone(frame[6:12])), n.mac, etherIPv4, ipv4(to, from, sumICMP(answer)))
	case echoReply:
		n.replies[echo{binary.BigEndian.Uint16(icmp[4:]), binary.BigEndian.Uint16(icmp[6:])}] = true
		n.tell()
	}
	return nil
}

// sumICMP sets the checksum of a message.
func sumICMP(p []byte) []byte {
	p[2], p[3] = 0, 0
	binary.BigEndian.PutUint16(p[2:], checksum(p))
	return p
}

// ipv4 puts a header before an ICMP message.
func ipv4(from, to netip.Addr, icmp []byte) []byte {
	h := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocolICMP, 0, 0}
	h = append(append(h, from.AsSlice()...), to.AsSlice()...)
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(icmp)))
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return append(h, icmp...)
}

// checksum is that of the Internet protocols; 0 over data with its checksum.
func checksum(p []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(p); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	if len(p)%2 == 1 {
		sum += uint32(p[len(p)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

var (
	errUnreachable = errors.New("destination host unreachable")
	errNoAnswer    = errors.New("no answer")
)

// source returns the interface's address in the network of to.
func (n *nic) source(to netip.Addr) (netip.Addr, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.addrs {
		if n.up && p.Addr().Is4() && p.Contains(to) {
			return p.Addr(), true
		}
	}
	return netip.Addr{}, false
}

// ping sends an echo request and waits for the answer until ctx ends.
func (n *nic) ping(ctx context.Context, to netip.Addr, e echo, size int) (time.Duration, error) {
	from, ok := n.source(to)
	if !ok {
		return 0, errUnreachable
	}
	begun := time.Now()
	if from == to {
		return time.Since(begun), nil
	}
	mac, err := n.resolve(ctx, from, to)
	if err != nil {
		return 0, err
	}
	icmp := binary.BigEndian.AppendUint16([]byte{echoRequest, 0, 0, 0}, e.id)
	icmp = binary.BigEndian.AppendUint16(icmp, e.seq)
	icmp = append(icmp, make([]byte, size)...)
	packet := ipv4(from, to, sumICMP(icmp))
	n.mu.Lock()
	mtu := n.mtu
	n.mu.Unlock()
	if len(packet) > mtu {
		return 0, fmt.Errorf("message too long, mtu=%d", mtu)
	}
	n.send(ether(mac, n.mac, etherIPv4, packet))
	answered := n.await(ctx, func() bool { return n.replies[e] })
	n.mu.Lock()
	delete(n.replies, e)
	n.mu.Unlock()
	if !answered {
		return 0, errNoAnswer
	}
	return time.Since(begun), nil
}

// resolve returns the link address of a neighbour.
func (n *nic) resolve(ctx context.Context, from, to netip.Addr) (net.HardwareAddr, error) {
	n.mu.Lock()
	mac := n.arp[to]
	n.mu.Unlock()
	if mac != nil {
		return mac, nil
	}
	n.send(ether(broadcast, n.mac, etherARP, arpPacket(1, n.mac, from, make(net.HardwareAddr, 6), to)))
	if !n.await(ctx, func() bool { mac = n.arp[to]; return mac != nil }) {
		return nil, errUnreachable
	}
	return mac, nil
}

// await waits until a condition holds, which it looks at with mu held.
func (n *nic) await(ctx context.Context, holds func() bool) bool {
	for {
		n.mu.Lock()
		ok, heard := holds(), n.heard
		n.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-heard:
		case <-ctx.Done():
			return false
		}
	}
}
