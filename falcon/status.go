package falcon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/state"
	"github.com/falcon-vm/falcon-go/propolis"
)

// StatusVersion is the version of the JSON form of a [Status].
const StatusVersion = 1

// NodeState is the state of a node in a [Status].
type NodeState string

// The states of a node.
const (
	NodeAbsent   NodeState = "absent"   // declared, not launched
	NodeStarting NodeState = "starting" // it is being created, or set up, by somebody at this moment
	// NodeUnfinished is a node that runs and whose set-up was broken off: the
	// program that started it has gone. See the reason.
	NodeUnfinished NodeState = "unfinished"
	NodeRunning    NodeState = "running"
	NodeStopping   NodeState = "stopping"
	NodeStopped    NodeState = "stopped" // by hyperstop, or by the guest itself
	NodeFailed     NodeState = "failed"  // see the reason
	// NodePaused is a machine that stands still, NodePanicked one whose kernel
	// has panicked and that was not reset since; see the reason.
	NodePaused   NodeState = "paused"
	NodePanicked NodeState = "panicked"
)

// Status is a topology as it is declared and as it stands.
type Status struct {
	Version   int      `json:"version"`
	Topology  string   `json:"topology"`
	Folder    string   `json:"folder"`
	Launched  bool     `json:"launched"`
	Flags     []string `json:"flags,omitempty"`
	Host      string   `json:"host"`
	Fabric    string   `json:"fabric"`
	Namespace string   `json:"namespace,omitempty"`
	// Storage is the room for its disks; nil where the host does not tell.
	Storage *Storage     `json:"storage,omitempty"`
	Nodes   []NodeStatus `json:"nodes"`
	// Problems are what was found damaged or lost of what falcon keeps of the
	// topology, and what stands without it.
	Problems []string `json:"problems,omitempty"`
}

// NodeStatus is a node as it is declared and as it stands.
type NodeStatus struct {
	Name  string    `json:"name"`
	State NodeState `json:"state"`
	// Reason says why a node has failed, or does not go on.
	Reason string `json:"reason,omitempty"`
	// Paused says why the machine stands still, Panic and DiskError what
	// happened last, Resets how often the guest has reset itself since it was
	// started, and when it did last, Watchdog when its watchdog fired last.
	Paused    *propolis.Pause     `json:"paused,omitempty"`
	Panic     *propolis.Panic     `json:"panic,omitempty"`
	DiskError *propolis.DiskError `json:"disk_error,omitempty"`
	Resets    int                 `json:"resets,omitempty"`
	LastReset *time.Time          `json:"last_reset,omitempty"`
	Watchdog  *time.Time          `json:"watchdog,omitempty"`
	Image     string              `json:"image"`
	// PID is the process of the hypervisor, 0 when there is none; ServerPID
	// that of the node's propolis-server.
	PID       int    `json:"pid"`
	ServerPID int    `json:"server_pid"`
	UUID      string `json:"uuid,omitempty"`
	// UptimeSeconds counts from the start of the node's server.
	UptimeSeconds int64 `json:"uptime_seconds"`
	// Start is how it was started last; nil where that is not known.
	Start *NodeStart `json:"start,omitempty"`
	Cores int        `json:"cores"`
	// Memory is the guest's. PSS is what the hypervisor takes of the host's
	// memory by now, ServerPSS what the server does: each with its share of
	// what several processes have in common. 0 where the host does not tell.
	Memory    Bytes  `json:"memory"`
	PSS       Bytes  `json:"pss,omitempty"`
	ServerPSS Bytes  `json:"server_pss,omitempty"`
	Disk      string `json:"disk,omitempty"`
	// Console is the address of the node's API, which serves the console.
	Console string       `json:"console,omitempty"`
	VNC     string       `json:"vnc,omitempty"`
	Mounts  []MountPlan  `json:"mounts,omitempty"`
	Links   []LinkStatus `json:"links"`
	Boot    string       `json:"boot"`
}

// LinkStatus is an interface of a node.
type LinkStatus struct {
	Index int     `json:"index"`
	Kind  EndKind `json:"kind"`
	Name  string  `json:"name"`
	MAC   string  `json:"mac"`
	// Slot is the guest's PCI slot, Device the host's device.
	Slot   string `json:"slot,omitempty"`
	Device string `json:"device,omitempty"`
	MTU    int    `json:"mtu,omitempty"`
	// Peer is the node at the other end, PeerIndex and PeerDevice its
	// interface there; External the host's interface instead.
	Peer       string `json:"peer,omitempty"`
	PeerIndex  int    `json:"peer_index"`
	PeerDevice string `json:"peer_device,omitempty"`
	External   string `json:"external,omitempty"`
	// Present is whether the host's device exists; nil where there is none
	// to look for. The counters are the guest's: sent is what it sent.
	Present        *bool  `json:"present,omitempty"`
	SentFrames     uint64 `json:"sent_frames"`
	SentBytes      uint64 `json:"sent_bytes"`
	ReceivedFrames uint64 `json:"received_frames"`
	ReceivedBytes  uint64 `json:"received_bytes"`
}

// Status looks at the topology. What is launched is shown as it was launched;
// nodes that are only declared are absent.
func (t *Topology) Status(ctx context.Context) (*Status, error) {
	if err := t.Validate(ctx); err != nil {
		return nil, err
	}
	l, err := t.open()
	if err != nil {
		return nil, err
	}
	r, err := l.loadOrNew()
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, l.remains(ctx))
	}
	s := &Status{
		Version: StatusVersion, Topology: t.name, Folder: l.folder.Path(),
		Host: l.host.kind(), Fabric: l.host.name(), Nodes: []NodeStatus{},
	}
	s.Problems = l.problems(ctx, r)
	if r != nil {
		s.Launched, s.Flags, s.Namespace = true, r.Flags, r.Plan.Namespace
		if s.Nodes, err = l.nodeStatuses(ctx, r); err != nil {
			return nil, err
		}
		if err := l.weigh(ctx, s.Nodes); err != nil {
			return nil, err
		}
		l.judgeDisks(ctx, s.Nodes)
		s.Storage = l.storage(ctx, r.Plan)
	}
	for _, n := range t.nodes {
		if r == nil || r.Plan.Node(n.name) == nil {
			s.Nodes = append(s.Nodes, absent(n))
		}
	}
	return s, nil
}

// absent is the status of a node that is only declared.
func absent(n *Node) NodeStatus {
	s := NodeStatus{Name: n.name, State: NodeAbsent, Image: n.image, Cores: n.cores, Memory: n.memory, Links: []LinkStatus{}}
	for _, e := range n.ends {
		link := LinkStatus{Index: e.index, Kind: e.kind, MAC: e.mac, MTU: e.link.mtu}
		if x := e.link.external; x != nil {
			link.External = x.host
		} else {
			link.Peer, link.PeerIndex = e.peer().node.name, e.peer().index
		}
		s.Links = append(s.Links, link)
	}
	return s
}

func (l *lab) nodeStatuses(ctx context.Context, r *record) ([]NodeStatus, error) {
	servers, err := l.servers()
	if err != nil {
		return nil, err
	}
	devices, err := l.host.inspect(ctx, r.Plan)
	if err != nil {
		l.log.Debug("looking at the links", "error", err)
	}
	nodes := make([]NodeStatus, len(r.Plan.Nodes))
	var look []func(context.Context) error
	for i := range r.Plan.Nodes {
		np := &r.Plan.Nodes[i]
		nodes[i] = NodeStatus{
			Name: np.Name, State: NodeStopped, Image: np.Image, UUID: r.IDs[np.Name], Cores: np.Cores, Memory: np.Memory,
			Start: l.startOf(np.Name),
			Disk:  np.Disk, VNC: l.screenOf(np), Mounts: np.Mounts, Links: linkStatuses(r.Plan, np, devices), Boot: np.Boot.Method,
		}
		if o, ok := servers[np.Name]; ok {
			look = append(look, func(ctx context.Context) error {
				l.lookAt(ctx, &nodes[i], o)
				l.lookAtIdentity(ctx, &nodes[i], np)
				return nil
			})
		}
	}
	return nodes, inParallel(ctx, look...)
}

// lookAt fills in what the node's server tells.
func (l *lab) lookAt(ctx context.Context, n *NodeStatus, o state.Object) {
	s, err := l.instanceState(ctx, o)
	switch {
	case errors.Is(err, errServerGone):
		n.State, n.Reason = NodeFailed, err.Error()+l.lastWords(n.Name)
		return
	case isNoInstance(err):
		n.State = NodeStarting
	case err != nil:
		n.State, n.Reason = NodeFailed, fmt.Sprintf("its propolis-server does not answer: %v", err)
	default:
		n.State = nodeState(s)
	}
	l.lookAtSetUp(n)
	if n.State == NodeFailed && n.Reason == "" {
		n.Reason = "its machine died" + l.lastWords(n.Name)
	}
	n.ServerPID, n.Console = o.Process.PID, l.host.address(l.folder, n.Name)
	if n.State == NodeStopped || n.State == NodeFailed {
		return
	}
	if vmm, err := o.Process.Child(vmmPID(l.folder, n.Name)); err == nil {
		n.PID = vmm.PID
	}
	l.lookAtMachine(ctx, n, o)
	if started, err := o.Process.Started(); err == nil {
		n.UptimeSeconds = int64(time.Since(started).Seconds())
	}
}

// lookAtSetUp tells a node that is set up from one that is being set up, and from
// one whose set-up was broken off.
func (l *lab) lookAtSetUp(n *NodeStatus) {
	if n.State != NodeRunning && n.State != NodeStarting {
		return
	}
	err := l.unfinished(n.Name)
	var broken *UnfinishedError
	switch {
	case errors.As(err, &broken):
		n.State, n.Reason = NodeUnfinished, err.Error()
	case err != nil:
		n.State = NodeStarting
	}
}

// lookAtIdentity tells a guest that has lost its set-up by a reset of its own.
func (l *lab) lookAtIdentity(ctx context.Context, n *NodeStatus, np *NodePlan) {
	if n.State == NodeRunning && n.Resets > 0 && !l.isSetUp(ctx, np, n.UUID) {
		n.State, n.Reason = NodeUnfinished, (&UnfinishedError{Node: n.Name, Stage: StageSetup, Cure: l.cure("hyperstart", n.Name)}).Error()
	}
}

// scale is a host that can tell how much of its memory a process takes.
type scale interface {
	// pss returns the proportional set size of a process.
	pss(pid int) (Bytes, error)
}

// weigh fills in what the processes of nodes take, where the host can tell.
func (l *lab) weigh(ctx context.Context, nodes []NodeStatus) error {
	h, ok := l.host.(scale)
	if !ok {
		return nil
	}
	var look []func(context.Context) error
	for i := range nodes {
		n := &nodes[i]
		if n.PID == 0 {
			continue
		}
		look = append(look, func(context.Context) error {
			var err, serr error
			n.PSS, err = h.pss(n.PID)
			n.ServerPSS, serr = h.pss(n.ServerPID)
			if err := errors.Join(err, serr); err != nil { // they may just have ended
				l.log.Debug("looking at the memory of a node's processes", "node", n.Name, "error", err)
			}
			return nil
		})
	}
	return inParallel(ctx, look...)
}

// isNoInstance reports whether a server answered that it has no instance yet.
func isNoInstance(err error) bool {
	var e *propolis.Error
	return errors.As(err, &e) && e.Code == propolis.CodeNoInstance
}

func nodeState(s propolis.InstanceState) NodeState {
	switch s {
	case propolis.StateCreating, propolis.StateStarting, propolis.StateMigrating:
		return NodeStarting
	case propolis.StateRunning, propolis.StateRebooting, propolis.StateRepairing:
		return NodeRunning
	case propolis.StateStopping:
		return NodeStopping
	case propolis.StateStopped, propolis.StateDestroyed:
		return NodeStopped
	}
	return NodeFailed
}

func linkStatuses(p *Plan, np *NodePlan, devices map[string]deviceStatus) []LinkStatus {
	links := make([]LinkStatus, 0, len(np.Interfaces))
	for _, i := range np.Interfaces {
		s := LinkStatus{
			Index: i.Index, Kind: i.Kind, Name: i.Name, MAC: i.MAC, Slot: i.Slot, Device: i.Device, MTU: i.MTU,
			Peer: i.Peer, PeerIndex: i.PeerIndex, External: i.External,
		}
		if i.Peer != "" {
			s.PeerDevice = p.Node(i.Peer).Interfaces[i.PeerIndex].Device
		}
		if devices != nil && i.Device != "" {
			d, present := devices[i.Name]
			s.Present = &present
			// The host receives what the guest sends.
			s.SentFrames, s.SentBytes = d.RxFrames, d.RxBytes
			s.ReceivedFrames, s.ReceivedBytes = d.TxFrames, d.TxBytes
		}
		links = append(links, s)
	}
	return links
}

// Flags returns what a launched topology remembers of the words by which its
// program declared it. The error wraps [ErrNotLaunched] when there is none.
func Flags(dir string) ([]string, error) {
	if dir == "" {
		dir = DefaultDir
	}
	f, err := state.Open(dir)
	if err != nil {
		return nil, err
	}
	h, err := loadHeader(f)
	if err != nil {
		return nil, err
	}
	return h.Flags, nil
}

// Listed is a topology on this host.
type Listed struct {
	Topology string    `json:"topology"`
	Folder   string    `json:"folder"`
	Created  time.Time `json:"created"`
	Nodes    int       `json:"nodes"`
	Running  int       `json:"running"`
	// Problem says what is wrong with it, such as that its folder is gone.
	Problem string `json:"problem,omitempty"`
}

// List returns the user's topologies on this host.
func List(ctx context.Context) ([]Listed, error) {
	labs, err := hosts("")
	if err != nil {
		return nil, err
	}
	var entries []state.Entry
	for _, l := range labs {
		of, err := l.host.registry().List()
		if err != nil {
			return nil, err
		}
		entries = append(entries, of...)
	}
	list := []Listed{}
	for _, e := range entries {
		item := Listed{Topology: e.Topology, Folder: e.Folder, Created: e.Created}
		if err := item.look(ctx, e.ID); err != nil {
			item.Problem = err.Error()
		}
		list = append(list, item)
	}
	return list, nil
}

// look counts the nodes of a listed topology.
func (item *Listed) look(ctx context.Context, id string) error {
	l, err := openLab(item.Folder, item.Topology, hostChoice{}, nil)
	if err != nil {
		return err
	}
	if _, known := l.folder.Identity(); known && l.folder.ID() != id {
		return errors.New("its state folder holds another topology now")
	}
	r, err := l.load()
	if err != nil {
		return err
	}
	nodes, err := l.nodeStatuses(ctx, r)
	item.Nodes = len(nodes)
	for _, n := range nodes {
		if n.State == NodeRunning {
			item.Running++
		}
	}
	return err
}
