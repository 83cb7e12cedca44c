package cli

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/falcon-vm/falcon-go/falcon"
)

// screen is a terminal: what it shows, and what has scrolled off its top.
type screen struct {
	width, height int
	history       []string
	rows          [][]rune
	x, y          int
}

func newScreen(width, height int) *screen {
	s := &screen{width: width, height: height}
	s.rows = make([][]rune, height)
	return s
}

func (s *screen) size() (int, int) { return s.width, s.height }

func (s *screen) newline() {
	if s.y < s.height-1 {
		s.y++
		return
	}
	s.history = append(s.history, string(s.rows[0]))
	s.rows = append(s.rows[1:], nil)
}

func (s *screen) put(r rune) {
	if s.x == s.width {
		s.x = 0
		s.newline()
	}
	row := s.rows[s.y]
	for len(row) <= s.x {
		row = append(row, ' ')
	}
	row[s.x] = r
	s.rows[s.y] = row
	s.x++
}

// Write shows text with the control sequences that a painter uses, and panics
// on others, which the tests then find.
func (s *screen) Write(p []byte) (int, error) {
	for text := []rune(string(p)); len(text) > 0; {
		switch r := text[0]; r {
		case '\r':
			s.x = 0
		case '\n':
			s.x = 0 // as the terminal's driver has it
			s.newline()
		case '\x1b':
			n := strings.IndexAny(string(text), "AJ")
			var up int
			switch sequence := string(text[:n+1]); {
			case sequence == "\x1b[J":
				s.rows[s.y] = s.rows[s.y][:min(s.x, len(s.rows[s.y]))]
				for y := s.y + 1; y < s.height; y++ {
					s.rows[y] = nil
				}
			default:
				if _, err := fmt.Sscanf(sequence, "\x1b[%dA", &up); err != nil {
					panic(fmt.Sprintf("control sequence %q", sequence))
				}
				s.y = max(0, s.y-up)
			}
			text = text[n:]
		default:
			s.put(r)
		}
		text = text[1:]
	}
	return len(p), nil
}

// resize changes the width as terminals do that wrap long lines again.
func (s *screen) resize(width int) {
	old := s.rows[:s.y]
	s.width, s.rows, s.x, s.y = width, make([][]rune, s.height), 0, 0
	for _, row := range old {
		for _, r := range row {
			s.put(r)
		}
		s.x = 0
		s.newline()
	}
}

func (s *screen) shown() []string {
	var lines []string
	for _, row := range s.rows {
		lines = append(lines, strings.TrimRight(string(row), " "))
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// clock is a time that the test moves.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func paintOn(s *screen, nodes ...string) (*painter, *clock) {
	c := &clock{time.Unix(1000, 0)}
	p := newPainter(s, s.size, "duo", nodes)
	p.now = c.now
	close(p.stopped) // there is no ticker
	return p, c
}

func TestPainterMovesEachNodesLineThroughItsStages(t *testing.T) {
	s := newScreen(60, 10)
	p, c := paintOn(s, "violin", "piano")
	check := func(want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, s.shown()); diff != "" {
			t.Error(diff)
		}
	}
	p.report(falcon.Progress{Stage: falcon.StageImage, Detail: "micro: fetching", Done: 1 << 20, Total: 4 << 20})
	check(
		"duo     image      0.0s  micro: fetching 25% of 4.0 MiB",
		"violin  waiting",
		"piano   waiting")
	p.report(falcon.Progress{Node: "violin", Stage: falcon.StageDisk})
	c.at = c.at.Add(1500 * time.Millisecond)
	p.report(falcon.Progress{Node: "violin", Stage: falcon.StageBoot, Detail: "kernel"})
	check(
		"violin  boot       1.5s  kernel",
		"piano   waiting")
	c.at = c.at.Add(2 * time.Second)
	p.report(falcon.Progress{Node: "violin", Stage: falcon.StageReady})
	p.report(falcon.Progress{Node: "piano", Stage: falcon.StageFailed, Err: errors.New("no memory\nat all")})
	c.at = c.at.Add(time.Hour)
	p.report(falcon.Progress{Node: "stranger", Stage: falcon.StageReady})
	p.finish(nil)
	check(
		"violin  ready      3.5s",
		"piano   failed     0.0s  no memory")
}

func TestPainterCutsLinesToANarrowTerminal(t *testing.T) {
	for width := 1; width < 40; width++ {
		s := newScreen(width, 10)
		p, _ := paintOn(s, "violin", "piano")
		for range 5 {
			p.report(falcon.Progress{Node: "violin", Stage: falcon.StageBoot, Detail: strings.Repeat("long ", 20)})
			p.report(falcon.Progress{Node: "violin", Stage: falcon.StageLogin, Detail: strings.Repeat("long ", 20)})
		}
		if got := s.shown(); len(got) > 2 || len(s.history) > 0 {
			t.Fatalf("at width %d two nodes have these lines: %q, and above %q", width, got, s.history)
		}
	}
}

func TestPainterShowsAtMostWhatFits(t *testing.T) {
	s := newScreen(50, 4)
	p, _ := paintOn(s, "a", "b", "c", "d", "e", "f")
	for _, e := range []falcon.Progress{
		{Node: "a", Stage: falcon.StageReady}, {Node: "b", Stage: falcon.StageReady},
		{Node: "d", Stage: falcon.StageBoot}, {Node: "e", Stage: falcon.StageFailed},
	} {
		p.report(e)
	}
	want := []string{
		"d  boot       0.0s",
		"e  failed     0.0s",
		"and 4 more; 3 of 6 done"}
	if diff := cmp.Diff(want, s.shown()); diff != "" {
		t.Error(diff)
	}
	if len(s.history) > 0 {
		t.Errorf("these lines have scrolled off: %q", s.history)
	}
	p.finish(nil)
	all := append(s.history, s.shown()...)
	if len(all) != 6 || !strings.HasPrefix(all[0], "a  ready") || !strings.HasPrefix(all[5], "f  waiting") {
		t.Errorf("in the end there is %q", all)
	}
}

func TestPainterSurvivesATerminalThatBecomesNarrower(t *testing.T) {
	s := newScreen(60, 10)
	p, _ := paintOn(s, "violin", "piano")
	p.report(falcon.Progress{Node: "violin", Stage: falcon.StageBoot, Detail: "0123456789012345678901234567"})
	s.resize(20)
	p.report(falcon.Progress{Node: "violin", Stage: falcon.StageLogin})
	p.report(falcon.Progress{Node: "violin", Stage: falcon.StageReady})
	want := []string{"violin  ready     …", "piano   waiting"}
	if diff := cmp.Diff(want, s.shown()); diff != "" {
		t.Error(diff)
	}
}

func TestPainterPutsLogLinesAboveItsOwn(t *testing.T) {
	s := newScreen(40, 10)
	p, _ := paintOn(s, "violin")
	p.report(falcon.Progress{Node: "violin", Stage: falcon.StageBoot})
	fmt.Fprintln(p, "a log line that is rather longer than the terminal is wide")
	fmt.Fprintln(p, "another")
	p.report(falcon.Progress{Node: "violin", Stage: falcon.StageReady})
	want := []string{"a log line that is rather longer than th", "e terminal is wide", "another", "violin  ready      0.0s"}
	if diff := cmp.Diff(want, s.shown()); diff != "" {
		t.Error(diff)
	}
}

func TestPainterLetsNoControlCharactersThrough(t *testing.T) {
	s := newScreen(60, 10)
	p, _ := paintOn(s, "violin")
	p.report(falcon.Progress{Node: "violin", Stage: falcon.StageBoot, Detail: "a\x1b[2J\tb\r日e\u0301…\u202e"})
	want := []string{"violin  boot       0.0s  a?[2J b ?e…"}
	if diff := cmp.Diff(want, s.shown()); diff != "" {
		t.Error(diff)
	}
}

func TestPainterKeepsElapsedTimesMoving(t *testing.T) {
	now := clock{time.Unix(1000, 0)}
	painted := make(chan string, 64)
	p := newPainter(writerFunc(func(b []byte) { painted <- string(b) }), func() (int, int) { return 0, 0 }, "duo", []string{"violin"})
	p.now = now.now
	p.report(falcon.Progress{Node: "violin", Stage: falcon.StageBoot})
	<-painted
	p.start()
	select {
	case got := <-painted:
		if !strings.Contains(got, "boot") {
			t.Errorf("painted %q", got)
		}
	case <-time.After(10 * time.Second):
		t.Error("nothing was painted without an event")
	}
	p.finish(nil)
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}

func TestDurationsAndSizesAreForPeople(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0s", 1540 * time.Millisecond: "1.5s", 61 * time.Second: "1m1s", time.Hour: "1h0m0s",
	} {
		if got := seconds(d); got != want {
			t.Errorf("%d: %s, want %s", d, got, want)
		}
	}
	for n, want := range map[int64]string{1: "1 KiB", 2048: "2 KiB", 3 << 19: "1.5 MiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
