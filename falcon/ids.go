package falcon

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/falcon-vm/falcon-go/propolis/server"
)

// chooseIDBase chooses the ids that the hypervisors of a topology run as when root
// starts them: those that its folder's ID leads to, or the next ones that no other
// topology has. The first ones are those of servers that are run by hand.
func chooseIDBase(id string, taken map[int]bool) int {
	const ranges = (server.EndID - server.FirstID) / server.IDs
	sum := sha256.Sum256([]byte(id))
	n := int(binary.BigEndian.Uint32(sum[:]) % (ranges - 1))
	base := func() int { return server.FirstID + (n+1)*server.IDs }
	for range taken {
		if !taken[base()] {
			break
		}
		n = (n + 1) % (ranges - 1)
	}
	return base()
}

// idBase returns what was chosen for the topology, or is to be for one that has
// no record: a template's.
func (l *lab) idBase() int {
	if r, err := l.record(); err == nil && r.IDBase != 0 {
		return r.IDBase
	}
	return chooseIDBase(l.folder.ID(), nil)
}
