package p4

import (
	"bytes"
	"fmt"
	"math/big"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"
	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/match"
)

// tableInfo is what is known of a table before the program runs.
type tableInfo struct {
	Table
	keys    []*typ
	actions []actionInfo
	def     boundSpec
	entries []entrySpec
	index   int
	// direct says that the table has a direct counter.
	direct bool
}

// actionInfo is how the arguments of an action lie in the slots, one behind the other: data are their numbers, and flags
// the slots that say of some that they were assigned.
type actionInfo struct {
	params []*typ
	data   []datum
	flags  []int
	size   int
	// tableOnly and defaultOnly say that the action cannot be the default one, or that of an entry; added that it is not
	// among the actions of the table, and only the default one.
	tableOnly, defaultOnly, added bool
}

// boundSpec is an action with its arguments.
type boundSpec struct {
	action int
	args   []uint64
}

// entrySpec is an entry that the program itself has.
type entrySpec struct {
	match    []match.Match
	priority int
	bound    boundSpec
	isConst  bool
	pos      syntax.Pos
}

// action finds an action by the name that the program uses for it.
func (t *tableInfo) action(name string) int {
	for i := range t.Actions {
		if t.Actions[i].Name == name {
			return i
		}
	}
	return -1
}

// tableSite is a table at one place where its control is applied. The entries are the same at every place, and the
// variables that its key and its actions mean are those of the place.
type tableSite struct {
	decl  *syntax.TableDecl
	sc    *scope
	info  *tableInfo
	apply func(*machine) uint64
}

// actionCode is an action of a table at one place.
type actionCode struct {
	base int
	// run is nil if the action does nothing.
	run stmt
}

// compileTable compiles a table at one place.
func (c *compiler) compileTable(t *tableSite) {
	d, inst := t.decl, t.sc.body.inst
	if !d.HasActions {
		c.errorf(d.Pos, "table %s has no actions", d.Name)
	}
	var keys []value
	for _, k := range d.Keys {
		v := c.expr(t.sc, k.Expr)
		if !v.bad() && (!v.t.scalar() || v.t.kind == kindNumber) {
			c.errorf(k.Expr.At(), "a key is a number, a bool, an enum or an error, and this is %s", describeType(v))
			v = c.badValue(v.pos)
		}
		keys = append(keys, v)
	}
	refs := d.Actions
	if d.Default != nil && indexRef(refs, d.Default.Name) < 0 {
		if t.sc.lookup(catAction, d.Default.Name) != nil {
			if d.Default.Name != "NoAction" {
				c.rep.Warnf(d.Default.Pos, "the default action %s is not among the actions of table %s, and is added", d.Default.Name, d.Name)
			}
			refs = append(refs[:len(refs):len(refs)], syntax.ActionRef{Place: d.Default.Place, Name: d.Default.Name})
		}
	}
	if d.Default == nil && indexRef(refs, "NoAction") < 0 {
		refs = append(refs[:len(refs):len(refs)], syntax.ActionRef{Place: d.Place, Name: "NoAction"})
	}
	info := inst.tables[d]
	first := info == nil
	if first {
		info = &tableInfo{index: -1}
		info.Name = inst.name + "." + d.Name
		inst.tables[d] = info
	}
	t.info = info
	var code []actionCode
	for i, ref := range refs {
		a, ok := t.sc.lookup(catAction, ref.Name).(*action)
		if !ok {
			c.errorf(ref.Pos, "there is no action %q", ref.Name)
			continue
		}
		if indexRef(refs[:i], ref.Name) >= 0 {
			c.errorf(ref.Pos, "table %s has the action %s twice", d.Name, ref.Name)
			continue
		}
		c.checked[a.decl] = true
		ac, params, types := c.tableAction(t.sc, a, &ref, ref.Pos)
		code = append(code, ac)
		if first {
			c.describeAction(info, a, params, types, ref, i >= len(d.Actions))
		}
	}
	if first {
		c.describeTable(t, info, keys)
	}
	if info.index < 0 || c.rep.Failed() {
		// Something is wrong, or the table is only looked at; what is made here never runs.
		t.apply = func(*machine) uint64 { return 0 }
		return
	}
	t.apply = c.lookupFunc(info, keys, code)
}

func indexRef(refs []syntax.ActionRef, name string) int {
	for i := range refs {
		if refs[i].Name == name {
			return i
		}
	}
	return -1
}

// tableAction compiles an action for a table: its parameters without a direction are set by the entry.
func (c *compiler) tableAction(sc *scope, a *action, ref *syntax.ActionRef, pos syntax.Pos) (actionCode, []syntax.Param, []*typ) {
	none := actionCode{}
	if !c.enter(pos, a.decl) {
		return none, nil, nil
	}
	defer c.leave(a.decl)
	var directed, plain []syntax.Param
	for _, p := range a.decl.Params {
		switch {
		case p.Dir == "":
			plain = append(plain, p)
		case len(plain) > 0:
			c.errorf(p.Pos, "the parameters that an entry sets come last, and %s stands behind one", p.Name)
		default:
			directed = append(directed, p)
		}
	}
	b := &binder{c: c, outer: sc, copies: true}
	types := a.sc
	var args []syntax.Expr
	if ref != nil {
		var ok bool
		if args, ok = c.arguments(pos, "action "+a.decl.Name+" in a table", directed, ref.Args); !ok {
			return none, nil, nil
		}
		if types = b.infer(pos, "action "+a.decl.Name, a.sc, a.decl.TypeParams, directed, ref.TypeArgs, args); types == nil {
			return none, nil, nil
		}
	}
	inner := types.inner()
	inner.body = &body{kind: bodyAction, inst: a.sc.body.inst}
	b.inner = inner
	if ref == nil {
		for _, p := range directed {
			t := c.resolveType(a.sc, p.Type)
			v := c.place(p.Pos, t, &lvalue{off: c.alloc(t.size), flag: -1, advance: -1})
			if p.Dir == "in" {
				v.readOnly = "the parameter " + p.Name
			}
			c.declare(inner, catValue, p.Pos, p.Name, &binding{v, true})
		}
	} else if !b.bind("action "+a.decl.Name, directed, args, types) {
		return none, nil, nil
	}
	size := 0
	var set []*typ
	for _, p := range plain {
		t := c.resolveType(types, p.Type)
		if _, _, ok := dataOf(t, "", 0); t.kind != kindBad && (!ok || t.holds(func(u *typ) bool { return u.kind == kindError })) {
			c.errorf(p.Pos, "an entry cannot set a parameter of type %s", t)
			t = badType
		}
		set = append(set, t)
		size += t.size
	}
	base := c.alloc(size)
	at := base
	for i, p := range plain {
		v := c.place(p.Pos, set[i], &lvalue{off: at, flag: -1, advance: -1})
		// The language forbids to assign to these, and x4c does not mind.
		c.declare(inner, catValue, p.Pos, p.Name, &binding{v, true})
		at += set[i].size
	}
	code := actionCode{base: base}
	if body := c.block(inner, a.decl.Body); len(a.decl.Body.Stmts) > 0 || len(directed) > 0 {
		code.run = b.around(body)
	}
	return code, plain, set
}

// describeAction adds an action to what is known of a table.
func (c *compiler) describeAction(info *tableInfo, a *action, params []syntax.Param, types []*typ, ref syntax.ActionRef, added bool) {
	x := Action{Name: a.decl.Name}
	var ai actionInfo
	for _, an := range ref.Annos {
		ai.tableOnly = ai.tableOnly || an.Name.Text == "tableonly"
		ai.defaultOnly = ai.defaultOnly || an.Name.Text == "defaultonly"
	}
	ai.added = added
	for i, p := range params {
		t := types[i]
		data, flags, _ := dataOf(t, p.Name, ai.size)
		for _, d := range data {
			x.Params = append(x.Params, Param{Name: d.name, Bits: d.bits})
		}
		ai.data, ai.flags = append(ai.data, data...), append(ai.flags, flags...)
		ai.params = append(ai.params, t)
		ai.size += t.size
	}
	info.Actions = append(info.Actions, x)
	info.actions = append(info.actions, ai)
}

// matchKinds are the kinds of match by the names that programs have for them. An optional key is one value or any, which a
// ternary one can say.
var matchKinds = map[string]match.Kind{
	"exact": match.Exact, "lpm": match.LPM, "ternary": match.Ternary, "range": match.Range, "optional": match.Ternary,
}

// describeTable works out the key, the default action and the entries of a table.
func (c *compiler) describeTable(t *tableSite, info *tableInfo, keys []value) {
	d, inst := t.decl, t.sc.body.inst
	for i, k := range d.Keys {
		kind, ok := matchKinds[k.Match.Text]
		if !ok {
			c.errorf(k.Match.Pos, "the match kind %q is not supported", k.Match.Text)
		}
		name := k.Annos.Text("name")
		if name == "" {
			name = exprText(k.Expr)
		}
		kt := keys[i].t
		if kt.kind == kindInt && (kind == match.LPM || kind == match.Range) {
			c.errorf(k.Expr.At(), "a key of type %s cannot be matched by %s", kt, k.Match.Text)
		}
		info.keys = append(info.keys, kt)
		info.Keys = append(info.Keys, Key{Name: name, Kind: kind, Bits: max(kt.width, 1)})
	}
	if len(info.Actions) == 0 {
		return
	}
	info.def = boundSpec{action: max(info.action("NoAction"), 0)}
	if d.Default != nil {
		if b, ok := c.entryAction(t, info, *d.Default); ok {
			info.def = b
			if info.actions[b.action].tableOnly {
				c.errorf(d.Default.Pos, "action %s is @tableonly, and cannot be the default action of table %s", d.Default.Name, d.Name)
			}
		}
	}
	info.ConstDefault = d.ConstDefault
	for _, p := range d.Props {
		c.tableProperty(t, info, p)
	}
	if d.HasEntries && len(d.Keys) == 0 && len(d.Entries) > 0 {
		c.errorf(d.EntriesPos, "table %s has no key, so it can have no entries", d.Name)
		return
	}
	if d.EntriesFirst {
		c.errorf(d.EntriesPos, "the entries of table %s stand before its key, and have to stand behind it", d.Name)
	}
	info.ConstEntries = d.ConstEntries
	ordered := false
	seen := map[string]bool{}
	for _, k := range info.Keys {
		ordered = ordered || k.Kind == match.Ternary || k.Kind == match.Range
	}
	for i, e := range d.Entries {
		spec, ok := c.entry(t, info, e)
		if !ok {
			continue
		}
		order, given := c.entryOrder(e)
		if ordered && e.Priority == nil {
			// The entry that is written first wins, or the one with the smallest @priority: those without have their place.
			if !given {
				order = i + 1
			}
			spec.priority = len(d.Entries) + 1 - order
		}
		if given && !ordered {
			c.rep.Warnf(e.Pos, "table %s has no ternary or range key, so @priority means nothing", d.Name)
		}
		id := fmt.Sprint(spec.match)
		if ordered && (given || e.Priority != nil) {
			id += fmt.Sprint(" ", spec.priority)
		}
		if seen[id] {
			c.rep.Warnf(e.Pos, "this entry is never reached, an entry before it has the same key")
		}
		seen[id] = true
		spec.isConst = d.ConstEntries || e.Const
		info.entries = append(info.entries, spec)
	}
	if !inst.discard && !c.rep.Failed() {
		info.index = len(c.tables)
		c.tables = append(c.tables, info)
	}
}

// entryOrder is what the annotation @priority of an entry says, as BMv2 has it: of two entries that match, that with the
// smaller number wins.
func (c *compiler) entryOrder(e syntax.TableEntry) (order int, given bool) {
	for _, a := range e.Annos {
		if a.Name.Text != "priority" {
			continue
		}
		if len(a.Body) != 1 || a.Body[0].Kind != syntax.Int || !a.Body[0].Value.IsInt64() || int64(int32(a.Body[0].Value.Int64())) != a.Body[0].Value.Int64() {
			c.errorf(a.Name.Pos, "@priority takes one number of up to 31 bits")
			continue
		}
		if e.Priority != nil {
			c.errorf(a.Name.Pos, "this entry has a priority already")
		}
		order, given = int(a.Body[0].Value.Int64()), true
	}
	return order, given
}

func (c *compiler) tableProperty(t *tableSite, info *tableInfo, p syntax.TableProp) {
	switch p.Name.Text {
	case "size":
		if n := c.constInt(t.sc, p.Value, "the size of a table"); n != nil {
			if !n.IsInt64() || n.Sign() < 0 {
				c.errorf(p.Value.At(), "a table of %s entries is not possible", n)
				return
			}
			info.Size = int(min(n.Int64(), 1<<31))
		}
	case "counters", "psa_direct_counter":
		x, ok := c.expr(t.sc, p.Value).obj.(*externInst)
		if !ok || x.kind != externDirectCounter {
			c.errorf(p.Value.At(), "%s is a direct counter", p.Name.Text)
			return
		}
		if x.table != nil && x.table != info {
			c.errorf(p.Value.At(), "this direct counter belongs to table %s already", x.table.Name)
			return
		}
		x.table = info
		info.direct = true
	case "support_timeout", "psa_idle_timeout", "largest_priority_wins", "priority_delta":
		if b, ok := p.Value.(*syntax.BoolExpr); !ok || b.Value != (p.Name.Text == "largest_priority_wins") {
			c.errorf(p.Name.Pos, "the property %s of a table is not supported with this value", p.Name.Text)
		}
	default:
		c.errorf(p.Name.Pos, "the property %q of a table is not supported", p.Name.Text)
	}
}

// entryAction works out an action and its arguments, as an entry or a default has them.
func (c *compiler) entryAction(t *tableSite, info *tableInfo, ref syntax.ActionRef) (boundSpec, bool) {
	k := info.action(ref.Name)
	if k < 0 {
		if t.sc.lookup(catAction, ref.Name) == nil {
			c.errorf(ref.Pos, "there is no action %q", ref.Name)
		} else {
			c.errorf(ref.Pos, "action %s is not among the actions of table %s", ref.Name, t.decl.Name)
		}
		return boundSpec{}, false
	}
	params, args := info.actions[k].params, ref.Args
	if a, ok := t.sc.lookup(catAction, ref.Name).(*action); ok && len(args) == len(a.decl.Params) {
		// Those with a direction are set by the list of actions; an entry may repeat them.
		var listed []syntax.Arg
		if i := indexRef(t.decl.Actions, ref.Name); i >= 0 {
			listed = t.decl.Actions[i].Args
		}
		for i, a := range args[:len(args)-len(params)] {
			if i >= len(listed) || exprText(a.Value) != exprText(listed[i].Value) {
				c.errorf(a.Value.At(), "this argument is not the one that action %s has among the actions of table %s", ref.Name, t.decl.Name)
				return boundSpec{}, false
			}
		}
		args = args[len(args)-len(params):]
	}
	if len(args) != len(params) {
		c.errorf(ref.Pos, "action %s takes %d arguments here, and %d are given", ref.Name, len(params), len(args))
		return boundSpec{}, false
	}
	b := boundSpec{action: k, args: make([]uint64, info.actions[k].size)}
	at := b.args
	for i, a := range args {
		v := c.convert(c.expr(t.sc, a.Value), params[i], fmt.Sprintf("argument %d of action %s", i+1, ref.Name))
		if v.bad() {
			return b, false
		}
		if !constData(at, v, params[i]) {
			c.notConstant(v, "the argument of an entry")
			return b, false
		}
		at = at[params[i].size:]
	}
	return b, true
}

// entry works out one entry that the program has.
func (c *compiler) entry(t *tableSite, info *tableInfo, e syntax.TableEntry) (entrySpec, bool) {
	spec := entrySpec{pos: e.Pos}
	if len(e.Keys) == 1 {
		if l, ok := e.Keys[0].(*syntax.ListExpr); ok {
			e.Keys = nil
			for _, x := range l.Elems {
				e.Keys = append(e.Keys, x.Value)
			}
		}
	}
	if len(e.Keys) == 1 && len(info.Keys) > 1 {
		if _, ok := e.Keys[0].(*syntax.AnyExpr); ok {
			for range info.Keys[1:] {
				e.Keys = append(e.Keys, e.Keys[0])
			}
		}
	}
	if len(e.Keys) != len(info.Keys) {
		c.errorf(e.Pos, "this entry has %d keys, and table %s has %d", len(e.Keys), t.decl.Name, len(info.Keys))
		return spec, false
	}
	ok := true
	for i, k := range e.Keys {
		if b, isOp := k.(*syntax.BinaryExpr); isOp && (b.Op == "&&&" || b.Op == "..") && t.decl.Keys[i].Match.Text == "optional" {
			c.errorf(b.Pos, "key %s is optional, so an entry has a value for it or \"_\"", info.Keys[i].Name)
			return spec, false
		}
		m, good := c.entryKey(t.sc, k, info.keys[i], info.Keys[i])
		ok = ok && good
		spec.match = append(spec.match, m)
	}
	if e.Priority != nil {
		n := c.constInt(t.sc, e.Priority, "a priority")
		if n == nil || !n.IsInt64() || n.Int64() != int64(int32(n.Int64())) {
			return spec, false
		}
		spec.priority = int(n.Int64())
	}
	var good bool
	if spec.bound, good = c.entryAction(t, info, e.Action); good && info.actions[spec.bound.action].defaultOnly {
		c.errorf(e.Action.Pos, "action %s is @defaultonly, and cannot be that of an entry of table %s", e.Action.Name, t.decl.Name)
	}
	return spec, ok && good
}

func (c *compiler) entryKey(sc *scope, e syntax.Expr, t *typ, k Key) (match.Match, bool) {
	none := match.Match{}
	if t.kind == kindBad {
		return none, false
	}
	size := (t.width + 7) / 8
	bytesOf := func(v value) []byte {
		if v.bad() {
			return nil
		}
		if v.c == nil {
			c.notConstant(v, "the key of an entry")
			return nil
		}
		b := bigBytes(toLimbs(v.c, t.width))
		return b[len(b)-size:]
	}
	if _, ok := e.(*syntax.AnyExpr); ok {
		switch k.Kind {
		case match.LPM:
			return match.Match{Value: make([]byte, size)}, true
		case match.Ternary:
			return match.Match{Value: make([]byte, size), Mask: make([]byte, size)}, true
		case match.Range:
			return match.Match{Value: make([]byte, size), High: allOnes(t.width)}, true
		}
		c.errorf(e.At(), "key %s is exact, so an entry needs a value for it", k.Name)
		return none, false
	}
	b, isOp := e.(*syntax.BinaryExpr)
	switch {
	case isOp && b.Op == "&&&":
		x, y := bytesOf(c.maskPart(sc, b.X, t)), bytesOf(c.maskPart(sc, b.Y, t))
		if x == nil || y == nil {
			return none, false
		}
		for i := range x {
			x[i] &= y[i]
		}
		switch k.Kind {
		case match.Ternary:
			return match.Match{Value: x, Mask: y}, true
		case match.LPM:
			n, ok := prefixLen(new(big.Int).SetBytes(y), t.width)
			if !ok {
				c.errorf(b.Y.At(), "the mask of an lpm key is ones and then zeros")
				return none, false
			}
			return match.Match{Value: x, Prefix: n}, true
		}
		c.errorf(b.Pos, "key %s is %s, and cannot have a mask", k.Name, k.Kind)
		return none, false
	case isOp && b.Op == "..":
		x, y := bytesOf(c.maskPart(sc, b.X, t)), bytesOf(c.maskPart(sc, b.Y, t))
		if x == nil || y == nil {
			return none, false
		}
		if k.Kind != match.Range {
			c.errorf(b.Pos, "key %s is %s, and cannot have a range", k.Name, k.Kind)
			return none, false
		}
		if bytes.Compare(x, y) > 0 {
			c.errorf(b.Pos, "the range from %#x to %#x is empty", x, y)
			return none, false
		}
		return match.Match{Value: x, High: y}, true
	}
	x := bytesOf(c.convert(c.expr(sc, e), t, "the key"))
	if x == nil {
		return none, false
	}
	m := match.Match{Value: x}
	switch k.Kind {
	case match.LPM:
		m.Prefix = t.width
	case match.Ternary:
		m.Mask = allOnes(t.width)
	case match.Range:
		m.High = x
	}
	return m, true
}

// allOnes is the largest number of a width.
func allOnes(width int) []byte {
	b := bytes.Repeat([]byte{0xff}, (width+7)/8)
	if width%8 != 0 {
		b[0] >>= 8 - width%8
	}
	return b
}

// prefixLen reads a mask as the length of a prefix.
func prefixLen(m *big.Int, width int) (int, bool) {
	n := 0
	for n < width && m.Bit(width-1-n) == 1 {
		n++
	}
	for i := range width - n {
		if m.Bit(i) == 1 {
			return 0, false
		}
	}
	return n, true
}
