package qemu

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// testHost is a host that has everything.
func testHost() Host {
	return Host{
		QEMU: "/usr/bin/qemu-system-x86_64", Accel: AccelTCG,
		Files: map[string]File{
			"/dev/zvol/tank/violin": {Block: true}, "/img/no.raw": {Err: errors.New("stat /img/no.raw: no such file or directory")},
			"/srv/cargo-bay": {Dir: true}, "/srv/a,b": {Dir: true}, "cargo-bay": {Dir: true},
		},
		Links: map[string]Link{
			"duo_violin_vn_vnic0": {Name: "f3a1.0", Index: 4, MAC: "a8:40:25:00:00:01", NetNS: "/run/netns/falcon-1"},
			"ext0":                {Name: "ext0", Index: 7, MAC: "a8:40:25:00:00:07", MacVTap: true, NetNS: "/run/netns/falcon-1"},
			"host:mv0":            {Name: "mv0", Index: 12, MAC: "a8:40:25:00:00:12", MacVTap: true},
			"host:gone":           {Err: errors.New(`network device "gone" in this network namespace: there is none of that name`)},
		},
	}
}

func at(device uint8) propolis.PCIPath { return propolis.PCIPath{Device: device} }

// nicOn returns a NIC of the given name in a slot on a vnic.
func nicOn(name string, slot uint8, vnicName string) propolis.Components {
	return propolis.Components{
		name:              propolis.VirtioNIC{BackendID: name + "-backing", InterfaceID: testID, PCIPath: at(slot)},
		name + "-backing": propolis.VirtioNetworkBackend{VNICName: vnicName},
	}
}

// asicWith returns an ASIC with a number of front ports.
func asicWith(ports int) propolis.Components {
	c := propolis.Components{
		"softnpu-p9":       propolis.SoftNPUP9{PCIPath: at(6)},
		"softnpu-pci-port": propolis.SoftNPUPCIPort{PCIPath: at(7)},
	}
	for i := range ports {
		name := fmt.Sprintf("softnpu%d", i)
		c[name+"-port"] = propolis.SoftNPUPort{LinkName: name, BackendID: name + "-backing"}
		c[name+"-backing"] = propolis.DLPINetworkBackend{VNICName: fmt.Sprintf("violin-%d", i)}
	}
	return c
}

// TestPortsOfAnASICAreInTheOrderOfTheirNumbers pins that the tenth port is not
// the second.
func TestPortsOfAnASICAreInTheOrderOfTheirNumbers(t *testing.T) {
	c, err := golden{cfg: Config{Firmware: FirmwareBIOS, Spec: spec(asicWith(120))}}.command()
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range c.ports {
		if want := fmt.Sprintf("violin-%d", i); p.name != want {
			t.Errorf("port %d is on %s, want %s", i+1, p.name, want)
		}
	}
	if len(c.ports) != 120 {
		t.Errorf("there are %d ports", len(c.ports))
	}
}

// golden is one instance whose command line is kept in testdata.
type golden struct {
	name string
	cfg  Config
	host func(*Host)
}

func uefiHost(h *Host) {
	h.Firmware = Firmware{Code: "/usr/share/OVMF/OVMF_CODE_4M.fd", Vars: "violin.vars"}
}

func goldens() []golden {
	serial := propolis.NewNVMeSerial("falcon0")
	return []golden{
		{name: "micro-kernel", cfg: Config{Firmware: FirmwareKernel, Kernel: "/img/micro/vmlinux",
			Initrd: "/img/micro/initrd", Append: "console=ttyS0 quiet hostname='it'"}},
		{name: "kernel-with-boot-order", cfg: Config{Firmware: FirmwareKernel, Kernel: "k", Spec: spec(diskOn("/img/v.qcow2"))}},
		{name: "bios-disk", cfg: Config{Firmware: FirmwareBIOS, Spec: spec(diskOn("/topo/duo/violin.qcow2"))}},
		{name: "bios-image", cfg: Config{Firmware: "seabios.bin", Spec: spec(diskOn("violin.raw"))},
			host: func(h *Host) { h.Firmware = Firmware{BIOS: "seabios.bin"} }},
		{name: "uefi-disk", cfg: Config{Firmware: FirmwareUEFI, Spec: spec(diskOn("/dev/zvol/tank/violin"))}, host: uefiHost},
		{name: "kvm", cfg: Config{Firmware: FirmwareBIOS}, host: func(h *Host) { h.Accel = AccelKVM }},
		{name: "nvme-4096", cfg: Config{Firmware: FirmwareBIOS, Spec: spec(propolis.Components{
			"main":   propolis.NVMeDisk{BackendID: "mainb", PCIPath: at(16), SerialNumber: serial},
			"mainb":  propolis.FileStorageBackend{Path: "/img/a,b.raw", BlockSize: 4096},
			"blank":  propolis.NVMeDisk{BackendID: testID, PCIPath: at(17)},
			testID:   propolis.FileStorageBackend{Path: "/img/ro.qcow2", BlockSize: 512, Readonly: true},
			"order0": propolis.BootSettings{Order: []propolis.BootOrderEntry{{ID: "blank"}, {ID: "main"}}},
		})}},
		{name: "boot-iso", cfg: Config{Firmware: FirmwareBIOS, Spec: spec(merge(diskOn("d.qcow2"), isoOn("/img/install.iso"), propolis.Components{
			"last":           propolis.BootSettings{},
			"boot_iso_first": propolis.BootSettings{Order: []propolis.BootOrderEntry{{ID: "boot_iso"}, {ID: "disk"}}},
		}))}},
		{name: "nics", cfg: Config{Firmware: FirmwareBIOS, Spec: spec(merge(
			nicOn("net0", 5, "duo_violin_vn_vnic0"), nicOn("net1", 6, "duo_violin_vn_vnic0?mtu=9216&mac=02:00:00:00:00:09"),
			nicOn("net2", 7, "ext0"), nicOn("net3", 8, "host:mv0?mtu=1400"),
			nicOn("net4", 9, "dgram:l0.a?peer=l0.b&mac=02:00:00:00:00:04"), nicOn("net5", 10, "dgram:l1.b?peer=l1%2Ca&mac=02-00-00-00-00-05&mtu=9216"),
			nicOn("net6", 11, "user:?mac=02:00:00:00:00:06"), nicOn("net7", 12, "user:?mac=02:00:00:00:00:07&mtu=1500"),
		))}},
		{name: "shares", cfg: Config{Firmware: FirmwareBIOS, Spec: spec(propolis.Components{
			"fs0": propolis.P9FS{Source: "cargo-bay", Target: "/opt/cargo-bay", ChunkSize: 65536, PCIPath: at(5)},
			"fs1": propolis.P9FS{Source: "/srv/a,b", Target: "a,b", ChunkSize: 65536, PCIPath: at(6)},
		})}},
		{name: "smbios", cfg: Config{Firmware: FirmwareBIOS, Name: "violin, first", Spec: func() propolis.InstanceSpec {
			s := spec(nil)
			s.Smbios = &propolis.SmbiosType1{Manufacturer: "Strings, Inc.", ProductName: "a=b", SerialNumber: "", Version: 7}
			return s
		}()}},
		{name: "bridge-and-functions", cfg: Config{Firmware: FirmwareBIOS, Spec: spec(merge(propolis.Components{
			"aaa": propolis.PCIBridge{DownstreamBus: 1, PCIPath: propolis.PCIPath{Bus: 2, Device: 1}},
			"zzz": propolis.PCIBridge{DownstreamBus: 2, PCIPath: at(3)},
			"fs0": propolis.P9FS{Source: "cargo-bay", Target: "far", PCIPath: propolis.PCIPath{Bus: 1, Device: 0}},
			"fs1": propolis.P9FS{Source: "cargo-bay", Target: "one", PCIPath: propolis.PCIPath{Device: 13, Function: 0}},
			"fs2": propolis.P9FS{Source: "cargo-bay", Target: "two", PCIPath: propolis.PCIPath{Device: 13, Function: 7}},
		}))}},
		{name: "vnc-password", cfg: Config{Firmware: FirmwareBIOS, Screen: true, ScreenPassword: "violin", Spec: spec(propolis.Components{
			"fs0": propolis.P9FS{Source: "cargo-bay", Target: "x", PCIPath: at(2)},
		})}},
		{name: "vnc", cfg: Config{Firmware: FirmwareBIOS, Screen: true}},
		{name: "agent", cfg: Config{Firmware: FirmwareBIOS, Agent: true, Screen: true, Spec: spec(merge(
			diskOn("/img/v.qcow2"), nicOn("net0", 5, "duo_violin_vn_vnic0")))}},
		{name: "template-made", cfg: Config{Firmware: FirmwareBIOS, Template: &Template{Dir: "/tpl", Make: true}, Spec: spec(merge(
			diskOn("/img/v.qcow2"), nicOn("net0", 5, "duo_violin_vn_vnic0")))}},
		{name: "template-cloned", cfg: Config{Firmware: FirmwareBIOS, Agent: true, Template: &Template{Dir: "/tpl"}, Spec: spec(merge(
			diskOn("/img/v.qcow2"), nicOn("net0", 5, "duo_violin_vn_vnic0")))}},
		{name: "agent-elsewhere", cfg: Config{Firmware: FirmwareBIOS, Agent: true, Spec: spec(propolis.Components{
			"fs0": propolis.P9FS{Source: "cargo-bay", Target: "x", PCIPath: at(3)},
		})}},
		{name: "softnpu", cfg: Config{Firmware: FirmwareBIOS, Spec: spec(asicWith(2))}},
		{name: "softnpu-template", cfg: Config{Firmware: FirmwareBIOS, Template: &Template{Dir: "/tpl", Make: true}, Spec: spec(asicWith(0))}},
		{name: "sidecar", cfg: Config{Firmware: FirmwareBIOS, Spec: spec(merge(
			nicOn("net0-0", 5, "sidecar:piano-0?port=0&header=24&mac=02:00:00:00:00:01"),
			nicOn("net0-1", 6, "sidecar:piano-0?port=1&header=24&mac=02:00:00:00:00:02&mtu=9000")))}},
		{name: "the-rest", cfg: Config{Firmware: FirmwareBIOS, Spec: spec(propolis.Components{
			"com2": propolis.SerialPort{Num: "com2"}, "com3": propolis.SerialPort{Num: "com3"}, "com4": propolis.SerialPort{Num: "com4"},
			"panic": propolis.PVPanic{EnableISA: true}, "calm": propolis.PVPanic{},
			"vsock": propolis.VirtioSocket{GuestCID: 17, PCIPath: at(9)},
		})}},
	}
}

// goldenText lays a command out for reading: an option a line.
func goldenText(c Command) string {
	var s strings.Builder
	s.WriteString("# by hand\n" + c.String() + "\n\n# by Start\n" + c.Path)
	for _, arg := range c.Args {
		if strings.HasPrefix(arg, "-") {
			s.WriteString("\n")
		} else {
			s.WriteString(" ")
		}
		s.WriteString(arg)
	}
	s.WriteString("\n")
	for _, m := range c.Mounts {
		s.WriteString(fmt.Sprintf("# mount %+v\n", m))
	}
	for _, path := range slices.Sorted(maps.Keys(c.Opens)) {
		s.WriteString(fmt.Sprintf("# %s opens %s\n", path, fileText(c.Opens[path])))
	}
	for i, fd := range c.FDs {
		kind := []string{"console", "qmp", "link", "state", "agent", "loose tap", "management", "CPU port", "sidecar", "file"}[fd.Kind]
		s.WriteString(strings.TrimSpace(strings.Join([]string{"# fd", string(rune('3' + i)), kind, fd.Link.Name, fd.Link.NetNS, fileText(fd.File)}, " ")) + "\n")
	}
	return s.String()
}

func fileText(f OpenFile) string {
	switch {
	case f.Path == "":
		return ""
	case f.Writable:
		return f.Path + " read and written"
	}
	return f.Path + " only read"
}

// command builds the golden's command line.
func (g golden) command() (Command, error) {
	host := testHost()
	if g.host != nil {
		g.host(&host)
	}
	for _, c := range g.cfg.Spec.Components {
		if f, ok := c.(propolis.FileStorageBackend); ok {
			if _, known := host.Files[f.Path]; !known {
				host.Files[f.Path] = File{}
			}
		}
	}
	if g.cfg.Spec.Components == nil {
		g.cfg.Spec = spec(nil)
	}
	if g.cfg.Name == "" {
		g.cfg.Name = "violin"
	}
	if g.cfg.ID == "" {
		g.cfg.ID = testID
	}
	return CommandLine(g.cfg, host)
}

func TestCommandLines(t *testing.T) {
	for _, g := range goldens() {
		t.Run(g.name, func(t *testing.T) {
			c, err := g.command()
			if err != nil {
				t.Fatal(err)
			}
			got, path := goldenText(c), filepath.Join("testdata", g.name+".golden")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got (rewrite with -update):\n%s", diff)
			}
		})
	}
}

func TestShellReadsTheCommandByHandAsItIsMeant(t *testing.T) {
	for _, g := range goldens() {
		c, err := g.command()
		if err != nil {
			t.Fatal(err)
		}
		words := slices.Concat(c.wrap, c.byHand)
		line := strings.TrimSuffix(c.String(), strings.Join(append([]string{""}, c.redir...), " "))
		out, err := exec.Command("sh", "-c", `printf '%s\0' `+line).Output()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.Join(words, "\x00")+"\x00", string(out)); diff != "" {
			t.Errorf("%s: %s", g.name, diff)
		}
	}
}

func TestCommandLineIsTheSameEveryTime(t *testing.T) {
	for _, g := range goldens() {
		first, _ := g.command()
		for range 10 {
			if again, _ := g.command(); first.String() != again.String() {
				t.Fatalf("%s:\n%s\n%s", g.name, first, again)
			}
		}
	}
}

func TestRefusalsNameTheComponentAndTheReason(t *testing.T) {
	disk := func(backend propolis.Component) propolis.Components {
		return propolis.Components{"d": propolis.VirtioDisk{BackendID: "b", PCIPath: at(4)}, "b": backend}
	}
	file := propolis.FileStorageBackend{Path: "cargo.raw", BlockSize: 512}
	p9 := func(p propolis.PCIPath) propolis.Components {
		return propolis.Components{"fs": propolis.P9FS{Source: "cargo-bay", Target: "x", PCIPath: p}}
	}
	tests := map[string]struct {
		components propolis.Components
		want       string
	}{
		"softnpu port alone":   {propolis.Components{"x": propolis.SoftNPUPort{}}, `component "x" (soft_npu_port): an ASIC needs a soft_npu_pci_port`},
		"softnpu loader alone": {propolis.Components{"x": propolis.SoftNPUP9{PCIPath: at(6)}}, `component "x" (soft_npu_p9): an ASIC needs a soft_npu_pci_port`},
		"two CPU ports": {propolis.Components{"x": propolis.SoftNPUPCIPort{PCIPath: at(6)}, "y": propolis.SoftNPUPCIPort{PCIPath: at(7)}},
			`component "y" (soft_npu_pci_port): the ASIC's CPU port is "x" already`},
		"softnpu port on a NAT": {propolis.Components{"c": propolis.SoftNPUPCIPort{PCIPath: at(6)}, "x": propolis.SoftNPUPort{BackendID: "d"},
			"d": propolis.DLPINetworkBackend{VNICName: "user:?mac=02:00:00:00:00:01"}}, `component "d" (dlpi_network_backend): vnic name`},
		"softnpu port on a tap": {propolis.Components{"c": propolis.SoftNPUPCIPort{PCIPath: at(6)}, "x": propolis.SoftNPUPort{BackendID: "d"},
			"d": propolis.VirtioNetworkBackend{VNICName: "tap0"}}, `its backend "d" is a virtio_network_backend; use a dlpi_network_backend`},
		"com4 beside an ASIC": {propolis.Components{"c": propolis.SoftNPUPCIPort{PCIPath: at(6)}, "x": propolis.SerialPort{Num: "com4"}},
			`component "x" (serial_port): serial port com4 is the ASIC's management channel`},
		"dlpi":                 {propolis.Components{"x": propolis.DLPINetworkBackend{}}, `component "x" (dlpi_network_backend): no device uses this backend`},
		"crucible":             {disk(propolis.CrucibleStorageBackend{}), `component "b" (crucible_storage_backend): this server has no Crucible`},
		"blob":                 {disk(propolis.BlobStorageBackend{}), `component "b" (blob_storage_backend)`},
		"failure injector":     {propolis.Components{"x": propolis.MigrationFailureInjector{}}, `component "x" (migration_failure_injector)`},
		"null":                 {propolis.Components{"x": nil}, `x: the component is null`},
		"backend missing":      {propolis.Components{"d": propolis.NVMeDisk{BackendID: "b", PCIPath: at(4)}}, `component "d" (nvme_disk): its backend "b" does not exist`},
		"backend of NICs":      {disk(propolis.VirtioNetworkBackend{VNICName: "ext0"}), `its backend "b" is a virtio_network_backend; use a file_storage_backend`},
		"backend unused":       {propolis.Components{"b": file}, `component "b" (file_storage_backend): no device uses`},
		"backend used twice":   {merge(disk(file), propolis.Components{"e": propolis.VirtioDisk{BackendID: "b", PCIPath: at(5)}}), `component "b" (file_storage_backend): used by d and e`},
		"block size":           {disk(propolis.FileStorageBackend{Path: "cargo.raw", BlockSize: 1024}), `component "b" (file_storage_backend): block size 1024`},
		"file missing":         {disk(propolis.FileStorageBackend{Path: "/img/no.raw", BlockSize: 512}), `component "b" (file_storage_backend): stat /img/no.raw: no such file`},
		"file is a folder":     {disk(propolis.FileStorageBackend{Path: "/srv/cargo-bay", BlockSize: 512}), `/srv/cargo-bay is a folder`},
		"share of a file":      {propolis.Components{"fs": propolis.P9FS{Source: "/dev/zvol/tank/violin", Target: "x", PCIPath: at(5)}}, `component "fs" (p9fs): /dev/zvol/tank/violin is not a folder`},
		"tag of 32 bytes":      {propolis.Components{"fs": propolis.P9FS{Source: "cargo-bay", Target: strings.Repeat("x", 32), PCIPath: at(5)}}, `has 32 bytes; QEMU takes 1 to 31`},
		"tag empty":            {propolis.Components{"fs": propolis.P9FS{Source: "cargo-bay", PCIPath: at(5)}}, `has 0 bytes`},
		"place taken":          {merge(disk(file), p9(at(4))), `component "fs" (p9fs): PCI path 0.4.0 is taken by "d"`},
		"place of chipset":     {p9(at(1)), `belongs to the chipset`},
		"place out of range":   {p9(at(32)), `out of range`},
		"no such bus":          {p9(propolis.PCIPath{Bus: 3, Device: 1}), `there is no bus 3`},
		"bridges in a circle":  {propolis.Components{"b": propolis.PCIBridge{DownstreamBus: 1, PCIPath: propolis.PCIPath{Bus: 1, Device: 1}}}, `there is no bus 1`},
		"two buses 1":          {propolis.Components{"a": propolis.PCIBridge{DownstreamBus: 1, PCIPath: at(4)}, "b": propolis.PCIBridge{DownstreamBus: 1, PCIPath: at(5)}}, `component "b" (pci_pci_bridge): PCI bus 1 exists`},
		"no function 0":        {p9(propolis.PCIPath{Device: 5, Function: 2}), `only if there is a function 0`},
		"boots from nowhere":   {propolis.Components{"boot": propolis.BootSettings{Order: []propolis.BootOrderEntry{{ID: "com1"}}}}, `component "boot" (boot_settings): boots from "com1"`},
		"boots twice":          {merge(disk(file), propolis.Components{"boot": propolis.BootSettings{Order: []propolis.BootOrderEntry{{ID: "d"}, {ID: "d"}}}}), `names "d" twice`},
		"com5":                 {propolis.Components{"x": propolis.SerialPort{Num: "com5"}}, `serial port "com5" is unknown`},
		"com1 in pieces":       {propolis.Components{"x": propolis.SerialPort{Num: "om1c"}}, `serial port "om1c" is unknown`},
		"com1 twice":           {propolis.Components{"x": propolis.SerialPort{Num: "com1"}}, `serial port com1 is taken by "com1"`},
		"vsock to the host":    {propolis.Components{"v": propolis.VirtioSocket{GuestCID: 2, PCIPath: at(5)}}, `guest CID 2 is out of range`},
		"device missing":       {nicOn("n", 5, "host:gone"), `component "n-backing" (virtio_network_backend): network device "gone"`},
		"device not looked at": {nicOn("n", 5, "other"), `was not looked for`},
		"vnic kind":            {nicOn("n", 5, "vde:x"), `the kind "vde" is unknown`},
		"vnic option":          {nicOn("n", 5, "ext0?speed=1"), `option "speed" is unknown`},
		"vnic query":           {nicOn("n", 5, "ext0?mtu=%zz"), `invalid URL escape`},
		"vnic MTU":             {nicOn("n", 5, "ext0?mtu=67"), `MTU "67" is not a number from 68`},
		"vnic name empty":      {nicOn("n", 5, ""), `name is empty`},
		"vnic multicast":       {nicOn("n", 5, "user:?mac=01:00:00:00:00:01"), `not a unicast MAC`},
		"vnic EUI-64":          {nicOn("n", 5, "user:?mac=02:00:00:00:00:00:00:01"), `not a unicast MAC`},
		"user without MAC":     {nicOn("n", 5, "user:"), `needs a mac option`},
		"user with a name":     {nicOn("n", 5, "user:x?mac=02:00:00:00:00:01"), `has no name`},
		"device with a peer":   {nicOn("n", 5, "ext0?peer=x"), `only a vnic of the kind dgram or sidecar has a peer`},
		"dgram without peer":   {nicOn("n", 5, "dgram:x?mac=02:00:00:00:00:01"), `path of the socket is empty`},
		"dgram path too long":  {nicOn("n", 5, "dgram:"+strings.Repeat("x", 108)+"?peer=y&mac=02:00:00:00:00:01"), `has 108 bytes`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			components := merge(tc.components)
			_, err := golden{cfg: Config{Firmware: FirmwareBIOS, Spec: spec(components)}}.command()
			expectRefusal(t, err, tc.want)
		})
	}
}

func expectRefusal(t *testing.T, err error, want string) {
	t.Helper()
	var refusal *Refusal
	if !errors.As(err, &refusal) || !strings.Contains(err.Error(), want) {
		t.Errorf("err = %v\nwant a refusal with %q", err, want)
	}
	if err != nil && strings.Contains(err.Error(), "\n") {
		t.Errorf("one fault, several complaints:\n%v", err)
	}
}

func TestRefusalsOfTheInstanceItself(t *testing.T) {
	board := func(change func(*propolis.Board)) Config {
		s := spec(nil)
		change(&s.Board)
		return Config{Spec: s, Firmware: FirmwareBIOS}
	}
	tests := map[string]struct {
		cfg  Config
		want string
	}{
		"no CPU":           {board(func(b *propolis.Board) { b.CPUs = 0 }), "board: needs at least one CPU"},
		"no memory":        {board(func(b *propolis.Board) { b.MemoryMiB = 0 }), "board: needs memory"},
		"chipset":          {board(func(b *propolis.Board) { b.Chipset.Type = "q35" }), `chipset "q35"`},
		"PCIe":             {board(func(b *propolis.Board) { b.Chipset.Value.EnablePCIe = true }), "no PCIe"},
		"CPUID":            {board(func(b *propolis.Board) { b.CPUID = &propolis.CPUID{} }), "CPUID"},
		"no console":       {Config{Firmware: FirmwareBIOS, Spec: propolis.InstanceSpec{Board: spec(nil).Board, Components: propolis.Components{}}}, "no serial port com1"},
		"ID":               {Config{Firmware: FirmwareBIOS, ID: "violin"}, `id "violin" is not a UUID`},
		"no kernel":        {Config{Firmware: FirmwareKernel}, "no kernel is given"},
		"kernel with BIOS": {Config{Firmware: FirmwareBIOS, Initrd: "i"}, `the firmware is "bios"`},
		"no slot for the agent": {Config{Firmware: FirmwareBIOS, Agent: true, Spec: spec(func() propolis.Components {
			all := propolis.Components{}
			for slot := uint8(chipsetDevices); slot < pciDevices; slot++ {
				all[fmt.Sprint("fs", slot)] = propolis.P9FS{Source: "cargo-bay", Target: fmt.Sprint(slot), PCIPath: at(slot)}
			}
			return all
		}())}, "no PCI slot is left for the guest agent's port"},
		"NUL": {Config{Firmware: FirmwareKernel, Kernel: "k", Append: "a\x00b"}, "NUL byte"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := golden{cfg: tc.cfg}.command()
			expectRefusal(t, err, tc.want)
		})
	}
}

func TestVsockIsRefusedWithTheHostsReason(t *testing.T) {
	g := golden{cfg: Config{Firmware: FirmwareBIOS, Spec: spec(propolis.Components{"v": propolis.VirtioSocket{GuestCID: 3, PCIPath: at(5)}})},
		host: func(h *Host) { h.NoVsock = errors.New("open /dev/vhost-vsock: no such file or directory") }}
	_, err := g.command()
	expectRefusal(t, err, `component "v" (virtio_socket): this host has no vsock: open /dev/vhost-vsock`)
}

func TestAllRefusalsComeTogether(t *testing.T) {
	_, err := golden{cfg: Config{Firmware: FirmwareBIOS, Spec: spec(propolis.Components{
		"a": propolis.SoftNPUPort{}, "b": propolis.MigrationFailureInjector{},
	})}}.command()
	if err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("err = %v, want two refusals", err)
	}
}

// Ids stay distinct and
// within QEMU's limits whatever the names.
func TestObjectIDsAreDistinctAndShort(t *testing.T) {
	names := []string{"a", "A", "a.b", "a,b", "ä", testID, strings.Repeat("x", 21), strings.Repeat("x", 22), "", " "}
	seen := make(map[string]string)
	for _, name := range names {
		id := objectID("b", name)
		if other, ok := seen[id]; ok {
			t.Errorf("%q and %q are both %s", name, other, id)
		}
		if len(id) > 31-len(".1000") {
			t.Errorf("%q: id %s leaves no room for the number of an overlay", name, id)
		}
		seen[id] = name
	}
}

func FuzzVNICNames(f *testing.F) {
	for _, name := range []string{"net0", "host:x?mtu=1500", "dgram:a?peer=b&mac=02:00:00:00:00:01", "user:?mac=02:00:00:00:00:01", "?", ":"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		v, err := parseVNIC(name)
		if err != nil {
			return
		}
		if v.kind == vnicUser || v.kind == vnicDgram {
			if v.mac == "" {
				t.Errorf("%q: no MAC", name)
			}
		} else if v.link() == "" {
			t.Errorf("%q: no device", name)
		}
	})
}
