package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/falcon-vm/falcon-go/propolis/internal/qmp"
)

const testID = "3f0c8a52-6b1e-4c0e-9a55-0d7f6a1f2b3c"

// bootLimit bounds the boot of a test guest: SeaBIOS takes a second or two
// under TCG, OVMF some ten.
const bootLimit = 90 * time.Second

// spec returns an instance of one small CPU with COM1 and the components.
func spec(components propolis.Components) propolis.InstanceSpec {
	s := propolis.InstanceSpec{
		Board:      propolis.Board{CPUs: 1, MemoryMiB: 64, Chipset: propolis.Chipset{Type: "i440_fx"}},
		Components: propolis.Components{"com1": propolis.SerialPort{Num: "com1"}},
	}
	for name, c := range components {
		s.Components[name] = c
	}
	return s
}

// diskOn returns a bootable virtio disk on a file.
func diskOn(path string) propolis.Components {
	return propolis.Components{
		"disk":    propolis.VirtioDisk{BackendID: "backing", PCIPath: propolis.PCIPath{Device: 4}},
		"backing": propolis.FileStorageBackend{Path: path, BlockSize: 512},
		"last":    propolis.BootSettings{Order: []propolis.BootOrderEntry{{ID: "disk"}}},
	}
}

// guest is a running machine with what it printed so far.
type guest struct {
	*Machine
	t       *testing.T
	console io.ReadWriteCloser
	output  chan []byte
	seen    bytes.Buffer
}

func needQEMU(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs a guest; -short")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("qemu-system-x86_64 is not installed")
	}
}

// testConfig is an instance under TCG: what is tested must not depend on
// whether this host has KVM.
func testConfig(t *testing.T, components propolis.Components) Config {
	return Config{
		ID: testID, Name: "test", Spec: spec(components), Firmware: FirmwareBIOS, Accel: AccelTCG,
		PIDFile: filepath.Join(t.TempDir(), "qemu.pid"),
	}
}

func startGuest(t *testing.T, cfg Config) *guest {
	t.Helper()
	needQEMU(t)
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	m, err := Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{Machine: m, t: t, console: m.Console(), output: make(chan []byte)}
	go func() {
		defer close(g.output)
		for {
			buf := make([]byte, 1024)
			n, err := g.console.Read(buf)
			if err != nil {
				if err != io.EOF {
					t.Errorf("console ended with %v, want io.EOF", err)
				}
				return
			}
			g.output <- buf[:n]
		}
	}()
	t.Cleanup(g.end)
	return g
}

// end closes the machine and sees that nothing of it stays.
func (g *guest) end() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for range g.output {
		}
	}()
	if err := g.Close(ctx); err != nil {
		g.t.Error(err)
	}
	for range g.Events() {
	}
	<-drained // the console has ended, too
	g.console.Close()
	if err := syscall.Kill(g.PID(), 0); !errors.Is(err, syscall.ESRCH) {
		g.t.Errorf("process %d after Close: %v", g.PID(), err)
	}
	if _, err := os.Stat(g.cfg.PIDFile); !errors.Is(err, os.ErrNotExist) {
		g.t.Errorf("pid file after Close: %v", err)
	}
}

func (g *guest) run() {
	g.t.Helper()
	if err := g.Run(g.t.Context()); err != nil {
		g.t.Fatal(err)
	}
}

// expect waits until the guest has printed text, and forgets what is before.
func (g *guest) expect(text string) {
	g.t.Helper()
	deadline := time.After(bootLimit)
	for {
		if _, after, ok := bytes.Cut(g.seen.Bytes(), []byte(text)); ok {
			rest := bytes.Clone(after)
			g.seen.Reset()
			g.seen.Write(rest)
			return
		}
		select {
		case chunk, open := <-g.output:
			if !open {
				g.t.Fatalf("the console ended before %q; it said %q", text, g.seen.String())
			}
			g.seen.Write(chunk)
		case <-deadline:
			g.t.Fatalf("no %q on the console after %s; it said %q", text, bootLimit, g.seen.String())
		}
	}
}

func (g *guest) send(text string) {
	g.t.Helper()
	if _, err := io.WriteString(g.console, text); err != nil {
		g.t.Fatal(err)
	}
}

func (g *guest) event() Event {
	g.t.Helper()
	select {
	case e, open := <-g.Events():
		if !open {
			g.t.Fatal("the event channel is closed")
		}
		if (e.Kind == Exited) != e.At.IsZero() {
			g.t.Errorf("the time of %+v is not QEMU's", e)
		}
		e.At = time.Time{}
		return e
	case <-time.After(bootLimit):
		g.t.Fatalf("no event after %s", bootLimit)
		return Event{}
	}
}

// expectEvent waits for an event. SeaBIOS adds resets of its own to each
// reset; they are passed over.
func (g *guest) expectEvent(want Event) {
	g.t.Helper()
	got := g.event()
	for got != want && got == (Event{Kind: Reset, ByGuest: true}) {
		got = g.event()
	}
	if got != want {
		g.t.Fatalf("event %+v, want %+v", got, want)
	}
}

func TestSeaBIOSSpeaksOnCOM1(t *testing.T) {
	g := startGuest(t, testConfig(t, nil))
	g.run()
	g.expect("No bootable device")
}

func TestVCPUsStandStillUntilRun(t *testing.T) {
	g := startGuest(t, testConfig(t, diskOn(biosDisk(t))))
	select {
	case chunk := <-g.output:
		t.Fatalf("the guest printed %q before Run", chunk)
	case <-time.After(300 * time.Millisecond):
	}
	g.run()
	g.expect(hello)
}

func TestGuestResetsPanicsAndPowersOff(t *testing.T) {
	g := startGuest(t, testConfig(t, merge(diskOn(biosDisk(t)), propolis.Components{
		"panic": propolis.PVPanic{EnableISA: true},
	})))
	g.run()
	g.expect(hello)
	g.send("xyz")
	g.expect("xyz")
	g.send("r")
	g.expectEvent(Event{Kind: Reset, ByGuest: true})
	g.expect(hello)
	g.send("c")
	g.expectEvent(Event{Kind: Panicked, ByGuest: true})
	g.send("still here")
	g.expect("still he") // and r resets it
	g.expectEvent(Event{Kind: Reset, ByGuest: true})
	g.expect(hello)
	if err := g.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.expectEvent(Event{Kind: Reset})
	g.expect(hello)
	if err := g.NMI(t.Context()); err != nil {
		t.Error(err)
	}
	g.send("p")
	g.expectEvent(Event{Kind: Shutdown, ByGuest: true})
	if err := g.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.expectEvent(Event{Kind: Exited})
}

// Somebody's stop is reported, and what this package does itself is not.
func TestStopsAreReported(t *testing.T) {
	disk := biosDisk(t)
	g := startGuest(t, testConfig(t, diskOn(disk)))
	g.run()
	g.expect(hello)
	stop := func(cmd string) {
		t.Helper()
		if err := g.execute(t.Context(), cmd, nil); err != nil {
			t.Fatal(err)
		}
	}
	stop("stop")
	g.expectEvent(Event{Kind: Paused, Why: "paused"})
	stop("cont")
	g.expectEvent(Event{Kind: Resumed})
	if err := g.whilePaused(t.Context(), func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	stop("stop")
	g.expectEvent(Event{Kind: Paused, Why: "paused"})
	// Its own stop leaves it as it is.
	if err := g.whilePaused(t.Context(), func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := g.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.expectEvent(Event{Kind: Resumed})
	g.send("xyz")
	g.expect("xyz")
}

func TestAPanicIsNewsOnce(t *testing.T) {
	m := &Machine{}
	for _, step := range []struct {
		event string
		news  bool
	}{
		{"GUEST_CRASHLOADED", true}, {"GUEST_PANICKED", false}, {"GUEST_PANICKED", false},
		{"RESET", true}, {"GUEST_PANICKED", true}, {"GUEST_PANICKED", false},
	} {
		if _, news := m.translate(qmp.Event{Name: step.event}); news != step.news {
			t.Errorf("%s is news: %v", step.event, news)
		}
	}
}

func TestEventsOfDisks(t *testing.T) {
	m := &Machine{disks: map[string]string{"backing": blockNode("backing") + ".1"}}
	for name, test := range map[string]struct {
		data string
		want Event
	}{
		"no space": {
			`{"device":"","nospace":true,"node-name":"b-backing.1","reason":"No space left on device","operation":"write","action":"stop"}`,
			Event{Kind: DiskError, Disk: "backing", NoSpace: true, Stops: true, Why: "write: No space left on device"},
		},
		"reported to the guest": {
			`{"device":"","nospace":false,"node-name":"b-backing.1","reason":"Input/output error","operation":"read","action":"report"}`,
			Event{Kind: DiskError, Disk: "backing", Why: "read: Input/output error"},
		},
		"of nobody knows what": {`{}`, Event{Kind: DiskError}},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := m.translate(qmp.Event{Name: "BLOCK_IO_ERROR", Data: []byte(test.data)})
			if !ok || got != test.want {
				t.Errorf("got %+v, %v, want %+v", got, ok, test.want)
			}
		})
	}
}

func TestPowerDownPressesTheACPIButton(t *testing.T) {
	g := startGuest(t, testConfig(t, diskOn(biosDisk(t))))
	g.run()
	g.expect(hello)
	if err := g.PowerDown(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.expectEvent(Event{Kind: Shutdown, ByGuest: true})
}

func TestBootISOBootsUnderBIOS(t *testing.T) {
	g := startGuest(t, testConfig(t, merge(diskOn(emptyDisk(t)), isoOn(biosISO(t)))))
	g.run()
	g.expect(hello)
}

// emptyDisk writes a disk that nothing can boot.
func emptyDisk(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "empty.raw")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// needUEFI returns an instance that boots by UEFI.
func needUEFI(t *testing.T, components propolis.Components) Config {
	t.Helper()
	if _, err := FindUEFI(); err != nil {
		t.Skip(err)
	}
	cfg := testConfig(t, components)
	cfg.Firmware = FirmwareUEFI
	cfg.Spec.Board.MemoryMiB = 128
	return cfg
}

func TestUEFIBootsDisksAndISOs(t *testing.T) {
	iso := func(t *testing.T) propolis.Components { return isoOn(uefiISO(t)) }
	tests := map[string]func(*testing.T) propolis.Components{
		"virtio disk": func(t *testing.T) propolis.Components { return diskOn(uefiDisk(t)) },
		"NVMe disk": func(t *testing.T) propolis.Components {
			return merge(diskOn(uefiDisk(t)), propolis.Components{"disk": propolis.NVMeDisk{BackendID: "backing", PCIPath: at(4)}})
		},
		"ISO":               iso,
		"ISO before a disk": func(t *testing.T) propolis.Components { return merge(diskOn(emptyDisk(t)), iso(t)) },
		"ISO as a virtio disk": func(t *testing.T) propolis.Components {
			return merge(iso(t), propolis.Components{"boot_iso_first": propolis.BootSettings{}})
		},
	}
	for name, components := range tests {
		t.Run(name, func(t *testing.T) {
			g := startGuest(t, needUEFI(t, components(t)))
			g.run()
			g.expect(hello)
		})
	}
}

// isoOn returns a boot ISO as falcon declares it.
func isoOn(path string) propolis.Components {
	return propolis.Components{
		"boot_iso":         propolis.VirtioDisk{BackendID: "boot_iso_backing", PCIPath: propolis.PCIPath{Device: 5}},
		"boot_iso_backing": propolis.FileStorageBackend{Path: path, Readonly: true, BlockSize: 2048},
		"boot_iso_first":   propolis.BootSettings{Order: []propolis.BootOrderEntry{{ID: "boot_iso"}}},
	}
}

func merge(sets ...propolis.Components) propolis.Components {
	all := propolis.Components{}
	for _, set := range sets {
		for name, c := range set {
			all[name] = c
		}
	}
	return all
}

func TestUEFISpeaksOnCOM1AndKeepsItsVariables(t *testing.T) {
	cfg := needUEFI(t, nil)
	g := startGuest(t, cfg)
	g.run()
	g.expect("UEFI")
	info, err := os.Stat(strings.TrimSuffix(cfg.PIDFile, ".pid") + ".vars")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("variables: %v, %v", info, err)
	}
}

func TestAKilledQEMUIsReportedWithItsStatus(t *testing.T) {
	g := startGuest(t, testConfig(t, diskOn(biosDisk(t))))
	g.run()
	g.expect(hello)
	if pid, err := os.ReadFile(g.cfg.PIDFile); err != nil || strings.TrimSpace(string(pid)) != strconv.Itoa(g.PID()) {
		t.Errorf("pid file: %q, %v; want %d", pid, err, g.PID())
	}
	if err := syscall.Kill(g.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	e := g.event()
	var exit *ExitError
	if e.Kind != Exited || !errors.As(e.Err, &exit) || !strings.Contains(exit.How, "killed") {
		t.Fatalf("event %+v", e)
	}
	if err := g.Run(t.Context()); !errors.As(err, &exit) {
		t.Errorf("Run on a dead QEMU: %v, want its end", err)
	}
}

func TestAnUnaskedEndIsAnErrorWithLastWords(t *testing.T) {
	g := startGuest(t, testConfig(t, nil))
	if err := syscall.Kill(g.PID(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	e := g.event()
	if e.Kind != Exited || e.Err == nil || !strings.Contains(e.Err.Error(), "terminating on signal 15") {
		t.Errorf("event %+v", e)
	}
}

func TestStartFailsWithQEMUsOwnWords(t *testing.T) {
	needQEMU(t)
	disk := filepath.Join(t.TempDir(), "disk.qcow2")
	if err := os.WriteFile(disk, []byte("no qcow2"), 0o600); err != nil {
		t.Fatal(err)
	}
	var printed bytes.Buffer
	cfg := testConfig(t, diskOn(disk))
	cfg.Stderr = &printed
	_, err := Start(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "qcow2") || !strings.Contains(printed.String(), "qcow2") {
		t.Errorf("err = %v; stderr %q", err, printed.String())
	}
	if _, err := os.Stat(cfg.PIDFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pid file after a failed start: %v", err)
	}
}

func TestStartIsBoundByItsContext(t *testing.T) {
	needQEMU(t)
	script := filepath.Join(t.TempDir(), "qemu")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexec sleep 60\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t, nil)
	cfg.QEMU = script
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := Start(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "greeting") {
		t.Errorf("err = %v", err)
	}
}

func TestCloseUsesForceOnAQEMUThatDoesNotListen(t *testing.T) {
	g := startGuest(t, testConfig(t, nil))
	if err := syscall.Kill(g.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	for range 2 { // twice is as good
		if err := g.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if e := g.event(); e.Kind != Exited || e.Err == nil {
		t.Errorf("event %+v", e)
	}
}

func TestScreen(t *testing.T) {
	for name, test := range map[string]struct {
		password string
		asked    bool
		want     byte // the security type that QEMU offers
	}{
		"without a password": {"", false, 1},
		"with a password":    {"violin", true, 2},
		"of the owner":       {"violin", false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t, nil)
			cfg.Screen, cfg.ScreenPassword = true, test.password
			g := startGuest(t, cfg)
			for range 2 { // any number of viewers
				viewer, err := g.Screen(t.Context(), test.asked)
				if err != nil {
					t.Fatal(err)
				}
				defer viewer.Close()
				if err := viewer.SetDeadline(time.Now().Add(bootLimit)); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, 14)
				_, err = io.ReadFull(viewer, got[:12])
				if err == nil {
					_, err = viewer.Write(got[:12])
				}
				if err == nil {
					_, err = io.ReadFull(viewer, got[12:])
				}
				if err != nil || !bytes.HasPrefix(got, []byte("RFB 003.008\n")) || got[12] != 1 || got[13] != test.want {
					t.Errorf("the screen said %q, %v; want one security type, %d", got, err, test.want)
				}
			}
			list, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", g.PID()))
			if err != nil || test.password != "" && bytes.Contains(list, []byte("=violin")) {
				t.Errorf("the password is on the command line: %q, %v", list, err)
			}
		})
	}
}

func TestNoScreen(t *testing.T) {
	g := startGuest(t, testConfig(t, nil))
	if _, err := g.Screen(t.Context(), false); !errors.Is(err, ErrNoScreen) {
		t.Errorf("got %v", err)
	}
}

func TestSwitchOverlayWhileTheGuestWrites(t *testing.T) {
	needQEMU(t)
	img, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("qemu-img is not installed")
	}
	base := biosDisk(t)
	overlays := make([]string, 3)
	below, format := base, "raw"
	for i := range overlays {
		overlays[i] = filepath.Join(t.TempDir(), fmt.Sprintf("%d.qcow2", i))
		out, err := exec.Command(img, "create", "-q", "-f", "qcow2", "-b", below, "-F", format, overlays[i]).CombinedOutput()
		if err != nil {
			t.Fatalf("qemu-img: %v: %s", err, out)
		}
		below, format = overlays[i], "qcow2"
	}
	g := startGuest(t, testConfig(t, diskOn(overlays[0])))
	g.run()
	g.expect(hello)
	g.send("w")
	for _, overlay := range overlays[1:] {
		g.expect("....")
		if err := g.SwitchOverlay(t.Context(), "backing", overlay); err != nil {
			t.Fatal(err)
		}
	}
	g.expect("....")
	for name, path := range map[string]string{"backing": filepath.Join(t.TempDir(), "none"), "nobody": overlays[2]} {
		if err := g.SwitchOverlay(t.Context(), name, path); err == nil {
			t.Errorf("switching %s to %s went well", name, path)
		}
		g.expect("....") // and the guest goes on
	}
	g.end()
	counts := make([]int, len(overlays))
	for i, overlay := range overlays {
		raw := overlay + ".raw"
		if out, err := exec.Command(img, "convert", "-f", "qcow2", "-O", "raw", overlay, raw).CombinedOutput(); err != nil {
			t.Fatalf("qemu-img: %v: %s", err, out)
		}
		counts[i] = written(t, raw)
	}
	if counts[0] == 0 || counts[1] <= counts[0] || counts[2] <= counts[1] {
		t.Errorf("sectors visible through the overlays: %v; want each to hold more than the one below", counts)
	}
}

// TestSwitchOverlayInPlace has overlays take the place of the file that they
// stand on, as snapshots of a node do. QEMU must go on to read the files of
// before, which have other names by then.
func TestSwitchOverlayInPlace(t *testing.T) {
	needQEMU(t)
	img, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("qemu-img is not installed")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "disk.qcow2")
	overlay := func(at, below, format string) {
		t.Helper()
		if out, err := exec.Command(img, "create", "-q", "-f", "qcow2", "-b", below, "-F", format, at).CombinedOutput(); err != nil {
			t.Fatalf("qemu-img: %v: %s", err, out)
		}
	}
	overlay(path, biosDisk(t), "raw")
	g := startGuest(t, testConfig(t, diskOn(path)))
	g.run()
	g.expect(hello)
	g.send("w")
	kept := []string{path}
	for i := range 3 {
		g.expect("....")
		base := filepath.Join(dir, fmt.Sprintf("base%d.qcow2", i))
		if err := os.Link(path, base); err != nil {
			t.Fatal(err)
		}
		kept = append(kept, base)
		overlay(path+".next", base, "qcow2")
		if err := g.SwitchOverlay(t.Context(), "backing", path); err != nil {
			t.Fatal(err)
		}
		g.expect("....")
		for _, k := range kept {
			if !g.hasOpen(k) {
				t.Errorf("after switch %d QEMU has not got %s open", i+1, k)
			}
		}
	}
	g.end()
	if names, err := filepath.Glob(path + "*"); err != nil || len(names) != 1 {
		t.Errorf("left: %v (%v)", names, err)
	}
}

// hasOpen reports whether QEMU has a file open, under whatever name.
func (g *guest) hasOpen(path string) bool {
	g.t.Helper()
	want, err := os.Stat(path)
	if err != nil {
		g.t.Fatal(err)
	}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", g.PID()))
	if err != nil {
		g.t.Fatal(err)
	}
	for _, fd := range fds {
		if got, err := os.Stat(fd); err == nil && os.SameFile(got, want) {
			return true
		}
	}
	return false
}
