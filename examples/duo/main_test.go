package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/falcon-vm/falcon-go/falcon/cli"
)

// command is what the README shows the output of.
const command = "FALCON_HOST=illumos bin/duo --image helios-2.5 --memory 4096 --ext default launch --dry-run"

func TestTheREADMEShowsWhatALaunchOnIllumosWouldDo(t *testing.T) {
	words := strings.Fields(command)
	name, value, _ := strings.Cut(words[0], "=")
	t.Setenv(name, value)
	shown := readmeBlock(t)
	t.Chdir(t.TempDir())
	var stdout, stderr bytes.Buffer
	root := program.Command()
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	if status := cli.Execute(t.Context(), root, words[2:]); status != 0 {
		t.Fatalf("exit status %d: %s", status, &stderr)
	}
	if left, _ := os.ReadDir("."); len(left) > 0 {
		t.Errorf("the dry run made %v", left)
	}
	if diff := cmp.Diff(shown, stdout.String()); diff != "" {
		t.Errorf("README.md (-shown +real):\n%s", diff)
	}
}

// readmeBlock returns what stands in the README as the command's output.
func readmeBlock(t *testing.T) string {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(readme), "$ "+command+"\n")
	block, _, end := strings.Cut(rest, "```")
	if !ok || !end {
		t.Fatalf("README.md has no block that begins with: $ %s", command)
	}
	return block
}
