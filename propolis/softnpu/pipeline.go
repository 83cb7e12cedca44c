package softnpu

import (
	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4"
	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/match"
)

// Pipeline is a program that an ASIC runs, with the content of its tables: a
// [p4.Pipeline], or one that a test has written in Go. All methods may be
// called at once, and while threads run frames.
type Pipeline interface {
	// Tables describes the tables, in a fixed order.
	Tables() []p4.Table
	// Add adds an entry to a table. It fails if one with the same match is
	// there.
	Add(table string, e p4.Entry) error
	// Remove removes the entry with a match from a table.
	Remove(table string, match []match.Match, priority int) error
	// Entries returns the entries of a table in a fixed order.
	Entries(table string) ([]p4.Entry, error)
	// NewThread returns what one goroutine needs to run frames.
	NewThread() Thread
}

// Thread runs frames through a pipeline, one at a time.
type Thread interface {
	// Process runs a frame that came in by a port, and calls emit for each
	// frame that leaves; the result says why, if none does. It changes nothing
	// in frame, and what it emits is good until emit returns.
	Process(ingress uint16, frame []byte, emit func(egress uint16, frame []byte)) p4.DropReason
}

// Source is a program before it is compiled.
type Source struct {
	// Main is the name of the file that the compiler starts with.
	Main string `json:"main"`
	// Files has it, and all that it includes and the compiler does not
	// know itself, by the names by which they are included.
	Files map[string]string `json:"files"`
}

// ReadSource reads the program at a path, with all that it includes. If the
// source cannot be used the error is of type [p4.Diagnostics].
func ReadSource(path string) (Source, error) {
	main, files, err := p4.ReadFiles(path)
	return Source{Main: main, Files: files}, err
}

// Program is a compiled P4 program as an ASIC runs it.
type Program struct{ *p4.Pipeline }

// NewThread returns what one goroutine needs to run frames.
func (p Program) NewThread() Thread { return p.Thread() }

// Compile makes a program of its source for an ASIC with a number of front
// ports. If the source cannot be used the error is of type [p4.Diagnostics].
func Compile(s Source, radix int) (Pipeline, error) {
	program, err := p4.Compile(p4.Files(s.Main, s.Files))
	if err != nil {
		return nil, err
	}
	p, err := program.New(radix + 1) // and the CPU port
	if err != nil {
		return nil, err
	}
	return Program{p}, nil
}

// Table describes a table of a program to a guest.
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

// Describe returns tables as a guest sees them.
func Describe(tables []p4.Table) []Table {
	all := make([]Table, len(tables))
	for i, t := range tables {
		d := Table{Name: t.Name, Keys: make([]Key, len(t.Keys)), Actions: make([]Action, len(t.Actions))}
		for j, k := range t.Keys {
			d.Keys[j] = Key{Name: k.Name, Kind: k.Kind.String(), Bits: k.Bits}
		}
		for j, a := range t.Actions {
			d.Actions[j] = Action{Name: a.Name, Parameters: make([]Param, len(a.Params))}
			for n, p := range a.Params {
				d.Actions[j].Parameters[n] = Param(p)
			}
		}
		all[i] = d
	}
	return all
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
