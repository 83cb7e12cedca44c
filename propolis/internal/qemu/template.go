package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/falcon-vm/falcon-go/propolis/internal/qmp"
)

// Template is a guest that has booted once, so that others need not: its memory
// in a file that clones map and copy on write, and the state of its devices.
//
// A template has the devices of its clones, in the same places, but nobody at
// the other end of its cables, and made-up MAC addresses. A clone's own are put
// in their place in the state of the devices; the guest must not have its NICs
// in use when the template is saved, and finds the new addresses when it takes
// them into use.
type Template struct {
	// Dir is the template's folder.
	Dir string
	// Make boots the machine, to be kept there by [Machine.Save]. Otherwise
	// the machine is a clone of what is there.
	Make bool
}

// The files of a template.
const (
	ramFile   = "ram"
	stateFile = "state"
	// saveSocket is where QEMU delivers the state.
	saveSocket = "save.sock"
)

// ramID is the guest's memory in QEMU's command line.
const ramID = "ram"

func (t *Template) making() bool  { return t != nil && t.Make }
func (t *Template) cloning() bool { return t != nil && !t.Make }

// MAC is an Ethernet address.
type MAC [6]byte

// String is the address with colons.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// placeholder is the address that the NIC in a place has in a template. Its
// beginning is arbitrary: bytes that occur nowhere else in a state.
func placeholder(p propolis.PCIPath) MAC {
	return MAC{0x0a, 0xfa, 0x1c, 0xb7, p.Bus, p.Device<<3 | p.Function}
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
	b.add("-object", option("memory-backend-file", "id", ramID, "size", strconv.FormatUint(b.spec.Board.MemoryMiB, 10)+"M",
		"mem-path", filepath.Join(t.Dir, ramFile), "share", share))
	if t.cloning() {
		b.cmd.MACs = make(map[MAC]MAC)
		b.cmd.stateFD = b.inherit(FD{Kind: FDState})
		b.served("-incoming", "defer")
	}
}

// readdress notes the address of a clone's NIC.
func (b *builder) readdress(at propolis.PCIPath, mac string) {
	if !b.cfg.Template.cloning() {
		return
	}
	var to MAC
	if hw, err := net.ParseMAC(mac); err == nil {
		copy(to[:], hw)
	}
	b.cmd.MACs[placeholder(at)] = to
}

// readdressed returns a device state with other addresses. One that does not
// have the old ones is of another machine.
func readdressed(state []byte, macs map[MAC]MAC) ([]byte, error) {
	for from, to := range macs {
		if !bytes.Contains(state, from[:]) {
			return nil, fmt.Errorf("its state has no NIC with the address %s: it is of another machine, or damaged", from)
		}
		state = bytes.ReplaceAll(state, from[:], to[:])
	}
	return state, nil
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

// restore gives a clone its template's state, with its own addresses.
func (m *Machine) restore(ctx context.Context, c Command, to *os.File) error {
	defer to.Close()
	state, err := os.ReadFile(filepath.Join(m.cfg.Template.Dir, stateFile))
	if err != nil {
		return err
	}
	if state, err = readdressed(state, c.MACs); err != nil {
		return err
	}
	if err := m.migrationSettings(ctx); err != nil {
		return err
	}
	if err := m.execute(ctx, "migrate-incoming", map[string]any{"uri": "fd:" + strconv.Itoa(c.stateFD)}); err != nil {
		return err
	}
	// It fails when QEMU has enough, or has gone: which the event tells.
	_, _ = to.Write(state)
	to.Close()
	return m.awaitMigration(ctx)
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
	path := filepath.Join(dir, saveSocket)
	if err := checkSocketPath(path); err != nil {
		return err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	defer l.Close() // which removes it
	// A listener knows no context.
	defer context.AfterFunc(ctx, func() { l.Close() })()
	if err := m.execute(ctx, "stop", nil); err != nil {
		return err
	}
	if err := m.migrationSettings(ctx); err != nil {
		return err
	}
	if err := m.execute(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": int64(1) << 40}); err != nil {
		return err
	}
	if err := m.execute(ctx, "migrate", map[string]any{"uri": "unix:" + path}); err != nil {
		return err
	}
	if err := receive(l, filepath.Join(dir, stateFile)); err != nil {
		return err
	}
	return m.awaitMigration(ctx)
}

// receive writes what one connection brings to a new file.
func receive(l net.Listener, path string) error {
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, conn)
	return errors.Join(err, file.Sync(), file.Close())
}
