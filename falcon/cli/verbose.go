package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/internal/printable"
)

// withCommandLines returns a function that reports steps and, where the user
// wants it verbose, prints the command line of each hypervisor that is started.
func (a *app) withCommandLines(report func(falcon.Progress)) func(falcon.Progress) {
	if !a.verbose {
		return report
	}
	return func(e falcon.Progress) {
		report(e)
		if e.Node == "" || e.Stage != falcon.StageBoot {
			return
		}
		if line, err := a.commandLine(e.Node); err == nil {
			fmt.Fprintf(&a.log, "%s: %s\n", e.Node, printable.Line(line))
		} else {
			fmt.Fprintf(&a.log, "%s: its hypervisor's command line: %s\n", e.Node, printable.Text(err.Error()))
		}
	}
}

// commandLine returns the command line by which a node's hypervisor was started
// last, as its server has logged it for people to repeat.
func (a *app) commandLine(node string) (string, error) {
	files, err := a.lab.Node(node).Logs()
	if err != nil {
		return "", err
	}
	log, err := os.ReadFile(files.Server)
	if err != nil {
		return "", err
	}
	last := ""
	for line := range bytes.Lines(log) {
		var entry struct {
			ByHand string `json:"by_hand"`
		}
		if json.Unmarshal(line, &entry) == nil && entry.ByHand != "" {
			last = entry.ByHand
		}
	}
	if last == "" {
		return "", fmt.Errorf("%s does not have it", files.Server)
	}
	return last, nil
}
