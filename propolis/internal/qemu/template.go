package qemu

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/internal/agent"
	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/falcon-vm/falcon-go/propolis/internal/confine"
	"github.com/falcon-vm/falcon-go/propolis/internal/qmp"
)

// Template is a guest that has booted once, so that others need not: its memory
// in a file that clones map and copy on write, and the state of its devices.
//
// A template has the devices of its clones, in the same places, but nobody at
// the other end of its cables, and made-up addresses and a made-up UUID. Those
// of a clone are put in their place, in the state of the devices and wherever
// they are in memory, before the clone runs: its guest has never seen others.
// That is sound as long as nothing was derived from them, so a guest's NICs
// must be down when the template is saved.
type Template struct {
	// Dir is the template's folder.
	Dir string
	// Make boots the machine, to be kept there by [Machine.Save]. Otherwise
	// the machine is a clone of what is there.
	Make bool
}

// The files of a template.
const (
	ramFile    = "ram"
	stateFile  = "state"
	recordFile = "template.json"
)

// templateRecord is what a template's file says of it.
type templateRecord struct {
	// Machine is the digest of what a machine must have in common with the
	// template to be its clone.
	Machine string `json:"machine"`
	// State is the digest of the devices' state: QEMU waits for the rest of
	// one that is short.
	State string `json:"state"`
	// Marks are the places in memory of what clones have of their own.
	Marks []mark `json:"marks"`
}

// mark is a place in memory and what is there.
type mark struct {
	At int64  `json:"at"`
	Is []byte `json:"is"`
}

// ramID is the guest's memory in QEMU's command line, and ramInside what QEMU
// opens for it. There is no such file.
const (
	ramID     = "ram"
	ramInside = "/falcon/ram"
)

func (t *Template) making() bool  { return t != nil && t.Make }
func (t *Template) cloning() bool { return t != nil && !t.Make }

// MAC is an Ethernet address.
type MAC [6]byte

// String is the address with colons.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// placeholder is the address that the NIC in a place has in a template. Its
// beginning is arbitrary: bytes that occur nowhere else in a machine.
func placeholder(p propolis.PCIPath) MAC {
	return MAC{0x0a, 0xfa, 0x1c, 0xb7, p.Bus, p.Device<<3 | p.Function}
}

// placeholderID is the UUID of every template, as arbitrary.
var placeholderID = uuid.MustParse("0afa1cb7-5c3e-4d92-8b61-e7f20d94a385")

// marks are texts and what is to be in their place, which is as long.
type marks map[string]string

// addMAC has one address replaced by another, however it is written.
func (m marks) addMAC(from, to MAC) {
	m[string(from[:])] = string(to[:])
	m[from.String()] = to.String()
	m[hex.EncodeToString(from[:])] = hex.EncodeToString(to[:])
}

// addID has one UUID replaced by another, but for where it is written without
// dashes: so systemd names folders, which are found by the hashes of their names.
func (m marks) addID(from, to uuid.UUID) {
	m[string(from[:])] = string(to[:])
	m[from.String()] = to.String()
	// SMBIOS has the first three numbers with their low bytes first.
	m[smbiosID(from)] = smbiosID(to)
}

// addSeed has the guest agent of a clone find a seed of the clone's own. Where there
// is no such agent there is no such mark.
func (m marks) addSeed() {
	mark := agent.SeedMark()
	seed := make([]byte, len(mark))
	_, _ = rand.Read(seed) // never fails, by its documentation
	m[string(mark)] = string(seed)
}

func smbiosID(id uuid.UUID) string {
	slices.Reverse(id[:4])
	slices.Reverse(id[4:6])
	slices.Reverse(id[6:8])
	return string(id[:])
}

// find returns the places in data where there is something to replace.
func (m marks) find(data []byte) []mark {
	var found []mark
	for from := range m {
		for at := 0; ; {
			i := bytes.Index(data[at:], []byte(from))
			if i < 0 {
				break
			}
			at += i
			found = append(found, mark{int64(at), []byte(from)})
			at += len(from)
		}
	}
	return found
}

// template adds the memory, and to a clone the way in which it gets its state.
func (b *builder) template() {
	t := b.cfg.Template
	if t == nil {
		return
	}
	share := "off"
	if t.Make {
		share = "on"
	}
	ram := filepath.Join(t.Dir, ramFile)
	object := func(path string) string {
		return option("memory-backend-file", "id", ramID, "size", strconv.FormatUint(b.spec.Board.MemoryMiB, 10)+"M", "mem-path", path, "share", share)
	}
	b.hand("-object", object(ram))
	b.served("-object", object(b.memory(ram)))
	b.cmd.own = make(marks)
	b.cmd.own.addSeed()
	if t.cloning() {
		b.cmd.stateFD = b.inherit(FD{Kind: FDState})
		b.served("-incoming", "defer")
	}
}

// memory has QEMU get the file of the template's memory. QEMU opens it for
// writing, also when it never writes to it: a clone gets one that it can only read.
func (b *builder) memory(ram string) string {
	path, file := ramInside, OpenFile{Path: ram}
	if b.host.Level == confine.Least {
		path = ram
	}
	if b.cfg.Template.Make {
		file = OpenFile{Path: ram, Writable: true, Size: int64(b.spec.Board.MemoryMiB) << 20}
	}
	b.opens(path, file)
	return path
}

// ownAddress notes the address of a NIC.
func (b *builder) ownAddress(at propolis.PCIPath, mac string) {
	if b.cfg.Template == nil {
		return
	}
	var to MAC
	if hw, err := net.ParseMAC(mac); err == nil {
		copy(to[:], hw)
	}
	b.cmd.own.addMAC(placeholder(at), to)
}

// ownID notes the machine's UUID.
func (b *builder) ownID() {
	if id, err := uuid.Parse(b.cfg.ID); err == nil && b.cfg.Template != nil {
		b.cmd.own.addID(placeholderID, id)
	}
}

// machineDigest identifies what a template and its clones have in common: all
// that QEMU is told, and QEMU itself.
func machineDigest(cfg Config, host Host) (string, error) {
	cfg.ID, cfg.Name, cfg.NetNS, cfg.Template = placeholderID.String(), "", "", &Template{Make: true}
	cfg.Spec.Components = maps.Clone(cfg.Spec.Components)
	const disk, share = "disk.qcow2", "share"
	for name, c := range cfg.Spec.Components {
		switch c := c.(type) {
		case propolis.FileStorageBackend:
			c.Path = disk
			cfg.Spec.Components[name] = c
		case propolis.P9FS:
			c.Source = share
			cfg.Spec.Components[name] = c
		}
	}
	host.Files = map[string]File{disk: {}, share: {Dir: true}}
	host.Level = confine.Full
	command, err := CommandLine(cfg, host)
	if err != nil {
		return "", err
	}
	binary, err := os.Stat(command.Path)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%q %d %s", command.Path, binary.Size(), binary.ModTime().UTC().Format(time.RFC3339Nano))
	for _, arg := range command.Args {
		fmt.Fprintf(sum, " %q", arg)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// migrationSettings are the same for those who save a state and who take it:
// the memory itself stays in its file.
func (m *Machine) migrationSettings(ctx context.Context) error {
	type capability struct {
		Name  string `json:"capability"`
		State bool   `json:"state"`
	}
	return m.execute(ctx, "migrate-set-capabilities", map[string]any{
		"capabilities": []capability{{"x-ignore-shared", true}, {"events", true}}})
}

// lateAnnouncement has a clone's NICs tell the network where the machine is once
// only, and late. That is for a machine that has moved, and costs each clone some
// milliseconds of its start. Without any, QEMU 7.2 ends by a fault when it resets a
// virtio NIC: it has no timer then, and stops it all the same.
var lateAnnouncement = map[string]any{
	"announce-rounds": 1, "announce-initial": announceLimit, "announce-max": announceLimit,
}

// announceLimit is the longest delay that QEMU takes, in milliseconds.
const announceLimit = 100_000

// restore gives a clone its template's state, and what is its own.
func (m *Machine) restore(ctx context.Context, c Command, to *os.File) error {
	defer to.Close()
	dir := m.cfg.Template.Dir
	record, err := readTemplate(dir)
	if err != nil {
		return err
	}
	if record.Machine != m.machine {
		return errors.New("it is of another machine")
	}
	state, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return err
	}
	if record.State != digest(state) {
		return fmt.Errorf("its file %s is damaged", stateFile)
	}
	for _, mark := range c.own.find(state) {
		copy(state[mark.At:], c.own[string(mark.Is)])
	}
	if err := m.migrationSettings(ctx); err != nil {
		return err
	}
	if err := m.execute(ctx, "migrate-set-parameters", lateAnnouncement); err != nil {
		return err
	}
	if err := m.execute(ctx, "migrate-incoming", map[string]any{"uri": "fd:" + strconv.Itoa(c.stateFD)}); err != nil {
		return err
	}
	// It fails when QEMU has enough, or has gone: which the event tells.
	_, _ = to.Write(state)
	to.Close()
	if err := m.awaitMigration(ctx); err != nil {
		return err
	}
	return m.personalize(filepath.Join(dir, ramFile), record.Marks, c.own)
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func readTemplate(dir string) (r templateRecord, err error) {
	data, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("%s: %w", recordFile, err)
	}
	return r, nil
}

// personalize writes a clone's own into its memory, which is still as the file
// at path has it: a private mapping of QEMU's.
func (m *Machine) personalize(path string, places []mark, own marks) error {
	pid := m.proc.os.Pid
	list, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return err
	}
	areas, err := mappings(string(list), path)
	if err != nil {
		return err
	}
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer memory.Close()
	for _, p := range places {
		to, known := own[string(p.Is)]
		if !known {
			return fmt.Errorf("it has %x in its memory, which nothing of the clone stands for", p.Is)
		}
		at, err := areas.address(p.At, int64(len(to)))
		if err != nil {
			return err
		}
		is := make([]byte, len(p.Is))
		if _, err := memory.ReadAt(is, at); err != nil {
			return fmt.Errorf("reading QEMU's memory: %w", err)
		}
		if !bytes.Equal(is, p.Is) {
			return fmt.Errorf("its memory has %x at %#x, not %x: it is damaged", is, p.At, p.Is)
		}
		if _, err := memory.WriteAt([]byte(to), at); err != nil {
			return fmt.Errorf("writing to QEMU's memory: %w", err)
		}
	}
	return nil
}

// mapping is a part of a file in the memory of a process.
type mapping struct{ start, end, offset int64 }

type mappingList []mapping

// mappings picks those of a file out of a /proc/PID/maps.
func mappings(procMaps, path string) (mappingList, error) {
	var list mappingList
	for line := range strings.Lines(procMaps) {
		var a mapping
		var access, device string
		var inode uint64
		n, _ := fmt.Sscanf(line, "%x-%x %s %x %s %d", &a.start, &a.end, &access, &a.offset, &device, &inode)
		if n != 6 || !strings.HasSuffix(strings.TrimRight(line, "\n"), " "+path) {
			continue
		}
		if access != "rw-p" {
			return nil, fmt.Errorf("QEMU has %s mapped as %s, not privately: nothing is written there", path, access)
		}
		list = append(list, a)
	}
	return list, nil
}

// address is where n bytes at an offset of the file are.
func (l mappingList) address(offset, n int64) (int64, error) {
	for _, a := range l {
		if offset >= a.offset && offset+n <= a.offset+a.end-a.start {
			return a.start + offset - a.offset, nil
		}
	}
	return 0, fmt.Errorf("QEMU has the %d bytes at %#x of the template's memory nowhere", n, offset)
}

// migration passes the end of a migration on.
func (m *Machine) migration(e qmp.Event) {
	var data struct {
		Status string `json:"status"`
	}
	if e.Name != "MIGRATION" || json.Unmarshal(e.Data, &data) != nil {
		return
	}
	var err error
	switch data.Status {
	case "completed":
	case "failed", "cancelled":
		err = errors.New("QEMU says that the state does not fit: it is of another machine, or damaged")
	default:
		return
	}
	select {
	case m.migrated <- err:
	default: // nobody has asked
	}
}

// awaitMigration waits for the end of a migration.
func (m *Machine) awaitMigration(ctx context.Context) error {
	select {
	case err := <-m.migrated:
		return err
	case <-m.done:
		return m.proc.err
	case <-ctx.Done():
		return fmt.Errorf("waiting for the state to be passed on: %w", context.Cause(ctx))
	}
}

// Save stops the machine and keeps it as the template that it was started to
// make. What remains to be done with the machine is to close it.
func (m *Machine) Save(ctx context.Context) error {
	t := m.cfg.Template
	if !t.making() {
		return errors.New("the machine was not started to be kept as a template")
	}
	if err := m.save(ctx, t.Dir); err != nil {
		return fmt.Errorf("saving the template in %s: %w", t.Dir, err)
	}
	return nil
}

func (m *Machine) save(ctx context.Context, dir string) error {
	ours, theirs, err := socketPair("state")
	if err != nil {
		return err
	}
	defer ours.Close()
	defer theirs.Close()
	// A connection knows no context.
	defer context.AfterFunc(ctx, func() { ours.Close() })()
	if err := m.execute(ctx, "stop", nil); err != nil {
		return err
	}
	if err := m.migrationSettings(ctx); err != nil {
		return err
	}
	if err := m.execute(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": int64(1) << 40}); err != nil {
		return err
	}
	if err := m.qmp.Pass(ctx, "state", theirs); err != nil {
		return err
	}
	theirs.Close()
	if err := m.execute(ctx, "migrate", map[string]any{"uri": "fd:state"}); err != nil {
		return err
	}
	if err := receive(ours, filepath.Join(dir, stateFile)); err != nil {
		return err
	}
	if err := m.awaitMigration(ctx); err != nil {
		return err
	}
	return m.describe(dir)
}

// describe writes the template's record. The machine stands still.
func (m *Machine) describe(dir string) error {
	file, err := os.Open(filepath.Join(dir, ramFile))
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	memory, err := unix.Mmap(int(file.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(memory)
	state, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return err
	}
	data, err := json.Marshal(templateRecord{Machine: m.machine, State: digest(state), Marks: m.own.find(memory)})
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, recordFile), data)
}

// receive writes what a connection brings to a new file.
func receive(conn net.Conn, path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, conn)
	return errors.Join(err, file.Sync(), file.Close())
}
