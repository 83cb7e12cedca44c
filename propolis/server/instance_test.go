package server

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/falcon-vm/falcon-go/propolis/internal/qemu"
)

func TestLifecycles(t *testing.T) {
	tests := []struct {
		name   string
		do     func(*harness)
		states string
	}{
		{"run and stop", func(h *harness) {
			h.running()
			h.request(propolis.RequestStop)
			h.called("powerdown")
			h.called("close")
			h.wait(propolis.StateDestroyed)
		}, "Creating Starting Running Stopping Stopped Destroyed"},
		{"stop before run", func(h *harness) {
			h.created()
			h.request(propolis.RequestStop)
			h.called("close")
			h.wait(propolis.StateDestroyed)
		}, "Creating Stopped Destroyed"},
		{"the guest powers off", func(h *harness) {
			h.running()
			h.machine.events <- qemu.Event{Kind: qemu.Shutdown, ByGuest: true}
			h.called("close")
			h.wait(propolis.StateDestroyed)
		}, "Creating Starting Running Stopping Stopped Destroyed"},
		{"a client reboots", func(h *harness) {
			h.running()
			h.request(propolis.RequestReboot)
			h.called("reset")
			h.waitGen(5)
		}, "Creating Starting Running Rebooting Running"},
		{"the guest resets itself", func(h *harness) {
			h.running()
			h.machine.events <- qemu.Event{Kind: qemu.Reset, ByGuest: true}
			h.waitGen(5)
		}, "Creating Starting Running Rebooting Running"},
		{"the guest panics and goes on", func(h *harness) {
			h.running()
			h.machine.events <- qemu.Event{Kind: qemu.Panicked, ByGuest: true}
			h.machine.events <- qemu.Event{Kind: qemu.Reset, ByGuest: true}
			h.waitGen(5)
		}, "Creating Starting Running Rebooting Running"},
		{"QEMU dies", func(h *harness) {
			h.running()
			h.machine.die(errors.New("out of breath"))
			h.wait(propolis.StateFailed)
		}, "Creating Starting Running Failed"},
		{"QEMU dies before run", func(h *harness) {
			h.created()
			h.machine.die(errors.New("out of breath"))
			h.wait(propolis.StateFailed)
		}, "Creating Failed"},
		{"the vCPUs do not start", func(h *harness) {
			h.machine.runErr = errors.New("no vCPUs")
			h.created()
			h.request(propolis.RequestRun)
			h.wait(propolis.StateFailed)
		}, "Creating Starting Failed"},
		{"QEMU cannot be closed", func(h *harness) {
			h.machine.closeErr = errors.New("stuck")
			h.running()
			h.request(propolis.RequestStop)
			h.wait(propolis.StateFailed)
		}, "Creating Starting Running Stopping Failed"},
		{"the server ends", func(h *harness) {
			h.running()
			if err := h.stop(); err != nil {
				h.t.Error(err)
			}
			h.called("close")
		}, "Creating Starting Running Stopping Stopped Destroyed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHarness(t)
			tt.do(h)
			if diff := cmp.Diff(strings.Fields(tt.states), h.states()); diff != "" {
				t.Errorf("states differ (-want +got):\n%s", diff)
			}
		})
	}
}

// waitGen waits for a generation.
func (h *harness) waitGen(gen uint64) {
	h.t.Helper()
	if _, err := h.Monitor(h.ctx(), gen); err != nil {
		h.t.Fatal(err)
	}
}

func TestStopIsHardWhenTheGuestDoesNotPowerOff(t *testing.T) {
	h := newHarness(t, func(s *server) { s.grace = 30 * time.Millisecond })
	h.machine.ignorePower = true
	h.running()
	h.request(propolis.RequestStop)
	h.called("powerdown")
	h.called("close")
	h.wait(propolis.StateDestroyed)
	if !strings.Contains(h.log.String(), "has not powered off") {
		t.Error("the log does not tell")
	}
}

func TestStopWithoutGraceIsHardAtOnce(t *testing.T) {
	h := newHarness(t, func(s *server) { s.grace = 0 })
	h.running()
	h.request(propolis.RequestStop)
	h.called("close")
}

func TestAGuestThatResetsWhileStoppingIsStillStopped(t *testing.T) {
	h := newHarness(t)
	h.machine.ignorePower = true
	h.running()
	h.request(propolis.RequestStop)
	h.called("powerdown")
	h.machine.events <- qemu.Event{Kind: qemu.Reset, ByGuest: true}
	h.machine.events <- qemu.Event{Kind: qemu.Shutdown, ByGuest: true}
	h.wait(propolis.StateDestroyed)
}

func TestGuestEventsOutrankRequests(t *testing.T) {
	h := newHarness(t)
	h.machine.hold = make(chan struct{})
	h.running()
	h.request(propolis.RequestReboot)
	h.called("reset") // and waits
	h.request(propolis.RequestStop)
	h.machine.events <- qemu.Event{Kind: qemu.Shutdown, ByGuest: true}
	close(h.machine.hold)
	h.called("close") // without a power button in between
}

func TestFailureIsToldEverywhere(t *testing.T) {
	const words = "QEMU ended: exit status 1; it said: out of breath"
	h := newHarness(t)
	h.running()
	h.machine.die(errors.New(words))

	err := h.WaitState(h.ctx(), propolis.StateStopped)
	if err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("waiting gave %v", err)
	}
	e := refused(t, h.SetState(h.ctx(), propolis.RequestRun), 424, propolis.CodeNoInstance)
	if !strings.Contains(e.Message, words) {
		t.Errorf("a later request is refused with %q", e.Message)
	}
	for name, b := range map[string]*lockedBuffer{"log": h.log, "stderr": h.stderr} {
		if !strings.Contains(b.String(), words) {
			t.Errorf("the %s does not tell:\n%s", name, b)
		}
	}
}

func TestAFailedStartLeavesAFailedInstance(t *testing.T) {
	h := newHarness(t)
	h.startErr = errors.New("QEMU ended: exit status 1; it said: no memory")
	e := refused(t, h.Ensure(h.ctx(), ensureRequest(nil)), 500, propolis.CodeInternal)
	if !strings.HasPrefix(e.Message, "Internal Server Error") || !strings.Contains(e.Message, "no memory") {
		t.Errorf("message %q", e.Message)
	}
	i, err := h.Instance(h.ctx())
	if err != nil || i.State != propolis.StateFailed {
		t.Errorf("the instance is %v, %v", i, err)
	}
	h.startErr = nil
	h.running()
}

func TestARefusedSpecLeavesNoTrace(t *testing.T) {
	h := newHarness(t)
	h.startErr = &qemu.Refusal{Component: "x", Kind: "blob_storage_backend", Reason: "not served"}
	e := refused(t, h.Ensure(h.ctx(), ensureRequest(nil)), 400, "")
	if !strings.HasPrefix(e.Message, "failed to generate internal instance spec: ") {
		t.Errorf("message %q", e.Message)
	}
	_, err := h.Instance(h.ctx())
	refused(t, err, 424, propolis.CodeNoInstance)
}

func TestANewInstanceMayFollow(t *testing.T) {
	h := newHarness(t)
	h.running()
	refused(t, h.Ensure(h.ctx(), ensureRequest(nil)), 409, propolis.CodeAlreadyInitialized)
	h.machine.types(t, "the first")
	h.request(propolis.RequestStop)
	h.wait(propolis.StateDestroyed)

	i, err := h.Instance(h.ctx())
	if err != nil || i.State != propolis.StateDestroyed || i.Properties.ID != testID {
		t.Errorf("after its end the instance is %v, %v", i, err)
	}
	refused(t, h.SetState(h.ctx(), propolis.RequestRun), 424, propolis.CodeNoInstance)
	_, err = h.Monitor(h.ctx(), 99)
	refused(t, err, 410, propolis.CodeNoInstance)
	zero := uint64(0)
	if past, err := h.History(h.ctx(), propolis.HistoryRequest{FromStart: &zero}); err != nil || string(past.Data) != "the first" {
		t.Errorf("after its end the history is %q, %v", past.Data, err)
	}

	h.machine = newFakeMachine()
	h.running()
	if past, err := h.History(h.ctx(), propolis.HistoryRequest{FromStart: &zero}); err != nil || len(past.Data) != 0 {
		t.Errorf("the new history is %q, %v", past.Data, err)
	}
}

func TestRequestsWhileTheMachineIsMade(t *testing.T) {
	made := make(chan struct{})
	h := newHarness(t)
	start := h.start
	h2 := newHarness(t, func(s *server) {
		s.start = func(ctx context.Context, p propolis.InstanceProperties, spec propolis.InstanceSpec) (Machine, error) {
			<-made
			return start(ctx, p, spec)
		}
	})
	done := make(chan error, 1)
	go func() { done <- h2.Ensure(h2.ctx(), ensureRequest(nil)) }()
	for { // until the server has the request; there is nothing to wait for
		if _, err := h2.Instance(h2.ctx()); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	refused(t, h2.SetState(h2.ctx(), propolis.RequestRun), 503, "")
	refused(t, h2.Ensure(h2.ctx(), ensureRequest(nil)), 409, propolis.CodeAlreadyInitialized)
	if s, err := h2.Serial(h2.ctx(), propolis.SerialOptions{}); err != nil {
		t.Errorf("no upgrade: %v", err)
	} else {
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the console of an instance without a machine gave %v", err)
		}
		s.Close()
	}
	close(made)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestSwitchOverlay(t *testing.T) {
	h := newHarness(t)
	overlay := func(disk, path string) error { return h.SwitchOverlay(h.ctx(), disk, path) }
	refused(t, overlay("file", "o.qcow2"), 424, propolis.CodeNoInstance)
	spec := propolis.Components{
		"disk": propolis.VirtioDisk{BackendID: "file", PCIPath: propolis.PCIPath{Device: 4}},
		"file": propolis.FileStorageBackend{Path: "base.qcow2", BlockSize: 512},
	}
	if err := h.Ensure(h.ctx(), ensureRequest(spec)); err != nil {
		t.Fatal(err)
	}
	refused(t, overlay("file", ""), 400, "")
	refused(t, overlay("disk", "o.qcow2"), 404, "")
	if err := overlay("file", "o.qcow2"); err != nil {
		t.Fatal(err)
	}
	h.called("overlay file o.qcow2")
	now, err := h.Spec(h.ctx())
	if got := now.Components["file"].(propolis.FileStorageBackend).Path; err != nil || got != "o.qcow2" {
		t.Errorf("the spec has the disk at %q, %v", got, err)
	}
	h.machine.overlayErr = errors.New("no such file")
	e := refused(t, overlay("file", "p.qcow2"), 500, propolis.CodeInternal)
	if !strings.Contains(e.Message, "no such file") {
		t.Errorf("message %q", e.Message)
	}
}

func TestTemplateIsSavedByTheMachine(t *testing.T) {
	dir := t.TempDir()
	kept := func(s *server) { s.template = dir }
	sees := func(h *harness, said string) {
		t.Helper()
		stream, err := h.Serial(h.ctx(), propolis.SerialOptions{FromStart: new(uint64)})
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		expect(t, stream, said)
	}
	h := newHarness(t, kept)
	refused(t, h.SaveTemplate(h.ctx()), 424, propolis.CodeNoInstance)
	h.running()
	h.machine.types(t, "login: ")
	sees(h, "login: ")
	if err := h.SaveTemplate(h.ctx()); err != nil {
		t.Fatal(err)
	}
	h.called("save")
	clone := newHarness(t, kept)
	clone.running()
	sees(clone, "login: ") // what it said when it booted
	h.machine.saveErr = errors.New("not started to be kept")
	if e := refused(t, h.SaveTemplate(h.ctx()), 500, propolis.CodeInternal); !strings.Contains(e.Message, "not started to be kept") {
		t.Errorf("message %q", e.Message)
	}
}

func TestCommandsToAnEndedInstance(t *testing.T) {
	h := newHarness(t)
	h.running()
	h.request(propolis.RequestStop)
	h.wait(propolis.StateDestroyed)
	refused(t, h.SwitchOverlay(h.ctx(), "file", "o.qcow2"), 424, propolis.CodeNoInstance)
}
