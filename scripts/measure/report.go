//go:build linux

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// report is all that was measured.
type report struct {
	Machine  machine      `json:"machine"`
	Peers    []peer       `json:"peers"`
	Figures  []*figure    `json:"figures"`
	Recorded []recordOnly `json:"recorded_elsewhere"`
}

// peer is who was measured: its version, and how it was set up.
type peer struct {
	Name     string `json:"name"`
	Version  string `json:"version,omitempty"`
	Settings string `json:"settings"`
}

// recordOnly is a figure of another run.
type recordOnly struct {
	Section string `json:"section"`
	What    string `json:"what"`
	Who     string `json:"who"`
	Value   string `json:"value"`
	Remark  string `json:"remark"`
}

// figure is what one peer did for one thing.
type figure struct {
	Section string    `json:"section"`
	What    string    `json:"what"`
	Who     string    `json:"who"`
	Unit    string    `json:"unit"`
	Values  []float64 `json:"values"`
	// Failed is why there are no values, or fewer than there should be.
	Failed []string `json:"failed,omitempty"`
	spread
}

// spread is the middle and the ends of values.
type spread struct {
	N      int     `json:"n"`
	Median float64 `json:"median,omitempty"`
	Min    float64 `json:"min,omitempty"`
	Max    float64 `json:"max,omitempty"`
}

func spreadOf(values []float64) spread {
	n := len(values)
	if n == 0 {
		return spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	return spread{N: n, Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Min: sorted[0], Max: sorted[n-1]}
}

// at returns the figure of a place in the report.
func (r *report) at(section, what, who, unit string) *figure {
	for _, f := range r.Figures {
		if f.Section == section && f.What == what && f.Who == who {
			f.Unit = cmp.Or(f.Unit, unit)
			return f
		}
	}
	f := &figure{Section: section, What: what, Who: who, Unit: unit}
	r.Figures = append(r.Figures, f)
	return f
}

// add notes a value.
func (r *report) add(section, what, who, unit string, values ...float64) {
	r.addQuietly(section, what, who, unit, values...)
	fmt.Fprintf(os.Stderr, "%s: %s: %s: %s %s\n", section, what, who, number(spreadOf(values).Median), unit)
}

// addQuietly notes one value of many.
func (r *report) addQuietly(section, what, who, unit string, values ...float64) {
	f := r.at(section, what, who, unit)
	f.Values = append(f.Values, values...)
	f.spread = spreadOf(f.Values)
}

// fail notes that something could not be measured.
func (r *report) fail(section, what, who string, err error) {
	reason := oneLine(err.Error())
	f := r.at(section, what, who, "")
	if !slices.Contains(f.Failed, reason) {
		f.Failed = append(f.Failed, reason)
	}
	fmt.Fprintf(os.Stderr, "%s: %s: %s: not measured: %s\n", section, what, who, reason)
}

// introduce says who a peer is, once.
func (r *report) introduce(p peer) {
	if !slices.ContainsFunc(r.Peers, func(q peer) bool { return q.Name == p.Name }) {
		r.Peers = append(r.Peers, p)
	}
}

// write writes the report to a folder, each file whole or not at all.
func (r *report) write(dir string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	var table strings.Builder
	r.markdown(&table)
	for name, content := range map[string]string{"bench.json": string(text) + "\n", "bench.md": table.String()} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path+".new", []byte(content), 0o644); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	return nil
}

// markdown writes the report for people.
func (r *report) markdown(w io.Writer) {
	m := r.Machine
	fmt.Fprintf(w, "# Measured by scripts/bench\n\n")
	fmt.Fprintf(w, "%s, revision %s, in %s. %s\n\n", m.Begun.Format("2006-01-02 15:04 MST"), m.Revision, m.Took, m.Plan)
	fmt.Fprintf(w, "Machine: %d processors (%s), %.0f GiB, %s; guests run by %s. Load before: %s.\n\n",
		m.Processors, m.Processor, m.MemoryGiB, m.Kernel, m.Acceleration, m.Load)
	fmt.Fprintf(w, "Who was measured:\n\n")
	for _, p := range r.Peers {
		fmt.Fprintf(w, "- **%s**%s: %s\n", p.Name, prefixed(" ", p.Version), p.Settings)
	}
	fmt.Fprintf(w, "\n| what | who | median | least | greatest | n |\n|---|---|---:|---:|---:|---:|\n")
	section := ""
	for _, f := range r.ordered() {
		if f.Section != section {
			section = f.Section
			fmt.Fprintf(w, "| **%s** | | | | | |\n", section)
		}
		fmt.Fprintf(w, "| %s | %s | %s |\n", cell(f.What), cell(f.Who), f.cells())
		for _, e := range r.Recorded {
			if e.Section == f.Section && e.What == f.What && f == r.lastOf(f) {
				fmt.Fprintf(w, "| %s | %s | %s, %s | | | |\n", cell(e.What), cell(e.Who), e.Value, cell(e.Remark))
			}
		}
	}
}

// lastOf returns the last figure about the same as f.
func (r *report) lastOf(f *figure) *figure {
	last := f
	for _, g := range r.ordered() {
		if g.Section == f.Section && g.What == f.What {
			last = g
		}
	}
	return last
}

// ordered are the figures by section and what they are about, as those came
// first.
func (r *report) ordered() []*figure {
	rank := make(map[string]int)
	for i, f := range r.Figures {
		for _, key := range []string{f.Section, f.Section + "\x00" + f.What} {
			if _, there := rank[key]; !there {
				rank[key] = i
			}
		}
	}
	sorted := slices.Clone(r.Figures)
	slices.SortStableFunc(sorted, func(a, b *figure) int {
		return cmp.Or(rank[a.Section]-rank[b.Section], rank[a.Section+"\x00"+a.What]-rank[b.Section+"\x00"+b.What])
	})
	return sorted
}

// cells are a figure's values in the table.
func (f *figure) cells() string {
	if f.N == 0 {
		return "not measured: " + cell(strings.Join(f.Failed, "; ")) + " | | | 0"
	}
	n := fmt.Sprint(f.N)
	if len(f.Failed) > 0 {
		n += "; others failed: " + cell(strings.Join(f.Failed, "; "))
	}
	return fmt.Sprintf("%s %s | %s | %s | %s", number(f.Median), f.Unit, number(f.Min), number(f.Max), n)
}

// number shows three significant digits.
func number(x float64) string {
	if x == 0 {
		return "0"
	}
	digits := max(0, 2-int(math.Floor(math.Log10(math.Abs(x)))))
	return fmt.Sprintf("%.*f", digits, x)
}

func cell(s string) string { return strings.ReplaceAll(oneLine(s), "|", "\\|") }

// maxReason is how much of a reason the table has room for.
const maxReason = 300

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason], "") + "…"
	}
	return s
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}
