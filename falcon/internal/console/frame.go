package console

import (
	"errors"
	"fmt"
	"strings"
)

// What crosses the console, both ways. Nothing in this file does any I/O.
//
// Towards the guest: one bootstrap line, then the script as payload lines.
// From the guest: records "RS id kind args . NL", each printed twice because a
// kernel message can break one, and between them encoded output.

const (
	recordStart = 0x1e // RS; a terminal echoes it as "^^" if at all
	maxRecord   = 96   // bytes from RS to NL; real ones stay under 64

	// payloadLine bounds a line typed at the guest. A terminal in canonical mode
	// drops what exceeds its line buffer: 4095 bytes on Linux, 256 on illumos.
	payloadLine = 240
	// payloadWindow bounds what is sent without being acknowledged, because the
	// terminal's input queue holds 4095 bytes and then drops.
	payloadWindow = 1900

	// pieceSize is how much output is taken at once: as much as a pipe holds.
	pieceSize = 64 << 10
	// maxArg is the longest command passed as an argument. Linux takes 128 KiB
	// (MAX_ARG_STRLEN).
	maxArg = 96 << 10
)

// record kinds.
const (
	kindReady    = 'r' // the child shell waits for the payload
	kindAck      = 'a' // length of payload received
	kindMismatch = 'x' // the payload had another length than announced
	kindBase64   = 'b' // a piece ended: number, checksum, length of its text
	kindHex      = 'h' // likewise, in hexadecimal
	kindStatus   = 's' // the command ended: exit status
	kindEnd      = 'e' // no more output: number of pieces
	kindVerify   = 'v' // a shell answered
)

// bootstrapLine is what is typed at the prompt: a child shell that collects
// size bytes of payload and runs them. It must stay under payloadLine bytes.
// The control characters in front clear a half-typed line (end of line, kill).
func bootstrapLine(id string, size int) string {
	return fmt.Sprintf("\x05\x15"+` sh -c '_i=%s;t(){ printf "\036$_i $1.\n\036$_i $1.\n";};t r;_c=;while [ ${#_c} -lt %d ]&&IFS= read -r _l;do _c=$_c$_l;t "a ${#_c}";done;[ ${#_c} = %d ]||{ t x;exit;};eval "$(printf %%b "$_c")"'`+"\n", id, size, size)
}

// verifyLine makes any shell prove that it is one.
func verifyLine(id string) string {
	return fmt.Sprintf("\x05\x15"+` printf '\036%%s v.\n' %s %s`+"\n", id, id)
}

// runner is the script around the command, for any POSIX shell.
//
// The command's shell writes into a pipe; its status goes to the terminal
// directly, so that a background process that keeps the pipe open cannot hold
// it back. SIGQUIT (Ctrl-\) then ends the reading and leaves the pipe drained.
//
// dd reads what is there, so a line is shown when it is written, while a flood
// is taken in pipe-sized pieces. Variables are named apart from the command's,
// which sees none of them.
const runner = `if command -v base64 >/dev/null 2>&1;then _k=b;e(){ base64;};else _k=h;e(){ od -An -v -tx1|tr -d ' \t';};fi
exec 3>&1;trap : QUIT
{ RUN </dev/null 2>&1 3>&-
t "s $?" >&3;} 2>/dev/null|{ exec 4<&0 2>/dev/null;_n=0
trap 'cat <&4 >/dev/null 3>&- & t "e $_n" >&3;exit' QUIT
while _b=$(dd bs=SIZE count=1 <&4 2>/dev/null 3>&-|e) && [ -n "$_b" ];do
_n=$((_n+1));printf '%s\n' "$_b" >&3
t "$_k $_n $(printf %s "$_b"|cksum)" >&3
done;t "e $_n" >&3;}`

// script puts a command into the runner. A long command cannot be an argument,
// so there a subshell evaluates it.
func script(command string) string {
	run := "sh -c " + quote(command)
	if len(command) > maxArg {
		run = "(unset _c _i _k _l;eval " + quote(command) + ")"
	}
	return strings.NewReplacer("RUN", run, "SIZE", fmt.Sprint(pieceSize)).Replace(runner)
}

// quote makes one word of any text without NUL for a POSIX shell.
func quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// encodePayload spells text for printf %b with characters that no terminal and
// no line editor treats specially.
func encodePayload(text string) string {
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; plain(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\0%03o`, c)
		}
	}
	return b.String()
}

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte(" %+,-./:=_;()[]{}<>|&\"'$*?", c) >= 0
}

// record is one parsed record.
type record struct {
	kind byte
	args [3]int
}

// argCount is the number of arguments of a kind of record, -1 for no such kind.
func argCount(kind byte) int {
	switch kind {
	case kindReady, kindMismatch, kindVerify:
		return 0
	case kindAck, kindStatus, kindEnd:
		return 1
	case kindBase64, kindHex:
		return 3
	}
	return -1
}

// parseRecord reads the text between RS and NL, strictly.
func parseRecord(id, text string) (record, bool) {
	rest, ok := strings.CutPrefix(text, id+" ")
	if !ok || len(rest) < 2 || !strings.HasSuffix(rest, ".") {
		return record{}, false
	}
	r := record{kind: rest[0]}
	fields := strings.Fields(rest[1 : len(rest)-1])
	if len(fields) != argCount(r.kind) {
		return record{}, false
	}
	for i, f := range fields {
		n, ok := number(f)
		if !ok {
			return record{}, false
		}
		r.args[i] = n
	}
	return r, true
}

// number parses up to ten decimal digits and nothing else.
func number(s string) (int, bool) {
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' || i >= 10 {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, s != ""
}

// maxRegion bounds what is kept between two records. A piece is at most
// pieceSize*2+newlines in hexadecimal; the rest may be noise.
const maxRegion = 512 << 10

// Decoder takes console bytes apart into records and output. It never gives out
// a byte of output that does not match the checksum computed in the guest.
type Decoder struct {
	id     string
	inRec  bool
	rec    []byte
	region []byte // bytes since the last valid record, without carriage returns
	pieces int

	// Ready and Mismatch tell that the record came; Acked is the payload length
	// acknowledged.
	Ready, Mismatch, Verified bool
	Acked                     int
	// Exited tells that the command ended with Status.
	Exited bool
	Status int
	// Ended tells that all output has been given out.
	Ended bool
	// Noise counts the pieces that had to be cleaned of other console output.
	Noise int
}

// NewDecoder makes a decoder for the exchange with this identifier.
func NewDecoder(id string) *Decoder { return &Decoder{id: id} }

// Feed takes the next bytes and returns the output they complete.
func (d *Decoder) Feed(p []byte) ([]byte, error) {
	var out []byte
	for _, b := range p {
		if d.Ended {
			break
		}
		if !d.inRec && b != recordStart {
			d.noise(b)
			continue
		}
		piece, err := d.record(b)
		out = append(out, piece...)
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

func (d *Decoder) noise(b byte) {
	if b == '\r' {
		return
	}
	if len(d.region) >= maxRegion { // keep the newer half: a piece is at the end
		d.region = d.region[:copy(d.region, d.region[maxRegion/2:])]
	}
	d.region = append(d.region, b)
}

// record collects a record; one that turns out to be none is noise.
func (d *Decoder) record(b byte) ([]byte, error) {
	if d.inRec && b != '\n' && b != recordStart && len(d.rec) < maxRecord {
		if b != '\r' {
			d.rec = append(d.rec, b)
		}
		return nil, nil
	}
	if d.inRec && b == '\n' {
		if r, ok := parseRecord(d.id, string(d.rec[1:])); ok {
			d.inRec, d.rec = false, d.rec[:0]
			return d.apply(r)
		}
	}
	for _, x := range d.rec {
		d.noise(x)
	}
	d.rec = d.rec[:0]
	if d.inRec = b == recordStart; d.inRec {
		d.rec = append(d.rec, b)
	} else {
		d.noise(b)
	}
	return nil, nil
}

func (d *Decoder) apply(r record) ([]byte, error) {
	switch r.kind {
	case kindReady:
		d.Ready = true
	case kindAck:
		d.Acked = max(d.Acked, r.args[0])
	case kindMismatch:
		d.Mismatch = true
	case kindVerify:
		d.Verified = true
	case kindStatus:
		d.Exited, d.Status = true, normalStatus(r.args[0])
		return nil, nil // may fall into the middle of a piece
	case kindBase64, kindHex:
		return d.piece(r)
	case kindEnd:
		return nil, d.finish(r.args[0])
	}
	d.region = d.region[:0]
	return nil, nil
}

// normalStatus maps ksh93's 256+signal to the usual 128+signal.
func normalStatus(n int) int {
	if n > 256 {
		return 128 + n&0x7f
	}
	return n
}

func (d *Decoder) piece(r record) ([]byte, error) {
	n := r.args[0]
	if n == d.pieces {
		return nil, nil // the second copy of the record
	}
	if n != d.pieces+1 {
		return nil, fmt.Errorf("%w: piece %d is missing", ErrDamaged, d.pieces+1)
	}
	enc := base64Text
	if r.kind == kindHex {
		enc = hexText
	}
	out, clean, err := enc.restore(d.region, r.args[2], uint32(r.args[1]))
	if err != nil {
		return nil, fmt.Errorf("%w: piece %d: %w", ErrDamaged, n, err)
	}
	if !clean {
		d.Noise++
	}
	d.pieces, d.region = n, d.region[:0]
	return out, nil
}

func (d *Decoder) finish(pieces int) error {
	switch {
	case pieces != d.pieces:
		return fmt.Errorf("%w: %d of %d pieces arrived", ErrDamaged, d.pieces, pieces)
	case !d.Exited:
		return fmt.Errorf("%w: the exit status is missing", ErrDamaged)
	}
	d.Ended = true
	return nil
}

var errNotRestored = errors.New("it cannot be told from what else was printed there")
