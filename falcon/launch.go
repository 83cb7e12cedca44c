package falcon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
)

// DefaultLoginTimeout is how long a launch waits for a guest's login. Without
// hardware acceleration and with many guests on few cores, a Linux system has
// been seen to need minutes.
const DefaultLoginTimeout = 5 * time.Minute

// LaunchOption changes how a topology is launched.
type LaunchOption func(*launchOptions)

type launchOptions struct {
	keep, cold   bool
	loginTimeout time.Duration
}

// Keep leaves what a failed or cancelled launch has made, to be looked at or
// to be continued by another launch.
func Keep() LaunchOption { return func(o *launchOptions) { o.keep = true } }

// Cold has all nodes boot, as [Node.Cold] has one.
func Cold() LaunchOption { return func(o *launchOptions) { o.cold = true } }

// LoginTimeout bounds the wait for each guest's login, DefaultLoginTimeout
// without it.
func LoginTimeout(d time.Duration) LaunchOption {
	return func(o *launchOptions) { o.loginTimeout = d }
}

// Launch makes the topology run: images that can be built are built, disks are
// cloned, links made, nodes started and set up. What runs already is left
// alone, but for a node whose kernel has panicked, which is started anew: so Launch
// can be called again to complete a topology. When it
// fails or ctx is cancelled, what this call has made is removed again.
//
// A topology that is not Persistent is destroyed when ctx is cancelled later,
// and when the program ends.
func (t *Topology) Launch(ctx context.Context, opts ...LaunchOption) error {
	o := launchOptions{loginTimeout: DefaultLoginTimeout}
	for _, opt := range opts {
		opt(&o)
	}
	l, err := t.open()
	var lease string
	if err == nil {
		lease, err = l.launch(ctx, t, o)
	}
	if err != nil {
		return fmt.Errorf("launching %s: %w", t.name, err)
	}
	if lease != "" {
		context.AfterFunc(ctx, func() { l.destroyAtEnd(ctx, lease) })
	}
	return nil
}

// launch returns the lease of a topology that is not persistent.
func (l *lab) launch(ctx context.Context, t *Topology, o launchOptions) (lease string, err error) {
	r, unlock, err := l.begin(ctx, t, "launch", l.prepareHost)
	if err != nil {
		return "", err
	}
	defer unlock()
	w, err := l.warmth(ctx, r, o)
	if err != nil {
		return "", err
	}
	defer w.release()
	// A topology that stands without a program is not bound to this one.
	if !t.Persistent && (r.old == nil || r.old.Lease != "") {
		if r.next.Lease, err = l.lease(); err != nil {
			return "", err
		}
	}
	return r.next.Lease, l.transact(ctx, r.old, o.keep, func(tx *transaction) error {
		if err := tx.save(r.next); err != nil {
			return err
		}
		if err := l.makeObjects(ctx, tx, r.next.Plan, w); err != nil {
			return err
		}
		return l.startNodes(ctx, tx, r, o, w)
	})
}

// prepareHost has the host ready for starting nodes, where it has to be.
func (l *lab) prepareHost(ctx context.Context) error {
	if p, ok := l.host.(preparer); ok {
		return p.prepare(ctx, l)
	}
	return nil
}

// begin prepares the host, builds the images that are missing, locks the folder
// and plans.
func (l *lab) begin(ctx context.Context, t *Topology, purpose string, prepare func(context.Context) error) (r *revision, unlock func(), err error) {
	if err := t.Validate(ctx); err != nil {
		return nil, nil, err
	}
	if _, err := l.loadOrNew(); err != nil {
		return nil, nil, err // before any image is built for it
	}
	if err := prepare(ctx); err != nil {
		return nil, nil, err
	}
	if err := l.imagesCheck(ctx).Err; err != nil {
		return nil, nil, err
	}
	if err := l.ensureImages(ctx, t); err != nil {
		return nil, nil, err
	}
	// Once before anything is made, so that a refusal leaves no trace, and
	// once under the lock, because another launch may have come between.
	if _, err := l.prepare(ctx, t); err != nil {
		return nil, nil, err
	}
	if err := l.claim(); err != nil {
		return nil, nil, err
	}
	if unlock, err = l.lock(ctx, purpose); err != nil {
		if l.fresh {
			err = errors.Join(err, l.unlist(l.folder.ID()))
		}
		return nil, nil, err
	}
	if err = l.identify(); err == nil {
		err = l.mend(ctx)
	}
	for _, n := range t.nodes {
		if serr := l.settleDisk(ctx, n.name); serr != nil && err == nil {
			err = &NodeError{Node: n.name, Err: serr}
		}
	}
	if err == nil {
		r, err = l.prepare(ctx, t)
	}
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return r, unlock, nil
}

// revision is a topology as it stands and as it is to be.
type revision struct {
	old *record // nil when it is not launched
	// running holds the nodes that run and are left alone.
	running map[string]bool
	next    *record
}

// prepare is revise for a launch: it also refuses what this host cannot run.
func (l *lab) prepare(ctx context.Context, t *Topology) (*revision, error) {
	r, hf, err := l.revise(ctx, t)
	if err != nil {
		return nil, err
	}
	return r, failures(append(l.checks(t, r, hf), l.imagesCheck(ctx), l.disksCheck(ctx, t.nodes, r.running)))
}

// newRecord returns the record of a topology that is to be launched. What an
// earlier one gave to nodes and ends stays theirs.
func newRecord(t *Topology, p *Plan, old *record) *record {
	r := &record{
		Version: recordVersion, Topology: t.name, Flags: t.Flags, Created: time.Now().UTC(),
		IDs: make(map[string]string), MACs: make(map[string]string), Plan: p,
	}
	if old != nil {
		r.Created, r.IDBase = old.Created, old.IDBase
	}
	for _, n := range p.Nodes {
		r.IDs[n.Name] = uuid.NewString()
		if old != nil && old.IDs[n.Name] != "" {
			r.IDs[n.Name] = old.IDs[n.Name]
		}
	}
	for e, id := range endIDs(t) {
		if e.mac == "" {
			r.MACs[id] = p.Node(e.node.name).Interfaces[e.index].MAC
		}
	}
	return r
}

// compatible refuses a declaration that what is launched cannot become without
// losing something.
func compatible(old *record, r *revision) error {
	if old == nil {
		return nil
	}
	for i := range old.Plan.Nodes {
		was := &old.Plan.Nodes[i]
		is := r.next.Plan.Node(was.Name)
		refuse := func(format string, args ...any) error {
			return &NodeError{Node: was.Name, Err: fmt.Errorf(format, args...)}
		}
		switch {
		case is == nil:
			return refuse("it is launched, and not declared any more: destroy the topology first")
		case is.Image != was.Image:
			return refuse("its disk is a clone of image %s, and image %s is declared now: destroy the topology first", was.Image, is.Image)
		case is.DiskSize != was.DiskSize:
			return refuse("its disk has %s, and %s are declared now: destroy the topology first", was.DiskSize, is.DiskSize)
		case r.running[was.Name] && !was.sameMachine(is):
			return refuse("it runs, and is declared differently now: hyperstop it, then launch again")
		}
	}
	return nil
}

// ensureImages builds the images that are missing and can be built.
func (l *lab) ensureImages(ctx context.Context, t *Topology) error {
	done := make(map[string]bool)
	for _, n := range t.nodes {
		if done[n.image] {
			continue
		}
		done[n.image] = true
		if _, err := l.host.store().Get(ctx, n.image); errors.Is(err, image.ErrNotFound) {
			// No other one of its name is to come under the disks on it.
			if c := l.disksCheck(ctx, t.nodes, nil); c.Err != nil {
				return c.Err
			}
		}
		if err := l.ensureImage(ctx, n.image); err != nil {
			return &NodeError{Node: n.name, Err: err}
		}
	}
	return nil
}

// makeObjects makes everything but the nodes' processes: the links and, beside
// them, the disks.
func (l *lab) makeObjects(ctx context.Context, tx *transaction, p *Plan, w *warmth) error {
	if err := l.register(tx); err != nil {
		return err
	}
	return inParallel(ctx,
		func(ctx context.Context) error { return l.makeLinks(ctx, p, tx.make) },
		func(ctx context.Context) error { return l.makeDisks(ctx, tx, p, w) },
	)
}

// maker records an object and has it made.
type maker func(o state.Object, do func() error) error

// register lists the topology among those of the host.
func (l *lab) register(tx *transaction) error {
	return tx.make(state.Object{Kind: state.Registration, Name: l.folder.ID()}, l.list)
}

// ownDevice reports whether an interface is of an external link that has a device
// made for it.
func (i InterfacePlan) ownDevice() bool {
	return i.Peer == "" && i.Device != "" && i.Device != i.External
}

func (l *lab) makeLinks(ctx context.Context, p *Plan, make maker) error {
	// The devices of external links come with a namespace, too.
	if len(p.Links) > 0 || p.Namespace != "" && slices.ContainsFunc(p.Nodes, func(n NodePlan) bool {
		return slices.ContainsFunc(n.Interfaces, InterfacePlan.ownDevice)
	}) {
		o := state.Object{Kind: state.Links, Name: p.Namespace}
		if err := make(o, func() error { return l.host.createLinks(ctx, p) }); err != nil {
			return err
		}
	}
	for i := range p.Nodes {
		n := &p.Nodes[i]
		for j := range n.Interfaces {
			x := &n.Interfaces[j]
			if !x.ownDevice() {
				continue
			}
			o := state.Object{Kind: state.External, Name: x.Name, Device: x.Device, Host: x.External}
			if err := make(o, func() error { return l.host.createExternal(ctx, x) }); err != nil {
				return &NodeError{Node: n.Name, Err: err}
			}
		}
	}
	return nil
}

// makeDisks makes the disks that are missing, all at once.
func (l *lab) makeDisks(ctx context.Context, tx *transaction, p *Plan, w *warmth) error {
	store := l.host.store()
	var objects []state.Object
	var disks []func(context.Context) error
	for i := range p.Nodes {
		n := &p.Nodes[i]
		o := state.Object{Kind: state.Disk, Name: n.Name, Device: store.Dataset()}
		if tx.stands(o) && store.HasDisk(ctx, l.owner(n.Name), n.Backing) {
			w.boots(n.Name, usedDisk)
			continue
		}
		objects = append(objects, o)
		disks = append(disks, func(ctx context.Context) error {
			l.stage(n.Name, StageDisk, "")
			if err := tx.make(o, func() error { return l.makeDisk(ctx, n, w.base(n)) }); err != nil {
				return &NodeError{Node: n.Name, Err: err}
			}
			return nil
		})
	}
	if err := tx.announce(objects); err != nil {
		return err
	}
	return inParallel(ctx, disks...)
}

// makeDisk makes the disk of a node on an image, or a template.
func (l *lab) makeDisk(ctx context.Context, n *NodePlan, base string) error {
	return l.host.store().CreateDisk(ctx, l.owner(n.Name), base, image.DiskOptions{
		Size: int64(n.DiskSize), Backing: n.Backing, Reservation: int64(n.Reserved),
		Progress: func(s image.Step) {
			l.report(Progress{Node: n.Name, Stage: StageDisk, Detail: s.What, Done: s.Done, Total: s.Total})
		},
	})
}

// startNodes starts what does not run, as many at once as the host can carry.
func (l *lab) startNodes(ctx context.Context, tx *transaction, r *revision, o launchOptions, w *warmth) error {
	var nodes []*NodePlan
	for i := range r.next.Plan.Nodes {
		n := &r.next.Plan.Nodes[i]
		if r.running[n.Name] {
			goesOn, err := l.goOn(ctx, n.Name)
			if err != nil {
				return &NodeError{Node: n.Name, Err: err}
			}
			if goesOn && l.isSetUp(ctx, n, r.next.IDs[n.Name]) {
				l.stage(n.Name, StageRunning, "it runs already")
				continue
			}
			r.running[n.Name] = goesOn
		}
		nodes = append(nodes, n)
	}
	gate := l.newGate(nodes)
	var starts []func(context.Context) error
	for _, n := range nodes {
		starts = append(starts, func(ctx context.Context) error {
			release, err := gate.acquire(ctx)
			if err != nil {
				return &NodeError{Node: n.Name, Err: err}
			}
			defer release()
			start := l.startNode
			if r.running[n.Name] {
				start = l.finishNode
			}
			err = start(ctx, tx, n, nodeStart{
				id: r.next.IDs[n.Name], template: w.clones[n.Name], cold: w.cold[n.Name], loginTimeout: o.loginTimeout,
			})
			if err != nil {
				l.report(Progress{Node: n.Name, Stage: StageFailed, Err: err})
				err = &NodeError{Node: n.Name, Err: err}
			}
			return err
		})
	}
	return inParallel(ctx, starts...)
}

// destroyAtEnd destroys a topology whose context has ended, if it is still this
// program's.
func (l *lab) destroyAtEnd(ctx context.Context, lease string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reaperDeadline)
	defer cancel()
	if _, err := l.destroy(ctx, lease); err != nil {
		l.log.Error("destroying the topology at the end of its context", "topology", l.name, "error", err)
	}
}
