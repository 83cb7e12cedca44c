package qemu

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/falcon-vm/falcon-go/propolis/internal/qmp"
)

// translate returns the event that a QMP event stands for, if any. It belongs to
// watch.
func (m *Machine) translate(e qmp.Event) (Event, bool) {
	var data struct {
		Guest  bool   `json:"guest"`
		Reason string `json:"reason"`
		Action string `json:"action"`
	}
	// Events without data leave it empty, which is right.
	_ = json.Unmarshal(e.Data, &data)
	switch e.Name {
	case "RESET":
		m.panicked = false
		return Event{Kind: Reset, ByGuest: data.Guest}, true
	case "GUEST_PANICKED", "GUEST_CRASHLOADED":
		// A guest can say so as often as it likes.
		news := !m.panicked
		m.panicked = true
		return Event{Kind: Panicked, ByGuest: true}, news
	case "WATCHDOG":
		return Event{Kind: Watchdog, ByGuest: true, Why: data.Action}, true
	case "STOP":
		return m.stillness(Event{Kind: Paused, Why: "paused"})
	case "RESUME":
		return m.stillness(Event{Kind: Resumed})
	case "BLOCK_IO_ERROR":
		return m.diskError(e), true
	case "SHUTDOWN":
		// These two end QEMU, which Exited tells.
		ends := data.Reason == "host-qmp-quit" || data.Reason == "host-signal"
		return Event{Kind: Shutdown, ByGuest: data.Guest}, !ends
	}
	return Event{}, false
}

// statusLimit bounds the question whether a machine runs.
const statusLimit = 5 * time.Second

// stillness returns whether the machine stands still, as it is now: the event
// may be of a stop of this package's own, which is waited for and no news. What
// it says itself counts only when QEMU does not answer.
func (m *Machine) stillness(said Event) (Event, bool) {
	m.stillMu.Lock()
	defer m.stillMu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), statusLimit)
	defer cancel()
	status, err := m.status(ctx)
	switch {
	case m.qmp.Err() != nil || status.Status == "shutdown":
		return Event{}, false // other events tell
	case m.cfg.Template.making() && !status.Running && status.Status != "io-error":
		return Event{}, false // it is being saved
	case err != nil:
	case status.Running:
		said = Event{Kind: Resumed}
	default:
		said = Event{Kind: Paused, Why: status.Status}
	}
	news := said.Why != m.still // that it runs is none before a pause
	m.still = said.Why
	return said, news
}

// runStatus is the answer of query-status.
type runStatus struct {
	Running bool   `json:"running"`
	Status  string `json:"status"`
}

func (m *Machine) status(ctx context.Context) (s runStatus, err error) {
	return s, m.qmp.Execute(ctx, "query-status", nil, &s)
}

// diskError is the event of an error of a disk.
func (m *Machine) diskError(e qmp.Event) Event {
	var data struct {
		Node      string `json:"node-name"`
		Operation string `json:"operation"`
		Action    string `json:"action"`
		NoSpace   bool   `json:"nospace"`
		Reason    string `json:"reason"`
	}
	_ = json.Unmarshal(e.Data, &data) // what is missing is not said
	return Event{
		Kind: DiskError, Disk: m.backendOn(data.Node), NoSpace: data.NoSpace, Stops: data.Action == "stop",
		Why: strings.Trim(data.Operation+": "+data.Reason, ": "),
	}
}

// backendOn returns the storage backend whose present block node has the name.
func (m *Machine) backendOn(node string) string {
	m.disksMu.Lock()
	defer m.disksMu.Unlock()
	for backend, n := range m.disks {
		if n == node {
			return backend
		}
	}
	return ""
}
