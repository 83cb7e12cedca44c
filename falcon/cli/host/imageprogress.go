package host

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
)

// imageProgress shows the steps of a long task on an image: in one line that is
// painted over on a terminal, else in lines of their own.
type imageProgress struct {
	out      io.Writer
	terminal bool
	now      func() time.Time

	last    image.Step
	began   time.Time // of the step
	shown   time.Time
	percent int64 // at the last line
	painted bool
}

func newImageProgress(out io.Writer) *imageProgress {
	file, ok := out.(*os.File)
	return &imageProgress{
		out: out, now: time.Now,
		terminal: ok && term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "dumb",
	}
}

// repaint is how often a terminal's line changes at most.
const repaint = 100 * time.Millisecond

func (p *imageProgress) report(s image.Step) {
	now := p.now()
	fresh := s.What != p.last.What
	if fresh {
		p.began, p.percent = now, 0
	}
	p.last = s
	percent := int64(0)
	if s.Total > 0 {
		percent = s.Done * 100 / s.Total
	}
	switch {
	case p.terminal && (fresh || now.Sub(p.shown) >= repaint):
		fmt.Fprintf(p.out, "\r\x1b[K%s", stepText(s, now.Sub(p.began)))
		p.shown, p.painted = now, true
	case !p.terminal && (fresh || percent/10 > p.percent/10):
		fmt.Fprintln(p.out, stepText(s, now.Sub(p.began)))
		p.percent = percent
	}
}

// end leaves a clean line for whatever is printed next.
func (p *imageProgress) end() {
	if p.painted {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.painted = false
	}
}

// stepText is a step for people; elapsed is how long it has taken so far.
func stepText(s image.Step, elapsed time.Duration) string {
	switch {
	case s.Total <= 0 && s.Done <= 0:
		return s.What
	case s.Total <= 0:
		return fmt.Sprintf("%s: %s", s.What, bytesText(s.Done))
	case !s.Bytes:
		return fmt.Sprintf("%s: %d%%", s.What, s.Done*100/s.Total)
	}
	text := fmt.Sprintf("%s: %s of %s", s.What, bytesText(s.Done), bytesText(s.Total))
	if seconds := elapsed.Seconds(); seconds >= 0.5 && s.Done > 0 { // a rate of less is chance
		rate := float64(s.Done) / seconds
		left := time.Duration(float64(s.Total-s.Done) / rate * float64(time.Second))
		text += fmt.Sprintf(", %s/s, %s left", bytesText(int64(rate)), left.Round(time.Second))
	}
	return text
}

// bytesText is an amount of bytes for people.
func bytesText(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}
