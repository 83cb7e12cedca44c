package falcon

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/propolis"
)

var update = flag.Bool("update", false, "write the golden files anew")

// fakeFabric names things so that a reader sees what went in.
type fakeFabric struct{}

func (fakeFabric) name() string      { return "fake" }
func (fakeFabric) namespace() string { return "falcon-duo" }

func (fakeFabric) device(full, _ string, _ int, external bool) string {
	if external {
		return "host:" + full
	}
	return "dev:" + full
}

func (fakeFabric) vnic(self, peer *InterfacePlan) string {
	name := fmt.Sprintf("dgram:%s?mac=%s", self.Name, self.MAC)
	if peer != nil {
		name += "&peer=" + peer.Device
	}
	return name
}

// plainFabric names backends as falcon on illumos does.
type plainFabric struct{ fakeFabric }

func (plainFabric) vnic(self, _ *InterfacePlan) string { return self.Name }

// factsOf are those of a host that can do everything.
func factsOf(fabric fabricNames) facts {
	return facts{
		fabric: fabric,
		images: map[string]image.Image{
			"debian-12": {
				Name: "debian-12", VirtualSize: 4 << 30, OS: "debian-12",
				Boot:    image.Boot{Method: image.BootKernel, Kernel: "/img/debian-12/vmlinux", Initrd: "/img/debian-12/initrd", Append: "root=/dev/vda"},
				Console: image.Console{Known: true, Login: "login:", User: "root", Prompt: `# $`},
			},
			"foreign": {Name: "foreign", VirtualSize: 1 << 30, Boot: image.Boot{Method: image.BootUEFI}},
		},
		diskPath:         func(n *Node) string { return "/topo/duo/" + n.name + ".qcow2" },
		workDir:          "/home/alice/lab",
		defaultInterface: "eth0",
	}
}

// planned plans a topology that must be valid.
func planned(t testing.TB, topo *Topology, f facts) *Plan {
	t.Helper()
	if err := topo.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	p, err := plan(topo, f)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func indented(t testing.TB, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestPlanOfAWholeTopology(t *testing.T) {
	topo := New("duo")
	violin := topo.Node("violin", "debian-12", 2, GiB(2))
	piano := topo.Node("piano", "debian-12", 1, MiB(512))
	violin.Mount("./cargo-bay", "/opt/cargo-bay").Mount("/srv/a", "/a/mount/target/that/is/longer/than/a/tag")
	violin.SMBIOS(propolis.SmbiosType1{Manufacturer: "falcon", ProductName: "violin", SerialNumber: "1", Version: 2})
	violin.Component("data", propolis.NVMeDisk{BackendID: "data_backing", PCIPath: propolis.PCIPath{Device: 6}, SerialNumber: propolis.NewNVMeSerial("d0")})
	violin.Component("data_backing", propolis.FileStorageBackend{Path: "/srv/data.img", BlockSize: 4096})
	piano.BootISO("media/boot.iso").DiskSize(GiB(20)).VNC(5901).VNCPassword("media/password")
	topo.Link(violin, piano)
	topo.SoftNPULink(violin, piano).MTU(9000)
	topo.SidecarLink(Sidecar{Switch: violin, Driver: piano, Radix: 2})
	topo.Link(violin, violin).A.MAC("A8-40-25-00-00-01")
	violin.ExtLink("igb0")
	violin.ExtLinkExclusive("igb1")
	violin.DefaultExtLink().MTU(1400)
	piano.UserExtLink()

	got := indented(t, planned(t, topo, factsOf(fakeFabric{})))
	golden := filepath.Join("testdata", "plan_duo.json")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("plan (-want +got), -update writes it anew:\n%s", diff)
	}
}

// upstreamSpec is what falcon on illumos sends for a node with one disk, one
// mount, one link between interfaces and one to its SoftNPU ASIC.
const upstreamSpec = `{
 "board":{"cpus":2,"memory_mb":2048,"chipset":{"type":"i440_fx","value":{"enable_pcie":false}}},
 "components":{
  "com1":{"type":"serial_port","component":{"num":"com1"}},
  "com2":{"type":"serial_port","component":{"num":"com2"}},
  "com3":{"type":"serial_port","component":{"num":"com3"}},
  "fs0":{"type":"p9fs","component":{"source":"/abs/cargo-bay","target":"/opt/cargo-bay","chunk_size":65536,"pci_path":{"bus":0,"device":5,"function":0}}},
  "main_disk":{"type":"virtio_disk","component":{"backend_id":"main_disk_backing","pci_path":{"bus":0,"device":4,"function":0}}},
  "main_disk_backing":{"type":"file_storage_backend","component":{"path":"/dev/zvol/rdsk/rpool/falcon/topo/duo/violin","readonly":false,"block_size":512,"workers":null}},
  "net0":{"type":"virtio_nic","component":{"backend_id":"net0-backing","interface_id":"-","pci_path":{"bus":0,"device":8,"function":0}}},
  "net0-backing":{"type":"virtio_network_backend","component":{"vnic_name":"duo_violin_vn_vnic0"}},
  "softnpu-p9":{"type":"soft_npu_p9","component":{"pci_path":{"bus":0,"device":6,"function":0}}},
  "softnpu-pci-port":{"type":"soft_npu_pci_port","component":{"pci_path":{"bus":0,"device":7,"function":0}}},
  "softnpu0-backing":{"type":"dlpi_network_backend","component":{"vnic_name":"duo_violin_sn_vnic1"}},
  "softnpu0-port":{"type":"soft_npu_port","component":{"link_name":"softnpu0","backend_id":"softnpu0-backing"}}},
 "smbios":null}`

func TestSpecIsWhatUpstreamSends(t *testing.T) {
	topo := New("duo")
	violin := topo.Node("violin", "debian-12", 2, GiB(2)).Mount("/abs/cargo-bay", "/opt/cargo-bay")
	piano := node(topo, "piano")
	topo.Link(violin, piano)
	topo.SoftNPULink(violin, piano)
	f := factsOf(plainFabric{})
	f.diskPath = func(n *Node) string { return "/dev/zvol/rdsk/rpool/falcon/topo/duo/" + n.name }
	f.hostLimits = illumosLimits
	spec := planned(t, topo, f).Node("violin").Spec

	nic := spec.Components["net0"].(propolis.VirtioNIC)
	if _, err := uuid.Parse(nic.InterfaceID); err != nil {
		t.Errorf("interface_id: %v", err)
	}
	nic.InterfaceID = "-"
	spec.Components["net0"] = nic
	var got, want any
	if err := errors.Join(json.Unmarshal(indented(t, spec), &got), json.Unmarshal([]byte(upstreamSpec), &want)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("spec (-upstream +got):\n%s", diff)
	}
}

// slots returns the PCI paths of components by their names.
func slots(spec propolis.InstanceSpec) map[string]string {
	paths := make(map[string]string)
	for name, c := range spec.Components {
		if path, ok := propolis.PathOf(c); ok {
			paths[name] = path.String()
		}
	}
	return paths
}

func TestDevicesStandInUpstreamsOrder(t *testing.T) {
	topo := New("duo")
	violin := node(topo, "violin").Mount("a", "/a").Mount("b", "/b").BootISO("boot.iso")
	violin.Component("data", propolis.NVMeDisk{PCIPath: propolis.PCIPath{Device: 7}})
	violin.Component("far", propolis.NVMeDisk{PCIPath: propolis.PCIPath{Bus: 1, Device: 4}})
	violin.UserExtLink()
	topo.SoftNPULink(violin, violin)
	p := planned(t, topo, factsOf(fakeFabric{})).Node("violin")
	want := map[string]string{
		"main_disk": "0.4.0", "boot_iso": "0.5.0", "fs0": "0.6.0", "data": "0.7.0", "fs1": "0.8.0",
		"softnpu-p9": "0.9.0", "softnpu-pci-port": "0.10.0", "net0": "0.11.0", "net1": "0.12.0", "far": "1.4.0",
	}
	if diff := cmp.Diff(want, slots(p.Spec)); diff != "" {
		t.Errorf("PCI paths (-want +got):\n%s", diff)
	}
	for i, want := range []string{"0.11.0", "", "0.12.0"} {
		if got := p.Interfaces[i].Slot; got != want {
			t.Errorf("interface %d is noted at %q, want %q", i, got, want)
		}
	}
	if _, there := p.Spec.Components["softnpu0-port"]; !there {
		t.Error("interface 1 is no port of the ASIC")
	}
}

func TestBootISOIsFirstInBootOrderAndBootedByFirmware(t *testing.T) {
	topo := New("solo")
	node(topo, "kernel").BootISO("boot.iso")
	topo.Node("uefi", "foreign", 1, GiB(1)).BootISO("/media/boot.iso")
	node(topo, "disk")
	p := planned(t, topo, factsOf(fakeFabric{}))
	for _, c := range []struct{ node, path, method string }{
		{"kernel", "/home/alice/lab/boot.iso", image.BootBIOS}, {"uefi", "/media/boot.iso", image.BootUEFI},
	} {
		n := p.Node(c.node)
		if diff := cmp.Diff(image.Boot{Method: c.method}, n.Boot); diff != "" {
			t.Errorf("%s starts (-want +got):\n%s", c.node, diff)
		}
		if n.Setup {
			t.Errorf("%s would be logged in to, and what it boots is not known", c.node)
		}
		want := propolis.FileStorageBackend{Path: c.path, Readonly: true, BlockSize: 2048}
		if diff := cmp.Diff(propolis.Component(want), n.Spec.Components["boot_iso_backing"]); diff != "" {
			t.Errorf("%s: backend (-want +got):\n%s", c.node, diff)
		}
		order := propolis.BootSettings{Order: []propolis.BootOrderEntry{{ID: "boot_iso"}, {ID: "main_disk"}}}
		if diff := cmp.Diff(propolis.Component(order), n.Spec.Components["boot_iso_first"]); diff != "" {
			t.Errorf("%s: boot order (-want +got):\n%s", c.node, diff)
		}
	}
	if n := p.Node("disk"); n.Boot.Method != image.BootKernel || !n.Setup {
		t.Errorf("a node without an ISO is started by %q, set-up %v", n.Boot.Method, n.Setup)
	}
}

func TestSetupNeedsAKnownLoginAndConsent(t *testing.T) {
	topo := New("trio")
	node(topo, "known")
	node(topo, "unwilling").NoSetup()
	topo.Node("unknown", "foreign", 1, GiB(1))
	p := planned(t, topo, factsOf(fakeFabric{}))
	for name, want := range map[string]bool{"known": true, "unwilling": false, "unknown": false} {
		if got := p.Node(name).Setup; got != want {
			t.Errorf("set-up of %s: %v, want %v", name, got, want)
		}
	}
}

func TestPlanRefuses(t *testing.T) {
	at := func(device, function uint8) propolis.NVMeDisk {
		return propolis.NVMeDisk{PCIPath: propolis.PCIPath{Device: device, Function: function}}
	}
	for name, c := range map[string]struct {
		declare func(*Topology, *Node)
		want    string
		is      error
	}{
		"unknown image":                  {func(topo *Topology, _ *Node) { topo.Node("piano", "plan9", 1, GiB(1)) }, `falcon image import FILE plan9`, image.ErrNotFound},
		"disk smaller than its image":    {func(_ *Topology, n *Node) { n.DiskSize(GiB(4) - 512) }, "is smaller than its image debian-12, which has 4 GiB", ErrInvalid},
		"disk of half a sector":          {func(_ *Topology, n *Node) { n.DiskSize(GiB(4) + 256) }, "is not whole sectors", ErrInvalid},
		"component with falcon's name":   {func(_ *Topology, n *Node) { n.Component("com1", propolis.PVPanic{}) }, `component "com1" is one of falcon's own`, ErrInvalid},
		"component with a link's name":   {func(topo *Topology, n *Node) { topo.Link(n, n); n.Component("net1-backing", propolis.PVPanic{}) }, `component "net1-backing" is one of falcon's own`, ErrInvalid},
		"component at the disk's slot":   {func(_ *Topology, n *Node) { n.Component("data", at(4, 0)) }, `"data" is at PCI slot 0.4.0, which is the main disk's`, ErrInvalid},
		"component beside the disk":      {func(_ *Topology, n *Node) { n.Component("data", at(4, 1)) }, `main disk's`, ErrInvalid},
		"component at the host bridge":   {func(_ *Topology, n *Node) { n.Component("data", at(0, 0)) }, `"data" is at PCI slot 0.0.0, which is the chipset's`, ErrInvalid},
		"component at the PIIX3":         {func(_ *Topology, n *Node) { n.Component("data", at(1, 3)) }, `which is the chipset's`, ErrInvalid},
		"component beyond the bus":       {func(_ *Topology, n *Node) { n.Component("data", at(32, 0)) }, `0.32.0, which there is not`, ErrInvalid},
		"component beyond the slot":      {func(_ *Topology, n *Node) { n.Component("data", at(16, 8)) }, `0.16.8, which there is not`, ErrInvalid},
		"components at one PCI path":     {func(_ *Topology, n *Node) { n.Component("a", at(16, 1)).Component("b", at(16, 1)) }, `components "a" and "b" are both at PCI path 0.16.1`, ErrInvalid},
		"more mounts than slots":         {mounts(28), "28 devices and 0 interfaces do not fit into the 27 PCI slots that are free", ErrInvalid},
		"no slot is left for interfaces": {func(topo *Topology, n *Node) { mounts(27)(topo, n); n.UserExtLink() }, "27 devices and 1 interfaces do not fit", ErrInvalid},
		"more interfaces than functions": {externals(27*8 + 1), "0 devices and 217 interfaces do not fit", ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			topo := New("duo")
			c.declare(topo, node(topo, "violin"))
			if err := topo.Validate(t.Context()); err != nil {
				t.Fatal(err)
			}
			p, err := plan(topo, factsOf(fakeFabric{}))
			if err == nil {
				t.Fatalf("it was planned:\n%s", indented(t, p))
			}
			var nodeErr *NodeError
			if !strings.Contains(err.Error(), c.want) || !errors.Is(err, c.is) || !errors.As(err, &nodeErr) {
				t.Errorf("%v: want %q of a node, wrapping %v", err, c.want, c.is)
			}
		})
	}
}

func mounts(n int) func(*Topology, *Node) {
	return func(_ *Topology, node *Node) {
		for i := range n {
			node.Mount("cargo", fmt.Sprint("/mnt/", i))
		}
	}
}

func externals(n int) func(*Topology, *Node) {
	return func(_ *Topology, node *Node) {
		for range n {
			node.UserExtLink()
		}
	}
}

func TestComponentsMayShareASlotThatNothingElseGets(t *testing.T) {
	topo := New("solo")
	n := node(topo, "violin")
	for f := range uint8(8) {
		n.Component(fmt.Sprint("data", f), propolis.NVMeDisk{PCIPath: propolis.PCIPath{Device: 5, Function: f}})
	}
	n.UserExtLink()
	if got := planned(t, topo, factsOf(fakeFabric{})).Node("violin").Interfaces[0].Slot; got != "0.6.0" {
		t.Errorf("the interface is at %s, want the next slot, 0.6.0", got)
	}
}

func TestManyInterfacesShareSlotsInTheirOrder(t *testing.T) {
	for _, c := range []struct {
		mounts, nics int
		last         string
	}{
		{0, 27, "0.31.0"}, {0, 28, "0.18.1"}, {0, 54, "0.31.1"}, {0, 55, "0.23.0"}, {0, 216, "0.31.7"},
		{26, 8, "0.31.7"}, {20, 8, "0.28.1"},
	} {
		topo := New("solo")
		n := node(topo, "violin")
		mounts(c.mounts)(topo, n)
		externals(c.nics)(topo, n)
		p := planned(t, topo, factsOf(fakeFabric{})).Node("violin")
		var paths []propolis.PCIPath
		functions := make(map[uint8][]uint8)
		for i := range p.Interfaces {
			path, _ := propolis.PathOf(p.Spec.Components[fmt.Sprint("net", i)])
			if path.String() != p.Interfaces[i].Slot {
				t.Errorf("interface %d is noted at %s and is at %s", i, p.Interfaces[i].Slot, path)
			}
			paths = append(paths, path)
			functions[path.Device] = append(functions[path.Device], path.Function)
		}
		if !slices.IsSortedFunc(paths, comparePaths) || paths[len(paths)-1].String() != c.last {
			t.Errorf("%d mounts, %d interfaces: PCI paths %v, want them in order to %s", c.mounts, c.nics, paths, c.last)
		}
		for slot, used := range functions { // a guest looks no further without function 0
			if used[0] != 0 {
				t.Errorf("slot %d has functions %v", slot, used)
			}
		}
	}
}

func comparePaths(a, b propolis.PCIPath) int {
	return bytes.Compare([]byte{a.Bus, a.Device, a.Function}, []byte{b.Bus, b.Device, b.Function})
}

func TestMountTagsFitTheirLimit(t *testing.T) {
	topo := New("solo")
	n := node(topo, "violin")
	exact, long := "/"+strings.Repeat("x", maxTag-1), "/"+strings.Repeat("y", maxTag)
	n.Mount("../cargo", exact).Mount("/srv/./a", long).Mount("b", long+"z")
	p := planned(t, topo, factsOf(fakeFabric{})).Node("violin")
	want := []MountPlan{
		{Mount{"/home/alice/cargo", exact}, exact}, {Mount{"/srv/a", long}, "fs1"}, {Mount{"/home/alice/lab/b", long + "z"}, "fs2"},
	}
	if diff := cmp.Diff(want, p.Mounts); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	for i, m := range want {
		fs := p.Spec.Components[fmt.Sprint("fs", i)].(propolis.P9FS)
		if fs.Source != m.Source || fs.Target != m.Tag {
			t.Errorf("fs%d shares %s as %s, want %s as %s", i, fs.Source, fs.Target, m.Source, m.Tag)
		}
	}
}

// macsOf returns the addresses of all interfaces by their full names.
func macsOf(p *Plan) map[string]string {
	macs := make(map[string]string)
	for _, n := range p.Nodes {
		for _, i := range n.Interfaces {
			macs[i.Name] = i.MAC
		}
	}
	return macs
}

func TestDerivedMACsAreUnicastAndLocal(t *testing.T) {
	topo := New("duo")
	a, b := node(topo, "a"), node(topo, "b")
	for range 100 {
		topo.Link(a, b)
	}
	for name, mac := range macsOf(planned(t, topo, factsOf(fakeFabric{}))) {
		hw, err := net.ParseMAC(mac)
		if err != nil || len(hw) != 6 || hw[0]&1 != 0 || hw[0]&2 == 0 || hw.String() != mac {
			t.Errorf("%s has %q (%v)", name, mac, err)
		}
	}
}

func TestDerivedMACsStayWhenOthersAreDeclared(t *testing.T) {
	// The names of nodes in a derivation must not be taken for words of it.
	for _, peer := range []string{"piano", "external", "user"} {
		alone := New("duo")
		alone.Link(node(alone, "violin"), node(alone, peer))
		before := planned(t, alone, factsOf(fakeFabric{}))

		topo := New("duo")
		drum, violin, other := node(topo, "drum"), node(topo, "violin"), node(topo, peer)
		topo.Link(drum, violin)
		violin.UserExtLink()
		violin.ExtLink("igb0")
		topo.Link(violin, violin).A.MAC("02:00:00:00:00:01")
		other.DefaultExtLink()
		link := topo.Link(violin, other).MTU(9000)
		topo.Link(violin, other)
		after := planned(t, topo, factsOf(fakeFabric{}))

		for _, end := range []struct {
			node  string
			index int
		}{{"violin", link.A.index}, {peer, link.B.index}} {
			was, is := before.Node(end.node).Interfaces[0].MAC, after.Node(end.node).Interfaces[end.index].MAC
			if was != is {
				t.Errorf("link to %s: %s had %s and has %s", peer, end.node, was, is)
			}
		}
	}
}

func TestDerivedMACsOfAnotherTopologyAreSkipped(t *testing.T) {
	declare := func() *Topology {
		topo := New("duo")
		topo.Link(node(topo, "violin"), node(topo, "piano"))
		return topo
	}
	f := factsOf(fakeFabric{})
	f.takenMACs = make(map[string]bool)
	seen := make(map[string]bool)
	for range 3 { // each finds the addresses of those before
		p := planned(t, declare(), f)
		if diff := cmp.Diff(p, planned(t, declare(), f), cmp.AllowUnexported(InterfacePlan{})); diff != "" {
			t.Fatalf("two plans differ:\n%s", diff)
		}
		for name, mac := range macsOf(p) {
			if seen[mac] {
				t.Errorf("%s has %s, which is taken", name, mac)
			}
			seen[mac], f.takenMACs[mac] = true, true
		}
	}
}

func TestRecordedMACsAreKept(t *testing.T) {
	topo := New("duo")
	violin, piano := node(topo, "violin"), node(topo, "piano")
	l := topo.Link(violin, piano)
	topo.Link(violin, piano).A.MAC("02:00:00:00:00:0A")
	first := planned(t, topo, factsOf(fakeFabric{}))
	ids := endIDs(topo)

	f := factsOf(fakeFabric{})
	f.recordedMACs = map[string]string{
		ids[l.A]:             "02:00:00:00:00:01",
		ids[l.B]:             "02:00:00:00:00:0a", // declared for another end now
		ids[violin.ends[1]]:  "02:00:00:00:00:02", // declared otherwise now
		"violin/nobody/0":    "02:00:00:00:00:03",
		ids[piano.ends[1]]:   "02:00:00:00:00:04",
		"violin/violin/0":    "",
		"another/topology/0": "02:00:00:00:00:05",
	}
	f.takenMACs = map[string]bool{"02:00:00:00:00:04": true} // by another topology now
	got := macsOf(planned(t, topo, f))
	want := macsOf(first)
	want["duo_violin_vn_vnic0"] = "02:00:00:00:00:01"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
}

func TestAPlanKeepsItsMACsByItsOwnRecord(t *testing.T) {
	topo := New("duo")
	violin := node(topo, "violin")
	topo.Link(violin, node(topo, "piano"))
	f := factsOf(fakeFabric{})
	// At the first launch another topology had the address, later it has gone.
	f.takenMACs = map[string]bool{planned(t, topo, f).Node("violin").Interfaces[0].MAC: true}
	first := planned(t, topo, f)
	again := factsOf(fakeFabric{})
	again.recordedMACs = newRecord(topo, first, nil).MACs
	if diff := cmp.Diff(macsOf(first), macsOf(planned(t, topo, again))); diff != "" {
		t.Errorf("addresses (-first +second):\n%s", diff)
	}
}

func TestPlanSaysWhatTheHostCannotRun(t *testing.T) {
	topo := New("duo")
	a, b := node(topo, "a"), node(topo, "b")
	topo.SoftNPULink(a, b)
	topo.SidecarLink(Sidecar{Switch: a, Driver: b, Radix: 2})
	a.ExtLink("igb0")
	a.UserExtLink()
	b.DefaultExtLink()
	f := factsOf(fakeFabric{})
	f.noSoftNPU, f.noSidecar, f.noExternal, f.defaultInterface = "no ASIC", "no multiplexer", "no root", ""
	p := planned(t, topo, f)
	got := map[string][]string{"a": p.Node("a").Unsupported, "b": p.Node("b").Unsupported}
	want := map[string][]string{
		"a": {"interface 0 is a SoftNPU port: no ASIC", "interface 2 is on a host interface: no root"},
		"b": {"interface 1 is a sidecar port: no multiplexer", "interface 2 is on a host interface: no root"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("unsupported (-want +got):\n%s", diff)
	}
	f.noExternal = ""
	if got := planned(t, topo, f).Node("b").Unsupported; len(got) != 2 || !strings.Contains(got[1], "the host has no default route") {
		t.Errorf("without a default route: %q", got)
	}
	if p := planned(t, topo, factsOf(fakeFabric{})); p.Node("a").Unsupported != nil || p.Node("b").Unsupported != nil {
		t.Error("a host that can do everything cannot")
	}
}

func TestSameMachineSeesWhatAffectsARunningNode(t *testing.T) {
	declare := func(change func(*Topology, *Node)) *NodePlan {
		topo := New("duo")
		violin := node(topo, "violin")
		topo.Link(violin, node(topo, "piano"))
		change(topo, violin)
		return planned(t, topo, factsOf(fakeFabric{})).Node("violin")
	}
	base := declare(func(*Topology, *Node) {})
	same := map[string]func(*Topology, *Node){
		"nothing":      func(*Topology, *Node) {},
		"another node": func(topo *Topology, _ *Node) { topo.Link(node(topo, "drum"), topo.Lookup("piano")) },
	}
	for what, change := range same {
		if !base.sameMachine(declare(change)) {
			t.Errorf("%s more makes it another machine", what)
		}
	}
	for what, change := range map[string]func(*Topology, *Node){
		"a link":      func(topo *Topology, n *Node) { topo.Link(n, n) },
		"a mount":     func(_ *Topology, n *Node) { n.Mount("a", "/a") },
		"a component": func(_ *Topology, n *Node) { n.Component("p", propolis.PVPanic{}) },
		"a screen":    func(_ *Topology, n *Node) { n.VNC(5900) },
		"a MAC":       func(_ *Topology, n *Node) { n.ends[0].MAC("02:00:00:00:00:01") },
	} {
		if base.sameMachine(declare(change)) {
			t.Errorf("%s more leaves the machine as it is", what)
		}
	}
}
