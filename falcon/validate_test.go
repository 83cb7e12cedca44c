package falcon

import (
	"errors"
	"strings"
	"testing"

	"github.com/falcon-vm/falcon-go/propolis"
)

// node declares a node that nothing is wrong with.
func node(t *Topology, name string) *Node { return t.Node(name, "debian-12", 1, GiB(1)) }

// mistakes returns what Validate lists.
func mistakes(t *testing.T, topo *Topology) []string {
	t.Helper()
	err := topo.Validate(t.Context())
	if err == nil {
		return nil
	}
	var invalid *invalidError
	if !errors.Is(err, ErrInvalid) || !errors.As(err, &invalid) {
		t.Fatalf("%v does not wrap ErrInvalid", err)
	}
	var texts []string
	for _, e := range invalid.errs.Errors {
		texts = append(texts, e.Error())
		if n := strings.Count(err.Error(), e.Error()); n != 1 {
			t.Errorf("the error lists %q %d times:\n%v", e, n, err)
		}
	}
	return texts
}

func TestValidateRefuses(t *testing.T) {
	long := strings.Repeat("n", MaxName+1)
	foreign := node(New("other"), "stranger")
	isolated := func(f func(n *Node)) func(*Topology) {
		return func(topo *Topology) { f(node(topo, "violin")) }
	}
	linked := func(f func(l *Link)) func(*Topology) {
		return func(topo *Topology) { f(topo.Link(node(topo, "violin"), node(topo, "piano"))) }
	}
	sized := func(cores int, memory Bytes) func(*Topology) {
		return func(topo *Topology) { topo.Node("violin", "debian-12", cores, memory) }
	}
	named := func(name string) func(*Topology) { return func(topo *Topology) { node(topo, name) } }
	nvme := propolis.NVMeDisk{PCIPath: propolis.PCIPath{Device: 16}}

	for name, c := range map[string]struct {
		declare func(*Topology)
		want    []string // what each mistake says
	}{
		"empty node name":              {named(""), []string{"a node has an empty name"}},
		"node name of a digit":         {named("1violin"), []string{`node name "1violin" is not a letter followed`}},
		"node name with a dash":        {named("vio-lin"), []string{`node name "vio-lin" is not a letter`}},
		"node name with a slash":       {named("../violin"), []string{`node name "../violin" is not a letter`}},
		"node name with a newline":     {named("violin\n"), []string{`node name "violin\n" is not a letter`}},
		"node name that is not ASCII":  {named("Flöte"), []string{`node name "Flöte" is not a letter`}},
		"node name that is too long":   {named(long), []string{`has 33 bytes, at most 32 are allowed`}},
		"node name of an underscore":   {named("_violin"), []string{`node name "_violin" is not a letter`}},
		"node name twice":              {func(topo *Topology) { node(topo, "violin"); node(topo, "violin") }, []string{"node violin: declared twice"}},
		"no image":                     {func(topo *Topology) { topo.Node("violin", "", 1, GiB(1)) }, []string{"node violin: no image is named"}},
		"no cores":                     {sized(0, GiB(1)), []string{"node violin: 0 cores are not within 1 to 255"}},
		"negative cores":               {sized(-1, GiB(1)), []string{"-1 cores"}},
		"more cores than the API has":  {sized(256, GiB(1)), []string{"256 cores are not within 1 to 255"}},
		"no memory":                    {sized(1, 0), []string{"memory of 0 B is not within 32 MiB to 16384 GiB"}},
		"too little memory":            {sized(1, MinMemory-1<<20), []string{"memory of 31 MiB is not within"}},
		"memory beyond any host":       {sized(1, MaxMemory+1<<20), []string{"is not within 32 MiB to 16384 GiB"}},
		"memory of half a MiB":         {sized(1, GiB(1)+512<<10), []string{"memory of 1074266112 bytes is not whole MiB"}},
		"disk beyond any host":         {isolated(func(n *Node) { n.DiskSize(maxDisk + 1) }), []string{"is more than 65536 GiB"}},
		"unknown backing":              {isolated(func(n *Node) { n.Backing("tape") }), []string{`unknown disk backing "tape"`}},
		"low VNC port":                 {isolated(func(n *Node) { n.VNC(80) }), []string{"VNC port 80 is not within 5900 to 65535"}},
		"high VNC port":                {isolated(func(n *Node) { n.VNC(65536) }), []string{"VNC port 65536"}},
		"VNC port twice":               {func(topo *Topology) { node(topo, "violin").VNC(5900); node(topo, "piano").VNC(5900) }, []string{"node piano: VNC port 5900 is also that of node violin"}},
		"mount without a source":       {isolated(func(n *Node) { n.Mount("", "/mnt") }), []string{"a mount has no source folder"}},
		"mount target empty":           {isolated(func(n *Node) { n.Mount("cargo", "") }), []string{`mount target "" is not a clean absolute path`}},
		"mount target relative":        {isolated(func(n *Node) { n.Mount("cargo", "mnt") }), []string{`mount target "mnt" is not a clean absolute path`}},
		"mount target unclean":         {isolated(func(n *Node) { n.Mount("cargo", "/mnt/../etc") }), []string{`mount target "/mnt/../etc"`}},
		"mount target with a slash":    {isolated(func(n *Node) { n.Mount("cargo", "/mnt/") }), []string{`mount target "/mnt/"`}},
		"mount target the root":        {isolated(func(n *Node) { n.Mount("cargo", "/") }), []string{`mount target "/" is not`}},
		"mount target twice":           {isolated(func(n *Node) { n.Mount("a", "/mnt").Mount("b", "/mnt") }), []string{"two mounts have the target /mnt"}},
		"component without a name":     {isolated(func(n *Node) { n.Component("", nvme) }), []string{"a component has no name"}},
		"component that is nil":        {isolated(func(n *Node) { n.Component("data", nil) }), []string{`component "data" is nil`}},
		"component that is a pointer":  {isolated(func(n *Node) { n.Component("data", &nvme) }), []string{`component "data" is a pointer`}},
		"component twice":              {isolated(func(n *Node) { n.Component("data", nvme).Component("data", nvme) }), []string{`component "data" is declared twice`}},
		"link to another topology":     {func(topo *Topology) { topo.Link(node(topo, "violin"), foreign) }, []string{"a link from violin to stranger: node stranger belongs to topology other, not to duo"}},
		"link from another topology":   {func(topo *Topology) { topo.SoftNPULink(foreign, node(topo, "violin")) }, []string{"a link from stranger to violin: node stranger belongs"}},
		"link of strangers":            {func(topo *Topology) { topo.SoftNPULinks(foreign, foreign) }, []string{"node stranger belongs to topology other"}},
		"link from nothing":            {func(topo *Topology) { topo.Link(nil, node(topo, "violin")) }, []string{"a link has a nil node at one end"}},
		"link to nothing":              {func(topo *Topology) { topo.Link(node(topo, "violin"), nil) }, []string{"a link has a nil node at one end"}},
		"link from a stranger nowhere": {func(topo *Topology) { topo.Link(foreign, nil) }, []string{"a link from stranger to nothing"}},
		"MTU too small":                {linked(func(l *Link) { l.MTU(67) }), []string{"node violin: link MTU 67 is not within 68 to 9216"}},
		"MTU zero":                     {linked(func(l *Link) { l.MTU(0) }), []string{"link MTU 0 is not within"}},
		"MTU too large":                {linked(func(l *Link) { l.MTU(MaxMTU + 1) }), []string{"link MTU 9217 is not within"}},
		"MAC of no bytes":              {linked(func(l *Link) { l.A.MAC("") }), []string{`node violin: MAC address "" is not six bytes`}},
		"MAC of five bytes":            {linked(func(l *Link) { l.B.MAC("02:00:00:00:01") }), []string{`node piano: MAC address "02:00:00:00:01" is not six bytes`}},
		"MAC of eight bytes":           {linked(func(l *Link) { l.B.MAC("02:00:00:00:00:00:00:01") }), []string{"is not six bytes"}},
		"MAC of other characters":      {linked(func(l *Link) { l.A.MAC("02:00:00:00:00:0g") }), []string{"is not six bytes"}},
		"MAC multicast":                {linked(func(l *Link) { l.A.MAC("01:80:c2:00:00:0e") }), []string{"01:80:c2:00:00:0e is a multicast address"}},
		"MAC broadcast":                {linked(func(l *Link) { l.A.MAC("ff:ff:ff:ff:ff:ff") }), []string{"ff:ff:ff:ff:ff:ff is a multicast address"}},
		"MAC all zero":                 {linked(func(l *Link) { l.A.MAC("00:00:00:00:00:00") }), []string{"MAC address 00:00:00:00:00:00 is all zero"}},
		"MAC twice on a link": {linked(func(l *Link) { l.A.MAC("02:00:00:00:00:01"); l.B.MAC("02:00:00:00:00:01") }),
			[]string{"node piano: MAC address 02:00:00:00:00:01 of interface 0 is also that of node violin, interface 0"}},
		"MAC twice in capitals": {linked(func(l *Link) { l.A.MAC("02:00:00:00:00:ab"); l.B.MAC("02:00:00:00:00:AB") }),
			[]string{"MAC address 02:00:00:00:00:ab of interface 0 is also that of node violin"}},
		"MAC twice with dashes": {linked(func(l *Link) { l.A.MAC("02-00-00-00-00-01"); l.B.MAC("0200.0000.0001") }),
			[]string{"MAC address 02:00:00:00:00:01 of interface 0 is also that"}},
		"host interface without a name":  {isolated(func(n *Node) { n.ExtLink("") }), []string{`"" is not the name of a host interface`}},
		"host interface that is a path":  {isolated(func(n *Node) { n.ExtLink("..") }), []string{`".." is not the name of a host interface`}},
		"host interface with a question": {isolated(func(n *Node) { n.ExtLinkExclusive("igb0?mac=1") }), []string{`"igb0?mac=1" is not the name`}},
		"host interface that is too long": {isolated(func(n *Node) { n.ExtLink(strings.Repeat("i", 32)) }),
			[]string{"is not the name of a host interface"}},
		"host interface exclusive, then shared": {func(topo *Topology) {
			node(topo, "violin").ExtLinkExclusive("igb0")
			node(topo, "piano").ExtLink("igb0")
		},
			[]string{"node violin: interface 0 wants host interface igb0 exclusively, and interface 0 of node piano uses it too"}},
		"host interface shared, then exclusive": {func(topo *Topology) {
			node(topo, "violin").ExtLink("igb0")
			node(topo, "piano").ExtLinkExclusive("igb0")
		},
			[]string{"node piano: interface 0 wants host interface igb0 exclusively, and interface 0 of node violin uses it too"}},
		"host interface exclusive three times": {isolated(func(n *Node) { n.ExtLinkExclusive("igb0"); n.ExtLinkExclusive("igb0"); n.ExtLinkExclusive("igb0") }),
			[]string{"interface 1 wants", "interface 2 wants", "interface 2 wants"}},
		"sidecar link without ports": {func(topo *Topology) {
			topo.SidecarLink(Sidecar{Switch: node(topo, "violin"), Driver: node(topo, "piano")})
		}, []string{"radix 0 is not within 1 to 64"}},
		"sidecar link with many ports": {func(topo *Topology) {
			topo.SidecarLink(Sidecar{Switch: node(topo, "violin"), Driver: node(topo, "piano"), Radix: 65})
		}, []string{"radix 65 is not within 1 to 64"}},
		"sidecar link with another header": {func(topo *Topology) {
			topo.SidecarLink(Sidecar{Switch: node(topo, "violin"), Driver: node(topo, "piano"), Radix: 1, Header: 22})
		}, []string{"sidecar link: header of 22 bytes, want 23 or 24"}},
		"sidecar link to nothing": {func(topo *Topology) {
			topo.SidecarLink(Sidecar{Switch: node(topo, "violin"), Radix: 1}).MTU(1500)
		}, []string{"a link has a nil node at one end"}},
	} {
		t.Run(name, func(t *testing.T) {
			topo := New("duo")
			c.declare(topo)
			got := mistakes(t, topo)
			if len(got) != len(c.want) {
				t.Fatalf("it lists %d mistakes, want %d: %q", len(got), len(c.want), got)
			}
			for i := range got {
				if !strings.Contains(got[i], c.want[i]) {
					t.Errorf("it says %q, want %q", got[i], c.want[i])
				}
			}
		})
	}
}

func TestValidateRefusesTopologyNames(t *testing.T) {
	for _, name := range []string{"", "9", "duo-1", "duo.1", "duo 1", "_duo", strings.Repeat("d", MaxName+1)} {
		if got := mistakes(t, New(name)); len(got) != 1 || !strings.Contains(got[0], "topology") {
			t.Errorf("topology %q: %q, want one mistake about its name", name, got)
		}
	}
}

func TestValidateListsEveryMistake(t *testing.T) {
	topo := New("7")
	violin := topo.Node("violin", "", 0, 1)
	violin.Mount("cargo", "relative").VNC(1).Backing("tape")
	topo.Link(violin, nil).MTU(1)
	violin.ExtLinkExclusive("igb0").A.MAC("01:00:00:00:00:00")
	violin.ExtLink("igb0")
	want := []string{
		`topology name "7"`, "no image", "0 cores", "memory of 1 B", `mount target "relative"`, "VNC port 1 ",
		"nil node", "link MTU 1 ", "multicast", `backing "tape"`, "exclusively",
	}
	got := mistakes(t, topo)
	if len(got) != len(want) {
		t.Errorf("it lists %d mistakes, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i, w := range want {
		if i < len(got) && !strings.Contains(got[i], w) {
			t.Errorf("mistake %d is %q, want %q", i, got[i], w)
		}
	}
	err := topo.Validate(t.Context())
	if !strings.HasPrefix(err.Error(), "11 problems:\n  - ") {
		t.Errorf("the error begins %.40q", err)
	}
	var nodeErr *NodeError
	if !errors.As(err, &nodeErr) || nodeErr.Node != "violin" {
		t.Errorf("a caller finds the node error %v in it", nodeErr)
	}
	if again := topo.Validate(t.Context()); again.Error() != err.Error() {
		t.Errorf("asked again it says\n%v\nand not\n%v", again, err)
	}
}

func TestAMistakeIsRefusedBeforeAnythingIsMade(t *testing.T) {
	dir := t.TempDir() + "/state"
	for name, act := range map[string]func(*Topology) error{
		"launch":    func(topo *Topology) error { return topo.Launch(t.Context()) },
		"netcreate": func(topo *Topology) error { return topo.NetCreate(t.Context()) },
		"plan":      func(topo *Topology) error { _, err := topo.Plan(t.Context()); return err },
		"preflight": func(topo *Topology) error { _, err := topo.Preflight(t.Context()); return err },
		"status":    func(topo *Topology) error { _, err := topo.Status(t.Context()); return err },
	} {
		topo := New("duo")
		topo.Dir = dir
		node(topo, "not a name")
		if err := act(topo); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if fileExists(dir) {
		t.Error("the state folder was made")
	}
}

func TestValidateAcceptsTheLimits(t *testing.T) {
	topo := New(strings.Repeat("T", MaxName))
	a := topo.Node("a", "x", 1, MinMemory).VNC(5900).DiskSize(maxDisk).Backing(BackingZvol)
	b := topo.Node(strings.Repeat("b", MaxName), "x", MaxCores, MaxMemory).VNC(65535).Backing(BackingFile)
	topo.Node("A", "x", 1, GiB(1)).Mount("a", "/mnt").Mount("a", "/mnt/b")
	topo.Link(a, a).MTU(68)
	topo.Link(a, b).MTU(MaxMTU).A.MAC("FE-ff-ff-ff-ff-ff")
	topo.SidecarLink(Sidecar{Switch: a, Driver: b, Radix: 64, Header: SidecarHeader23})
	a.ExtLinkExclusive("igb0")
	a.ExtLinkExclusive(strings.Repeat("i", 31))
	for _, n := range []*Node{a, b} { // shared by many, and nobody's
		n.ExtLink("eth0.100")
		n.DefaultExtLink()
		n.UserExtLink()
	}
	if err := topo.Validate(t.Context()); err != nil {
		t.Error(err)
	}
}
