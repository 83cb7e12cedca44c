package p4

// partSet is a set of the headers of a pipeline: a bit for each, by its number. What a machine has extracted is one word of
// it; the headers behind those are taken for valid wherever it matters, and looked at.
type partSet []uint64

func newPartSet(parts int) partSet {
	s := make(partSet, (parts+63)/64)
	for i := 1; i < len(s); i++ {
		s[i] = ones(parts - 64*i)
	}
	return s
}

// partAt gives the number of the header that lies at a slot if it is in the first word of a set, or -1.
func (c *compiler) partAt(off int) int {
	for i := range min(len(c.parts), 64) {
		if c.parts[i].at == off {
			return i
		}
	}
	return -1
}

// writes notes that the code at hand can change the headers that lie in some slots.
func (c *compiler) writes(s span) {
	for i := range c.parts {
		if h := &c.parts[i]; s.from < h.at+h.typ.size && h.at < s.to {
			h.written = true
		}
	}
}

// makesValid notes that the code at hand can make the headers valid that lie in some slots.
func (c *compiler) makesValid(s span) {
	for i := range c.parts {
		if at := c.parts[i].at; s.from <= at && at < s.to {
			c.valid[i/64] |= 1 << (i % 64)
		}
	}
}
