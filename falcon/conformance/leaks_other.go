//go:build !linux

package conformance

import (
	"fmt"
	"os/exec"
	"strings"
)

// processesIn lists processes whose arguments name a folder.
func processesIn(dir string) ([]string, error) {
	out, err := exec.Command("ps", "-eo", "pid,args").Output()
	if err != nil {
		return nil, fmt.Errorf("ps: %w", err)
	}
	var found []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, dir) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found, nil
}
