package console

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
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
	maxRecord   = 600  // bytes from RS to the line end

	// maxShort is the longest text sent inside a record, to spare the guest a
	// cksum process. Four copies are printed; two that agree are believed.
	maxShort = 240

	// payloadLine bounds a line typed at the guest. A terminal in canonical mode
	// drops what exceeds its line buffer: 4095 bytes on Linux, 256 on illumos.
	payloadLine = 240
	// payloadWindow bounds what is sent without being acknowledged, because the
	// terminal's input queue holds 4095 bytes and then drops.
	payloadWindow = 1900

	// pieceSize is how much output is taken at once: as much as a pipe holds.
	pieceSize = 64 << 10
	// maxDirect is how long a payload the bootstrap line collects by itself.
	maxDirect = 16 << 10
	// maxArg is the longest command passed as an argument. Linux takes 128 KiB
	// (MAX_ARG_STRLEN).
	maxArg = 96 << 10
)

// clearLine clears a half-typed line at any prompt: to its end, kill it.
const clearLine = "\x05\x15"

// record kinds.
const (
	kindReady    = 'r' // the child shell waits for the payload
	kindAck      = 'a' // length of payload received
	kindMismatch = 'x' // the payload had another length than announced
	kindBase64   = 'b' // a piece ended: number, length of its text, checksum
	kindHex      = 'h' // likewise, in hexadecimal
	kindShort    = 'p' // a short piece: number, length of its text, its text
	kindEnd      = 'e' // no more output: number of pieces
	kindStatus   = 's' // exit status of a command that has written to the console
	kindVerify   = 'v' // a shell answered
)

// bootstrapLine is what is typed at the prompt: a child shell that collects size
// bytes of payload and runs them. It must stay under 256 bytes.
//
// A subshell of the console's shell spares the guest the start of another one.
// A shell that cannot parse that (csh), or has no builtin printf for a long
// payload (mksh), is made to start sh. Names begin with _ because the line and
// the payload are subject to the aliases of an interactive shell.
func bootstrapLine(id string, size int, own bool) string {
	line := fmt.Sprintf(`_i=%s;_t(){ printf "\036$_i $1.\n\036$_i $1.\n";};set +eux;_t r;_c=;while [ ${#_c} -lt %d ]&&IFS= read -r _l;do _c=$_c$_l;_t "a ${#_c}";done;[ ${#_c} = %d ]||{ _t x;exit;};eval "$(printf %%b "$_c")"`, id, size, size)
	if own {
		return clearLine + " sh -c '" + line + "'\n"
	}
	return clearLine + " (" + line + ")\n"
}

// verifyLine makes any shell prove that it is one.
func verifyLine(id string) string {
	return fmt.Sprintf(clearLine+` printf '\036%%s v.\n' %s %s`+"\n", id, id)
}

// runner is the script around the command, for any POSIX shell.
//
// The command's shell writes into a pipe. When it has ended, the trailer with
// its status goes into the same pipe, so what comes before the trailer is all
// its output, although a background process may keep the pipe open; that one's
// further output is read and dropped.
//
// dd reads what is there, so a line is shown when it is written, while a flood
// is taken in pipe-sized pieces. The reader knows the trailer by its encoded
// form; a full piece need not be searched. It outlives the Ctrl-C that ends the
// command, and so hands over what the command wrote until then. The command sees none of these
// variables.
const runner = `exec 3>&1
{ RUN
printf "TRAILER%03d" $?;} 2>/dev/null|{ exec 4<&0 2>/dev/null;trap '' INT;LC_ALL=C;_n=0
if command -v base64 >/dev/null;then _k=b;_e=base64;else _k=h;_e=_h;_h(){ od -An -v -tx1|tr -d ' \t';};fi
while _b=$(dd bs=SIZE count=1 <&4 3>&-|$_e) && [ -n "$_b" ];do
_n=$((_n+1))
if [ ${#_b} -le SHORT ];then _t "p $_n ${#_b} $_k$_b";_t "p $_n ${#_b} $_k$_b"
else printf '%s\n' "$_b";_s=-
if command -v cksum >/dev/null;then _s=$(printf %s "$_b"|cksum);elif command -v md5sum >/dev/null;then _s=$(printf %s "$_b"|md5sum);fi
_t "$_k $_n ${#_b} ${_s%% *}";fi >&3
[ ${#_b} -gt SIZE ]||case $_b in *B64*|*HEX*)break;;esac
done;_t "e $_n" >&3
while read -r _b <&4;do :;done 3>&- &
}`

// trailer marks the end of a command's output; three digits of exit status
// follow. Base64 shows a string of nine bytes as the same text only where it
// starts on a multiple of three, and both encodings break lines, so it takes
// six copies at these distances for one to stand unbroken in any place.
func trailer(id string) string {
	return strings.Join([]string{id, id, id, id, id, id}, "-")
}

// loader is a payload for long payloads: it collects what follows it, announced
// as size bytes, in two steps, because appending a line to a long variable costs
// a shell the whole variable. It acknowledges the sum of both payloads.
func loader(size, base int) string {
	return fmt.Sprintf(`_n=0;_c=;_d=;while [ $_n -lt %d ]&&IFS= read -r _l;do _d=$_d$_l;_n=$((_n+${#_l}));[ ${#_d} -lt 8000 ]||{ _c=$_c$_d;_d=;}
_t "a $((%d+_n))";done;[ $_n = %d ]||{ _t x;exit;};_c=$_c$_d;_d=;eval "$(printf %%b "$_c")"`, size, base, size)
}

// payloads is what to send after the bootstrap line, each when all before it has
// been acknowledged.
func payloads(script string) []string {
	p := encodePayload(script)
	if len(p) <= maxDirect {
		return []string{p}
	}
	// The loader names its own length, which may change its length.
	l, base := "", 0
	for {
		l = encodePayload(loader(len(p), base))
		if len(l) == base {
			return []string{l, p}
		}
		base = len(l)
	}
}

// script puts a command into the runner. A long command cannot be an argument,
// so there a subshell evaluates it.
func script(id, command string) string {
	const redirect = " </dev/null 2>&1 3>&-"
	run := "(exec sh -c " + quote(command) + redirect + ")"
	if len(command) > maxArg {
		run = "(exec" + redirect + ";unset _c _d _i _l _n;eval " + quote(command) + ")"
	}
	return strings.NewReplacer(
		"RUN", run, "SIZE", fmt.Sprint(pieceSize), "SHORT", fmt.Sprint(maxShort), "TRAILER", trailer(id),
		"B64", base64.StdEncoding.EncodeToString([]byte(id)), "HEX", hex.EncodeToString([]byte(id)),
	).Replace(runner)
}

// directScript runs a command in a subshell and tells its status.
func directScript(_, command string) string {
	return "(exec </dev/null;unset _c _l;eval " + quote(command) + ");_t \"s $?\""
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
		switch c := text[i]; {
		case plain(c):
			b.WriteByte(c)
		case c == '\\':
			b.WriteString(`\\`)
		case c == '\n':
			b.WriteString(`\n`)
		default:
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
	args [2]int
	text string // of a short piece; otherwise its checksum
	code *textCode
}

// argCount is the number of numbers in a kind of record, -1 for no such kind.
func argCount(kind byte) int {
	switch kind {
	case kindReady, kindMismatch, kindVerify:
		return 0
	case kindAck, kindEnd, kindStatus:
		return 1
	case kindShort, kindBase64, kindHex:
		return 2
	}
	return -1
}

// parseRecord reads what stands between RS and the final ".", strictly.
func parseRecord(id, text string) (record, bool) {
	rest, ok := strings.CutPrefix(text, id+" ")
	if !ok || rest == "" {
		return record{}, false
	}
	r := record{kind: rest[0]}
	rest = rest[1:]
	for i := range argCount(r.kind) {
		field, more, _ := strings.Cut(strings.TrimLeft(rest, " \t"), " ")
		if r.args[i], ok = number(field); !ok {
			return record{}, false
		}
		rest = more
	}
	switch r.kind {
	case kindShort:
		if rest == "" || len(rest) != r.args[1]+1 {
			return record{}, false
		}
		r.text, r.code = rest[1:], codeOf(rest[0])
	case kindBase64, kindHex:
		r.text, r.code = rest, codeOf(r.kind)
		if !isSum(rest) {
			return record{}, false
		}
	default:
		return r, rest == "" && argCount(r.kind) >= 0
	}
	return r, r.code != nil
}

func codeOf(kind byte) *textCode {
	switch kind {
	case kindBase64:
		return base64Text
	case kindHex:
		return hexText
	}
	return nil
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
	// Exited tells that the command ended with Status, and that all its output
	// has been given out.
	Exited bool
	Status int
	// Ended tells that the guest sends no more.
	Ended bool
	// Noise counts the pieces that had to be cleaned of other console output.
	Noise int

	short   string // the first copy of a short piece
	trailer []byte
	held    []byte // output that may be the beginning of the trailer
}

// NewDecoder makes a decoder for the exchange with this identifier.
func NewDecoder(id string) *Decoder { return &Decoder{id: id, trailer: []byte(trailer(id))} }

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
	if d.inRec && (b != '\n' || d.rec[len(d.rec)-1] != '.') && b != recordStart && len(d.rec) < maxRecord {
		if b != '\r' {
			d.rec = append(d.rec, b)
		}
		return nil, nil
	}
	if d.inRec && b == '\n' {
		text, _ := strings.CutSuffix(string(d.rec[1:]), ".")
		if r, ok := parseRecord(d.id, text); ok {
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
	case kindShort, kindBase64, kindHex:
		return d.piece(r)
	case kindStatus:
		d.Status, d.Exited, d.Ended = normalStatus(r.args[0]), true, true
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
		return nil, nil // another copy of the record
	}
	if n != d.pieces+1 {
		return nil, fmt.Errorf("%w: piece %d is missing", ErrDamaged, d.pieces+1)
	}
	if r.kind == kindShort && d.short != r.code.name+r.text {
		d.short = r.code.name + r.text
		return nil, nil // until another copy says the same
	}
	var out []byte
	var err error
	clean := true
	if r.kind == kindShort {
		out, err = r.code.decode([]byte(r.text))
	} else {
		out, clean, err = r.code.restore(d.region, r.args[1], r.text)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: piece %d: %w", ErrDamaged, n, err)
	}
	if !clean {
		d.Noise++
	}
	d.pieces, d.region, d.short = n, d.region[:0], ""
	return d.untilTrailer(out), nil
}

// untilTrailer gives the output before the trailer, which may be spread over
// pieces. What follows it comes from processes left in the background.
func (d *Decoder) untilTrailer(out []byte) []byte {
	if d.Exited {
		return nil
	}
	out = append(d.held, out...)
	d.held = nil
	if i := bytes.Index(out, d.trailer); i >= 0 {
		if digits := out[i+len(d.trailer):]; len(digits) >= 3 {
			n, ok := number(string(digits[:3]))
			d.Exited, d.Status = ok, normalStatus(n)
			return out[:i]
		}
	}
	// Hold back what the trailer may still be made of.
	for i := max(0, len(out)-len(d.trailer)-2); i < len(out); i++ {
		if rest := out[i:]; bytes.HasPrefix(d.trailer, rest) || bytes.HasPrefix(rest, d.trailer) {
			d.held = bytes.Clone(rest)
			return out[:i]
		}
	}
	return out
}

func (d *Decoder) finish(pieces int) error {
	switch {
	case pieces != d.pieces:
		return fmt.Errorf("%w: %d of %d pieces arrived", ErrDamaged, d.pieces, pieces)
	case !d.Exited:
		return fmt.Errorf("%w: its end is missing", ErrDamaged)
	}
	d.Ended = true
	return nil
}

var errNotRestored = errors.New("it cannot be told from what else was printed there")
