package syntax

import (
	"math/big"
	"strings"
)

// Kind is the kind of a token.
type Kind int

// The kinds of tokens. An operator or a keyword is known by its text.
const (
	EOF Kind = iota
	Ident
	Keyword
	Int
	String
	Op
)

// Token is one word of the program.
type Token struct {
	Kind Kind
	Text string
	Pos  Pos
	// Value, Width and Signed belong to a number; a width of 0 means that the program gave none.
	Value  *big.Int
	Width  int
	Signed bool
	// Glued says that no space stands between this token and the one before it, which makes two ">" a shift.
	Glued bool
	// first says that the token is the first on its line, where a directive may stand.
	first bool
	// hidden are the macros that this token came out of, which may not expand again in it.
	hidden *hidden
}

// hidden is a list of macros, the innermost first.
type hidden struct {
	name  string
	outer *hidden
}

func (h *hidden) has(name string) bool {
	for ; h != nil; h = h.outer {
		if h.name == name {
			return true
		}
	}
	return false
}

// MaxWidth is the largest width of a bit string that the engine runs.
const MaxWidth = 2048

var keywords = map[string]bool{}

func init() {
	for _, w := range strings.Fields(`abstract action actions apply bit bool const control default else entries enum error
		exit extern false header header_union if in inout int key match_kind type out package parser priority return select
		state string struct switch table transition true tuple list typedef varbit void for break continue this value_set`) {
		keywords[w] = true
	}
}

// operators are tried in this order, so that the longest fits first.
var operators = []string{
	"&&&", "|+|=", "|-|=", "|+|", "|-|", "<<=", "...", "..", "&&", "||", "==", "!=", "<=", ">=", "<<", "++",
	"+:", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=",
	"+", "-", "*", "/", "%", "&", "|", "^", "~", "!", "<", ">", "=", "(", ")", "[", "]", "{", "}", ".", ",", ";", ":",
	"?", "@", "#", "_",
}

type lexer struct {
	file *File
	off  int
	rep  *Report
}

// lexFile makes the tokens of a file. Directives stay in as tokens; the preprocessor finds them by the "#" that is first
// on its line.
func lexFile(f *File, rep *Report) []Token {
	l := &lexer{file: f, rep: rep}
	var toks []Token
	first := true
	for {
		start := l.off
		newline := l.space()
		first = first || newline
		if l.off >= len(f.Text) {
			return append(toks, Token{Kind: EOF, Pos: Pos{f, l.off}, first: true})
		}
		t, ok := l.token()
		if !ok {
			continue
		}
		t.first = first
		t.Glued = l.off > 0 && t.Pos.Off == start && !first
		toks = append(toks, t)
		first = false
	}
}

// space skips blanks and comments and says whether a line ended in them. A line that ends in a backslash goes on.
func (l *lexer) space() bool {
	newline := false
	s := l.file.Text
	for l.off < len(s) {
		switch c := s[l.off]; {
		case c == '\n':
			newline = true
			l.off++
		case c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v':
			l.off++
		case c == '\\' && strings.HasPrefix(s[l.off:], "\\\n"):
			l.off += 2
		case c == '\\' && strings.HasPrefix(s[l.off:], "\\\r\n"):
			l.off += 3
		case strings.HasPrefix(s[l.off:], "//"):
			end := strings.IndexByte(s[l.off:], '\n')
			if end < 0 {
				l.off = len(s)
				return newline
			}
			l.off += end
		case strings.HasPrefix(s[l.off:], "/*"):
			end := strings.Index(s[l.off+2:], "*/")
			if end < 0 {
				l.rep.Errorf(Pos{l.file, l.off}, "this comment has no end")
				l.off = len(s)
				return newline
			}
			newline = newline || strings.Contains(s[l.off:l.off+2+end], "\n")
			l.off += end + 4
		case strings.HasPrefix(s[l.off:], "\ufeff"):
			l.off += len("\ufeff")
		default:
			return newline
		}
	}
	return newline
}

func isLetter(c byte) bool { return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }

func (l *lexer) token() (Token, bool) {
	s, pos := l.file.Text, Pos{l.file, l.off}
	c := s[l.off]
	switch {
	case isDigit(c):
		return l.number()
	case isLetter(c):
		start := l.off
		for l.off < len(s) && (isLetter(s[l.off]) || isDigit(s[l.off])) {
			l.off++
		}
		word := s[start:l.off]
		if word == "_" {
			return Token{Kind: Op, Text: word, Pos: pos}, true
		}
		kind := Ident
		if keywords[word] {
			kind = Keyword
		}
		return Token{Kind: kind, Text: word, Pos: pos}, true
	case c == '"':
		return l.str()
	}
	for _, op := range operators {
		if strings.HasPrefix(s[l.off:], op) {
			l.off += len(op)
			return Token{Kind: Op, Text: op, Pos: pos}, true
		}
	}
	// One finding stands for a run of bytes that no token can start with.
	start := l.off
	for l.off < len(s) && !isLetter(s[l.off]) && !isDigit(s[l.off]) && s[l.off] > ' ' && !strings.ContainsRune(`+-*/%&|^~!<>=()[]{}.,;:?@#"\`, rune(s[l.off])) {
		l.off++
	}
	if l.off == start {
		l.off++
	}
	l.rep.Errorf(pos, "%q is not part of the language", s[start:l.off])
	return Token{}, false
}

func (l *lexer) str() (Token, bool) {
	s, pos := l.file.Text, Pos{l.file, l.off}
	var b strings.Builder
	for l.off++; l.off < len(s) && s[l.off] != '\n'; l.off++ {
		switch c := s[l.off]; {
		case c == '"':
			l.off++
			return Token{Kind: String, Text: b.String(), Pos: pos}, true
		case c == '\\' && l.off+1 < len(s) && s[l.off+1] != '\n':
			l.off++
			switch s[l.off] {
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			default:
				b.WriteByte(s[l.off])
			}
		default:
			b.WriteByte(c)
		}
	}
	l.rep.Errorf(pos, "this string has no end on its line")
	return Token{Kind: String, Text: b.String(), Pos: pos}, true
}

// maxDigits bounds a literal: none that fits in the largest bit string is longer, even written in binary with "_".
const maxDigits = 2 * MaxWidth

func (l *lexer) number() (Token, bool) {
	s, start := l.file.Text, l.off
	for l.off < len(s) && (isLetter(s[l.off]) || isDigit(s[l.off])) {
		l.off++
	}
	word := s[start:l.off]
	t := Token{Kind: Int, Text: word, Pos: Pos{l.file, start}, Value: new(big.Int)}
	digits := word
	i := 0
	for i < len(word) && isDigit(word[i]) {
		i++
	}
	if i < len(word) && (word[i] == 'w' || word[i] == 's') {
		width := 0
		for _, c := range word[:i] {
			if width = width*10 + int(c-'0'); width > MaxWidth {
				break
			}
		}
		t.Width, t.Signed = width, word[i] == 's'
		digits = word[i+1:]
		if width < 1 || width > MaxWidth {
			l.rep.Errorf(t.Pos, "the width of %q is not within 1 and %d", clip(word), MaxWidth)
			t.Width = 1
			return t, true
		}
	}
	base := 10
	if len(digits) > 1 && digits[0] == '0' {
		switch digits[1] {
		case 'x', 'X':
			base = 16
		case 'b', 'B':
			base = 2
		case 'o', 'O':
			base = 8
		case 'd', 'D':
			base = 10
		default:
			if isLetter(digits[1]) && digits[1] != '_' {
				l.rep.Errorf(t.Pos, "%q has no known base: 0x, 0d, 0o and 0b are", clip(word))
				return t, true
			}
		}
		if isLetter(digits[1]) && digits[1] != '_' {
			digits = digits[2:]
		}
	}
	if len(digits) > maxDigits {
		l.rep.Errorf(t.Pos, "the number %q is too long", clip(word))
		return t, true
	}
	plain := strings.ReplaceAll(digits, "_", "")
	v, ok := new(big.Int).SetString(plain, base)
	if !ok || plain == "" || plain[0] == '-' || plain[0] == '+' {
		l.rep.Errorf(t.Pos, "%q is not a number", clip(word))
		return t, true
	}
	t.Value = v
	if t.Width > 0 {
		limit := new(big.Int).Lsh(big.NewInt(1), uint(t.Width))
		if v.Cmp(limit) >= 0 {
			l.rep.Warnf(t.Pos, "%q does not fit in its %d bits, the upper bits are cut off", clip(word), t.Width)
			v.And(v, limit.Sub(limit, big.NewInt(1)))
		}
		if t.Signed && v.Bit(t.Width-1) == 1 {
			v.Sub(v, new(big.Int).Lsh(big.NewInt(1), uint(t.Width)))
		}
	}
	return t, true
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
