package server

import "github.com/falcon-vm/falcon-go/propolis"

// stage is how far an instance has come, as far as requests for a change of
// its state are concerned.
type stage int

const (
	notStarted stage = iota
	startPending
	active
	stopPending
	halted
	failed
)

// The reasons for denying a request, in Propolis' words.
const (
	denyInactive = "Operation requires an active instance"
	denyStarting = "Instance is currently starting"
	denyStopping = "Instance is preparing to stop"
	denyHalted   = "Instance has already halted"
	denyFailed   = "Instance failed to start or halted due to a failure"
)

// maxOutstanding is how many requests the rules admit at most before the first
// of them is done: one of each kind.
const maxOutstanding = 3

// requestRules decides what becomes of requests for a change of state.
type requestRules struct {
	stage         stage
	rebootPending bool
}

// admit decides about req: to queue it, to ignore it as already done or on its
// way, or to deny it for a reason.
func (r *requestRules) admit(req propolis.StateRequest) (queue bool, denied string) {
	switch req {
	case propolis.RequestRun:
		return r.admitRun()
	case propolis.RequestReboot:
		return r.admitReboot()
	}
	if r.stage >= stopPending {
		return false, ""
	}
	r.stage = stopPending
	return true, ""
}

func (r *requestRules) admitRun() (bool, string) {
	switch r.stage {
	case notStarted:
		r.stage = startPending
		return true, ""
	case startPending, active:
		return false, ""
	}
	return false, r.ending()
}

func (r *requestRules) admitReboot() (bool, string) {
	switch {
	case r.stage == notStarted:
		return false, denyInactive
	case r.stage == startPending:
		return false, denyStarting
	case r.stage > active:
		return false, r.ending()
	case r.rebootPending:
		return false, ""
	}
	r.rebootPending = true
	return true, ""
}

// ending is the reason for denying what needs an instance that goes on.
func (r *requestRules) ending() string {
	switch r.stage {
	case stopPending:
		return denyStopping
	case failed:
		return denyFailed
	}
	return denyHalted
}

// started notes that the vCPUs run. A stop that was asked for meanwhile stands.
func (r *requestRules) started() {
	if r.stage == startPending {
		r.stage = active
	}
}

// rebooted notes that the pending reboot is done.
func (r *requestRules) rebooted() { r.rebootPending = false }

// advance moves on to a later stage of the ending.
func (r *requestRules) advance(to stage) { r.stage = max(r.stage, to) }
