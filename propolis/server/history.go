package server

import "fmt"

// historySize is how many bytes the console keeps of each end of its output,
// the first and the most recent: 1 MiB each, as Propolis does.
const historySize = 1 << 20

// history keeps the first and the most recent bytes of a console's output.
// Once more than both was written, what lies between is lost: the hole. The
// zero value keeps historySize bytes of each.
type history struct {
	size   int
	first  []byte
	recent []byte // a ring of the last size bytes after first
	total  uint64 // bytes ever written
}

// holeError says that an offset lies in the hole.
type holeError struct {
	offset, first, recent, total uint64
}

func (e *holeError) Error() string {
	return fmt.Sprintf("Requested byte offset %d is no longer cached: only the first %d and the most recent %d of %d bytes are",
		e.offset, e.first, e.recent, e.total)
}

func (h *history) limit() int {
	if h.size == 0 {
		return historySize
	}
	return h.size
}

// add appends p.
func (h *history) add(p []byte) {
	n := min(len(p), h.limit()-len(h.first))
	h.first = append(h.first, p[:n]...)
	h.total += uint64(n)
	p = p[n:]
	if len(p) == 0 {
		return
	}
	if h.recent == nil {
		h.recent = make([]byte, h.limit())
	}
	if skip := len(p) - len(h.recent); skip > 0 {
		h.total += uint64(skip)
		p = p[skip:]
	}
	for len(p) > 0 {
		n := copy(h.recent[h.slot(h.total):], p)
		h.total += uint64(n)
		p = p[n:]
	}
}

// slot is where the ring holds the byte at offset.
func (h *history) slot(offset uint64) int {
	return int((offset - uint64(len(h.first))) % uint64(len(h.recent)))
}

// oldestRecent is the offset after the hole, if there is one.
func (h *history) oldestRecent() uint64 {
	first, size := uint64(len(h.first)), uint64(h.limit())
	if h.total <= first+size {
		return first
	}
	return h.total - size
}

// read copies what was written from offset on to p, as far as it is held
// without a gap. An offset beyond the end reads nothing.
func (h *history) read(p []byte, offset uint64) (int, error) {
	if offset >= h.total {
		return 0, nil
	}
	n := 0
	if offset < uint64(len(h.first)) {
		n = copy(p, h.first[offset:])
		offset += uint64(n)
	}
	oldest := h.oldestRecent()
	if offset < oldest {
		if n > 0 {
			return n, nil
		}
		first := uint64(len(h.first))
		return 0, &holeError{offset, first, h.total - oldest, h.total}
	}
	for n < len(p) && offset < h.total {
		from := h.slot(offset)
		to := min(len(h.recent), from+int(h.total-offset))
		k := copy(p[n:], h.recent[from:to])
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
