package falcon

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/process"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
	"github.com/falcon-vm/falcon-go/propolis"
)

// host is what falcon asks of the machine that it runs on. There is one
// implementation for each platform.
type host interface {
	fabric
	hypervisor
	// look reports what the host can do and what a topology would meet
	// there. It changes nothing.
	look(ctx context.Context, t *Topology) (hostFacts, error)
	// survey reports what the host can do.
	survey(ctx context.Context) []Check
	// store keeps images and the disks of nodes.
	store() image.Store
	// registry lists the topologies on the host.
	registry() state.Registry
	// kind is the name of the host in a record: that of the system, or
	// HostSim.
	kind() string
}

// Hosts that a topology can run on.
const (
	// HostNative is the machine's own system.
	HostNative = runtime.GOOS
	// HostIllumos is a machine with illumos, wherever that is spoken of.
	HostIllumos = "illumos"
	// HostSim is simulated: its guests are part of a process, and need no
	// hypervisor, no privilege and no time.
	HostSim = "sim"
)

// hostEnv names the environment's choice of a host.
const hostEnv = "FALCON_HOST"

// hostChoice is the kind of a host, the home and the dataset of its images as in
// [image.Options], and the script of a simulated one.
type hostChoice struct {
	kind, home, dataset, script string
	// open stands for newHost in tests.
	open hostOpener
}

type hostOpener func(c hostChoice, topology string, folder *state.Folder, log *slog.Logger) (host, error)

// newHost returns the host of a topology.
func newHost(c hostChoice, topology string, folder *state.Folder, log *slog.Logger) (host, error) {
	switch {
	case c.open != nil:
		return c.open(c, topology, folder, log)
	case c.kind == HostNative:
		return newNativeHost(c, topology, folder, log)
	case c.kind == HostSim:
		return newSimHost(cmp.Or(c.script, os.Getenv(simEnv)), c.home, folder, log)
	case c.kind == HostIllumos:
		return nil, fmt.Errorf("host %s (%s): this machine has %s; what a launch would do there is shown by launch --dry-run, everything else must be done there",
			HostIllumos, hostEnv, HostNative)
	}
	return nil, fmt.Errorf("host %q: want %s or %s (%s)", c.kind, HostNative, HostSim, hostEnv)
}

// hosts returns a lab on the chosen host, and one on each other host of this
// machine that can be used: what is listed or left over may be of any. The home
// is the environment's choice when it is empty.
func hosts(home string) ([]*lab, error) {
	chosen, err := labOf(hostChoice{home: home})
	if err != nil {
		return nil, err
	}
	labs := []*lab{chosen}
	for _, kind := range []string{HostNative, HostSim} {
		if kind == chosen.host.kind() {
			continue
		}
		if l, err := labOf(hostChoice{kind: kind, home: home}); err == nil {
			labs = append(labs, l)
		}
	}
	return labs, nil
}

// Images returns the store of images of the host that the environment chooses.
func Images() (image.Store, error) {
	if os.Getenv(hostEnv) == HostSim {
		return newSimStore()
	}
	return image.Open(image.Options{})
}

// hostFacts are the parts of facts that only the host knows.
type hostFacts struct {
	defaultInterface                 string
	noSoftNPU, noSidecar, noExternal string
	noProgram                        string
	// freeMemory is what guests may use, in bytes.
	freeMemory Bytes
	// checks are the host's findings for a preflight.
	checks []Check
	hostLimits
}

// preparer is a host that has to fetch or to check something before a command
// that starts nodes makes anything.
type preparer interface {
	prepare(ctx context.Context, l *lab) error
}

// fabric makes links.
type fabric interface {
	fabricNames
	// namespacePath is where a node's server finds the devices; empty for
	// its own network namespace.
	namespacePath() string
	// createLinks makes all devices of a plan but those that stand, without
	// those of external links.
	createLinks(ctx context.Context, p *Plan) error
	// createExternal makes the device of an external link.
	createExternal(ctx context.Context, i *InterfacePlan) error
	// standing finds what the topology of the folder's ID has on the host,
	// whatever is written down of it: Links and External.
	standing(ctx context.Context) ([]state.Object, error)
	// destroyLinks removes all that createLinks has made under a name, the
	// plan's namespace.
	destroyLinks(ctx context.Context, namespace string) error
	// destroyExternal removes the device of an external link.
	destroyExternal(ctx context.Context, o state.Object) error
	// abandonedLinks finds devices of topologies whose folders' IDs are not
	// listed, and that no guest uses.
	abandonedLinks(ctx context.Context, listed map[string]bool) ([]Leftover, error)
	// inspect returns the devices that stand by their full names.
	inspect(ctx context.Context, p *Plan) (map[string]deviceStatus, error)
}

// deviceStatus is the state of a host device.
type deviceStatus struct {
	Up                 bool
	RxBytes, TxBytes   uint64
	RxFrames, TxFrames uint64
}

// hypervisor runs the server of a node.
type hypervisor interface {
	// serve starts the Propolis server of a node; record is called with the
	// identity of its process before it does anything. Where that process is
	// the node's alone, its number is in the node's pid file.
	serve(ctx context.Context, l *lab, np *NodePlan, o serveOptions, record func(process.Identity) error) (nodeServer, error)
	// client returns a client for the node's server.
	client(f *state.Folder, node string) (*propolis.Client, error)
	// address is where the node's API is served, for people.
	address(f *state.Folder, node string) string
	// end ends the server of a node, and with it the guest, and removes what
	// is left of it; after the grace by force. That it has ended already is no error.
	end(ctx context.Context, f *state.Folder, o state.Object, grace time.Duration) error
}

// serveOptions say what a node's server is to do with its plan.
type serveOptions struct {
	// id will be the instance's UUID.
	id string
	// template is the folder of the template that the instance is a clone of,
	// or is to become where make is set; empty for neither.
	template string
	make     bool
}

// templater is a host whose nodes can be clones of a guest that has booted once.
type templater interface {
	// vmm identifies the hypervisor: another one does not understand what
	// this one has kept.
	vmm() (string, error)
}

// nodeServer is the server of a node as long as its starter looks after it.
type nodeServer interface {
	// Done is closed when it has ended, and Err then says how; nil for exit
	// status 0.
	Done() <-chan struct{}
	Err() error
}
