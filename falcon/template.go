package falcon

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/process"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
	"github.com/falcon-vm/falcon-go/internal/agent"
	"github.com/falcon-vm/falcon-go/propolis"
)

// templateVersion changes when what falcon does to a guest before it is kept as
// a template, or expects of its clones, does.
const templateVersion = 3

// templateNode is the name of the node that becomes a template.
const templateNode = "template"

// coldReason says why a node cannot be a clone of a template; empty when it can.
func (np *NodePlan) coldReason() string {
	switch {
	case np.Cold:
		return "it is declared so"
	case np.Agent == "":
		return "image " + np.Image + " has no guest agent"
	case !np.Setup:
		return "it is not set up by falcon"
	case np.Boot.Method == image.BootUEFI:
		return "UEFI firmware keeps variables of its own"
	case np.VNC != "":
		return "it has a screen"
	}
	_, err := commonSpec(np.Spec)
	if err != nil {
		return err.Error()
	}
	return ""
}

// commonSpec is a spec without what each clone of a template has of its own.
func commonSpec(spec propolis.InstanceSpec) (propolis.InstanceSpec, error) {
	common := propolis.Components{}
	for name, c := range spec.Components {
		switch c := c.(type) {
		case propolis.SerialPort, propolis.VirtioDisk, propolis.PCIBridge, propolis.PVPanic:
			common[name] = c
		case propolis.FileStorageBackend:
			if name != mainDiskBacking {
				return spec, errors.New("it has more disks than its own")
			}
			c.Path = ""
			common[name] = c
		case propolis.VirtioNIC:
			c.InterfaceID = ""
			common[name] = c
		case propolis.VirtioNetworkBackend:
			c.VNICName = commonVNIC(c.VNICName)
			common[name] = c
		case propolis.P9FS:
			c.Source = ""
			common[name] = c
		case propolis.SoftNPUPCIPort, propolis.SoftNPUP9:
			common[name] = c
		case propolis.SoftNPUPort, propolis.DLPINetworkBackend:
			// They are outside of the machine.
		default:
			return spec, fmt.Errorf("its component %s is a %s, whose state cannot be kept", name, c.Kind())
		}
	}
	spec.Components = common
	return spec, nil
}

// commonVNIC is what matters of a vnic_name to a guest: its kind and its MTU.
func commonVNIC(name string) string {
	device, options, _ := strings.Cut(name, "?")
	kind, _, prefixed := strings.Cut(device, ":")
	if !prefixed {
		kind = ""
	}
	mtu := ""
	for option := range strings.SplitSeq(options, "&") {
		if strings.HasPrefix(option, "mtu=") {
			mtu = option
		}
	}
	return kind + ":" + mtu
}

// nics is how many of the node's ends are interfaces of its guest.
func (np *NodePlan) nics() int {
	n := 0
	for _, i := range np.Interfaces {
		if i.Kind != EndSoftNPU {
			n++
		}
	}
	return n
}

// templateOptions describe the template that a node can be a clone of.
func templateOptions(np *NodePlan, img image.Image, vmm string) (image.TemplateOptions, error) {
	spec, err := commonSpec(np.Spec)
	if err != nil {
		return image.TemplateOptions{}, err
	}
	o := image.TemplateOptions{
		Image: np.Image, Digest: img.Digest, VMM: vmm, Version: templateVersion, DiskSize: int64(np.DiskSize),
		Cores: np.Cores, Memory: int64(np.Memory), Interfaces: np.nics(),
	}
	data, err := json.Marshal(struct {
		image.TemplateOptions
		Agent, OS string
		Boot      image.Boot
		Spec      propolis.InstanceSpec
	}{o, np.Agent, np.OS, np.Boot, spec})
	if err != nil {
		return o, err
	}
	sum := sha256.Sum256(data)
	o.Key = hex.EncodeToString(sum[:10])
	return o, nil
}

// obsolete returns whether a template can never be used again: its image or the
// hypervisor is another one now, or falcon prepares guests differently.
func (l *lab) obsolete(ctx context.Context, vmm string) func(image.Template) bool {
	return func(t image.Template) bool {
		img, err := l.host.store().Get(ctx, t.Image)
		if err != nil && !errors.Is(err, image.ErrNotFound) {
			return false
		}
		return t.Key == "" || t.Version != templateVersion || t.VMM != vmm || err != nil || t.Digest != img.Digest
	}
}

// warmth says for each node of a launch what it is a clone of, or why it boots.
type warmth struct {
	clones map[string]*image.Template
	cold   map[string]string
	unlock []func()
}

func newWarmth() *warmth {
	return &warmth{clones: make(map[string]*image.Template), cold: make(map[string]string)}
}

// release lets the templates be removed on which nothing stands.
func (w *warmth) release() {
	for _, unlock := range w.unlock {
		unlock()
	}
	w.unlock = nil
}

// usedDisk is why a node boots whose disk is not new.
const usedDisk = "it goes on from its own disk"

// boots has a node boot.
func (w *warmth) boots(node, why string) {
	delete(w.clones, node)
	w.cold[node] = why
}

// base is the image or template that a node's disk is made on.
func (w *warmth) base(np *NodePlan) string {
	if t, ok := w.clones[np.Name]; ok {
		return t.Name
	}
	return np.Image
}

// warmth decides for the nodes of a launch.
func (l *lab) warmth(ctx context.Context, r *revision, o launchOptions) (*warmth, error) {
	w := newWarmth()
	var nodes []*NodePlan
	for i := range r.next.Plan.Nodes {
		np := &r.next.Plan.Nodes[i]
		switch {
		case r.running[np.Name]:
		case o.cold:
			w.cold[np.Name] = "it was asked for (--cold)"
		case r.old != nil && r.old.Plan.Node(np.Name) != nil && l.host.store().HasDisk(ctx, l.owner(np.Name), np.Backing):
			w.cold[np.Name] = usedDisk
		default:
			nodes = append(nodes, np)
		}
	}
	return w, l.warmUp(ctx, w, nodes)
}

// warmUp finds the templates for nodes, and makes those that are missing. That
// one cannot be made has the nodes boot.
func (l *lab) warmUp(ctx context.Context, w *warmth, nodes []*NodePlan) error {
	needs := make(map[image.TemplateOptions][]*NodePlan)
	store, vmm, why := l.templates()
	images := make(map[string]image.Image) // many nodes have the same
	for _, np := range nodes {
		reason := why
		if reason == "" {
			reason = np.coldReason()
		}
		if reason == "" && !agent.Holds(np.Agent) {
			reason = (&AgentVersionError{Image: np.Image, Err: &agent.UnknownCallError{Version: np.Agent}}).Error()
		}
		if reason != "" {
			w.cold[np.Name] = reason
			continue
		}
		if _, known := images[np.Image]; !known {
			img, err := l.host.store().Get(ctx, np.Image)
			if err != nil {
				return &NodeError{Node: np.Name, Err: err}
			}
			images[np.Image] = img
		}
		o, err := templateOptions(np, images[np.Image], vmm)
		if err != nil {
			return &NodeError{Node: np.Name, Err: err}
		}
		needs[o] = append(needs[o], np)
	}
	for o, of := range needs { // one after the other: each is a boot
		t, unlock, err := l.template(ctx, store, o, of[0])
		if ctx.Err() != nil {
			w.release()
			return context.Cause(ctx)
		}
		if err != nil {
			l.log.Warn("making a template; the nodes boot instead", "image", o.Image, "error", err)
		} else {
			w.unlock = append(w.unlock, unlock)
		}
		for _, np := range of {
			if err != nil {
				w.cold[np.Name] = err.Error()
			} else {
				w.clones[np.Name] = &t
			}
		}
	}
	return nil
}

// templates returns the store of templates and what identifies the hypervisor,
// or why there are no templates here.
func (l *lab) templates() (store image.TemplateStore, vmm, why string) {
	h, ok := l.host.(templater)
	if !ok {
		return nil, "", "this host has no templates"
	}
	store, ok = l.host.store().(image.TemplateStore)
	switch {
	case !ok:
		return nil, "", "images are ZFS volumes, which have no templates"
	case l.propolis != "":
		return nil, "", "its propolis-server is not falcon's own"
	}
	vmm, err := h.vmm()
	if err != nil {
		return nil, "", err.Error()
	}
	return store, vmm, ""
}

// template returns a template, which is made when there is none.
func (l *lab) template(ctx context.Context, store image.TemplateStore, o image.TemplateOptions, np *NodePlan) (image.Template, func(), error) {
	for {
		t, unlock, err := store.Template(ctx, o.Key)
		if err == nil || !errors.Is(err, image.ErrNotFound) {
			return t, unlock, err
		}
		if err := l.makeTemplate(ctx, store, o, np); err != nil && !errors.Is(err, image.ErrExists) {
			return t, nil, err
		}
	}
}

// templateDeadline bounds the making of a template, a boot and what follows.
const templateDeadline = 10 * time.Minute

// makeTemplate has a guest boot that is like a node, and keeps it.
func (l *lab) makeTemplate(ctx context.Context, store image.TemplateStore, o image.TemplateOptions, np *NodePlan) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, templateDeadline, fmt.Errorf("it was not made within %v", templateDeadline))
	defer cancel()
	if err := l.roomForMemory(np); err != nil {
		return fmt.Errorf("making a template of image %s: %w", np.Image, err)
	}
	report := func(what string) { l.stage(np.Name, StageTemplate, what) }
	draft, err := store.CreateTemplate(ctx, o, func(s image.Step) { report(s.What) })
	if err != nil {
		return err
	}
	defer draft.Discard()
	report("booting " + np.Image)
	files, err := l.bootTemplate(ctx, draft.Dir, np, report)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("making a template of image %s: %w", np.Image, err)
	}
	_, err = draft.Commit(files...)
	if err != nil {
		return err
	}
	removed, err := store.PruneTemplates(ctx, TemplateLimit, l.obsolete(ctx, o.VMM))
	if err != nil {
		l.log.Warn("removing old templates", "error", err)
	}
	for _, t := range removed {
		l.log.Info("removed an old template", "image", t.Image, "folder", t.Dir)
	}
	return nil
}

// templatePlan is the plan of the node that becomes the template of others.
func templatePlan(np *NodePlan, dir string) (*NodePlan, error) {
	t := *np
	t.Name, t.Disk, t.Mounts = templateNode, filepath.Join(dir, image.TemplateDisk), nil
	t.ASIC, t.Program = false, "" // nobody talks to it
	t.Spec.Components = propolis.Components{}
	for name, c := range np.Spec.Components {
		switch c := c.(type) {
		case propolis.FileStorageBackend:
			c.Path = t.Disk
			t.Spec.Components[name] = c
		case propolis.P9FS:
			c.Source = filepath.Join(dir, "mount")
			if err := os.MkdirAll(c.Source, 0o700); err != nil {
				return nil, err
			}
			t.Spec.Components[name] = c
		case propolis.SoftNPUPort, propolis.DLPINetworkBackend:
			// What is saved has an ASIC without ports.
		default:
			t.Spec.Components[name] = c
		}
	}
	return &t, nil
}

// bootTemplate boots the guest in the folder and has its state kept there. It
// returns the names of the files that matter.
func (l *lab) bootTemplate(ctx context.Context, dir string, np *NodePlan, report func(string)) (files []string, err error) {
	folder, err := state.Open(dir)
	if err != nil {
		return nil, err
	}
	tl := &lab{name: l.name, folder: folder, home: l.home, host: l.host, log: l.log}
	t, err := templatePlan(np, dir)
	if err != nil {
		return nil, err
	}
	o := state.Object{Kind: state.Server, Name: t.Name}
	id := uuid.NewString()
	server, err := l.host.serve(ctx, tl, t, serveOptions{id: id, template: dir, make: true}, func(p process.Identity) error {
		o.Process = &p
		return nil
	})
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*endGrace)
		defer cancel()
		err = errors.Join(err, l.host.end(ctx, folder, o, endGrace))
	}()
	if err != nil {
		return nil, err
	}
	err = tl.attend(ctx, server, t, nodeStart{id: id}, func(ctx context.Context, client *propolis.Client) error {
		a, err := tl.answeringAgent(ctx, t, templateDeadline)
		if err != nil {
			return err
		}
		if a == nil {
			return errors.New("its guest agent is not served")
		}
		report("preparing")
		if _, err := a.Prepare(ctx); err != nil {
			return fmt.Errorf("preparing the guest: %w", err)
		}
		if err := a.Hold(ctx); err != nil {
			return fmt.Errorf("holding the guest: %w", err)
		}
		report("saving")
		return client.SaveTemplate(ctx)
	})
	return templateFiles, err
}

// templateFiles are those of a template besides its disk.
var templateFiles = []string{"ram", "state", "template.json", "console"}

// entropyBytes is how much randomness a clone is given: twice what the kernel's
// generator holds.
const entropyBytes = 64

// machineID is the machine id of the instance with a UUID: the UUID, as systemd has
// it for a machine that it finds itself on for the first time.
func machineID(id string) string { return strings.ReplaceAll(id, "-", "") }

// identity is what makes a guest the node that it is, whose instance has the
// UUID id.
func identity(np *NodePlan, id string, clone bool) agent.Identity {
	i := agent.Identity{Hostname: np.Name, MachineID: machineID(id)}
	for _, m := range np.Mounts {
		i.Mounts = append(i.Mounts, agent.Mount{Tag: m.Tag, Target: m.Target})
	}
	if clone {
		i.Time, i.SSHKeys, i.Entropy = time.Now(), true, make([]byte, entropyBytes)
		_, _ = rand.Read(i.Entropy) // never fails, by its documentation
	}
	return i
}
