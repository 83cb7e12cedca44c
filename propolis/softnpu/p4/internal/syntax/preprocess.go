package syntax

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Source says where the text of a program and of the files that it includes comes from.
type Source struct {
	// FS holds the program and the files next to it.
	FS fs.FS
	// Name is the path of the program in FS.
	Name string
	// Include are the places that are searched for included files before the folder of the file that asks.
	Include []fs.FS
	// BuiltIn holds the text of files that are included when no other has their name.
	BuiltIn map[string]string
	// Defines are macros that are set before the first line.
	Defines map[string]string
	// Prelude is text that stands before the program.
	Prelude string
}

const (
	maxIncludeDepth = 64
	maxFileSize     = 4 << 20
	maxTokens       = 1 << 19
)

type macro struct {
	name   string
	params []string
	// isFunc tells #define f() x from #define f x.
	isFunc bool
	body   []Token
}

// ifLevel is one #if that is not yet closed.
type ifLevel struct {
	pos Pos
	// active says that the lines here are read; taken, that one of the branches was.
	active, taken, sawElse bool
}

type preprocessor struct {
	src      Source
	rep      *Report
	macros   map[string]*macro
	included map[string]bool
	out      []Token
	// expanded is how many words came out of macros, those that are macros again among them.
	expanded int
	full     bool
}

// Preprocess reads the program and all that it includes, and gives the tokens that remain.
//
// A file is included once: the programs written for x4c include the same headers from several files and have no guards.
func Preprocess(src Source, rep *Report) []Token {
	p := &preprocessor{src: src, rep: rep, macros: map[string]*macro{}, included: map[string]bool{}}
	for name, value := range src.Defines {
		toks := lexFile(newFile("<define "+name+">", value), rep)
		p.macros[name] = &macro{name: name, body: toks[:len(toks)-1]}
	}
	if src.Prelude != "" {
		p.file(newFile("<built in>", src.Prelude), nil, "", 0)
	}
	text, err := readSource(src.FS, src.Name)
	if err != nil {
		if cause := new(fs.PathError); errors.As(err, &cause) {
			err = cause.Err // its path may be below the folder that it was read from
		}
		rep.Errorf(Pos{}, "the program %s cannot be read: %v", shown(src.FS, src.Name), err)
		return []Token{{Kind: EOF}}
	}
	f := newFile(shown(src.FS, src.Name), text)
	p.included["fs:"+path.Clean(src.Name)] = true
	p.file(f, src.FS, path.Dir(path.Clean(src.Name)), 0)
	return append(p.out, Token{Kind: EOF, Pos: Pos{f, len(text)}})
}

// shown is the name that a file has in findings. A file system whose files lie in a folder of the host can say where.
func shown(fsys fs.FS, name string) string {
	if at, ok := fsys.(interface{ Path(name string) string }); ok {
		return at.Path(name)
	}
	return name
}

func readSource(fsys fs.FS, name string) (string, error) {
	if fsys == nil {
		return "", fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
	}
	f, err := fsys.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	if st.IsDir() {
		return "", fmt.Errorf("open %s: is a folder", name)
	}
	if st.Size() > maxFileSize {
		return "", fmt.Errorf("open %s: %d bytes, and no more than %d are read", name, st.Size(), maxFileSize)
	}
	b, err := fs.ReadFile(fsys, name)
	return string(b), err
}

// file reads one file. dir is its folder in fsys.
func (p *preprocessor) file(f *File, fsys fs.FS, dir string, depth int) {
	toks := lexFile(f, p.rep)
	var ifs []ifLevel
	active := func() bool { return len(ifs) == 0 || ifs[len(ifs)-1].active }
	for i := 0; toks[i].Kind != EOF; {
		if t := toks[i]; t.first && t.Kind == Op && t.Text == "#" {
			end := i + 1
			for toks[end].Kind != EOF && !toks[end].first {
				end++
			}
			ifs = p.directive(f, fsys, dir, depth, toks[i:end], ifs)
			i = end
			continue
		}
		end := i
		for toks[end].Kind != EOF && (!toks[end].first || toks[end].Text != "#" || toks[end].Kind != Op) {
			end++
		}
		if active() {
			p.out = append(p.out, p.expand(toks[i:end], 0)...)
			if len(p.out) > maxTokens && !p.full {
				p.full = true
				p.rep.Errorf(toks[i].Pos, "the program is longer than %d words", maxTokens)
			}
		}
		if p.full {
			return
		}
		i = end
	}
	for _, l := range ifs {
		p.rep.Errorf(l.pos, "this #if has no #endif")
	}
}

// directive does one line that starts with "#".
func (p *preprocessor) directive(f *File, fsys fs.FS, dir string, depth int, line []Token, ifs []ifLevel) []ifLevel {
	active := len(ifs) == 0 || ifs[len(ifs)-1].active
	if len(line) == 1 {
		return ifs
	}
	name, args, pos := line[1].Text, line[2:], line[1].Pos
	if line[1].Kind != Ident && line[1].Kind != Keyword {
		name = ""
	}
	switch name {
	case "if", "ifdef", "ifndef":
		l := ifLevel{pos: pos}
		if active {
			switch {
			case name == "if":
				l.active = p.condition(pos, args)
			case len(args) != 1 || args[0].Kind != Ident && args[0].Kind != Keyword:
				p.rep.Errorf(pos, "#%s takes one name", name)
			default:
				l.active = (p.macros[args[0].Text] != nil) == (name == "ifdef")
			}
		}
		// Inside what is not read no branch may be.
		l.taken = l.active || !active
		return append(ifs, l)
	case "elif", "else", "endif":
		if len(ifs) == 0 {
			p.rep.Errorf(pos, "#%s without #if", name)
			return ifs
		}
		l := &ifs[len(ifs)-1]
		if name == "endif" {
			return ifs[:len(ifs)-1]
		}
		if l.sawElse {
			p.rep.Errorf(pos, "#%s after #else", name)
		}
		l.active = !l.taken && (name == "else" || p.condition(pos, args))
		l.taken = l.taken || l.active
		l.sawElse = name == "else"
		return ifs
	}
	if !active {
		return ifs
	}
	switch name {
	case "include":
		p.include(f, fsys, dir, depth, line)
	case "define":
		p.define(pos, args)
	case "undef":
		if len(args) != 1 {
			p.rep.Errorf(pos, "#undef takes one name")
			break
		}
		delete(p.macros, args[0].Text)
	case "error":
		p.rep.Errorf(pos, "#error %s", words(args))
	case "warning":
		p.rep.Warnf(pos, "#warning %s", words(args))
	case "pragma", "line":
	default:
		p.rep.Errorf(line[0].Pos, "#%s is not a directive", line[1].Text)
	}
	return ifs
}

func words(toks []Token) string {
	var b strings.Builder
	for i, t := range toks {
		if i > 0 && !t.Glued {
			b.WriteByte(' ')
		}
		b.WriteString(t.Text)
	}
	return b.String()
}

// include reads another file. The name is taken from the text of the line, since it is not made of tokens.
func (p *preprocessor) include(f *File, fsys fs.FS, dir string, depth int, line []Token) {
	pos := line[1].Pos
	rest := f.Text[pos.Off+len("include"):]
	if i := strings.IndexByte(rest, '\n'); i >= 0 {
		rest = rest[:i]
	}
	rest = strings.TrimSpace(rest)
	var name string
	switch {
	case strings.HasPrefix(rest, "<") && strings.Contains(rest, ">"):
		name = rest[1:strings.Index(rest, ">")]
	case strings.HasPrefix(rest, `"`) && strings.Contains(rest[1:], `"`):
		name = rest[1 : 1+strings.Index(rest[1:], `"`)]
	default:
		p.rep.Errorf(pos, "#include takes <file> or \"file\"")
		return
	}
	if name == "" {
		p.rep.Errorf(pos, "#include names no file")
		return
	}
	if depth >= maxIncludeDepth {
		p.rep.Errorf(pos, "files include each other more than %d deep", maxIncludeDepth)
		return
	}

	type place struct {
		fsys fs.FS
		path string
		id   string
	}
	var places []place
	beside := place{fsys, path.Join(dir, name), "fs:" + path.Join(dir, name)}
	if rest[0] == '"' {
		places = append(places, beside)
	}
	for i, inc := range p.src.Include {
		places = append(places, place{inc, path.Clean(name), fmt.Sprintf("%d:%s", i, path.Clean(name))})
	}
	places = append(places, beside, place{p.src.FS, path.Clean(name), "fs:" + path.Clean(name)})
	for _, at := range places {
		if at.fsys == nil {
			continue
		}
		// Most file systems have nothing outside of themselves, and say so by ErrInvalid.
		text, err := readSource(at.fsys, at.path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
			continue
		}
		if err != nil {
			p.rep.Errorf(pos, "#include: %v", err)
			return
		}
		if !p.included[at.id] {
			p.included[at.id] = true
			p.file(newFile(shown(at.fsys, at.path), text), at.fsys, path.Dir(at.path), depth+1)
		}
		return
	}
	if text, ok := p.src.BuiltIn[name]; ok {
		if !p.included["built in:"+name] {
			p.included["built in:"+name] = true
			p.file(newFile("<"+name+">", text), nil, "", depth+1)
		}
		return
	}
	p.rep.Errorf(pos, "the included file %q is not next to %s, nor in an include folder, nor built in", name, f.Name)
}

func (p *preprocessor) define(pos Pos, args []Token) {
	if len(args) == 0 || args[0].Kind != Ident && args[0].Kind != Keyword {
		p.rep.Errorf(pos, "#define takes a name")
		return
	}
	m := &macro{name: args[0].Text}
	body := args[1:]
	if len(body) > 0 && body[0].Text == "(" && body[0].Glued {
		m.isFunc = true
		i := 1
		for i < len(body) && body[i].Text != ")" {
			switch {
			case body[i].Kind == Ident || body[i].Kind == Keyword:
				m.params = append(m.params, body[i].Text)
			case body[i].Text != ",":
				p.rep.Errorf(body[i].Pos, "the parameters of macro %s are names with commas between", m.name)
				return
			}
			i++
		}
		if i >= len(body) {
			p.rep.Errorf(pos, "the parameters of macro %s have no end", m.name)
			return
		}
		body = body[i+1:]
	}
	m.body = slices.Clone(body)
	p.macros[m.name] = m
}

const maxMacroDepth = 100

// expand replaces the macros in a run of tokens. What comes out of a macro stands at the place of its use, which is where
// a finding about it has to point.
func (p *preprocessor) expand(toks []Token, depth int) []Token {
	if len(p.macros) == 0 {
		return toks
	}
	if depth > maxMacroDepth {
		p.rep.Errorf(toks[0].Pos, "macros expand each other more than %d deep", maxMacroDepth)
		return nil
	}
	var out []Token
	for i := 0; i < len(toks); i++ {
		t := toks[i]
		m := p.macros[t.Text]
		if m == nil || t.Kind != Ident && t.Kind != Keyword || t.hidden.has(t.Text) {
			out = append(out, t)
			continue
		}
		var args [][]Token
		if m.isFunc {
			if i+1 >= len(toks) || toks[i+1].Text != "(" {
				out = append(out, t)
				continue
			}
			var end int
			args, end = macroArgs(toks, i+2)
			if end < 0 {
				p.rep.Errorf(t.Pos, "the arguments of macro %s have no end", m.name)
				return out
			}
			if len(m.params) == 0 && len(args) == 1 && len(args[0]) == 0 {
				args = nil
			}
			if len(args) != len(m.params) {
				p.rep.Errorf(t.Pos, "macro %s takes %d arguments, and %d are given", m.name, len(m.params), len(args))
				return out
			}
			i = end
		}
		var body []Token
		inside := &hidden{m.name, t.hidden}
		for _, b := range m.body {
			if k := slices.Index(m.params, b.Text); k >= 0 && (b.Kind == Ident || b.Kind == Keyword) {
				body = append(body, args[k]...)
				continue
			}
			b.Pos = t.Pos
			b.hidden = inside
			body = append(body, b)
		}
		if p.expanded += len(body) + 1; p.expanded > maxTokens {
			p.full = true
			p.rep.Errorf(t.Pos, "the macros of the program make more than %d words", maxTokens)
			return nil
		}
		if len(body) > 0 {
			body = p.expand(body, depth+1)
		}
		if p.full {
			return nil
		}
		for k := range body {
			body[k].first = false
		}
		out = append(out, body...)
	}
	return out
}

func macroArgs(toks []Token, i int) ([][]Token, int) {
	args := [][]Token{nil}
	depth := 0
	for ; i < len(toks); i++ {
		switch toks[i].Text {
		case "(", "[", "{":
			depth++
		case ")", "]", "}":
			if depth == 0 && toks[i].Text == ")" {
				return args, i
			}
			depth--
		case ",":
			if depth == 0 {
				args = append(args, nil)
				continue
			}
		}
		args[len(args)-1] = append(args[len(args)-1], toks[i])
	}
	return nil, -1
}

// condition works out the expression of an #if or #elif.
func (p *preprocessor) condition(pos Pos, args []Token) bool {
	var toks []Token
	for i := 0; i < len(args); i++ {
		if args[i].Kind == Ident && args[i].Text == "defined" {
			k := i + 1
			paren := k < len(args) && args[k].Text == "("
			if paren {
				k++
			}
			if k >= len(args) || paren && (k+1 >= len(args) || args[k+1].Text != ")") {
				p.rep.Errorf(pos, "defined takes a name")
				return false
			}
			v := int64(0)
			if p.macros[args[k].Text] != nil {
				v = 1
			}
			toks = append(toks, intToken(args[k].Pos, v))
			if i = k; paren {
				i++
			}
			continue
		}
		toks = append(toks, args[i])
	}
	if len(toks) == 0 {
		p.rep.Errorf(pos, "#if takes an expression")
		return false
	}
	toks = p.expand(toks, 0)
	for i, t := range toks {
		// A name that is no macro counts as 0, as in C.
		if t.Kind == Ident || t.Kind == Keyword {
			v := int64(0)
			if t.Text == "true" {
				v = 1
			}
			toks[i] = intToken(t.Pos, v)
		}
	}
	c := &condParser{toks: toks}
	v := c.ternary()
	if c.bad || c.i != len(toks) {
		p.rep.Errorf(pos, "this condition cannot be worked out")
		return false
	}
	return v != 0
}
