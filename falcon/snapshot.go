package falcon

import (
	"context"
	"errors"
	"fmt"
)

// SnapshotOptions change how a snapshot is taken.
type SnapshotOptions struct {
	// Live takes it of a node that runs. Its guest agent writes out its
	// file systems and freezes them for the moment that the snapshot takes.
	// A guest without an agent is asked to write them out and pauses; what
	// it has then is on the disk as after a loss of power.
	Live bool
}

// Snapshot makes a new base image of a node's disk, in constant time and with
// nothing copied. The node must be stopped unless the snapshot is Live; it
// goes on, on a fresh clone of the new image.
func (t *Topology) Snapshot(ctx context.Context, node, name string, o SnapshotOptions) error {
	n := t.Lookup(node)
	if n == nil {
		return fmt.Errorf("topology %s has no node %s", t.name, node)
	}
	return n.do(ctx, "snapshot", func(ctx context.Context, l *lab, r *record) error {
		np := r.Plan.Node(node)
		if np == nil {
			return errors.New("it is declared and not launched: there is no disk to take a snapshot of")
		}
		var switchOverlay func(string) error
		if s, err := l.server(node); err == nil && l.runs(ctx, s) {
			if !o.Live {
				return fmt.Errorf("it runs: hyperstop it first (%s), or take the snapshot with --live", l.cure("hyperstop", node))
			}
			if stage := l.setUpStage(node); stage != StageReady {
				return &UnfinishedError{Node: node, Stage: stage, Cure: l.cure("hyperstart", node)}
			}
			if !l.isSetUp(ctx, np, r.IDs[node]) {
				return &UnfinishedError{Node: node, Stage: StageSetup, Cure: l.cure("hyperstart", node)}
			}
			switchOverlay = func(overlay string) error {
				release, err := l.quiesce(ctx, np)
				if err != nil {
					return err
				}
				err = l.switchOverlay(ctx, node, overlay)
				if rerr := release(); rerr != nil && err == nil {
					// The disk has been switched, so the image stands.
					l.log.Warn("the guest may have written while the snapshot was taken", "node", node, "error", rerr)
				}
				return err
			}
		}
		if _, err := l.host.store().Snapshot(ctx, l.owner(node), name, switchOverlay); err != nil {
			return fmt.Errorf("snapshot %s: %w", name, err)
		}
		return nil
	})
}

// switchOverlay moves a running guest onto a fresh overlay of its disk.
func (l *lab) switchOverlay(ctx context.Context, node, overlay string) error {
	client, err := l.host.client(l.folder, node)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, serverDeadline, fmt.Errorf("the server did not switch disks within %v", serverDeadline))
	defer cancel()
	return client.SwitchOverlay(ctx, "main_disk_backing", overlay)
}
