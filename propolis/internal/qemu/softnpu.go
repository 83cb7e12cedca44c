package qemu

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"github.com/maruel/natural"

	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/falcon-vm/falcon-go/propolis/softnpu"
)

// managementPort is the serial port of the ASIC's management channel, as it is
// with Propolis. In a Linux guest it is /dev/ttyS3.
const (
	managementPort  = "com4"
	managementIndex = 3
)

// softNPU adds the ASIC: what the guest sees of it, and the wires of its ports.
// Its loader of programs, which speaks a 9P of its own, is not there: its place
// on PCI stays empty.
func (b *builder) softNPU() {
	var ports []string
	cpu := b.cpuPortName()
	for _, name := range b.names() {
		switch b.spec.Components[name].(type) {
		case propolis.SoftNPUPort:
			ports = append(ports, name)
		case propolis.SoftNPUP9:
		case propolis.SoftNPUPCIPort:
			if name != cpu {
				b.refuse(name, "the ASIC's CPU port is %q already", cpu)
			}
			continue
		default:
			continue
		}
		if cpu == "" {
			b.refuse(name, "an ASIC needs a soft_npu_pci_port")
		}
	}
	if cpu == "" {
		return
	}
	if len(ports) > softnpu.MaxPorts {
		b.refuse(cpu, "the ASIC has %d ports; there can be %d", len(ports), softnpu.MaxPorts)
	}
	// As people count: port2 is before port10.
	slices.SortFunc(ports, natural.Compare)
	for _, name := range ports {
		b.softNPUPort(name)
	}
	if b.cfg.Template.making() {
		// The ASIC is no part of the guest: each clone gets its own.
		b.add("-chardev", option("null", "id", managementPort))
	} else {
		b.cmd.asic = true
		fd := strconv.Itoa(b.inherit(FD{Kind: FDManagement}))
		b.served("-chardev", option("socket", "id", managementPort, "fd", fd))
		b.hand("-chardev", option("null", "id", managementPort))
	}
	b.add("-device", option("isa-serial", "chardev", managementPort, "index", strconv.Itoa(managementIndex)))
}

// cpuPortName is the component that gives the machine an ASIC, empty if none
// does.
func (b *builder) cpuPortName() string {
	for _, name := range b.names() {
		if _, ok := b.spec.Components[name].(propolis.SoftNPUPCIPort); ok {
			return name
		}
	}
	return ""
}

// softNPUPort adds the wire of a front port.
func (b *builder) softNPUPort(name string) {
	c := b.spec.Components[name].(propolis.SoftNPUPort)
	backend, ok := b.spec.Components[c.BackendID].(propolis.DLPINetworkBackend)
	if !ok {
		b.refuseBackend(name, c.BackendID, "dlpi_network_backend")
		return
	}
	v, err := parseVNIC(backend.VNICName)
	if err == nil && v.kind == vnicUser {
		err = fmt.Errorf("vnic name %q: a port of an ASIC is on a network device or a socket", backend.VNICName)
	}
	if err != nil {
		b.refuse(c.BackendID, "%v", err)
		return
	}
	b.cmd.ports = append(b.cmd.ports, v)
}

// cpuPort adds the NIC by which the guest reaches the ASIC.
func (b *builder) cpuPort(name string, c propolis.SoftNPUPCIPort, at []string) {
	id, mac := objectID("net", name), cpuMAC(b.cfg.ID)
	if b.cfg.Template.making() {
		b.looseCable(id, vnic{kind: vnicDgram}, c.PCIPath)
		mac = placeholder(c.PCIPath)
	} else {
		b.ownCable(id, FD{Kind: FDCPUPort})
	}
	b.ownAddress(c.PCIPath, mac.String())
	b.device("virtio-net-pci", objectID("dev", name), at, "netdev", id, "mac", mac.String(), "romfile", "",
		"host_mtu", strconv.Itoa(cpuMTU))
}

// cpuMTU leaves room for a sidecar header on a frame of a link; it is that of
// SoftNPU.
const cpuMTU = 9216

// cpuMAC is the address of the CPU port: one of those that SoftNPU chooses from
// at random, but the same for the same instance.
func cpuMAC(id string) MAC {
	sum := sha256.Sum256([]byte("CPU port of " + id))
	return MAC{0xa8, 0x40, 0x25, 0xf0 | sum[0]&0x0f, sum[1], sum[2]}
}

// switching is what this process does for a machine's frames: its ASIC, and the
// sharing of sidecar cables.
type switching struct {
	asic   *softnpu.ASIC // nil if there is none
	end    context.CancelFunc
	served sync.WaitGroup
}

// startSwitching opens what a command's frames pass through, and has them
// forwarded, and the guest's requests on the management channel answered, until
// it is closed. It owns from then on what f has for it. What ends it before is
// logged: the machine goes on without it, as with any device that is broken.
func startSwitching(cfg Config, c Command, f *files) (_ *switching, err error) {
	ctx, end := context.WithCancel(context.Background())
	s := &switching{end: end}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := s.startMuxes(ctx, cfg, c, f); err != nil {
		return nil, err
	}
	if !c.asic {
		return s, nil
	}
	wires := make([]softnpu.Wire, 0, len(c.ports))
	for i, v := range c.ports {
		w, err := openPort(v, cfg.NetNS)
		if err != nil {
			closeWires(wires)
			return nil, fmt.Errorf("port %d of the ASIC: %w", i+1, err)
		}
		wires = append(wires, w)
	}
	s.asic, err = softnpu.New(softnpu.Config{Ports: wires, CPU: f.cpu, Log: cfg.log()})
	if err != nil {
		closeWires(wires)
		return nil, err
	}
	management := f.management.(softnpu.Channel)
	f.cpu, f.management = nil, nil
	s.run(ctx, cfg, "ASIC", s.asic.Serve)
	s.run(ctx, cfg, "management channel", func(ctx context.Context) error { return s.asic.ServeManagement(ctx, management) })
	return s, nil
}

// startMuxes has the NICs on each sidecar cable share it.
func (s *switching) startMuxes(ctx context.Context, cfg Config, c Command, f *files) error {
	muxes := make(map[string]*softnpu.SidecarMux)
	for i, v := range c.sidecars {
		m := muxes[v.name]
		if m == nil {
			m = &softnpu.SidecarMux{Header: v.header, Log: cfg.log()}
			muxes[v.name] = m
		}
		if v.port != len(m.Ports) || v.header != m.Header {
			return fmt.Errorf("port %d of sidecar cable %s: want port %d with a header of %d bytes", v.port, v.name, len(m.Ports), m.Header)
		}
		m.Ports = append(m.Ports, f.sidecars[i])
	}
	for i, v := range c.sidecars {
		m := muxes[v.name]
		if m.Link == nil {
			link, err := openPort(v, cfg.NetNS)
			if err != nil {
				return fmt.Errorf("sidecar cable: %w", err)
			}
			m.Link = link
			s.run(ctx, cfg, "sidecar cable", m.Serve)
		}
		f.sidecars[i] = nil // it is the multiplexer's
	}
	return nil
}

func (s *switching) run(ctx context.Context, cfg Config, what string, serve func(context.Context) error) {
	s.served.Go(func() {
		if err := serve(ctx); err != nil && ctx.Err() == nil {
			cfg.log().Error("a part of the machine has failed", "part", what, "error", err.Error())
		}
	})
}

func closeWires(wires []softnpu.Wire) {
	for _, w := range wires {
		_ = w.Close() // the error that matters came before
	}
}

// openPort opens the wire of a front port, or of a sidecar cable.
func openPort(v vnic, netns string) (softnpu.Wire, error) {
	switch {
	case v.kind == vnicDgram, v.kind == vnicSidecar && v.peer != "":
		return softnpu.OpenSockets(v.name, v.peer)
	case v.kind == vnicHost:
		return softnpu.OpenDevice(v.name, "")
	}
	return softnpu.OpenDevice(v.name, netns)
}

func (s *switching) close() {
	s.end()
	s.served.Wait()
}

// ASIC returns the machine's switch ASIC, nil if it has none. It ends with the
// machine.
func (m *Machine) ASIC() *softnpu.ASIC { return m.switching.asic }
