package falcon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestALabThatDoesNotFitIsRefusedWithTheSum pins what counts: the nodes that are
// to be started, each with what its hypervisor takes.
func TestALabThatDoesNotFitIsRefusedWithTheSum(t *testing.T) {
	nodes := []NodePlan{{Name: "a", Memory: MiB(128)}, {Name: "b", Memory: MiB(256)}, {Name: "c", Memory: GiB(64)}}
	const sum = 128<<20 + 256<<20 + 2*overhead
	for _, tt := range []struct {
		name    string
		running []string
		free    Bytes
		want    string // in the error, if there is one
	}{
		{"they just fit", []string{"c"}, sum, ""},
		{"a byte is missing", []string{"c"}, sum - 1, "2 nodes to start need 512 MiB (64 MiB each"},
		{"all run", []string{"a", "b", "c"}, 0, ""},
		{"none runs", nil, GiB(8), "3 nodes to start need"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &revision{next: &record{Plan: &Plan{Nodes: nodes}}, running: make(map[string]bool)}
			for _, n := range tt.running {
				r.running[n] = true
			}
			err := memoryCheck(r, tt.free).Err
			if tt.want == "" && err != nil {
				t.Errorf("refused: %v", err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("the error is %v, wanted is one with %q", err, tt.want)
			}
		})
	}
}

// TestAPasswordThatNoServerTakesIsRefused before anything is made.
func TestAPasswordThatNoServerTakesIsRefused(t *testing.T) {
	dir := t.TempDir()
	good, open, none := filepath.Join(dir, "good"), filepath.Join(dir, "open"), filepath.Join(dir, "none")
	for path, mode := range map[string]os.FileMode{good: 0o600, open: 0o644} {
		if err := os.WriteFile(path, []byte("violin\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		path    string
		running bool
		want    string // in the error, if there is one
	}{
		{"", false, ""},
		{good, false, ""},
		{open, false, "chmod 600 " + open},
		{none, false, "chmod 600 " + none},
		{dir, false, "is not a file"},
		{none, true, ""}, // it has been read
	} {
		var said string
		for _, err := range nodeProblems(&Node{}, &NodePlan{VNCPassword: tt.path}, tt.running) {
			said += err.Error()
		}
		if (said == "") != (tt.want == "") || !strings.Contains(said, tt.want) {
			t.Errorf("%q: %q, want %q", tt.path, said, tt.want)
		}
	}
}
