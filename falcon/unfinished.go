package falcon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/falcon-vm/falcon-go/propolis"
)

// UnfinishedError says that a node runs whose set-up was broken off: the program
// that started it was killed. It may be a raw copy of others.
type UnfinishedError struct {
	Node string
	// Stage is how far it has come.
	Stage Stage
	// Cure is the command that finishes it.
	Cure string
}

// Error implements error.
func (e *UnfinishedError) Error() string {
	return fmt.Sprintf("its set-up was broken off (stage %s), and nobody works on it: finish it with: %s", e.Stage, e.Cure)
}

// noteStage keeps how far a node has come, which is all of it at StageReady.
func (l *lab) noteStage(node string, s Stage) error {
	n := l.startOf(node)
	if n == nil {
		n = &NodeStart{}
	}
	n.Stage = s
	return l.writeStart(node, *n)
}

// setUpStage returns how far a node has come.
func (l *lab) setUpStage(node string) Stage {
	n := l.startOf(node)
	switch {
	case n == nil:
		return StageStart
	case n.Stage == "": // of a falcon that noted nothing before the end
		return StageReady
	}
	return n.Stage
}

// resetPatience is how long a guest that has reset itself is asked who it is.
const resetPatience = 2 * time.Second

// identified reports whether it is an agent that makes the guest of a node what it is.
func identified(np *NodePlan) bool { return np.Setup && np.Agent != "" }

// isSetUp reports whether a node that runs is set up. A guest that has reset itself
// may not be the node any more: what it has not written to its disk goes with a
// reset. Of one that does not answer what was noted counts.
func (l *lab) isSetUp(ctx context.Context, np *NodePlan, id string) bool {
	if l.setUpStage(np.Name) != StageReady {
		return false
	}
	if !identified(np) {
		return true
	}
	a, info, _ := l.greet(ctx, np, resetPatience)
	return a == nil || info.Is(machineID(id))
}

// unfinished returns an error where the set-up of a node is not complete, which
// is an [UnfinishedError] where nobody works on it. Of a node that does not run
// others tell.
func (l *lab) unfinished(node string) error {
	stage := l.setUpStage(node)
	if stage == StageReady {
		return nil
	}
	if o, err := l.server(node); err != nil || o.Process == nil || !o.Process.Alive() {
		return nil
	}
	if holder, works := l.worker(node); works {
		return fmt.Errorf("it is not set up yet (stage %s): wait for %s", stage, holder)
	}
	return &UnfinishedError{Node: node, Stage: stage, Cure: l.cure("hyperstart", node)}
}

// worker returns who works on the whole lab or on a node.
func (l *lab) worker(node string) (holder string, works bool) {
	if holder, works = l.folder.Locked(""); works {
		return holder, true
	}
	return l.folder.Locked(node + lockExt)
}

// finishNode completes the set-up of a node that runs, or starts it anew.
func (l *lab) finishNode(ctx context.Context, tx *transaction, np *NodePlan, s nodeStart) error {
	err := l.finishSetUp(ctx, np, s)
	if err == nil || ctx.Err() != nil {
		return err
	}
	l.log.Info("the node is started anew", "node", np.Name, "because", err)
	return l.startNode(ctx, tx, np, s)
}

// finishSetUp completes the set-up of a node whose agent answers. A console may
// be in the middle of anything, and a machine that does not run has nothing to
// lose.
func (l *lab) finishSetUp(ctx context.Context, np *NodePlan, s nodeStart) error {
	was := l.startOf(np.Name)
	o, err := l.server(np.Name)
	if err != nil || was == nil || np.Agent == "" || !np.Setup {
		return errors.Join(errors.New("its set-up cannot be completed"), err)
	}
	if is, err := l.instanceState(ctx, o); err != nil || is != propolis.StateRunning {
		return errors.Join(fmt.Errorf("its machine does not run (%s)", is), err)
	}
	client, err := l.host.client(l.folder, np.Name)
	if err != nil {
		return err
	}
	defer client.Close()
	clone := !was.Cold && was.Stage != StageBoot
	err = l.watched(ctx, client, np.Name, time.Time{}, func(ctx context.Context) error {
		if clone {
			return l.setUpClone(ctx, np, s.id)
		}
		a, err := l.answeringAgent(ctx, np, s.loginTimeout/2)
		if err == nil && a == nil {
			err = errAgentSilent
		}
		if err != nil {
			return err
		}
		return l.setUpByAgent(ctx, a, np, s.id)
	})
	if err != nil {
		return err
	}
	l.stage(np.Name, StageReady, "")
	return l.noteStage(np.Name, StageReady)
}

// watched does something with a machine, and fails at once when that ends, panics
// or stands still. A panic from before since is an old one.
func (l *lab) watched(ctx context.Context, client *propolis.Client, node string, since time.Time, do func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, watch := range []func() error{
		func() error { return l.watch(ctx, client, node) },
		func() error { return l.watchMachine(ctx, client, node, since) },
	} {
		go func() {
			if err := watch(); err != nil {
				cancel(err)
			}
		}()
	}
	err := do(ctx)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
