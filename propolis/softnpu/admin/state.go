package admin

import (
	"context"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/propolis/softnpu"
)

// priorityCommand makes a command whose entry may have a priority.
func priorityCommand(set *settings, use, short string, least int, run func(context.Context, *session, []string, int) error) *cobra.Command {
	priority := 0
	c := set.command(verb{use, short, cobra.MinimumNArgs(least), func(ctx context.Context, s *session, args []string) error {
		return run(ctx, s, args, priority)
	}})
	c.Flags().IntVar(&priority, "priority", 0, "of entries with ternary or range keys that match, the one with the largest `number` wins")
	return c
}

// argumentsOf reads the values of parameters, or of the fields of a register.
func argumentsOf(what string, params []softnpu.Param, words []string) (softnpu.Octets, error) {
	if len(words) != len(params) {
		return nil, fmt.Errorf("%s has %d parameters, and %d were given", what, len(params), len(words))
	}
	values := make([][]byte, len(words))
	for i, p := range params {
		var err error
		if values[i], err = softnpu.ParseValue(p.Bits, words[i]); err != nil {
			return nil, fmt.Errorf("parameter %s (%d bits): %w", p.Name, p.Bits, err)
		}
	}
	return softnpu.EncodeArgs(values), nil
}

// countedText is an entry as people read it, with what it has counted.
type countedText struct {
	entryText
	Const   bool          `json:"const,omitempty"`
	Packets uint64        `json:"packets"`
	Bytes   uint64        `json:"bytes"`
	Direct  softnpu.Count `json:"direct"`
}

func entries(ctx context.Context, s *session, args []string) error {
	t, err := table(ctx, s, args[0])
	if err != nil {
		return err
	}
	var all []softnpu.CountedEntry
	if err := s.Ask(ctx, softnpu.EntriesRequest{Table: t.Name}, &all); err != nil {
		return err
	}
	texts := make([]countedText, len(all))
	for i, e := range all {
		text, err := spell(t, e.DumpEntry)
		if err != nil {
			return err
		}
		texts[i] = countedText{text, e.Const, e.Packets, e.Bytes, e.Direct}
	}
	if s.json {
		return s.print(texts)
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tPRIORITY\tACTION\tPACKETS\tBYTES\tDIRECT")
	for _, e := range texts {
		fmt.Fprintf(w, "%s\t%d\t%s(%s)\t%d\t%d\t%d\n", e.keys, e.Priority, e.Action, e.args, e.Packets, e.Bytes, e.Direct.Packets)
	}
	return w.Flush()
}

// defaultText is a default action as people read it.
type defaultText struct {
	Table     string            `json:"table"`
	Action    string            `json:"action"`
	Arguments map[string]string `json:"arguments"`
}

func defaults(ctx context.Context, s *session, _ []string) error {
	all, err := schema(ctx, s)
	if err != nil {
		return err
	}
	var set map[string]softnpu.Default
	if err := s.Ask(ctx, softnpu.DefaultsRequest{}, &set); err != nil {
		return err
	}
	texts := []defaultText{}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	for _, t := range all {
		d := set[t.Name]
		a, err := action(t, d.Action)
		if err != nil {
			return err
		}
		args, err := softnpu.DecodeArgs(a.Parameters, d.Arguments)
		if err != nil {
			return fmt.Errorf("table %s: %w", t.Name, err)
		}
		text := defaultText{t.Name, d.Action, map[string]string{}}
		for i, p := range a.Parameters {
			text.Arguments[p.Name] = softnpu.FormatValue(p.Bits, args[i])
		}
		texts = append(texts, text)
		fmt.Fprintf(w, "%s\t→ %s(%s)\n", t.Name, d.Action, softnpu.FormatArgs(a.Parameters, args))
	}
	if s.json {
		return s.print(texts)
	}
	return w.Flush()
}

func setDefault(ctx context.Context, s *session, args []string) error {
	t, err := table(ctx, s, args[0])
	if err != nil {
		return err
	}
	a, err := action(t, args[1])
	if err != nil {
		return err
	}
	values, err := argumentsOf("action "+a.Name, a.Parameters, args[2:])
	if err != nil {
		return err
	}
	return s.Ask(ctx, softnpu.DefaultSet{Table: t.Name, Action: a.Name, Arguments: values}, nil)
}

func array(ctx context.Context, s *session, name string) (softnpu.Array, error) {
	var all []softnpu.Array
	if err := s.Ask(ctx, softnpu.ArraysRequest{}, &all); err != nil {
		return softnpu.Array{}, err
	}
	if i := slices.IndexFunc(all, func(a softnpu.Array) bool { return a.Name == name }); i >= 0 {
		return all[i], nil
	}
	return softnpu.Array{}, fmt.Errorf("the program has no register, counter or meter %q: arrays lists them", name)
}

func arrays(ctx context.Context, s *session, _ []string) error {
	var all []softnpu.Array
	if err := s.Ask(ctx, softnpu.ArraysRequest{}, &all); err != nil {
		return err
	}
	if s.json {
		return s.print(all)
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	for _, a := range all {
		var fields []string
		for _, f := range a.Fields {
			fields = append(fields, strings.TrimSpace(fmt.Sprintf("%s %d", f.Name, f.Bits)))
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", a.Name, a.Kind, a.Size, strings.Join(fields, ", "))
	}
	return w.Flush()
}

// cellText is a cell as people read it.
type cellText struct {
	Index  int               `json:"index"`
	Values map[string]string `json:"values,omitempty"`
	Count  *softnpu.Count    `json:"count,omitempty"`
	Meter  *softnpu.Meter    `json:"meter,omitempty"`

	text string
}

func spellCell(a softnpu.Array, index int, c softnpu.Cell) (cellText, error) {
	out := cellText{Index: index, Count: c.Count, Meter: c.Meter}
	switch {
	case c.Count != nil:
		out.text = fmt.Sprintf("packets %d, bytes %d", c.Count.Packets, c.Count.Bytes)
	case c.Meter != nil:
		out.text = fmt.Sprintf("committed rate %d, burst %d, peak rate %d, burst %d",
			c.Meter.CommittedRate, c.Meter.CommittedBurst, c.Meter.PeakRate, c.Meter.PeakBurst)
	default:
		values, err := softnpu.DecodeArgs(a.Fields, c.Values)
		if err != nil {
			return out, fmt.Errorf("register %s: %w", a.Name, err)
		}
		if len(a.Fields) == 1 && a.Fields[0].Name == "" {
			// Most often it counts something, and is no address.
			out.text = new(big.Int).SetBytes(values[0]).String()
			out.Values = map[string]string{"value": out.text}
			return out, nil
		}
		out.Values = map[string]string{}
		for i, f := range a.Fields {
			out.Values[f.Name] = softnpu.FormatValue(f.Bits, values[i])
		}
		out.text = softnpu.FormatArgs(a.Fields, values)
	}
	return out, nil
}

// cellsAtOnce is how many cells are asked for at a time.
const cellsAtOnce = 256

func readCells(ctx context.Context, s *session, args []string) error {
	a, err := array(ctx, s, args[0])
	if err != nil {
		return err
	}
	first, count := 0, a.Size
	for i, to := range []*int{&first, &count} {
		if len(args) <= i+1 {
			continue
		}
		if *to, err = strconv.Atoi(args[i+1]); err != nil || *to < 0 {
			return fmt.Errorf("%q is not a number of cells", args[i+1])
		}
	}
	if len(args) == 2 {
		count = 1
	}
	if len(args) > 1 && (first >= a.Size || count > a.Size-first) {
		return fmt.Errorf("%s has %d cells, counted from 0", a.Name, a.Size)
	}
	texts := []cellText{}
	for count > 0 {
		var cells []softnpu.Cell
		n := min(count, cellsAtOnce)
		if err := s.Ask(ctx, softnpu.CellsGet{Array: a.Name, First: first, Count: n}, &cells); err != nil {
			return err
		}
		for i, c := range cells {
			text, err := spellCell(a, first+i, c)
			if err != nil {
				return err
			}
			texts = append(texts, text)
		}
		first, count = first+n, count-n
	}
	if s.json {
		return s.print(texts)
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	for _, t := range texts {
		fmt.Fprintf(w, "%d\t%s\n", t.Index, t.text)
	}
	return w.Flush()
}

func writeCell(ctx context.Context, s *session, args []string) error {
	a, err := array(ctx, s, args[0])
	if err != nil {
		return err
	}
	index, err := strconv.Atoi(args[1])
	if err != nil {
		return fmt.Errorf("%q is not the number of a cell", args[1])
	}
	set := softnpu.CellSet{Array: a.Name, Index: index}
	var numbers []*uint64
	switch a.Kind {
	case "counter":
		set.Count = &softnpu.Count{}
		numbers = []*uint64{&set.Count.Packets, &set.Count.Bytes}
	case "meter":
		set.Meter = &softnpu.Meter{}
		numbers = []*uint64{&set.Meter.CommittedRate, &set.Meter.CommittedBurst, &set.Meter.PeakRate, &set.Meter.PeakBurst}
	default:
		if set.Values, err = argumentsOf("register "+a.Name, a.Fields, args[2:]); err != nil {
			return err
		}
		return s.Ask(ctx, set, nil)
	}
	if words := args[2:]; len(words) != len(numbers) {
		return fmt.Errorf("a cell of a %s has %d numbers, and %d were given", a.Kind, len(numbers), len(words))
	}
	for i, n := range numbers {
		if *n, err = strconv.ParseUint(args[2+i], 0, 64); err != nil {
			return fmt.Errorf("%q is not a number", args[2+i])
		}
	}
	return s.Ask(ctx, set, nil)
}
