package falcon

import (
	"sync"
	"time"
)

// Stage is a step of a node's way.
type Stage string

// The stages of a node in the order in which a launch passes through them,
// and those in which it may end otherwise.
const (
	StageImage   Stage = "image"   // its image is built or looked up
	StageDisk    Stage = "disk"    // its disk is cloned
	StageStart   Stage = "start"   // its server and hypervisor start
	StageBoot    Stage = "boot"    // firmware or kernel run
	StageLogin   Stage = "login"   // falcon logs in on the console
	StageSetup   Stage = "set-up"  // host name and mounts
	StageReady   Stage = "ready"   // done
	StageRunning Stage = "running" // it ran already and is left alone
	StageStopped Stage = "stopped" // it has been stopped
	StageGone    Stage = "gone"    // it has been removed
	StageFailed  Stage = "failed"  // see the error
)

// Progress is a step of a launch, a stop or a destroy.
type Progress struct {
	// Node is the node that it is about; empty for the whole topology.
	Node  string `json:"node,omitempty"`
	Stage Stage  `json:"stage"`
	// Detail says more for people.
	Detail string `json:"detail,omitempty"`
	// Done and Total count bytes where that is known.
	Done  int64     `json:"done,omitempty"`
	Total int64     `json:"total,omitempty"`
	Err   error     `json:"-"`
	Time  time.Time `json:"time"`
}

// reporter hands progress to one function, one at a time.
type reporter struct {
	mu sync.Mutex
	to func(Progress)
}

func (r *reporter) report(p Progress) {
	if r.to == nil {
		return
	}
	p.Time = time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to(p)
}

func (r *reporter) stage(node string, s Stage, detail string) {
	r.report(Progress{Node: node, Stage: s, Detail: detail})
}
