package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// copyDocument is what cp prints as JSON.
type copyDocument struct {
	Node    string  `json:"node"`
	Source  string  `json:"source"`
	Target  string  `json:"target"`
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
}

func (a *app) copyCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "cp SOURCE TARGET",
		Short: "Copy files and folders to and from a node",
		Long: `Copy a file or a folder, with all that is in it, to a node or from one. Either
SOURCE or TARGET is NODE:PATH; a path of the host that holds a colon is written
with a slash before it. Where TARGET is a folder, the copy goes into it, else it
becomes TARGET. Modes and times are kept, owners are not. The node's image must
have a guest agent, as those of falcon image build have.`,
		Example: fmt.Sprintf("  %[1]s cp lab.conf violin:/etc/\n  %[1]s cp violin:/var/log ./logs", a.program.Name),
		Args:    exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.copy(cmd, args[0], args[1], asJSON)
		},
	}
	jsonFlag(cmd, &asJSON, "print what was copied as JSON")
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
	meter := newMeter(cmd, asJSON)
	if from != "" {
		err = n.CopyFrom(cmd.Context(), fromPath, toPath, meter.progress)
	} else {
		err = n.CopyTo(cmd.Context(), fromPath, toPath, meter.progress)
	}
	meter.end()
	if err != nil {
		return err
	}
	taken := time.Since(meter.begun)
	if asJSON {
		return printJSON(cmd, copyDocument{from + to, fromPath, toPath, meter.total, taken.Seconds()})
	}
	fmt.Fprintf(cmd.OutOrStdout(), "copied %s to %s: %s in %s\n", source, target, size(meter.total), seconds(taken))
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

// meter shows how far a copy is, where somebody watches.
type meter struct {
	out   io.Writer // nil where nobody does
	begun time.Time
	total int64

	shown time.Time
	wide  int
}

// meterPause is the least time between two changes of what is shown.
const meterPause = 100 * time.Millisecond

func newMeter(cmd *cobra.Command, asJSON bool) *meter {
	m := &meter{begun: time.Now()}
	if file, ok := cmd.ErrOrStderr().(*os.File); ok && !asJSON && term.IsTerminal(int(file.Fd())) && os.Getenv("TERM") != "dumb" {
		m.out = file
	}
	return m
}

func (m *meter) progress(done, total int64) {
	m.total = total
	if m.out == nil || time.Since(m.shown) < meterPause || total == 0 {
		return
	}
	m.shown = time.Now()
	text := fmt.Sprintf("%3d%% of %s", done*100/total, size(total))
	fmt.Fprintf(m.out, "\r%-*s", m.wide, text)
	m.wide = len(text)
}

// end clears what is shown.
func (m *meter) end() {
	if m.wide > 0 {
		fmt.Fprintf(m.out, "\r%*s\r", m.wide, "")
	}
}
