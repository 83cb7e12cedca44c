package cli

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

func TestHelpOfEachCommand(t *testing.T) {
	p := testProgram{dir: ".falcon"}
	commands := []string{""}
	for _, c := range p.app(t).root.Commands() {
		commands = append(commands, c.Name())
	}
	for _, name := range commands {
		t.Run(name, func(t *testing.T) {
			got := p.run(t, append(strings.Fields(name), "--help")...)
			if got.status != 0 || got.stderr != "" {
				t.Errorf("status %d, %q", got.status, got.stderr)
			}
			golden(t, filepath.Join("testdata", "help", "ring"+name+".txt"), got.stdout)
			for _, line := range strings.Split(got.stdout, "\n") {
				if n := len([]rune(line)); n > 100 {
					t.Errorf("a line of %d columns: %s", n, line)
				}
			}
		})
	}
}

// golden compares text with a file, or writes it with -update.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (go test -update writes it anew):\n%s", path, diff)
	}
}
