package softnpu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/bits"
)

// Offload is what the sender of a frame leaves to be done: a checksum that is
// still to be written, and segments that are still to be cut. It is the header
// that the kernel and QEMU exchange before a frame (virtio 1.1, 5.1.6).
type Offload struct {
	// NeedsChecksum says that the checksum of what begins at ChecksumStart is
	// to be written ChecksumOffset bytes behind that, where the sum of the
	// pseudo-header is now.
	NeedsChecksum                 bool
	ChecksumStart, ChecksumOffset uint16
	// Segments says what the frame is to be cut into.
	Segments SegmentKind
	// SegmentSize is the payload of a segment in bytes.
	SegmentSize uint16
	// HeaderLength is the length of what comes before the payload.
	HeaderLength uint16
	// ECN says that only the first segment is to have the TCP flag CWR.
	ECN bool
}

// SegmentKind says how a frame is cut into segments.
type SegmentKind uint8

// Kinds of segments, as in a virtio-net header.
const (
	SegmentNone SegmentKind = 0
	SegmentTCP4 SegmentKind = 1
	// SegmentUDPFragments cuts a UDP datagram into IP fragments.
	SegmentUDPFragments SegmentKind = 3
	SegmentTCP6         SegmentKind = 4
	SegmentUDP          SegmentKind = 5

	segmentECN = 0x80
)

// vnetHeaderSize is the length of a virtio-net header as taps and packet
// sockets have it.
const vnetHeaderSize = 10

// Flags of a virtio-net header.
const vnetNeedsChecksum = 1

// The header is in the byte order of the machine.
func (o *Offload) read(b *[vnetHeaderSize]byte) {
	word := func(at int) uint16 { return binary.NativeEndian.Uint16(b[at:]) }
	*o = Offload{NeedsChecksum: b[0]&vnetNeedsChecksum != 0,
		Segments: SegmentKind(b[1] &^ segmentECN), ECN: b[1]&segmentECN != 0,
		HeaderLength: word(2), SegmentSize: word(4), ChecksumStart: word(6), ChecksumOffset: word(8)}
	if !o.NeedsChecksum {
		o.ChecksumStart, o.ChecksumOffset = 0, 0
	}
}

func (o *Offload) write(b *[vnetHeaderSize]byte) {
	*b = [vnetHeaderSize]byte{}
	if o.NeedsChecksum {
		b[0] = vnetNeedsChecksum
	}
	b[1] = byte(o.Segments)
	if o.ECN {
		b[1] |= segmentECN
	}
	binary.NativeEndian.PutUint16(b[2:], o.HeaderLength)
	binary.NativeEndian.PutUint16(b[4:], o.SegmentSize)
	binary.NativeEndian.PutUint16(b[6:], o.ChecksumStart)
	binary.NativeEndian.PutUint16(b[8:], o.ChecksumOffset)
}

// errOffload is work that was left and cannot be done.
var errOffload = errors.New("the frame's offload makes no sense")

// complete writes the checksum that a frame lacks. A frame that is to be cut
// keeps its work.
func (f *Frame) complete() error {
	o := &f.Offload
	if o.Segments != SegmentNone || !o.NeedsChecksum {
		return nil
	}
	start, at := int(o.ChecksumStart), int(o.ChecksumStart)+int(o.ChecksumOffset)
	if at+2 > len(f.Data) || start < 14 {
		return errOffload
	}
	binary.BigEndian.PutUint16(f.Data[at:], notZero(^fold(sum(f.Data[start:]))))
	*o = Offload{}
	return nil
}

// notZero returns a checksum as UDP writes it, where zero means that there is
// none. For TCP both forms of zero are right.
func notZero(c uint16) uint16 {
	if c == 0 {
		return 0xffff
	}
	return c
}

// sum returns the ones' complement sum of 16-bit words, not folded; some of them
// can be added up.
func sum(b []byte) uint64 {
	var s, carry uint64
	for len(b) >= 8 {
		s, carry = bits.Add64(s, binary.BigEndian.Uint64(b), carry)
		b = b[8:]
	}
	var last [8]byte
	copy(last[:], b)
	s, carry = bits.Add64(s, binary.BigEndian.Uint64(last[:]), carry)
	return s>>32 + s&(1<<32-1) + carry
}

func fold(s uint64) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// Where things are in the headers of IP, TCP and UDP.
const (
	etherIPv4, etherIPv6       = 0x0800, 0x86dd
	etherVLAN, etherServiceTag = 0x8100, 0x88a8

	tcpSequence, tcpFlags, tcpChecksum = 4, 13, 16
	udpLength, udpChecksum             = 4, 6
	flagFIN, flagPSH, flagCWR          = 0x01, 0x08, 0x80
)

// headers is where the headers of a frame with segments begin and end.
type headers struct {
	ip      int
	version int
	l4      int
	payload int
}

// addresses returns where the addresses of the IP header are.
func (h headers) addresses() (from, to int) {
	if h.version == 4 {
		return h.ip + 12, h.ip + 20
	}
	return h.ip + 8, h.ip + 40
}

// headers finds the headers of a frame with segments.
func (f *Frame) headers() (headers, error) {
	b, h := f.Data, headers{ip: 14}
	word := func(at int) uint16 {
		if at+2 > len(b) {
			return 0
		}
		return binary.BigEndian.Uint16(b[at:])
	}
	for tag := word(h.ip - 2); tag == etherVLAN || tag == etherServiceTag; tag = word(h.ip - 2) {
		h.ip += 4
	}
	switch word(h.ip - 2) {
	case etherIPv4:
		h.version = 4
	case etherIPv6:
		h.version = 6
	default:
		return h, errOffload
	}
	h.l4 = int(f.Offload.ChecksumStart)
	_, end := h.addresses()
	if !f.Offload.NeedsChecksum || h.l4 < end || f.Offload.SegmentSize == 0 {
		return h, errOffload
	}
	switch f.Offload.Segments {
	case SegmentTCP4, SegmentTCP6:
		if h.l4+20 > len(b) {
			return h, errOffload
		}
		h.payload = h.l4 + int(b[h.l4+12]>>4)*4
		if h.payload < h.l4+20 {
			return h, errOffload
		}
	case SegmentUDP:
		h.payload = h.l4 + 8
	default:
		return h, errOffload
	}
	if h.payload > len(b) {
		return h, errOffload
	}
	return h, nil
}

// Bounds of a frame that is cut, which no TCP comes near. What a guest sends
// must not cost more than it is worth.
const (
	maxHeaders  = 512
	maxSegments = 1024
)

// cut calls emit for each segment of a frame, with nothing left to do in it.
// Segments are made in room, which has the length of the longest.
func (f *Frame) cut(room []byte, emit func(segment []byte)) error {
	h, err := f.headers()
	if err != nil {
		return err
	}
	size := int(f.Offload.SegmentSize)
	if h.payload+size > len(room) || h.payload > maxHeaders || len(f.Data)-h.payload > maxSegments*size {
		return errOffload
	}
	tcp := f.Offload.Segments != SegmentUDP
	payload := f.Data[h.payload:]
	for i, at := 0, 0; at < len(payload) || i == 0; i, at = i+1, at+size {
		end := min(at+size, len(payload))
		s := room[:h.payload+end-at]
		copy(s, f.Data[:h.payload])
		copy(s[h.payload:], payload[at:end])
		h.setIP(s, i)
		l4 := s[h.l4:]
		field := tcpChecksum
		if tcp {
			sequence := binary.BigEndian.Uint32(l4[tcpSequence:])
			binary.BigEndian.PutUint32(l4[tcpSequence:], sequence+uint32(at))
			if end < len(payload) {
				l4[tcpFlags] &^= flagFIN | flagPSH
			}
			if i > 0 {
				l4[tcpFlags] &^= flagCWR
			}
		} else {
			field = udpChecksum
			binary.BigEndian.PutUint16(l4[udpLength:], uint16(len(l4)))
		}
		binary.BigEndian.PutUint16(l4[field:], 0)
		from, to := h.addresses()
		protocol := uint64(6)
		if !tcp {
			protocol = 17
		}
		pseudo := sum(s[from:to]) + protocol + uint64(len(l4))
		binary.BigEndian.PutUint16(l4[field:], notZero(^fold(pseudo+sum(l4))))
		emit(s)
	}
	return nil
}

// setIP writes the lengths, and for IPv4 the identification and the checksum,
// of a segment.
func (h headers) setIP(s []byte, index int) {
	ip := s[h.ip:h.l4]
	if h.version == 6 {
		binary.BigEndian.PutUint16(ip[4:], uint16(len(s)-h.ip-40))
		return
	}
	binary.BigEndian.PutUint16(ip[2:], uint16(len(s)-h.ip))
	id := binary.BigEndian.Uint16(ip[4:])
	binary.BigEndian.PutUint16(ip[4:], id+uint16(index))
	binary.BigEndian.PutUint16(ip[10:], 0)
	binary.BigEndian.PutUint16(ip[10:], ^fold(sum(ip)))
}

// survives reports whether the work that was left in a frame can still be left
// in what a pipeline made of it: nothing moved, and what checksum and segments
// are made from is as it was.
func (f *Frame) survives(out []byte) bool {
	const addresses = 12 // of Ethernet
	if len(out) != len(f.Data) || len(out) < addresses {
		return false
	}
	h, err := f.headers()
	if err != nil {
		// Nothing is known of these headers: all must be as it was, but for
		// the Ethernet addresses.
		return bytes.Equal(out[addresses:], f.Data[addresses:])
	}
	from, _ := h.addresses()
	return bytes.Equal(out[addresses:h.ip], f.Data[addresses:h.ip]) &&
		bytes.Equal(out[from:h.payload], f.Data[from:h.payload])
}
