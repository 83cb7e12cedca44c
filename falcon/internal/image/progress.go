package image

// Step is one report of a long task.
type Step struct {
	// What is being done, for people: "downloading packages".
	What string
	// Done and Total measure it; Total is 0 where that is not known.
	Done, Total int64
	// Bytes tells that Done and Total count bytes; else they have no unit.
	Bytes bool
}

// Progress takes reports of a long task. It is called by one goroutine at a
// time and must not block. Nil is allowed: nobody listens.
type Progress func(Step)

// Report passes a step to whoever listens.
func (p Progress) Report(s Step) {
	if p != nil {
		p(s)
	}
}
