package softnpu

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
)

// The sidecar header stands between the Ethernet header of a frame and what the
// frame carries, and says by which port of a switch the frame came, or is to go.
const (
	// SidecarEtherType is the type of frames with a sidecar header.
	SidecarEtherType = 0x0901
	// SidecarHeader is the length of today's header in bytes, and
	// OldSidecarHeader that of the first one, which has no padding.
	SidecarHeader    = 24
	OldSidecarHeader = 23

	sidecarFromCPU = 0
	sidecarToCPU   = 1

	etherHeader = 14
)

// SidecarMux is what a driver of a switch on another node has in the place of
// a CPU port: a set of ports that share one link to the switch. A frame of port
// n goes to the switch with a header whose egress is n, and a frame of the
// switch whose ingress is n comes out by port n; ports count from 0.
type SidecarMux struct {
	// Link is the wire to the switch, and Ports are those to the driver.
	Link  Wire
	Ports []Wire
	// Header is SidecarHeader or OldSidecarHeader.
	Header int
	// Log gets what goes wrong. It must not be nil.
	Log *slog.Logger
}

// Serve passes frames until the context ends or a wire does, and then closes
// all wires. The error is that of the wires, or nil.
func (m *SidecarMux) Serve(ctx context.Context) error {
	link := newPort(0, m.Link)
	all := []*port{link}
	for i, w := range m.Ports {
		all = append(all, newPort(i, w))
	}
	log := &limitedLog{to: m.Log}
	return serveWires(ctx, all, func(p *port) error {
		handle := func(f *Frame) error { return m.toSwitch(link, p.number, f) }
		if p == link {
			handle = func(f *Frame) error { return m.fromSwitch(all[1:], f) }
		}
		err := readFrames(p.wire, func(f *Frame) {
			err := f.complete()
			if err == nil && f.Offload.Segments != SegmentNone {
				err = errors.New("it is still to be cut into segments")
			}
			if err == nil {
				err = handle(f)
			}
			if err != nil {
				log.warn("A frame on a sidecar link was dropped", "error", err)
			}
		}, func() {})
		return fmt.Errorf("sidecar link: receive frames: %w", err)
	})
}

// toSwitch sends a frame of a port with the header.
func (m *SidecarMux) toSwitch(link *port, number uint16, f *Frame) error {
	if len(f.Data) < etherHeader {
		return fmt.Errorf("it has %d bytes", len(f.Data))
	}
	if len(f.Data)+m.Header > MaxFrame {
		return fmt.Errorf("it has %d bytes, and no room for a header", len(f.Data))
	}
	b := newBuffer(f.Data, Offload{})
	b = b.insert(etherHeader, m.Header)
	h := b.frame.Data[etherHeader : etherHeader+m.Header]
	clear(h)
	fields := h[m.Header-SidecarHeader+2:] // behind code, and padding if there is any
	h[0] = sidecarFromCPU
	binary.BigEndian.PutUint16(fields[2:], number)
	copy(fields[4:6], f.Data[12:14])
	binary.BigEndian.PutUint16(b.frame.Data[12:], SidecarEtherType)
	link.send([]*buffer{b})
	return nil
}

// fromSwitch takes the header off a frame, and sends it by the port that it
// names.
func (m *SidecarMux) fromSwitch(ports []*port, f *Frame) error {
	if len(f.Data) < etherHeader+m.Header || binary.BigEndian.Uint16(f.Data[12:]) != SidecarEtherType {
		return errors.New("it has no sidecar header")
	}
	h := f.Data[etherHeader : etherHeader+m.Header]
	fields := h[m.Header-SidecarHeader+2:]
	ingress := binary.BigEndian.Uint16(fields)
	switch {
	case h[0] != sidecarToCPU:
		return fmt.Errorf("its code is %d, not %d", h[0], sidecarToCPU)
	case int(ingress) >= len(ports):
		return fmt.Errorf("it came in by port %d of the switch, and there are %d interfaces", ingress, len(ports))
	}
	to := ports[ingress]
	copy(f.Data[12:14], fields[4:6])
	copy(f.Data[m.Header:], f.Data[:etherHeader])
	b := newBuffer(f.Data[m.Header:], Offload{})
	to.send([]*buffer{b})
	return nil
}

// insert makes room for n bytes in a frame.
func (b *buffer) insert(at, n int) *buffer {
	d := b.frame.Data
	if len(d)+n > cap(d) {
		longer := longBuffers.Get().(*buffer)
		longer.frame = Frame{Data: longer.frame.Data[:len(d)], Offload: b.frame.Offload}
		copy(longer.frame.Data, d)
		b.free()
		b, d = longer, longer.frame.Data
	}
	d = d[:len(d)+n]
	copy(d[at+n:], d[at:])
	b.frame.Data = d
	return b
}

// readFrames has handle called for each frame of a wire until that ends, and
// flush after each batch.
func readFrames(w Wire, handle func(*Frame), flush func()) error {
	frames := make([]Frame, batchFrames)
	for i := range frames {
		frames[i].Data = make([]byte, MaxFrame)
	}
	for {
		for i := range frames {
			frames[i].Data = frames[i].Data[:cap(frames[i].Data)]
		}
		n, err := w.Read(frames)
		for i := range frames[:n] {
			handle(&frames[i])
		}
		flush()
		if err != nil {
			return err
		}
	}
}

// serveWires runs read, and what writes, for each port until the context ends
// or one of them does, and then closes the wires.
func serveWires(ctx context.Context, ports []*port, read func(*port) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var errs []error
	var running sync.WaitGroup
	run := func(f func() error) {
		running.Go(func() {
			// What wires say once they are being closed is of no interest.
			if err := f(); err != nil && ctx.Err() == nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
			cancel()
		})
	}
	for _, p := range ports {
		run(func() error { return read(p) })
		run(func() error { return p.transmit(ctx.Done()) })
	}
	<-ctx.Done()
	for _, p := range ports {
		_ = p.wire.Close() // only to end Read and Write
	}
	running.Wait()
	return errors.Join(errs...)
}
