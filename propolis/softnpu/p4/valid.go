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

// partBit gives the bit of the header that lies at a slot in the first word of a set, which is 0 if it has none there.
func (c *compiler) partBit(off int) uint64 {
	for i := range min(len(c.parts), 64) {
		if c.parts[i].at == off {
			return 1 << i
		}
	}
	return 0
}

// makesValid notes that the code at hand can make the headers valid that lie in some slots.
func (c *compiler) makesValid(s span) {
	for i := range c.parts {
		if at := c.parts[i].at; s.from <= at && at < s.to {
			c.valid[i/64] |= 1 << (i % 64)
		}
	}
}
