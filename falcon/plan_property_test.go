package falcon

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/falcon-vm/falcon-go/propolis"
)

// drawTopology draws a valid topology of any shape: links between different
// nodes and of a node with itself, several between the same two, external ones,
// addresses given and not.
func drawTopology(t *rapid.T) *Topology {
	topo := New(drawName(t, "topology"))
	seen := make(map[string]bool)
	var nodes []*Node
	for range rapid.IntRange(1, 6).Draw(t, "nodes") {
		name := drawName(t, "node")
		if seen[name] {
			continue
		}
		seen[name] = true
		n := node(topo, name)
		for i := range rapid.IntRange(0, 3).Draw(t, "mounts") {
			n.Mount("cargo", fmt.Sprint("/mnt/", i))
		}
		nodes = append(nodes, n)
	}
	pick := rapid.SampledFrom(nodes)
	for range rapid.IntRange(0, 30).Draw(t, "links") {
		drawLink(t, topo, pick.Draw(t, "a"), pick.Draw(t, "b"))
	}
	drawMACs(t, topo)
	return topo
}

// drawName draws names that are like each other, and like parts of the names
// that are made of them.
func drawName(t *rapid.T, label string) string {
	return rapid.SampledFrom([]string{"a", "A", "a_", "a_b", "b", "a_vn_vnic1", "vn", "external", "user",
		strings.Repeat("x", MaxName), strings.Repeat("x", MaxName-1) + "y", "x1", "x11", "net0"}).Draw(t, label)
}

func drawLink(t *rapid.T, topo *Topology, a, b *Node) {
	switch rapid.IntRange(0, 7).Draw(t, "kind") {
	case 0:
		topo.SoftNPULink(a, b)
	case 1:
		topo.SoftNPULinks(a, b)
	case 2:
		topo.SidecarLink(Sidecar{Switch: a, Driver: b, Radix: rapid.IntRange(1, 4).Draw(t, "radix")})
	case 3:
		a.ExtLink("igb0")
	case 4:
		a.UserExtLink()
	case 5:
		a.DefaultExtLink()
	default:
		topo.Link(a, b).MTU(rapid.IntRange(68, MaxMTU).Draw(t, "mtu"))
	}
}

// drawMACs gives some ends an address, written in any way.
func drawMACs(t *rapid.T, topo *Topology) {
	given := 0
	for _, n := range topo.nodes {
		for _, e := range n.ends {
			if !rapid.Bool().Draw(t, "given") {
				continue
			}
			given++
			mac := fmt.Sprintf("A8:40:25:00:00:%02X", given)
			if rapid.Bool().Draw(t, "dashes") {
				mac = strings.ReplaceAll(mac, ":", "-")
			}
			e.MAC(mac)
		}
	}
}

// unique fails when a value has been there before.
type unique map[string]string

func (u unique) add(t *rapid.T, value, owner string) {
	if other, taken := u[value]; taken {
		t.Fatalf("%s and %s are both %q", other, owner, value)
	}
	u[value] = owner
}

func TestPlansOfAnyTopology(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		topo := drawTopology(t)
		if err := topo.Validate(context.Background()); err != nil {
			t.Fatalf("the topology that was drawn is not valid: %v", err)
		}
		p, err := plan(topo, factsOf(fakeFabric{}))
		if err != nil {
			t.Fatal(err)
		}
		again, err := plan(topo, factsOf(fakeFabric{}))
		if diff := cmp.Diff(p, again, cmp.AllowUnexported(InterfacePlan{})); diff != "" || err != nil {
			t.Fatalf("the second plan differs (%v):\n%s", err, diff)
		}
		names, devices, macs := unique{}, unique{}, unique{}
		for i := range p.Nodes {
			np := &p.Nodes[i]
			if len(np.Interfaces) != len(topo.nodes[i].ends) {
				t.Fatalf("node %s has %d interfaces, declared are %d", np.Name, len(np.Interfaces), len(topo.nodes[i].ends))
			}
			for j := range np.Interfaces {
				self := &np.Interfaces[j]
				names.add(t, self.Name, self.Name)
				macs.add(t, self.MAC, self.Name)
				if self.Device != "" {
					devices.add(t, self.Device, self.Name)
				}
				checkInterface(t, p, topo.nodes[i].ends[j], self)
			}
			checkSpec(t, np)
		}
		checkLinks(t, topo, p)
	})
}

// checkInterface compares an interface with the end that was declared, and its
// peer with it.
func checkInterface(t *rapid.T, p *Plan, e *End, self *InterfacePlan) {
	mtu := e.link.mtu
	if peer := e.peer(); peer != nil && peer.kind == EndSidecar { // a header more
		if mtu == 0 {
			mtu = guestMTU
		}
		mtu += int(e.link.sidecar)
	}
	if self.Index != e.index || self.Kind != e.kind || self.MTU != mtu {
		t.Fatalf("%s is %+v, declared is %+v with MTU %d", self.Name, self, e, mtu)
	}
	if mac, err := net.ParseMAC(e.mac); err == nil && self.MAC != mac.String() {
		t.Fatalf("%s has %s, declared is %s", self.Name, self.MAC, mac)
	}
	if (self.Slot == "") != (self.Kind == EndSoftNPU) {
		t.Fatalf("%s, a %s, is noted at slot %q", self.Name, self.Kind, self.Slot)
	}
	if (self.Peer == "") == (self.External == "") {
		t.Fatalf("%s has the peer %q and the host interface %q", self.Name, self.Peer, self.External)
	}
	if self.Peer == "" {
		return
	}
	peer := p.Node(self.Peer).Interfaces[self.PeerIndex]
	if back := &p.Node(peer.Peer).Interfaces[peer.PeerIndex]; back != self || peer.Name == self.Name {
		t.Fatalf("%s has the peer %s, whose peer is %s", self.Name, peer.Name, back.Name)
	}
}

// checkSpec looks at where devices are and whether Propolis could read it.
func checkSpec(t *rapid.T, np *NodePlan) {
	paths := unique{}
	for name, path := range slots(np.Spec) {
		paths.add(t, path, np.Name+" "+name)
	}
	var nics []propolis.PCIPath
	for _, i := range np.Interfaces {
		if i.Kind == EndSoftNPU {
			continue
		}
		var path propolis.PCIPath
		if _, err := fmt.Sscanf(i.Slot, "%d.%d.%d", &path.Bus, &path.Device, &path.Function); err != nil {
			t.Fatalf("slot %q: %v", i.Slot, err)
		}
		nics = append(nics, path)
	}
	if !slices.IsSortedFunc(nics, comparePaths) {
		t.Fatalf("node %s finds its interfaces in another order: %v", np.Name, nics)
	}
	data, err := json.Marshal(np.Spec)
	if err != nil {
		t.Fatal(err)
	}
	var back propolis.InstanceSpec
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatalf("Propolis' decoder: %v", err)
	}
	if diff := cmp.Diff(np.Spec, back); diff != "" {
		t.Fatalf("spec (-sent +read):\n%s", diff)
	}
	checkBackends(t, np)
}

// checkBackends: Propolis refuses a device without its backend and a backend
// without its device.
func checkBackends(t *rapid.T, np *NodePlan) {
	users := unique{}
	backends := 0
	for name, c := range np.Spec.Components {
		switch c := c.(type) {
		case propolis.VirtioNIC:
			users.add(t, c.BackendID, name)
		case propolis.SoftNPUPort:
			users.add(t, c.BackendID, name)
		case propolis.VirtioDisk:
			users.add(t, c.BackendID, name)
		case propolis.VirtioNetworkBackend, propolis.DLPINetworkBackend, propolis.FileStorageBackend:
			backends++
		}
	}
	for backend, user := range users {
		if np.Spec.Components[backend] == nil {
			t.Fatalf("node %s: %s has no backend %s", np.Name, user, backend)
		}
	}
	if backends != len(users) {
		t.Fatalf("node %s: %d backends for %d devices", np.Name, backends, len(users))
	}
}

// checkLinks compares the cables with those declared.
func checkLinks(t *rapid.T, topo *Topology, p *Plan) {
	var want []LinkPlan
	for _, l := range topo.links {
		if l.B != nil {
			want = append(want, LinkPlan{Endpoint{l.A.node.name, l.A.index}, Endpoint{l.B.node.name, l.B.index}, l.mtu})
		}
	}
	if diff := cmp.Diff(want, p.Links); diff != "" {
		t.Fatalf("links (-declared +planned):\n%s", diff)
	}
}
