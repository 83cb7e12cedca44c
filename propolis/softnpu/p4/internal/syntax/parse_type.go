package syntax

// skipType walks over the tokens of a type from i on and gives the place behind it.
func (p *parser) skipType(i int) (int, bool) {
	return p.skipTypeDepth(i, 0)
}

func (p *parser) skipTypeDepth(i, depth int) (int, bool) {
	if depth > maxDepth || i >= len(p.toks) {
		return i, false
	}
	angles := func(i int) (int, bool) {
		for i++; ; {
			end, ok := p.skipTypeDepth(i, depth+1)
			if !ok {
				return i, false
			}
			if is(p.toks[end], ",") {
				i = end + 1
				continue
			}
			return end + 1, is(p.toks[end], ">")
		}
	}
	t, ok := p.toks[i], true
	switch {
	case is(t, "bit") || is(t, "int") || is(t, "varbit"):
		i++
		if is(p.toks[i], "<") {
			parens := 0
			for i++; !is(p.toks[i], ">") || parens > 0; i++ {
				switch u := p.toks[i]; {
				case is(u, "("):
					parens++
				case is(u, ")"):
					parens--
				case u.Kind == EOF || is(u, ";") || is(u, "{") || is(u, "}"):
					return i, false
				}
			}
			i++
		}
	case is(t, "bool") || is(t, "error") || is(t, "string") || is(t, "void") || is(t, "match_kind") || is(t, "_"):
		i++
	case is(t, "tuple") || is(t, "list") && is(p.toks[i+1], "<"):
		if !is(p.toks[i+1], "<") {
			return i, false
		}
		if i, ok = angles(i + 1); !ok {
			return i, false
		}
	case is(t, ".") && isName(p.toks[i+1]), isName(t):
		if is(t, ".") {
			i++
		}
		i++
		for is(p.toks[i], ".") && isName(p.toks[i+1]) {
			return i, false
		}
		if is(p.toks[i], "<") {
			if end, ok := angles(i); ok {
				i = end
			} else {
				return i, false
			}
		}
	default:
		return i, false
	}
	for is(p.toks[i], "[") {
		depth := 0
		for ; ; i++ {
			switch u := p.toks[i]; {
			case is(u, "["):
				depth++
				continue
			case is(u, "]"):
				depth--
			case u.Kind == EOF || is(u, ";") || is(u, ":"):
				return i, false
			}
			if depth == 0 {
				break
			}
		}
		i++
	}
	return i, true
}

func (p *parser) typ() Type {
	if !p.enter() {
		p.leave()
		return &BaseType{Place{p.peek().Pos}, "bool"}
	}
	defer p.leave()
	t := p.peek()
	at := Place{t.Pos}
	var typ Type
	switch {
	case is(t, "bit") || is(t, "int") || is(t, "varbit"):
		p.next()
		b := &BitType{Place: at, Base: t.Text}
		if p.accept("<") {
			// Shifts and comparisons need parentheses, since they have a ">" of their own.
			b.Width = p.binary(sumLevel)
			p.closeAngle()
		}
		typ = b
	case is(t, "bool") || is(t, "error") || is(t, "string") || is(t, "void") || is(t, "match_kind") || is(t, "_"):
		p.next()
		typ = &BaseType{at, t.Text}
	case is(t, "tuple") || is(t, "list") && is(p.peekAt(1), "<"):
		p.next()
		p.expect("<")
		typ = &TupleType{Place: at, Elems: p.typeArgs(), List: t.Text == "list"}
	case is(t, ".") || isName(t):
		n := &NamedType{Place: at, Global: p.accept(".")}
		n.Name = p.name().Text
		if p.at("<") {
			p.next()
			n.Args = p.typeArgs()
		}
		typ = n
	default:
		p.errorf("expected a type, found %s", describe(t))
		return &BaseType{at, "bool"}
	}
	for p.at("[") && !p.failed {
		p.next()
		s := &StackType{Place: at, Elem: typ, Size: p.expr()}
		p.expect("]")
		typ = s
	}
	return typ
}

// typeArgs reads types up to and with the ">".
func (p *parser) typeArgs() []Type {
	var ts []Type
	for !p.failed && !p.at(">") {
		ts = append(ts, p.typ())
		if !p.accept(",") {
			break
		}
	}
	p.closeAngle()
	return ts
}
