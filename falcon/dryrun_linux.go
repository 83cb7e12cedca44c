package falcon

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/link"
)

// rehearse gives commands that would do by hand what a launch does itself: it
// speaks to the kernel, and writes disks, without programs.
func (h *linuxHost) rehearse(ctx context.Context, l *lab, r *revision) ([]DryStep, error) {
	p := r.next.Plan
	steps := []DryStep{{Note: "a launch does this without programs; these commands would do the same by hand"}}
	add := func(node string, words ...string) {
		steps = append(steps, DryStep{Node: node, Command: words})
	}
	if p.Namespace == "" {
		steps = append(steps, DryStep{Note: "links are Unix sockets in " + l.folder.Path() + ", which the nodes make themselves"})
	} else if len(p.Links) > 0 {
		for _, c := range linuxLinks(p) {
			add("", c...)
		}
	}
	for i := range p.Nodes {
		n := &p.Nodes[i]
		for j := range n.Interfaces {
			if x := &n.Interfaces[j]; x.Peer == "" && x.Device != "" {
				mode := "bridge"
				if x.Exclusive {
					mode = "passthru"
				}
				add(n.Name, "ip", "link", "add", "link", x.External, "name", x.Device, "address", x.MAC, "type", "macvtap", "mode", mode)
				add(n.Name, "ip", "link", "set", x.Device, "up")
			}
		}
	}
	if dataset := h.images.Dataset(); dataset != "" {
		steps = append(steps, illumosRehearsal{topology: l.name, dataset: dataset}.topologyStep()...)
	}
	for i := range p.Nodes {
		n := &p.Nodes[i]
		if h.images.HasDisk(ctx, l.owner(n.Name), n.Backing) {
			continue
		}
		disk, err := h.rehearseDisk(ctx, l, n)
		if err != nil {
			return nil, err
		}
		steps = append(steps, disk...)
	}
	for i := range p.Nodes {
		n := &p.Nodes[i]
		if r.running[n.Name] {
			steps = append(steps, DryStep{Node: n.Name, Note: "it runs and is left alone"})
			continue
		}
		agent := ""
		if n.Agent != "" && l.propolis == "" {
			agent = "unix:" + n.Name + agentExt
		}
		asic := ""
		if n.ASIC && l.propolis == "" {
			asic = "unix:" + n.Name + asicExt
		}
		args := serverArgs(n, h.namespacePath(), agent, asic, n.VNC)
		// The sockets are bound by the launch, which hands them over.
		for j, a := range args {
			if strings.HasPrefix(a, "fd:") {
				args[j] = "unix:" + n.Name + socketExt
			}
		}
		program := l.propolis
		if program == "" {
			program = "propolis-server"
		}
		steps = append(steps, DryStep{Node: n.Name, Command: append([]string{program}, args...),
			Note: "in the background, in the folder " + l.folder.Path() + "; it is part of this program"})
		steps = append(steps, apiSteps(n, r.next.IDs[n.Name], "unix:"+n.Name+socketExt)...)
	}
	return steps, nil
}

// linuxLinks are commands for the cables of a plan.
func linuxLinks(p *Plan) [][]string {
	cmds := [][]string{{"ip", "netns", "add", p.Namespace}}
	in := func(program string, words ...string) {
		cmds = append(cmds, append([]string{program, "-n", p.Namespace}, words...))
	}
	for _, l := range p.Links {
		mtu := l.MTU
		if mtu == 0 {
			mtu = link.DefaultMTU
		}
		ends := [2]*InterfacePlan{&p.Node(l.A.Node).Interfaces[l.A.Index], &p.Node(l.B.Node).Interfaces[l.B.Index]}
		for _, e := range ends {
			in("ip", "tuntap", "add", "dev", e.Device, "mode", "tap", "vnet_hdr")
			in("ip", "link", "set", e.Device, "address", e.MAC, "mtu", strconv.Itoa(mtu+link.TagRoom), "up")
			in("ip", "link", "property", "add", "dev", e.Device, "altname", e.Name)
			in("tc", "qdisc", "add", "dev", e.Device, "clsact")
		}
		for i, e := range ends {
			in("tc", "filter", "add", "dev", e.Device, "ingress", "protocol", "all", "u32", "match", "u32", "0", "0",
				"action", "mirred", "egress", "redirect", "dev", ends[1-i].Device)
		}
	}
	return cmds
}

func (h *linuxHost) rehearseDisk(ctx context.Context, l *lab, n *NodePlan) ([]DryStep, error) {
	img, err := h.images.Get(ctx, n.Image)
	if err != nil {
		return nil, err
	}
	if h.images.Dataset() != "" && n.Backing != image.BackingFile {
		s := illumosRehearsal{topology: l.name, dataset: h.images.Dataset(),
			larger: map[string]bool{n.Name: n.DiskSize > Bytes(img.VirtualSize)}}
		return s.disk(n), nil
	}
	return []DryStep{{Node: n.Name, Command: []string{"qemu-img", "create", "-f", "qcow2", "-b", img.Disk, "-F", img.Format,
		n.Disk, fmt.Sprint(uint64(n.DiskSize))}}}, nil
}
