package server

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

// A history must agree with one that keeps everything.
func TestHistoryKeepsBothEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 8).Draw(t, "size")
		h := history{size: size, ring: size + rapid.IntRange(0, 8).Draw(t, "more")}
		var all []byte
		for range rapid.IntRange(0, 20).Draw(t, "writes") {
			p := rapid.SliceOfN(rapid.Byte(), 0, 3*size).Draw(t, "p")
			h.add(p)
			all = append(all, p...)
		}
		if h.total != uint64(len(all)) {
			t.Fatalf("total is %d, want %d", h.total, len(all))
		}
		at := rapid.IntRange(0, len(all)).Draw(t, "offset")
		buf := make([]byte, rapid.IntRange(1, 4*size).Draw(t, "buffer"))
		checkRead(t, &h, all, at, buf)
		checkVisible(t, &h, at)
	})
}

// held returns the end of what follows offset at without a gap when the first
// size and the last ring of total bytes are held, -1 if at is in the hole.
func held(at, size, ring, total int) int {
	switch {
	case total <= size+ring || at >= total-ring:
		return total
	case at < size:
		return size
	}
	return -1
}

func checkRead(t *rapid.T, h *history, all []byte, at int, buf []byte) {
	n, err := h.read(buf, uint64(at))
	end := held(at, h.size, h.ring, len(all))
	if end < 0 {
		var hole *holeError
		if !errors.As(err, &hole) {
			t.Fatalf("reading the hole at %d gave %d, %v", at, n, err)
		}
		return
	}
	want := min(end-at, len(buf))
	if err != nil || !bytes.Equal(buf[:n], all[at:at+want]) {
		t.Fatalf("reading at %d gave %q, %v, want %q", at, buf[:n], err, all[at:at+want])
	}
}

func checkVisible(t *rapid.T, h *history, at int) {
	n, err := h.visible(uint64(at))
	end := held(at, h.size, h.size, int(h.total))
	if (err != nil) != (end < 0) || err == nil && int(n) != end-at {
		t.Fatalf("at %d of %d, %d bytes are visible, %v, want up to %d", at, h.total, n, err, end)
	}
}

func TestHistoryShowsAMebibyteOfEachEnd(t *testing.T) {
	h := newHistory()
	chunk := bytes.Repeat([]byte("x"), 1<<16)
	for range 48 { // 3 MiB
		h.add(chunk)
	}
	for offset, shown := range map[uint64]bool{0: true, 1<<20 - 1: true, 1 << 20: false, 2<<20 - 1: false, 2 << 20: true, 3<<20 - 1: true} {
		if _, err := h.visible(offset); (err == nil) != shown {
			t.Errorf("byte %d is shown: %v, want %v", offset, err == nil, shown)
		}
	}
}

func TestOffsetsAreClampedToWhatWasWritten(t *testing.T) {
	p := func(n uint64) *uint64 { return &n }
	h := newHistory()
	h.add(make([]byte, 100))
	tests := []struct {
		name string
		o    offset
		want uint64
	}{
		{"from the start", offset{fromStart: p(30)}, 30},
		{"beyond the end", offset{fromStart: p(1000)}, 100},
		{"backwards", offset{mostRecent: p(30)}, 70},
		{"the end", offset{mostRecent: p(0)}, 100},
		{"more than there is", offset{mostRecent: p(1000)}, 0},
		{"neither", offset{}, 100},
		{"both", offset{fromStart: p(1), mostRecent: p(1)}, 100},
	}
	for _, tt := range tests {
		if got := h.resolve(tt.o); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}
