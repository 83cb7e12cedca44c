package server

import "fmt"

const (
	// historySize is how many bytes of the first and of the most recent
	// output can be asked for: 1 MiB each, as with Propolis.
	historySize = 1 << 20
	// ringSize is how many bytes of the most recent output are held, so that
	// a client that follows may be so far behind. It is most of what a server
	// whose guest has said much takes of the host's memory.
	ringSize = 2 << 20
)

// history keeps the first and the most recent bytes of a console's output.
// Once more than both was written, what lies between is lost: the hole.
type history struct {
	size, ring int
	first      []byte // the first size bytes
	recent     []byte // a ring of the last ring bytes after first
	total      uint64 // bytes ever written
}

func newHistory() history { return history{size: historySize, ring: ringSize} }

// holeError says that an offset lies in the hole.
type holeError struct {
	offset        uint64
	first, recent int
	total         uint64
}

func (e *holeError) Error() string {
	return fmt.Sprintf("Requested byte offset %d is no longer cached: only have the first %d and the most recent %d of %d bytes",
		e.offset, e.first, e.recent, e.total)
}

// add appends p.
func (h *history) add(p []byte) {
	n := min(len(p), h.size-len(h.first))
	h.first = append(reserve(h.first, n, h.size), p[:n]...)
	h.total += uint64(n)
	p = p[n:]
	if skip := len(p) - h.ring; skip > 0 {
		// Those fall out again at once; the ring is full in any case.
		h.recent = reserve(h.recent, h.ring-len(h.recent), h.ring)[:h.ring]
		h.total += uint64(skip)
		p = p[skip:]
	}
	n = min(len(p), h.ring-len(h.recent))
	h.recent = append(reserve(h.recent, n, h.ring), p[:n]...)
	h.total += uint64(n)
	for p = p[n:]; len(p) > 0; p = p[n:] {
		n = copy(h.recent[h.slot(h.total):], p)
		h.total += uint64(n)
	}
}

// reserve has room in b for n more bytes, of size at most: a few first, and then
// for all at once. What is not written to yet costs nothing, and what b grew out
// of would.
func reserve(b []byte, n, size int) []byte {
	const few = 64 << 10
	if len(b)+n <= cap(b) {
		return b
	}
	room := size
	if len(b)+n <= few {
		room = min(few, size)
	}
	return append(make([]byte, 0, room), b...)
}

// slot is where the ring holds the byte at offset.
func (h *history) slot(offset uint64) int {
	return int((offset - uint64(len(h.first))) % uint64(h.ring))
}

// after returns the offset of the oldest byte after the hole when the most
// recent n are held; without a hole it is the end of first.
func (h *history) after(n int) uint64 {
	return max(uint64(len(h.first)), h.total-min(uint64(n), h.total))
}

// inFirst reports whether offset is among the first bytes.
func (h *history) inFirst(offset uint64) bool { return offset < uint64(len(h.first)) }

// visible returns how many bytes from offset on may be asked for without
// meeting the hole, or a holeError for an offset in it.
func (h *history) visible(offset uint64) (uint64, error) {
	after := h.after(h.size)
	switch {
	case h.inFirst(offset) && after > uint64(len(h.first)):
		return uint64(len(h.first)) - offset, nil
	case !h.inFirst(offset) && offset < after:
		return 0, &holeError{offset, len(h.first), h.size, h.total}
	}
	return h.total - offset, nil
}

// read copies to p what was written from offset on, as far as it is held
// without a gap. At the end there is nothing to read.
func (h *history) read(p []byte, offset uint64) (int, error) {
	n := 0
	if h.inFirst(offset) {
		n = copy(p, h.first[offset:])
		offset += uint64(n)
	} else if offset < h.after(h.ring) {
		return 0, &holeError{offset, len(h.first), h.ring, h.total}
	}
	for n < len(p) && offset < h.total && offset >= h.after(h.ring) {
		from := h.slot(offset)
		k := copy(p[n:], h.recent[from:min(len(h.recent), from+int(h.total-offset))])
		n += k
		offset += uint64(k)
	}
	return n, nil
}

// offset is a position in a console's output as requests give it: counted
// from the start, or backwards from the end. With both or neither it is the
// end.
type offset struct {
	fromStart, mostRecent *uint64
}

// single reports whether exactly one way to count is given.
func (o offset) single() bool { return (o.fromStart == nil) != (o.mostRecent == nil) }

// resolve returns the position counted from the start, inside what was written.
func (h *history) resolve(o offset) uint64 {
	switch {
	case !o.single():
		return h.total
	case o.fromStart != nil:
		return min(*o.fromStart, h.total)
	}
	return h.total - min(*o.mostRecent, h.total)
}
