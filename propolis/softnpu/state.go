package softnpu

import (
	"errors"
	"fmt"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4"
)

// stateful is a pipeline whose default actions, registers, counters and meters
// can be read and set.
type stateful interface {
	Default(table string) (action string, args [][]byte, err error)
	SetDefault(table, action string, args [][]byte) error
	Arrays() []p4.Array
	Cell(array string, cell int) (p4.Cell, error)
	SetCell(array string, cell int, c p4.Cell) error
}

// maxCells is how many cells are read at once.
const maxCells = 1 << 12

// state does the requests that need a stateful pipeline.
func (p *program) state(s stateful, r Request) (any, error) {
	switch r := r.(type) {
	case DefaultsRequest:
		return p.defaults(s)
	case DefaultSet:
		return nil, p.setDefault(s, r)
	case ArraysRequest:
		arrays := []Array{}
		for _, a := range s.Arrays() {
			arrays = append(arrays, describeArray(a))
		}
		return arrays, nil
	case CellsGet:
		return cells(s, r)
	case CellSet:
		return nil, setCell(s, r)
	}
	return nil, fmt.Errorf("%T is not a request to an ASIC", r)
}

func describeArray(a p4.Array) Array {
	d := Array{Name: a.Name, Kind: string(a.Kind), Size: a.Size}
	for _, f := range a.Fields {
		d.Fields = append(d.Fields, Param(f))
	}
	return d
}

// counted returns the entries of a table with what they have counted.
func (p *program) counted(r EntriesRequest) ([]CountedEntry, error) {
	t, err := p.table(r.Table)
	if err != nil {
		return nil, err
	}
	entries, err := p.pipeline.Entries(t.Name)
	if err != nil {
		return nil, fmt.Errorf("dump table %s: %w", t.Name, err)
	}
	list := make([]CountedEntry, len(entries))
	for i, e := range entries {
		dumped, err := dumpEntry(t, e)
		if err != nil {
			return nil, err
		}
		list[i] = CountedEntry{DumpEntry: dumped, Const: e.Const, Packets: e.Count.Packets, Bytes: e.Count.Bytes, Direct: Count(e.Direct)}
	}
	return list, nil
}

func (p *program) defaults(s stateful) (map[string]Default, error) {
	all := map[string]Default{}
	for _, t := range p.tables {
		action, args, err := s.Default(t.Name)
		if err != nil {
			return nil, err
		}
		all[t.Name] = Default{action, EncodeArgs(args)}
	}
	return all, nil
}

func (p *program) setDefault(s stateful, r DefaultSet) error {
	t, err := p.table(r.Table)
	if err != nil {
		return err
	}
	action, ok := t.action(r.Action)
	if !ok {
		return fmt.Errorf("table %s has no action %q", t.Name, r.Action)
	}
	args, err := DecodeArgs(action.Parameters, r.Arguments)
	if err != nil {
		return fmt.Errorf("default action of table %s: action %s: %w", t.Name, action.Name, err)
	}
	return s.SetDefault(t.Name, action.Name, args)
}

func cells(s stateful, r CellsGet) ([]Cell, error) {
	if r.Count < 1 || r.Count > maxCells {
		return nil, fmt.Errorf("%d cells of %s: 1 to %d can be read at once", r.Count, r.Array, maxCells)
	}
	a, err := array(s, r.Array)
	if err != nil {
		return nil, err
	}
	list := make([]Cell, r.Count)
	for i := range list {
		c, err := s.Cell(r.Array, r.First+i)
		if err != nil {
			return nil, err
		}
		list[i] = encodeCell(a, c)
	}
	return list, nil
}

// array describes an array by its name.
func array(s stateful, name string) (p4.Array, error) {
	for _, a := range s.Arrays() {
		if a.Name == name {
			return a, nil
		}
	}
	return p4.Array{}, fmt.Errorf("%q: %w", name, p4.ErrNoArray)
}

func encodeCell(a p4.Array, c p4.Cell) Cell {
	switch a.Kind {
	case p4.CounterArray:
		n := Count(c.Count)
		return Cell{Count: &n}
	case p4.MeterArray:
		m := Meter(c.Meter)
		return Cell{Meter: &m}
	}
	return Cell{Values: EncodeArgs(c.Fields)}
}

func setCell(s stateful, r CellSet) error {
	a, err := array(s, r.Array)
	if err != nil {
		return err
	}
	var c p4.Cell
	switch {
	case a.Kind == p4.RegisterArray && r.Values != nil:
		if c.Fields, err = DecodeArgs(describeArray(a).Fields, r.Values); err != nil {
			return fmt.Errorf("register %s: %w", a.Name, err)
		}
	case a.Kind == p4.CounterArray && r.Count != nil:
		c.Count = p4.Count(*r.Count)
	case a.Kind == p4.MeterArray && r.Meter != nil:
		c.Meter = p4.MeterConfig(*r.Meter)
	default:
		return errors.New("a cell is set with what it holds: value_data for a register, count for a counter, meter for a meter; " + a.Name + " is a " + string(a.Kind))
	}
	return s.SetCell(a.Name, r.Index, c)
}
