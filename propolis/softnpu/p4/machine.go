package p4

// machine is the state of one packet on its way through a pipeline. A pipeline keeps some for reuse, so that a packet
// costs no allocation.
//
// P4 has no recursion, so every variable of every block has its slot for itself, given out by the compiler.
type machine struct {
	s   []uint64
	pkt []byte
	// cur is the next bit of the packet that the parser reads; advanced is how many it went over without a header.
	cur, advanced int
	// next is the state that a transition chose, and states how many the packet went through.
	next, states int
	// rounds is how many rounds of its loops the program may still go through for this packet.
	rounds int
	// fault is why the packet has to be dropped, if it has to be.
	fault DropReason
	// parserError is the error that the parser stopped with.
	parserError uint64
	// hit says whether the last table found an entry.
	hit bool
	// entry is what the last table ran.
	entry   *bound
	exiting bool
	// keys holds the key of a look-up, scratch the bytes of a list that a checksum is made of.
	keys, scratch []byte
	// seen are the headers that were extracted.
	seen uint64
	// hdr is where the headers of the outgoing packet are written, and hdrBits how many bits are.
	hdr     []byte
	hdrBits int
	snap    []uint64
	tables  []*tableState
	externs []externState
	trace   *tracer
	// from is the bit of the packet that each of the headers begins at that were extracted.
	from [64]int
}

// signal says how a statement ended.
type signal uint8

const (
	next signal = iota
	// returned leaves the control, action or function.
	returned
	// exited leaves the whole block of the pipeline.
	exited
	// moved goes on with another state of the parser.
	moved
	// broken leaves a loop, and continued goes on with its next round.
	broken
	continued
)

// stmt is a compiled statement.
type stmt func(*machine) signal

// States of a parser that have no body.
const (
	stateAccept = -1
	stateReject = -2
)

// DropReason says why a packet did not come out.
type DropReason uint8

// The reasons.
const (
	// NotDropped is that of a packet that came out.
	NotDropped DropReason = iota
	// ParserReject: the parser went to reject.
	ParserReject
	// PacketTooShort: the parser wanted more bytes than the packet has.
	PacketTooShort
	// VerifyFailed: a verify of the parser did not hold.
	VerifyFailed
	// NoSelectMatch: no line of a select fitted.
	NoSelectMatch
	// StackBounds: next of a full stack or last of an empty one.
	StackBounds
	// HeaderTooShort: more bits for a varbit than it can hold.
	HeaderTooShort
	// ParserLoop: the parser went through too many states.
	ParserLoop
	// DivisionByZero: a division or remainder by zero.
	DivisionByZero
	// NoEgressPort: no port was chosen.
	NoEgressPort
	// BadPort: the port chosen has more than 16 bits.
	BadPort
	// Dropped: the program set egress.drop.
	Dropped
	// LoopLimit: the loops of the program went through too many rounds.
	LoopLimit
	dropReasons
)

var dropNames = [...]string{
	NotDropped: "not dropped", ParserReject: "rejected by the parser", PacketTooShort: "packet too short",
	VerifyFailed: "verify failed", NoSelectMatch: "no select case matches", StackBounds: "header stack out of bounds",
	HeaderTooShort: "varbit field too long", ParserLoop: "too many parser states", DivisionByZero: "division by zero",
	NoEgressPort: "no egress port set", BadPort: "egress port of more than 16 bits", Dropped: "dropped by the program",
	LoopLimit: "too many rounds of a loop",
}

func (r DropReason) String() string {
	if int(r) < len(dropNames) {
		return dropNames[r]
	}
	return "unknown"
}

// fail marks the packet for being dropped; the first reason stays.
func (m *machine) fail(r DropReason) {
	if m.fault == NotDropped {
		m.fault = r
	}
}

func runAll(m *machine, list []stmt) signal {
	for _, s := range list {
		if sig := s(m); sig != next {
			return sig
		}
	}
	return next
}

// sequence makes one statement of several.
func sequence(list []stmt) stmt {
	switch len(list) {
	case 0:
		return func(*machine) signal { return next }
	case 1:
		return list[0]
	case 2:
		a, b := list[0], list[1]
		return func(m *machine) signal {
			if sig := a(m); sig != next {
				return sig
			}
			return b(m)
		}
	}
	return func(m *machine) signal {
		for _, s := range list {
			if sig := s(m); sig != next {
				return sig
			}
		}
		return next
	}
}
