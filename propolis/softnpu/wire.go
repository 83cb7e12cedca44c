package softnpu

import "errors"

// MaxFrame is the longest frame of a port in bytes: a segment of 64 KiB that
// the kernel has not cut yet, with its headers.
const MaxFrame = 1<<16 + 256

// Frame is an Ethernet frame from its destination address on.
type Frame struct {
	Data []byte
	// Offload is what the sender has left to do.
	Offload Offload
}

// Wire carries the frames of a port. One goroutine at a time reads from it, and
// one writes.
type Wire interface {
	// Read waits for frames and puts those that are there into frames, which
	// have room for [MaxFrame] bytes each. It returns their number, more than
	// zero, or an error after which there will be no more.
	Read(frames []Frame) (int, error)
	// Write sends frames in their order. It returns how many it has sent;
	// the others are lost, as on a cable: because nobody is at the far end,
	// or reads too slowly. After an error none can be sent any more.
	Write(frames []Frame) (int, error)
	// TryWrite sends frames in their order as long as it need not wait and
	// nothing goes wrong, and returns how many. The others are as they were.
	TryWrite(frames []Frame) int
	// Offloads reports whether frames with work left to do can be written.
	// On other wires they come as the far end will see them.
	Offloads() bool
	// Close ends Read and Write.
	Close() error
}

// ErrNoWires means that this system has no wires of some kind.
var ErrNoWires = errors.New("ports of an ASIC need Linux")
