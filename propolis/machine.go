package propolis

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// MachineStatusVersion is the version of the JSON form of a [MachineStatus].
const MachineStatusVersion = 1

// MachineStatus is what became of a machine beside what was asked of it: the
// states of the API have no place for it.
type MachineStatus struct {
	Version int `json:"version"`
	// Gen counts the changes, from 1 on.
	Gen uint64 `json:"gen"`
	// Pause is set while the machine stands still.
	Pause *Pause `json:"pause,omitempty"`
	// Panic is the last panic of the guest's kernel.
	Panic *Panic `json:"panic,omitempty"`
	// Resets counts how often the guest has reset itself, at LastReset the last
	// time. A guest that does it more often than every two seconds does it more
	// often than that.
	Resets    int       `json:"resets"`
	LastReset time.Time `json:"last_reset,omitzero"`
	// Watchdog is when a watchdog has fired last.
	Watchdog time.Time `json:"watchdog,omitzero"`
	// DiskError is the last error of a disk that the guest was told of.
	DiskError *DiskError `json:"disk_error,omitempty"`
}

// PauseReason is why a machine stands still.
type PauseReason string

// The reasons.
const (
	// PauseNoSpace: the host has no room for what the guest writes to a disk.
	// The machine goes on when there is room.
	PauseNoSpace PauseReason = "no-space"
	// PauseDiskError: a disk fails for another reason.
	PauseDiskError PauseReason = "disk-error"
	// PauseCommand: somebody has stopped it.
	PauseCommand PauseReason = "command"
	// PauseGuest: it has stopped after a panic, or by its watchdog.
	PauseGuest PauseReason = "guest"
)

// Pause says why a machine stands still.
type Pause struct {
	Since  time.Time   `json:"since"`
	Reason PauseReason `json:"reason"`
	// Disk is the storage backend that the machine waits for, Path its file and
	// Error what happened; empty where no disk is the reason.
	Disk  string `json:"disk,omitempty"`
	Path  string `json:"path,omitempty"`
	Error string `json:"error,omitempty"`
}

// Panic is a panic of a guest's kernel.
type Panic struct {
	At time.Time `json:"at"`
	// Console is the end of what it said about it, without control characters.
	Console []string `json:"console,omitempty"`
	// Over says that the machine has been reset since.
	Over bool `json:"over"`
}

// DiskError is an error of a disk.
type DiskError struct {
	At    time.Time `json:"at"`
	Disk  string    `json:"disk"`
	Path  string    `json:"path,omitempty"`
	Error string    `json:"error"`
}

// String says it in a sentence without an end.
func (p *Pause) String() string {
	since := "since " + p.Since.Local().Format(time.DateTime)
	switch p.Reason {
	case PauseNoSpace:
		return fmt.Sprintf("paused %s: the host has no space left for its disk %s", since, p.Path)
	case PauseDiskError:
		return fmt.Sprintf("paused %s: its disk %s fails (%s)", since, p.Path, p.Error)
	case PauseGuest:
		return fmt.Sprintf("paused %s by its panic or watchdog", since)
	}
	return fmt.Sprintf("paused %s: somebody has stopped its machine", since)
}

const machinePath = "/falcon/machine"

// Machine returns what became of the machine. Only our own server has this path,
// as those of the next two; others answer 404.
func (c *Client) Machine(ctx context.Context) (MachineStatus, error) {
	return c.MonitorMachine(ctx, 0)
}

// MonitorMachine waits until the machine's status is of generation gen or later.
func (c *Client) MonitorMachine(ctx context.Context, gen uint64) (s MachineStatus, err error) {
	q := url.Values{"gen": {strconv.FormatUint(gen, 10)}}
	return s, c.do(ctx, call{method: http.MethodGet, path: machinePath, query: q}, &s)
}

// Resume lets a machine that stands still go on. One that waits for room on the
// host is refused as long as there is none.
func (c *Client) Resume(ctx context.Context) error {
	return c.do(ctx, call{method: http.MethodPut, path: machinePath + "/resume"}, nil)
}
