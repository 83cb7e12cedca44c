package p4

import (
	"bytes"
	"fmt"
	"strings"
)

// StepKind is what happened in a step of a trace.
type StepKind string

// The kinds of steps.
const (
	StepState   StepKind = "state"
	StepExtract StepKind = "extract"
	StepTable   StepKind = "table"
	StepAction  StepKind = "action"
	StepEgress  StepKind = "egress"
	StepRewrite StepKind = "rewrite"
)

// Trace is the way of one packet through a pipeline.
type Trace struct {
	Ingress uint16   `json:"ingress"`
	Steps   []Step   `json:"steps"`
	Outputs []Output `json:"outputs"`
	// Dropped is why nothing came out, "" if something did.
	Dropped string `json:"dropped,omitempty"`
}

// Output is a packet that came out.
type Output struct {
	Port  uint16 `json:"port"`
	Frame []byte `json:"frame"`
}

// Step is one step of the way.
type Step struct {
	Kind StepKind `json:"kind"`
	// Name is that of the state, the header, the table, the action, or of the egress port.
	Name string `json:"name"`
	// Fields are those of an extracted header, the key of a look-up, or the fields that were rewritten.
	Fields []FieldValue `json:"fields,omitempty"`
	// Hit, Action and Args are the outcome of a look-up.
	Hit    bool         `json:"hit,omitempty"`
	Action string       `json:"action,omitempty"`
	Args   []FieldValue `json:"args,omitempty"`
}

// FieldValue is a value with its name. Values are big-endian hexadecimal numbers; "invalid" stands for a header that is
// not there. Old is what a rewritten field was before.
type FieldValue struct {
	Name  string `json:"name"`
	Bits  int    `json:"bits"`
	Value string `json:"value"`
	Old   string `json:"old,omitempty"`
}

// String shows the trace, a line for each step.
func (t *Trace) String() string {
	var b strings.Builder
	fields := func(fs []FieldValue) string {
		var parts []string
		for _, f := range fs {
			if f.Old != "" {
				parts = append(parts, fmt.Sprintf("%s %s → %s", f.Name, f.Old, f.Value))
			} else {
				parts = append(parts, f.Name+" "+f.Value)
			}
		}
		return strings.Join(parts, ", ")
	}
	fmt.Fprintf(&b, "in by port %d\n", t.Ingress)
	for _, s := range t.Steps {
		switch s.Kind {
		case StepTable:
			outcome := "miss"
			if s.Hit {
				outcome = "hit"
			}
			fmt.Fprintf(&b, "table %s [%s] %s → %s(%s)\n", s.Name, fields(s.Fields), outcome, s.Action, fields(s.Args))
		case StepRewrite:
			fmt.Fprintf(&b, "rewritten %s\n", fields(s.Fields))
		case StepExtract:
			fmt.Fprintf(&b, "extract %s [%s]\n", s.Name, fields(s.Fields))
		default:
			fmt.Fprintf(&b, "%s %s\n", s.Kind, s.Name)
		}
	}
	for _, o := range t.Outputs {
		fmt.Fprintf(&b, "out by port %d, %d bytes: %x\n", o.Port, len(o.Frame), o.Frame)
	}
	if t.Dropped != "" {
		fmt.Fprintf(&b, "dropped: %s\n", t.Dropped)
	}
	return b.String()
}

// Trace runs a packet and tells its way. The packet counts as any other: counters go up, and registers change.
func (p *Pipeline) Trace(ingress uint16, frame []byte) *Trace {
	t := p.Thread()
	tr := &Trace{Ingress: ingress}
	t.m.trace = &tracer{to: tr}
	r := t.Process(ingress, frame, func(port uint16, out []byte) {
		tr.Outputs = append(tr.Outputs, Output{port, bytes.Clone(out)})
	})
	if r != NotDropped {
		tr.Dropped = r.String()
		if r == VerifyFailed {
			tr.Dropped += ": error." + p.program.errors[t.m.parserError]
		}
	}
	return tr
}

// tracer writes down the way of a packet.
type tracer struct {
	to *Trace
	// before is what the headers were behind the parser.
	before []uint64
}

func (t *tracer) step(s Step) { t.to.Steps = append(t.to.Steps, s) }

func (t *tracer) state(name string) { t.step(Step{Kind: StepState, Name: name}) }

func (t *tracer) action(name string) { t.step(Step{Kind: StepAction, Name: name}) }

func (t *tracer) egress(port uint16) { t.step(Step{Kind: StepEgress, Name: fmt.Sprint(port)}) }

func hexValue(s []uint64, f *field, at int) string {
	width := f.typ.width
	if f.typ.kind == kindVarbit {
		width = int(s[at])
		at++
		if width == 0 {
			return "empty"
		}
	}
	b := make([]byte, (width+7)/8)
	storeWide(b, len(b), s[at:])
	return hexBytes(b)
}

func hexBytes(b []byte) string { return fmt.Sprintf("0x%x", b) }

func (t *tracer) extract(name string, typ *typ, s []uint64, at int) {
	st := Step{Kind: StepExtract, Name: name}
	for i := range typ.leaves {
		f := &typ.leaves[i]
		st.Fields = append(st.Fields, FieldValue{Name: f.name, Bits: f.typ.width, Value: hexValue(s, f, at+f.off)})
	}
	t.step(st)
}

func (t *tracer) table(ts *tableState, key []byte, hit bool, b *bound) {
	st := Step{Kind: StepTable, Name: ts.info.Name, Hit: hit}
	for _, k := range ts.info.Keys {
		n := min((k.Bits+7)/8, len(key))
		st.Fields = append(st.Fields, FieldValue{Name: k.Name, Bits: k.Bits, Value: hexBytes(key[:n])})
		key = key[n:]
	}
	var args [][]byte
	st.Action, args = ts.unbind(b)
	for i, p := range ts.info.Actions[b.action].Params {
		st.Args = append(st.Args, FieldValue{Name: p.Name, Bits: p.Bits, Value: hexBytes(args[i])})
	}
	t.step(st)
}

func (t *tracer) parsed(p *Program, m *machine) {
	t.before = append(t.before[:0], m.s[:p.state]...)
}

// rewritten compares the headers with what the parser found.
func (t *tracer) rewritten(p *Program, m *machine) {
	st := Step{Kind: StepRewrite}
	for _, h := range p.parts {
		was, is := t.before[h.at] != 0, m.s[h.at] != 0
		switch {
		case was && !is:
			st.Fields = append(st.Fields, FieldValue{Name: h.name, Bits: h.typ.bits, Old: "valid", Value: "invalid"})
		case is:
			if !was {
				st.Fields = append(st.Fields, FieldValue{Name: h.name, Bits: h.typ.bits, Old: "invalid", Value: "valid"})
			}
			for i := range h.typ.leaves {
				f := &h.typ.leaves[i]
				now := hexValue(m.s, f, h.at+f.off)
				old := hexValue(t.before, f, h.at+f.off)
				if !was {
					old = "invalid"
				}
				if now != old {
					st.Fields = append(st.Fields, FieldValue{Name: h.name + "." + f.name, Bits: f.typ.width, Value: now, Old: old})
				}
			}
		}
	}
	if len(st.Fields) > 0 {
		t.step(st)
	}
}
