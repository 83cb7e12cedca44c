//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSpread(t *testing.T) {
	for name, c := range map[string]struct {
		values []float64
		want   spread
	}{
		"nothing":       {nil, spread{}},
		"one":           {[]float64{2}, spread{1, 2, 2, 2}},
		"odd, mixed up": {[]float64{3, 1, 2}, spread{3, 2, 1, 3}},
		"even":          {[]float64{4, 1, 2, 3}, spread{4, 2.5, 1, 4}},
	} {
		if got := spreadOf(c.values); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestNumberHasThreeDigits(t *testing.T) {
	for x, want := range map[float64]string{0: "0", 0.01234: "0.0123", 0.5: "0.500", 1.239: "1.24", 12.34: "12.3", 123.4: "123", 12345: "12345", -0.2: "-0.200"} {
		if got := number(x); got != want {
			t.Errorf("%v: %s, want %s", x, got, want)
		}
	}
}

// rows returns the lines of the report's table.
func rows(t *testing.T, r *report) []string {
	t.Helper()
	dir := t.TempDir()
	if err := r.write(dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "bench.md"))
	if err != nil {
		t.Fatal(err)
	}
	var table []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "| ") {
			table = append(table, strings.TrimSpace(line))
		}
	}
	return table[1:] // without the heading
}

func TestTableGroupsWhatIsAboutTheSame(t *testing.T) {
	r := new(report)
	r.add("launch", "ring of 2", "us", "s", 1)
	r.add("destroy", "ring of 2", "us", "s", 0.1)
	r.add("launch", "ring of 10", "us", "s", 5)
	r.add("launch", "ring of 2", "them", "s", 3)
	r.add("launch", "ring of 2", "us", "s", 2)
	r.Recorded = []recordOnly{{Section: "launch", What: "ring of 2", Who: "others", Value: "9 s", Remark: "elsewhere"}}
	want := []string{
		"| **launch** | | | | | |",
		"| ring of 2 | us | 1.50 s | 1.00 | 2.00 | 2 |",
		"| ring of 2 | them | 3.00 s | 3.00 | 3.00 | 1 |",
		"| ring of 2 | others | 9 s, elsewhere | | | |",
		"| ring of 10 | us | 5.00 s | 5.00 | 5.00 | 1 |",
		"| **destroy** | | | | | |",
		"| ring of 2 | us | 0.100 s | 0.100 | 0.100 | 1 |",
	}
	if got := rows(t, r); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestWhatWasNotMeasuredIsSaidWithTheReason(t *testing.T) {
	r := new(report)
	r.fail("links", "TCP", "Open vSwitch", errors.New("the kernel |\nhas none"))
	r.fail("links", "TCP", "Open vSwitch", errors.New("the kernel |\nhas none"))
	r.add("links", "TCP", "bridge", "Mbit/s", 10)
	r.fail("links", "TCP", "bridge", errors.New("it broke"))
	want := []string{
		"| **links** | | | | | |",
		`| TCP | Open vSwitch | not measured: the kernel \| has none | | | 0 |`,
		"| TCP | bridge | 10.0 Mbit/s | 10.0 | 10.0 | 1; others failed: it broke |",
	}
	if got := rows(t, r); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestJSONHasEachValue(t *testing.T) {
	r := new(report)
	r.add("launch", "ring of 2", "us", "s", 1, 3)
	dir := t.TempDir()
	if err := r.write(dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "bench.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Figures []struct {
			Values           []float64
			N                int
			Median, Min, Max float64
		}
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	f := got.Figures[0]
	if len(f.Values) != 2 || f.N != 2 || f.Median != 2 || f.Min != 1 || f.Max != 3 {
		t.Errorf("%s", text)
	}
}
