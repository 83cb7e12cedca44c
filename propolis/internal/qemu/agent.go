package qemu

import (
	"fmt"
	"strconv"

	"github.com/falcon-vm/falcon-go/internal/agent"
	"github.com/falcon-vm/falcon-go/propolis"
)

// agentComponent stands for the agent's device where components take places. No
// component has that name: it has a space.
const agentComponent = "guest agent"

// agentSlots are the places for the agent's device on bus 0, in the order of
// preference. Falcon's own devices begin at 4, and slot 2 is where the screen is
// when it is free.
func agentSlots() []uint8 {
	slots := []uint8{3}
	for slot := uint8(pciDevices - 1); slot >= chipsetDevices; slot-- {
		if slot != 3 {
			slots = append(slots, slot)
		}
	}
	return slots
}

// planAgent finds a place for the agent's device that no component has.
func (b *builder) planAgent() {
	if !b.cfg.Agent {
		return
	}
	used := make(map[uint8]bool)
	for path := range b.pci.taken {
		if path.Bus == rootBus {
			used[path.Device] = true
		}
	}
	for _, slot := range agentSlots() {
		if !used[slot] {
			b.pci.agent = slot
			b.pci.taken[propolis.PCIPath{Bus: rootBus, Device: slot}] = agentComponent
			return
		}
	}
	b.refuse("instance", "no PCI slot is left for the guest agent's port")
}

// agentPort adds the virtio-serial port of the guest agent. A person's QEMU has
// the same port with nobody at its end.
func (b *builder) agentPort() {
	if !b.cfg.Agent {
		return
	}
	fd := b.inherit(FD{Kind: FDAgent})
	b.served("-chardev", option("socket", "id", "agent", "fd", strconv.Itoa(fd)))
	b.hand("-chardev", option("null", "id", "agent"))
	b.add("-device", option("virtio-serial-pci", "id", "agent-bus", "bus", busName(rootBus),
		"addr", fmt.Sprintf("%#x", b.pci.agent), "max_ports", "2"))
	b.add("-device", option("virtserialport", "bus", "agent-bus.0", "nr", "1", "chardev", "agent", "name", agent.Port))
}
