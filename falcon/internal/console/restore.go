package console

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// textCode is an encoding in lines of one width.
type textCode struct {
	name   string
	width  int
	valid  [256]bool
	decode func(text []byte) ([]byte, error)
}

// base64Text is what every base64 program prints. hexText is od -An -v -tx1
// without its blanks, 16 bytes a line.
var (
	base64Text = newTextCode("base64", 76, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=", func(t []byte) ([]byte, error) {
		return base64.StdEncoding.AppendDecode(nil, t)
	})
	hexText = newTextCode("hex", 32, "0123456789abcdef", func(t []byte) ([]byte, error) {
		return hex.AppendDecode(nil, bytes.ReplaceAll(t, []byte("\n"), nil))
	})
)

func newTextCode(name string, width int, alphabet string, decode func([]byte) ([]byte, error)) *textCode {
	c := &textCode{name: name, width: width, decode: decode}
	for i := range len(alphabet) {
		c.valid[alphabet[i]] = true
	}
	return c
}

// restore finds the text of the given length and checksum in region, into which
// other console output may have been inserted anywhere, and decodes it. clean
// reports that nothing had to be removed.
//
// The length fixes where each line ends, so a line of the wrong length betrays
// an insertion, and where the text goes on after it follows from the distance
// to the next line end.
func (c *textCode) restore(region []byte, length int, sum string) (out []byte, clean bool, err error) {
	if length <= 0 || length > len(region) {
		return nil, false, errNotRestored
	}
	r := &restorer{code: c, total: length, sum: sum, budget: 2000, steps: 1 << 22}
	exact := len(region) == length+1 // nothing was inserted
	if text := region[:length]; sumMatches(text, sum) || sum == noSum && exact {
		out, err = c.decode(text)
		return out, true, err
	}
	for _, in := range [][]byte{c.withoutForeign(region), region} {
		r.in, r.out = in, make([]byte, length+1)
		if r.solve(0, 0) {
			out, err = c.decode(r.out[:length])
			return out, false, err
		}
	}
	return nil, false, errNotRestored
}

// withoutForeign removes everything from a byte outside the alphabet to the end
// of its line. That alone deals with each message that starts with one, as
// those of the kernel do ("[    1.234567] ...").
func (c *textCode) withoutForeign(region []byte) []byte {
	out := make([]byte, 0, len(region))
	skip := false
	for _, b := range region {
		switch {
		case skip:
			skip = b != '\n'
		case b != '\n' && !c.valid[b]:
			skip = true
		default:
			out = append(out, b)
		}
	}
	return out
}

// restorer searches for the places of the insertions.
type restorer struct {
	code   *textCode
	in     []byte
	out    []byte // total bytes of text and its line end
	total  int
	sum    string
	budget int // checksums it may still compute
	steps  int // bytes it may still compare
}

// lineEnd is the place of the line end of the line that holds place t.
func (r *restorer) lineEnd(t int) int {
	w := r.code.width + 1
	return min(t/w*w+w-1, r.total)
}

func (r *restorer) fits(b byte, t int) bool {
	if t == r.lineEnd(t) {
		return b == '\n'
	}
	return r.code.valid[b]
}

// solve matches in[p:] to the text from place t on, and where it stops matching
// tries the places where the text could go on.
func (r *restorer) solve(p, t int) bool {
	p0, t0 := p, t
	for t <= r.total && p < len(r.in) && r.fits(r.in[p], t) {
		r.out[t] = r.in[p]
		p, t = p+1, t+1
	}
	r.steps -= p - p0
	if t > r.total {
		r.budget--
		return sumMatches(r.out[:r.total], r.sum)
	}
	return r.after(p0, t0, p, t)
}

// after tries each place q where the text may go on, given that in[p] does not
// fit place t and that all was well at in[p0] and place t0: first after line
// ends, as messages end with one, then anywhere near.
func (r *restorer) after(p0, t0, p, t int) bool {
	// The distance from q to the next line end says where in its line the text
	// goes on: in the line of place t, or the one before where the noise began
	// near its end and happened to fill it up.
	resume := func(q int) bool {
		r.steps--
		d := bytes.IndexByte(r.in[q:min(len(r.in), q+r.code.width+1)], '\n')
		if d < 0 {
			return false
		}
		for _, end := range []int{r.lineEnd(t), t - t%(r.code.width+1) - 1} {
			back := end - d
			same := p0 + back - t0 // where the noise began
			if back > t || back < t0 || same >= q || len(r.in)-q <= r.total-back {
				continue
			}
			copy(r.out[t0:back], r.in[p0:same]) // undo what other tries left
			if r.solve(q, back) {
				return true
			}
		}
		return false
	}
	more := func() bool { return r.budget > 0 && r.steps > 0 }
	for q := p; q < len(r.in) && more(); q++ {
		if r.in[q] == '\n' && resume(q+1) {
			return true
		}
	}
	for q := max(p0, p-r.code.width) + 1; q < min(len(r.in), p+2*r.code.width) && more(); q++ {
		if resume(q) {
			return true
		}
	}
	return false
}

// noSum stands in a record for the checksum of a guest that has no program for
// one. Then the length is the check: what is inserted makes the text longer.
const noSum = "-"

// isSum reports whether text has the form of a checksum: decimal from cksum,
// hexadecimal from md5sum.
func isSum(text string) bool {
	_, decimal := number(text)
	return text == noSum || decimal || len(text) == 2*md5.Size && strings.Trim(text, "0123456789abcdef") == ""
}

func sumMatches(p []byte, sum string) bool {
	if len(sum) == 2*md5.Size {
		return fmt.Sprintf("%x", md5.Sum(p)) == sum
	}
	return strconv.FormatUint(uint64(cksum(p)), 10) == sum
}

// cksum is the checksum of POSIX cksum: a CRC over the bytes and their number.
func cksum(p []byte) uint32 {
	var crc uint32
	for _, b := range p {
		crc = crc<<8 ^ cksumTable[byte(crc>>24)^b]
	}
	for n := len(p); n > 0; n >>= 8 {
		crc = crc<<8 ^ cksumTable[byte(crc>>24)^byte(n)]
	}
	return ^crc
}

var cksumTable = func() (t [256]uint32) {
	for i := range t {
		c := uint32(i) << 24
		for range 8 {
			if c&(1<<31) != 0 {
				c = c<<1 ^ 0x04c11db7
			} else {
				c <<= 1
			}
		}
		t[i] = c
	}
	return t
}()
