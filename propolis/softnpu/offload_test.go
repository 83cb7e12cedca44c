package softnpu

import (
	"bytes"
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"
)

// testFrame is a frame of TCP or UDP with a payload and no checksum but that
// of the pseudo-header, as a guest leaves it to its NIC.
func testFrame(v6, udp, tagged bool, payload []byte) Frame {
	b := []byte("dstdstsrcsrc")
	if tagged {
		b = append(b, 0x81, 0, 0, 100)
	}
	protocol, l4 := byte(6), make([]byte, 32) // with options
	if udp {
		protocol, l4 = 17, make([]byte, 8)
		binary.BigEndian.PutUint16(l4[4:], uint16(8+len(payload)))
	} else {
		l4[12] = 8 << 4
		l4[13] = flagFIN | flagPSH | 0x10 | flagCWR
		binary.BigEndian.PutUint32(l4[4:], 0xffff_fff0)
	}
	copy(l4, []byte{0x30, 0x39, 0, 80})
	length := len(l4) + len(payload)
	start := 0
	if v6 {
		b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0, byte(length>>8), byte(length), protocol, 64)
		for i := range 32 {
			b = append(b, byte(i*9))
		}
		start = len(b)
	} else {
		b = append(b, 0x08, 0x00, 0x45, 0, byte((length+20)>>8), byte(length+20), 0xff, 0xfe, 0x40, 0, 64, protocol, 0, 0)
		b = append(b, 10, 0, 0, 1, 10, 0, 0, 2)
		start = len(b)
		binary.BigEndian.PutUint16(b[start-10:], ^fold(sum(b[start-20:start])))
	}
	addresses := b[start-8 : start]
	if v6 {
		addresses = b[start-32 : start]
	}
	o := Offload{NeedsChecksum: true, ChecksumStart: uint16(start), ChecksumOffset: tcpChecksum}
	if udp {
		o.ChecksumOffset = udpChecksum
	}
	binary.BigEndian.PutUint16(l4[o.ChecksumOffset:], fold(sum(addresses)+uint64(protocol)+uint64(length)))
	return Frame{Data: append(append(b, l4...), payload...), Offload: o}
}

// checkChecksums fails if a checksum in a frame is wrong.
func checkChecksums(t interface{ Fatalf(string, ...any) }, f []byte, v6, udp, tagged bool) {
	ip := 14
	if tagged {
		ip = 18
	}
	l4, from := ip+20, ip+12
	if v6 {
		l4, from = ip+40, ip+8
		if n := int(binary.BigEndian.Uint16(f[ip+4:])); n != len(f)-l4 {
			t.Fatalf("payload length %d of a frame with %d", n, len(f)-l4)
		}
	} else {
		if n := int(binary.BigEndian.Uint16(f[ip+2:])); n != len(f)-ip {
			t.Fatalf("total length %d of a frame with %d", n, len(f)-ip)
		}
		if fold(sum(f[ip:l4])) != 0xffff {
			t.Fatalf("the checksum of the IP header is wrong: %x", f[ip:l4])
		}
	}
	protocol := uint64(6)
	if udp {
		protocol = 17
		if n := int(binary.BigEndian.Uint16(f[l4+4:])); n != len(f)-l4 {
			t.Fatalf("UDP length %d of %d", n, len(f)-l4)
		}
	}
	if got := fold(sum(f[from:l4]) + protocol + uint64(len(f)-l4) + sum(f[l4:])); got != 0xffff {
		t.Fatalf("the checksum of the segment is wrong: the sum is %#x", got)
	}
}

func TestChecksumThatWasLeftIsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v6, udp, tagged := rapid.Bool().Draw(t, "v6"), rapid.Bool().Draw(t, "udp"), rapid.Bool().Draw(t, "tagged")
		f := testFrame(v6, udp, tagged, rapid.SliceOf(rapid.Byte()).Draw(t, "payload"))
		if err := f.complete(); err != nil {
			t.Fatal(err)
		}
		if f.Offload != (Offload{}) {
			t.Fatalf("left to do: %+v", f.Offload)
		}
		checkChecksums(t, f.Data, v6, udp, tagged)
	})
}

func segmented(v6, udp bool, f Frame, size int) Frame {
	f.Offload.SegmentSize = uint16(size)
	switch {
	case udp:
		f.Offload.Segments = SegmentUDP
	case v6:
		f.Offload.Segments = SegmentTCP6
	default:
		f.Offload.Segments = SegmentTCP4
	}
	return f
}

func TestSegmentsAreCutAsAKernelCutsThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v6, udp, tagged := rapid.Bool().Draw(t, "v6"), rapid.Bool().Draw(t, "udp"), rapid.Bool().Draw(t, "tagged")
		payload := rapid.SliceOf(rapid.Byte()).Draw(t, "payload")
		size := rapid.IntRange(1, 40).Draw(t, "size")
		f := segmented(v6, udp, testFrame(v6, udp, tagged, payload), size)
		before := bytes.Clone(f.Data)
		l4 := int(f.Offload.ChecksumStart)
		header := l4 + 32
		if udp {
			header = l4 + 8
		}
		var got []byte
		n := 0
		if err := f.cut(make([]byte, MaxFrame), func(s []byte) {
			checkChecksums(t, s, v6, udp, tagged)
			last := len(got)+len(s)-header == len(payload)
			if !last && len(s) != header+size {
				t.Fatalf("segment %d has %d bytes of payload: want %d", n, len(s)-header, size)
			}
			if !udp {
				if seq := binary.BigEndian.Uint32(s[l4+4:]); seq != 0xffff_fff0+uint32(len(got)) {
					t.Fatalf("segment %d has sequence number %#x", n, seq)
				}
				flags := s[l4+13]
				if (flags&flagFIN != 0) != last || (flags&flagPSH != 0) != last || (flags&flagCWR != 0) != (n == 0) {
					t.Fatalf("segment %d (last: %v) has flags %#x", n, last, flags)
				}
			}
			got = append(got, s[header:]...)
			n++
		}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, payload) || n != max(1, (len(payload)+size-1)/size) {
			t.Fatalf("%d segments with %x: want %x", n, got, payload)
		}
		if !bytes.Equal(f.Data, before) {
			t.Fatalf("the frame has changed")
		}
	})
}

// Offloads come from a guest, which may write what it likes.
func FuzzOffload(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		for _, udp := range []bool{false, true} {
			g := segmented(v6, udp, testFrame(v6, udp, true, make([]byte, 100)), 30)
			var h [vnetHeaderSize]byte
			g.Offload.write(&h)
			f.Add(h[:], g.Data)
		}
	}
	f.Fuzz(func(t *testing.T, header, data []byte) {
		if len(header) != vnetHeaderSize || len(data) > MaxFrame {
			return
		}
		g := Frame{Data: data}
		g.Offload.read((*[vnetHeaderSize]byte)(header))
		_ = g.survives(data)
		_ = g.survives(nil)
		total := 0
		_ = g.cut(make([]byte, MaxFrame), func(s []byte) {
			if total += len(s); len(s) > MaxFrame {
				t.Fatalf("a segment of %d bytes", len(s))
			}
		})
		_ = g.complete()
	})
}

func TestOffloadSurvivesItsHeader(t *testing.T) {
	for _, want := range []Offload{{}, {NeedsChecksum: true, ChecksumStart: 34, ChecksumOffset: 16},
		{NeedsChecksum: true, ChecksumStart: 54, ChecksumOffset: 16, Segments: SegmentTCP6, SegmentSize: 1440, HeaderLength: 74, ECN: true},
		{NeedsChecksum: true, ChecksumStart: 34, ChecksumOffset: 6, Segments: SegmentUDP, SegmentSize: 1472, HeaderLength: 42}} {
		var h [vnetHeaderSize]byte
		var got Offload
		want.write(&h)
		got.read(&h)
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

// What is routed goes on whole, and in segments where no long frame can go; what is
// changed otherwise is cut before the program sees it.
func TestFramesWithSegments(t *testing.T) {
	encapsulate := func(frame []byte) []byte { return append([]byte("outer header"), frame...) }
	route := func(frame []byte) []byte {
		frame = bytes.Clone(frame)
		copy(frame, "newdstnewsrc")
		frame[22]-- // time to live, and no more of the header's checksum
		return frame
	}
	rewrite := func(frame []byte) []byte {
		frame = bytes.Clone(frame)
		frame[30]++ // destination address
		return frame
	}
	payload := bytes.Repeat([]byte("0123456789"), 250)
	for name, tt := range map[string]struct {
		change   func([]byte) []byte
		offloads bool
		frames   int
	}{
		"routed":             {route, true, 1},
		"routed to a socket": {route, false, 3},
		"encapsulated":       {encapsulate, true, 3},
		"address rewritten":  {rewrite, true, 3},
		"dropped":            {nil, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			a := newASIC(t, 2, nil)
			a.ports[0].offloads, a.ports[1].offloads = true, tt.offloads
			a.Load(newScripted(t, func(ingress uint16, frame []byte, emit func(uint16, []byte)) {
				if ingress == 1 && tt.change != nil {
					emit(2, tt.change(frame))
				} else if ingress == 2 {
					emit(1, frame)
				}
			}))
			a.serve(t)
			f := segmented(false, false, testFrame(false, false, false, payload), 1000)
			a.ports[0].in <- f
			for i := range tt.frames {
				out := a.ports[1].next(t)
				if whole := out.Offload == f.Offload; whole != (tt.frames == 1) || !whole && out.Offload != (Offload{}) {
					t.Errorf("frame %d of %d bytes has offload %+v", i, len(out.Data), out.Offload)
				}
			}
			// Nothing else came before the mark.
			a.ports[0].in <- Frame{Data: []byte("the mark, which is long enough for all")}
			if tt.change != nil {
				if m := a.ports[1].next(t); !bytes.HasSuffix(m.Data, []byte("for all")) {
					t.Errorf("frame of %d bytes after the last segment", len(m.Data))
				}
			}
			eventually(t, "frames were not counted", func() bool { return a.Counters()[1].ReceivedFrames == 2 })
			if c := a.Counters()[1]; c.Refused+c.Misdirected != 0 {
				t.Errorf("counters %+v", c)
			}
		})
	}
}

// A port that takes no long frames costs the others nothing: a hub has one that
// leads to the CPU.
func TestALongFrameIsCutForThePortThatNeedsIt(t *testing.T) {
	a := newASIC(t, 2, nil)
	a.ports[0].offloads, a.ports[1].offloads = true, true
	runs := 0
	a.Load(newScripted(t, func(_ uint16, frame []byte, emit func(uint16, []byte)) {
		runs++
		emit(CPUPort, frame)
		emit(2, frame)
	}))
	a.serve(t)
	payload := bytes.Repeat([]byte("0123456789"), 250)
	f := segmented(false, false, testFrame(false, false, false, payload), 1000)
	a.ports[0].in <- f
	if out := a.ports[1].next(t); out.Offload != f.Offload || !bytes.Equal(out.Data, f.Data) {
		t.Errorf("port 2 got %d bytes with offload %+v", len(out.Data), out.Offload)
	}
	var got []byte
	for range 3 {
		s := a.cpu.next(t)
		if s.Offload != (Offload{}) {
			t.Errorf("the CPU got offload %+v", s.Offload)
		}
		checkChecksums(t, s.Data, false, false, false)
		got = append(got, s.Data[len(f.Data)-len(payload):]...)
	}
	if !bytes.Equal(got, payload) {
		t.Errorf("the CPU got %q", got)
	}
	if runs != 1 {
		t.Errorf("the program saw the frame %d times", runs)
	}
}

func TestOffloadThatMakesNoSenseIsRefused(t *testing.T) {
	a := newASIC(t, 2, nil)
	a.Load(newScripted(t, func(_ uint16, frame []byte, emit func(uint16, []byte)) { emit(2, frame) }))
	a.serve(t)
	for _, o := range []Offload{
		{NeedsChecksum: true, ChecksumStart: 60_000},
		{NeedsChecksum: true, ChecksumStart: 2, ChecksumOffset: 2},
		{Segments: SegmentTCP4, SegmentSize: 100},
		{Segments: 9, NeedsChecksum: true, ChecksumStart: 34, ChecksumOffset: 16, SegmentSize: 7},
		{Segments: SegmentTCP4, NeedsChecksum: true, ChecksumStart: 34, ChecksumOffset: 16, SegmentSize: 1},
		{Segments: SegmentTCP4, NeedsChecksum: true, ChecksumStart: 1000, ChecksumOffset: 16, SegmentSize: 500},
	} {
		a.ports[0].in <- Frame{Data: testFrame(false, false, false, make([]byte, maxSegments+1)).Data, Offload: o}
	}
	a.ports[0].in <- Frame{Data: ethernet(1)}
	if f := a.ports[1].next(t); !bytes.Equal(f.Data, ethernet(1)) {
		t.Errorf("a frame of %d bytes came through", len(f.Data))
	}
	if c := a.Counters()[1]; c.Refused != 6 {
		t.Errorf("counters %+v", c)
	}
}
