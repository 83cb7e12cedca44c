package falcon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-multierror"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/link"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
)

// undoDeadline bounds the undoing of a command that failed.
const undoDeadline = time.Minute

// transaction is the making of objects under the journal. What it has made can
// be taken back.
type transaction struct {
	l       *lab
	journal *state.Journal
	before  *record // nil when there was none

	mu   sync.Mutex
	made []state.Object
}

// transact runs do and, when that fails and keep is not set, removes what it
// has made and brings the record of before back. The caller holds a lock.
func (l *lab) transact(ctx context.Context, before *record, keep bool, do func(*transaction) error) error {
	j, err := l.folder.Journal()
	if err != nil {
		return err
	}
	tx := &transaction{l: l, journal: j, before: before}
	err = do(tx)
	if cause := context.Cause(ctx); cause != nil && err != nil {
		err = cause // not the many ways in which that shows
	}
	if err == nil || keep {
		return errors.Join(err, j.Close())
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoDeadline)
	defer cancel()
	if uerr := tx.undo(ctx); uerr != nil {
		return fmt.Errorf("%w\nand removing what was made of it: %w", err, uerr)
	}
	return err
}

// make records an object and has it made. An object that stands stays where it
// is in the journal, and is not removed when the transaction fails. Nor is one
// that turns out to be somebody else's.
func (tx *transaction) make(o state.Object, do func() error) error {
	if !tx.stands(o) {
		tx.note(o)
	}
	err := tx.restore(o, do)
	if standsAlready(o, err) {
		err = errors.Join(err, tx.disown(o))
	}
	return err
}

// standsAlready reports whether an object was not made because another of its name
// stands.
func standsAlready(o state.Object, err error) bool {
	return o.Kind == state.Disk && errors.Is(err, image.ErrDiskExists) ||
		o.Kind == state.External && errors.Is(err, link.ErrInUse)
}

// note has objects removed when the transaction fails.
func (tx *transaction) note(objects ...state.Object) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.made = append(tx.made, objects...)
}

// disown takes back that an object is about to be made.
func (tx *transaction) disown(o state.Object) error {
	tx.mu.Lock()
	before := len(tx.made)
	tx.made = slices.DeleteFunc(tx.made, func(m state.Object) bool { return m.Kind == o.Kind && m.Name == o.Name })
	mine := len(tx.made) < before
	tx.mu.Unlock()
	if !mine {
		return nil // it stood before, and is the topology's
	}
	return tx.journal.Gone(o)
}

// announce records objects that make will have made one by one, with one wait
// for the disk.
func (tx *transaction) announce(objects []state.Object) error {
	var fresh []state.Object
	for _, o := range objects {
		if !tx.stands(o) {
			fresh = append(fresh, o)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	tx.note(fresh...)
	return tx.journal.Make(fresh...)
}

// restore is make for an object that stays when the transaction fails.
func (tx *transaction) restore(o state.Object, do func() error) error {
	if !tx.stands(o) {
		if err := tx.journal.Make(o); err != nil {
			return err
		}
	}
	return do()
}

// stands reports whether the journal lists an object.
func (tx *transaction) stands(o state.Object) bool {
	_, stands := tx.journal.Find(o.Kind, o.Name)
	return stands
}

// save replaces the topology's record.
func (tx *transaction) save(r *record) error { return tx.l.folder.WriteJSON(recordFile, r) }

// undo removes what the transaction has made and brings the old record back.
func (tx *transaction) undo(ctx context.Context) error {
	tx.mu.Lock()
	made := slices.Clone(tx.made)
	tx.mu.Unlock()
	var mine []state.Object
	for _, o := range made {
		// As the journal has them: with their processes.
		if o, stands := tx.journal.Find(o.Kind, o.Name); stands {
			mine = append(mine, o)
		}
	}
	_, err := tx.l.remove(ctx, tx.journal, mine)
	if tx.before == nil && err == nil && !tx.older() {
		return errors.Join(tx.journal.Close(), tx.l.dissolve(ctx, mine))
	}
	if tx.before != nil {
		err = errors.Join(err, tx.l.removeFiles(nodesOf(mine, tx.before)), tx.save(tx.before))
	}
	return errors.Join(err, tx.journal.Close())
}

// older reports whether something stands that an earlier command has made.
func (tx *transaction) older() bool {
	return slices.ContainsFunc(tx.journal.Standing(), func(o state.Object) bool { return o.Kind != state.Registration })
}

// inParallel runs functions at once and waits for all. The first that fails
// cancels the others; the error lists what failed of itself.
func inParallel(ctx context.Context, fs ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs *multierror.Error
	for _, f := range fs {
		wg.Go(func() {
			err := f(ctx)
			if err == nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if ctx.Err() == nil || errs == nil || !errors.Is(err, context.Canceled) {
				errs = multierror.Append(errs, err)
			}
			cancel()
		})
	}
	wg.Wait()
	return joined(errs)
}

// joined returns collected errors in the way of listErrors, nil for none.
func joined(errs *multierror.Error) error {
	if errs == nil {
		return nil
	}
	if len(errs.Errors) == 1 {
		return errs.Errors[0]
	}
	errs.ErrorFormat = listErrors
	return errs
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// nodesOf returns the nodes that objects belong to, without those of a record.
func nodesOf(objects []state.Object, without *record) map[string]bool {
	nodes := make(map[string]bool)
	for _, o := range objects {
		if (o.Kind == state.Server || o.Kind == state.Disk) && namePattern.MatchString(o.Name) &&
			(without == nil || without.Plan.Node(o.Name) == nil) {
			nodes[o.Name] = true
		}
	}
	return nodes
}
