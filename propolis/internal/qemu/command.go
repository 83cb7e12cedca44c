package qemu

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/falcon-vm/falcon-go/propolis/internal/confine"
)

// firstFD is the number of a child's first descriptor after the standard ones.
const firstFD = 3

// tbSizeMiB bounds TCG's cache of translated code. QEMU's default of 1 GiB
// costs an idle guest some 60 MB more; 32 MiB makes a systemd boot 1 to 3 s
// slower (measured).
const tbSizeMiB = 256

// FDKind says what a descriptor that QEMU inherits is for.
type FDKind int

// The kinds of inherited descriptors.
const (
	FDConsole    FDKind = iota // one end of a socket pair: COM1
	FDQMP                      // one end of a socket pair: QMP
	FDLink                     // a queue of a tap or macvtap
	FDState                    // the device state of a template
	FDAgent                    // one end of a socket pair: the guest agent's port
	FDLooseTap                 // a tap that nobody else knows of
	FDManagement               // one end of a socket pair: the ASIC's management channel
	FDCPUPort                  // one end of a socket pair: the ASIC's CPU port
	FDSidecar                  // one end of a socket pair: a NIC on a sidecar cable
	FDFile                     // a file of a disk
)

// FD is a descriptor that QEMU inherits.
type FD struct {
	Kind FDKind
	Link Link // for FDLink
	File OpenFile
}

// OpenFile is a file that we open for QEMU.
type OpenFile struct {
	Path     string
	Writable bool
	// Size, if not 0, has the file made, or emptied, with that size.
	Size int64
}

// Command is a QEMU command line.
type Command struct {
	// Path is the binary and Args its arguments, without the binary's name.
	Path string
	Args []string
	// FDs are the descriptors to hand over: FDs[0] as number 3, and so on.
	FDs []FD
	// Mounts are what QEMU sees of the host's files, and Opens the files that it
	// gets when it opens a path for writing.
	Mounts []confine.Mount
	Opens  map[string]OpenFile
	// HostNetwork says that it reaches the outside by the host's network.
	HostNetwork bool
	// asic says that the machine has a switch ASIC, and ports are on what its
	// front ports are.
	asic  bool
	ports []vnic
	// sidecars are the NICs on sidecar cables, in the order of their
	// descriptors.
	sidecars []vnic
	// own is what a clone has of its own, by what its template has in its
	// place.
	own marks

	stateFD int // number of the FDState among the descriptors
	sets    int // of descriptors of files
	// disks has the sets of the disks, by their storage backends.
	disks map[string]int

	byHand []string // Path and Args as a person would give them
	wrap   []string // goes before byHand
	redir  []string // goes after it, unquoted
}

// String returns a shell command line that a person can run: the same
// machine, with COM1 and QEMU's monitor on the terminal (Ctrl-a h lists the
// keys), and network devices opened by QEMU or by the shell.
func (c Command) String() string {
	words := slices.Concat(c.wrap, c.byHand)
	for i, w := range words {
		words[i] = shellQuote(w)
	}
	return strings.Join(slices.Concat(words, c.redir), " ")
}

// CommandLine turns an instance into a QEMU command line. It looks at nothing
// but its arguments. An error joins a [*Refusal] for each thing in the spec
// that cannot be served.
func CommandLine(cfg Config, host Host) (Command, error) {
	b := &builder{cfg: cfg, host: host, spec: cfg.Spec}
	b.plan()
	b.machine()
	b.identity()
	b.firmware()
	b.control()
	b.serialPorts()
	b.softNPU()
	b.devices()
	b.agentPort()
	b.screen()
	b.checkArguments()
	if len(b.refused) > 0 {
		return Command{}, errors.Join(b.refused...)
	}
	b.cmd.Path = host.QEMU
	b.cmd.byHand = append([]string{host.QEMU}, b.cmd.byHand...)
	return b.cmd, nil
}

// builder collects a command line and what stands in its way.
type builder struct {
	cfg  Config
	host Host
	spec propolis.InstanceSpec

	pci  pciPlan
	boot map[string]int // boot order by disk component

	cmd     Command
	refused []error
}

// add appends arguments that are the same for us and by hand.
func (b *builder) add(args ...string) {
	b.cmd.Args = append(b.cmd.Args, args...)
	b.cmd.byHand = append(b.cmd.byHand, args...)
}

// served appends arguments that only a QEMU under our control gets.
func (b *builder) served(args ...string) { b.cmd.Args = append(b.cmd.Args, args...) }

// hand appends arguments that only a person's QEMU gets.
func (b *builder) hand(args ...string) { b.cmd.byHand = append(b.cmd.byHand, args...) }

// inherit adds a descriptor and returns its number.
func (b *builder) inherit(fd FD) int {
	b.cmd.FDs = append(b.cmd.FDs, fd)
	return firstFD + len(b.cmd.FDs) - 1
}

// writtenFD marks the descriptor by which QEMU writes to a disk.
const writtenFD = "written"

// file hands a disk's file over and returns the name by which QEMU opens it. A
// disk that is written becomes one that is read when an overlay is put on it.
func (b *builder) file(path string, writable bool) string {
	b.cmd.sets++
	set := strconv.Itoa(b.cmd.sets)
	hand := func(writable bool, mark ...string) {
		fd := b.inherit(FD{Kind: FDFile, File: OpenFile{Path: path, Writable: writable}})
		b.served("-add-fd", option("fd="+strconv.Itoa(fd), append([]string{"set", set}, mark...)...))
	}
	if writable {
		hand(true, "opaque", writtenFD)
	}
	hand(false)
	return setPath(b.cmd.sets)
}

// setPath is the name by which QEMU opens what is in a set of descriptors.
func setPath(set int) string { return "/dev/fdset/" + strconv.Itoa(set) }

// inside has QEMU see a file or folder of the host, and returns where.
func (b *builder) inside(m confine.Mount) string {
	if b.host.Level == confine.Least {
		return m.Source
	}
	b.cmd.Mounts = append(b.cmd.Mounts, m)
	return m.Target
}

// opens has QEMU get a file when it opens a path for writing.
func (b *builder) opens(path string, file OpenFile) {
	if b.cmd.Opens == nil {
		b.cmd.Opens = make(map[string]OpenFile)
	}
	b.cmd.Opens[path] = file
}

// program adds an option with the path of a file that is read before any guest
// runs.
func (b *builder) program(flag, path, target string) {
	b.hand(flag, path)
	b.served(flag, b.inside(confine.Mount{Source: path, Target: target, Owned: true}))
}

// refuse notes that component name cannot be served.
func (b *builder) refuse(name, format string, args ...any) {
	r := &Refusal{Component: name, Reason: fmt.Sprintf(format, args...)}
	if c := b.spec.Components[name]; c != nil {
		r.Kind = c.Kind()
	}
	b.refused = append(b.refused, r)
}

// names returns the names of the components, in byte order.
func (b *builder) names() []string { return slices.Sorted(maps.Keys(b.spec.Components)) }

// plan checks the spec as a whole and decides what spans components.
func (b *builder) plan() {
	for _, name := range b.names() {
		if reason := unserved(b.spec.Components[name]); reason != "" {
			b.refuse(name, "%s", reason)
		}
	}
	b.checkBackends()
	b.planPCI()
	b.planAgent()
	b.planBoot()
}

// unserved is why this server cannot serve a kind of component, or empty.
func unserved(c propolis.Component) string {
	switch c.(type) {
	case propolis.SerialPort, propolis.VirtioDisk, propolis.NVMeDisk, propolis.FileStorageBackend,
		propolis.VirtioNIC, propolis.VirtioNetworkBackend, propolis.P9FS, propolis.BootSettings,
		propolis.PCIBridge, propolis.PVPanic, propolis.VirtioSocket,
		propolis.SoftNPUP9, propolis.SoftNPUPCIPort, propolis.SoftNPUPort, propolis.DLPINetworkBackend:
		return ""
	case propolis.CrucibleStorageBackend:
		return "this server has no Crucible; use a file_storage_backend"
	case propolis.BlobStorageBackend:
		return "this server keeps no disks in memory; put the bytes in a file and use a file_storage_backend"
	case propolis.MigrationFailureInjector:
		return "this server does not migrate instances"
	case nil:
		return "the component is null"
	default:
		return "this server does not know the kind"
	}
}

// checkBackends refuses backends that not exactly one device uses.
func (b *builder) checkBackends() {
	users := make(map[string][]string)
	for _, name := range b.names() {
		if id := backendOf(b.spec.Components[name]); id != "" {
			users[id] = append(users[id], name)
		}
	}
	for _, name := range b.names() {
		switch b.spec.Components[name].(type) {
		case propolis.FileStorageBackend, propolis.VirtioNetworkBackend, propolis.DLPINetworkBackend:
			switch n := len(users[name]); {
			case n == 0:
				b.refuse(name, "no device uses this backend")
			case n > 1:
				b.refuse(name, "used by %s; a backend serves one device", strings.Join(users[name], " and "))
			}
		}
	}
}

// backendOf returns the name of the backend that a device is on, or empty.
func backendOf(c propolis.Component) string {
	switch c := c.(type) {
	case propolis.VirtioDisk:
		return c.BackendID
	case propolis.NVMeDisk:
		return c.BackendID
	case propolis.VirtioNIC:
		return c.BackendID
	case propolis.SoftNPUPort:
		return c.BackendID
	}
	return ""
}

// planBoot reads the boot order. The places of disks on other buses are fine
// with QEMU, though not with Propolis.
func (b *builder) planBoot() {
	b.boot = make(map[string]int)
	for _, name := range b.names() {
		settings, ok := b.spec.Components[name].(propolis.BootSettings)
		if !ok {
			continue
		}
		for _, entry := range settings.Order {
			switch b.spec.Components[entry.ID].(type) {
			case propolis.VirtioDisk, propolis.NVMeDisk:
			default:
				b.refuse(name, "boots from %q, which is not a disk of this instance", entry.ID)
				continue
			}
			if _, twice := b.boot[entry.ID]; twice {
				b.refuse(name, "names %q twice", entry.ID)
				continue
			}
			b.boot[entry.ID] = len(b.boot)
		}
	}
}

// machine adds the board: what is there before any component.
func (b *builder) machine() {
	board := b.spec.Board
	if board.CPUs == 0 {
		b.refuse("board", "needs at least one CPU")
	}
	if board.MemoryMiB == 0 {
		b.refuse("board", "needs memory")
	}
	if board.Chipset.Type != "" && board.Chipset.Type != "i440_fx" {
		b.refuse("board", "chipset %q is unknown; use i440_fx", board.Chipset.Type)
	}
	if board.Chipset.Value.EnablePCIe {
		b.refuse("board", "QEMU's i440FX has no PCIe; set enable_pcie to false")
	}
	if board.CPUID != nil {
		b.refuse("board", "QEMU cannot show chosen CPUID leaves; leave cpuid out")
	}
	b.add("-nodefaults", "-no-user-config", "-display", "none")
	b.served("-no-shutdown", "-S", "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
	// By this QEMU finds out how files are locked.
	b.opens(os.DevNull, OpenFile{Path: os.DevNull, Writable: true})
	b.template()
	b.add("-M", b.machineType())
	b.accelerator()
	b.add("-smp", strconv.Itoa(int(board.CPUs)))
	b.add("-m", strconv.FormatUint(board.MemoryMiB, 10))
	// Propolis has no ACPI hot-plug; with it Linux would name NICs ensN
	// instead of enp0sN.
	b.add("-global", "PIIX4_PM.acpi-root-pci-hotplug=off")
	if b.pci.bridges {
		b.add("-global", "PIIX4_PM.acpi-pci-hotplug-with-bridge-support=off")
	}
	b.add("-rtc", "base=utc")
	// A guest decides itself what follows its panic.
	b.add("-action", "panic=none")
}

// machineType is the i440FX of Propolis, whose PCI slots are QEMU's too.
func (b *builder) machineType() string {
	options := []string{}
	if b.cfg.Template != nil {
		options = append(options, "memory-backend", ramID)
	}
	if b.host.Firmware.Code != "" {
		options = append(options, "pflash0", "fw-code")
	}
	if b.host.Firmware.Vars != "" {
		options = append(options, "pflash1", "fw-vars")
	}
	if !b.cfg.Screen && b.cfg.Firmware != FirmwareKernel && b.host.Firmware.Code == "" {
		// Without a screen SeaBIOS talks on COM1, as OVMF always does.
		options = append(options, "graphics", "off")
	}
	return option("pc", options...)
}

// accelerator adds what runs the guest's code. Under TCG a modest CPU model
// saves seconds of a boot; Nehalem costs no more than qemu64 (measured) and
// is the least that is x86-64-v2.
func (b *builder) accelerator() {
	if b.host.Accel == AccelKVM {
		b.opens("/dev/kvm", OpenFile{Path: "/dev/kvm", Writable: true})
		b.add("-accel", "kvm", "-cpu", "host")
		return
	}
	b.add("-accel", option("tcg", "thread", "multi", "tb-size", strconv.Itoa(tbSizeMiB)), "-cpu", "Nehalem")
}

// identity adds who the machine is: name, UUID and SMBIOS table.
func (b *builder) identity() {
	if _, err := uuid.Parse(b.cfg.ID); err != nil {
		b.refuse("instance", "id %q is not a UUID", b.cfg.ID)
	}
	name := cmp.Or(b.cfg.Name, b.cfg.ID)
	b.add("-name", "guest="+escape(name)+",debug-threads=on", "-uuid", b.cfg.ID)
	b.ownID()
	// The defaults are Propolis'.
	table := []string{"manufacturer", "Oxide", "product", "OxVM", "serial", b.cfg.ID}
	if s := b.spec.Smbios; s != nil {
		table = []string{"manufacturer", s.Manufacturer, "product", s.ProductName,
			"serial", s.SerialNumber, "version", strconv.FormatUint(s.Version, 10)}
	}
	b.add("-smbios", option("type=1", table...))
}

// firmware adds what the guest runs first.
func (b *builder) firmware() {
	if b.cfg.Firmware == FirmwareKernel {
		b.kernel()
		return
	}
	if b.cfg.Kernel != "" || b.cfg.Initrd != "" || b.cfg.Append != "" {
		b.refuse("instance", "a kernel is given, but the firmware is %q; use %q", b.cfg.Firmware, FirmwareKernel)
	}
	fw := b.host.Firmware
	if fw.BIOS != "" {
		b.program("-bios", fw.BIOS, "/falcon/bios")
	}
	if fw.Code != "" {
		b.flash("fw-code", fw.Code, false)
	}
	if fw.Vars != "" {
		b.flash("fw-vars", fw.Vars, true)
	}
}

func (b *builder) flash(node, path string, writable bool) {
	head := []string{"node-name", node}
	if !writable {
		head = append(head, "read-only", "on")
	}
	device := func(path string) string {
		return option("driver=raw", append(head, "file.driver", "file", "file.filename", path)...)
	}
	b.hand("-blockdev", device(path))
	b.served("-blockdev", device(b.file(path, writable)))
}

func (b *builder) kernel() {
	if b.cfg.Kernel == "" {
		b.refuse("instance", "the firmware is %q, but no kernel is given", FirmwareKernel)
		return
	}
	// A kernel is itself first in the boot order; QEMU allows each place once.
	clear(b.boot)
	b.program("-kernel", b.cfg.Kernel, "/falcon/kernel")
	if b.cfg.Initrd != "" {
		b.program("-initrd", b.cfg.Initrd, "/falcon/initrd")
	}
	if b.cfg.Append != "" {
		b.add("-append", b.cfg.Append)
	}
}

// control adds the socket for QMP.
func (b *builder) control() {
	fd := b.inherit(FD{Kind: FDQMP})
	b.served("-chardev", option("socket", "id", "qmp", "fd", strconv.Itoa(fd)),
		"-mon", "chardev=qmp,mode=control")
}

// screen adds a screen. QEMU listens nowhere: viewers are handed to it.
func (b *builder) screen() {
	if !b.cfg.Screen {
		return
	}
	b.add("-device", option("VGA", "id", "vga", "bus", "pci.0", "addr", fmt.Sprintf("%#x", b.pci.free())))
	pairs := []string{}
	if b.cfg.ScreenPassword != "" {
		pairs = append(pairs, "password", "on")
	}
	b.add("-vnc", option("none", pairs...))
}

// checkArguments refuses what no process can be given.
func (b *builder) checkArguments() {
	for _, arg := range b.cmd.Args {
		if strings.ContainsRune(arg, 0) {
			b.refuse("instance", "%q holds a NUL byte", arg)
		}
	}
}
