package falcon

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/hashicorp/go-multierror"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/link"
	"github.com/falcon-vm/falcon-go/propolis"
)

// PlanVersion is the version of the JSON form of a [Plan].
const PlanVersion = 1

// Plan is what must exist for a topology to run on a host. It is a pure
// function of the declaration, of what the host has, and of what an earlier
// launch recorded.
type Plan struct {
	Version  int    `json:"version"`
	Topology string `json:"topology"`
	// Fabric is how links are made: "kernel" devices, "sockets", or "simnet"
	// links of illumos.
	Fabric string `json:"fabric"`
	// Namespace is the network namespace of the links; empty where the
	// fabric has none.
	Namespace string     `json:"namespace,omitempty"`
	Nodes     []NodePlan `json:"nodes"`
	Links     []LinkPlan `json:"links"`
}

// Node returns the plan of the node of that name, or nil.
func (p *Plan) Node(name string) *NodePlan {
	for i := range p.Nodes {
		if p.Nodes[i].Name == name {
			return &p.Nodes[i]
		}
	}
	return nil
}

// NodePlan is what must exist for one node.
type NodePlan struct {
	Name   string `json:"name"`
	Image  string `json:"image"`
	Cores  int    `json:"cores"`
	Memory Bytes  `json:"memory"`
	// Disk is the path of the node's disk, DiskSize its size.
	Disk     string `json:"disk"`
	DiskSize Bytes  `json:"disk_size"`
	// Backing is what is under it as declared, Reserved what a ZFS volume
	// is sure to find room for.
	Backing  Backing `json:"backing,omitempty"`
	Reserved Bytes   `json:"reserved,omitempty"`
	// Boot is how the machine starts, Console how one logs in to it.
	Boot    image.Boot    `json:"boot"`
	Console image.Console `json:"console"`
	OS      string        `json:"os,omitempty"`
	// Agent is the version of the guest agent in the image, empty if there is
	// none.
	Agent string `json:"agent,omitempty"`
	// Setup is whether falcon logs in after the start, sets the host name
	// and mounts what is to be mounted.
	Setup      bool            `json:"setup"`
	Mounts     []MountPlan     `json:"mounts,omitempty"`
	Interfaces []InterfacePlan `json:"interfaces"`
	// VNC is where its screen is shown: a port of the host, or unix: and the
	// name of a socket in the state folder. VNCPassword is the file with the
	// password of the port.
	VNC         string `json:"vnc,omitempty"`
	VNCPassword string `json:"vnc_password_file,omitempty"`
	// Spec is the Propolis instance.
	Spec propolis.InstanceSpec `json:"spec"`
	// ASIC is whether the node has a SoftNPU ASIC, and Program the path of the
	// P4 source that it runs, empty for the built-in program.
	ASIC    bool   `json:"asic,omitempty"`
	Program string `json:"softnpu_program,omitempty"`
	// Cold is whether the node is to boot when it is launched, and not to be
	// a clone of a template.
	Cold bool `json:"cold,omitempty"`
	// Unsupported says why this host cannot launch the node; empty when it
	// can.
	Unsupported []string `json:"unsupported,omitempty"`
}

// MountPlan is a mount with the tag by which the guest finds it.
type MountPlan struct {
	Mount
	Tag string `json:"tag"`
}

// InterfacePlan is one end of a link with all its names.
type InterfacePlan struct {
	Index int     `json:"index"`
	Kind  EndKind `json:"kind"`
	// Name is the end's full name, such as duo_violin_vn_vnic0; Device is
	// the host's name for it.
	Name   string `json:"name"`
	Device string `json:"device,omitempty"`
	MAC    string `json:"mac"`
	MTU    int    `json:"mtu,omitempty"`
	// Slot is the guest's PCI slot as bus.device.function; empty for a
	// port of an ASIC.
	Slot string `json:"slot,omitempty"`
	// Peer is the node at the other end and PeerIndex its interface there;
	// empty for a link to the host's network.
	Peer      string `json:"peer,omitempty"`
	PeerIndex int    `json:"peer_index"`
	// External is the host interface of a link to the host's network,
	// "user" for address translation.
	External  string `json:"external,omitempty"`
	Exclusive bool   `json:"exclusive,omitempty"`

	vnic string // the vnic_name of the network backend
}

// LinkPlan names the two ends of a cable between nodes.
type LinkPlan struct {
	A   Endpoint `json:"a"`
	B   Endpoint `json:"b"`
	MTU int      `json:"mtu,omitempty"`
}

// Endpoint is an interface of a node by its index.
type Endpoint struct {
	Node  string `json:"node"`
	Index int    `json:"index"`
}

// facts is what a plan needs to know of a host.
type facts struct {
	// fabric makes the names of links' ends.
	fabric fabricNames
	// images holds the known images of the topology by name.
	images map[string]image.Image
	// dataset is the ZFS dataset of images and disks, empty where they are
	// files; diskPath says where the disk of a node is.
	dataset  string
	diskPath func(n *Node) string
	// workDir is what relative paths are taken from.
	workDir string
	// defaultInterface carries the default route; empty when none does.
	defaultInterface string
	// takenMACs holds the addresses of other topologies on the host.
	takenMACs map[string]bool
	// takenIDs are the first ids of those that the others' hypervisors run as.
	takenIDs map[int]bool
	// recordedMACs holds the derived addresses of an earlier launch by the
	// interfaces' identity, so that they stay.
	recordedMACs map[string]string
	// noSoftNPU says why the host cannot run a SoftNPU ASIC, noSidecar why
	// not a sidecar multiplexer; empty when it can.
	noSoftNPU, noSidecar string
	// noProgram says why its ASICs do not run P4 source; empty when they do.
	noProgram string
	// noExternal says why the host cannot attach to its interfaces.
	noExternal string
	hostLimits
}

// hostLimits are what a host's hypervisor and links cannot do. The zero value
// is a host without such limits.
type hostLimits struct {
	// maxMounts is how many mounts a node may have, maxMTU the largest MTU of
	// a link between nodes; 0 for any.
	maxMounts, maxMTU int
	// firmwareOnly is set where guests boot by UEFI firmware and not otherwise.
	firmwareOnly bool
	// bareVNC is set where screens are on TCP ports, without a password.
	bareVNC bool
	// noPanic is set where nobody is told what a panic device reports.
	noPanic bool
	// noUser says why there is no address translation.
	noUser string
	// bareExclusive is set where a guest that has a host interface for itself
	// is attached to it directly, and not to a device on it.
	bareExclusive bool
}

// fabricNames knows how a kind of fabric names things.
type fabricNames interface {
	name() string
	namespace() string
	// device is the host's name for an end; it is unique among the names
	// that the fabric gave before.
	device(full, node string, index int, external bool) string
	// vnic is the name by which a Propolis server finds the end.
	vnic(self, peer *InterfacePlan) string
}

// plan works out what must exist. Its error wraps ErrInvalid where the
// declaration is at fault.
func plan(t *Topology, f facts) (*Plan, error) {
	p := &Plan{Version: PlanVersion, Topology: t.name, Fabric: f.fabric.name(), Namespace: f.fabric.namespace()}
	macs := chooseMACs(t, f)
	var errs *multierror.Error
	for _, n := range t.nodes {
		np, err := planNode(n, f, macs)
		if err != nil {
			errs = multierror.Append(errs, &NodeError{Node: n.name, Err: err})
			continue
		}
		p.Nodes = append(p.Nodes, *np)
	}
	if errs != nil {
		return nil, joined(errs)
	}
	for _, l := range t.links {
		if l.external == nil {
			p.Links = append(p.Links, LinkPlan{
				A: Endpoint{l.A.node.name, l.A.index}, B: Endpoint{l.B.node.name, l.B.index}, MTU: l.mtu})
		}
	}
	at := make(map[string]int, len(p.Nodes))
	for i, n := range p.Nodes {
		at[n.Name] = i
	}
	// Only now every end has its names, and a backend may name its peer's.
	for i, n := range t.nodes {
		np := &p.Nodes[i]
		for j := range np.Interfaces {
			self := &np.Interfaces[j]
			var peer *InterfacePlan
			if self.Peer != "" {
				peer = &p.Nodes[at[self.Peer]].Interfaces[self.PeerIndex]
			}
			self.vnic = f.fabric.vnic(self, peer)
		}
		if err := np.buildSpec(n, f); err != nil {
			return nil, &NodeError{Node: n.name, Err: fmt.Errorf("%w: %w", ErrInvalid, err)}
		}
	}
	return p, nil
}

func planNode(n *Node, f facts, macs map[*End]string) (*NodePlan, error) {
	img, ok := f.images[n.image]
	if !ok {
		return nil, notFound(n.image)
	}
	np := &NodePlan{
		Name: n.name, Image: n.image, Cores: n.cores, Memory: n.memory,
		Disk: f.diskPath(n), DiskSize: n.diskSize, Backing: n.backing, Reserved: n.reserved,
		Boot: img.Boot, Console: img.Console, OS: img.OS, Agent: img.Agent, Cold: n.cold,
		Setup:      img.Console.Known && !n.noSetup && n.bootISO == "",
		Interfaces: make([]InterfacePlan, 0, len(n.ends)),
	}
	switch {
	case n.diskSize == 0:
		np.DiskSize = Bytes(img.VirtualSize)
	case n.diskSize < Bytes(img.VirtualSize):
		return nil, fmt.Errorf("%w: disk of %s is smaller than its image %s, which has %s",
			ErrInvalid, n.diskSize, n.image, Bytes(img.VirtualSize))
	case n.diskSize%512 != 0:
		return nil, fmt.Errorf("%w: disk of %d bytes is not whole sectors of 512 bytes", ErrInvalid, uint64(n.diskSize))
	}
	if f.dataset == "" && n.backing == BackingZvol {
		np.refuse("its disk is to be a ZFS volume, and the host keeps images as files: see FALCON_DATASET")
	}
	if f.firmwareOnly && n.bootISO == "" && np.Boot.Method != image.BootUEFI {
		np.refuse("image %s boots by %s, and the host boots guests by UEFI firmware only: choose another image, such as %s",
			n.image, np.Boot.Method, strings.Join(image.KnownNames(), " or "))
	}
	const oneFolder = "put all that the guest needs into one folder and mount that"
	switch count := len(n.mounts); {
	case f.maxMounts > 0 && count > f.maxMounts:
		np.refuse("it has %d mounts, and propolis-server keeps only the last of several 9p devices: %s", count, oneFolder)
	case isIllumosGuest(np.OS) && count > 1:
		np.refuse("it has %d mounts, and p9kp in an illumos guest reads the first 9p device only: %s", count, oneFolder)
	}
	if n.bootISO != "" {
		np.Agent = "" // it is what is on the CD that runs
	}
	if n.bootISO != "" && np.Boot.Method == image.BootKernel {
		// A kernel given from outside would win over the CD.
		np.Boot = image.Boot{Method: image.BootBIOS}
	}
	np.planScreen(n, f)
	for i, m := range n.mounts {
		np.Mounts = append(np.Mounts, MountPlan{
			Mount: Mount{Source: absolute(f.workDir, m.Source), Target: m.Target}, Tag: mountTag(i, m.Target)})
	}
	if n.program != "" {
		np.Program = absolute(f.workDir, n.program)
		if f.noProgram != "" {
			np.refuse("it has a SoftNPU program: %s", f.noProgram)
		}
	}
	for _, e := range n.ends {
		np.ASIC = np.ASIC || e.kind == EndSoftNPU
		np.Interfaces = append(np.Interfaces, planEnd(e, f, macs[e]))
		switch {
		case e.kind == EndSoftNPU && f.noSoftNPU != "":
			np.refuse("interface %d is a SoftNPU port: %s", e.index, f.noSoftNPU)
		case e.kind == EndSidecar && f.noSidecar != "":
			np.refuse("interface %d is a sidecar port: %s", e.index, f.noSidecar)
		case e.link.external == nil && f.maxMTU > 0 && e.link.mtu > f.maxMTU:
			np.refuse("interface %d has an MTU of %d bytes, and the host's links have at most %d", e.index, e.link.mtu, f.maxMTU)
		case e.link.external != nil && e.link.external.user && f.noUser != "":
			np.refuse("interface %d is on address translation: %s", e.index, f.noUser)
		case e.link.external != nil && !e.link.external.user && f.noExternal != "":
			np.refuse("interface %d is on a host interface: %s", e.index, f.noExternal)
		case e.link.external != nil && np.Interfaces[e.index].External == "":
			np.refuse("interface %d is on the default route's interface: the host has no default route", e.index)
		}
	}
	return np, nil
}

// sameMachine reports whether a node that was launched by this plan is what
// the other one asks for.
func (np *NodePlan) sameMachine(other *NodePlan) bool {
	is, was := *other, *np
	is.Cold, was.Cold = false, false // how it starts next time
	a, aerr := json.Marshal(was)
	b, berr := json.Marshal(is)
	return aerr == nil && berr == nil && bytes.Equal(a, b)
}

// refuse records why the host cannot launch the node.
func (np *NodePlan) refuse(format string, args ...any) {
	np.Unsupported = append(np.Unsupported, fmt.Sprintf(format, args...))
}

// endName is the full name of an end, as upstream has it.
func endName(e *End) string {
	designator := map[EndKind]string{EndNIC: "vn", EndSoftNPU: "sn", EndSidecar: "sm"}[e.kind]
	return fmt.Sprintf("%s_%s_%s_vnic%d", e.node.topology.name, e.node.name, designator, e.index)
}

// guestMTU is the MTU in bytes of an interface to which none is announced.
const guestMTU = 1500

func planEnd(e *End, f facts, mac string) InterfacePlan {
	p := InterfacePlan{Index: e.index, Kind: e.kind, MAC: mac, MTU: e.link.mtu, Name: endName(e)}
	x := e.link.external
	switch {
	case x == nil:
		peer := e.peer()
		p.Peer, p.PeerIndex = peer.node.name, peer.index
		p.Device = f.fabric.device(p.Name, e.node.name, e.index, false)
		if peer.kind == EndSidecar {
			// What the driver sends has a header more here.
			p.MTU = cmp.Or(p.MTU, guestMTU) + int(e.link.sidecar)
		}
	case x.user:
		p.External = "user"
	default:
		p.External, p.Exclusive = x.host, x.exclusive
		if p.External == "" {
			p.External = f.defaultInterface
		}
		p.Device = f.fabric.device(p.Name, e.node.name, e.index, true)
		if p.Exclusive && f.bareExclusive {
			p.Device = p.External
		}
	}
	return p
}

// peer returns the end at the other side of a cable.
func (e *End) peer() *End {
	if e.link.A == e {
		return e.link.B
	}
	return e.link.A
}

// maxTag is the longest mount tag of virtio 9p in QEMU, in bytes.
const maxTag = 31

// mountTag is the target where that fits, as falcon on illumos has it.
func mountTag(i int, target string) string {
	if len(target) <= maxTag {
		return target
	}
	return fmt.Sprintf("fs%d", i)
}

func absolute(dir, p string) string {
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	return filepath.Join(dir, p)
}

// chooseMACs gives every end its address: the declared one, the recorded one,
// or one derived from what the end is, so that it is the same at every launch.
// Where a derived address is taken, by another topology of the same name say,
// the next one is derived.
func chooseMACs(t *Topology, f facts) map[*End]string {
	macs := make(map[*End]string)
	taken := make(map[string]bool)
	for mac := range f.takenMACs {
		taken[mac] = true
	}
	choose := func(e *End, mac string) { macs[e], taken[mac] = mac, true }
	var derived []*End
	for _, n := range t.nodes {
		for _, e := range n.ends {
			if mac, err := net.ParseMAC(e.mac); err == nil {
				choose(e, mac.String())
			} else {
				derived = append(derived, e)
			}
		}
	}
	ids := endIDs(t)
	for _, e := range derived {
		if mac := f.recordedMACs[ids[e]]; mac != "" && !taken[mac] {
			choose(e, mac)
			continue
		}
		for salt := 0; ; salt++ {
			if mac := deriveMAC(t.name, ids[e], salt); !taken[mac] {
				choose(e, mac)
				break
			}
		}
	}
	return macs
}

// endIDs returns what identifies each end whatever else is declared: its node,
// what is at the other side, and its number among the node's ends of that sort.
func endIDs(t *Topology) map[*End]string {
	ids := make(map[*End]string)
	for _, n := range t.nodes {
		count := make(map[string]int)
		for _, e := range n.ends {
			other := "" // the host's network, which no node's name is
			if e.link.external == nil {
				other = e.peer().node.name
			}
			ids[e] = fmt.Sprintf("%s/%s/%d", n.name, other, count[other])
			count[other]++
		}
	}
	return ids
}

// deriveMAC returns a locally administered unicast address.
func deriveMAC(topology, id string, salt int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%s/%d", topology, id, salt))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^1 | 2
	return mac.String()
}

// Where falcon puts devices: the main disk where upstream's falcon has it, and
// everything else behind it.
const (
	// lastChipsetSlot is that of the PIIX3; the host bridge is before it.
	lastChipsetSlot = 1
	diskSlot        = 4
	firstFreeSlot   = 5
	lastSlot        = 31
)

// mainDiskBacking is the component with the node's own disk.
const mainDiskBacking = "main_disk_backing"

// layout gives PCI paths to the devices of a node other than its main disk:
// one slot each, and where there are too many interfaces for that, several
// functions of a slot for them. Interfaces come last, so that the guest finds
// them in their order.
func layout(others, nics int, reserved map[uint8]bool) ([]propolis.PCIPath, error) {
	var free []uint8
	for slot := uint8(firstFreeSlot); slot <= lastSlot; slot++ {
		if !reserved[slot] {
			free = append(free, slot)
		}
	}
	left := len(free) - others
	if left < 0 || left*8 < nics {
		return nil, fmt.Errorf("%d devices and %d interfaces do not fit into the %d PCI slots that are free",
			others, nics, len(free))
	}
	var paths []propolis.PCIPath
	for _, slot := range free[:others] {
		paths = append(paths, propolis.PCIPath{Device: slot})
	}
	if nics == 0 {
		return paths, nil
	}
	perSlot := (nics + left - 1) / left
	for i := range nics {
		paths = append(paths, propolis.PCIPath{
			Device: free[others+i/perSlot], Function: uint8(i % perSlot)})
	}
	return paths, nil
}

// reservedSlots returns the slots of the first bus that the user's own
// components are in.
func reservedSlots(components []userComponent) (map[uint8]bool, error) {
	slots := make(map[uint8]bool)
	taken := make(map[propolis.PCIPath]string)
	for _, c := range components {
		path, ok := propolis.PathOf(c.component)
		if !ok {
			continue
		}
		switch other := taken[path]; {
		case path.Device > lastSlot || path.Function > 7:
			return nil, fmt.Errorf("component %q is at PCI path %s, which there is not", c.name, path)
		case path.Bus == 0 && path.Device <= lastChipsetSlot:
			return nil, fmt.Errorf("component %q is at PCI slot %s, which is the chipset's", c.name, path)
		case path.Bus == 0 && path.Device == diskSlot:
			return nil, fmt.Errorf("component %q is at PCI slot %s, which is the main disk's", c.name, path)
		case other != "":
			return nil, fmt.Errorf("components %q and %q are both at PCI path %s", other, c.name, path)
		}
		taken[path] = c.name
		if path.Bus == 0 {
			slots[path.Device] = true
		}
	}
	return slots, nil
}

// buildSpec writes the node's Propolis instance, with upstream's names for the
// components, and notes the slots of its interfaces.
func (np *NodePlan) buildSpec(n *Node, f facts) error {
	b := specBuilder{components: propolis.Components{}}
	for _, c := range n.components {
		b.add(c.name, c.component)
	}
	reserved, err := reservedSlots(n.components)
	if err != nil {
		return err
	}
	softnpu := false
	others, nics := len(n.mounts), 0
	for _, e := range n.ends {
		switch e.kind {
		case EndSoftNPU:
			softnpu = true
		case EndSidecar:
			nics += e.radix
		default:
			nics++
		}
	}
	if n.bootISO != "" {
		others++
	}
	if softnpu {
		others += 2
	}
	paths, err := layout(others, nics, reserved)
	if err != nil {
		return err
	}
	b.paths = paths

	for i := 1; i <= 3; i++ {
		com := fmt.Sprintf("com%d", i)
		b.add(com, propolis.SerialPort{Num: com})
	}
	b.add("main_disk", propolis.VirtioDisk{BackendID: mainDiskBacking, PCIPath: propolis.PCIPath{Device: diskSlot}})
	b.add(mainDiskBacking, propolis.FileStorageBackend{Path: np.Disk, BlockSize: 512})
	if n.bootISO != "" {
		b.add("boot_iso", propolis.VirtioDisk{BackendID: "boot_iso_backing", PCIPath: b.nextPath()})
		b.add("boot_iso_backing", propolis.FileStorageBackend{Path: absolute(f.workDir, n.bootISO), Readonly: true, BlockSize: 2048})
		b.add("boot_iso_first", propolis.BootSettings{Order: []propolis.BootOrderEntry{{ID: "boot_iso"}, {ID: "main_disk"}}})
	}
	if !f.noPanic && !n.hasPanicDevice() {
		b.add("pvpanic", propolis.PVPanic{EnableISA: true})
	}
	for i, m := range np.Mounts {
		b.add(fmt.Sprintf("fs%d", i), propolis.P9FS{Source: m.Source, Target: m.Tag, ChunkSize: 65536, PCIPath: b.nextPath()})
	}
	if softnpu {
		b.add("softnpu-p9", propolis.SoftNPUP9{PCIPath: b.nextPath()})
		b.add("softnpu-pci-port", propolis.SoftNPUPCIPort{PCIPath: b.nextPath()})
	}
	for i, e := range n.ends {
		b.addEnd(e, &np.Interfaces[i])
	}
	np.Spec = propolis.InstanceSpec{
		Board: propolis.Board{
			CPUs: uint8(n.cores), MemoryMiB: uint64(n.memory >> 20),
			Chipset: propolis.Chipset{Type: "i440_fx"},
		},
		Components: b.components, Smbios: n.smbios,
	}
	return errors.Join(b.errs...)
}

// hasPanicDevice reports whether the user has given the node one: there is one
// place for it.
func (n *Node) hasPanicDevice() bool {
	return slices.ContainsFunc(n.components, func(c userComponent) bool {
		_, is := c.component.(propolis.PVPanic)
		return is
	})
}

// specBuilder collects components.
type specBuilder struct {
	components propolis.Components
	paths      []propolis.PCIPath
	nics       int // ends with interfaces that have been added
	ports      int // ports of the ASIC
	errs       []error
}

func (b *specBuilder) add(name string, c propolis.Component) {
	if _, taken := b.components[name]; taken {
		b.errs = append(b.errs, fmt.Errorf("component %q is one of falcon's own, choose another name", name))
		return
	}
	b.components[name] = c
}

func (b *specBuilder) nextPath() propolis.PCIPath {
	p := b.paths[0]
	b.paths = b.paths[1:]
	return p
}

// addEnd adds the components of a link's end: an interface, or for a sidecar
// end its whole set, or a port of the ASIC. As upstream has it, interfaces and
// ports are numbered apart.
func (b *specBuilder) addEnd(e *End, p *InterfacePlan) {
	if e.kind == EndSoftNPU {
		name := fmt.Sprintf("softnpu%d", b.ports)
		b.ports++
		b.add(name+"-port", propolis.SoftNPUPort{LinkName: name, BackendID: name + "-backing"})
		b.add(name+"-backing", propolis.DLPINetworkBackend{VNICName: p.vnic})
		return
	}
	name := fmt.Sprintf("net%d", b.nics)
	b.nics++
	for i := range max(e.radix, 1) {
		key, path := name, b.nextPath()
		if i == 0 {
			p.Slot = path.String()
		}
		if e.kind == EndSidecar {
			key = fmt.Sprintf("%s-%d", name, i)
		}
		b.add(key, propolis.VirtioNIC{
			BackendID: key + "-backing", PCIPath: path,
			// Derived, so that the same plan gives the same spec.
			InterfaceID: uuid.NewSHA1(uuid.NameSpaceOID, []byte(p.Name+key+p.MAC)).String(),
		})
		vnic := p.vnic
		if e.kind == EndSidecar {
			var err error
			if vnic, err = sidecarVNIC(p, int(e.link.sidecar), i); err != nil {
				b.errs = append(b.errs, err)
			}
		}
		b.add(key+"-backing", propolis.VirtioNetworkBackend{VNICName: vnic})
	}
}

// sidecarVNIC is the vnic_name of one of the interfaces that share a link. Their
// addresses follow each other, as those of a card with several ports do.
func sidecarVNIC(p *InterfacePlan, header, port int) (string, error) {
	v, err := link.ParseVNICName(p.vnic)
	if err != nil {
		return "", err
	}
	mac, err := net.ParseMAC(p.MAC)
	if err != nil {
		return "", err
	}
	n := int(mac[4])<<8 | int(mac[5]) + port
	mac[4], mac[5] = byte(n>>8), byte(n)
	return v.Sidecar(port, header, mac.String()).String(), nil
}
