package syntax

import (
	"fmt"
	"slices"
)

// maxDepth bounds how deep expressions, types and statements stand in each other.
const maxDepth = 200

// Parse reads the declarations of a program. After an error it goes on with the next statement or declaration.
func Parse(toks []Token, rep *Report) []Decl {
	p := &parser{toks: toks, rep: rep, types: map[string]bool{}}
	p.collectTypes()
	var decls []Decl
	for p.peek().Kind != EOF && !rep.Full() {
		if p.accept(";") {
			continue
		}
		start := p.i
		p.failed = false
		d := p.decl(global)
		if d != nil {
			decls = append(decls, d)
		}
		if p.failed {
			p.resync(start, false)
		}
	}
	return decls
}

type parser struct {
	toks  []Token
	i     int
	depth int
	rep   *Report
	// failed is set by an error and keeps those that only follow from it silent, until the parser has found its place again.
	failed bool
	// types are the names that are declared as types of values, which tells a cast from an expression in parentheses.
	types map[string]bool
}

// collectTypes looks for the declarations of types before the parser comes to them.
func (p *parser) collectTypes() {
	for i := 0; i+1 < len(p.toks); i++ {
		switch t := p.toks[i]; {
		case t.Kind != Keyword:
		case t.Text == "header" || t.Text == "struct" || t.Text == "header_union" || t.Text == "enum":
			k := i + 1
			if t.Text == "enum" && p.toks[k].Kind == Keyword {
				if end, ok := p.skipType(k); ok {
					k = end
				}
			}
			if k < len(p.toks) && p.toks[k].Kind == Ident {
				p.types[p.toks[k].Text] = true
			}
		case t.Text == "typedef" || t.Text == "type":
			if end, ok := p.skipType(i + 1); ok && p.toks[end].Kind == Ident {
				p.types[p.toks[end].Text] = true
			}
		}
	}
}

func (p *parser) peek() Token { return p.toks[p.i] }

func (p *parser) peekAt(n int) Token {
	if p.i+n >= len(p.toks) {
		return p.toks[len(p.toks)-1]
	}
	return p.toks[p.i+n]
}

func (p *parser) next() Token {
	t := p.toks[p.i]
	if t.Kind != EOF {
		p.i++
	}
	return t
}

func is(t Token, text string) bool { return (t.Kind == Op || t.Kind == Keyword) && t.Text == text }

func (p *parser) at(text string) bool { return is(p.peek(), text) }

func (p *parser) accept(text string) bool {
	if p.at(text) {
		p.next()
		return true
	}
	return false
}

func (p *parser) expect(text string) bool {
	if p.accept(text) {
		return true
	}
	p.errorf("expected %q, found %s", text, describe(p.peek()))
	return false
}

func describe(t Token) string {
	switch t.Kind {
	case EOF:
		return "the end of the program"
	case String:
		return "a string"
	}
	return fmt.Sprintf("%q", clip(t.Text))
}

func (p *parser) errorf(format string, args ...any) {
	if !p.failed {
		p.rep.Errorf(p.peek().Pos, format, args...)
	}
	p.failed = true
}

// resync goes on after the next ";" or "}" that is not inside other braces. Inside a block it stops before the "}" that
// ends it.
func (p *parser) resync(start int, inBlock bool) {
	p.failed = false
	depth := 0
	for _, t := range p.toks[start:p.i] {
		if is(t, "{") {
			depth++
		} else if is(t, "}") {
			depth--
		}
	}
	if p.i > start && depth <= 0 && (is(p.toks[p.i-1], ";") || is(p.toks[p.i-1], "}")) {
		// What was wrong has ended already.
		return
	}
	for {
		t := p.peek()
		switch {
		case t.Kind == EOF:
			return
		case is(t, "{"):
			depth++
		case is(t, "}"):
			if depth <= 0 && inBlock {
				return
			}
			if depth--; depth <= 0 {
				p.next()
				return
			}
		case is(t, ";") && depth <= 0:
			p.next()
			return
		}
		p.next()
	}
}

// enter counts one level of depth, and says whether it is still allowed; leave ends it in either case.
func (p *parser) enter() bool {
	if p.depth++; p.depth > maxDepth {
		p.errorf("this is nested more than %d deep", maxDepth)
		return false
	}
	return true
}

func (p *parser) leave() { p.depth-- }

// nonTypeNames are the keywords that the language lets stand as names as well.
var nonTypeNames = []string{"apply", "key", "actions", "state", "entries", "type", "priority", "list", "this", "break", "continue", "for", "match_kind", "value_set", "abstract", "default"}

func isName(t Token) bool {
	return t.Kind == Ident || t.Kind == Keyword && t.Text != "default" && slices.Contains(nonTypeNames, t.Text)
}

func (p *parser) name() Name {
	t := p.peek()
	if isName(t) {
		p.next()
		return Name{t.Text, t.Pos}
	}
	if t.Kind == Keyword {
		p.errorf("expected a name, found %q, which is a word of the language", t.Text)
	} else {
		p.errorf("expected a name, found %s", describe(t))
	}
	return Name{"", t.Pos}
}

// where a declaration stands
type where int

const (
	global where = iota
	inControl
	inParser
	inBlock
)

func (p *parser) annotations() Annotations {
	var as Annotations
	for p.at("@") && !p.failed {
		p.next()
		a := Annotation{Name: Name{p.peek().Text, p.peek().Pos}}
		if k := p.peek().Kind; k != Ident && k != Keyword {
			p.errorf("expected the name of an annotation, found %s", describe(p.peek()))
			return as
		}
		p.next()
		if a.Name.Text == "pragma" {
			// An old form, whose body goes to the end of the line.
			for p.peek().Kind != EOF && !p.peek().first {
				p.next()
			}
			continue
		}
		if open := p.peek(); (is(open, "(") || is(open, "[")) && open.Glued || is(open, "(") {
			p.next()
			depth := 1
			for depth > 0 {
				t := p.next()
				if t.Kind == EOF {
					p.errorf("the annotation @%s has no end", a.Name.Text)
					return as
				}
				if is(t, "(") || is(t, "[") {
					depth++
				} else if is(t, ")") || is(t, "]") {
					if depth--; depth == 0 {
						break
					}
				}
				a.Body = append(a.Body, t)
			}
		}
		as = append(as, a)
	}
	return as
}

func (p *parser) base(annos Annotations) DeclBase {
	n := p.name()
	return DeclBase{Place{n.Pos}, n.Text, annos}
}

func (p *parser) decl(at where) Decl {
	if !p.enter() {
		p.leave()
		return nil
	}
	defer p.leave()
	annos := p.annotations()
	t := p.peek()
	if t.Kind == Keyword {
		switch t.Text {
		case "const":
			p.next()
			typ := p.typ()
			d := &ConstDecl{DeclBase: p.base(annos), Type: typ}
			p.expect("=")
			d.Value = p.expr()
			p.expect(";")
			return d
		case "action":
			if at == global || at == inControl {
				p.next()
				d := &ActionDecl{DeclBase: p.base(annos)}
				d.TypeParams = p.typeParams()
				d.Params = p.params()
				d.Body = p.block(inBlock)
				return d
			}
		case "table":
			if at == inControl {
				return p.table(annos)
			}
		case "header", "struct", "header_union", "enum", "error", "match_kind", "typedef", "type", "extern", "parser", "control", "package":
			// "error" and "type" may begin a variable's type or name as well.
			if at == global && !(t.Text == "error" && !is(p.peekAt(1), "{")) {
				return p.globalDecl(t.Text, annos)
			}
		case "value_set":
			if at == inParser || at == global {
				p.next()
				d := &ValueSetDecl{}
				p.expect("<")
				d.Type = p.typ()
				p.closeAngle()
				p.expect("(")
				d.Size = p.expr()
				p.expect(")")
				d.DeclBase = p.base(annos)
				p.expect(";")
				return d
			}
		}
	}
	if _, ok := p.skipType(p.i); !ok {
		p.errorf("expected a declaration, found %s", describe(t))
		return nil
	}
	typ := p.typ()
	if p.at("(") && at != inBlock || p.at("(") && p.instanceAhead() {
		p.next()
		args := p.args(")")
		d := &InstanceDecl{DeclBase: p.base(annos), Type: typ, Args: args}
		if p.accept("=") {
			d.Body = true
			p.skipBraces()
		}
		p.expect(";")
		return d
	}
	base := p.base(annos)
	if (p.at("(") || p.at("<")) && at == global {
		return p.function(base, typ, false)
	}
	d := &VarDecl{DeclBase: base, Type: typ}
	if p.accept("=") {
		d.Value = p.expr()
	}
	p.expect(";")
	return d
}

// skipBraces goes behind what stands in braces.
func (p *parser) skipBraces() {
	depth := 0
	for p.peek().Kind != EOF {
		t := p.next()
		if is(t, "{") {
			depth++
		} else if is(t, "}") {
			depth--
		}
		if depth <= 0 {
			return
		}
	}
}

// instanceAhead says whether the "(" at hand begins the arguments of an instance: a name follows its ")".
func (p *parser) instanceAhead() bool {
	depth := 0
	for i := p.i; i < len(p.toks); i++ {
		switch t := p.toks[i]; {
		case t.Kind == EOF || is(t, ";") || is(t, "{") && depth == 0:
			return false
		case is(t, "("):
			depth++
		case is(t, ")"):
			if depth--; depth == 0 {
				return isName(p.toks[i+1])
			}
		}
	}
	return false
}

func (p *parser) globalDecl(word string, annos Annotations) Decl {
	p.next()
	switch word {
	case "header", "struct", "header_union":
		d := &FieldsDecl{DeclBase: p.base(annos), Kind: word}
		d.Params = p.typeParams()
		p.expect("{")
		for !p.at("}") && !p.failed && p.peek().Kind != EOF {
			as := p.annotations()
			typ := p.typ()
			d.Fields = append(d.Fields, Field{Type: typ, Name: p.name(), Annos: as})
			p.expect(";")
		}
		p.expect("}")
		return d
	case "enum":
		d := &EnumDecl{}
		if p.peek().Kind == Keyword || isName(p.peekAt(1)) {
			d.Type = p.typ()
		}
		d.DeclBase = p.base(annos)
		p.expect("{")
		for !p.at("}") && !p.failed {
			p.annotations()
			m := EnumMember{Name: p.name()}
			if p.accept("=") {
				m.Value = p.expr()
			}
			d.Members = append(d.Members, m)
			if !p.accept(",") {
				break
			}
		}
		p.expect("}")
		return d
	case "error", "match_kind":
		d := &ErrorDecl{MatchKind: word == "match_kind"}
		d.DeclBase = DeclBase{Place{p.peek().Pos}, word, annos}
		p.expect("{")
		for !p.at("}") && !p.failed {
			d.Members = append(d.Members, p.name())
			if !p.accept(",") {
				break
			}
		}
		p.expect("}")
		return d
	case "typedef", "type":
		typ := p.typ()
		d := &TypedefDecl{DeclBase: p.base(annos), Type: typ, New: word == "type"}
		p.expect(";")
		return d
	case "extern":
		if isName(p.peek()) && (is(p.peekAt(1), "{") || is(p.peekAt(1), "<") && p.externObjectAhead()) {
			d := &ExternDecl{DeclBase: p.base(annos)}
			d.Params = p.typeParams()
			p.expect("{")
			for !p.at("}") && !p.failed && p.peek().Kind != EOF {
				as := p.annotations()
				p.accept("abstract")
				if isName(p.peek()) && is(p.peekAt(1), "(") {
					m := &FuncDecl{DeclBase: p.base(as), Extern: true}
					m.Params = p.params()
					p.expect(";")
					d.Methods = append(d.Methods, m)
					continue
				}
				result := p.typ()
				if m, ok := p.function(p.base(as), result, true).(*FuncDecl); ok {
					d.Methods = append(d.Methods, m)
				}
			}
			p.expect("}")
			return d
		}
		result := p.typ()
		return p.function(p.base(annos), result, true)
	case "parser":
		d := &ParserDecl{DeclBase: p.base(annos)}
		d.TypeParams = p.typeParams()
		d.Params = p.params()
		if p.accept(";") {
			return d
		}
		if p.at("(") {
			d.Ctor = p.params()
		}
		d.HasBody = true
		p.expect("{")
		p.members(func() {
			if p.at("@") || p.at("state") {
				save := p.i
				as := p.annotations()
				if p.accept("state") {
					s := &StateDecl{DeclBase: p.base(as)}
					s.Body = p.block(inParser)
					d.States = append(d.States, s)
					return
				}
				p.i = save
			}
			if l := p.decl(inParser); l != nil {
				d.Locals = append(d.Locals, l)
			}
		})
		p.expect("}")
		return d
	case "control":
		d := &ControlDecl{DeclBase: p.base(annos)}
		d.TypeParams = p.typeParams()
		d.Params = p.params()
		if p.accept(";") {
			return d
		}
		if p.at("(") {
			d.Ctor = p.params()
		}
		d.HasBody = true
		p.expect("{")
		p.members(func() {
			if p.at("apply") {
				if t := p.next(); d.Body != nil {
					p.rep.Errorf(t.Pos, "control %s has two apply blocks", d.Name)
				}
				d.Body = p.block(inBlock)
				return
			}
			if l := p.decl(inControl); l != nil {
				d.Locals = append(d.Locals, l)
			}
		})
		p.expect("}")
		return d
	}
	d := &PackageDecl{DeclBase: p.base(annos)}
	d.TypeParams = p.typeParams()
	d.Params = p.params()
	p.expect(";")
	return d
}

// members reads what stands between the braces of a parser or control, and goes on after an error in one of them.
func (p *parser) members(one func()) {
	for !p.at("}") && p.peek().Kind != EOF && !p.rep.Full() {
		if p.accept(";") {
			continue
		}
		if p.failed {
			return
		}
		start := p.i
		one()
		if p.failed {
			p.resync(start, true)
			if p.i == start {
				p.next()
			}
		}
	}
}

// externObjectAhead tells extern E<T> { ... } from a function of a generic type.
func (p *parser) externObjectAhead() bool {
	for i := p.i; i < len(p.toks); i++ {
		switch t := p.toks[i]; {
		case is(t, "{"):
			return true
		case is(t, "(") || is(t, ";") || t.Kind == EOF:
			return false
		}
	}
	return false
}

func (p *parser) function(base DeclBase, result Type, extern bool) Decl {
	d := &FuncDecl{DeclBase: base, Extern: extern, Result: result}
	d.TypeParams = p.typeParams()
	d.Params = p.params()
	if extern {
		p.expect(";")
		return d
	}
	d.Body = p.block(inBlock)
	return d
}

func (p *parser) typeParams() []Name {
	if !p.accept("<") {
		return nil
	}
	var names []Name
	for !p.failed {
		names = append(names, p.name())
		if !p.accept(",") {
			break
		}
	}
	p.closeAngle()
	return names
}

// closeAngle takes one ">", since ">>" comes as two.
func (p *parser) closeAngle() { p.expect(">") }

func (p *parser) params() []Param {
	var ps []Param
	p.expect("(")
	for !p.at(")") && !p.failed {
		p.annotations()
		var d Param
		d.Pos = p.peek().Pos
		for _, dir := range []string{"in", "out", "inout"} {
			if p.accept(dir) {
				d.Dir = dir
				break
			}
		}
		d.Type = p.typ()
		n := p.name()
		d.Name, d.Pos = n.Text, n.Pos
		if p.accept("=") {
			d.Default = p.expr()
		}
		ps = append(ps, d)
		if !p.accept(",") {
			break
		}
	}
	p.expect(")")
	return ps
}
