package cli

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/falcon-vm/falcon-go/falcon"
)

// painter shows the progress of each node in a line of its own on a terminal,
// and repaints the lines where they stand. A line is never wider than the
// terminal, and never are there more lines than it has rows, because what has
// wrapped or scrolled away cannot be painted over.
type painter struct {
	out  io.Writer
	size func() (width, height int)
	now  func() time.Time

	mu      sync.Mutex
	rows    []*row
	byName  map[string]*row
	painted []int // the widths of the lines that stand on the screen

	stop    chan struct{}
	stopped chan struct{}
}

// row is the line of a node. The first row is that of the whole topology, shown
// while images are built or another command is waited for, before any node has
// begun.
type row struct {
	name string
	last falcon.Progress
	// began and ended are zero before they happen.
	began, ended time.Time
}

const (
	// repaintEvery is how often elapsed times move on: they have tenths.
	repaintEvery = 100 * time.Millisecond
	// stageWidth is the width of the longest stage.
	stageWidth = len("waiting")
)

// newPainter prepares lines for a topology and its nodes.
func newPainter(out io.Writer, size func() (width, height int), topology string, nodes []string) *painter {
	p := &painter{
		out: out, size: size, now: time.Now, byName: make(map[string]*row),
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	p.byName[""] = &row{name: topology}
	p.rows = append(p.rows, p.byName[""])
	for _, n := range nodes {
		p.byName[n] = &row{name: n}
		p.rows = append(p.rows, p.byName[n])
	}
	return p
}

// start paints, and keeps times moving until finish.
func (p *painter) start() {
	go func() {
		defer close(p.stopped)
		tick := time.NewTicker(repaintEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.mu.Lock()
				p.paint(true)
				p.mu.Unlock()
			case <-p.stop:
				return
			}
		}
	}()
}

// report moves a line on.
func (p *painter) report(e falcon.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.byName[e.Node]
	if r == nil {
		return
	}
	turn := r.last.Stage != e.Stage
	r.move(e, p.now())
	if turn { // counts of bytes can wait for the next tick
		p.paint(true)
	}
}

func (r *row) move(e falcon.Progress, now time.Time) {
	if r.began.IsZero() {
		r.began = now
	}
	r.last, r.ended = e, time.Time{}
	if final(e.Stage) {
		r.ended = now
	}
}

// final says whether a stage ends what is done with a node.
func final(s falcon.Stage) bool {
	switch s {
	case falcon.StageReady, falcon.StageRunning, falcon.StageFailed, falcon.StageStopped, falcon.StageGone:
		return true
	}
	return false
}

// finish paints all lines a last time, however many there are, and leaves them.
func (p *painter) finish(error) {
	close(p.stop)
	<-p.stopped
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for _, r := range p.rows {
		if r.ended.IsZero() {
			r.ended = now
		}
	}
	p.paint(false)
	p.painted = nil
}

// Write puts whole lines, of a log say, above the painted ones.
func (p *painter) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b bytes.Buffer
	width, _ := p.terminal()
	p.erase(&b, width)
	b.Write(text)
	p.painted = nil
	if _, err := p.out.Write(b.Bytes()); err != nil {
		return 0, err
	}
	p.paint(true)
	return len(text), nil
}

// terminal returns the terminal's size, the usual one where it is unknown.
func (p *painter) terminal() (width, height int) {
	width, height = p.size()
	if width < 1 {
		width = 80
	}
	if height < 1 {
		height = 24
	}
	return width, height
}

// paint replaces the lines on the screen in one write, by as many as fit or by
// all. The lock is held.
func (p *painter) paint(fitting bool) {
	var b bytes.Buffer
	width, height := p.terminal()
	p.erase(&b, width)
	p.painted = p.painted[:0]
	rows := p.visible(fitting)
	lines := p.lines(rows)
	if fitting {
		// The cursor stands below the lines and needs a row too.
		lines = fit(rows, lines, max(1, height-1))
	}
	for _, line := range lines {
		// The last column stays free: some terminals wrap when it is filled.
		line = cut(line, max(1, width-1))
		b.WriteString(line + "\n")
		p.painted = append(p.painted, len([]rune(line)))
	}
	_, _ = p.out.Write(b.Bytes()) // nothing can be told to somebody who cannot read
}

// erase goes back to the first painted line and clears from there. A terminal
// that has become narrower since has wrapped the lines.
func (p *painter) erase(b *bytes.Buffer, width int) {
	up := 0
	for _, n := range p.painted {
		up += max(1, (n+width-1)/width)
	}
	if up > 0 {
		fmt.Fprintf(b, "\x1b[%dA", up)
	}
	b.WriteString("\r\x1b[J")
}

// visible returns the rows that have something to say.
func (p *painter) visible(working bool) []*row {
	whole, nodes := p.rows[0], p.rows[1:]
	begun := slices.ContainsFunc(nodes, func(r *row) bool { return !r.began.IsZero() })
	if working && !whole.began.IsZero() && !begun {
		return p.rows
	}
	return nodes
}

// lines returns the text of rows.
func (p *painter) lines(rows []*row) []string {
	nameWidth := 0
	for _, r := range rows {
		nameWidth = max(nameWidth, len(r.name))
	}
	lines := make([]string, len(rows))
	for i, r := range rows {
		lines[i] = r.text(nameWidth, p.now())
	}
	return lines
}

func (r *row) text(nameWidth int, now time.Time) string {
	stage, elapsed := string(r.last.Stage), ""
	if !r.began.IsZero() {
		end := now
		if !r.ended.IsZero() {
			end = r.ended
		}
		elapsed = seconds(end.Sub(r.began))
	}
	if r.began.IsZero() {
		stage = "waiting"
	}
	return strings.TrimRight(fmt.Sprintf("%-*s  %-*s %7s  %s",
		nameWidth, r.name, stageWidth, stage, elapsed, clean(detail(r.last))), " ")
}

// fit leaves out lines when there are more than rows: first those of nodes that
// are done, then those that wait, and says how many.
func fit(rows []*row, lines []string, height int) []string {
	if len(lines) <= height {
		return lines
	}
	shown := make([]bool, len(lines))
	left := height - 1 // the last row says what is left out
	for _, wanted := range []func(*row) bool{
		func(r *row) bool { return r.last.Stage == falcon.StageFailed },
		func(r *row) bool { return !r.began.IsZero() && r.ended.IsZero() },
		func(r *row) bool { return r.began.IsZero() },
		func(*row) bool { return true },
	} {
		for i, r := range rows {
			if left > 0 && !shown[i] && wanted(r) {
				shown[i] = true
				left--
			}
		}
	}
	var fitting []string
	for i, line := range lines {
		if shown[i] {
			fitting = append(fitting, line)
		}
	}
	return append(fitting, fmt.Sprintf("and %d more; %d of %d done", len(lines)-len(fitting), done(rows), len(rows)))
}

// done counts the rows that have come to an end.
func done(rows []*row) int {
	n := 0
	for _, r := range rows {
		if !r.ended.IsZero() {
			n++
		}
	}
	return n
}

// detail says more about a step: what it did of how much, and what failed, of
// that the first line.
func detail(e falcon.Progress) string {
	text := e.Detail
	if e.Total > 0 {
		text = strings.TrimSpace(fmt.Sprintf("%s %d%% of %s", text, e.Done*100/e.Total, size(e.Total)))
	}
	if e.Err != nil {
		first, _, _ := strings.Cut(e.Err.Error(), "\n")
		text = strings.TrimSpace(text + " " + first)
	}
	return text
}

// size is an amount of bytes for people.
func size(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d KiB", (n+1023)>>10)
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// seconds is a duration for people, in tenths up to a minute.
func seconds(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// clean makes text of which each rune takes one cell: guests' consoles, of
// which details may tell, know how to move a cursor.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		dash := r >= 0x2010 && r <= 0x2027 // dashes, quotes and the ellipsis
		switch {
		case r == '\t' || r == '\n' || r == '\r':
			return ' '
		case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
			return -1
		case !unicode.IsPrint(r) || r >= 0x1100 && !dash: // from Hangul on, two cells are possible
			return '?'
		}
		return r
	}, text)
}

// cut shortens a line to a width, with an ellipsis where something is missing.
func cut(line string, width int) string {
	runes := []rune(line)
	if len(runes) <= width {
		return line
	}
	return string(runes[:width-1]) + "…"
}
