package falcon

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/falcon-vm/falcon-go/propolis"
)

func TestBytesAreShownInWholeUnits(t *testing.T) {
	for want, b := range map[string]Bytes{
		"0 B": 0, "1023 B": 1023, "1 MiB": MiB(1), "1536 MiB": MiB(1536), "2 GiB": GiB(2),
		"1.5 MiB": 3 << 19, "1048575 B": 1<<20 - 1, "10.0 GiB": GiB(10) + 1, "1024 GiB": GiB(1024),
	} {
		if got := b.String(); got != want {
			t.Errorf("%d bytes are %q, want %q", uint64(b), got, want)
		}
	}
}

func TestDeclarationsChain(t *testing.T) {
	topo := New("duo")
	violin := node(topo, "violin")
	got := violin.DiskSize(GiB(8)).Backing(BackingFile).BootISO("boot.iso").VNC(5901).NoSetup().
		SMBIOS(propolis.SmbiosType1{Manufacturer: "falcon"}).Mount("cargo", "/opt").
		Component("panic", propolis.PVPanic{EnableISA: true})
	if got != violin {
		t.Error("a declaration returned another node")
	}
	l := topo.Link(violin, violin)
	if l.MTU(9000) != l || l.A.MAC("02:00:00:00:00:01") != l.A {
		t.Error("a declaration returned another link or end")
	}
	if err := topo.Validate(t.Context()); err != nil {
		t.Error(err)
	}
}

// A program goes on declaring after a mistake, and its author sees them all.
func TestDeclarationsChainAfterAMistake(t *testing.T) {
	topo := New("duo")
	violin := node(topo, "violin")
	l := topo.Link(violin, nil)
	l.MTU(1500).A.MAC("02:00:00:00:00:01")
	l.B.MAC("02:00:00:00:00:01") // on a link that does not exist
	violin.Mount("", "").ExtLink("").MTU(1500)
	if got := mistakes(t, topo); len(got) != 3 {
		t.Errorf("want the mistakes of link, mount and host interface: %q", got)
	}
	if n := len(violin.ends); n != 1 {
		t.Errorf("violin has %d interfaces, want the external one", n)
	}
}

func TestEndsAreNumberedInTheOrderOfTheirDeclaration(t *testing.T) {
	topo := New("trio")
	a, b := node(topo, "a"), node(topo, "b")
	ends := []*End{
		a.UserExtLink().A,
		topo.Link(a, b).A,
		topo.Link(a, a).A,
	}
	ends = append(ends, a.ends[3], topo.SoftNPULink(a, b).A, topo.SoftNPULinks(b, a).B,
		topo.SidecarLink(Sidecar{Switch: b, Driver: a, Radix: 2}).B, a.DefaultExtLink().A, a.ExtLink("igb0").A)
	for i, e := range ends {
		if e.Index() != i || e.Node() != a {
			t.Errorf("end %d is interface %d of node %s", i, e.Index(), e.Node().Name())
		}
	}
	if ends[2].peer() != ends[3] || ends[3].peer() != ends[2] {
		t.Error("the ends of a cable from a node to itself are not each other's peers")
	}
	var kinds []EndKind
	for _, e := range a.ends {
		kinds = append(kinds, e.kind)
	}
	want := []EndKind{EndNIC, EndNIC, EndNIC, EndNIC, EndSoftNPU, EndSoftNPU, EndSidecar, EndNIC, EndNIC}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Errorf("kinds of ends (-want +got):\n%s", diff)
	}
}

func TestSidecarLinksHaveTodaysHeaderUnlessToldOtherwise(t *testing.T) {
	topo := New("duo")
	a, b := node(topo, "a"), node(topo, "b")
	for header, want := range map[SidecarHeader]SidecarHeader{0: SidecarHeader24, 23: SidecarHeader23, 24: SidecarHeader24} {
		l := topo.SidecarLink(Sidecar{Switch: a, Driver: b, Radix: 3, Header: header})
		if l.sidecar != want || l.B.radix != 3 || l.A.radix != 0 {
			t.Errorf("header %d: it has %d bytes and radixes %d and %d", header, l.sidecar, l.A.radix, l.B.radix)
		}
	}
}

func TestLookupFindsDeclaredNodes(t *testing.T) {
	topo := New("duo")
	violin, piano := node(topo, "violin"), node(topo, "piano")
	if topo.Lookup("piano") != piano || topo.Lookup("Piano") != nil || topo.Lookup("") != nil {
		t.Error("Lookup found another node")
	}
	nodes := topo.Nodes()
	if len(nodes) != 2 || nodes[0] != violin || nodes[1] != piano {
		t.Errorf("the nodes are %v", nodes)
	}
	nodes[0] = nil // the caller's own
	if topo.Nodes()[0] != violin {
		t.Error("a caller changed the topology's list of nodes")
	}
}
