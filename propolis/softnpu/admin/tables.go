package admin

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/propolis/softnpu"
	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4"
	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/match"
)

// schema asks for the tables of the program.
func schema(ctx context.Context, s *session) ([]softnpu.Table, error) {
	var all []softnpu.Table
	err := s.Ask(ctx, softnpu.TablesRequest{}, &all)
	return all, err
}

func table(ctx context.Context, s *session, name string) (softnpu.Table, error) {
	all, err := schema(ctx, s)
	if err != nil {
		return softnpu.Table{}, err
	}
	for _, t := range all {
		if t.Name == name {
			return t, nil
		}
	}
	return softnpu.Table{}, fmt.Errorf("the program has no table %q: tables lists them", name)
}

// action returns an action of a table.
func action(t softnpu.Table, name string) (softnpu.Action, error) {
	for _, a := range t.Actions {
		if a.Name == name {
			return a, nil
		}
	}
	return softnpu.Action{}, fmt.Errorf("table %s has no action %q: tables lists them", t.Name, name)
}

func tables(ctx context.Context, s *session, _ []string) error {
	all, err := schema(ctx, s)
	if err != nil {
		return err
	}
	if s.json {
		return s.print(all)
	}
	for _, t := range all {
		var keys []string
		for _, k := range t.Keys {
			keys = append(keys, fmt.Sprintf("%s %s %d", k.Name, k.Kind, k.Bits))
		}
		fmt.Fprintf(s.out, "%s  (%s)\n", t.Name, strings.Join(keys, ", "))
		for _, a := range t.Actions {
			var params []string
			for _, p := range a.Parameters {
				params = append(params, fmt.Sprintf("%s %d", p.Name, p.Bits))
			}
			fmt.Fprintf(s.out, "  %s(%s)\n", a.Name, strings.Join(params, ", "))
		}
	}
	return nil
}

// entryText is an entry as people read it.
type entryText struct {
	Table     string            `json:"table"`
	Keys      map[string]string `json:"keys"`
	Action    string            `json:"action"`
	Arguments map[string]string `json:"arguments"`
	Priority  int               `json:"priority,omitempty"`

	keys, args string
}

// spell returns an entry of a dump as people read it.
func spell(t softnpu.Table, e softnpu.DumpEntry) (entryText, error) {
	text := entryText{Table: t.Name, Action: e.Action, Priority: e.Priority, Keys: map[string]string{}, Arguments: map[string]string{}}
	matches, err := softnpu.DecodeKeys(t.Keys, e.Keys)
	if err != nil {
		return text, fmt.Errorf("table %s: %w", t.Name, err)
	}
	var keys []string
	for i, k := range t.Keys {
		text.Keys[k.Name] = softnpu.FormatMatch(k, matches[i])
		keys = append(keys, text.Keys[k.Name])
	}
	a, err := action(t, e.Action)
	if err != nil {
		return text, err
	}
	args, err := softnpu.DecodeArgs(a.Parameters, e.Arguments)
	if err != nil {
		return text, fmt.Errorf("table %s: %w", t.Name, err)
	}
	for i, p := range a.Parameters {
		text.Arguments[p.Name] = softnpu.FormatValue(p.Bits, args[i])
	}
	text.keys, text.args = strings.Join(keys, " "), softnpu.FormatArgs(a.Parameters, args)
	return text, nil
}

func dumpState(ctx context.Context, s *session, _ []string) error {
	all, err := schema(ctx, s)
	if err != nil {
		return err
	}
	var dump softnpu.Dump
	if err := s.Ask(ctx, softnpu.DumpRequest{}, &dump); err != nil {
		return err
	}
	texts := []entryText{}
	for _, t := range all {
		for _, e := range dump[t.Name] {
			text, err := spell(t, e)
			if err != nil {
				return err
			}
			texts = append(texts, text)
		}
	}
	if s.json {
		return s.print(texts)
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	last := ""
	for _, e := range texts {
		if e.Table != last {
			fmt.Fprintln(w, e.Table)
			last = e.Table
		}
		priority := ""
		if e.Priority != 0 {
			priority = fmt.Sprintf(", priority %d", e.Priority)
		}
		fmt.Fprintf(w, "  %s\t→ %s(%s)%s\n", e.keys, e.Action, e.args, priority)
	}
	return w.Flush()
}

// keysOf reads the keys of an entry.
func keysOf(t softnpu.Table, words []string) (softnpu.Octets, error) {
	if len(words) < len(t.Keys) {
		return nil, fmt.Errorf("table %s has %d keys, and %d were given", t.Name, len(t.Keys), len(words))
	}
	matches := make([]match.Match, len(t.Keys))
	for i, k := range t.Keys {
		var err error
		if matches[i], err = softnpu.ParseMatch(k, words[i]); err != nil {
			return nil, err
		}
	}
	return softnpu.EncodeKeys(t.Keys, matches)
}

func addEntry(ctx context.Context, s *session, args []string, priority int) error {
	t, err := table(ctx, s, args[0])
	if err != nil {
		return err
	}
	a, err := action(t, args[1])
	if err != nil {
		return err
	}
	words := args[2:]
	keys, err := keysOf(t, words)
	if err != nil {
		return err
	}
	values, err := argumentsOf("action "+a.Name, a.Parameters, words[len(t.Keys):])
	if err != nil {
		return err
	}
	return s.Ask(ctx, softnpu.TableAdd{Table: t.Name, Action: a.Name, Keys: keys, Arguments: values, Priority: priority}, nil)
}

func removeEntry(ctx context.Context, s *session, args []string, priority int) error {
	t, err := table(ctx, s, args[0])
	if err != nil {
		return err
	}
	if n := len(args) - 1; n > len(t.Keys) {
		return fmt.Errorf("table %s has %d keys, and %d were given", t.Name, len(t.Keys), n)
	}
	keys, err := keysOf(t, args[1:])
	if err != nil {
		return err
	}
	return s.Ask(ctx, softnpu.TableRemove{Table: t.Name, Keys: keys, Priority: priority}, nil)
}

// portCounters are the counters of a port as JSON has them.
type portCounters struct {
	Port int `json:"port"`
	softnpu.Counters
}

func counters(ctx context.Context, s *session, _ []string) error {
	var all []softnpu.Counters
	if err := s.Ask(ctx, softnpu.CountersRequest{}, &all); err != nil {
		return err
	}
	if s.json {
		ports := make([]portCounters, len(all))
		for i, c := range all {
			ports[i] = portCounters{i, c}
		}
		return s.print(ports)
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "PORT\tRECEIVED\tBYTES\tSENT\tBYTES\tDROPPED\tREFUSED\tMISDIRECTED\tLOOPED\tLOST\t")
	for i, c := range all {
		name := fmt.Sprint(i)
		if i == softnpu.CPUPort {
			name = "CPU"
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", name, c.ReceivedFrames, c.ReceivedBytes,
			c.TransmittedFrames, c.TransmittedBytes, c.Dropped, c.Refused, c.Misdirected, c.Looped, c.Lost)
	}
	return w.Flush()
}

// trace prints the way of a packet, whose bytes may have any spaces and colons
// between them.
func trace(ctx context.Context, s *session, args []string) error {
	port, err := strconv.ParseUint(args[0], 10, 16)
	if err != nil {
		return fmt.Errorf("%q is not the number of a port", args[0])
	}
	frame, err := hex.DecodeString(strings.NewReplacer(" ", "", ":", "").Replace(strings.Join(args[1:], "")))
	if err != nil {
		return fmt.Errorf("the packet is not hexadecimal: %w", err)
	}
	var t p4.Trace
	if err := s.Ask(ctx, softnpu.TraceRequest{Port: uint16(port), Frame: frame}, &t); err != nil {
		return err
	}
	if s.json {
		return s.print(t)
	}
	for _, step := range t.Steps {
		readable(step.Fields, step.Kind == p4.StepTable)
		readable(step.Args, true)
	}
	_, err = fmt.Fprint(s.out, t.String())
	return err
}

// readable has addresses written as people know them, and what is in tables as
// dump prints it. Other fields stay hexadecimal.
func readable(fields []p4.FieldValue, inTable bool) {
	for i := range fields {
		f := &fields[i]
		for _, v := range []*string{&f.Value, &f.Old} {
			b, err := hex.DecodeString(strings.TrimPrefix(*v, "0x"))
			if *v != "" && err == nil && (inTable || f.Bits == 32 || f.Bits == 48 || f.Bits == 128) {
				*v = softnpu.FormatValue(f.Bits, b)
			}
		}
	}
}

func loadProgram(ctx context.Context, s *session, args []string) error {
	source, err := softnpu.ReadSource(args[0])
	if err != nil {
		return err
	}
	return s.Ask(ctx, softnpu.ProgramLoad(source), nil)
}

// fileCommand makes a command whose last argument is a file. Scadm has a flag
// for it, which stays.
func fileCommand(set *settings, name, short string, run func(ctx context.Context, s *session, file string) error) *cobra.Command {
	file := ""
	c := set.command(verb{name + " FILE", short, cobra.MaximumNArgs(1),
		func(ctx context.Context, s *session, args []string) error {
			if len(args) > 0 {
				file = args[0]
			}
			if file == "" {
				return fmt.Errorf("%s needs the name of a file", name)
			}
			return run(ctx, s, file)
		}})
	c.Flags().StringVar(&file, "filename", "", "the `file`, as scadm has it")
	return c
}

func save(ctx context.Context, s *session, file string) error {
	var dump softnpu.Dump
	if err := s.Ask(ctx, softnpu.DumpRequest{}, &dump); err != nil {
		return err
	}
	b, err := json.MarshalIndent(dump, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

func restore(ctx context.Context, s *session, file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var wanted, there softnpu.Dump
	if err := json.Unmarshal(b, &wanted); err != nil {
		return fmt.Errorf("%s is not a file of npuadm save: %w", file, err)
	}
	if err := s.Ask(ctx, softnpu.DumpRequest{}, &there); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if _, ok := there[name]; !ok {
			return fmt.Errorf("%s is of another program: this one has no table %s", file, name)
		}
	}
	added, replaced := 0, 0
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		have := map[string]softnpu.DumpEntry{}
		for _, e := range there[name] {
			have[identity(e)] = e
		}
		var adds []softnpu.Request
		for _, e := range wanted[name] {
			old, exists := have[identity(e)]
			switch {
			case !exists:
				adds = append(adds, e.AddTo(name))
			case old.Action != e.Action || !bytes.Equal(old.Arguments, e.Arguments):
				if err := replace(ctx, s, name, e, old); err != nil {
					return halfway(added, replaced, err)
				}
				replaced++
			}
		}
		n, err := s.AskAll(ctx, adds)
		if added += n; err != nil {
			return halfway(added, replaced, err)
		}
	}
	_, err = fmt.Fprintf(s.out, "added %d entries, replaced %d\n", added, replaced)
	return err
}

// identity is what tells the entries of a table apart.
func identity(e softnpu.DumpEntry) string { return fmt.Sprint(e.Priority, e.Keys) }

func halfway(added, replaced int, err error) error {
	return fmt.Errorf("after %d entries were added and %d replaced: %w", added, replaced, err)
}

// replace adds an entry in the place of an old one, which it puts back if it
// cannot.
func replace(ctx context.Context, s *session, table string, e, old softnpu.DumpEntry) error {
	if err := s.Ask(ctx, softnpu.TableRemove{Table: table, Keys: old.Keys, Priority: old.Priority}, nil); err != nil {
		return err
	}
	err := s.Ask(ctx, e.AddTo(table), nil)
	if err != nil {
		return errors.Join(err, s.Ask(ctx, old.AddTo(table), nil))
	}
	return nil
}
