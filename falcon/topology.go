package falcon

import (
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/hashicorp/go-multierror"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/propolis"
)

// DefaultDir is the state folder of a topology that names none.
const DefaultDir = ".falcon"

// Bytes is an amount of memory or disk, in bytes.
type Bytes uint64

// MiB returns n mebibytes.
func MiB(n uint64) Bytes { return Bytes(n << 20) }

// GiB returns n gibibytes.
func GiB(n uint64) Bytes { return Bytes(n << 30) }

// String returns the amount in the largest binary unit that divides it.
func (b Bytes) String() string {
	switch {
	case b >= 1<<30 && b%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", b>>30)
	case b >= 1<<20 && b%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", b>>20)
	case b >= 10<<30:
		return fmt.Sprintf("%.1f GiB", float64(b)/(1<<30))
	case b >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(b)/(1<<20))
	}
	return fmt.Sprintf("%d B", uint64(b))
}

// Topology is a declared network of virtual machines. Create one with [New].
//
// The exported fields may be set before the first call that acts; none has to
// be. Declaring is not safe for concurrent use; everything that acts is.
type Topology struct {
	// Dir is the state folder; DefaultDir when empty.
	Dir string
	// Persistent keeps the topology when the program ends. Without it the
	// topology is destroyed when Launch's context is cancelled or the
	// program ends.
	Persistent bool
	// Flags is remembered with the launched topology: the words by which
	// its program declared it. Package cli keeps the program's flags here.
	Flags []string
	// Command is what a command line that works on this topology begins with,
	// such as "ring -f lab", for errors to name their cures with. Package cli
	// sets it.
	Command string
	// Propolis is the path of the propolis-server to run for each node; empty
	// for the host's own: on Linux the one inside this program, on illumos
	// Propolis' own in the revision that this falcon is made for.
	Propolis string
	// Host is where the topology runs: HostNative, or HostSim for a simulated
	// host. When it is empty, FALCON_HOST in the environment says so. A
	// topology that is launched stays where it is.
	Host string
	// Sim is the script of a simulated host; FALCON_SIM in the environment
	// when it is empty. It makes steps slow or fail, by rules between commas
	// or white space:
	//
	//	image:NAME=missing
	//	disk:NODE=EFFECT        its disk is cloned: fail
	//	link:NODE/INDEX=EFFECT  the end of a link is made: fail, or busy, after
	//	                        which it is tried again
	//	start:NODE=EFFECT       its server starts: fail
	//	boot:NODE=EFFECT        its guest boots: fail, or never
	//	login:NODE=EFFECT       it lets falcon in: fail, which is a password that
	//	                        is refused, or never
	//	set-up:NODE=EFFECT      it is set up: never
	//	exec:NODE=EFFECT        it runs a command: fail, which is exit status 1,
	//	                        or never
	//	stop:NODE=EFFECT        it heeds its power button: never
	//	die:NODE@STAGE          its machine dies at start, boot, login or set-up
	//
	// Each EFFECT but image's may also be a delay such as 200ms. With *N behind
	// it, it is that of the first N times, which a command counts for itself and
	// a node's server for the guest. NODE, NODE/INDEX and NAME may be * for all.
	//
	//	disk:violin=fail,login:piano=never,link:violin/0=busy*2,boot:n3=2s
	Sim string
	// Log receives what falcon does; nil discards it.
	Log *slog.Logger
	// Progress is told of each step of a launch; nil for nobody. It is
	// called from several goroutines, never two at a time.
	Progress func(Progress)

	name  string
	nodes []*Node
	links []*Link
	errs  *multierror.Error

	openHost hostOpener // of tests; newHost when nil
}

// New declares a topology. A name is a letter followed by letters, digits and
// underscores, at most [MaxName] bytes.
func New(name string) *Topology {
	t := &Topology{name: name}
	t.check(validName("topology", name))
	return t
}

// Name returns the name that the topology was declared with.
func (t *Topology) Name() string { return t.name }

// Nodes returns the declared nodes in the order of their declaration.
func (t *Topology) Nodes() []*Node { return append([]*Node(nil), t.nodes...) }

// Lookup returns the node of that name, or nil.
func (t *Topology) Lookup(name string) *Node {
	for _, n := range t.nodes {
		if n.name == name {
			return n
		}
	}
	return nil
}

// check keeps a mistake of the declaration, if there is one.
func (t *Topology) check(err error) {
	if err != nil {
		t.errs = multierror.Append(t.errs, err)
	}
}

// Node is a declared virtual machine. Its methods that declare return the node
// so that they can be chained; mistakes are kept with the topology.
type Node struct {
	topology *Topology
	name     string
	image    string
	cores    int
	memory   Bytes

	diskSize    Bytes
	backing     Backing
	reserved    Bytes
	bootISO     string
	smbios      *propolis.SmbiosType1
	screen      bool
	vncPort     int // 0 for a socket
	vncPassword string
	noSetup     bool
	cold        bool
	program     string // P4 source of the ASIC's program
	mounts      []Mount
	components  []userComponent
	ends        []*End
}

// Backing is the kind of storage under a node's disk.
type Backing = image.Backing

const (
	// BackingDefault leaves the choice to the host.
	BackingDefault Backing = ""
	// BackingZvol is a clone of the image's ZFS volume. The host's images
	// must be on ZFS.
	BackingZvol = image.BackingZvol
	// BackingFile is a file: a copy-on-write overlay where images are
	// files, a copy of the image where they are on ZFS.
	BackingFile = image.BackingFile
)

// Mount is a host folder shared with a guest, read-only.
type Mount struct {
	// Source is the folder on the host; relative paths are taken from the
	// working directory of the program.
	Source string `json:"source"`
	// Target is the absolute path in the guest.
	Target string `json:"target"`
}

type userComponent struct {
	name      string
	component propolis.Component
}

// Node declares a virtual machine: its name, the base image that its disk is
// cloned from, its processors and its memory. Names follow the rules of [New]
// and are unique in the topology; cores are 1 to [MaxCores], memory is whole
// MiB from [MinMemory] to [MaxMemory].
func (t *Topology) Node(name, image string, cores int, memory Bytes) *Node {
	n := &Node{topology: t, name: name, image: image, cores: cores, memory: memory}
	t.check(validNode(t, n))
	t.nodes = append(t.nodes, n)
	return n
}

// Name returns the name that the node was declared with.
func (n *Node) Name() string { return n.name }

// Image returns the name of the node's base image.
func (n *Node) Image() string { return n.image }

// DiskSize sets the size of the node's disk, at least that of its image.
// Without it the disk has the image's size.
func (n *Node) DiskSize(size Bytes) *Node {
	n.diskSize = size
	return n
}

// Backing chooses the kind of storage under the node's disk.
func (n *Node) Backing(b Backing) *Node {
	n.backing = b
	return n
}

// Reserve has the disk, where it is a ZFS volume, find room for this much
// whatever else fills the pool.
func (n *Node) Reserve(size Bytes) *Node {
	n.reserved = size
	return n
}

// BootISO boots the node from a CD image; its disk is second in boot order.
func (n *Node) BootISO(path string) *Node {
	n.bootISO = path
	return n
}

// SMBIOS replaces the values of the guest's SMBIOS type 1 table.
func (n *Node) SMBIOS(table propolis.SmbiosType1) *Node {
	n.smbios = &table
	return n
}

// VNC gives the node a screen. Without a port it is on a socket in the state
// folder that only the user can connect to; see [Node.Screen]. With one, 5900 to
// 65535, it is on that TCP port of the host's loopback, and needs a [Node.VNCPassword].
// SMBIOS and a screen are of use with images that boot by firmware.
func (n *Node) VNC(port ...int) *Node {
	n.screen = true
	for _, p := range port {
		if p < 5900 || p > 65535 {
			n.topology.check(&NodeError{Node: n.name, Err: fmt.Errorf("VNC port %d is not within 5900 to 65535", p)})
		}
		n.vncPort = p
	}
	return n
}

// VNCPassword has viewers on the TCP port of [Node.VNC] asked for a password: the
// first line of a file that only the user can read, of at most 8 characters.
func (n *Node) VNCPassword(file string) *Node {
	n.vncPassword = file
	return n
}

// NoSetup leaves the guest as it boots: falcon does not wait for a login,
// sets no host name and mounts nothing.
func (n *Node) NoSetup() *Node {
	n.noSetup = true
	return n
}

// Cold has the node boot when it is launched. Without it a node is a clone of a
// guest of its image that has booted before, where that can be had.
func (n *Node) Cold() *Node {
	n.cold = true
	return n
}

// SoftNPUProgram has the node's SoftNPU ASIC, which its SoftNPU links give it,
// run this P4 program instead of the built-in one. The path is that of its
// source on the host; relative ones are taken from the working directory of the
// program. ASICs of illumos hosts do not run P4 source.
func (n *Node) SoftNPUProgram(path string) *Node {
	if path == "" {
		n.topology.check(&NodeError{Node: n.name, Err: errors.New("the path of its SoftNPU program is empty")})
	}
	n.program = path
	return n
}

// Mount shares a folder of the host with the guest, read-only, and mounts it
// there. A node may have any number of mounts on Linux hosts, one on illumos.
func (n *Node) Mount(source, target string) *Node {
	m := Mount{Source: source, Target: target}
	n.topology.check(validMount(n, m))
	n.mounts = append(n.mounts, m)
	return n
}

// Component adds a Propolis component to the node's instance as it is. Its
// name must not be one of falcon's own, nor its PCI path one that is taken.
func (n *Node) Component(name string, c propolis.Component) *Node {
	n.components = append(n.components, userComponent{name, c})
	return n
}

// EndKind says what is at an end of a link.
type EndKind string

const (
	// EndNIC is a network interface of the guest.
	EndNIC EndKind = "nic"
	// EndSoftNPU is a front port of the node's SoftNPU ASIC.
	EndSoftNPU EndKind = "softnpu"
	// EndSidecar is a set of guest interfaces multiplexed over one link.
	EndSidecar EndKind = "sidecar"
)

// End is one end of a link: an interface or port of a node. Ends of one node
// are numbered in the order of their declaration, which is the order in which
// the guest finds its interfaces.
type End struct {
	node  *Node
	index int
	kind  EndKind
	mac   string
	radix int
	link  *Link
}

// Node returns the node that the end belongs to.
func (e *End) Node() *Node { return e.node }

// Index returns the number of the end among those of its node, from 0.
func (e *End) Index() int { return e.index }

// MAC gives the end a MAC address instead of one derived from the topology.
// It must be a unicast address, and used once in the topology.
func (e *End) MAC(address string) *End {
	e.mac = address
	hw, err := net.ParseMAC(address)
	switch {
	case err != nil || len(hw) != 6:
		err = fmt.Errorf("MAC address %q is not six bytes like 02:00:00:00:00:01", address)
	case hw[0]&1 != 0:
		err = fmt.Errorf("MAC address %s is a multicast address", address)
	case hw.String() == "00:00:00:00:00:00":
		err = fmt.Errorf("MAC address %s is all zero", address)
	}
	if err != nil {
		e.node.topology.check(&NodeError{Node: e.node.name, Err: err})
	}
	return e
}

// Link is a cable between two ends, or between one end and the host's network.
// Every frame passes unchanged, and nothing on the host speaks on it.
type Link struct {
	// A and B are the ends in the order of declaration; B is nil for a link
	// to the host's network.
	A, B *End

	mtu      int
	external *external
	sidecar  SidecarHeader
}

// MTU sets the largest packet of the link in bytes, 68 to [MaxMTU], and
// announces it to the guests. Without it guests keep their own default, and
// the link carries whatever they set, up to MaxMTU.
func (l *Link) MTU(bytes int) *Link {
	if bytes < 68 || bytes > MaxMTU {
		l.A.node.topology.check(&NodeError{Node: l.A.node.name,
			Err: fmt.Errorf("link MTU %d is not within 68 to %d", bytes, MaxMTU)})
	}
	l.mtu = bytes
	return l
}

// external is the host's side of a link to the outside.
type external struct {
	host      string // interface name; empty for the default route's
	exclusive bool
	user      bool
}

// end adds an end to a node.
func (n *Node) end(kind EndKind) *End {
	e := &End{node: n, index: len(n.ends), kind: kind}
	n.ends = append(n.ends, e)
	return e
}

// connect declares a link between two nodes of the topology. When one is not,
// the mistake is kept and the link that is returned belongs to nobody, so that
// the declaration may go on.
func (t *Topology) connect(a *Node, ak EndKind, b *Node, bk EndKind) *Link {
	if err := validLink(t, a, b); err != nil {
		t.check(err)
		stray := &Node{topology: t}
		return &Link{A: &End{node: stray}, B: &End{node: stray}}
	}
	l := &Link{A: a.end(ak), B: b.end(bk)}
	l.A.link, l.B.link = l, l
	t.links = append(t.links, l)
	return l
}

// Link declares a cable between two nodes: an interface in each. Both ends may
// be at the same node.
func (t *Topology) Link(a, b *Node) *Link { return t.connect(a, EndNIC, b, EndNIC) }

// SoftNPULink declares a cable from a front port of a node's SoftNPU ASIC (end
// A) to an interface of another node (end B). The ASIC appears with the node's
// first such link.
func (t *Topology) SoftNPULink(softnpu, node *Node) *Link {
	return t.connect(softnpu, EndSoftNPU, node, EndNIC)
}

// SoftNPULinks declares a cable between front ports of two SoftNPU ASICs.
func (t *Topology) SoftNPULinks(a, b *Node) *Link { return t.connect(a, EndSoftNPU, b, EndSoftNPU) }

// SidecarHeader is the layout of the header on a sidecar link, in bytes after
// the Ethernet header.
type SidecarHeader int

const (
	// SidecarHeader24 is the header of today's sidecar programs.
	SidecarHeader24 SidecarHeader = 24
	// SidecarHeader23 is the older header, without padding.
	SidecarHeader23 SidecarHeader = 23
)

// Sidecar describes a [Topology.SidecarLink].
type Sidecar struct {
	// Switch is the node with the switch ASIC.
	Switch *Node
	// Driver is the node that gets Radix interfaces, one for each front
	// port of the switch, multiplexed over the link.
	Driver *Node
	// Radix is the number of those interfaces, 1 to 64.
	Radix int
	// Header is the layout of the sidecar header; SidecarHeader24 when 0.
	Header SidecarHeader
}

// SidecarLink declares the older arrangement of a switch and its driver: end A
// is an interface of the switch node, end B a set of interfaces of the driver.
func (t *Topology) SidecarLink(s Sidecar) *Link {
	l := t.connect(s.Switch, EndNIC, s.Driver, EndSidecar)
	if s.Header == 0 {
		s.Header = SidecarHeader24
	}
	if s.Header != SidecarHeader23 && s.Header != SidecarHeader24 {
		t.check(fmt.Errorf("sidecar link: header of %d bytes, want 23 or 24", s.Header))
	}
	if s.Radix < 1 || s.Radix > 64 {
		t.check(fmt.Errorf("sidecar link: radix %d is not within 1 to 64", s.Radix))
	}
	l.sidecar, l.B.radix = s.Header, s.Radix
	return l
}

func (n *Node) connectExternal(x external) *Link {
	l := &Link{A: n.end(EndNIC), external: &x}
	l.A.link = l
	n.topology.links = append(n.topology.links, l)
	return l
}

// ExtLink declares a link to the network of a host interface, which the host
// and other nodes may use as well. It needs root.
func (n *Node) ExtLink(hostInterface string) *Link {
	n.topology.check(validHostInterface(n, hostInterface))
	return n.connectExternal(external{host: hostInterface})
}

// ExtLinkExclusive hands a host interface to the node alone: every frame that
// it receives goes to the guest, and the host itself can no longer use it.
func (n *Node) ExtLinkExclusive(hostInterface string) *Link {
	n.topology.check(validHostInterface(n, hostInterface))
	return n.connectExternal(external{host: hostInterface, exclusive: true})
}

// DefaultExtLink declares a link to the network of the host interface that
// carries the default route when the topology is launched.
func (n *Node) DefaultExtLink() *Link { return n.connectExternal(external{}) }

// UserExtLink declares a link to the outside through the hypervisor's own
// address translation, with DHCP: outgoing connections only, no privilege
// needed. It exists on Linux hosts.
func (n *Node) UserExtLink() *Link { return n.connectExternal(external{user: true}) }
