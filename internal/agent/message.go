package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/falcon-vm/falcon-go/internal/mux"
)

// Kind is the kind of a message.
type Kind uint8

// What a host asks for.
const (
	AskPing     Kind = 1 + iota
	AskExec          // an Exec; then Stdin, StdinEnd
	_                // was a copy to the guest, as a tar archive
	_                // was a copy from the guest
	_                // was an identity that had a script
	AskPower         // a PowerAction
	AskFreeze        // how long at most; then anything, to thaw
	AskPrepare       // the answer is a Prepared
	AskIdentity      // an Identity
	AskHold          // to be saved as a template, and wait for an identity
)

// What else a host asks for.
const (
	AskPut       Kind = 16 + iota // a Tree; then File, Data, Hole, End
	AskGet                        // a Tree
	AskInterrupt                  // a number: the command that is to end
)

// What follows in a call.
const (
	Done     Kind = 64 + iota // the answer: it was done
	Failed                    // the answer: it failed, and why
	Data                      // bytes of a file
	End                       // of the file tree
	Stdin                     // for the command
	StdinEnd                  //
	Stdout                    // of the command
	Stderr                    //
	Exited                    // the answer: an Exit
	Size                      // of what is going to come
)

// What else follows in a call.
const (
	Unknown Kind = 96 + iota // the answer: there is no such call; the agent's version
	File                     // an Entry of a file tree
	Hole                     // a number of zeros in a file
)

// MaxMessage is the longest content of a message, in bytes: one frame of the
// port carries it with its header.
const MaxMessage = mux.MaxPayload - messageHeader

// maxAsk bounds messages that are longer: those that ask.
const maxAsk = 4 << 20

const messageHeader = 5

// Sender writes messages, whole, for any number of goroutines.
type Sender struct {
	mu  sync.Mutex
	w   io.Writer
	buf []byte // messages that are not written yet
	err error  // of the first write that failed
}

// NewSender returns a sender of messages to w.
func NewSender(w io.Writer) *Sender { return &Sender{w: w} }

// Send writes a message.
func (s *Sender) Send(k Kind, content []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.append(k, content)
	return s.write(s.direct)
}

// SendLast writes the last message of a stream and ends the stream.
func (s *Sender) SendLast(st *mux.Stream, k Kind, content []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.append(k, content)
	return s.write(st.Finish)
}

// queue has a message written together with those that follow, as many as one
// frame of the port carries. The last one is written with Send.
func (s *Sender) queue(k Kind, content []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.buf) > 0 && len(s.buf)+messageHeader+len(content) > mux.MaxPayload {
		_ = s.write(s.direct) // what fails is kept
	}
	s.append(k, content)
	return s.err
}

func (s *Sender) append(k Kind, content []byte) {
	s.buf = append(s.buf, byte(k))
	s.buf = binary.LittleEndian.AppendUint32(s.buf, uint32(len(content)))
	s.buf = append(s.buf, content...)
}

func (s *Sender) direct(p []byte) error {
	_, err := s.w.Write(p)
	return err
}

// write writes the messages that are there.
func (s *Sender) write(to func([]byte) error) error {
	if s.err == nil {
		s.err = to(s.buf)
	}
	s.buf = s.buf[:0]
	return s.err
}

// broken reports whether the stream has failed.
func (s *Sender) broken() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err != nil
}

// Receiver reads messages.
type Receiver struct {
	r   io.Reader
	buf []byte
	at  int // buf[at:] was read and not returned
}

// NewReceiver returns a receiver of messages from r.
func NewReceiver(r io.Reader) *Receiver {
	return &Receiver{r: r, buf: make([]byte, 0, 512)}
}

// Receive reads a message, whose content is valid until the next call. It
// returns io.EOF at the end between two messages.
func (r *Receiver) Receive() (Kind, []byte, error) {
	if err := r.fill(messageHeader); err != nil {
		return 0, nil, err
	}
	n := binary.LittleEndian.Uint32(r.buf[r.at+1:])
	if n > maxAsk {
		return 0, nil, fmt.Errorf("a message of %d bytes is too long", n)
	}
	if err := r.fill(messageHeader + int(n)); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	m := r.buf[r.at : r.at+messageHeader+int(n)]
	r.at += len(m)
	return Kind(m[0]), m[messageHeader:], nil
}

// fill reads until n bytes are there.
func (r *Receiver) fill(n int) error {
	have := len(r.buf) - r.at
	if have >= n {
		return nil
	}
	if cap(r.buf)-r.at < n {
		size := cap(r.buf)
		if size < n { // a stream of long messages is read in long pieces
			size = max(n, mux.MaxPayload)
		}
		next := make([]byte, have, size)
		if size == cap(r.buf) {
			next = r.buf[:have]
		}
		copy(next, r.buf[r.at:])
		r.buf, r.at = next, 0
	}
	for have < n {
		m, err := r.r.Read(r.buf[len(r.buf):cap(r.buf)])
		r.buf = r.buf[:len(r.buf)+m]
		have += m
		if err != nil && have < n {
			if errors.Is(err, io.EOF) && have > 0 {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// encoder appends values to bytes.
type encoder []byte

func (e *encoder) number(n uint64) { *e = binary.AppendUvarint(*e, n) }

func (e *encoder) flag(b bool) {
	if b {
		e.number(1)
	} else {
		e.number(0)
	}
}

func (e *encoder) text(s string) {
	e.number(uint64(len(s)))
	*e = append(*e, s...)
}

func (e *encoder) texts(list []string) {
	e.number(uint64(len(list)))
	for _, s := range list {
		e.text(s)
	}
}

// decoder takes values off bytes. Once something is wrong all that follows is
// empty and err is set.
type decoder struct {
	rest []byte
	err  error
}

var errShort = errors.New("a message that cannot be understood")

func (d *decoder) number() uint64 {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 {
		d.rest, d.err = nil, errShort
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

func (d *decoder) flag() bool { return d.number() != 0 }

func (d *decoder) text() string {
	n := d.number()
	if n > uint64(len(d.rest)) {
		d.rest, d.err = nil, errShort
		return ""
	}
	s := string(d.rest[:n])
	d.rest = d.rest[n:]
	return s
}

func (d *decoder) texts() []string {
	n := d.number()
	if n > uint64(len(d.rest)) { // each takes a byte at least
		d.rest, d.err = nil, errShort
		return nil
	}
	list := make([]string, 0, n)
	for range n {
		list = append(list, d.text())
	}
	return list
}
