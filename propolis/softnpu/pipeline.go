package softnpu

import (
	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/match"
)

// Pipeline is a program that an ASIC runs, with the content of its tables. All
// methods may be called at once, and while threads run frames.
type Pipeline interface {
	// Tables describes the tables, in a fixed order.
	Tables() []Table
	// Add adds an entry to a table. It fails if one with the same match is
	// there.
	Add(table string, e Entry) error
	// Remove removes the entry with a match from a table.
	Remove(table string, match []match.Match, priority int) error
	// Entries returns the entries of a table in a fixed order.
	Entries(table string) ([]Entry, error)
	// Thread returns what one goroutine needs to run frames.
	Thread() Thread
}

// Thread runs frames through a pipeline, one at a time.
type Thread interface {
	// Process runs a frame that came in by a port, and calls emit for each
	// frame that leaves, which may be none. It changes nothing in frame, and
	// what it emits is good until emit returns.
	Process(ingress uint16, frame []byte, emit func(egress uint16, frame []byte))
}

// Table describes a table of a program.
type Table struct {
	// Name is what the control plane calls it, "ingress.local.local_v4".
	Name    string   `json:"name"`
	Keys    []Key    `json:"keys"`
	Actions []Action `json:"actions"`
}

// Key is a field that a table matches on.
type Key struct {
	Name string `json:"name"`
	// Kind is "exact", "lpm", "ternary" or "range".
	Kind string `json:"kind"`
	Bits int    `json:"bits"`
}

// Action is what an entry can do.
type Action struct {
	Name       string  `json:"name"`
	Parameters []Param `json:"parameters"`
}

// Param is a parameter of an action, which has a value in each entry.
type Param struct {
	Name string `json:"name"`
	Bits int    `json:"bits"`
}

// Entry is an entry of a table. Values are big-endian and as long as what they
// are for, in whole bytes.
type Entry struct {
	Match    []match.Match
	Priority int
	Action   string
	Args     [][]byte
}

// Source is a program before it is compiled.
type Source struct {
	// Main is the name of the file that the compiler starts with.
	Main string `json:"main"`
	// Files has it, and all that it includes and the compiler does not
	// know itself, by the names by which they are included.
	Files map[string]string `json:"files"`
}

// action returns an action of the table.
func (t *Table) action(name string) (*Action, bool) {
	for i := range t.Actions {
		if t.Actions[i].Name == name {
			return &t.Actions[i], true
		}
	}
	return nil, false
}
