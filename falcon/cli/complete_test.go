package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCompletion(t *testing.T) {
	home := t.TempDir()
	t.Setenv("FALCON_HOME", home)
	addImage(t, home, "quartet-1")
	addImage(t, home, "quartet-2")
	const noFiles, files = ":4", ":0"
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{"exec", ""}, []string{"violin", "piano", noFiles}},
		{[]string{"exec", "vi"}, []string{"violin", noFiles}},
		{[]string{"exec", "violin", ""}, []string{noFiles}},
		{[]string{"serial", "p"}, []string{"piano", noFiles}},
		{[]string{"logs", ""}, []string{"violin", "piano", noFiles}},
		{[]string{"snapshot", ""}, []string{"violin", "piano", noFiles}},
		{[]string{"-n", "3", "hyperstop", "piano", ""}, []string{"violin", "cello", noFiles}},
		{[]string{"hyperstart", "violin", "piano", ""}, []string{noFiles}},
		{[]string{"reboot", "x"}, []string{noFiles}},
		{[]string{"hyper"}, []string{"hyperstart", "hyperstop", noFiles}},
		{[]string{"--image", "quartet"}, []string{"quartet-1", "quartet-2", noFiles}},
		{[]string{"launch", "--image", "quartet"}, []string{"quartet-1", "quartet-2", noFiles}},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			var p testProgram
			got := p.run(t, append([]string{"__completeNoDesc"}, tt.args...)...)
			if diff := cmp.Diff(strings.Join(tt.want, "\n")+"\n", got.stdout); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCompletionKnowsTheNodesOfTheLaunchedLab(t *testing.T) {
	var p testProgram
	p.launchedWith(t, `"--nodes=4"`)
	got := p.run(t, "__completeNoDesc", "serial", "")
	if want := "violin\npiano\ncello\nflute\n:4\n"; got.stdout != want {
		t.Errorf("%q, want %q", got.stdout, want)
	}
}

func TestCompletionScriptsNeedNoTopology(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		p := testProgram{nodes: -1}
		got := p.run(t, "-n", "-1", "completion", shell)
		if got.status != 0 || !strings.Contains(got.stdout, "__complete") || p.lab.topology != nil {
			t.Errorf("%s: status %d, %q", shell, got.status, got.stderr)
		}
	}
}

// addImage puts an image into a store, as far as it takes to list it.
func addImage(t *testing.T, home, name string) {
	t.Helper()
	dir := filepath.Join(home, "img", name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	record, err := json.Marshal(map[string]any{"version": 1, "name": name, "boot": map[string]string{"method": "bios"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "image.json"), record, 0o600); err != nil {
		t.Fatal(err)
	}
}
