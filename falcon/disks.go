package falcon

import (
	"context"
	"fmt"

	"github.com/hashicorp/go-multierror"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
)

// settleDisk ends a snapshot of a node's disk that was killed.
func (l *lab) settleDisk(ctx context.Context, node string) error {
	if store, ok := l.host.store().(image.Settler); ok {
		return store.SettleDisk(ctx, l.owner(node))
	}
	return nil
}

// disksCheck says whether the disks and images of the nodes that are to be
// started still stand on what they were made on.
func (l *lab) disksCheck(ctx context.Context, nodes []*Node, running map[string]bool) Check {
	store := l.host.store()
	var errs *multierror.Error
	count := 0
	seen := make(map[string]bool)
	for _, n := range nodes {
		if running[n.name] {
			continue
		}
		count++
		err := store.VerifyDisk(ctx, l.owner(n.name))
		if err == nil && !seen[n.image] {
			seen[n.image] = true
			if img, gerr := store.Get(ctx, n.image); gerr == nil {
				err = store.VerifyImage(ctx, img)
			}
		}
		if err != nil {
			errs = multierror.Append(errs, &NodeError{Node: n.name, Err: err})
		}
	}
	return Check{Name: "disks", Detail: fmt.Sprintf("%d nodes to start, whose images are as they were", count), Err: joined(errs)}
}

// judgeDisks says of nodes whose disks cannot be read that they cannot.
func (l *lab) judgeDisks(ctx context.Context, nodes []NodeStatus) {
	for i := range nodes {
		n := &nodes[i]
		if n.Reason != "" {
			continue
		}
		if err := l.host.store().VerifyDisk(ctx, l.owner(n.Name)); err != nil {
			n.Reason = err.Error()
		}
	}
}

// storedDisks is disksCheck for all disks of the labs' stores, with a check for
// each that cannot be read.
func storedDisks(ctx context.Context, labs []*lab) ([]Check, error) {
	n := 0
	var bad []Check
	for _, l := range labs {
		store := l.host.store()
		disks, err := store.Disks(ctx)
		if err != nil {
			return nil, err
		}
		n += len(disks)
		for _, d := range disks {
			if err := store.VerifyDisk(ctx, d.Owner); err != nil {
				bad = append(bad, Check{Name: "disk", Err: err})
			}
		}
	}
	if len(bad) == 0 {
		return []Check{{Name: "disks", Detail: fmt.Sprintf("%d, whose images are as they were", n)}}, nil
	}
	return bad, nil
}
