// Package printable makes words that others have said, such as a guest, its files
// or a hypervisor, harmless to a terminal and plain to a person: no escape
// sequences, no overwritten lines, no text that runs the other way, no bytes that
// are no text.
package printable

import (
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Text returns words of several lines, in which all but line feeds, tabs and what
// is seen is written as Go writes it in strings.
func Text(s string) string { return escape(s, "\n\t") }

// Line returns words that are to stay on one line.
func Line(s string) string { return escape(s, "") }

const plainWord = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:@%+=,-"

// Word returns a path or a name as one word of a shell's, for a command that is to
// be pasted.
func Word(s string) string {
	if s != "" && strings.Trim(s, plainWord) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// Quote returns a name in quotation marks.
func Quote(s string) string { return `"` + Line(s) + `"` }

// escape returns s where all that cannot be seen is escaped but what keep has.
func escape(s, keep string) string {
	if plain(s, keep) {
		return s
	}
	if keep != "" {
		s = strings.ReplaceAll(s, "\r\n", "\n") // as consoles end their lines
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case harmless(r, n, keep):
			b.WriteString(s[:n])
		case r == utf8.RuneError && n == 1:
			b.WriteString(`\x` + strconv.FormatUint(uint64(s[0])|0x100, 16)[1:])
		default:
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
		s = s[n:]
	}
	return b.String()
}

func plain(s, keep string) bool {
	for i, r := range s {
		n := utf8.RuneLen(r)
		if r == utf8.RuneError {
			_, n = utf8.DecodeRuneInString(s[i:])
		}
		if !harmless(r, n, keep) {
			return false
		}
	}
	return true
}

// harmless reports whether a character of n bytes may be printed as it is. Those
// that are seen do not direct a terminal, nor turn the text around.
func harmless(r rune, n int, keep string) bool {
	if r == utf8.RuneError && n == 1 {
		return false
	}
	return unicode.IsGraphic(r) || strings.ContainsRune(keep, r)
}

// JSON returns a document of JSON, as package json writes it, in which what a
// terminal might obey is escaped: package json does that for ASCII alone.
func JSON(document []byte) []byte {
	if plain(string(document), "\n\t") {
		return document
	}
	var b []byte
	for len(document) > 0 {
		r, n := utf8.DecodeRune(document)
		switch {
		case harmless(r, n, "\n\t"):
			b = append(b, document[:n]...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			b = appendHex(appendHex(b, high), low)
		default:
			b = appendHex(b, r)
		}
		document = document[n:]
	}
	return b
}

func appendHex(b []byte, r rune) []byte {
	return append(append(b, `\u`...), strconv.FormatUint(uint64(r)|0x10000, 16)[1:]...)
}

// Writer returns a writer that passes words of others on as Text has them.
func Writer(to io.Writer) io.Writer { return &writer{to: to, escape: Text} }

// JSONWriter returns a writer that passes documents of JSON on as JSON has them.
func JSONWriter(to io.Writer) io.Writer {
	return &writer{to: to, escape: func(s string) string { return string(JSON([]byte(s))) }}
}

// writer escapes what goes through it. A character that is cut in two waits for its
// rest, and so does a return, which may be the end of a line.
type writer struct {
	to     io.Writer
	escape func(string) string
	rest   []byte
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	all := append(w.rest, p...)
	whole := len(all)
	for back := 1; back <= min(utf8.UTFMax-1, len(all)); back++ {
		if tail := all[len(all)-back:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) || tail[0] == '\r' && back == 1 {
				whole -= back
			}
			break
		}
	}
	if _, err := io.WriteString(w.to, w.escape(string(all[:whole]))); err != nil {
		return 0, err
	}
	w.rest = append([]byte(nil), all[whole:]...)
	return len(p), nil
}
