package softnpu

import (
	"bytes"
	"context"
	"encoding/hex"
	"log/slog"
	"testing"
)

// fromHex reads bytes with spaces between them.
func fromHex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(s), []byte(" "), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSidecarMux pins the two layouts of the header, byte by byte.
func TestSidecarMux(t *testing.T) {
	const macs, payload = "ffffffffffff 020000000001 ", " 45000014"
	for _, tt := range []struct {
		name          string
		header        int
		toCPU, toASIC string // header of a frame of port 1
	}{
		{"today's", SidecarHeader, "01 00 0001 0000 0800 00000000000000000000000001701d00", "00 00 0000 0001 0800" + " 00000000000000000000000000000000"},
		{"the first", OldSidecarHeader, "01 0001 0000 0800 00000000000000000000000001701d00", "00 0000 0001 0800" + " 00000000000000000000000000000000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			link, ports := newMemoryWire(), []*memoryWire{newMemoryWire(), newMemoryWire()}
			m := &SidecarMux{Link: link, Ports: []Wire{ports[0], ports[1]}, Header: tt.header, Log: slog.New(slog.DiscardHandler)}
			done := make(chan error)
			ctx, cancel := context.WithCancel(t.Context())
			go func() { done <- m.Serve(ctx) }()
			defer func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}()

			plain := fromHex(t, macs+"0800"+payload)
			ports[1].in <- Frame{Data: plain}
			if got, want := link.next(t).Data, fromHex(t, macs+"0901"+tt.toASIC+payload); !bytes.Equal(got, want) {
				t.Errorf("to the switch came\n%x, want\n%x", got, want)
			}
			// What is not for a port is dropped, and what comes next is not.
			for _, bad := range []string{
				macs, macs + "0800" + payload, macs + "0901" + "01",
				macs + "0901" + tt.toASIC + payload, // not the code
			} {
				link.in <- Frame{Data: fromHex(t, bad)}
			}
			outside := fromHex(t, macs+"0901"+tt.toCPU+payload)
			outside[etherHeader+tt.header-SidecarHeader+3] = 2 // the ingress
			link.in <- Frame{Data: outside}
			link.in <- Frame{Data: fromHex(t, macs+"0901"+tt.toCPU+payload)}
			if got := ports[1].next(t).Data; !bytes.Equal(got, plain) {
				t.Errorf("to port 1 came\n%x, want\n%x", got, plain)
			}
			if n := len(ports[0].out) + len(ports[1].out); n > 0 {
				t.Errorf("%d frames more came to the ports", n)
			}
		})
	}
}

// FuzzSidecarMux has any frame come from the switch: it goes nowhere, or without
// its header to the port that it names.
func FuzzSidecarMux(f *testing.F) {
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x09\x01\x01\x00\x00\x01\x00\x00\x08\x00 the rest of it, and more"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > MaxFrame {
			return
		}
		m := &SidecarMux{Header: SidecarHeader}
		out := newMemoryWire()
		ports := []*port{newPort(0, out), newPort(1, out)}
		frame := Frame{Data: bytes.Clone(data)}
		err := m.fromSwitch(ports, &frame)
		if (err == nil) != (len(out.out) == 1) {
			t.Fatalf("%d frames, and %v", len(out.out), err)
		}
		if err != nil {
			return
		}
		if got := <-out.out; len(got.Data) != len(data)-SidecarHeader {
			t.Fatalf("%d bytes became %d", len(data), len(got.Data))
		}
	})
}
