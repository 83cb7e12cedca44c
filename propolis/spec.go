package propolis

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync"
)

// InstanceSpec describes a virtual machine: a board and the components that
// are plugged into it, by name. A component refers to another (a disk to its
// backend, say) by that name.
type InstanceSpec struct {
	Board      Board      `json:"board"`
	Components Components `json:"components"`
	// Smbios replaces the values of the guest's SMBIOS type 1 table; nil
	// keeps the server's own.
	Smbios *SmbiosType1 `json:"smbios"`
}

// UnmarshalJSON reads a spec. Fields that it does not know are errors in the
// board and in the SMBIOS values, and ignored beside them, as Propolis does.
func (s *InstanceSpec) UnmarshalJSON(data []byte) error {
	var w struct {
		Board      json.RawMessage `json:"board"`
		Components Components      `json:"components"`
		Smbios     json.RawMessage `json:"smbios"`
	}
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	if w.Board == nil || w.Components == nil {
		return errors.New("spec: missing field `board` or `components`")
	}
	out := InstanceSpec{Components: w.Components}
	if err := decodeStrict(w.Board, &out.Board); err != nil {
		return fmt.Errorf("board: %w", err)
	}
	if w.Smbios != nil {
		if err := decodeStrict(w.Smbios, &out.Smbios); err != nil {
			return fmt.Errorf("smbios: %w", err)
		}
	}
	*s = out
	return nil
}

// Board is the mainboard of a virtual machine.
type Board struct {
	// CPUs is the number of virtual processors, at least 1.
	CPUs uint8 `json:"cpus"`
	// MemoryMiB is the guest's memory in MiB.
	MemoryMiB uint64  `json:"memory_mb"`
	Chipset   Chipset `json:"chipset"`
	// GuestHVInterface is the hypervisor interface shown to the guest; nil
	// stands for the default, bhyve's.
	GuestHVInterface *GuestHVInterface `json:"guest_hv_interface,omitempty"`
	// CPUID replaces the CPUID leaves that the guest sees; nil derives them
	// from the host.
	CPUID *CPUID `json:"cpuid,omitempty"`
}

// Chipset is the chipset of a board. Propolis knows one kind, "i440_fx".
type Chipset struct {
	Type  string `json:"type"`
	Value I440FX `json:"value"`
}

// I440FX holds the settings of an Intel 440FX chipset.
type I440FX struct {
	EnablePCIe bool `json:"enable_pcie"`
}

// GuestHVInterface selects the hypervisor interface shown to a guest: Type
// "bhyve", or "hyper_v" with features.
type GuestHVInterface struct {
	Type  string       `json:"type"`
	Value *HyperVValue `json:"value,omitempty"`
}

// HyperVValue lists the Hyper-V enlightenments shown to a guest.
type HyperVValue struct {
	Features []string `json:"features"`
}

// CPUID is a set of CPUID leaves shown to a guest. Vendor is "amd" or "intel".
type CPUID struct {
	Entries []CPUIDEntry `json:"entries"`
	Vendor  string       `json:"vendor"`
}

// CPUIDEntry is the value of one CPUID leaf.
type CPUIDEntry struct {
	Leaf    uint32  `json:"leaf"`
	Subleaf *uint32 `json:"subleaf,omitempty"`
	EAX     uint32  `json:"eax"`
	EBX     uint32  `json:"ebx"`
	ECX     uint32  `json:"ecx"`
	EDX     uint32  `json:"edx"`
}

// SmbiosType1 holds the values of a guest's SMBIOS type 1 (system
// information) table. Version is shown to the guest in decimal.
type SmbiosType1 struct {
	Manufacturer string `json:"manufacturer"`
	ProductName  string `json:"product_name"`
	SerialNumber string `json:"serial_number"`
	Version      uint64 `json:"version"`
}

// PCIPath is the place of a device: bus, device 0 to 31, function 0 to 7.
type PCIPath struct {
	Bus      uint8 `json:"bus"`
	Device   uint8 `json:"device"`
	Function uint8 `json:"function"`
}

// String returns the path as bus.device.function, the form of Propolis' logs.
func (p PCIPath) String() string {
	return fmt.Sprintf("%d.%d.%d", p.Bus, p.Device, p.Function)
}

// PathOf returns the PCI path of a component that has one.
func PathOf(c Component) (PCIPath, bool) {
	switch c := c.(type) {
	case VirtioDisk:
		return c.PCIPath, true
	case NVMeDisk:
		return c.PCIPath, true
	case VirtioNIC:
		return c.PCIPath, true
	case P9FS:
		return c.PCIPath, true
	case SoftNPUP9:
		return c.PCIPath, true
	case SoftNPUPCIPort:
		return c.PCIPath, true
	case PCIBridge:
		return c.PCIPath, true
	case VirtioSocket:
		return c.PCIPath, true
	}
	return PCIPath{}, false
}

// Components are the components of an instance by name.
type Components map[string]Component

// Component is one part of a virtual machine. The types of this package that
// implement it are the kinds that Propolis' API knows; the set is closed.
type Component interface {
	// Kind is the component's name on the wire, such as "virtio_disk".
	Kind() string
}

// SerialPort is a UART. COM1 is the one that the API serves as the console.
type SerialPort struct {
	// Num is "com1", "com2", "com3" or "com4".
	Num string `json:"num"`
}

// VirtioDisk is a virtio block device on a storage backend.
type VirtioDisk struct {
	BackendID string  `json:"backend_id"`
	PCIPath   PCIPath `json:"pci_path"`
}

// NVMeDisk is an NVMe device on a storage backend.
type NVMeDisk struct {
	BackendID string  `json:"backend_id"`
	PCIPath   PCIPath `json:"pci_path"`
	// SerialNumber is padded with spaces.
	SerialNumber NVMeSerial `json:"serial_number"`
	// HasWriteCache is spoken by API 6.0.0 and newer; it is accepted and
	// sent only when set.
	HasWriteCache bool `json:"has_write_cache,omitempty"`
}

// NVMeSerial is the serial number of an NVMe disk: 20 bytes, which the API
// carries as an array of numbers.
type NVMeSerial [20]byte

// UnmarshalJSON reads an array of exactly 20 numbers.
func (s *NVMeSerial) UnmarshalJSON(data []byte) error {
	var b []byte
	if err := json.Unmarshal(data, &b); err != nil {
		return err
	}
	if len(b) != len(s) || data[0] != '[' {
		return fmt.Errorf("serial_number: want an array of %d bytes", len(s))
	}
	copy(s[:], b)
	return nil
}

// NewNVMeSerial returns s as a serial number, cut or padded with spaces to 20
// bytes.
func NewNVMeSerial(s string) NVMeSerial {
	var serial NVMeSerial
	copy(serial[:], bytes.Repeat([]byte{' '}, len(serial)))
	copy(serial[:], s)
	return serial
}

// FileStorageBackend backs a disk by a file or a block device.
type FileStorageBackend struct {
	Path     string `json:"path"`
	Readonly bool   `json:"readonly"`
	// BlockSize is the logical block size in bytes: 512, 2048 or 4096.
	BlockSize uint32  `json:"block_size"`
	Workers   *uint64 `json:"workers"`
}

// BlobStorageBackend backs a disk by bytes of the spec itself.
type BlobStorageBackend struct {
	Base64   string `json:"base64"`
	Readonly bool   `json:"readonly"`
}

// CrucibleStorageBackend backs a disk by a Crucible volume.
type CrucibleStorageBackend struct {
	RequestJSON string `json:"request_json"`
	Readonly    bool   `json:"readonly"`
}

// VirtioNIC is a virtio network device on a network backend. Its MAC address
// is that of the backend's host device.
type VirtioNIC struct {
	BackendID   string  `json:"backend_id"`
	InterfaceID string  `json:"interface_id"`
	PCIPath     PCIPath `json:"pci_path"`
}

// VirtioNetworkBackend names the host device under a VirtioNIC.
type VirtioNetworkBackend struct {
	VNICName string `json:"vnic_name"`
}

// DLPINetworkBackend names the host device under a SoftNPUPort.
type DLPINetworkBackend struct {
	VNICName string `json:"vnic_name"`
}

// P9FS shares the host folder Source under the mount tag Target.
type P9FS struct {
	Source string `json:"source"`
	Target string `json:"target"`
	// ChunkSize is the largest 9P message in bytes.
	ChunkSize uint32  `json:"chunk_size"`
	PCIPath   PCIPath `json:"pci_path"`
}

// SoftNPUP9 is the device through which a guest loads a P4 program.
type SoftNPUP9 struct {
	PCIPath PCIPath `json:"pci_path"`
}

// SoftNPUPCIPort is the CPU port of a SoftNPU ASIC.
type SoftNPUPCIPort struct {
	PCIPath PCIPath `json:"pci_path"`
}

// SoftNPUPort is a front port of a SoftNPU ASIC on a DLPI backend.
type SoftNPUPort struct {
	LinkName  string `json:"link_name"`
	BackendID string `json:"backend_id"`
}

// BootSettings gives the order in which firmware tries disks.
type BootSettings struct {
	Order []BootOrderEntry `json:"order"`
}

// BootOrderEntry names a disk component to boot from.
type BootOrderEntry struct {
	ID string `json:"id"`
}

// PCIBridge is a PCI-to-PCI bridge.
type PCIBridge struct {
	DownstreamBus uint8   `json:"downstream_bus"`
	PCIPath       PCIPath `json:"pci_path"`
}

// PVPanic is QEMU's paravirtual panic device.
type PVPanic struct {
	EnableISA bool `json:"enable_isa"`
}

// VirtioSocket is a vsock device (API 3.0.0 and newer).
type VirtioSocket struct {
	GuestCID uint64  `json:"guest_cid"`
	PCIPath  PCIPath `json:"pci_path"`
}

// MigrationFailureInjector makes migrations fail, for Propolis' own tests.
type MigrationFailureInjector struct {
	FailExports uint32 `json:"fail_exports"`
	FailImports uint32 `json:"fail_imports"`
}

// Kind implements [Component].
func (SerialPort) Kind() string               { return "serial_port" }
func (VirtioDisk) Kind() string               { return "virtio_disk" }
func (NVMeDisk) Kind() string                 { return "nvme_disk" }
func (FileStorageBackend) Kind() string       { return "file_storage_backend" }
func (BlobStorageBackend) Kind() string       { return "blob_storage_backend" }
func (CrucibleStorageBackend) Kind() string   { return "crucible_storage_backend" }
func (VirtioNIC) Kind() string                { return "virtio_nic" }
func (VirtioNetworkBackend) Kind() string     { return "virtio_network_backend" }
func (DLPINetworkBackend) Kind() string       { return "dlpi_network_backend" }
func (P9FS) Kind() string                     { return "p9fs" }
func (SoftNPUP9) Kind() string                { return "soft_npu_p9" }
func (SoftNPUPCIPort) Kind() string           { return "soft_npu_pci_port" }
func (SoftNPUPort) Kind() string              { return "soft_npu_port" }
func (BootSettings) Kind() string             { return "boot_settings" }
func (PCIBridge) Kind() string                { return "pci_pci_bridge" }
func (PVPanic) Kind() string                  { return "qemu_pvpanic" }
func (VirtioSocket) Kind() string             { return "virtio_socket" }
func (MigrationFailureInjector) Kind() string { return "migration_failure_injector" }

// prototypes has one value of each kind, from which a decoder learns its type.
func prototypes() []Component {
	return []Component{
		SerialPort{}, VirtioDisk{}, NVMeDisk{}, FileStorageBackend{}, BlobStorageBackend{},
		CrucibleStorageBackend{}, VirtioNIC{}, VirtioNetworkBackend{}, DLPINetworkBackend{},
		P9FS{}, SoftNPUP9{}, SoftNPUPCIPort{}, SoftNPUPort{}, BootSettings{}, PCIBridge{},
		PVPanic{}, VirtioSocket{}, MigrationFailureInjector{},
	}
}

// componentTypes returns the types of components by their kinds.
var componentTypes = sync.OnceValue(func() map[string]reflect.Type {
	types := make(map[string]reflect.Type)
	for _, p := range prototypes() {
		types[p.Kind()] = reflect.TypeOf(p)
	}
	return types
})

// taggedComponent is a component on the wire.
type taggedComponent struct {
	Type      string          `json:"type"`
	Component json.RawMessage `json:"component"`
}

// MarshalJSON writes the components in Propolis' tagged form.
func (cs Components) MarshalJSON() ([]byte, error) {
	tagged := make(map[string]taggedComponent, len(cs))
	for name, c := range cs {
		if c == nil {
			return nil, fmt.Errorf("component %q is nil", name)
		}
		body, err := json.Marshal(c)
		if err != nil {
			return nil, fmt.Errorf("component %q: %w", name, err)
		}
		tagged[name] = taggedComponent{Type: c.Kind(), Component: body}
	}
	return json.Marshal(tagged)
}

// UnmarshalJSON reads the components from Propolis' tagged form. Unknown kinds,
// unknown fields and names given twice are errors, as they are for Propolis.
func (cs *Components) UnmarshalJSON(data []byte) error {
	out := make(Components)
	err := eachMember(data, func(name string, value json.RawMessage) error {
		if _, ok := out[name]; ok {
			return fmt.Errorf("component %q: the name is used twice", name)
		}
		c, err := decodeComponent(value)
		if err != nil {
			return fmt.Errorf("component %q: %w", name, err)
		}
		out[name] = c
		return nil
	})
	if err != nil {
		return err
	}
	*cs = out
	return nil
}

// eachMember calls f for each member of a JSON object, in order and including
// those of the same name, of which a map would keep one.
func eachMember(data []byte, f func(name string, value json.RawMessage) error) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.New("components: want a JSON object")
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		if err := f(name.(string), value); err != nil {
			return err
		}
	}
	return nil
}

func decodeComponent(data []byte) (Component, error) {
	var t taggedComponent
	if err := decodeStrict(data, &t); err != nil {
		return nil, err
	}
	typ, ok := componentTypes()[t.Type]
	if !ok {
		return nil, fmt.Errorf("unknown type %q", t.Type)
	}
	v := reflect.New(typ)
	if err := decodeStrict(t.Component, v.Interface()); err != nil {
		return nil, fmt.Errorf("%s: %w", t.Type, err)
	}
	return v.Elem().Interface().(Component), nil
}

// decodeStrict decodes a JSON object of which each field must be known.
func decodeStrict(data []byte, v any) error {
	if len(data) == 0 {
		return errors.New("missing body")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(v)
}
