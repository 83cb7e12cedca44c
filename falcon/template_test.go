package falcon

import (
	"strings"
	"testing"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/propolis"
)

// warmFacts are those of a host whose image has a guest agent.
func warmFacts() facts {
	f := factsOf(fakeFabric{})
	img := f.images["debian-12"]
	img.Agent, img.Digest = "3", "sha256:1"
	f.images["debian-12"] = img
	return f
}

// keyOf is the key of the template for node a of a topology with nodes a and b.
func keyOf(t *testing.T, f facts, vmm string, declare func(*Topology, *Node, *Node)) string {
	t.Helper()
	topo := New("duo")
	a, b := topo.Node("a", "debian-12", 1, MiB(256)), topo.Node("b", "debian-12", 1, MiB(256))
	declare(topo, a, b)
	o, err := templateOptions(planned(t, topo, f).Node("a"), f.images["debian-12"], vmm)
	if err != nil {
		t.Fatal(err)
	}
	return o.Key
}

func TestNodesShareATemplateWhereTheyAreAlike(t *testing.T) {
	plain := func(topo *Topology, a, b *Node) { topo.Link(a, b); a.Mount("/x", "/mnt") }
	key := keyOf(t, warmFacts(), "qemu", plain)
	for name, declare := range map[string]func(*Topology, *Node, *Node){
		"other MAC addresses": func(topo *Topology, a, b *Node) {
			topo.Link(a, b).A.MAC("02:00:00:00:00:09")
			a.Mount("/x", "/mnt")
		},
		"another folder": func(topo *Topology, a, b *Node) { topo.Link(a, b); a.Mount("/y", "/mnt") },
		"another peer": func(topo *Topology, a, b *Node) {
			topo.Link(a, topo.Node("c", "debian-12", 1, MiB(64)))
			a.Mount("/x", "/mnt")
		},
		"other neighbour": func(topo *Topology, a, b *Node) { topo.Link(b, a); b.Mount("/z", "/mnt"); a.Mount("/x", "/mnt") },
	} {
		if got := keyOf(t, warmFacts(), "qemu", declare); got != key {
			t.Errorf("%s: the key is %s, want %s", name, got, key)
		}
	}
	changed := map[string]string{"": key}
	other := func(name, key string) {
		t.Helper()
		for before, k := range changed {
			if k == key {
				t.Errorf("%s has the key of %q", name, before)
			}
		}
		changed[name] = key
	}
	for name, declare := range map[string]func(*Topology, *Node, *Node){
		"no interface":       func(topo *Topology, a, b *Node) { a.Mount("/x", "/mnt") },
		"two interfaces":     func(topo *Topology, a, b *Node) { topo.Link(a, b); topo.Link(a, b); a.Mount("/x", "/mnt") },
		"no mount":           func(topo *Topology, a, b *Node) { topo.Link(a, b) },
		"another target":     func(topo *Topology, a, b *Node) { topo.Link(a, b); a.Mount("/x", "/srv") },
		"a larger disk":      func(topo *Topology, a, b *Node) { plain(topo, a, b); a.DiskSize(GiB(9)) },
		"other SMBIOS table": func(topo *Topology, a, b *Node) { plain(topo, a, b); a.SMBIOS(propolis.SmbiosType1{SerialNumber: "1"}) },
	} {
		other(name, keyOf(t, warmFacts(), "qemu", declare))
	}
	other("another hypervisor", keyOf(t, warmFacts(), "kvm", plain))
	for name, change := range map[string]func(*image.Image){
		"another image":        func(i *image.Image) { i.Digest = "sha256:2" },
		"another agent":        func(i *image.Image) { i.Agent = "4" },
		"another command line": func(i *image.Image) { i.Boot.Append += " quiet" },
		"another kernel":       func(i *image.Image) { i.Boot.Kernel = "/img/other" },
	} {
		f := warmFacts()
		img := f.images["debian-12"]
		change(&img)
		f.images["debian-12"] = img
		other(name, keyOf(t, f, "qemu", plain))
	}
}

func TestNodesThatBootSayWhy(t *testing.T) {
	for want, declare := range map[string]func(*Topology, *Node){
		"":               func(*Topology, *Node) {},
		"declared so":    func(_ *Topology, n *Node) { n.Cold() },
		"not set up":     func(_ *Topology, n *Node) { n.NoSetup() },
		"no guest agent": func(_ *Topology, n *Node) { n.BootISO("/cd.iso") },
		"a screen":       func(_ *Topology, n *Node) { n.VNC(5901) },
		"state cannot be kept": func(_ *Topology, n *Node) {
			n.Component("vsock", propolis.VirtioSocket{GuestCID: 9, PCIPath: propolis.PCIPath{Device: 20}})
		},
		"more disks than its own": func(_ *Topology, n *Node) {
			n.Component("more", propolis.VirtioDisk{BackendID: "file", PCIPath: propolis.PCIPath{Device: 20}})
			n.Component("file", propolis.FileStorageBackend{Path: "/more.raw", BlockSize: 512})
		},
	} {
		topo := New("duo")
		n := topo.Node("a", "debian-12", 1, MiB(256))
		declare(topo, n)
		got := planned(t, topo, warmFacts()).Node("a").coldReason()
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("the reason is %q, want %q", got, want)
		}
	}
	topo := New("duo")
	topo.Node("a", "foreign", 1, MiB(256))
	if got := planned(t, topo, warmFacts()).Node("a").coldReason(); !strings.Contains(got, "agent") {
		t.Errorf("the reason of an image without an agent is %q", got)
	}
}

func TestACloneIsToldWhoItIs(t *testing.T) {
	np := &NodePlan{Name: "violin", Mounts: []MountPlan{{Mount: Mount{Source: "/x", Target: "/mnt"}, Tag: "mnt"}}}
	const id = "3f0c8a52-6b1e-4c0e-9a55-0d7f6a1f2b3c"
	one, two, cold := identity(np, id, true), identity(np, id, true), identity(np, id, false)
	for _, i := range []struct{ hostname, machine, tag string }{
		{one.Hostname, one.MachineID, one.Mounts[0].Tag}, {cold.Hostname, cold.MachineID, cold.Mounts[0].Tag},
	} {
		if i.hostname != "violin" || i.machine != "3f0c8a526b1e4c0e9a550d7f6a1f2b3c" || i.tag != "mnt" {
			t.Errorf("it is told %+v", i)
		}
	}
	if len(one.Entropy) != entropyBytes || string(one.Entropy) == string(two.Entropy) {
		t.Error("two clones get the same entropy")
	}
	if !one.SSHKeys || one.Time.IsZero() || cold.SSHKeys || !cold.Time.IsZero() || len(cold.Entropy) > 0 {
		t.Errorf("a clone is told %+v, a node that has booted %+v", one, cold)
	}
}
