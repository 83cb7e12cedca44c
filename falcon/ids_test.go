package falcon

import (
	"testing"

	"github.com/falcon-vm/falcon-go/propolis/server"
)

// No two topologies run as the same user, and none as one that there may be.
func TestTopologiesHaveIDsOfTheirOwn(t *testing.T) {
	taken := make(map[int]bool)
	for i := range 200 { // half of the time two would meet among 76
		base := chooseIDBase(string(rune('a'+i)), taken)
		if taken[base] || base <= server.FirstID || base+server.IDs > server.EndID || base%server.IDs != 0 {
			t.Fatalf("topology %d has the ids from %d", i, base)
		}
		taken[base] = true
	}
	if a, b := chooseIDBase("a", nil), chooseIDBase("a", nil); a != b {
		t.Errorf("one topology has %d, then %d", a, b)
	}
}
