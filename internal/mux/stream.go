package mux

import (
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"github.com/falcon-vm/falcon-go/internal/printable"
)

// Stream is one call's bytes in both directions. One goroutine may read while
// another writes.
type Stream struct {
	s         *Session
	id, epoch uint32

	mu     sync.Mutex
	cond   sync.Cond // of mu: any of the following has changed
	data   []byte    // has come, from head on not read
	head   int
	unsaid int   // bytes that were read and not credited
	credit int   // bytes that may be written
	ended  bool  // the other end is done
	err    error // why, or io.EOF; valid with ended
	closed bool  // this end is done
	onEnd  func()
}

// OnEnd has f called, in a goroutine of its own, once the other end is done or
// gone, whether or not all that it wrote was read. It is set once.
func (st *Stream) OnEnd(f func()) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.ended {
		go f()
		return
	}
	st.onEnd = f
}

// setEnded notes that the other end is done. The caller holds st.mu.
func (st *Stream) setEnded(err error) {
	if st.ended {
		return
	}
	st.ended, st.err = true, err
	if st.onEnd != nil {
		go st.onEnd()
	}
}

// EndError is the reason that the other end gave when it ended a stream.
type EndError struct{ Reason string }

// Error implements error.
func (e *EndError) Error() string { return printable.Text(e.Reason) }

// errOverrun says that the other end sent more than it may.
var errOverrun = errors.New("the other end sent more than its window")

// handle handles a frame of the stream. It never waits.
func (st *Stream) handle(f frame) {
	st.mu.Lock()
	defer st.mu.Unlock()
	switch f.kind {
	case typeData:
		switch {
		case st.closed || st.ended:
			return
		case len(st.data)-st.head+st.unsaid+len(f.payload) > window:
			st.setEnded(errOverrun)
		default:
			st.append(f.payload)
		}
	case typeCredit:
		if len(f.payload) == 4 {
			st.credit = min(st.credit+int(binary.LittleEndian.Uint32(f.payload)), window)
		}
	case typeEnd:
		err := io.EOF
		if len(f.payload) > 0 {
			err = &EndError{Reason: string(f.payload)}
		}
		st.setEnded(err)
	}
	st.cond.Broadcast()
}

// append keeps data until it is read.
func (st *Stream) append(p []byte) {
	if st.head == len(st.data) {
		st.data, st.head = st.data[:0], 0
	} else if cap(st.data)-len(st.data) < len(p) && st.head > 0 {
		st.data, st.head = st.data[:copy(st.data, st.data[st.head:])], 0
	}
	st.data = append(st.data, p...)
}

// finish ends a stream whose session has gone.
func (st *Stream) finish(err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.setEnded(err)
	st.cond.Broadcast()
}

// Read implements io.Reader. It returns io.EOF when the other end has done its
// part and all that it wrote was read.
func (st *Stream) Read(p []byte) (int, error) {
	st.mu.Lock()
	for st.head == len(st.data) && !st.ended && !st.closed {
		st.cond.Wait()
	}
	switch {
	case st.closed:
		st.mu.Unlock()
		return 0, io.ErrClosedPipe
	case st.head == len(st.data):
		defer st.mu.Unlock()
		return 0, st.err
	}
	n := copy(p, st.data[st.head:])
	st.head += n
	st.unsaid += n
	grant := 0
	if st.unsaid >= window/4 && !st.ended {
		grant, st.unsaid = st.unsaid, 0
	}
	st.mu.Unlock()
	if grant > 0 {
		more := binary.LittleEndian.AppendUint32(nil, uint32(grant))
		// That it fails the next Read tells, after what has come.
		_ = st.s.write(frame{epoch: st.epoch, stream: st.id, kind: typeCredit, payload: more})
	}
	return n, nil
}

// Write implements io.Writer. It waits while the other end does not read.
func (st *Stream) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		n, err := st.reserve(len(p) - written)
		if err != nil {
			return written, err
		}
		err = st.s.write(frame{epoch: st.epoch, stream: st.id, kind: typeData, payload: p[written : written+n]})
		if err != nil {
			return written, err
		}
		written += n
	}
	return written, nil
}

// reserve waits until some of want bytes may be written.
func (st *Stream) reserve(want int) (int, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for st.credit == 0 && !st.ended && !st.closed {
		st.cond.Wait()
	}
	switch {
	case st.closed || st.ended && errors.Is(st.err, io.EOF):
		return 0, io.ErrClosedPipe
	case st.ended:
		return 0, st.err
	}
	n := min(want, st.credit, MaxPayload)
	st.credit -= n
	return n, nil
}

// Finish is Write and Close in one. What can be written at once goes to the
// other end together with the news of the end, in one go.
func (st *Stream) Finish(p []byte) error {
	if len(p) <= MaxPayload {
		st.mu.Lock()
		now := st.credit >= len(p) && !st.ended && !st.closed
		if now {
			st.closed = true
			st.cond.Broadcast()
		}
		st.mu.Unlock()
		if now {
			st.s.forget(st)
			return st.s.write(frame{epoch: st.epoch, stream: st.id, kind: typeData, payload: p},
				frame{epoch: st.epoch, stream: st.id, kind: typeEnd})
		}
	}
	_, err := st.Write(p)
	return errors.Join(err, st.Close())
}

// Close ends this side of the stream: the other end reads what was written,
// and then the end. What it still writes is thrown away.
func (st *Stream) Close() error { return st.end("") }

// Fail is Close with a reason.
func (st *Stream) Fail(reason string) error { return st.end(reason) }

func (st *Stream) end(reason string) error {
	st.mu.Lock()
	if st.closed {
		st.mu.Unlock()
		return nil
	}
	st.closed = true
	tell := !st.ended || st.err == errOverrun
	st.cond.Broadcast()
	st.mu.Unlock()
	st.s.forget(st)
	if !tell {
		return nil
	}
	err := st.s.write(frame{epoch: st.epoch, stream: st.id, kind: typeEnd, payload: []byte(reason[:min(len(reason), 1024)])})
	if errors.Is(err, ErrRestarted) || errors.Is(err, ErrClosed) {
		err = nil // it has ended otherwise
	}
	return err
}
