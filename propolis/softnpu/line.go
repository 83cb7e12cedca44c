package softnpu

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// preamble starts a request on the management channel: a serial line, on which
// a guest's console or echo may have said something else before.
const preamble = 0xe5

// MaxLine bounds a request in bytes. It is for the source of a program: what
// SoftNPU itself takes has 10,240 bytes at most.
const MaxLine = 4 << 20

// FrameRequest returns a request as it goes over the management channel.
func FrameRequest(r Request) ([]byte, error) {
	b, err := MarshalRequest(r)
	if err != nil {
		return nil, err
	}
	if len(b)+2 > MaxLine {
		return nil, fmt.Errorf("the request has %d bytes: an ASIC takes %d", len(b)+2, MaxLine)
	}
	return append(append([]byte{preamble}, b...), '\n'), nil
}

// errLongLine is a line that was dropped.
var errLongLine = errors.New("the line is too long")

// lineReader takes lines from a channel, of which it keeps no more than a
// bound in memory.
type lineReader struct {
	from io.Reader
	most int

	buf     []byte
	held    []byte // of buf: read and not yet looked at
	line    []byte
	dropped int // bytes of a line that is too long
}

func newLineReader(from io.Reader, most int) *lineReader {
	return &lineReader{from: from, most: most, buf: make([]byte, 16<<10)}
}

// next returns the next line without its end, and without carriage returns and
// NULs. It is good until the next call. A line that is longer than the bound
// is read to its end and is an errLongLine.
func (l *lineReader) next() ([]byte, error) {
	l.line = l.line[:0]
	for {
		part, rest, ended := bytes.Cut(l.held, []byte{'\n'})
		l.held = rest
		for _, c := range part {
			switch {
			case c == '\r' || c == 0:
			case len(l.line) < l.most && l.dropped == 0:
				l.line = append(l.line, c)
			default:
				l.dropped++
			}
		}
		if ended {
			n := l.dropped
			l.dropped = 0
			if n > 0 {
				return nil, fmt.Errorf("%w: it has %d bytes, and %d are allowed", errLongLine, l.most+n, l.most)
			}
			return l.line, nil
		}
		n, err := l.from.Read(l.buf)
		l.held = l.buf[:n]
		if n == 0 && err != nil {
			return nil, err
		}
	}
}

// requestIn returns what a line has after the preamble. Without one the line
// is nobody's.
func requestIn(line []byte) ([]byte, bool) {
	_, request, found := bytes.Cut(line, []byte{preamble})
	return request, found
}
