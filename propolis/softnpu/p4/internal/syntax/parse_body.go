package syntax

// block reads { ... }; in a parser transitions may stand in it.
func (p *parser) block(at where) *Block {
	b := &Block{Place: Place{p.peek().Pos}}
	if !p.enter() {
		p.leave()
		return b
	}
	defer p.leave()
	p.annotations()
	if !p.expect("{") {
		return b
	}
	for !p.at("}") && p.peek().Kind != EOF && !p.rep.Full() && p.depth <= maxDepth {
		start := p.i
		if s := p.stmt(at); s != nil {
			b.Stmts = append(b.Stmts, s)
		}
		if p.failed {
			p.resync(start, true)
			if p.i == start {
				p.next()
			}
		}
	}
	p.expect("}")
	return b
}

func (p *parser) stmt(at where) Stmt {
	if !p.enter() {
		p.leave()
		return nil
	}
	defer p.leave()
	if p.at("@") {
		p.annotations()
	}
	t := p.peek()
	here := Place{t.Pos}
	if t.Kind == Keyword {
		switch t.Text {
		case "if":
			p.next()
			s := &IfStmt{Place: here}
			p.expect("(")
			s.C = p.expr()
			p.expect(")")
			if p.failed {
				return s
			}
			s.Then = p.stmt(at)
			if p.accept("else") {
				s.Else = p.stmt(at)
			}
			return s
		case "return":
			p.next()
			s := &ReturnStmt{Place: here}
			if !p.at(";") {
				s.X = p.expr()
			}
			p.expect(";")
			return s
		case "exit":
			p.next()
			p.expect(";")
			return &ExitStmt{here}
		case "switch":
			return p.switchStmt()
		case "transition":
			return p.transition()
		case "for":
			if is(p.peekAt(1), "(") {
				return p.forStmt(at)
			}
		case "break", "continue":
			if is(p.peekAt(1), ";") {
				p.next()
				p.next()
				return &BreakStmt{here, t.Text == "continue"}
			}
		case "const":
			if d := p.decl(inBlock); d != nil {
				return &DeclStmt{here, d}
			}
			return nil
		}
	}
	if p.at("{") {
		return p.block(at)
	}
	if p.accept(";") {
		return &EmptyStmt{here}
	}
	if p.declAhead() {
		if d := p.decl(inBlock); d != nil {
			return &DeclStmt{here, d}
		}
		return nil
	}
	s := p.simple()
	p.expect(";")
	return s
}

// simple reads an assignment or a call without the ";" behind it.
func (p *parser) simple() Stmt {
	t := p.peek()
	here := Place{t.Pos}
	x := p.postfix()
	if p.at(">") && is(p.peekAt(1), ">=") && p.peekAt(1).Glued {
		p.next()
		p.next()
		return &AssignStmt{Place: here, Op: ">>", X: x, Y: p.expr()}
	}
	for _, op := range []string{"=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", "|+|=", "|-|="} {
		if p.accept(op) {
			return &AssignStmt{Place: here, Op: op[:len(op)-1], X: x, Y: p.expr()}
		}
	}
	switch x.(type) {
	case *CallExpr, *MemberExpr, *IdentExpr:
		// What is no call has no effect, which is said by those who know what it means.
	default:
		p.errorf("expected a statement, found %s", describe(t))
	}
	return &CallStmt{here, x}
}

// forStmt reads both forms of a loop.
func (p *parser) forStmt(at where) Stmt {
	here := Place{p.next().Pos}
	p.expect("(")
	p.annotations()
	if end, ok := p.skipType(p.i); ok && isName(p.toks[end]) && is(p.toks[end+1], "in") {
		s := &ForInStmt{Place: here, Type: p.typ(), Name: p.name()}
		p.expect("in")
		s.X = p.expr()
		if p.accept("..") {
			s.To = p.expr()
		}
		p.expect(")")
		if !p.failed {
			s.Body = p.stmt(at)
		}
		return s
	}
	s := &ForStmt{Place: here, Init: p.simples(";")}
	s.C = p.expr()
	p.expect(";")
	s.Update = p.simples(")")
	if !p.failed {
		s.Body = p.stmt(at)
	}
	return s
}

// simples reads assignments, calls and variables with commas between them, up to and with what ends them.
func (p *parser) simples(end string) []Stmt {
	var out []Stmt
	for !p.at(end) && !p.failed {
		p.annotations()
		if here := (Place{p.peek().Pos}); p.declAhead() {
			typ := p.typ()
			d := &VarDecl{DeclBase: p.base(nil), Type: typ}
			if p.accept("=") {
				d.Value = p.expr()
			}
			out = append(out, &DeclStmt{here, d})
		} else {
			out = append(out, p.simple())
		}
		if !p.accept(",") {
			break
		}
	}
	p.expect(end)
	return out
}

// declAhead says whether a statement begins with a type that a name or the arguments of an instance follow.
func (p *parser) declAhead() bool {
	end, ok := p.skipType(p.i)
	if !ok {
		return false
	}
	if isName(p.toks[end]) {
		return true
	}
	if !is(p.toks[end], "(") {
		return false
	}
	save := p.i
	p.i = end
	ahead := p.instanceAhead()
	p.i = save
	return ahead
}

func (p *parser) switchStmt() Stmt {
	s := &SwitchStmt{Place: Place{p.next().Pos}}
	p.expect("(")
	s.X = p.expr()
	p.expect(")")
	p.expect("{")
	for !p.at("}") && !p.failed && p.peek().Kind != EOF {
		c := SwitchCase{Place: Place{p.peek().Pos}}
		if p.accept("default") {
			c.Label = &AnyExpr{c.Place}
		} else {
			c.Label = p.expr()
		}
		p.expect(":")
		if p.at("{") {
			c.Body = p.block(inBlock)
		}
		s.Cases = append(s.Cases, c)
	}
	p.expect("}")
	return s
}

func (p *parser) transition() Stmt {
	s := &TransitionStmt{Place: Place{p.next().Pos}}
	if !p.accept("select") {
		s.Next = p.name()
		p.expect(";")
		return s
	}
	p.expect("(")
	for !p.at(")") && !p.failed {
		s.Select = append(s.Select, p.expr())
		if !p.accept(",") {
			break
		}
	}
	p.expect(")")
	p.expect("{")
	for !p.at("}") && !p.failed && p.peek().Kind != EOF {
		c := SelectCase{Place: Place{p.peek().Pos}, Keys: p.keySets()}
		p.expect(":")
		c.Next = p.name()
		p.expect(";")
		s.Cases = append(s.Cases, c)
	}
	p.expect("}")
	p.accept(";")
	return s
}

// args reads arguments up to and with the closing word. A comma may stand behind the last, as x4c has it.
func (p *parser) args(end string) []Arg {
	var as []Arg
	for !p.at(end) && !p.failed {
		var a Arg
		if isName(p.peek()) && is(p.peekAt(1), "=") {
			a.Name = p.name()
			p.next()
		}
		if t := p.peek(); is(t, "_") {
			p.next()
			a.Value = &AnyExpr{Place{t.Pos}}
		} else {
			a.Value = p.expr()
		}
		as = append(as, a)
		if !p.accept(",") {
			break
		}
	}
	p.expect(end)
	return as
}

func (p *parser) expr() Expr {
	if !p.enter() {
		p.leave()
		return &Bad{Place{p.peek().Pos}}
	}
	defer p.leave()
	c := p.binary(0)
	if pos := p.peek().Pos; p.accept("?") {
		x := p.expr()
		p.expect(":")
		return &CondExpr{Place{pos}, c, x, p.expr()}
	}
	return c
}

// levels are the binary operators from the one that binds least.
var levels = [][]string{
	{"||"}, {"&&"}, {"==", "!="}, {"<=", ">=", "<", ">"}, {"|"}, {"^"}, {"&"}, {"<<", ">>"}, {"++", "+", "-", "|+|", "|-|"}, {"*", "/", "%"},
}

// sumLevel is the level of the operators that bind tighter than a shift.
const sumLevel = 8

// binaryOp takes the operator of a level if it is at hand. A ">>" comes as two ">" that are glued.
func (p *parser) binaryOp(level int) (string, bool) {
	t := p.peek()
	if t.Kind != Op {
		return "", false
	}
	shift := t.Text == ">" && is(p.peekAt(1), ">") && p.peekAt(1).Glued
	for _, op := range levels[level] {
		switch {
		case op == ">>" && shift:
			p.next()
			p.next()
			return op, true
		case op == t.Text && !(op == ">" && shift):
			p.next()
			return op, true
		}
	}
	return "", false
}

func (p *parser) binary(level int) Expr {
	if level == len(levels) {
		return p.unary()
	}
	x := p.binary(level + 1)
	n := 0
	for !p.failed {
		pos := p.peek().Pos
		op, ok := p.binaryOp(level)
		if !ok {
			break
		}
		if n++; n > maxChain {
			p.errorf("this expression has more than %d operators", maxChain)
			break
		}
		x = &BinaryExpr{Place{pos}, op, x, p.binary(level + 1)}
	}
	return x
}

// maxChain bounds how many operators or members stand in a row, each of which is one more level of the tree.
const maxChain = 1000

func (p *parser) unary() Expr {
	t := p.peek()
	if t.Kind == Op && (t.Text == "!" || t.Text == "~" || t.Text == "-" || t.Text == "+") {
		if !p.enter() {
			p.leave()
			return &Bad{Place{t.Pos}}
		}
		defer p.leave()
		p.next()
		return &UnaryExpr{Place{t.Pos}, t.Text, p.unary()}
	}
	if is(t, "(") && p.castAhead() {
		if !p.enter() {
			p.leave()
			return &Bad{Place{t.Pos}}
		}
		defer p.leave()
		p.next()
		typ := p.typ()
		p.expect(")")
		return &CastExpr{Place{t.Pos}, typ, p.unary()}
	}
	return p.postfix()
}

// castAhead says whether the "(" at hand begins a cast.
func (p *parser) castAhead() bool {
	end, ok := p.skipType(p.i + 1)
	if !ok || !is(p.toks[end], ")") {
		return false
	}
	if inner := p.toks[p.i+1]; !isName(inner) || p.types[inner.Text] && end == p.i+2 {
		return true
	}
	switch t := p.toks[end+1]; t.Kind {
	case Ident, Int, String:
		return true
	case Keyword:
		return t.Text == "true" || t.Text == "false" || isName(t)
	case Op:
		return t.Text == "(" || t.Text == "{" || t.Text == "!" || t.Text == "~"
	}
	return false
}

func (p *parser) postfix() Expr {
	x := p.primary()
	for n := 0; !p.failed; n++ {
		if n > maxChain {
			p.errorf("this expression has more than %d parts", maxChain)
			break
		}
		t := p.peek()
		switch {
		case is(t, "."):
			p.next()
			x = &MemberExpr{Place{p.peek().Pos}, x, p.memberName()}
		case is(t, "["):
			p.next()
			i := p.expr()
			switch {
			case p.accept(":"):
				x = &SliceExpr{Place{t.Pos}, x, i, p.expr()}
			case p.accept("+:"):
				x = &PlusSliceExpr{Place{t.Pos}, x, i, p.expr()}
			default:
				x = &IndexExpr{Place{t.Pos}, x, i}
			}
			p.expect("]")
		case is(t, "("):
			p.next()
			x = &CallExpr{Place: Place{t.Pos}, Fun: x, Args: p.args(")")}
		case is(t, "<") && p.typeArgsAhead():
			p.next()
			targs := p.typeArgs()
			pos := p.peek().Pos
			p.expect("(")
			x = &CallExpr{Place: Place{pos}, Fun: x, TypeArgs: targs, Args: p.args(")")}
		default:
			return x
		}
	}
	return x
}

// memberName takes a name or, as in error.NoMatch, any word.
func (p *parser) memberName() Name {
	if t := p.peek(); t.Kind == Keyword {
		p.next()
		return Name{t.Text, t.Pos}
	}
	return p.name()
}

// typeArgsAhead tells f<T>(x) from a comparison.
func (p *parser) typeArgsAhead() bool {
	i := p.i + 1
	for {
		end, ok := p.skipType(i)
		if !ok {
			return false
		}
		if is(p.toks[end], ",") {
			i = end + 1
			continue
		}
		return is(p.toks[end], ">") && is(p.toks[end+1], "(")
	}
}

func (p *parser) primary() Expr {
	t := p.peek()
	at := Place{t.Pos}
	switch t.Kind {
	case Int:
		p.next()
		return &IntExpr{at, t.Value, t.Width, t.Signed}
	case String:
		p.next()
		return &StringExpr{at, t.Text}
	}
	switch {
	case is(t, "true") || is(t, "false"):
		p.next()
		return &BoolExpr{at, t.Text == "true"}
	case is(t, "("):
		p.next()
		x := p.expr()
		p.expect(")")
		return x
	case is(t, "{"):
		p.next()
		if p.at("#") {
			p.next()
			p.expect("}")
			return &InvalidExpr{at}
		}
		l := &ListExpr{Place: at}
		for !p.at("}") && !p.failed {
			if p.accept("...") {
				p.errorf("\"...\" in a list is not supported")
				break
			}
			var a Arg
			if isName(p.peek()) && is(p.peekAt(1), "=") {
				a.Name = p.name()
				p.next()
			}
			a.Value = p.expr()
			l.Elems = append(l.Elems, a)
			if !p.accept(",") {
				break
			}
		}
		p.expect("}")
		return l
	case is(t, "error") && is(p.peekAt(1), "."):
		return &TypeExpr{at, p.typ()}
	case is(t, ".") && isName(p.peekAt(1)):
		p.next()
		return &IdentExpr{at, p.name().Text, true}
	case isName(t):
		// Generic types may stand for instances in the arguments of a package: f<T>().
		p.next()
		return &IdentExpr{at, t.Text, false}
	case is(t, "bit") || is(t, "int") || is(t, "varbit") || is(t, "bool"):
		return &TypeExpr{at, p.typ()}
	}
	p.errorf("expected an expression, found %s", describe(t))
	return &Bad{at}
}
