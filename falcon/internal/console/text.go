package console

import (
	"regexp"
	"strings"

	"github.com/falcon-vm/falcon-go/internal/printable"
)

// maxLine bounds how much of one line is kept. Prompts are far shorter; a flood
// without line ends must not grow memory.
const maxLine = 4096

// lineScanner turns console bytes into the lines a person would see: escape
// sequences and control characters removed, backspace and carriage return
// obeyed. It sees each byte once and its zero value is ready for use.
type lineScanner struct {
	line   []byte
	state  escState
	cr     bool // a carriage return came; a printable byte would overwrite
	onLine func(line string)
}

type escState uint8

const (
	escNone   escState = iota
	escStart           // after ESC
	escCSI             // after ESC [
	escString          // inside OSC, DCS, PM or APC, up to BEL or ST
	escStrEsc          // ESC inside such a string
	escOne             // one more byte belongs to the sequence
)

// Write feeds bytes and calls onLine, if set, for each completed line.
func (s *lineScanner) Write(p []byte) (int, error) {
	for _, b := range p {
		s.put(b)
	}
	return len(p), nil
}

// partial is the line that has no end yet: where a prompt stands.
func (s *lineScanner) partial() string { return string(s.line) }

func (s *lineScanner) put(b byte) {
	if s.state != escNone {
		s.escape(b)
		return
	}
	switch {
	case b == 0x1b:
		s.state = escStart
	case b == '\n':
		if s.onLine != nil {
			s.onLine(string(s.line))
		}
		s.line, s.cr = s.line[:0], false
	case b == '\r':
		s.cr = true
	case b == '\b':
		if n := len(s.line); n > 0 {
			s.line = s.line[:n-1]
		}
	case b >= 0x20 && b != 0x7f || b == '\t':
		s.printable(b)
	}
}

func (s *lineScanner) printable(b byte) {
	if s.cr {
		s.line, s.cr = s.line[:0], false
	}
	if len(s.line) < maxLine {
		s.line = append(s.line, b)
	}
}

func (s *lineScanner) escape(b byte) {
	switch s.state {
	case escStart:
		s.state = afterEscape(b)
	case escCSI:
		if b >= 0x40 && b <= 0x7e || b == '\n' {
			s.state = escNone
		}
	case escString:
		if b == 0x07 || b == '\n' { // a newline means the string was never one
			s.state = escNone
		} else if b == 0x1b {
			s.state = escStrEsc
		}
	default: // escStrEsc, escOne
		s.state = escNone
	}
}

func afterEscape(b byte) escState {
	switch b {
	case '[':
		return escCSI
	case ']', 'P', '^', '_', 'X':
		return escString
	case '(', ')', '#', ' ', '%':
		return escOne
	}
	return escNone
}

// lastLines gives the last n lines of raw console bytes as readable text.
func lastLines(raw []byte, n int) string {
	var lines []string
	s := lineScanner{onLine: func(l string) {
		if l = strings.TrimRight(l, " \t"); l != "" {
			lines = append(lines, l)
		}
	}}
	_, _ = s.Write(raw)
	if l := strings.TrimRight(s.partial(), " \t"); l != "" {
		lines = append(lines, l)
	}
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return printable.Text(strings.ToValidUTF8(strings.Join(lines, "\n"), "\uFFFD"))
}

var (
	// shellPrompt is what root's and users' prompts end in when an image says
	// nothing better: sh, bash, ash, ksh ("# ", "$ "), zsh and csh ("% ", "> ").
	shellPrompt = regexp.MustCompile(`[#$%>] ?$`)
	// loginPrompt is getty's on Linux ("host login: "), illumos ("host console
	// login: ") and the BSDs.
	loginPrompt    = regexp.MustCompile(`(?i)(?:^|\s)login: ?$`)
	lastLogin      = regexp.MustCompile(`(?i)last (?:failed )?login: ?$`)
	passwordPrompt = regexp.MustCompile(`(?i)password: ?$`)
	loginRefused   = regexp.MustCompile(`(?i)login incorrect|authentication failure`)
	kernelMessage  = regexp.MustCompile(`\[ *[0-9]+\.[0-9]{6}\].*$`)
)

// withoutKernel cuts a kernel message off the end of a line, which is how a
// prompt looks that a message was printed behind.
func withoutKernel(line string) string {
	return kernelMessage.ReplaceAllString(line, "")
}

// isPrompt reports whether line is a shell's prompt and nothing behind it.
func isPrompt(line string, known *regexp.Regexp) bool {
	if len(line) > 512 || isLogin(line) {
		return false
	}
	if known != nil && known.MatchString(line) {
		return true
	}
	return known == nil && shellPrompt.MatchString(line)
}

func isLogin(line string) bool {
	return loginPrompt.MatchString(line) && !lastLogin.MatchString(line)
}
