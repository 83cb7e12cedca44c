package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/internal/printable"
)

// progress shows the steps of a command. Its methods may be called by several
// goroutines.
type progress interface {
	start()
	report(falcon.Progress)
	// finish ends the showing; err is what became of it all.
	finish(err error)
}

// newProgress chooses how steps are shown: as JSON, painted on a terminal, or
// as plain lines.
func (a *app) newProgress(cmd *cobra.Command, nodes []string, asJSON bool) progress {
	out := cmd.OutOrStdout()
	if asJSON {
		return &jsonProgress{out: json.NewEncoder(printable.JSONWriter(out)), topology: a.topology.Name()}
	}
	file, ok := out.(interface{ Fd() uintptr })
	if !ok || !term.IsTerminal(int(file.Fd())) || os.Getenv("TERM") == "dumb" {
		return &plainProgress{out: out, topology: a.topology.Name(), begun: time.Now(), last: make(map[string]falcon.Progress)}
	}
	size := func() (int, int) {
		width, height, err := term.GetSize(int(file.Fd()))
		if err != nil {
			return 0, 0
		}
		return width, height
	}
	p := newPainter(out, size, a.topology.Name(), nodes)
	return &loggedPainter{painter: p, log: &a.log}
}

// loggedPainter has log lines written above the painted ones.
type loggedPainter struct {
	*painter
	log    *redirectable
	before io.Writer
}

func (p *loggedPainter) start() {
	p.before = p.log.redirect(p.painter)
	p.painter.start()
}

func (p *loggedPainter) finish(err error) {
	p.log.redirect(p.before)
	p.painter.finish(err)
}

// plainProgress prints a line for each stage of a node, and within one when its
// detail changes or another tenth of its bytes is done.
type plainProgress struct {
	out      io.Writer
	topology string
	begun    time.Time

	mu   sync.Mutex
	last map[string]falcon.Progress
}

func (p *plainProgress) start() {}

func (p *plainProgress) report(e falcon.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, seen := p.last[e.Node]
	if seen && before.Stage == e.Stage && before.Detail == e.Detail && tenth(before) == tenth(e) {
		return
	}
	p.last[e.Node] = e
	name := e.Node
	if name == "" {
		name = p.topology
	}
	text := ""
	if d := clean(detail(e)); d != "" {
		text = ": " + d
	}
	fmt.Fprintf(p.out, "%7s  %s %s%s\n", seconds(time.Since(p.begun)), name, e.Stage, text)
}

func (p *plainProgress) finish(error) {}

// tenth is how many tenths of a step's bytes are done.
func tenth(e falcon.Progress) int64 {
	if e.Total <= 0 {
		return 0
	}
	return e.Done * 10 / e.Total
}

// jsonProgress prints each step as a JSON object on a line of its own.
type jsonProgress struct {
	topology string

	mu  sync.Mutex
	out *json.Encoder
}

// progressEvent is a line of jsonProgress. The last line has Final set and
// tells of the whole topology.
type progressEvent struct {
	Topology string `json:"topology"`
	falcon.Progress
	Error string `json:"error,omitempty"`
	Final bool   `json:"final,omitempty"`
}

func (p *jsonProgress) start() {}

func (p *jsonProgress) report(e falcon.Progress) { p.print(e, false) }

func (p *jsonProgress) print(e falcon.Progress, last bool) {
	event := progressEvent{Topology: p.topology, Progress: e, Final: last}
	if e.Err != nil {
		event.Error = e.Err.Error()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.out.Encode(event) // nothing can be told to somebody who cannot read
}

func (p *jsonProgress) finish(err error) {
	e := falcon.Progress{Stage: falcon.StageReady, Time: time.Now(), Err: err}
	if err != nil {
		e.Stage = falcon.StageFailed
	}
	p.print(e, true)
}
