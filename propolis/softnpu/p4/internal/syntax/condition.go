package syntax

import "math/big"

func intToken(pos Pos, v int64) Token {
	return Token{Kind: Int, Text: "0", Pos: pos, Value: big.NewInt(v)}
}

// condParser works out the integer expression of an #if.
type condParser struct {
	toks  []Token
	i     int
	depth int
	bad   bool
}

func (c *condParser) accept(op string) bool {
	if c.i < len(c.toks) && c.toks[c.i].Kind == Op && c.toks[c.i].Text == op {
		c.i++
		return true
	}
	return false
}

func (c *condParser) ternary() int64 {
	if c.depth++; c.depth > maxDepth {
		c.bad = true
	}
	defer func() { c.depth-- }()
	if c.bad {
		return 0
	}
	v := c.binary(0)
	if c.accept("?") {
		a := c.ternary()
		if !c.accept(":") {
			c.bad = true
			return 0
		}
		b := c.ternary()
		if v != 0 {
			return a
		}
		return b
	}
	return v
}

var condLevels = [][]string{{"||"}, {"&&"}, {"|"}, {"^"}, {"&"}, {"==", "!="}, {"<=", ">=", "<", ">"}, {"<<"}, {"+", "-"}, {"*", "/", "%"}}

func (c *condParser) binary(level int) int64 {
	if level == len(condLevels) {
		return c.unary()
	}
	v := c.binary(level + 1)
next:
	for !c.bad {
		for _, op := range condLevels[level] {
			if c.accept(op) {
				v = c.apply(op, v, c.binary(level+1))
				continue next
			}
		}
		break
	}
	return v
}

func (c *condParser) apply(op string, a, b int64) int64 {
	truth := func(t bool) int64 {
		if t {
			return 1
		}
		return 0
	}
	switch op {
	case "||":
		return truth(a != 0 || b != 0)
	case "&&":
		return truth(a != 0 && b != 0)
	case "|":
		return a | b
	case "^":
		return a ^ b
	case "&":
		return a & b
	case "==":
		return truth(a == b)
	case "!=":
		return truth(a != b)
	case "<=":
		return truth(a <= b)
	case ">=":
		return truth(a >= b)
	case "<":
		return truth(a < b)
	case ">":
		return truth(a > b)
	case "<<":
		if b < 0 || b > 63 {
			c.bad = true
			return 0
		}
		return a << uint(b)
	case "+":
		return a + b
	case "-":
		return a - b
	case "*":
		return a * b
	}
	if b == 0 {
		c.bad = true
		return 0
	}
	if op == "/" {
		return a / b
	}
	return a % b
}

func (c *condParser) unary() int64 {
	if c.depth++; c.depth > maxDepth {
		c.bad = true
	}
	defer func() { c.depth-- }()
	switch {
	case c.bad:
		return 0
	case c.accept("!"):
		if c.unary() == 0 {
			return 1
		}
		return 0
	case c.accept("-"):
		return -c.unary()
	case c.accept("~"):
		return ^c.unary()
	case c.accept("+"):
		return c.unary()
	case c.accept("("):
		v := c.ternary()
		if !c.accept(")") {
			c.bad = true
		}
		return v
	}
	if c.i < len(c.toks) && c.toks[c.i].Kind == Int && c.toks[c.i].Value.IsInt64() {
		c.i++
		return c.toks[c.i-1].Value.Int64()
	}
	c.bad = true
	return 0
}
