package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/falcon-vm/falcon-go/internal/printable"
)

// copyDocument is what cp prints as JSON, on a line of its own each time that it
// has got on, and at last with Final set.
type copyDocument struct {
	Node   string `json:"node"`
	Source string `json:"source"`
	Target string `json:"target"`
	// Bytes is how many of Total have been copied.
	Bytes   int64   `json:"bytes"`
	Total   int64   `json:"total"`
	Seconds float64 `json:"seconds"`
	Final   bool    `json:"final,omitempty"`
}

func (a *app) copyCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "cp SOURCE TARGET",
		Short: "Copy files and folders to and from a node",
		Long: `Copy a file or a folder, with all that is in it, to a node or from one. Either
SOURCE or TARGET is NODE:PATH; a path of the host that holds a colon is written
with a slash before it. Where TARGET is a folder, the copy goes into it, else it
becomes TARGET. A file appears when it is whole. Permissions, times and holes are
kept, and so are owners, by number, in the node and where you are root here. The
node's image must have a guest agent, as those of falcon image build have.`,
		Example: fmt.Sprintf("  %[1]s cp lab.conf violin:/etc/\n  %[1]s cp violin:/var/log ./logs", a.program.Name),
		Args:    exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.copy(cmd, args[0], args[1], asJSON)
		},
	}
	jsonFlag(cmd, &asJSON, "print how far it is, and at last what was copied, as lines of JSON")
	return cmd
}

func (a *app) copy(cmd *cobra.Command, source, target string, asJSON bool) error {
	from, fromPath := splitPlace(source)
	to, toPath := splitPlace(target)
	if (from == "") == (to == "") {
		return UsageError(cmd, "one of %q and %q must be NODE:PATH, the other a path of the host", source, target)
	}
	n, err := a.node(cmd, from+to)
	if err != nil {
		return err
	}
	if fromPath == "" || toPath == "" {
		return UsageError(cmd, "a path is missing after %s:", from+to)
	}
	m := newMeter(cmd, asJSON, copyDocument{Node: from + to, Source: fromPath, Target: toPath})
	if from != "" {
		err = n.CopyFrom(cmd.Context(), fromPath, toPath, m.progress)
	} else {
		err = n.CopyTo(cmd.Context(), fromPath, toPath, m.progress)
	}
	m.end(err)
	if err != nil {
		return err
	}
	if !asJSON {
		fmt.Fprintf(cmd.OutOrStdout(), "copied %s to %s: %s in %s\n", source, target, size(m.at.Total), seconds(time.Since(m.begun)))
	}
	return nil
}

// splitPlace splits NODE:PATH; the node is empty for a path of the host.
func splitPlace(place string) (node, path string) {
	node, path, ok := strings.Cut(place, ":")
	if !ok || node == "" || strings.Contains(node, "/") {
		return "", place
	}
	return node, path
}

// meter shows how far a copy is: on a terminal where somebody watches, or as
// JSON.
type meter struct {
	terminal io.Writer     // nil where nobody watches
	lines    *json.Encoder // nil where no JSON is wanted
	begun    time.Time
	at       copyDocument

	shown time.Time
	wide  int
}

// meterPause is the least time between two changes of what is shown.
const meterPause = 100 * time.Millisecond

func newMeter(cmd *cobra.Command, asJSON bool, at copyDocument) *meter {
	m := &meter{begun: time.Now(), at: at}
	m.shown = m.begun // what is done at once is not worth showing
	if file, ok := cmd.ErrOrStderr().(*os.File); ok && !asJSON && term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "dumb" {
		m.terminal = file
	}
	if asJSON {
		m.lines = json.NewEncoder(printable.JSONWriter(cmd.OutOrStdout()))
	}
	return m
}

func (m *meter) progress(done, total int64) {
	m.at.Bytes, m.at.Total = done, total
	if time.Since(m.shown) < meterPause || total == 0 {
		return
	}
	m.shown = time.Now()
	if m.lines != nil {
		m.print()
	}
	if m.terminal != nil {
		taken := time.Since(m.begun)
		text := fmt.Sprintf("%3d%% of %s, %s/s", done*100/total, size(total), size(int64(float64(done)/taken.Seconds())))
		fmt.Fprintf(m.terminal, "\r%-*s", m.wide, text)
		m.wide = max(m.wide, len(text))
	}
}

func (m *meter) print() {
	m.at.Seconds = time.Since(m.begun).Seconds()
	_ = m.lines.Encode(m.at) // nothing can be told to somebody who cannot read
}

// end clears what is shown, and prints the last line of a copy that has come to
// a good end.
func (m *meter) end(err error) {
	if m.wide > 0 {
		fmt.Fprintf(m.terminal, "\r%*s\r", m.wide, "")
	}
	if m.lines != nil && err == nil {
		m.at.Final = true
		m.print()
	}
}
