package qemu

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/falcon-vm/falcon-go/propolis"
)

// Limits of the PCI address space, and the devices of bus 0 that the chipset
// has for itself: host bridge and ISA bridge, in Propolis as in QEMU.
const (
	pciDevices     = 32
	pciFunctions   = 8
	chipsetDevices = 2
	rootBus        = 0
)

// pciPlan is where the devices of an instance go.
type pciPlan struct {
	order    []string // components with a place, in the order to add them
	taken    map[propolis.PCIPath]string
	multiple map[propolis.PCIPath]bool // by function 0: other functions exist
	buses    map[uint8]bool
	bridges  bool
	agent    uint8 // the slot of the guest agent's device, where it is asked for
}

// planPCI gives every device its place and refuses those that have none.
func (b *builder) planPCI() {
	b.pci = pciPlan{
		taken:    make(map[propolis.PCIPath]string),
		multiple: make(map[propolis.PCIPath]bool),
		buses:    map[uint8]bool{rootBus: true},
	}
	var bridges, devices []string
	for _, name := range b.names() {
		c := b.spec.Components[name]
		path, ok := propolis.PathOf(c)
		if !ok || !b.claim(name, path) {
			continue
		}
		if _, isBridge := c.(propolis.PCIBridge); isBridge {
			bridges = append(bridges, name)
		} else {
			devices = append(devices, name)
		}
	}
	b.orderBridges(bridges)
	slices.SortFunc(devices, b.byPath)
	b.pci.order = append(b.pci.order, devices...)
	b.checkPlaces()
}

// claim takes a place, or refuses.
func (b *builder) claim(name string, p propolis.PCIPath) bool {
	switch {
	case p.Device >= pciDevices || p.Function >= pciFunctions:
		b.refuse(name, "PCI path %s is out of range: device 0 to %d, function 0 to %d", p, pciDevices-1, pciFunctions-1)
		return false
	case p.Bus == rootBus && p.Device < chipsetDevices:
		b.refuse(name, "PCI path %s belongs to the chipset; use device %d or above", p, chipsetDevices)
		return false
	}
	if other, ok := b.pci.taken[p]; ok {
		b.refuse(name, "PCI path %s is taken by %q", p, other)
		return false
	}
	b.pci.taken[p] = name
	if p.Function > 0 {
		b.pci.multiple[propolis.PCIPath{Bus: p.Bus, Device: p.Device}] = true
	}
	return true
}

// orderBridges puts each bridge after the one that its own bus hangs on.
func (b *builder) orderBridges(bridges []string) {
	slices.SortFunc(bridges, b.byPath)
	for progress := true; progress; {
		progress = false
		bridges = slices.DeleteFunc(bridges, func(name string) bool {
			c := b.spec.Components[name].(propolis.PCIBridge)
			if !b.pci.buses[c.PCIPath.Bus] {
				return false
			}
			if b.pci.buses[c.DownstreamBus] {
				b.refuse(name, "PCI bus %d exists already", c.DownstreamBus)
			}
			b.pci.buses[c.DownstreamBus] = true
			b.pci.bridges = true
			b.pci.order = append(b.pci.order, name)
			progress = true
			return true
		})
	}
	// The rest is on buses that do not exist; checkPlaces refuses them.
	b.pci.order = append(b.pci.order, bridges...)
}

// checkPlaces refuses what a guest could never find.
func (b *builder) checkPlaces() {
	for _, name := range b.pci.order {
		p, _ := propolis.PathOf(b.spec.Components[name])
		if !b.pci.buses[p.Bus] {
			b.refuse(name, "PCI path %s: there is no bus %d; add a pci_pci_bridge", p, p.Bus)
		}
		first := propolis.PCIPath{Bus: p.Bus, Device: p.Device}
		if _, ok := b.pci.taken[first]; !ok {
			b.refuse(name, "PCI path %s: a guest looks at function %d only if there is a function 0", p, p.Function)
		}
	}
}

func (b *builder) byPath(x, y string) int {
	p, _ := propolis.PathOf(b.spec.Components[x])
	q, _ := propolis.PathOf(b.spec.Components[y])
	return cmp.Or(cmp.Compare(p.Bus, q.Bus), cmp.Compare(p.Device, q.Device), cmp.Compare(p.Function, q.Function))
}

// address returns the properties that put a device at its place.
func (p *pciPlan) address(path propolis.PCIPath) []string {
	pairs := []string{"bus", busName(path.Bus), "addr", fmt.Sprintf("%#x", path.Device)}
	if p.multiple[propolis.PCIPath{Bus: path.Bus, Device: path.Device}] {
		pairs[3] += fmt.Sprintf(".%#x", path.Function)
		pairs = append(pairs, "multifunction", "on")
	}
	return pairs
}

// free returns the first device number of bus 0 that is not taken.
func (p *pciPlan) free() uint8 {
	used := make(map[uint8]bool)
	for path := range p.taken {
		if path.Bus == rootBus {
			used[path.Device] = true
		}
	}
	device := uint8(chipsetDevices)
	for used[device] {
		device++ // QEMU refuses the address past the last
	}
	return device
}

func busName(bus uint8) string { return fmt.Sprintf("pci.%d", bus) }
