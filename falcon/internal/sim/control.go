package sim

import (
	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/process"
)

// Files of the world in the state folder. No file of a node has such a name.
const (
	// ControlFile is the socket on which the world takes orders.
	ControlFile = "control.sim"
	// LockFile is held by who starts the world or clears up after it.
	LockFile = "lock.sim"
	// WordsFile gets what the world says on stderr.
	WordsFile = "stderr.sim"
)

// SocketExt, AgentExt, LogExt and WordsExt end the names of a node's files.
const (
	SocketExt = ".sock"
	AgentExt  = ".agent.sock"
	LogExt    = ".out"
	WordsExt  = ".err"
)

// NodeConfig is what a world must know of a node beside its instance's spec.
type NodeConfig struct {
	Name string `json:"name"`
	// Disk is the path of the node's disk.
	Disk    string        `json:"disk"`
	Console image.Console `json:"console"`
	OS      string        `json:"os"`
	Rules   []Rule        `json:"rules,omitempty"`
	// Agent has its guest have an agent.
	Agent bool `json:"agent,omitempty"`
	// StopGraceMS is how long the guest may take to power off.
	StopGraceMS int64 `json:"stop_grace_ms"`
}

// Orders to a world. One answer comes for each, in any order.
const (
	// opReserve keeps the world alive for a node that is to come on this
	// connection, and removes one of that name that is there.
	opReserve = "reserve"
	// opServe makes a reserved node.
	opServe = "serve"
	// opRemove removes a node or its reservation; one that is not there is
	// no error.
	opRemove = "remove"
	// opCounters asks for the counters of all devices.
	opCounters = "counters"
)

type order struct {
	ID   uint64 `json:"id"`
	Op   string `json:"op"`
	Name string `json:"name,omitempty"`
	// Node is that of opServe.
	Node *NodeConfig `json:"node,omitempty"`
}

type answer struct {
	ID    uint64 `json:"id"`
	Error string `json:"error,omitempty"`
	// World is the process that answers, in its greeting.
	World *process.Identity `json:"world,omitempty"`
	// Last says that the last node has gone, and that the world ends.
	Last     bool                `json:"last,omitempty"`
	Counters map[string]Counters `json:"counters,omitempty"`
}

// Counters count what passes a device. Received is what the host receives from
// the guest.
type Counters struct {
	Up             bool   `json:"up"`
	ReceivedFrames uint64 `json:"received_frames"`
	ReceivedBytes  uint64 `json:"received_bytes"`
	SentFrames     uint64 `json:"sent_frames"`
	SentBytes      uint64 `json:"sent_bytes"`
}
