package sim

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/link"
	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/falcon-vm/falcon-go/propolis/server"
)

// guest is a simulated machine with its guest. It is a [server.Machine].
type guest struct {
	cfg    NodeConfig
	script *Script
	links  *links
	base   map[string]*file
	spec   propolis.InstanceSpec
	term   *terminal
	// shares are the 9p file systems by tag.
	shares map[string]string

	mu     sync.Mutex
	life   *life
	events chan server.Event
	gone   bool // the events are closed
}

// life is a guest from its start to a reset or its end.
type life struct {
	g      *guest
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}
	start  time.Time
	files  *files
	nics   []*nic
	// boot is what the script says of its boot.
	boot Rule
	// up is closed when the guest lets people in.
	up chan struct{}
	// again tells that it is not the machine's first.
	again bool
	// setUp tells that a command has been handed over.
	setUp bool

	mu       sync.Mutex
	hostname string
}

// ErrScript ends the errors that a script asks for.
var ErrScript = errors.New("the script says so")

// newMachine makes the machine of a node, stopped.
func (w *world) newMachine(cfg NodeConfig, script *Script, spec propolis.InstanceSpec) (*guest, error) {
	g := &guest{
		cfg: cfg, script: script, links: w.links, base: w.base(cfg.OS), spec: spec, term: newTerminal(),
		shares: make(map[string]string), events: make(chan server.Event, 16),
	}
	for _, c := range spec.Components {
		if p9, ok := c.(propolis.P9FS); ok {
			g.shares[p9.Target] = p9.Source
		}
	}
	if _, err := g.plugIn(); err != nil {
		return nil, err
	}
	return g, nil
}

// plugIn returns the interfaces of the spec in the order in which a guest finds
// them, that of their PCI slots.
func (g *guest) plugIn() ([]*nic, error) {
	type slot struct {
		path    propolis.PCIPath
		backend string
	}
	var slots []slot
	for _, c := range g.spec.Components {
		if n, ok := c.(propolis.VirtioNIC); ok {
			slots = append(slots, slot{n.PCIPath, n.BackendID})
		}
	}
	slices.SortFunc(slots, func(a, b slot) int {
		return cmp.Or(cmp.Compare(a.path.Bus, b.path.Bus), cmp.Compare(a.path.Device, b.path.Device), cmp.Compare(a.path.Function, b.path.Function))
	})
	var nics []*nic
	for i, s := range slots {
		backend, ok := g.spec.Components[s.backend].(propolis.VirtioNetworkBackend)
		if !ok {
			return nil, fmt.Errorf("no virtio_network_backend component %q", s.backend)
		}
		v, err := link.ParseVNICName(backend.VNICName)
		if err != nil {
			return nil, err
		}
		mac, err := net.ParseMAC(v.MAC)
		if err != nil { // a device of somebody's own, which has its address
			sum := sha256.Sum256([]byte(g.cfg.Name + s.backend + v.Name))
			mac = net.HardwareAddr(sum[:6])
			mac[0] = mac[0]&^1 | 2
		}
		n := newNIC(g.links, fmt.Sprintf("eth%d", i), mac, v.MTU)
		if v.Kind == link.VNICSocket {
			n.device, n.peer = v.Name, v.Peer
		}
		nics = append(nics, n)
	}
	return nics, nil
}

// Console is COM1.
func (g *guest) Console() io.ReadWriteCloser { return port{g.term} }

// PID is the world's.
func (g *guest) PID() int { return os.Getpid() }

// Events tells what the guest does.
func (g *guest) Events() <-chan server.Event { return g.events }

// Run starts the guest.
func (g *guest) Run(context.Context) error {
	if r := g.script.Next(StepStart, g.cfg.Name); r.Effect == Die {
		g.die()
		return nil
	}
	return g.powerOn(false)
}

func (g *guest) powerOn(again bool) error {
	boot := g.script.Next(StepBoot, g.cfg.Name)
	if boot.Effect == Fail {
		return fmt.Errorf("the simulated machine failed (%w)", ErrScript)
	}
	files, err := loadFiles(g.cfg.Disk, g.base)
	if err != nil {
		return err
	}
	nics, err := g.plugIn()
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.gone {
		return nil
	}
	l := &life{g: g, boot: boot, again: again, up: make(chan struct{}), done: make(chan struct{}), start: time.Now(), files: files, nics: nics, hostname: "localhost"}
	if name, err := files.read("/etc/hostname"); err == nil && len(strings.TrimSpace(string(name))) > 0 {
		l.hostname = strings.TrimSpace(string(name))
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.serveProc()
	for _, n := range nics {
		if n.device != "" {
			g.links.attach(n)
		}
	}
	g.life = l
	go func() {
		defer close(l.done)
		l.run()
	}()
	return nil
}

// powerOff ends the guest's life as it is.
func (g *guest) powerOff() {
	g.mu.Lock()
	l := g.life
	g.life = nil
	g.mu.Unlock()
	if l == nil {
		return
	}
	l.cancel()
	g.term.hangUp()
	<-l.done
	for _, n := range l.nics {
		if n.device != "" {
			g.links.detach(n)
		}
	}
	l.files.close()
}

// Reset is a hard reset: what was not written to the disk is lost.
func (g *guest) Reset(context.Context) error {
	g.powerOff()
	return g.powerOn(true)
}

// PowerDown presses the power button.
func (g *guest) PowerDown(context.Context) error {
	switch r := g.script.Next(StepStop, g.cfg.Name); r.Effect {
	case Never:
		return nil
	case Delay:
		go func() {
			if Sleep(g.current().ctx, r.Delay) == nil {
				g.shutDown(server.Event{Kind: server.Shutdown, ByGuest: true})
			}
		}()
		return nil
	}
	go g.shutDown(server.Event{Kind: server.Shutdown, ByGuest: true})
	return nil
}

// current returns the guest's life; one that has ended when it is off.
func (g *guest) current() *life {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.life != nil {
		return g.life
	}
	l := &life{g: g}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.cancel()
	return l
}

// shutDown ends the guest in order, and tells it.
func (g *guest) shutDown(e server.Event) {
	l := g.current()
	if l.files == nil {
		return
	}
	if err := l.sync(); err != nil {
		fmt.Fprintf(g.term, "[%12.6f] writing the disk: %v\n", time.Since(l.start).Seconds(), err)
	}
	g.powerOff()
	g.tell(e)
}

// restart is what the guest does when it is told to reboot inside.
func (g *guest) restart() {
	g.shutDown(server.Event{Kind: server.Reset, ByGuest: true})
	if err := g.powerOn(true); err != nil {
		g.fail(err)
	}
}

// sync writes the guest's files to its disk.
func (l *life) sync() error { return l.files.sync(l.g.cfg.Disk) }

// tell tells an event unless the machine has gone.
func (g *guest) tell(e server.Event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.gone {
		return
	}
	select {
	case g.events <- e:
	default: // the server has what it needs to know
	}
}

// die ends the machine as if its hypervisor were killed.
func (g *guest) die() { g.fail(fmt.Errorf("the simulated hypervisor died (%w)", ErrScript)) }

// fail ends the machine with an error; nil is its orderly end.
func (g *guest) fail(err error) {
	g.mu.Lock()
	if g.gone {
		g.mu.Unlock()
		return
	}
	g.gone = true
	for len(g.events) > 0 { // they lose their meaning
		<-g.events
	}
	g.events <- server.Event{Kind: server.Exited, Err: err}
	close(g.events)
	g.mu.Unlock()
	go func() { // it may be the guest itself that calls
		g.powerOff()
		g.term.close()
	}()
}

// Close ends the machine.
func (g *guest) Close(context.Context) error {
	g.fail(nil)
	g.powerOff()
	g.term.close()
	return nil
}

// SwitchOverlay has nothing to do: snapshots share nothing with a disk.
func (g *guest) SwitchOverlay(context.Context, string, string) error { return nil }

// Save is refused: a simulated guest boots at once anyway.
func (g *guest) Save(context.Context) error {
	return errors.New("a simulated machine is not kept as a template")
}

// NMI is heard by the guest's kernel.
func (g *guest) NMI(context.Context) error {
	l := g.current()
	fmt.Fprintf(g.term, "[%12.6f] Uhhuh. NMI received for unknown reason 20 on CPU 0.\n", time.Since(l.start).Seconds())
	return nil
}
