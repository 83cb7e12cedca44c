package mux

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// The frame types of version 1.
const (
	typeHello    uint8 = 1 + iota // host: a session begins
	typeWelcome                   // guest: it has begun
	typeAnnounce                  // guest: I have started, begin a session
	typeOpen                      // host: a stream begins; with its first data
	typeData                      // data of a stream
	typeCredit                    // so many more bytes may come, 32 bits
	typeEnd                       // the sender is done with the stream; with a reason if it failed
)

// Versions of the protocol that this package speaks.
const (
	minVersion = 1
	maxVersion = 1
)

const (
	headerSize  = 20
	trailerSize = 4
	// maxFrame is what the Linux driver of the port takes in one write.
	maxFrame = 32 << 10
	// MaxPayload is the most that one frame carries, in bytes.
	MaxPayload = maxFrame - headerSize - trailerSize
)

// mark begins each frame.
var mark = []byte{0xf4, 'F', 'l', 0x9c}

// frame is one unit on the port:
//
//	0   mark
//	4   epoch
//	8   stream
//	12  length of the payload, 16 bits
//	14  type
//	15  0
//	16  check: CRC-32 of the bytes before it
//	20  payload
//	    check with its lowest bit set, which padding never is
//
// Numbers have their least byte first. The payload is not checked itself: the
// port loses bytes at its ends only, and that the check after it shows.
type frame struct {
	epoch, stream uint32
	kind          uint8
	payload       []byte
}

// appendFrame appends a frame's bytes.
func appendFrame(b []byte, f frame) []byte {
	at := len(b)
	b = append(b, mark...)
	b = binary.LittleEndian.AppendUint32(b, f.epoch)
	b = binary.LittleEndian.AppendUint32(b, f.stream)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(f.payload)))
	b = append(b, f.kind, 0)
	check := crc32.ChecksumIEEE(b[at:])
	b = binary.LittleEndian.AppendUint32(b, check)
	b = append(b, f.payload...)
	return binary.LittleEndian.AppendUint32(b, check|1)
}

// decoder finds the frames in a stream of bytes.
type decoder struct {
	buf  [2 * maxFrame]byte
	r, w int // what is between them has been read and not decoded
}

// room returns where the next bytes are read to. It ends the life of payloads
// that next has returned.
func (d *decoder) room() []byte {
	if d.r > 0 && (d.r == d.w || len(d.buf)-d.w < maxFrame/2) {
		d.w = copy(d.buf[:], d.buf[d.r:d.w])
		d.r = 0
	}
	return d.buf[d.w:]
}

// filled takes note of bytes that were read to room.
func (d *decoder) filled(n int) { d.w += n }

// next returns the next whole frame, if there is one. What is no frame is passed
// over.
func (d *decoder) next() (frame, bool) {
	for {
		rest := d.buf[d.r:d.w]
		at := bytes.Index(rest, mark)
		if at < 0 {
			d.r = max(d.r, d.w-len(mark)+1) // the end may be part of a mark
			return frame{}, false
		}
		d.r += at
		f, size, whole := parse(rest[at:])
		switch {
		case !whole:
			return frame{}, false
		case size == 0:
			d.r++
		default:
			d.r += size
			return f, true
		}
	}
}

// parse reads the frame at the beginning of p, which begins with a mark. Its
// size is 0 when it is none, and whole is false when more must be read to know.
func parse(p []byte) (f frame, size int, whole bool) {
	if len(p) < headerSize {
		return f, 0, false
	}
	length := int(binary.LittleEndian.Uint16(p[12:]))
	check := binary.LittleEndian.Uint32(p[16:])
	if length > MaxPayload || check != crc32.ChecksumIEEE(p[:16]) {
		return f, 0, true
	}
	size = headerSize + length + trailerSize
	if len(p) < size {
		return f, 0, false
	}
	if binary.LittleEndian.Uint32(p[size-trailerSize:]) != check|1 {
		return f, 0, true
	}
	f = frame{
		epoch:   binary.LittleEndian.Uint32(p[4:]),
		stream:  binary.LittleEndian.Uint32(p[8:]),
		kind:    p[14],
		payload: p[headerSize : headerSize+length],
	}
	return f, size, true
}
