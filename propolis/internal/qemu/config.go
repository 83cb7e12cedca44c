// Package qemu runs a Propolis instance as one QEMU process.
//
// The way of an instance through it: survey looks at the host, [CommandLine]
// turns a [Config] and what was found into a [Command] without touching
// anything, [Start] opens what the command needs, runs it and connects its
// control socket, and a [Machine] stands for the process until it is gone.
package qemu

import (
	"fmt"
	"io"
	"io/fs"
	"log/slog"

	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/falcon-vm/falcon-go/propolis/internal/confine"
)

// What a Config's Firmware may name besides the path of an image.
const (
	FirmwareBIOS   = "bios"   // the SeaBIOS that comes with QEMU
	FirmwareUEFI   = "uefi"   // the host's OVMF
	FirmwareKernel = "kernel" // none: QEMU loads Config.Kernel itself
)

// Config is what to run and how.
type Config struct {
	// ID is the instance's UUID, which the guest sees in its SMBIOS table.
	ID string
	// Name is shown in QEMU's process title and window.
	Name string
	Spec propolis.InstanceSpec
	// Firmware is "bios", "uefi", "kernel" or the path of a firmware image,
	// SeaBIOS or OVMF.
	Firmware string
	// Kernel, Initrd and Append are the kernel (bzImage or PVH vmlinux), its
	// initial file system and its command line, for Firmware "kernel" only.
	Kernel, Initrd, Append string
	// NetNS is the path of the network namespace in which plain vnic names
	// are looked up; empty stands for the caller's own.
	NetNS string
	// Screen gives the machine a screen, which [Machine.Screen] shows.
	Screen bool
	// ScreenPassword is what a viewer must know that is asked for one; VNC
	// takes eight bytes of it.
	ScreenPassword string
	// Agent gives the guest a virtio-serial port for falcon's agent.
	Agent bool
	// QEMU is the QEMU binary; empty finds it.
	QEMU string
	// Accel is "auto", "kvm" or "tcg"; see [Acceleration].
	Accel string
	// Template, if set, has the machine kept as a template when it has
	// booted, or made of one.
	Template *Template
	// Bases are the files that a disk may stand on, by its storage backend; a
	// backend that is not there may stand on any. A disk's own header, which says
	// on what it stands, is as its last QEMU has left it.
	Bases map[string][]string
	// IDBase is the first of the ids of QEMU if root starts it, 0 for those of
	// nobody else's; see [confine.Config].
	IDBase int
	// PIDFile, if set, holds QEMU's process id while it runs. Beside it, with
	// the ending .vars, UEFI's variables are kept; without PIDFile they are
	// forgotten when QEMU ends.
	PIDFile string
	// level is the strongest confinement that is tried.
	level confine.Level
	// Log may be nil.
	Log *slog.Logger
	// Stderr, if set, receives what QEMU prints.
	Stderr io.Writer
}

func (c Config) log() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log.With("instance", c.Name)
}

// Host is what [CommandLine] has to know about the host. Anything missing or
// unusable is noted as an error, which becomes a [Refusal] of the components
// that need it.
type Host struct {
	// QEMU is the path of the QEMU binary.
	QEMU string
	// Accel is "kvm" or "tcg".
	Accel string
	// Level is how QEMU is confined.
	Level confine.Level
	// Firmware is what Config.Firmware was found to be.
	Firmware Firmware
	// Files has the paths of file backends and shared folders.
	Files map[string]File
	// Links has the host's network devices by their name in vnic_name,
	// "host:" included, options not.
	Links map[string]Link
	// NoVsock is why there is no vsock, nil if there is.
	NoVsock error
}

// Firmware is firmware as files. The zero value is QEMU's own SeaBIOS.
type Firmware struct {
	// BIOS is the path of a BIOS image.
	BIOS string
	// Code is the path of a UEFI flash image, which is never written.
	Code string
	// Vars is the path of the instance's own UEFI variables; it may be empty.
	Vars string
	// varsTemplate is what Vars is copied from.
	varsTemplate string
}

// File is what a path of the spec leads to.
type File struct {
	Dir   bool
	Block bool  // a block device
	Err   error // why it cannot be used
	// Backing is what a disk stands on, from the top.
	Backing []Layer

	info fs.FileInfo
}

// Link is a network device of the host under a virtio NIC.
type Link struct {
	// Name is the kernel's own name for the device.
	Name string
	// Index is its interface index.
	Index int
	// MAC is the address that the guest gets.
	MAC string
	// MacVTap tells a macvtap from a tap.
	MacVTap bool
	// NetNS is the path of its namespace; empty is the caller's own.
	NetNS string
	// Err is why it cannot be used.
	Err error
}

// Refusal says that a component of a spec cannot be served here.
type Refusal struct {
	// Component is the component's name, or "board" or "instance" for what
	// belongs to no component.
	Component string
	// Kind is the component's kind on the wire; empty where there is none.
	Kind string
	// Reason is why, and what to do about it where something can be done.
	Reason string
}

// Error implements error.
func (r *Refusal) Error() string {
	if r.Kind == "" {
		return fmt.Sprintf("%s: %s", r.Component, r.Reason)
	}
	return fmt.Sprintf("component %q (%s): %s", r.Component, r.Kind, r.Reason)
}
