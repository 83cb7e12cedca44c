package server

import (
	"testing"

	"github.com/falcon-vm/falcon-go/propolis"
)

func TestRequestsAreAdmittedByStage(t *testing.T) {
	const queued, ignored = "queued", "ignored"
	tests := []struct {
		name              string
		rules             requestRules
		run, reboot, stop string // queued, ignored, or why it is denied
	}{
		{"not started", requestRules{stage: notStarted}, queued, denyInactive, queued},
		{"start pending", requestRules{stage: startPending}, ignored, denyStarting, queued},
		{"active", requestRules{stage: active}, ignored, queued, queued},
		{"reboot pending", requestRules{stage: active, rebootPending: true}, ignored, ignored, queued},
		{"stop pending", requestRules{stage: stopPending}, denyStopping, denyStopping, ignored},
		{"halted", requestRules{stage: halted}, denyHalted, denyHalted, ignored},
		{"failed", requestRules{stage: failed}, denyFailed, denyFailed, ignored},
	}
	for _, tt := range tests {
		for req, want := range map[propolis.StateRequest]string{
			propolis.RequestRun: tt.run, propolis.RequestReboot: tt.reboot, propolis.RequestStop: tt.stop,
		} {
			t.Run(tt.name+" "+string(req), func(t *testing.T) {
				rules := tt.rules
				queue, denied := rules.admit(req)
				got := ignored
				if queue {
					got = queued
				} else if denied != "" {
					got = denied
				}
				if got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			})
		}
	}
}

func TestRequestsFollowOnOthers(t *testing.T) {
	var r requestRules
	r.admit(propolis.RequestRun)
	if queue, denied := r.admit(propolis.RequestStop); !queue {
		t.Errorf("a stop was not queued behind a start: %q", denied)
	}
	r.started()
	if r.stage != stopPending {
		t.Errorf("the start undid the pending stop: stage %d", r.stage)
	}
	r = requestRules{stage: active}
	r.admit(propolis.RequestReboot)
	r.rebooted()
	if queue, denied := r.admit(propolis.RequestReboot); !queue {
		t.Errorf("a second reboot after the first was not queued: %q", denied)
	}
}

// However requests come, no more are outstanding than the queue holds.
func TestRulesNeverAdmitMoreThanTheQueueHolds(t *testing.T) {
	requests := []propolis.StateRequest{propolis.RequestRun, propolis.RequestReboot, propolis.RequestStop}
	for _, start := range []requestRules{{}, {stage: active}} {
		r, n := start, 0
		for range 3 {
			for _, req := range requests {
				if queue, _ := r.admit(req); queue {
					n++
				}
			}
		}
		if n > maxOutstanding {
			t.Errorf("from stage %d, %d requests were admitted; the queue holds %d", start.stage, n, maxOutstanding)
		}
	}
}
