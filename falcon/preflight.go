package falcon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/hashicorp/go-multierror"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/image/build"
	"github.com/falcon-vm/falcon-go/propolis/server"
	"github.com/falcon-vm/falcon-go/propolis/softnpu"
)

// Check is one finding about whether a topology can be launched.
type Check struct {
	// Name is what was looked at, Detail what was found.
	Name   string
	Detail string
	// Warning says what may yet go wrong; empty when nothing.
	Warning string
	// Err says why it does not do; nil when it does.
	Err error
}

// MarshalJSON writes the check with its error as text.
func (c Check) MarshalJSON() ([]byte, error) {
	out := struct {
		Name    string `json:"name"`
		OK      bool   `json:"ok"`
		Detail  string `json:"detail,omitempty"`
		Warning string `json:"warning,omitempty"`
		Error   string `json:"error,omitempty"`
	}{Name: c.Name, OK: c.Err == nil, Detail: c.Detail, Warning: c.Warning}
	if c.Err != nil {
		out.Error = c.Err.Error()
	}
	return json.Marshal(out)
}

// Preflight is what a launch would find and make.
type Preflight struct {
	Checks []Check `json:"checks"`
	// Plan is nil when a check that it needs has failed.
	Plan *Plan `json:"plan,omitempty"`
	// Storage is the room for its disks; nil where the host does not tell.
	Storage *Storage `json:"storage,omitempty"`
}

// Preflight looks at what a launch would need and changes nothing. The error
// lists the checks that failed; the Preflight is returned beside it.
func (t *Topology) Preflight(ctx context.Context) (*Preflight, error) {
	if err := t.Validate(ctx); err != nil {
		return nil, err
	}
	l, err := t.open()
	if err != nil {
		return nil, err
	}
	p := &Preflight{Checks: []Check{l.imagesCheck(ctx)}}
	for _, n := range t.nodes {
		c := l.imageCheck(ctx, n.image)
		if c.Err != nil {
			c.Err = &NodeError{Node: n.name, Err: c.Err}
		}
		p.Checks = append(p.Checks, c)
	}
	r, hf, err := l.revise(ctx, t)
	switch {
	case errors.Is(err, image.ErrNotFound):
		// The image's own check says how to get it.
		p.Checks = append(append(p.Checks, hf.checks...), l.disksCheck(ctx, t.nodes, nil))
	case err != nil:
		return nil, err
	default:
		p.Plan = r.next.Plan
		p.Checks = append(append(p.Checks, l.checks(t, r, hf)...), l.disksCheck(ctx, t.nodes, r.running))
		if p.Storage = l.storage(ctx, p.Plan); p.Storage != nil {
			p.Checks = append(p.Checks, p.Storage.check())
		}
	}
	return p, failures(p.Checks)
}

// Plan works out what a launch would make. Images that are not there yet are
// an error.
func (t *Topology) Plan(ctx context.Context) (*Plan, error) {
	if err := t.Validate(ctx); err != nil {
		return nil, err
	}
	l, err := t.open()
	if err != nil {
		return nil, err
	}
	r, _, err := l.revise(ctx, t)
	if err != nil {
		return nil, fmt.Errorf("planning %s: %w", t.name, err)
	}
	return r.next.Plan, nil
}

// failures lists the errors of checks.
func failures(checks []Check) error {
	var errs *multierror.Error
	for _, c := range checks {
		if c.Err != nil {
			errs = multierror.Append(errs, c.Err)
		}
	}
	return joined(errs)
}

// imagesCheck says where images and disks are, and whether the topology can have
// its disks there.
func (l *lab) imagesCheck(ctx context.Context) Check {
	store := l.host.store()
	return Check{Name: "images", Detail: store.Why(), Err: image.Conflict(ctx, store, l.owner(""))}
}

func (l *lab) imageCheck(ctx context.Context, name string) Check {
	c := Check{Name: "image " + name}
	img, err := l.host.store().Get(ctx, name)
	switch {
	case err == nil:
		c.Detail = img.Dir
	case errors.Is(err, image.ErrNotFound) && buildable(name):
		c.Detail = "will be built"
	case errors.Is(err, image.ErrNotFound):
		c.Err = notFound(name)
	default:
		c.Err = err
	}
	return c
}

// buildable reports whether falcon has a recipe for an image.
func buildable(name string) bool {
	return slices.ContainsFunc(build.Recipes(), func(r build.Recipe) bool { return r.Name == name })
}

// notFound says how to get an image that falcon cannot build.
func notFound(name string) error {
	if _, ok := image.FindKnown(name); ok {
		return &image.NotFoundError{Name: name, Hint: build.Hint(name)}
	}
	return &image.NotFoundError{Name: name,
		Hint: fmt.Sprintf("import it with `falcon image import FILE %s`, or see `falcon image ls`", name)}
}

// ensureImage builds an image that is missing and can be built.
func (l *lab) ensureImage(ctx context.Context, name string) error {
	_, err := l.host.store().Get(ctx, name)
	if !errors.Is(err, image.ErrNotFound) {
		return err
	}
	if !buildable(name) {
		return notFound(name)
	}
	_, err = build.Builder{Store: l.host.store()}.Ensure(ctx, name, func(s image.Step) {
		p := Progress{Stage: StageImage, Detail: name + ": " + s.What}
		if s.Bytes {
			p.Done, p.Total = s.Done, s.Total
		}
		l.report(p)
	})
	return err
}

// checks judges a plan against the host.
func (l *lab) checks(t *Topology, r *revision, hf hostFacts) []Check {
	checks := append([]Check(nil), hf.checks...)
	checks = append(checks, memoryCheck(r, hf.freeMemory), l.exclusiveCheck(r.next.Plan))
	for _, n := range t.nodes {
		np := r.next.Plan.Node(n.name)
		for _, err := range nodeProblems(n, np, r.running[n.name]) {
			checks = append(checks, Check{Name: "node " + n.name, Err: &NodeError{Node: n.name, Err: err}})
		}
	}
	return checks
}

// nodeProblems looks at what a node needs of the host's files and ports.
func nodeProblems(n *Node, np *NodePlan, running bool) []error {
	var errs []error
	for _, reason := range np.Unsupported {
		errs = append(errs, errors.New(reason))
	}
	for _, m := range np.Mounts {
		info, err := os.Stat(m.Source)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("mount source %s: %w", m.Source, errors.Unwrap(err)))
		case !info.IsDir():
			errs = append(errs, fmt.Errorf("mount source %s is not a folder", m.Source))
		}
	}
	if np.Program != "" && len(np.Unsupported) == 0 {
		if _, err := softnpu.ReadSource(np.Program); err != nil {
			errs = append(errs, programError(np.Program, err))
		}
	}
	if n.bootISO != "" {
		if _, err := os.Stat(n.bootISO); err != nil {
			errs = append(errs, fmt.Errorf("boot ISO: %w", err))
		}
	}
	if !running {
		if _, err := server.ReadPassword(np.VNCPassword); err != nil {
			errs = append(errs, err)
		}
	}
	if n.vncPort != 0 && !running {
		s, err := net.Listen("tcp", np.VNC)
		if err != nil {
			errs = append(errs, fmt.Errorf("VNC port: %w", err))
		} else {
			s.Close()
		}
	}
	return errs
}

// overhead is what QEMU itself takes beside a guest's memory. Measured here
// with TCG's translation cache at 128 MiB: 40 to 120 MiB for an idle guest.
const overhead = Bytes(64 << 20)

// memoryCheck compares what the nodes that are to be started can take with
// what the host has free.
func memoryCheck(r *revision, free Bytes) Check {
	c := Check{Name: "memory"}
	var need Bytes
	count := 0
	for _, n := range r.next.Plan.Nodes {
		if !r.running[n.Name] {
			need += n.Memory + overhead
			count++
		}
	}
	c.Detail = fmt.Sprintf("%s needed for %d nodes to start, %s free", need, count, free)
	if need > free && count > 0 {
		c.Err = fmt.Errorf("not enough memory: %d nodes to start need %s (%s each for the hypervisor included), and the host has %s free: declare less memory, or destroy another topology (falcon ls)",
			count, need, overhead, free)
	}
	return c
}

// exclusiveCheck finds host interfaces that another topology uses, when one of
// the two wants it exclusively.
func (l *lab) exclusiveCheck(p *Plan) Check {
	c := Check{Name: "external links"}
	others, err := l.neighbours()
	if err != nil {
		c.Err = err
		return c
	}
	type use struct {
		by        string
		exclusive bool
	}
	uses := make(map[string]use)
	for _, r := range others {
		for _, n := range r.Plan.Nodes {
			for _, i := range n.Interfaces {
				if i.External != "" && i.External != "user" {
					uses[i.External] = use{r.Topology, i.Exclusive || uses[i.External].exclusive}
				}
			}
		}
	}
	for _, n := range p.Nodes {
		for _, i := range n.Interfaces {
			u, used := uses[i.External]
			if used && (u.exclusive || i.Exclusive) {
				c.Err = &NodeError{Node: n.Name, Err: fmt.Errorf(
					"host interface %s is used by topology %s, and exclusively by one of the two: see `falcon ls`", i.External, u.by)}
			}
		}
	}
	return c
}

// revise plans the topology and refuses what cannot be made of what stands. It
// changes nothing.
func (l *lab) revise(ctx context.Context, t *Topology) (*revision, hostFacts, error) {
	old, err := l.loadOrNew()
	if err != nil {
		return nil, hostFacts{}, err
	}
	f, hf, err := l.facts(ctx, t, old)
	if err != nil {
		return nil, hf, err
	}
	p, err := plan(t, f)
	if err != nil {
		return nil, hf, err
	}
	r := &revision{old: old, running: make(map[string]bool), next: newRecord(t, p, old)}
	r.next.ID, r.next.Home = l.folder.ID(), l.home
	if r.next.IDBase == 0 {
		r.next.IDBase = chooseIDBase(l.folder.ID(), f.takenIDs)
	}
	r.next.Host, r.next.Dataset = l.host.kind(), l.host.store().Dataset()
	servers, err := l.servers()
	if err != nil {
		return nil, hf, err
	}
	for _, o := range servers {
		if l.runs(ctx, o) {
			r.running[o.Name] = true
		}
	}
	return r, hf, compatible(old, r)
}
