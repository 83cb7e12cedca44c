package syntax

func (p *parser) table(annos Annotations) Decl {
	p.next()
	d := &TableDecl{DeclBase: p.base(annos)}
	p.expect("{")
	p.members(func() { p.property(d) })
	p.expect("}")
	return d
}

func (p *parser) property(d *TableDecl) {
	p.annotations()
	isConst := p.accept("const")
	n := p.name()
	p.expect("=")
	switch n.Text {
	case "key":
		d.EntriesFirst = d.EntriesFirst || d.HasEntries
		d.HasKeys = true
		p.expect("{")
		for !p.at("}") && !p.failed {
			k := KeyElem{Expr: p.expr()}
			p.expect(":")
			k.Match = p.name()
			k.Annos = p.annotations()
			p.expect(";")
			d.Keys = append(d.Keys, k)
		}
		p.expect("}")
	case "actions":
		d.HasActions = true
		p.expect("{")
		for !p.at("}") && !p.failed {
			as := p.annotations()
			a := p.actionRef()
			a.Annos = as
			p.expect(";")
			d.Actions = append(d.Actions, a)
		}
		p.expect("}")
	case "entries":
		d.HasEntries, d.ConstEntries, d.EntriesPos = true, isConst, n.Pos
		p.expect("{")
		for !p.at("}") && !p.failed && p.peek().Kind != EOF {
			d.Entries = append(d.Entries, p.entry())
		}
		p.expect("}")
	case "default_action":
		a := p.actionRef()
		if d.Default != nil {
			p.rep.Errorf(n.Pos, "table %s has two default actions", d.Name)
		}
		d.Default, d.ConstDefault = &a, isConst
		p.expect(";")
	default:
		d.Props = append(d.Props, TableProp{Name: n, Value: p.expr(), Const: isConst})
		p.expect(";")
	}
}

func (p *parser) entry() TableEntry {
	e := TableEntry{Place: Place{p.peek().Pos}}
	e.Const = p.accept("const")
	if p.at("priority") && is(p.peekAt(1), "=") {
		p.next()
		p.next()
		e.Priority = p.primary()
		p.expect(":")
	}
	e.Keys = p.keySets()
	p.expect(":")
	e.Action = p.actionRef()
	e.Annos = p.annotations()
	p.expect(";")
	return e
}

func (p *parser) actionRef() ActionRef {
	a := ActionRef{Place: Place{p.peek().Pos}}
	p.accept(".")
	a.Name = p.name().Text
	if p.accept("<") {
		a.TypeArgs = p.typeArgs()
	}
	if p.accept("(") {
		a.Call = true
		a.Args = p.args(")")
	}
	return a
}

// keySets reads one set of keys, or several in parentheses.
func (p *parser) keySets() []Expr {
	if p.at("(") && p.tupleAhead() {
		p.next()
		var ks []Expr
		for !p.at(")") && !p.failed {
			ks = append(ks, p.keySet())
			if !p.accept(",") {
				break
			}
		}
		p.expect(")")
		return ks
	}
	return []Expr{p.keySet()}
}

// tupleAhead says whether the "(" at hand holds a list of key sets and not just the first operand of one: a ":" stands
// behind its ")".
func (p *parser) tupleAhead() bool {
	depth := 0
	for i := p.i; i < len(p.toks); i++ {
		switch t := p.toks[i]; {
		case t.Kind == EOF || is(t, ";"):
			return false
		case is(t, "("):
			depth++
		case is(t, ")"):
			if depth--; depth == 0 {
				return is(p.toks[i+1], ":")
			}
		}
	}
	return false
}

func (p *parser) keySet() Expr {
	t := p.peek()
	if is(t, "_") || is(t, "default") {
		p.next()
		return &AnyExpr{Place{t.Pos}}
	}
	x := p.expr()
	for _, op := range []string{"&&&", ".."} {
		if pos := p.peek().Pos; p.accept(op) {
			return &BinaryExpr{Place{pos}, op, x, p.expr()}
		}
	}
	return x
}
