package mux

import (
	"bytes"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// decodeAll feeds bytes to a decoder in pieces of a size and returns the frames
// that it finds, with payloads of their own.
func decodeAll(t interface{ Fatalf(string, ...any) }, data []byte, piece int) []frame {
	d := new(decoder)
	var found []frame
	for len(data) > 0 {
		room := d.room()
		if len(room) == 0 {
			t.Fatalf("the decoder is full and finds nothing")
		}
		n := copy(room, data[:min(piece, len(data))])
		d.filled(n)
		data = data[n:]
		for {
			f, ok := d.next()
			if !ok {
				break
			}
			f.payload = bytes.Clone(f.payload)
			found = append(found, f)
		}
	}
	return found
}

func sample(n int) []frame {
	var frames []frame
	for i := range n {
		frames = append(frames, frame{epoch: 7, stream: uint32(i + 1), kind: typeData, payload: []byte(fmt.Sprint("payload ", i))})
	}
	return frames
}

func encode(frames ...frame) []byte {
	var b []byte
	for _, f := range frames {
		b = appendFrame(b, f)
	}
	return b
}

func same(a, b []frame) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].epoch != b[i].epoch || a[i].stream != b[i].stream || a[i].kind != b[i].kind || !bytes.Equal(a[i].payload, b[i].payload) {
			return false
		}
	}
	return true
}

func TestFramesSurviveAnyCutting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want []frame
		for range rapid.IntRange(1, 8).Draw(t, "frames") {
			want = append(want, frame{
				epoch: rapid.Uint32().Draw(t, "epoch"), stream: rapid.Uint32().Draw(t, "stream"), kind: rapid.Byte().Draw(t, "type"),
				payload: bytes.Repeat(rapid.SliceOfN(rapid.Byte(), 0, 64).Draw(t, "payload"), rapid.IntRange(0, MaxPayload/64).Draw(t, "times")),
			})
		}
		got := decodeAll(t, encode(want...), rapid.IntRange(1, 3*maxFrame).Draw(t, "piece"))
		if !same(want, got) {
			t.Fatalf("%d frames became %d", len(want), len(got))
		}
	})
}

// A writer that dies at any byte of a frame costs its reader that frame and no
// other, as long as the next writer begins with padding.
func TestAFrameCutAtEachByteCostsNothingElse(t *testing.T) {
	long := frame{epoch: 7, stream: 9, kind: typeData, payload: bytes.Repeat([]byte("x"), 3000)}
	cut := encode(long)
	before, after := sample(2), sample(3)
	for at := range len(cut) {
		data := append(encode(before...), cut[:at]...)
		data = append(data, make([]byte, maxFrame)...)
		data = append(data, encode(after...)...)
		if got := decodeAll(t, data, 4096); !same(append(before[:2:2], after...), got) {
			t.Fatalf("cut at %d: %d frames", at, len(got))
		}
	}
}

// The other way round: the reader begins in the middle.
func TestReadingFromEachByteFindsTheNextFrame(t *testing.T) {
	data := encode(sample(3)...)
	first := len(encode(sample(1)...))
	for at := 1; at < first; at++ {
		if got := decodeAll(t, data[at:], 100); !same(sample(3)[1:], got) {
			t.Fatalf("from %d: %d frames", at, len(got))
		}
	}
}

func TestGarbageBetweenFramesIsPassedOver(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		garbage := rapid.SliceOfN(rapid.SampledFrom(append(bytes.Clone(mark), 0, 1, 0xff)), 0, 4*headerSize).Draw(t, "garbage")
		frames := sample(4)
		data := append(encode(frames[:2]...), garbage...)
		// Garbage may look like the beginning of a frame.
		data = append(data, make([]byte, maxFrame)...)
		data = append(data, encode(frames[2:]...)...)
		if got := decodeAll(t, data, 1000); !same(frames, got) {
			t.Fatalf("%d frames", len(got))
		}
	})
}

func TestADamagedHeaderIsNoFrame(t *testing.T) {
	whole := encode(frame{epoch: 1, stream: 2, kind: typeData, payload: []byte("abc")})
	for at := range headerSize {
		for bit := range 8 {
			data := bytes.Clone(whole)
			data[at] ^= 1 << bit
			if got := decodeAll(t, append(data, make([]byte, maxFrame)...), 4096); len(got) != 0 {
				t.Errorf("bit %d of byte %d: %+v", bit, at, got)
			}
		}
	}
}

func FuzzDecoder(f *testing.F) {
	f.Add(encode(sample(3)...), 5)
	f.Add(append(encode(sample(1)...)[:30], encode(sample(2)...)...), 1)
	f.Add(append(make([]byte, 100), mark...), 100)
	f.Add(bytes.Repeat(mark, 50), 7)
	f.Fuzz(func(t *testing.T, data []byte, piece int) {
		piece = max(1, min(piece, maxFrame))
		found := decodeAll(t, data, piece)
		// However it is cut, the same is found, and what is found was there.
		if again := decodeAll(t, data, len(data)+1); !same(found, again) {
			t.Fatalf("%d frames in pieces of %d, %d at once", len(found), piece, len(again))
		}
		for _, frame := range found {
			if !bytes.Contains(data, encode(frame)[4:16]) {
				t.Fatalf("%+v was not there", frame)
			}
		}
		// And behind padding, the next frame is always found.
		data = append(bytes.Clone(data), make([]byte, maxFrame)...)
		data = append(data, encode(sample(1)...)...)
		found = decodeAll(t, data, piece)
		if len(found) == 0 || !same(found[len(found)-1:], sample(1)) {
			t.Fatalf("the frame behind padding was not found among %d", len(found))
		}
	})
}
