package falcon

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
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
	os.Exit(runTests(m))
}

// modelBinary is what the model's programs are: the test binary, or where that
// looks for races, and so takes long to start, one that does not.
var modelBinary = sync.OnceValues(func() (string, error) {
	info, ok := debug.ReadBuildInfo()
	if !ok || !slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		return os.Executable()
	}
	path := filepath.Join(modelDir, "model")
	if out, err := exec.Command("go", "test", "-c", "-o", path).CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the model: %w\n%s", err, out)
	}
	return path, nil
})

// modelDir is a folder that goes with the tests.
var modelDir string

func runTests(m *testing.M) int {
	var err error
	if modelDir, err = os.MkdirTemp("", "model-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(modelDir)
	return m.Run()
}
