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
		size := rapid.IntRange(1, 16).Draw(t, "size")
		h := history{size: size}
		var all []byte
		for range rapid.IntRange(0, 20).Draw(t, "writes") {
			p := rapid.SliceOfN(rapid.Byte(), 0, 3*size).Draw(t, "p")
			h.add(p)
			all = append(all, p...)
		}
		if h.total != uint64(len(all)) {
			t.Fatalf("total is %d, want %d", h.total, len(all))
		}
		at := rapid.IntRange(0, len(all)+3).Draw(t, "offset")
		buf := make([]byte, rapid.IntRange(1, 4*size).Draw(t, "buffer"))
		n, err := h.read(buf, uint64(at))
		checkRead(t, all, size, at, buf, n, err)
	})
}

func checkRead(t *rapid.T, all []byte, size, at int, buf []byte, n int, err error) {
	end := len(all) // of what is held from at on without a gap
	contiguous := len(all) <= 2*size
	var hole *holeError
	switch {
	case at >= len(all):
		end = at
	case !contiguous && at < size:
		end = size
	case !contiguous && at < len(all)-size:
		if !errors.As(err, &hole) {
			t.Fatalf("reading the hole at %d gave %d, %v", at, n, err)
		}
		return
	}
	want := min(end-at, len(buf))
	if err != nil || n != want || n > 0 && !bytes.Equal(buf[:n], all[at:at+n]) {
		t.Fatalf("reading at %d gave %q, %v, want %d bytes of %q", at, buf[:n], err, want, all)
	}
}

func TestHistoryHoldsAMebibyteOfEachEnd(t *testing.T) {
	var h history
	chunk := bytes.Repeat([]byte("x"), 1<<16)
	for range 48 { // 3 MiB
		h.add(chunk)
	}
	buf := make([]byte, 1)
	for offset, held := range map[uint64]bool{0: true, 1<<20 - 1: true, 1 << 20: false, 2<<20 - 1: false, 2 << 20: true, 3<<20 - 1: true} {
		if _, err := h.read(buf, offset); (err == nil) != held {
			t.Errorf("byte %d is held: %v, want %v", offset, err == nil, held)
		}
	}
}

func TestOffsetsAreClampedToWhatWasWritten(t *testing.T) {
	p := func(n uint64) *uint64 { return &n }
	h := history{}
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
