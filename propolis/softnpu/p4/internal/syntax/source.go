// Package syntax is the front end of the P4 engine: source files, the preprocessor, the lexer, and the parser that makes
// a tree of them. It knows no types; what the names mean is the business of the package that reads the tree.
package syntax

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// File is one source file, or the built-in prelude.
type File struct {
	Name string
	Text string
	// lines holds the offset of the first byte of every line.
	lines []int
}

func newFile(name, text string) *File {
	f := &File{Name: name, Text: text, lines: []int{0}}
	for i := range len(text) {
		if text[i] == '\n' {
			f.lines = append(f.lines, i+1)
		}
	}
	return f
}

// Pos is a place in a file.
type Pos struct {
	File *File
	Off  int
}

// Line gives the line and the column, both counted from 1, of the place.
func (p Pos) Line() (line, col int) {
	if p.File == nil {
		return 0, 0
	}
	lo, hi := 0, len(p.File.lines)
	for hi-lo > 1 {
		mid := (lo + hi) / 2
		if p.File.lines[mid] <= p.Off {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo + 1, p.Off - p.File.lines[lo] + 1
}

// Text is the line of source that the place is in.
func (p Pos) Text() string {
	if p.File == nil {
		return ""
	}
	line, _ := p.Line()
	text := p.File.Text[p.File.lines[line-1]:]
	if i := strings.IndexByte(text, '\n'); i >= 0 {
		text = text[:i]
	}
	return strings.TrimRight(text, "\r")
}

// Severity says whether a diagnostic stops the program from being used.
type Severity int

// The severities.
const (
	Error Severity = iota
	Warning
)

func (s Severity) String() string {
	if s == Warning {
		return "warning"
	}
	return "error"
}

// Diagnostic is one finding about a program.
type Diagnostic struct {
	Severity Severity
	File     string
	Line     int
	Column   int
	Message  string
	// Source is the line of the program that the finding is about.
	Source string
}

// String shows the finding in the usual form, with the line and a caret below it.
func (d Diagnostic) String() string {
	var b strings.Builder
	if d.File != "" {
		fmt.Fprintf(&b, "%s:", d.File)
		if d.Line > 0 {
			fmt.Fprintf(&b, "%d:%d:", d.Line, d.Column)
		}
		b.WriteByte(' ')
	}
	fmt.Fprintf(&b, "%s: %s", d.Severity, d.Message)
	if d.Line > 0 && strings.TrimSpace(d.Source) != "" {
		pad := make([]byte, 0, d.Column)
		for i := 0; i < d.Column-1 && i < len(d.Source); i++ {
			if d.Source[i] == '\t' {
				pad = append(pad, '\t')
			} else if d.Source[i]&0xc0 != 0x80 {
				pad = append(pad, ' ')
			}
		}
		fmt.Fprintf(&b, "\n\t%s\n\t%s^", d.Source, pad)
	}
	return b.String()
}

// maxErrors is how many errors are collected before the rest is left out: after so many, they repeat each other.
const maxErrors = 50

// Report collects findings. One place says the same thing only once, since the same text can be looked at once for each
// of its instances.
type Report struct {
	List   []Diagnostic
	errors int
	seen   map[reported]bool
}

// Sort puts the findings in the order of the program: as its files were read, and from top to bottom in each.
func (r *Report) Sort() {
	order := map[string]int{}
	for _, d := range r.List {
		if _, ok := order[d.File]; !ok {
			order[d.File] = len(order)
		}
	}
	slices.SortStableFunc(r.List, func(a, b Diagnostic) int {
		return cmp.Or(cmp.Compare(order[a.File], order[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

type reported struct {
	pos Pos
	msg string
}

// Errorf adds an error.
func (r *Report) Errorf(pos Pos, format string, args ...any) { r.add(Error, pos, format, args...) }

// Warnf adds a warning.
func (r *Report) Warnf(pos Pos, format string, args ...any) { r.add(Warning, pos, format, args...) }

// Failed says whether there is an error among the findings.
func (r *Report) Failed() bool { return r.errors > 0 }

// Full says that enough errors were found to stop looking.
func (r *Report) Full() bool { return r.errors >= maxErrors }

func (r *Report) add(s Severity, pos Pos, format string, args ...any) {
	if r.Full() {
		return
	}
	msg := fmt.Sprintf(format, args...)
	if r.seen == nil {
		r.seen = map[reported]bool{}
	}
	if r.seen[reported{pos, msg}] {
		return
	}
	r.seen[reported{pos, msg}] = true
	d := Diagnostic{Severity: s, Message: msg}
	if pos.File != nil {
		d.File = pos.File.Name
		d.Line, d.Column = pos.Line()
		d.Source = pos.Text()
	}
	r.List = append(r.List, d)
	if s == Error {
		if r.errors++; r.Full() {
			r.List = append(r.List, Diagnostic{Severity: Error, Message: "too many errors, the rest is left out"})
		}
	}
}
