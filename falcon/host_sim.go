package falcon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/link"
	"github.com/falcon-vm/falcon-go/falcon/internal/process"
	"github.com/falcon-vm/falcon-go/falcon/internal/sim"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
	"github.com/falcon-vm/falcon-go/propolis"
)

// simEnv names the environment's script of a simulated host.
const simEnv = "FALCON_SIM"

// simHost runs nodes in a process of this program's that serves the whole
// topology.
type simHost struct {
	folder *state.Folder
	images *sim.Store
	script *sim.Script
	world  sim.Client
	log    *slog.Logger
}

func newSimHost(script, home string, folder *state.Folder, log *slog.Logger) (host, error) {
	rules, err := sim.ParseScript(script)
	if err != nil {
		return nil, fmt.Errorf("the script of the simulated host (%s): %w", simEnv, err)
	}
	s := sim.NewScript(rules)
	return &simHost{
		folder: folder, images: sim.OpenStore(home, s), script: s, log: log,
		world: sim.Client{Folder: folder, Program: selfPath, Name: simName, Env: func() []string {
			return process.Mark{Lab: folder.ID(), Home: home}.Env()
		}},
	}, nil
}

// newSimStore returns the store of the simulated host as it is without a script.
func newSimStore() (*sim.Store, error) {
	home, err := image.DefaultHome()
	if err != nil {
		return nil, err
	}
	return sim.OpenStore(home, sim.NewScript(nil)), nil
}

func (h *simHost) store() image.Store { return h.images }

func (h *simHost) kind() string { return HostSim }

func (h *simHost) registry() state.Registry {
	return state.Registry{Dir: registryDir(h.images.Home())}
}

// simMemory is what a simulated host has for its guests: they take none.
const simMemory = Bytes(1 << 60)

func (h *simHost) look(ctx context.Context, _ *Topology) (hostFacts, error) {
	const notSimulated = "the simulated host has none"
	return hostFacts{
		defaultInterface: "sim0", noSoftNPU: "a SoftNPU ASIC: " + notSimulated, noSidecar: "a sidecar multiplexer: " + notSimulated,
		freeMemory: simMemory, checks: h.survey(ctx),
	}, nil
}

func (h *simHost) survey(context.Context) []Check {
	return []Check{
		{Name: "host", Detail: "simulated: no hypervisor, no privilege"},
		{Name: "home", Detail: h.images.Home()},
	}
}

func (h *simHost) name() string          { return "simulated" }
func (h *simHost) namespace() string     { return "" }
func (h *simHost) namespacePath() string { return "" }

func (h *simHost) device(_, node string, index int, _ bool) string {
	return fmt.Sprintf("%s.%d", node, index)
}

// vnic has the form of a pair of sockets, which says all that there is to say.
func (h *simHost) vnic(self, peer *InterfacePlan) string {
	if peer == nil {
		return link.UserVNIC(self.MAC, self.MTU)
	}
	return link.SocketVNIC(self.Device, peer.Device, self.MAC, self.MTU)
}

// simLinks lists the devices that stand, simExternal ends the names of the files
// that stand for those of external links.
const (
	simLinks    = "links.sim"
	simExternal = ".external"
)

func (h *simHost) createLinks(ctx context.Context, p *Plan) error {
	var devices []string
	for _, l := range p.Links {
		for _, e := range []Endpoint{l.A, l.B} {
			if err := h.createLink(ctx, e); err != nil {
				return err
			}
			devices = append(devices, h.device("", e.Node, e.Index, false))
		}
	}
	return h.folder.WriteJSON(simLinks, devices)
}

// busyDeadline bounds the attempts at a link that is busy.
const busyDeadline = 5 * time.Second

// errBusy is the error after which a link is tried again.
var errBusy = errors.New("device busy")

// createLink makes one end, as far as the script lets it.
func (h *simHost) createLink(ctx context.Context, e Endpoint) error {
	end := fmt.Sprintf("%s/%d", e.Node, e.Index)
	ctx, cancel := context.WithTimeoutCause(ctx, busyDeadline, fmt.Errorf("%w for %v", errBusy, busyDeadline))
	defer cancel()
	err := h.tryLink(ctx, end)
	for errors.Is(err, errBusy) && ctx.Err() == nil {
		h.log.Info("a link is busy", "node", e.Node, "interface", e.Index)
		// There is no event for what is busy to be free.
		if err = sim.Sleep(ctx, 10*time.Millisecond); err == nil {
			err = h.tryLink(ctx, end)
		}
	}
	if err != nil {
		return &NodeError{Node: e.Node, Err: fmt.Errorf("making the link at interface %d: %w", e.Index, err)}
	}
	return nil
}

func (h *simHost) tryLink(ctx context.Context, end string) error {
	switch r := h.script.Next(sim.StepLink, end); r.Effect {
	case sim.Busy:
		return errBusy
	case sim.Fail:
		return sim.ErrScript
	case sim.Delay:
		return sim.Sleep(ctx, r.Delay)
	}
	return nil
}

func (h *simHost) standing(context.Context) ([]state.Object, error) {
	var objects []state.Object
	names, err := h.folder.Names()
	for _, name := range names {
		if device, ok := strings.CutSuffix(name, simExternal); ok {
			objects = append(objects, state.Object{Kind: state.External, Name: device, Device: device})
		} else if name == simLinks {
			objects = append(objects, state.Object{Kind: state.Links})
		}
	}
	return objects, err
}

func (h *simHost) createExternal(ctx context.Context, i *InterfacePlan) error {
	return h.folder.WriteFile(i.Device+simExternal, nil)
}

func (h *simHost) destroyLinks(context.Context, string) error { return h.folder.RemoveFile(simLinks) }

func (h *simHost) destroyExternal(_ context.Context, o state.Object) error {
	return h.folder.RemoveFile(o.Device + simExternal)
}

func (h *simHost) abandonedLinks(context.Context, map[string]bool) ([]Leftover, error) {
	return nil, nil // they are in the folder, and go with it
}

func (h *simHost) inspect(ctx context.Context, p *Plan) (map[string]deviceStatus, error) {
	var linked []string
	if err := h.folder.ReadJSON(simLinks, &linked); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	stands := make(map[string]bool)
	for _, d := range linked {
		stands[d] = true
	}
	counters, err := h.world.Counters(ctx)
	devices := make(map[string]deviceStatus)
	for _, n := range p.Nodes {
		for _, i := range n.Interfaces {
			if stands[i.Device] || i.Device != "" && h.folder.Has(i.Device+simExternal) {
				c := counters[i.Device]
				devices[i.Name] = deviceStatus{
					Up: c.Up, RxFrames: c.ReceivedFrames, RxBytes: c.ReceivedBytes, TxFrames: c.SentFrames, TxBytes: c.SentBytes}
			}
		}
	}
	return devices, err
}

// simServer is the server of a node. It ends when the process that serves all
// of them does.
type simServer struct{ done <-chan struct{} }

func (s simServer) Done() <-chan struct{} { return s.done }
func (s simServer) Err() error            { return nil }

func (h *simHost) serve(ctx context.Context, l *lab, np *NodePlan, _ serveOptions, record func(process.Identity) error) (nodeServer, error) {
	switch r := h.script.Next(sim.StepStart, np.Name); r.Effect {
	case sim.Fail:
		return nil, fmt.Errorf("starting its server: %w", sim.ErrScript)
	case sim.Delay:
		if err := sim.Sleep(ctx, r.Delay); err != nil {
			return nil, err
		}
	}
	done, err := h.world.Serve(ctx, sim.NodeConfig{
		Name: np.Name, Disk: np.Disk, Console: np.Console, OS: np.OS,
		Rules: h.script.For(np.Name), StopGraceMS: stopGrace.Milliseconds(),
		Agent: !isIllumosGuest(np.OS),
	}, record)
	if err != nil {
		return nil, err
	}
	return simServer{done}, nil
}

func (h *simHost) client(f *state.Folder, node string) (*propolis.Client, error) {
	return propolis.NewClient("unix:" + f.File(node+socketExt))
}

func (h *simHost) address(f *state.Folder, node string) string { return f.File(node + socketExt) }

// end has the process that serves all nodes end this one.
func (h *simHost) end(ctx context.Context, f *state.Folder, o state.Object, grace time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, serverDeadline, fmt.Errorf("no answer within %v", serverDeadline))
	defer cancel()
	var recorded process.Identity // nobody, when it was killed before that
	if o.Process != nil {
		recorded = *o.Process
	}
	if err := h.world.Remove(ctx, o.Name, recorded); err != nil {
		return err
	}
	return errors.Join(f.RemoveFile(o.Name+socketExt), f.RemoveFile(o.Name+agentExt))
}
