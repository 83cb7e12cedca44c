package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// processesIn lists processes whose arguments, working directory or environment
// name a folder.
func processesIn(dir string) ([]string, error) {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, p := range all {
		// It may have ended meanwhile.
		args, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		cwd, _ := os.Readlink(filepath.Join(p, "cwd"))
		env, _ := os.ReadFile(filepath.Join(p, "environ"))
		marked := strings.Contains("\x00"+string(env), "\x00FALCON_HOME="+dir) // all that QEMU has
		if marked || strings.Contains(string(args), dir) || strings.HasPrefix(cwd, dir) {
			found = append(found, fmt.Sprintf("process %s in %s: %s", filepath.Base(p), cwd, strings.ReplaceAll(string(args), "\x00", " ")))
		}
	}
	return found, nil
}
