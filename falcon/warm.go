package falcon

import (
	"context"
	"errors"
	"fmt"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
)

// TemplateLimit is how much the templates of a store may take together, in
// bytes, before those that were used longest ago are removed.
const TemplateLimit = 8 << 30

// Template is a guest that has booted once, so that others need not.
type Template = image.Template

// WarmOptions describe the nodes for which templates are to be ready.
type WarmOptions struct {
	// Image is what they are made of, Cores and Memory what they have.
	Image  string
	Cores  int
	Memory Bytes
	// Interfaces are how many they have: there is a template for each number.
	Interfaces []int
	// Progress, if set, is told each step.
	Progress func(Progress)
}

// Warm makes templates ahead of time: a launch makes those that it misses. Nodes
// that differ in more than their interfaces, as by a mount, have a template of
// their own, which only a launch makes.
func Warm(ctx context.Context, o WarmOptions) error {
	store, err := Images()
	if err != nil {
		return err
	}
	dir, discard, err := image.WorkFolder(store.Home(), "warm")
	if err != nil {
		return err
	}
	defer discard()
	t := New("warm")
	t.Dir, t.Progress = dir, o.Progress
	var nodes []*Node
	for i, count := range o.Interfaces {
		a := t.Node(fmt.Sprintf("interfaces_%d", count), o.Image, o.Cores, o.Memory)
		nodes = append(nodes, a)
		if count == 0 {
			continue
		}
		b := t.Node(fmt.Sprintf("peer%d", i), o.Image, o.Cores, o.Memory)
		for range count {
			t.Link(a, b)
		}
	}
	if err := t.Validate(ctx); err != nil {
		return err
	}
	l, err := t.open()
	if err != nil {
		return err
	}
	if err := l.ensureImages(ctx, t); err != nil {
		return err
	}
	r, _, err := l.revise(ctx, t)
	if err != nil {
		return err
	}
	w := newWarmth()
	defer w.release()
	var plans []*NodePlan
	for _, n := range nodes {
		plans = append(plans, r.next.Plan.Node(n.name))
	}
	if err := l.warmUp(ctx, w, plans); err != nil {
		return err
	}
	for _, n := range nodes {
		if why := w.cold[n.name]; why != "" {
			return fmt.Errorf("nodes of image %s cannot be clones: %s", o.Image, why)
		}
	}
	return nil
}

// Templates lists the templates of the store that the environment chooses,
// those used last at the end.
func Templates(ctx context.Context) ([]Template, error) {
	store, err := templateStore()
	if err != nil {
		return nil, err
	}
	return store.Templates(ctx)
}

// PruneTemplates removes the templates that can never be used again, or all, as
// far as nothing stands on them.
func PruneTemplates(ctx context.Context, all bool) (removed []Template, err error) {
	store, err := templateStore()
	if err != nil {
		return nil, err
	}
	l, err := labOf(hostChoice{})
	if err != nil {
		return nil, err
	}
	_, vmm, _ := l.templates()
	obsolete := l.obsolete(ctx, vmm)
	return store.PruneTemplates(ctx, TemplateLimit, func(t Template) bool { return all || obsolete(t) })
}

func templateStore() (image.TemplateStore, error) {
	store, err := Images()
	if err != nil {
		return nil, err
	}
	if s, ok := store.(image.TemplateStore); ok {
		return s, nil
	}
	return nil, errors.New("images are ZFS volumes or simulated, of which there are no templates")
}
