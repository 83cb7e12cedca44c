package console

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// Handover is the guest's side of an exchange up to the command, for a guest
// whose shell is not a real one: it understands the lines of this package by
// itself instead of running them.
type Handover struct {
	id      string
	want    int // bytes of payload
	base    int // bytes of payloads before
	payload strings.Builder
	// Shell is the command once it has arrived, Direct as in [Command].
	Shell  string
	Direct bool
}

// bootstrapRE matches what [bootstrapLine] types, whatever shell it asks for.
var bootstrapRE = regexp.MustCompile(`^ (?:sh -c ')?\(?_i=([A-Z2-7]{9});_t\(\).*-lt ([0-9]+) \]&&IFS=`)

// ParseBootstrap returns the exchange that a line typed at a shell's prompt
// begins, nil when it is any other line.
func ParseBootstrap(line string) *Handover {
	m := bootstrapRE.FindStringSubmatch(line)
	if m == nil {
		return nil
	}
	size, err := strconv.Atoi(m[2])
	if err != nil || size > maxDirect {
		return nil
	}
	return &Handover{id: m[1], want: size}
}

// Ready is what the guest answers to the bootstrap line.
func (h *Handover) Ready() string { return h.records(string(rune(kindReady))) }

// Line takes a line of payload. It returns what the guest answers, and whether
// that was the last line. An error means that no command has come of it.
func (h *Handover) Line(line string) (answer string, done bool, err error) {
	h.payload.WriteString(line)
	answer = h.records(fmt.Sprintf("%c %d", kindAck, h.base+h.payload.Len()))
	switch n := h.payload.Len(); {
	case n < h.want:
		return answer, false, nil
	case n > h.want:
		return answer + h.records(string(rune(kindMismatch))), true, fmt.Errorf("%d bytes of payload came, %d were announced", n, h.want)
	}
	script := decodePayload(h.payload.String())
	if m := loaderRE.FindStringSubmatch(script); m != nil {
		h.base += h.want
		h.want, err = strconv.Atoi(m[1])
		h.payload.Reset()
		return answer, false, err
	}
	h.Shell, h.Direct, err = parseScript(script)
	return answer, true, err
}

// Status is what ends a direct exchange.
func (h *Handover) Status(status int) string {
	return h.records(fmt.Sprintf("%c %d", kindStatus, status))
}

// records returns a record as the guest prints it.
func (h *Handover) records(text string) string {
	r := fmt.Sprintf("%c%s %s.\n", recordStart, h.id, text)
	return r + r
}

// loaderRE matches what [loader] makes.
var loaderRE = regexp.MustCompile(`^_n=0;_c=;_d=;while \[ \$_n -lt ([0-9]+) \]`)

// parseScript returns the command that [script] or [directScript] was given.
func parseScript(script string) (command string, direct bool, err error) {
	for _, form := range []struct {
		before, after string
		direct        bool
	}{
		{"(exec </dev/null;unset _c _l;eval ", ");_t \"s $?\"", true},
		{"exec 3>&1\n{ (exec sh -c ", " </dev/null 2>&1 3>&-)\n", false},
		{"exec 3>&1\n{ (exec </dev/null 2>&1 3>&-;unset _c _d _i _l _n;eval ", ")\n", false},
	} {
		if rest, ok := strings.CutPrefix(script, form.before); ok {
			word, rest, err := unquote(rest)
			if err == nil && strings.HasPrefix(rest, form.after) {
				return word, form.direct, nil
			}
		}
	}
	return "", false, fmt.Errorf("the script is not one of this falcon's: %.60q", script)
}

// unquote reads a word that [quote] has made and returns what follows it.
func unquote(s string) (word, rest string, err error) {
	var b strings.Builder
	for {
		open, ok := strings.CutPrefix(s, "'")
		text, more, closed := strings.Cut(open, "'")
		if !ok || !closed {
			return "", "", fmt.Errorf("a quoted word is not closed: %.60q", s)
		}
		b.WriteString(text)
		if s, ok = strings.CutPrefix(more, `\'`); !ok {
			return b.String(), more, nil
		}
		b.WriteByte('\'')
	}
}

// decodePayload is the inverse of [encodePayload].
func decodePayload(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 >= len(text) {
			b.WriteByte(text[i])
			continue
		}
		i++
		switch c := text[i]; {
		case c == 'n':
			b.WriteByte('\n')
		case c == '0' && i+3 < len(text):
			n, _ := strconv.ParseUint(text[i+1:i+4], 8, 8)
			b.WriteByte(byte(n))
			i += 3
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// Send writes all that out gives as the pieces of an exchange's output, until
// it ends, and then the status of the command, which is asked for at that
// moment.
func (h *Handover) Send(w io.Writer, out io.Reader, status func() int) error {
	buf := make([]byte, pieceSize)
	pieces := 0
	send := func(p []byte) error {
		pieces++
		_, err := io.WriteString(w, h.piece(pieces, p))
		return err
	}
	for {
		n, rerr := out.Read(buf)
		if n > 0 {
			if err := send(buf[:n]); err != nil {
				return err
			}
		}
		if rerr != nil {
			break
		}
	}
	if err := send(fmt.Appendf(nil, "%s%03d", trailer(h.id), status())); err != nil {
		return err
	}
	_, err := io.WriteString(w, h.records(fmt.Sprintf("%c %d", kindEnd, pieces)))
	return err
}

// piece encodes a piece of output.
func (h *Handover) piece(n int, p []byte) string {
	text := base64.StdEncoding.EncodeToString(p)
	if len(text) <= maxShort {
		return h.records(fmt.Sprintf("%c %d %d %c%s", kindShort, n, len(text), kindBase64, text))
	}
	const width = 76 // as base64 breaks its lines
	var b bytes.Buffer
	for rest := text; rest != ""; {
		k := min(width, len(rest))
		b.WriteString(rest[:k] + "\n")
		rest = rest[k:]
	}
	size := b.Len() - 1 // a shell's $() drops the last newline
	sum := cksum(b.Bytes()[:size])
	return b.String() + h.records(fmt.Sprintf("%c %d %d %d", kindBase64, n, size, sum))
}
