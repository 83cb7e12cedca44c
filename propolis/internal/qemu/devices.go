package qemu

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/falcon-vm/falcon-go/propolis/internal/confine"
)

// cdBlockSize is the block size of optical discs.
const cdBlockSize = 2048

// maxTag is the longest 9p mount tag that QEMU takes, in bytes.
const maxTag = 31

// Range of the context ids of vsock guests: 0 to 2 and the last are special.
const (
	minGuestCID = 3
	maxGuestCID = 1<<32 - 2
)

// serialPorts adds the UARTs. COM1 is the console; nobody is on the others.
func (b *builder) serialPorts() {
	owner := make(map[string]string)
	for _, name := range b.names() {
		port, ok := b.spec.Components[name].(propolis.SerialPort)
		if !ok {
			continue
		}
		index := strings.Index("com1com2com3com4", port.Num)
		if len(port.Num) != len("com1") || index%len("com1") != 0 {
			b.refuse(name, "serial port %q is unknown; there are com1 to com4", port.Num)
			continue
		}
		if other, taken := owner[port.Num]; taken {
			b.refuse(name, "serial port %s is taken by %q", port.Num, other)
			continue
		}
		if port.Num == managementPort && b.cpuPortName() != "" {
			b.refuse(name, "serial port %s is the ASIC's management channel", port.Num)
			continue
		}
		owner[port.Num] = name
		b.serialPort(port.Num, index/len("com1"))
	}
	if owner["com1"] == "" {
		b.refuse("instance", "has no serial port com1, which is the console")
	}
}

func (b *builder) serialPort(id string, index int) {
	if index == 0 {
		fd := b.inherit(FD{Kind: FDConsole})
		b.served("-chardev", option("socket", "id", id, "fd", strconv.Itoa(fd)))
		b.hand("-chardev", option("stdio", "id", id, "mux", "on", "signal", "off"), "-mon", "chardev="+id)
	} else {
		b.add("-chardev", option("null", "id", id))
	}
	b.add("-device", option("isa-serial", "chardev", id, "index", strconv.Itoa(index)))
}

// devices adds everything with a place on PCI, in the order of places, and
// then the rest.
func (b *builder) devices() {
	for _, name := range b.pci.order {
		path, _ := propolis.PathOf(b.spec.Components[name])
		at := b.pci.address(path)
		switch c := b.spec.Components[name].(type) {
		case propolis.PCIBridge:
			b.bridge(c, at)
		case propolis.VirtioDisk:
			b.virtioDisk(name, c, at)
		case propolis.NVMeDisk:
			b.nvmeDisk(name, c, at)
		case propolis.VirtioNIC:
			b.nic(name, c, at)
		case propolis.SoftNPUPCIPort:
			b.cpuPort(name, c, at)
		case propolis.P9FS:
			b.share(name, c, at)
		case propolis.VirtioSocket:
			b.vsock(name, c, at)
		}
	}
	for _, name := range b.names() {
		if c, ok := b.spec.Components[name].(propolis.PVPanic); ok && c.EnableISA {
			b.add("-device", option("pvpanic", "id", objectID("dev", name)))
		}
	}
}

func (b *builder) bridge(c propolis.PCIBridge, at []string) {
	bus := strconv.Itoa(int(c.DownstreamBus))
	b.device("pci-bridge", busName(c.DownstreamBus), at, "chassis_nr", bus, "shpc", "off")
}

// device adds a PCI device.
func (b *builder) device(driver, id string, at []string, pairs ...string) {
	b.add("-device", option(driver, append(append([]string{"id", id}, at...), pairs...)...))
}

func (b *builder) virtioDisk(name string, c propolis.VirtioDisk, at []string) {
	file, ok := b.disk(name, c.BackendID)
	if !ok {
		return
	}
	id, node := objectID("dev", name), blockNode(c.BackendID)
	if _, boots := b.boot[name]; boots && file.Readonly && file.BlockSize == cdBlockSize {
		// Propolis shows a boot ISO as a virtio disk, from which OVMF
		// boots; SeaBIOS knows no virtio disk of 2048-byte blocks, but both
		// boot from a CD drive, and every installer finds one.
		b.device("ahci", id, at)
		b.add("-device", option("ide-cd", append([]string{"bus", id + ".0", "drive", node}, b.bootIndex(name)...)...))
		return
	}
	// A full host stops the guest, which repeats the write when it goes on; any
	// other error is the guest's.
	b.device("virtio-blk-pci", id, at, append(b.diskProperties(name, node, file), "werror", "enospc", "rerror", "report")...)
}

func (b *builder) nvmeDisk(name string, c propolis.NVMeDisk, at []string) {
	file, ok := b.disk(name, c.BackendID)
	if !ok {
		return
	}
	serial := string(bytes.Trim(c.SerialNumber[:], " \x00"))
	if serial == "" { // QEMU wants one
		serial = objectID("disk", name)
		serial = serial[:min(len(serial), len(c.SerialNumber))]
	}
	pairs := append([]string{"serial", serial}, b.diskProperties(name, blockNode(c.BackendID), file)...)
	b.device("nvme", objectID("dev", name), at, pairs...)
}

func (b *builder) diskProperties(name, node string, file propolis.FileStorageBackend) []string {
	size := strconv.Itoa(int(file.BlockSize))
	pairs := []string{"drive", node, "logical_block_size", size, "physical_block_size", size}
	return append(pairs, b.bootIndex(name)...)
}

func (b *builder) bootIndex(name string) []string {
	index, ok := b.boot[name]
	if !ok {
		return nil
	}
	return []string{"bootindex", strconv.Itoa(index)}
}

// disk adds the block node of the disk name and returns its backend.
func (b *builder) disk(name, backend string) (propolis.FileStorageBackend, bool) {
	file, ok := b.spec.Components[backend].(propolis.FileStorageBackend)
	if !ok {
		b.refuseBackend(name, backend, "file_storage_backend")
		return file, false
	}
	found := b.host.Files[file.Path]
	switch {
	case found.Err != nil:
		b.refuse(backend, "%v", found.Err)
		return file, false
	case found.Dir:
		b.refuse(backend, "%s is a folder", file.Path)
		return file, false
	case file.BlockSize != 512 && file.BlockSize != cdBlockSize && file.BlockSize != 4096:
		b.refuse(backend, "block size %d is not served; use 512, 2048 or 4096", file.BlockSize)
		return file, false
	}
	node := blockNode(backend)
	b.hand("-blockdev", blockDevice(node, file, found.Block, file.Path))
	below := b.backing(node, found.Backing)
	b.served("-blockdev", blockDevice(node, file, found.Block, b.file(file.Path, !file.Readonly), below...))
	if b.cmd.disks == nil {
		b.cmd.disks = make(map[string]int)
	}
	b.cmd.disks[backend] = b.cmd.sets
	return file, true
}

// backing adds the block nodes of what a disk stands on, and returns the option
// that puts the disk on them.
func (b *builder) backing(disk string, layers []Layer) (below []string) {
	for i, l := range slices.Backward(layers) {
		node := fmt.Sprintf("%s.base%d", disk, i+1)
		b.served("-blockdev", option("driver="+l.Format, append([]string{"node-name", node, "read-only", "on",
			"file.driver", protocol(l.Block), "file.filename", b.file(l.Path, false)}, below...)...))
		below = []string{"backing", node}
	}
	return below
}

// refuseBackend refuses a device whose backend is missing or of a wrong kind.
// A kind that is refused for itself needs no second complaint.
func (b *builder) refuseBackend(name, backend, want string) {
	c, ok := b.spec.Components[backend]
	switch {
	case !ok:
		b.refuse(name, "its backend %q does not exist", backend)
	case unserved(c) == "":
		b.refuse(name, "its backend %q is a %s; use a %s", backend, c.Kind(), want)
	}
}

// blockDevice describes a disk's file, which QEMU opens by a path, and what is
// below it.
func blockDevice(node string, file propolis.FileStorageBackend, device bool, path string, below ...string) string {
	readonly := "off"
	if file.Readonly {
		readonly = "on"
	}
	return option("driver="+diskFormat(file.Path), append([]string{"node-name", node, "read-only", readonly, "discard", "unmap",
		"file.driver", protocol(device), "file.filename", path, "file.discard", "unmap"}, below...)...)
}

// diskFormat goes by the name of a file and is never guessed from its content,
// which the guest controls.
func diskFormat(path string) string {
	if filepath.Ext(path) == ".qcow2" {
		return "qcow2"
	}
	return "raw"
}

func protocol(device bool) string {
	if device {
		return "host_device"
	}
	return "file"
}

// blockNode names the block node of a storage backend.
func blockNode(backend string) string { return objectID("b", backend) }

// share adds a folder of the host, which the guest can read.
func (b *builder) share(name string, c propolis.P9FS, at []string) {
	found := b.host.Files[c.Source]
	switch {
	case c.Target == "" || len(c.Target) > maxTag:
		b.refuse(name, "mount tag %q has %d bytes; QEMU takes 1 to %d", c.Target, len(c.Target), maxTag)
		return
	case found.Err != nil:
		b.refuse(name, "%v", found.Err)
		return
	case !found.Dir:
		b.refuse(name, "%s is not a folder", c.Source)
		return
	}
	id := objectID("fs", name)
	fsdev := func(path string) string {
		return option("local", "id", id, "path", path, "security_model", "none", "readonly", "on", "multidevs", "remap")
	}
	b.hand("-fsdev", fsdev(c.Source))
	b.served("-fsdev", fsdev(b.inside(confine.Mount{Source: c.Source, Target: "/falcon/" + id, Owned: true})))
	b.device("virtio-9p-pci", objectID("dev", name), at, "fsdev", id, "mount_tag", c.Target)
}

func (b *builder) vsock(name string, c propolis.VirtioSocket, at []string) {
	switch {
	case b.host.NoVsock != nil:
		b.refuse(name, "this host has no vsock: %v", b.host.NoVsock)
	case c.GuestCID < minGuestCID || c.GuestCID > maxGuestCID:
		b.refuse(name, "guest CID %d is out of range; use %d to %d", c.GuestCID, minGuestCID, uint64(maxGuestCID))
	default:
		b.opens(vsockDevice, OpenFile{Path: vsockDevice, Writable: true})
		b.device("vhost-vsock-pci", objectID("dev", name), at, "guest-cid", strconv.FormatUint(c.GuestCID, 10))
	}
}
