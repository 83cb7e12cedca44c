package server

import (
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/falcon-vm/falcon-go/propolis/internal/qemu"
)

// until waits for a status of the machine that suits.
func (h *harness) until(suits func(propolis.MachineStatus) bool) propolis.MachineStatus {
	h.t.Helper()
	var s propolis.MachineStatus
	for {
		next, err := h.MonitorMachine(h.ctx(), s.Gen+1)
		if err != nil {
			h.t.Fatalf("%v; the last status was %+v", err, s)
		}
		if s = next; suits(s) {
			return s
		}
	}
}

func (h *harness) happens(events ...qemu.Event) {
	for _, ev := range events {
		h.machine.events <- ev
	}
}

// withDisk makes an instance run whose disk is at path.
func (h *harness) withDisk(path string) {
	h.t.Helper()
	req := ensureRequest(propolis.Components{"backing": propolis.FileStorageBackend{Path: path, BlockSize: 512},
		"disk": propolis.VirtioDisk{BackendID: "backing", PCIPath: propolis.PCIPath{Device: 4}}})
	if err := h.Ensure(h.ctx(), req); err != nil {
		h.t.Fatal(err)
	}
	h.request(propolis.RequestRun)
	h.wait(propolis.StateRunning)
	h.called("run")
}

// noSpace is what QEMU reports of a full host.
var noSpace = []qemu.Event{
	{Kind: qemu.DiskError, Disk: "backing", NoSpace: true, Stops: true, Why: "write: No space left on device"},
	{Kind: qemu.Paused, Why: "io-error"},
}

func TestAMachineThatWaitsForRoomGoesOnByItself(t *testing.T) {
	h := newHarness(t)
	disk := filepath.Join(t.TempDir(), "none") // of which nothing is known but a try
	h.withDisk(disk)
	begun := time.Now()
	h.happens(noSpace...)
	s := h.until(func(s propolis.MachineStatus) bool { return s.Pause != nil })
	p := s.Pause
	if p.Reason != propolis.PauseNoSpace || p.Disk != "backing" || p.Path != disk || p.Since.Before(begun) || !strings.Contains(p.Error, "No space") {
		t.Errorf("paused: %+v", p)
	}
	if i, err := h.Instance(h.ctx()); err != nil || i.State != propolis.StateRunning {
		t.Errorf("to the API it is %v, %v", i.State, err)
	}
	h.called("run")
	// It has not really gone on: since stays.
	h.happens(qemu.Event{Kind: qemu.Resumed})
	h.happens(noSpace...)
	again := h.until(func(now propolis.MachineStatus) bool { return now.Gen > s.Gen+1 && now.Pause != nil })
	if !again.Pause.Since.Equal(p.Since) {
		t.Errorf("paused since %v, and then since %v", p.Since, again.Pause.Since)
	}
	h.called("run")
	h.happens(qemu.Event{Kind: qemu.Resumed})
	h.until(func(s propolis.MachineStatus) bool { return s.Pause == nil })
}

func TestAMachineThatWasStoppedIsResumedWhenAsked(t *testing.T) {
	h := newHarness(t)
	h.running()
	if err := h.Resume(h.ctx()); err != nil {
		t.Errorf("resuming one that runs: %v", err)
	}
	h.happens(qemu.Event{Kind: qemu.Paused, Why: "paused"})
	s := h.until(func(s propolis.MachineStatus) bool { return s.Pause != nil })
	if s.Pause.Reason != propolis.PauseCommand {
		t.Errorf("paused: %+v", s.Pause)
	}
	if err := h.Resume(h.ctx()); err != nil {
		t.Fatal(err)
	}
	h.called("run")
	// One that stands still cannot heed its power button.
	h.request(propolis.RequestStop)
	h.called("run")
	h.called("powerdown")
	h.wait(propolis.StateDestroyed)
}

func TestResettingAMachineThatStandsStillHasItRun(t *testing.T) {
	h := newHarness(t)
	h.running()
	h.happens(qemu.Event{Kind: qemu.Paused, Why: "paused"})
	h.until(func(s propolis.MachineStatus) bool { return s.Pause != nil })
	h.request(propolis.RequestReboot)
	h.called("reset")
	h.called("run")
}

func TestPanicsAreToldWithTheConsolesLastLines(t *testing.T) {
	h := newHarness(t)
	h.running()
	said := "booting\r\n[ 1.0] Kernel panic - not syncing: \x1b[31mViolin\x07\r\n" + strings.Repeat("[ 1.0] a call\r\n", 30)
	end := "[ 1.1] ---[ end Kernel panic ]---\r\n"
	h.machine.types(t, said)
	at := time.Now()
	h.hasRead(len(said))
	h.happens(qemu.Event{Kind: qemu.Panicked, ByGuest: true, At: at})
	h.machine.types(t, end)
	h.hasRead(len(said + end))
	s := h.until(func(s propolis.MachineStatus) bool { return s.Panic != nil })
	lines := s.Panic.Console
	if len(lines) != panicLines || lines[0] != "[ 1.0] Kernel panic - not syncing: [31mViolin" || lines[panicLines-1] != "[ 1.1] ---[ end Kernel panic ]---" {
		t.Errorf("%d lines: %q", len(lines), lines)
	}
	if s.Panic.Over || !s.Panic.At.Equal(at) {
		t.Errorf("the panic: %+v", s.Panic)
	}
	h.happens(qemu.Event{Kind: qemu.Panicked, At: at.Add(time.Millisecond)}, qemu.Event{Kind: qemu.Reset, ByGuest: true, At: at.Add(time.Second)})
	s = h.until(func(s propolis.MachineStatus) bool { return s.Resets > 0 })
	h.machine.types(t, "anew\r\n")
	s, err := h.Machine(h.ctx())
	if err != nil || !s.Panic.Over || !s.Panic.At.Equal(at) || s.Panic.Console[panicLines-1] != lines[panicLines-1] {
		t.Errorf("after a reset: %+v, %v", s.Panic, err)
	}
}

// hasRead waits until the server has read so much of the console.
func (h *harness) hasRead(n int) {
	h.t.Helper()
	i, err := h.server.current()
	if err != nil {
		h.t.Fatal(err)
	}
	for i.console.written() < uint64(n) {
		i.console.mu.Lock()
		more := i.console.more
		i.console.mu.Unlock()
		if i.console.written() >= uint64(n) {
			return
		}
		select {
		case <-more:
		case <-h.ctx().Done():
			h.t.Fatalf("the console has %d bytes, want %d", i.console.written(), n)
		}
	}
}

func TestResetsByTheGuestAreCounted(t *testing.T) {
	h := newHarness(t)
	h.running()
	at := time.Now()
	reset := func(after time.Duration, guest bool) qemu.Event {
		return qemu.Event{Kind: qemu.Reset, ByGuest: guest, At: at.Add(after)}
	}
	h.happens(
		reset(0, true), reset(100*time.Millisecond, true), reset(200*time.Millisecond, true), // the firmware's own
		reset(10*time.Second, false), reset(10*time.Second+100*time.Millisecond, true), // ours, and the firmware's
		reset(time.Minute, true),
		qemu.Event{Kind: qemu.Watchdog, ByGuest: true, Why: "reset", At: at.Add(2 * time.Minute)},
		qemu.Event{Kind: qemu.DiskError, Disk: "backing", Why: "read: Input/output error", At: at},
	)
	s := h.until(func(s propolis.MachineStatus) bool { return s.DiskError != nil })
	if s.Resets != 2 || !s.LastReset.Equal(at.Add(time.Minute)) || !s.Watchdog.Equal(at.Add(2*time.Minute)) || s.DiskError.Error != "read: Input/output error" {
		t.Errorf("got %+v", s)
	}
}

func TestMachineStatusOfNoInstance(t *testing.T) {
	h := newHarness(t)
	_, err := h.Machine(h.ctx())
	refused(t, err, http.StatusFailedDependency, propolis.CodeNoInstance)
	h.running()
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(h.ctx(), 10*time.Second)
	defer cancel()
	go func() {
		_, err := h.MonitorMachine(ctx, 1000)
		done <- err
	}()
	h.request(propolis.RequestStop)
	if err := <-done; err == nil || ctx.Err() != nil {
		t.Errorf("a wait past the instance's end: %v", err)
	}
}
