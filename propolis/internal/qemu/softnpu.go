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
	if b.cfg.Template != nil {
		b.refuse(cpu, "the state of an ASIC cannot be kept")
	}
	if len(ports) > softnpu.MaxPorts {
		b.refuse(cpu, "the ASIC has %d ports; there can be %d", len(ports), softnpu.MaxPorts)
	}
	// As people count: port2 is before port10.
	slices.SortFunc(ports, natural.Compare)
	for _, name := range ports {
		b.softNPUPort(name)
	}
	b.cmd.asic = true
	fd := strconv.Itoa(b.inherit(FD{Kind: FDManagement}))
	b.served("-chardev", option("socket", "id", managementPort, "fd", fd))
	b.hand("-chardev", option("null", "id", managementPort))
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
func (b *builder) cpuPort(name string, at []string) {
	id := objectID("net", name)
	fd := b.inherit(FD{Kind: FDCPUPort})
	b.served("-netdev", option("dgram", "id", id, "local.type", "fd", "local.str", strconv.Itoa(fd)))
	b.hand("-netdev", option("hubport", "id", id, "hubid", "0"))
	b.device("virtio-net-pci", objectID("dev", name), at, "netdev", id, "mac", cpuMAC(b.cfg.ID).String(), "romfile", "",
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

// asic is the ASIC of a machine.
type asic struct {
	*softnpu.ASIC
	end    context.CancelFunc
	served sync.WaitGroup
}

// startASIC makes the ASIC of a command, if it has one, and has it forward
// frames and answer what the guest asks by its serial port until it is closed.
// It owns from then on what f has for it. What ends it before is logged: the
// machine goes on without it, as with any device that is broken.
func startASIC(cfg Config, c Command, f *files) (*asic, error) {
	if !c.asic {
		return nil, nil
	}
	wires := make([]softnpu.Wire, 0, len(c.ports))
	closeAll := func() {
		for _, w := range wires {
			_ = w.Close() // the error that matters came before
		}
	}
	for i, v := range c.ports {
		w, err := openPort(v, cfg.NetNS)
		if err != nil {
			closeAll()
			return nil, fmt.Errorf("port %d of the ASIC: %w", i+1, err)
		}
		wires = append(wires, w)
	}
	npu, err := softnpu.New(softnpu.Config{Ports: wires, CPU: f.cpu, Log: cfg.log()})
	if err != nil {
		closeAll()
		return nil, err
	}
	ctx, end := context.WithCancel(context.Background())
	a := &asic{ASIC: npu, end: end}
	report := func(what string, err error) {
		if err != nil && ctx.Err() == nil {
			cfg.log().Error("the ASIC has failed", "part", what, "error", err.Error())
		}
	}
	management := f.management.(softnpu.Channel)
	a.served.Go(func() { report("ports", npu.Serve(ctx)) })
	a.served.Go(func() { report("management", npu.ServeManagement(ctx, management)) })
	f.cpu, f.management = nil, nil
	return a, nil
}

func openPort(v vnic, netns string) (softnpu.Wire, error) {
	switch v.kind {
	case vnicDgram:
		return softnpu.OpenSockets(v.name, v.peer)
	case vnicHost:
		return softnpu.OpenDevice(v.name, "")
	}
	return softnpu.OpenDevice(v.name, netns)
}

// close ends the ASIC. A nil one is none.
func (a *asic) close() {
	if a != nil {
		a.end()
		a.served.Wait()
	}
}

// ASIC returns the machine's switch ASIC, nil if it has none. It ends with the
// machine.
func (m *Machine) ASIC() *softnpu.ASIC {
	if m.asic == nil {
		return nil
	}
	return m.asic.ASIC
}
