package falcon

import (
	"context"
	"fmt"

	"github.com/falcon-vm/falcon-go/falcon/internal/state"
)

// NetCreate makes the topology's links alone, without disks or nodes. Links
// that stand are left alone.
func (t *Topology) NetCreate(ctx context.Context) error {
	err := t.makeNet(ctx)
	if err != nil {
		err = fmt.Errorf("making the links of %s: %w", t.name, err)
	}
	return err
}

func (t *Topology) makeNet(ctx context.Context) error {
	l, err := t.open()
	if err != nil {
		return err
	}
	ready := func(context.Context) error { return nil } // no node is started
	r, unlock, err := l.begin(ctx, t, "netcreate", ready)
	if err != nil {
		return err
	}
	defer unlock()
	if r.old != nil {
		r.next.Lease = r.old.Lease
	}
	return l.transact(ctx, r.old, false, func(tx *transaction) error {
		if err := tx.save(r.next); err != nil {
			return err
		}
		if err := l.register(tx); err != nil {
			return err
		}
		return l.makeLinks(ctx, r.next.Plan, tx.make)
	})
}

// NetDestroy removes the topology's links alone. While nodes run it is refused:
// their interfaces would be gone for good.
func (t *Topology) NetDestroy(ctx context.Context) error {
	l, err := t.open()
	if err != nil {
		return err
	}
	_, unlock, err := l.lockExisting(ctx, "netdestroy")
	if err != nil {
		return err
	}
	defer unlock()
	j, err := l.folder.Journal()
	if err != nil {
		return err
	}
	defer j.Close()
	var links, others []state.Object
	for _, o := range j.Standing() {
		switch {
		case o.Kind == state.Server && l.runs(ctx, o):
			return &NodeError{Node: o.Name, Err: fmt.Errorf("it runs and uses its links: hyperstop the nodes first, or destroy the topology")}
		case l.disowned(o) != "":
		case o.Kind == state.Links || o.Kind == state.External:
			links = append(links, o)
		case o.Kind != state.Registration:
			others = append(others, o)
		}
	}
	if _, err := l.remove(ctx, j, links); err != nil {
		return fmt.Errorf("removing the links of %s: %w", t.name, err)
	}
	if len(others) > 0 {
		return nil
	}
	// Nothing but links had been made.
	return l.dissolve(ctx, j.Standing())
}
