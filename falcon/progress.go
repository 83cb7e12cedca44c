package falcon

import (
	"encoding/json"
	"sync"
	"time"
)

// Stage is a step of a node's way.
type Stage string

// The stages of a node in the order in which a launch passes through them,
// and those in which it may end otherwise.
const (
	StageWait     Stage = "waiting"  // another program works on the topology
	StageImage    Stage = "image"    // its image is built or looked up
	StageTemplate Stage = "template" // the guest boots that it is to be a clone of
	StageDisk     Stage = "disk"     // its disk is cloned
	StageStart    Stage = "start"    // its server and hypervisor start
	StageBoot     Stage = "boot"     // firmware or kernel run
	StageLogin    Stage = "login"    // falcon logs in on the console
	StageSetup    Stage = "set-up"   // host name and mounts
	StageReady    Stage = "ready"    // done
	StageRunning  Stage = "running"  // it ran already and is left alone
	StageStopped  Stage = "stopped"  // it has been stopped
	StageGone     Stage = "gone"     // it has been removed
	StageFailed   Stage = "failed"   // see the error
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

// stage reports the stage that a node enters.
func (l *lab) stage(node string, s Stage, detail string) {
	l.stages.enter(node, s)
	l.report(Progress{Node: node, Stage: s, Detail: detail})
}

// stageLog notes when nodes enter their stages.
type stageLog struct {
	mu      sync.Mutex
	entered map[string][]stageEntry
}

type stageEntry struct {
	stage Stage
	at    time.Time
}

// enter notes that a node enters a stage, if it is not in it.
func (g *stageLog) enter(node string, s Stage) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.entered == nil {
		g.entered = make(map[string][]stageEntry)
	}
	entries := g.entered[node]
	if len(entries) == 0 || entries[len(entries)-1].stage != s {
		g.entered[node] = append(entries, stageEntry{s, time.Now()})
	}
}

// forget drops what is noted of a node.
func (g *stageLog) forget(node string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.entered, node)
}

// times returns how long a node was in each stage but the last.
func (g *stageLog) times(node string) []StageTime {
	g.mu.Lock()
	defer g.mu.Unlock()
	times := []StageTime{}
	for i, e := range g.entered[node] {
		if i+1 < len(g.entered[node]) {
			times = append(times, StageTime{e.stage, g.entered[node][i+1].at.Sub(e.at).Seconds()})
		}
	}
	return times
}

// NodeStart is how a node was started.
type NodeStart struct {
	// Stage is how far it has come: StageReady when it is set up.
	Stage Stage `json:"stage,omitempty"`
	// Cold is whether it booted; otherwise it is a clone of a guest that had
	// booted before. Why says why it booted.
	Cold bool   `json:"cold"`
	Why  string `json:"why,omitempty"`
	// Stages are what it went through and how long each took.
	Stages []StageTime `json:"stages"`
}

// StageTime is how long a stage took.
type StageTime struct {
	Stage   Stage   `json:"stage"`
	Seconds float64 `json:"seconds"`
}

// noteStart keeps how a node was started for those who ask later, and how far it
// has come. It is cold where there is a reason for that.
func (l *lab) noteStart(node, cold string, s Stage) error {
	return l.writeStart(node, NodeStart{Stage: s, Cold: cold != "", Why: cold, Stages: l.stages.times(node)})
}

func (l *lab) writeStart(node string, s NodeStart) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return l.folder.WriteNote(node+startExt, append(data, '\n'))
}

// startOf returns how a node was started last, nil where that is not known.
func (l *lab) startOf(node string) *NodeStart {
	var s NodeStart
	data, err := l.folder.ReadFile(node + startExt)
	if err != nil || json.Unmarshal(data, &s) != nil {
		return nil
	}
	return &s
}
