package falcon

import (
	"os"
	"path/filepath"
	"testing"
)

// TestMain makes the test binary the programs of the model of an illumos host,
// under whose names it is found in PATH, and the launch that is killed.
func TestMain(m *testing.M) {
	if os.Getenv(modelEnv) != "" {
		if program, ok := modelPrograms[filepath.Base(os.Args[0])]; ok {
			os.Exit(program(os.Args[1:]))
		}
	}
	if dir := os.Getenv(launchEnv); dir != "" {
		os.Exit(launchOnModel(dir))
	}
	os.Exit(m.Run())
}
