package falcon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/falcon/internal/link"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
)

// newFabric returns how this process makes links: as kernel devices in the
// topology's own network namespace when it may, else as sockets in the state
// folder.
func newFabric(topology string, folder *state.Folder) fabric {
	if !mayMakeDevices() {
		return &socketFabric{folder, link.Sockets{Dir: folder.Path()}}
	}
	return &kernelFabric{topology: topology, folder: folder}
}

// mayMakeDevices reports whether this process has root's powers over network
// devices. Root in a container may not.
func mayMakeDevices() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	const needed = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_SYS_ADMIN
	return os.Geteuid() == 0 && data[0].Effective&needed == needed && fileExists("/dev/net/tun")
}

// kernelFabric makes kernel devices. They carry the ID of the folder's topology,
// which is known for good only once the folder is locked.
type kernelFabric struct {
	topology string
	folder   *state.Folder
}

func (f *kernelFabric) kernel() *link.Kernel { return &link.Kernel{Namespace: f.namespace()} }

func (f *kernelFabric) name() string          { return "kernel" }
func (f *kernelFabric) namespacePath() string { return f.kernel().Path() }

func (f *kernelFabric) namespace() string {
	return link.NamespacePrefix + f.topology + "-" + f.folder.ID()
}

func (f *kernelFabric) standing(ctx context.Context) ([]state.Object, error) {
	namespaces, err := link.Namespaces(ctx)
	if err != nil {
		return nil, err
	}
	var objects []state.Object
	for _, name := range namespaces {
		if strings.HasSuffix(name, "-"+f.folder.ID()) {
			objects = append(objects, state.Object{Kind: state.Links, Name: name})
		}
	}
	externals, err := link.ExternalsOf("." + f.folder.ID())
	for _, x := range externals {
		objects = append(objects, state.Object{
			Kind: state.External, Name: strings.TrimSuffix(x.Name, "."+f.folder.ID()), Device: x.Device, Host: x.Host})
	}
	return objects, err
}

// maxDevice leaves room for the name of the device that joins a port of the
// host to a guest's.
const maxDevice = link.MaxDevice - 1

// device names a device after its node where that fits, and after a digest of
// its full name elsewhere. Devices of external links are among those of the
// host and have the folder's digest in their names.
func (f *kernelFabric) device(full, node string, index int, external bool) string {
	if external {
		return externalDevice(f.folder.ID(), full)
	}
	if name := fmt.Sprintf("%s-%d", node, index); len(name) <= maxDevice {
		return name
	}
	return node[:3] + "-" + digest(full)[:maxDevice-4]
}

func externalDevice(id, full string) string { return "fx" + digest(id + full)[:10] }

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func (f *kernelFabric) vnic(self, _ *InterfacePlan) string {
	switch {
	case self.External == "user":
		return link.UserVNIC(self.MAC, self.MTU)
	case self.External != "":
		return link.HostVNIC(self.Device, self.MTU)
	}
	return link.KernelVNIC(self.Device, self.MTU)
}

func (f *kernelFabric) createLinks(ctx context.Context, p *Plan) error {
	cables, err := cables(p)
	if err != nil {
		return err
	}
	return f.kernel().Create(ctx, cables, nil)
}

// cables translates the links of a plan.
func cables(p *Plan) ([]link.Cable, error) {
	var cables []link.Cable
	for _, l := range p.Links {
		a, err := cableEnd(p, l.A)
		if err != nil {
			return nil, err
		}
		b, err := cableEnd(p, l.B)
		if err != nil {
			return nil, err
		}
		cables = append(cables, link.Cable{A: a, B: b, MTU: l.MTU})
	}
	return cables, nil
}

func cableEnd(p *Plan, e Endpoint) (link.End, error) {
	i := &p.Node(e.Node).Interfaces[e.Index]
	mac, err := net.ParseMAC(i.MAC)
	if err != nil {
		return link.End{}, fmt.Errorf("interface %d of node %s: %w", e.Index, e.Node, err)
	}
	end := link.End{Name: i.Name, Device: i.Device, MAC: mac, Kind: link.VM}
	if i.Kind == EndSoftNPU || i.Kind == EndSidecar {
		end.Kind = link.Host // a node's server is there, and not its guest
	}
	return end, nil
}

func (f *kernelFabric) destroyLinks(ctx context.Context, namespace string) error {
	return (&link.Kernel{Namespace: namespace}).Destroy(ctx, nil)
}

func (f *kernelFabric) createExternal(ctx context.Context, i *InterfacePlan) error {
	mac, err := net.ParseMAC(i.MAC)
	if err != nil {
		return err
	}
	return f.kernel().Create(ctx, nil, []link.External{{
		Name: f.hostName(i.Name), Device: i.Device, MAC: mac, Host: i.External, Exclusive: i.Exclusive}})
}

// hostName is the full name of a device among those of the host, where another
// folder's topology may have the same name.
func (f *kernelFabric) hostName(full string) string { return full + "." + f.folder.ID() }

func (f *kernelFabric) destroyExternal(ctx context.Context, o state.Object) error {
	return link.DestroyExternals([]link.External{{Name: f.hostName(o.Name), Device: o.Device, Host: o.Host}})
}

func (f *kernelFabric) inspect(ctx context.Context, p *Plan) (map[string]deviceStatus, error) {
	var externals []link.External
	for _, n := range p.Nodes {
		for _, i := range n.Interfaces {
			if i.Peer == "" && i.Device != "" {
				externals = append(externals, link.External{Name: f.hostName(i.Name), Device: i.Device, Host: i.External})
			}
		}
	}
	devices, err := f.kernel().Inspect(ctx, externals)
	status := make(map[string]deviceStatus, len(devices))
	for name, d := range devices {
		status[strings.TrimSuffix(name, "."+f.folder.ID())] = deviceStatus{
			Up: d.Up, RxBytes: d.Rx.Bytes, TxBytes: d.Tx.Bytes, RxFrames: d.Rx.Packets, TxFrames: d.Tx.Packets}
	}
	return status, err
}

// socketFabric joins the hypervisors' own sockets in folders below the state
// folder.
type socketFabric struct {
	folder  *state.Folder
	sockets link.Sockets
}

func (f *socketFabric) standing(context.Context) ([]state.Object, error) {
	names, err := f.folder.Names()
	if slices.ContainsFunc(names, func(name string) bool { return strings.HasSuffix(name, link.SocketSuffix) }) {
		return []state.Object{{Kind: state.Links}}, err
	}
	return nil, err
}

func (f *socketFabric) name() string          { return "sockets" }
func (f *socketFabric) namespace() string     { return "" }
func (f *socketFabric) namespacePath() string { return "" }

func (f *socketFabric) device(_, node string, index int, external bool) string {
	if external {
		return ""
	}
	return f.sockets.File(node, index)
}

func (f *socketFabric) vnic(self, peer *InterfacePlan) string {
	if self.External != "" || peer == nil {
		return link.UserVNIC(self.MAC, self.MTU)
	}
	local, remote := f.sockets.Ends(self.Device, peer.Device)
	return link.SocketVNIC(local, remote, self.MAC, self.MTU)
}

func (f *socketFabric) createLinks(_ context.Context, p *Plan) error {
	for _, l := range p.Links {
		a, b := p.Node(l.A.Node).Interfaces[l.A.Index], p.Node(l.B.Node).Interfaces[l.B.Index]
		if err := f.sockets.Create(a.Device, b.Device); err != nil {
			return err
		}
	}
	return nil
}

func (f *socketFabric) createExternal(context.Context, *InterfacePlan) error {
	return errors.New("a link on a host interface needs root")
}

func (f *socketFabric) destroyLinks(context.Context, string) error { return f.sockets.Remove() }

func (f *socketFabric) destroyExternal(context.Context, state.Object) error { return nil }

func (f *socketFabric) inspect(context.Context, *Plan) (map[string]deviceStatus, error) {
	return nil, nil
}

func defaultInterface(ctx context.Context) (string, error) {
	name, err := link.DefaultRouteInterface(ctx)
	if errors.Is(err, link.ErrNoInterface) {
		return "", nil
	}
	return name, err
}

// interfaceChecks judges the host interfaces that a topology names.
func (h *linuxHost) interfaceChecks(ctx context.Context, t *Topology) []Check {
	var checks []Check
	for _, l := range t.links {
		x := l.external
		if x == nil || x.user || x.host == "" {
			continue
		}
		c := Check{Name: "interface " + x.host, Detail: "for node " + l.A.node.name}
		i, err := link.HostInterface(ctx, x.host)
		switch {
		case errors.Is(err, link.ErrNoInterface):
			c.Err = fmt.Errorf("the host has no interface %s: see `ip link`", x.host)
		case err != nil:
			c.Err = err
		case x.exclusive && i.DefaultRoute:
			c.Err = fmt.Errorf("interface %s carries the host's default route: used exclusively, the host would be off the network", x.host)
		}
		if c.Err != nil {
			c.Err = &NodeError{Node: l.A.node.name, Err: c.Err}
		}
		checks = append(checks, c)
	}
	return checks
}

func (f *kernelFabric) abandonedLinks(ctx context.Context, listed map[string]bool) ([]Leftover, error) {
	namespaces, err := link.Namespaces(ctx)
	if err != nil {
		return nil, err
	}
	var left []Leftover
	for _, name := range namespaces {
		k := &link.Kernel{Namespace: name}
		id := name[strings.LastIndexByte(name, '-')+1:]
		devices, err := k.Inspect(ctx, nil)
		if listed[id] || err == nil && anyCarrier(devices) {
			continue
		}
		left = append(left, Leftover{lab: id, Kind: "namespace", Name: name,
			Reason: "no listed topology owns it, and no guest is attached",
			remove: func(ctx context.Context) error { return k.Destroy(ctx, nil) }})
	}
	externals, err := link.ExternalsOf("")
	for _, x := range externals {
		i := strings.LastIndexByte(x.Name, '.') + 1
		id := x.Name[i:]
		if i == 0 || !state.ValidID(id) || listed[id] || x.Device != externalDevice(id, x.Name[:i-1]) {
			continue
		}
		left = append(left, Leftover{lab: id, Kind: "device", Name: x.Device + " on " + x.Host,
			Reason: "no listed topology owns it",
			remove: func(context.Context) error { return link.DestroyExternals([]link.External{x}) }})
	}
	return left, err
}

// anyCarrier reports whether a guest holds one of the devices.
func anyCarrier(devices map[string]link.Device) bool {
	for _, d := range devices {
		if d.Carrier {
			return true
		}
	}
	return false
}

func (f *socketFabric) abandonedLinks(context.Context, map[string]bool) ([]Leftover, error) {
	return nil, nil
}
