package softnpu

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/match"
)

// Request is what a guest asks of an ASIC by its management channel. The first
// four are SoftNPU's own; it answers the first two of them in its own way, and
// the others not at all.
type Request interface{ request() }

// Requests.
type (
	// RadixRequest asks for the number of front ports.
	RadixRequest struct{}
	// DumpRequest asks for all entries of all tables.
	DumpRequest struct{}
	// TableAdd adds an entry.
	TableAdd struct {
		Table     string `json:"table"`
		Action    string `json:"action"`
		Keys      Octets `json:"keyset_data"`
		Arguments Octets `json:"parameter_data"`
		// Priority is our own. It decides between entries with ternary or range
		// keys: the larger one wins.
		Priority int `json:"priority,omitempty"`
	}
	// TableRemove removes an entry.
	TableRemove struct {
		Table    string `json:"table"`
		Keys     Octets `json:"keyset_data"`
		Priority int    `json:"priority,omitempty"`
	}

	// ProgramLoad has the ASIC run another program. Its tables are as the
	// source has them: no entry is kept.
	ProgramLoad Source
	// TableGet asks for one entry.
	TableGet struct {
		Table    string `json:"table"`
		Keys     Octets `json:"keyset_data"`
		Priority int    `json:"priority,omitempty"`
	}
	// EntriesRequest asks for the entries of a table with what they have
	// counted.
	EntriesRequest struct {
		Table string `json:"table"`
	}
	// DefaultsRequest asks for the actions that tables run when no entry
	// matches.
	DefaultsRequest struct{}
	// DefaultSet sets such an action.
	DefaultSet struct {
		Table     string `json:"table"`
		Action    string `json:"action"`
		Arguments Octets `json:"parameter_data"`
	}
	// ArraysRequest asks for the registers, counters and meters that the
	// program has.
	ArraysRequest struct{}
	// CellsGet asks for some cells of one of them.
	CellsGet struct {
		Array string `json:"array"`
		First int    `json:"first"`
		Count int    `json:"count"`
	}
	// CellSet sets a cell of one of them.
	CellSet struct {
		Array string `json:"array"`
		Index int    `json:"index"`
		Cell
	}
	// TablesRequest asks for the tables that the program has.
	TablesRequest struct{}
	// CountersRequest asks for the counters of the ports.
	CountersRequest struct{}
	// TraceRequest has a packet run through the program and its way told. It
	// is not sent, but counts as any other with the program's own counters.
	TraceRequest struct {
		Port  uint16 `json:"port"` // by which it comes in
		Frame []byte `json:"frame"`
	}
	// Ask is a request that wants an [Answer], whatever comes of it.
	Ask struct {
		// ID is the answer's.
		ID      uint64
		Request Request
	}
)

func (RadixRequest) request()    {}
func (DumpRequest) request()     {}
func (TableAdd) request()        {}
func (TableRemove) request()     {}
func (ProgramLoad) request()     {}
func (TableGet) request()        {}
func (TablesRequest) request()   {}
func (CountersRequest) request() {}
func (TraceRequest) request()    {}
func (EntriesRequest) request()  {}
func (DefaultsRequest) request() {}
func (DefaultSet) request()      {}
func (ArraysRequest) request()   {}
func (CellsGet) request()        {}
func (CellSet) request()         {}
func (Ask) request()             {}

// Names of the requests. Those without content are strings, the others are
// objects with one member of this name.
const (
	nameRadix    = "RadixRequest"
	nameDump     = "DumpRequest"
	nameAdd      = "TableAdd"
	nameRemove   = "TableRemove"
	nameGet      = "TableGet"
	nameLoad     = "ProgramLoad"
	nameTables   = "TablesRequest"
	nameCounters = "CountersRequest"
	nameTrace    = "TraceRequest"
	nameEntries  = "EntriesRequest"
	nameDefaults = "DefaultsRequest"
	nameDefault  = "DefaultSet"
	nameArrays   = "ArraysRequest"
	nameCells    = "CellsGet"
	nameCell     = "CellSet"
	nameAsk      = "Ask"
	nameAnswer   = "Answer"
)

// Octets are bytes that JSON has as numbers.
type Octets []byte

// MarshalJSON writes the bytes as an array of numbers.
func (o Octets) MarshalJSON() ([]byte, error) {
	b := []byte{'['}
	for i, c := range o {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(c), 10)
	}
	return append(b, ']'), nil
}

// UnmarshalJSON reads an array of numbers from 0 to 255.
func (o *Octets) UnmarshalJSON(b []byte) error {
	var numbers []uint8Number
	if err := json.Unmarshal(b, &numbers); err != nil {
		return err
	}
	*o = make([]byte, len(numbers))
	for i, n := range numbers {
		(*o)[i] = byte(n)
	}
	return nil
}

// uint8Number is a byte that is not, in a slice, taken for base64.
type uint8Number uint8

// UnmarshalJSON reads a number from 0 to 255.
func (n *uint8Number) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseUint(string(b), 10, 8)
	if err != nil {
		return fmt.Errorf("%s is not a byte", b)
	}
	*n = uint8Number(v)
	return nil
}

// Dump is the answer to a [DumpRequest]: the entries by the names of the
// tables.
type Dump map[string][]DumpEntry

// DumpEntry is an entry as it was, or could have been, added.
type DumpEntry struct {
	Action    string `json:"action_id"`
	Keys      Octets `json:"keyset_data"`
	Arguments Octets `json:"parameter_data"`
	Priority  int    `json:"priority,omitempty"`
}

// AddTo returns the request that adds the entry to a table.
func (e DumpEntry) AddTo(table string) TableAdd {
	return TableAdd{Table: table, Action: e.Action, Keys: e.Keys, Arguments: e.Arguments, Priority: e.Priority}
}

// CountedEntry is an entry with what it has counted.
type CountedEntry struct {
	DumpEntry
	// Const says that the entry is part of the program and stays.
	Const bool `json:"const,omitempty"`
	// Packets and Bytes are those that hit it, and Direct those that a direct
	// counter of the table has counted.
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
	Direct  Count  `json:"direct"`
}

// Count is a number of packets and of their bytes.
type Count struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Default is the action that a table runs when no entry matches.
type Default struct {
	Action    string `json:"action_id"`
	Arguments Octets `json:"parameter_data"`
}

// Array describes a register, counter or meter of a program.
type Array struct {
	Name string `json:"name"`
	// Kind is "register", "counter" or "meter".
	Kind string `json:"kind"`
	// Size is how many cells it has.
	Size int `json:"size"`
	// Fields are the values in a cell of a register.
	Fields []Param `json:"fields,omitempty"`
}

// Cell is a cell of an array: of a register its values as those of parameters
// are, of a counter what it has counted, of a meter its rates a second and its
// bursts.
type Cell struct {
	Values Octets `json:"value_data,omitempty"`
	Count  *Count `json:"count,omitempty"`
	Meter  *Meter `json:"meter,omitempty"`
}

// Meter is how a cell of a meter is set, in bytes or packets.
type Meter struct {
	CommittedRate  uint64 `json:"committed_rate"`
	CommittedBurst uint64 `json:"committed_burst"`
	PeakRate       uint64 `json:"peak_rate"`
	PeakBurst      uint64 `json:"peak_burst"`
}

// Answer is what comes of an [Ask].
type Answer struct {
	ID uint64 `json:"id"`
	// Error is empty if the request was done.
	Error string `json:"error,omitempty"`
	// Code says what kind of error it is, if it is one that a client may
	// want to know.
	Code Code `json:"code,omitempty"`
	// Result is a number for a RadixRequest, a Dump for a DumpRequest, a
	// DumpEntry for a TableGet, a list of Table for a TablesRequest, a list
	// of Counters by port for a CountersRequest, a p4.Trace for a TraceRequest,
	// a list of CountedEntry for an EntriesRequest, Defaults by the names of
	// their tables for a DefaultsRequest, a list of Array for an ArraysRequest,
	// a list of Cell for a CellsGet, and nothing for the others.
	Result json.RawMessage `json:"result,omitempty"`
}

// Code is a kind of error.
type Code string

// Kinds of errors.
const (
	// CodeExists is an entry to be added that is there already.
	CodeExists Code = "exists"
	// CodeNoEntry is an entry to be removed or got that is not there.
	CodeNoEntry Code = "no_entry"
)

// codeOf returns the kind of an error, which may be nil.
func codeOf(err error) Code {
	switch {
	case errors.Is(err, match.ErrExists):
		return CodeExists
	case errors.Is(err, match.ErrNoEntry):
		return CodeNoEntry
	}
	return ""
}

// MarshalRequest returns a request as JSON, in one line.
func MarshalRequest(r Request) ([]byte, error) {
	switch r := r.(type) {
	case RadixRequest:
		return json.Marshal(nameRadix)
	case DumpRequest:
		return json.Marshal(nameDump)
	case TablesRequest:
		return json.Marshal(nameTables)
	case CountersRequest:
		return json.Marshal(nameCounters)
	case DefaultsRequest:
		return json.Marshal(nameDefaults)
	case ArraysRequest:
		return json.Marshal(nameArrays)
	case EntriesRequest:
		return json.Marshal(map[string]any{nameEntries: r})
	case DefaultSet:
		return json.Marshal(map[string]any{nameDefault: r})
	case CellsGet:
		return json.Marshal(map[string]any{nameCells: r})
	case CellSet:
		return json.Marshal(map[string]any{nameCell: r})
	case TableAdd:
		return json.Marshal(map[string]any{nameAdd: r})
	case TableRemove:
		return json.Marshal(map[string]any{nameRemove: r})
	case TableGet:
		return json.Marshal(map[string]any{nameGet: r})
	case ProgramLoad:
		return json.Marshal(map[string]any{nameLoad: r})
	case TraceRequest:
		return json.Marshal(map[string]any{nameTrace: r})
	case Ask:
		inner, err := MarshalRequest(r.Request)
		if err != nil {
			return nil, err
		}
		return json.Marshal(map[string]any{nameAsk: askFields{ID: &r.ID, Request: inner}})
	}
	return nil, fmt.Errorf("%T is not a request", r)
}

type askFields struct {
	ID      *uint64         `json:"id"`
	Request json.RawMessage `json:"request"`
}

// UnmarshalRequest reads a request from JSON. If that in an [Ask] is none, the
// Ask comes with the error.
func UnmarshalRequest(b []byte) (Request, error) {
	name, content, err := variant(b)
	if err != nil || name != nameAsk {
		return plain(name, content, err)
	}
	var a askFields
	if err := members(name, content, &a, "id", "request"); err != nil {
		return nil, err
	}
	name, content, err = variant(a.Request)
	r, err := plain(name, content, err)
	// The answer to a bad request needs the ID.
	return Ask{ID: *a.ID, Request: r}, err
}

// plain returns a request that is no Ask from what variant has found.
func plain(name string, content json.RawMessage, err error) (Request, error) {
	if err != nil {
		return nil, err
	}
	if content == nil {
		switch name {
		case nameRadix:
			return RadixRequest{}, nil
		case nameDump:
			return DumpRequest{}, nil
		case nameTables:
			return TablesRequest{}, nil
		case nameCounters:
			return CountersRequest{}, nil
		case nameDefaults:
			return DefaultsRequest{}, nil
		case nameArrays:
			return ArraysRequest{}, nil
		}
	} else {
		switch name {
		case nameAdd:
			return decoded[TableAdd](name, content, "table", "action", "keyset_data", "parameter_data")
		case nameRemove:
			return decoded[TableRemove](name, content, "table", "keyset_data")
		case nameGet:
			return decoded[TableGet](name, content, "table", "keyset_data")
		case nameLoad:
			return decoded[ProgramLoad](name, content, "main", "files")
		case nameTrace:
			return decoded[TraceRequest](name, content, "port", "frame")
		case nameEntries:
			return decoded[EntriesRequest](name, content, "table")
		case nameDefault:
			return decoded[DefaultSet](name, content, "table", "action", "parameter_data")
		case nameCells:
			return decoded[CellsGet](name, content, "array", "first", "count")
		case nameCell:
			return decoded[CellSet](name, content, "array", "index")
		}
	}
	return nil, fmt.Errorf("%q is not a request", name)
}

// decoded reads the content of a request.
func decoded[R Request](name string, content json.RawMessage, needed ...string) (Request, error) {
	var r R
	if err := members(name, content, &r, needed...); err != nil {
		return nil, err
	}
	return r, nil
}

// variant takes a string, or an object of one member, apart.
func variant(b []byte) (name string, content json.RawMessage, err error) {
	if b = bytes.TrimSpace(b); len(b) > 0 && b[0] == '"' {
		err = json.Unmarshal(b, &name)
		return name, nil, err
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(b, &object); err != nil {
		return "", nil, err
	}
	if len(object) != 1 {
		return "", nil, fmt.Errorf("a request has one member, not %d", len(object))
	}
	for name, content = range object {
	}
	return name, content, nil
}

// members reads an object that has some members at least.
func members(request string, content json.RawMessage, into any, needed ...string) error {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(content, &object); err != nil {
		return fmt.Errorf("%s: %w", request, err)
	}
	for _, name := range needed {
		if v, ok := object[name]; !ok || string(v) == "null" {
			return fmt.Errorf("%s has no %s", request, name)
		}
	}
	if err := json.Unmarshal(content, into); err != nil {
		return fmt.Errorf("%s: %w", request, err)
	}
	return nil
}

// UnmarshalAnswer reads an answer from a line that may as well be something
// else.
func UnmarshalAnswer(line []byte) (Answer, bool) {
	name, content, err := variant(line)
	if err != nil || name != nameAnswer || content == nil {
		return Answer{}, false
	}
	var a Answer
	if err := members(name, content, &a, "id"); err != nil {
		return Answer{}, false
	}
	return a, true
}

func marshalAnswer(a Answer) ([]byte, error) {
	return json.Marshal(map[string]Answer{nameAnswer: a})
}
