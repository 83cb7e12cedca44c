//go:build linux

// Package examples_test works with real guests, the way a user does: it builds
// the example programs and the host tool, launches labs with them, and looks
// that nothing is left behind.
package examples_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/falcon-vm/falcon-go/internal/agent"
)

// systemImage is where the image of the guests is when the host has it.
const systemImage = "/var/lib/falcon/img/micro"

// built is what TestMain has built, for every user to read.
var built struct {
	dir   string // with a program for each name
	image string // the folder of the image micro
	home  string // falcon's, of root's labs: they share their templates
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	if noGuests() != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "falcon-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := buildAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, "building what the tests run:", err)
		return 1
	}
	return m.Run()
}

// noGuests says why no guest can run here; empty when one can.
func noGuests() string {
	if testing.Short() {
		return "it boots guests, which -short leaves out"
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		return "it boots guests, and qemu-system-x86_64 is not installed"
	}
	return ""
}

func buildAll(dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	built.dir = dir
	if err := build(dir, nil, "./solo", "./duo", "./ring", "./extra", "./softnpu", "./p4hub", "./p4vlan", "./testdata/any", "./testdata/ephemeral", "./testdata/zfshost", "../cmd/falcon"); err != nil {
		return err
	}
	// It runs in guests, which have no C library.
	if err := build(filepath.Join(dir, "guest"), []string{"CGO_ENABLED=0"}, "./testdata/frames", "../cmd/npuadm"); err != nil {
		return err
	}
	built.home = filepath.Join(dir, "home")
	if err := os.MkdirAll(filepath.Join(built.home, "img"), 0o755); err != nil {
		return err
	}
	if hasAgent(systemImage) {
		built.image = systemImage
		return os.Symlink(systemImage, filepath.Join(built.home, "img", "micro"))
	}
	built.image = filepath.Join(built.home, "img", "micro")
	cmd := exec.Command(filepath.Join(dir, "falcon"), "image", "build", "micro")
	cmd.Env = append(os.Environ(), "FALCON_HOME="+built.home)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", cmd, err)
	}
	return os.Chmod(built.home, 0o755) // the ordinary user's labs stand on it as well
}

// hasAgent tells whether an image has falcon's agent of this version: one that
// was built before does not.
func hasAgent(dir string) bool {
	var img struct {
		Agent string `json:"agent"`
	}
	data, err := os.ReadFile(filepath.Join(dir, "image.json"))
	return err == nil && json.Unmarshal(data, &img) == nil && img.Agent == agent.Version
}

func build(to string, env []string, packages ...string) error {
	cmd := exec.Command("go", append([]string{"build", "-ldflags=-s -w", "-o", to + "/"}, packages...)...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}
