package falcon

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/falcon-vm/falcon-go/falcon/internal/illumos"
	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
	"github.com/falcon-vm/falcon-go/propolis"
)

// DryStep is one thing that a launch would do. One of Command, Request and Note
// alone says what.
type DryStep struct {
	// Node is whose it is, empty for what is the whole topology's.
	Node string `json:"node,omitempty"`
	// Command is a program with its arguments.
	Command []string `json:"command,omitempty"`
	// Request is a request to the Propolis server of the node, and Body the
	// document that is sent with it.
	Request string          `json:"request,omitempty"`
	Body    json.RawMessage `json:"body,omitempty"`
	// Note says more in words, or what is done without a command.
	Note string `json:"note,omitempty"`
}

// String is the step as a line of a shell: a command as it can be typed, all
// else as a comment.
func (s DryStep) String() string {
	node := s.Node
	if node != "" {
		node += ": "
	}
	switch {
	case len(s.Command) > 0 && s.Note != "":
		return "# " + node + s.Note + "\n" + illumos.Command(s.Command).String()
	case len(s.Command) > 0:
		return illumos.Command(s.Command).String()
	case s.Request != "":
		return "# " + node + s.Request + "  " + s.Note
	}
	return "# " + node + s.Note
}

// rehearser is a host that can say how it would make a plan real.
type rehearser interface {
	// rehearse returns the steps of a launch in their order, without those for
	// nodes that run.
	rehearse(ctx context.Context, l *lab, r *revision) ([]DryStep, error)
}

// DryRun returns what Launch would do to the host, in order, and changes
// nothing. On illumos the commands are those that a launch gives. Elsewhere
// there are none of many steps, and the commands are what would do the same by
// hand; notes say so. With Host or FALCON_HOST illumos it shows on any machine
// what would be done on an illumos host with a pool rpool, a link igb0, and all
// images.
func (t *Topology) DryRun(ctx context.Context) ([]DryStep, error) {
	steps, err := t.dryRun(ctx)
	if err != nil {
		return nil, fmt.Errorf("dry run of %s: %w", t.name, err)
	}
	return steps, nil
}

func (t *Topology) dryRun(ctx context.Context) ([]DryStep, error) {
	if err := t.Validate(ctx); err != nil {
		return nil, err
	}
	if HostNative != HostIllumos && cmp.Or(t.Host, os.Getenv(hostEnv)) == HostIllumos {
		return t.rehearseOnModel()
	}
	l, err := t.open()
	if err != nil {
		return nil, err
	}
	host, ok := l.host.(rehearser)
	if !ok {
		return nil, fmt.Errorf("host %s runs no commands: there is nothing to show", l.host.kind())
	}
	r, _, err := l.revise(ctx, t)
	if err != nil {
		return nil, err
	}
	if err := r.next.Plan.supported(); err != nil {
		return nil, err
	}
	return host.rehearse(ctx, l, r)
}

// supported lists why the host cannot launch nodes of the plan.
func (p *Plan) supported() error {
	var checks []Check
	for i := range p.Nodes {
		n := &p.Nodes[i]
		for _, reason := range n.Unsupported {
			checks = append(checks, Check{Err: &NodeError{Node: n.Name, Err: fmt.Errorf("%s", reason)}})
		}
	}
	return failures(checks)
}

// What the model of an illumos host has.
const (
	modelDataset = "rpool/falcon"
	modelLink    = "igb0"
)

// rehearseOnModel is a dry run on an illumos host that is not there.
func (t *Topology) rehearseOnModel() ([]DryStep, error) {
	folder, err := state.Open(cmp.Or(t.Dir, DefaultDir))
	if err != nil {
		return nil, err
	}
	wd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	links := &simnets{topology: t.name, folder: folder}
	f := facts{
		fabric: links, images: make(map[string]image.Image), dataset: modelDataset, workDir: wd,
		diskPath: func(n *Node) string {
			if n.backing == BackingFile {
				return filepath.Join(image.SystemHome, "topo", t.name, n.name)
			}
			return "/dev/zvol/rdsk/" + topologyDataset(modelDataset, t.name, n.name)
		},
		defaultInterface: modelLink, noSidecar: noSidecarHere, noProgram: noProgramHere, hostLimits: illumosLimits,
	}
	for _, n := range t.nodes {
		f.images[n.image] = assumedImage(n.image)
	}
	p, err := plan(t, f)
	if err != nil {
		return nil, err
	}
	if err := p.supported(); err != nil {
		return nil, err
	}
	bin := (&programs{home: image.SystemHome}).paths(t.Propolis)
	s := illumosRehearsal{plan: p, ids: newRecord(t, p, nil).IDs, dataset: modelDataset, topology: t.name, bin: bin, dir: cmp.Or(t.Dir, DefaultDir), larger: make(map[string]bool)}
	for _, n := range t.nodes {
		s.larger[n.name] = n.diskSize != 0
	}
	steps := []DryStep{{Note: fmt.Sprintf("what a launch would do on an illumos host with the dataset %s, the default route on %s, and the images", modelDataset, modelLink)}}
	return append(steps, s.steps()...), nil
}

// assumedImage is an image that nobody has looked for: the known one of that
// name, else one of which all is well.
func assumedImage(name string) image.Image {
	k, ok := image.FindKnown(name)
	if !ok {
		k = image.Known{OS: name, Boot: image.Boot{Method: image.BootUEFI}, Console: image.Console{Known: true, User: "root"}}
	}
	return image.Image{Name: name, Boot: k.Boot, Console: k.Console, OS: k.OS}
}

func topologyDataset(dataset, topology, node string) string {
	return dataset + "/topo/" + topology + "/" + node
}

// illumosRehearsal says by which commands a plan is made real on illumos.
type illumosRehearsal struct {
	plan     *Plan
	running  map[string]bool
	ids      map[string]string
	topology string
	dataset  string        // empty where disks are files
	have     illumos.Links // the links that stand
	disks    map[string]bool
	larger   map[string]bool // the nodes whose disk is larger than their image
	bin      paths
	dir      string // the state folder as the user writes it
}

func (h *illumosHost) rehearse(ctx context.Context, l *lab, r *revision) ([]DryStep, error) {
	have, err := h.dladm.Links(ctx)
	if err != nil {
		return nil, err
	}
	s := illumosRehearsal{
		plan: r.next.Plan, running: r.running, ids: r.next.IDs, topology: l.name, dataset: h.images.Dataset(), have: have,
		disks: make(map[string]bool), larger: make(map[string]bool), bin: h.programs.paths(l.propolis), dir: l.folder.Path(),
	}
	for i := range s.plan.Nodes {
		n := &s.plan.Nodes[i]
		s.disks[n.Name] = h.images.HasDisk(ctx, l.owner(n.Name), n.Backing)
		img, err := h.images.Get(ctx, n.Image)
		if err != nil {
			return nil, err
		}
		s.larger[n.Name] = n.DiskSize > Bytes(img.VirtualSize)
	}
	return s.steps(), nil
}

func (s illumosRehearsal) steps() []DryStep {
	var steps []DryStep
	commands := func(node string, cmds []illumos.Command) {
		for _, c := range cmds {
			steps = append(steps, DryStep{Node: node, Command: c})
		}
	}
	steps = append(steps, DryStep{Note: "links; pairs, and the disks, are made at the same time"})
	for _, pair := range pairs(s.plan) {
		commands("", pair.Commands(s.have))
	}
	for i := range s.plan.Nodes {
		n := &s.plan.Nodes[i]
		for j := range n.Interfaces {
			if x := &n.Interfaces[j]; x.Peer == "" && x.Device != x.External {
				commands(n.Name, externalVNIC(x).Commands(s.have))
			}
		}
	}
	steps = append(steps, s.topologyStep()...)
	for i := range s.plan.Nodes {
		if n := &s.plan.Nodes[i]; !s.disks[n.Name] {
			steps = append(steps, s.disk(n)...)
		}
	}
	steps = append(steps, DryStep{Note: "nodes, all at once"})
	for i := range s.plan.Nodes {
		n := &s.plan.Nodes[i]
		if s.running[n.Name] {
			steps = append(steps, DryStep{Node: n.Name, Note: "it runs and is left alone"})
			continue
		}
		out := filepath.Join(s.dir, n.Name+outExt)
		steps = append(steps, DryStep{Node: n.Name, Command: serverCommand(s.bin, n),
			Note: fmt.Sprintf("in the background, its output in %s, which names the PORT", out)})
		steps = append(steps, apiSteps(n, s.ids[n.Name], "http://[::1]:PORT")...)
	}
	return steps
}

// topologyStep makes what the disks of the topology are in.
func (s illumosRehearsal) topologyStep() []DryStep {
	if s.dataset == "" {
		return []DryStep{{Note: "disks"}}
	}
	return []DryStep{
		{Note: "disks; each dataset is also tagged with whose it is (falcon:topology, falcon:disk)"},
		{Command: []string{"zfs", "create", "-o", "canmount=off", s.dataset + "/topo/" + s.topology}},
	}
}

// disk says by which commands a node's disk is made.
func (s illumosRehearsal) disk(n *NodePlan) []DryStep {
	if s.dataset == "" || n.Backing == BackingFile {
		return []DryStep{{Node: n.Name, Note: fmt.Sprintf("image %s becomes the file %s", n.Image, n.Disk)}}
	}
	clone := topologyDataset(s.dataset, s.topology, n.Name)
	cmds := [][]string{{"zfs", "clone", "-o", "sync=disabled", s.dataset + "/img/" + n.Image + "@base", clone}}
	set := []string{"zfs", "set"}
	if s.larger[n.Name] {
		set = append(set, fmt.Sprintf("volsize=%d", n.DiskSize))
	}
	if n.Reserved != 0 {
		set = append(set, fmt.Sprintf("reservation=%d", n.Reserved))
	}
	if len(set) > 2 {
		cmds = append(cmds, append(set, clone))
	}
	var steps []DryStep
	for _, c := range cmds {
		steps = append(steps, DryStep{Node: n.Name, Command: c})
	}
	return steps
}

// apiSteps are the requests that make a server run a node, and the set-up of
// the guest.
func apiSteps(n *NodePlan, id, base string) []DryStep {
	// What goes into it is all strings and numbers.
	body, _ := json.Marshal(ensureRequest(n, id))
	steps := []DryStep{
		{Node: n.Name, Request: "PUT " + base + "/instance", Body: body, Note: machineText(n)},
		{Node: n.Name, Request: "PUT " + base + "/instance/state", Body: json.RawMessage(`"Run"`), Note: `"Run"`},
	}
	if !n.Setup {
		return append(steps, DryStep{Node: n.Name, Note: "the guest is left as it boots"})
	}
	setup := fmt.Sprintf("log in on the console as %s, set the host name", n.Console.User)
	for _, m := range n.Mounts {
		if isIllumosGuest(n.OS) {
			setup += fmt.Sprintf(", copy %s (p9kp pull)", m.Target)
		} else {
			setup += fmt.Sprintf(", mount %s (mount -t 9p)", m.Target)
		}
	}
	return append(steps, DryStep{Node: n.Name, Note: setup})
}

// machineText is a node's instance for people: what is in which slot.
func machineText(n *NodePlan) string {
	type device struct {
		path propolis.PCIPath
		text string
	}
	var devices []device
	for name, c := range n.Spec.Components {
		if path, ok := propolis.PathOf(c); ok {
			devices = append(devices, device{path, name + componentText(c, n.Spec.Components)})
		}
	}
	slices.SortFunc(devices, func(a, b device) int {
		return cmp.Or(cmp.Compare(a.path.Bus, b.path.Bus), cmp.Compare(a.path.Device, b.path.Device), cmp.Compare(a.path.Function, b.path.Function))
	})
	words := []string{fmt.Sprintf("%d vCPU", n.Spec.Board.CPUs), fmt.Sprintf("%d MiB", n.Spec.Board.MemoryMiB)}
	for _, d := range devices {
		words = append(words, d.path.String()+" "+d.text)
	}
	return strings.Join(words, ", ")
}

// componentText says what is behind a device.
func componentText(c propolis.Component, all propolis.Components) string {
	behind := ""
	switch c := c.(type) {
	case propolis.VirtioDisk:
		behind = c.BackendID
	case propolis.NVMeDisk:
		behind = c.BackendID
	case propolis.VirtioNIC:
		behind = c.BackendID
	case propolis.P9FS:
		return " (" + c.Target + ")"
	}
	switch b := all[behind].(type) {
	case propolis.FileStorageBackend:
		return " (" + b.Path + ")"
	case propolis.VirtioNetworkBackend:
		return " (" + b.VNICName + ")"
	}
	return ""
}
