package p4

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/match"
)

// Table describes a table of a program.
type Table struct {
	// Name is the path of the names of instances that leads to the table, as in "ingress.router.rtr".
	Name    string
	Keys    []Key
	Actions []Action
	// Size is how many entries the program wants the table to hold at least, 0 if it does not say. It is no bound: a table
	// holds as many as there is memory for.
	Size int
	// ConstEntries and ConstDefault say that the program alone sets the entries or the default action.
	ConstEntries, ConstDefault bool
}

// Key is a field that a table matches on.
type Key struct {
	// Name is the expression of the program, or what @name says.
	Name string
	Kind match.Kind
	Bits int
}

// Action is what an entry can do.
type Action struct {
	Name   string
	Params []Param
}

// Param is a parameter of an action that the entry sets.
type Param struct {
	Name string
	Bits int
}

// Entry is an entry of a table. Values are big-endian and as long as what they are for, in whole bytes.
type Entry struct {
	// Match has one element for each key of the table.
	Match []match.Match
	// Priority decides between entries of a table with ternary or range keys: the larger one wins.
	Priority int
	Action   string
	Args     [][]byte
	// Const says that the entry is part of the program and cannot be removed. It is not looked at when an entry is added.
	Const bool
	// Count is how often the entry was hit.
	Count Count
	// Direct is what a direct counter of the table has counted for this entry.
	Direct Count
}

// Count is a number of packets and of their bytes.
type Count struct{ Packets, Bytes uint64 }

// TableCount is how often a table was applied.
type TableCount struct {
	Hits, Misses uint64
	Entries      int
}

// Errors of updates.
var (
	// ErrNoTable is an update of a table that the program does not have.
	ErrNoTable = errors.New("there is no such table")
	// ErrConst is an update of what the program itself has set for good.
	ErrConst = errors.New("the program sets this for good")
)

// bound is an action with its arguments, as an entry or a default has it. It is as large as a line of the cache, since with
// many entries it has to come from memory for each packet.
type bound struct {
	packets atomic.Uint64
	bytes   atomic.Uint64
	action  int32
	isConst bool
	// few is how many arguments lie in room; more has them if they are more than that holds.
	few  uint8
	room [3]uint64
	more *[]uint64
	// direct is what a direct counter counts, nil without one.
	direct *counterCell
}

func (t *tableInfo) bind(action int, args []uint64) *bound {
	b := &bound{action: int32(action)}
	if len(args) <= len(b.room) {
		b.few = uint8(copy(b.room[:], args))
	} else {
		all := slices.Clone(args)
		b.more = &all
	}
	if t.direct {
		b.direct = &counterCell{}
	}
	return b
}

// args are the arguments in the form of the slots.
func (b *bound) args() []uint64 {
	if b.more != nil {
		return *b.more
	}
	return b.room[:b.few]
}

// tableState is a table of a pipeline.
type tableState struct {
	info         *tableInfo
	match        *match.Table[*bound]
	def          atomic.Pointer[bound]
	hits, misses atomic.Uint64
}

func newTableState(info *tableInfo) (*tableState, error) {
	t := &tableState{info: info}
	t.def.Store(info.bind(info.def.action, info.def.args))
	if len(info.Keys) == 0 {
		return t, nil
	}
	var fields []match.Field
	for _, k := range info.Keys {
		fields = append(fields, match.Field{Kind: k.Kind, Bits: k.Bits})
	}
	var err error
	if t.match, err = match.New[*bound](fields...); err != nil {
		return nil, fmt.Errorf("table %s: %w", info.Name, err)
	}
	for _, e := range info.entries {
		b := info.bind(e.bound.action, e.bound.args)
		b.isConst = e.isConst
		// A second entry with the same match is never reached, since the first one wins.
		if err := t.match.Add(match.Entry[*bound]{Match: e.match, Priority: e.priority, Value: b}); err != nil && !errors.Is(err, match.ErrExists) {
			return nil, fmt.Errorf("table %s: an entry of the program: %w", info.Name, err)
		}
	}
	return t, nil
}

// bind checks an action and its arguments and brings them into the form of the slots.
func (t *tableState) bind(action string, args [][]byte) (*bound, error) {
	k := t.info.action(action)
	if k < 0 {
		var names []string
		for _, a := range t.info.Actions {
			names = append(names, a.Name)
		}
		return nil, fmt.Errorf("table %s has no action %q; it has %v", t.info.Name, action, names)
	}
	a := t.info.Actions[k]
	if len(args) != len(a.Params) {
		return nil, fmt.Errorf("action %s takes %d parameters, and %d are given", action, len(a.Params), len(args))
	}
	info := &t.info.actions[k]
	slots := make([]uint64, info.size)
	for _, f := range info.flags {
		slots[f] = 1
	}
	for i, p := range a.Params {
		if len(args[i]) != (p.Bits+7)/8 {
			return nil, fmt.Errorf("parameter %s of action %s has %d bytes, and %d are given", p.Name, action, (p.Bits+7)/8, len(args[i]))
		}
		if p.Bits%8 != 0 && args[i][0]>>(p.Bits%8) != 0 {
			return nil, fmt.Errorf("parameter %s of action %s: %#x has more than %d bits", p.Name, action, args[i], p.Bits)
		}
		loadWide(slots[info.data[i].off:], args[i], len(args[i]))
	}
	return t.info.bind(k, slots), nil
}

// unbind is the inverse of bind.
func (t *tableState) unbind(b *bound) (action string, args [][]byte) {
	a := t.info.Actions[b.action]
	slots := b.args()
	for _, d := range t.info.actions[b.action].data {
		out := make([]byte, (d.bits+7)/8)
		storeWide(out, len(out), slots[d.off:])
		args = append(args, out)
	}
	return a.Name, args
}

func (t *tableState) entry(e *match.Entry[*bound]) Entry {
	out := Entry{Priority: e.Priority, Const: e.Value.isConst}
	for _, m := range e.Match {
		out.Match = append(out.Match, match.Match{Value: slices.Clone(m.Value), Prefix: m.Prefix, Mask: slices.Clone(m.Mask), High: slices.Clone(m.High)})
	}
	out.Action, out.Args = t.unbind(e.Value)
	out.Count = Count{e.Value.packets.Load(), e.Value.bytes.Load()}
	if d := e.Value.direct; d != nil {
		out.Direct = Count{d.packets.Load(), d.bytes.Load()}
	}
	return out
}

// table finds a table by its name.
func (p *Pipeline) table(name string) (*tableState, error) {
	t := p.byName[name]
	if t == nil {
		return nil, fmt.Errorf("table %q: %w", name, ErrNoTable)
	}
	return t, nil
}

// Tables describes the tables in the order of the program.
func (p *Pipeline) Tables() []Table { return p.program.Tables() }

// changeable gives a table whose entries are not those of the program alone.
func (p *Pipeline) changeable(name string) (*tableState, error) {
	t, err := p.table(name)
	if err != nil {
		return nil, err
	}
	switch {
	case t.match == nil:
		return nil, fmt.Errorf("table %s has no key, so it can have no entries", name)
	case t.info.ConstEntries:
		return nil, fmt.Errorf("table %s has constant entries: %w", name, ErrConst)
	}
	return t, nil
}

// Add adds an entry to a table. It fails with [match.ErrExists] if one with the same match is there.
func (p *Pipeline) Add(table string, e Entry) error { return p.put(table, e, false) }

// Set adds an entry to a table, in the place of the one with the same match if there is one.
func (p *Pipeline) Set(table string, e Entry) error { return p.put(table, e, true) }

func (p *Pipeline) put(table string, e Entry, replace bool) error {
	t, err := p.changeable(table)
	if err != nil {
		return err
	}
	b, err := t.bind(e.Action, e.Args)
	if err != nil {
		return err
	}
	if a := t.info.actions[b.action]; a.defaultOnly || a.added {
		return fmt.Errorf("action %s of table %s can only be the default action", e.Action, table)
	}
	if replace && t.isConst(e.Match, e.Priority) {
		return fmt.Errorf("table %s: this entry is part of the program: %w", table, ErrConst)
	}
	me := match.Entry[*bound]{Match: e.Match, Priority: e.Priority, Value: b}
	if replace {
		_, err = t.match.Set(me)
	} else {
		err = t.match.Add(me)
	}
	if err != nil {
		return fmt.Errorf("table %s: %w", table, err)
	}
	return nil
}

// Remove removes the entry with a match from a table. It fails with [match.ErrNoEntry] if there is none.
func (p *Pipeline) Remove(table string, m []match.Match, priority int) error {
	t, err := p.changeable(table)
	if err != nil {
		return err
	}
	if t.isConst(m, priority) {
		return fmt.Errorf("table %s: this entry is part of the program: %w", table, ErrConst)
	}
	if _, err := t.match.Remove(m, priority); err != nil {
		return fmt.Errorf("table %s: %w", table, err)
	}
	return nil
}

// isConst says whether an entry is one of the program that cannot be changed.
func (t *tableState) isConst(m []match.Match, priority int) bool {
	e, err := t.match.Get(m, priority)
	return err == nil && e != nil && e.Value.isConst
}

// Entries returns the entries of a table in the order in which they were added.
func (p *Pipeline) Entries(table string) ([]Entry, error) {
	t, err := p.table(table)
	if err != nil || t.match == nil {
		return nil, err
	}
	var out []Entry
	for _, e := range t.match.Entries() {
		out = append(out, t.entry(e))
	}
	return out, nil
}

// Counters returns how often a table was applied.
func (p *Pipeline) Counters(table string) (TableCount, error) {
	t, err := p.table(table)
	if err != nil {
		return TableCount{}, err
	}
	c := TableCount{Hits: t.hits.Load(), Misses: t.misses.Load()}
	if t.match != nil {
		c.Entries = t.match.Len()
	}
	return c, nil
}

// Default returns the action that a table runs when no entry matches.
func (p *Pipeline) Default(table string) (action string, args [][]byte, err error) {
	t, err := p.table(table)
	if err != nil {
		return "", nil, err
	}
	action, args = t.unbind(t.def.Load())
	return action, args, nil
}

// SetDefault sets the action that a table runs when no entry matches.
func (p *Pipeline) SetDefault(table, action string, args [][]byte) error {
	t, err := p.table(table)
	if err != nil {
		return err
	}
	if t.info.ConstDefault {
		return fmt.Errorf("table %s has a constant default action: %w", table, ErrConst)
	}
	b, err := t.bind(action, args)
	if err != nil {
		return err
	}
	if t.info.actions[b.action].tableOnly {
		return fmt.Errorf("action %s of table %s cannot be the default action", action, table)
	}
	t.def.Store(b)
	return nil
}
