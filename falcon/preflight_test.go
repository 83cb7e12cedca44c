package falcon

import (
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
