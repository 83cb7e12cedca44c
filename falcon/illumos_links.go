package falcon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/falcon-vm/falcon-go/falcon/internal/illumos"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
)

// simnets makes links of illumos' simnet links and VNICs. Their names are the
// whole host's: a list of claims says which are whose.
type simnets struct {
	topology string
	folder   *state.Folder
	dladm    illumos.Dladm
	claims   illumos.Claims
}

func (f *simnets) name() string          { return "simnet" }
func (f *simnets) namespace() string     { return "" }
func (f *simnets) namespacePath() string { return "" }

func (f *simnets) device(full, node string, _ int, _ bool) string {
	return illumos.VNICName(full, node)
}

func (f *simnets) vnic(self, _ *InterfacePlan) string { return self.Device }

// externalClaims is added to the folder's ID for the claim of the external
// links, which come and go apart from the cables.
const externalClaims = "-ext"

// claim is the topology's claim of links.
func (f *simnets) claim(suffix string, names ...string) illumos.Claim {
	return illumos.Claim{ID: f.folder.ID() + suffix, Topology: f.topology, Folder: f.folder.Path(), Links: names}
}

// pairs translates the links of a plan.
func pairs(p *Plan) []illumos.Pair {
	end := func(e Endpoint) illumos.End {
		i := p.Node(e.Node).Interfaces[e.Index]
		return illumos.End{VNIC: i.Device, MAC: i.MAC}
	}
	var all []illumos.Pair
	for _, l := range p.Links {
		all = append(all, illumos.Pair{A: end(l.A), B: end(l.B), MTU: l.MTU})
	}
	return all
}

func externalVNIC(i *InterfacePlan) illumos.VNIC {
	return illumos.VNIC{Name: i.Device, Over: i.External, MAC: i.MAC}
}

func (f *simnets) createLinks(ctx context.Context, p *Plan) error {
	var names []string
	for _, pair := range pairs(p) {
		names = append(names, pair.Names()...)
	}
	return f.make(ctx, f.claim("", names...), func(have illumos.Links) ([][]illumos.Command, error) {
		var lists [][]illumos.Command
		var errs []error
		for _, pair := range pairs(p) {
			lists = append(lists, pair.Commands(have))
			errs = append(errs, pair.Check(have))
		}
		return lists, errors.Join(errs...)
	})
}

func (f *simnets) createExternal(ctx context.Context, i *InterfacePlan) error {
	v := externalVNIC(i)
	return f.make(ctx, f.claim(externalClaims, v.Name), func(have illumos.Links) ([][]illumos.Command, error) {
		return [][]illumos.Command{v.Commands(have)}, v.Check(have)
	})
}

// make claims names and then runs the commands that make their links.
func (f *simnets) make(ctx context.Context, c illumos.Claim, commands func(illumos.Links) ([][]illumos.Command, error)) error {
	var have illumos.Links
	err := f.claims.Add(ctx, c, func() (_ illumos.Links, err error) {
		have, err = f.dladm.Links(ctx)
		return have, err
	})
	if err != nil {
		return err
	}
	lists, err := commands(have)
	if err != nil {
		return err
	}
	err = f.dladm.Apply(ctx, lists)
	// What others have made since the look is not ours to remove.
	if taken := illumos.Refused(err); len(taken) > 0 {
		err = errors.Join(err, f.claims.Drop(context.WithoutCancel(ctx), c.ID, taken))
	}
	return err
}

func (f *simnets) destroyLinks(ctx context.Context, _ string) error {
	return f.removeClaim(ctx, f.folder.ID())
}

func (f *simnets) destroyExternal(ctx context.Context, o state.Object) error {
	id := f.folder.ID() + externalClaims
	c, err := f.claims.Get(id)
	if err != nil {
		return err
	}
	if slices.Contains(c.Links, o.Device) {
		if err := f.dladm.Remove(ctx, []string{o.Device}); err != nil {
			return err
		}
	}
	return f.claims.Drop(ctx, id, []string{o.Device})
}

func (f *simnets) standing(context.Context) ([]state.Object, error) {
	links, err := f.claims.Get(f.folder.ID())
	if err != nil {
		return nil, err
	}
	var objects []state.Object
	if len(links.Links) > 0 {
		objects = append(objects, state.Object{Kind: state.Links})
	}
	externals, err := f.claims.Get(f.folder.ID() + externalClaims)
	for _, device := range externals.Links {
		objects = append(objects, state.Object{Kind: state.External, Name: device, Device: device})
	}
	return objects, err
}

// removeClaim removes the links of a claim, and then the claim.
func (f *simnets) removeClaim(ctx context.Context, id string) error {
	c, err := f.claims.Get(id)
	if err != nil {
		return err
	}
	if len(c.Links) > 0 {
		if err := f.dladm.Remove(ctx, c.Links); err != nil {
			return err
		}
	}
	return f.claims.Drop(ctx, id, c.Links)
}

func (f *simnets) abandonedLinks(ctx context.Context, listed map[string]bool) ([]Leftover, error) {
	claims, err := f.claims.List()
	if err != nil {
		return nil, err
	}
	var left []Leftover
	for _, c := range claims {
		id := strings.TrimSuffix(c.ID, externalClaims)
		if listed[id] {
			continue
		}
		left = append(left, Leftover{lab: id, Kind: "links", Name: strings.Join(c.Links, " "),
			Reason: fmt.Sprintf("%s made them and is not listed any more", c.Owner()),
			remove: func(ctx context.Context) error { return f.removeClaim(ctx, c.ID) }})
	}
	return left, nil
}

// inspect does not count frames: what dladm prints of that is for people.
func (f *simnets) inspect(ctx context.Context, p *Plan) (map[string]deviceStatus, error) {
	have, err := f.dladm.Links(ctx)
	if err != nil {
		return nil, err
	}
	status := make(map[string]deviceStatus)
	for _, n := range p.Nodes {
		for _, i := range n.Interfaces {
			if l, ok := have[i.Device]; ok {
				status[i.Name] = deviceStatus{Up: l.State == "up"}
			}
		}
	}
	return status, nil
}

// nameChecks finds names of the topology's links that others have.
func (f *simnets) nameChecks(t *Topology, have illumos.Links) Check {
	c := Check{Name: "names of links"}
	var names []string
	for _, n := range t.nodes {
		for _, e := range n.ends {
			x := e.link.external
			if x != nil && (x.user || x.exclusive) {
				continue
			}
			vnic := f.device(endName(e), n.name, e.index, x != nil)
			names = append(names, vnic)
			if x == nil {
				names = append(names, illumos.SimnetName(vnic))
			}
		}
	}
	c.Detail = fmt.Sprintf("%d, free or the topology's own", len(names))
	c.Err = f.claims.Conflict(f.folder.ID(), names, have)
	return c
}

// interfaceChecks judges the links of the host that a topology names.
func (f *simnets) interfaceChecks(ctx context.Context, t *Topology, have illumos.Links, defaultLink string) []Check {
	var checks []Check
	for _, l := range t.links {
		x := l.external
		if x == nil || x.user || x.host == "" {
			continue
		}
		c := Check{Name: "link " + x.host, Detail: "for node " + l.A.node.name}
		if _, there := have[x.host]; !there {
			c.Err = fmt.Errorf("the host has no link %s: see `dladm show-link`", x.host)
		} else if x.exclusive {
			c.Err = f.exclusiveUse(ctx, x.host, defaultLink)
		}
		if c.Err != nil {
			c.Err = &NodeError{Node: l.A.node.name, Err: c.Err}
		}
		checks = append(checks, c)
	}
	return checks
}

// exclusiveUse refuses a link that the host itself uses.
func (f *simnets) exclusiveUse(ctx context.Context, link, defaultLink string) error {
	if link == defaultLink {
		return fmt.Errorf("link %s carries the host's default route: used exclusively, the host would be off the network", link)
	}
	ip, err := illumos.IPInterfaces(ctx, f.dladm.Runner)
	if err == nil && ip[link] {
		err = fmt.Errorf("the host speaks IP on link %s, which is to be used exclusively: remove its interface (ipadm delete-if %[1]s), or use ExtLink", link)
	}
	return err
}
