package propolis

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/falcon-vm/falcon-go/internal/printable"
)

// APIVersion is the version of the API that the client speaks unless a spec
// needs a newer one. 2.0.0 is the oldest with all that this package sends by
// default, so that every server from there on answers it.
const APIVersion = "2.0.0"

// NilUUID stands for an absent UUID in an instance's metadata.
const NilUUID = "00000000-0000-0000-0000-000000000000"

// InstanceState is the state of an instance as the API shows it.
type InstanceState string

// The states of an instance. A new instance is Creating, then Starting and
// Running; one that ends goes through Stopping and Stopped to Destroyed, or to
// Failed.
const (
	StateCreating  InstanceState = "Creating"
	StateStarting  InstanceState = "Starting"
	StateRunning   InstanceState = "Running"
	StateStopping  InstanceState = "Stopping"
	StateStopped   InstanceState = "Stopped"
	StateRebooting InstanceState = "Rebooting"
	StateMigrating InstanceState = "Migrating"
	StateRepairing InstanceState = "Repairing"
	StateFailed    InstanceState = "Failed"
	StateDestroyed InstanceState = "Destroyed"
)

// Terminal reports whether no other state follows s. Stopped is not terminal:
// Destroyed follows it.
func (s InstanceState) Terminal() bool {
	return s == StateFailed || s == StateDestroyed
}

// StateRequest is a change of state that a client asks for.
type StateRequest string

// The requests for a change of state. Each is queued by the server: that it
// was accepted does not mean that it has happened.
const (
	RequestRun    StateRequest = "Run"
	RequestStop   StateRequest = "Stop"
	RequestReboot StateRequest = "Reboot"
)

// InstanceProperties identify an instance.
type InstanceProperties struct {
	// ID is the instance's UUID, which is also that of the guest's SMBIOS table.
	ID          string           `json:"id"`
	Name        string           `json:"name"`
	Description string           `json:"description"`
	Metadata    InstanceMetadata `json:"metadata"`
}

// InstanceMetadata labels an instance's statistics. Empty identifiers are sent
// as [NilUUID].
type InstanceMetadata struct {
	SiloID       string `json:"silo_id"`
	ProjectID    string `json:"project_id"`
	SledID       string `json:"sled_id"`
	SledSerial   string `json:"sled_serial"`
	SledRevision uint32 `json:"sled_revision"`
	SledModel    string `json:"sled_model"`
}

// MarshalJSON writes the metadata with [NilUUID] in place of empty identifiers.
func (m InstanceMetadata) MarshalJSON() ([]byte, error) {
	type plain InstanceMetadata
	for _, id := range []*string{&m.SiloID, &m.ProjectID, &m.SledID} {
		if *id == "" {
			*id = NilUUID
		}
	}
	return json.Marshal(plain(m))
}

// InstanceEnsureRequest asks a server to create an instance from a spec.
type InstanceEnsureRequest struct {
	Properties InstanceProperties
	Spec       InstanceSpec
}

// The names of the ways to initialize an instance.
const (
	initSpec            = "Spec"
	initMigrationTarget = "MigrationTarget"
)

// UnsupportedInitError says that an ensure request asks for an initialization
// other than from a spec, such as by migration from another server.
type UnsupportedInitError struct{ Method string }

// Error implements error.
func (e *UnsupportedInitError) Error() string {
	if e.Method == initMigrationTarget {
		return "initialization method MigrationTarget is not supported: only Spec is"
	}
	return fmt.Sprintf("unknown initialization method %q: only Spec is supported", e.Method)
}

type ensureWire struct {
	Properties *InstanceProperties `json:"properties"`
	Init       *initWire           `json:"init"`
}

type initWire struct {
	Method string          `json:"method"`
	Value  json.RawMessage `json:"value"`
}

type initSpecWire struct {
	Spec *InstanceSpec `json:"spec"`
}

// MarshalJSON writes the request in the form of the API.
func (r InstanceEnsureRequest) MarshalJSON() ([]byte, error) {
	value, err := json.Marshal(initSpecWire{Spec: &r.Spec})
	if err != nil {
		return nil, err
	}
	return json.Marshal(ensureWire{&r.Properties, &initWire{initSpec, value}})
}

// UnmarshalJSON reads the form of the API. A request for anything but
// initialization from a spec is an [*UnsupportedInitError].
func (r *InstanceEnsureRequest) UnmarshalJSON(data []byte) error {
	var w ensureWire
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	switch {
	case w.Properties == nil:
		return errors.New("missing field `properties`")
	case w.Init == nil:
		return errors.New("missing field `init`")
	case w.Init.Method != initSpec:
		return &UnsupportedInitError{Method: w.Init.Method}
	case w.Init.Value == nil:
		return errors.New("init: missing field `value`")
	}
	var init initSpecWire
	if err := json.Unmarshal(w.Init.Value, &init); err != nil {
		return err
	}
	if init.Spec == nil {
		return errors.New("init: missing field `spec`")
	}
	*r = InstanceEnsureRequest{Properties: *w.Properties, Spec: *init.Spec}
	return nil
}

// Instance is an instance and its state.
type Instance struct {
	Properties InstanceProperties `json:"properties"`
	State      InstanceState      `json:"state"`
}

// StateRecord is one entry in the history of an instance's states. Gen counts
// the changes, from 1.
type StateRecord struct {
	Gen       uint64          `json:"gen"`
	State     InstanceState   `json:"state"`
	Migration MigrationStatus `json:"migration"`
	// Failure says why State is Failed. It is an extension of this module's
	// own server and empty with others.
	Failure string `json:"failure,omitempty"`
}

// MigrationStatus holds the latest migrations into and out of a server.
type MigrationStatus struct {
	In  *Migration `json:"migration_in"`
	Out *Migration `json:"migration_out"`
}

// Migration is one migration and the phase it is in.
type Migration struct {
	ID    string `json:"id"`
	State string `json:"state"`
}

// HistoryRequest selects a part of a serial console's past output. Exactly one
// of FromStart and MostRecent must be set.
type HistoryRequest struct {
	// FromStart counts bytes from the instance's start.
	FromStart *uint64
	// MostRecent counts bytes backwards from the newest.
	MostRecent *uint64
	// MaxBytes bounds the answer; 0 is the server's default, 16 KiB.
	MaxBytes uint64
}

// History is a part of a serial console's past output.
type History struct {
	Data []byte `json:"data"`
	// LastByteOffset is the offset, from the instance's start, after the last
	// byte of Data: the FromStart with which to read on.
	LastByteOffset uint64 `json:"last_byte_offset"`
}

// MarshalJSON writes the data as the API does, as an array of numbers.
func (h History) MarshalJSON() ([]byte, error) {
	b := make([]byte, 0, 4*len(h.Data)+48)
	b = append(b, `{"data":[`...)
	for i, c := range h.Data {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(c), 10)
	}
	b = append(b, `],"last_byte_offset":`...)
	b = strconv.AppendUint(b, h.LastByteOffset, 10)
	return append(b, '}'), nil
}

// The codes of an [Error] that a caller may branch on.
const (
	CodeNoInstance         = "NoInstance"
	CodeAlreadyInitialized = "AlreadyInitialized"
	CodeAlreadyRunning     = "AlreadyRunning"
	CodeCreateFailed       = "CreateFailed"
	CodeInternal           = "Internal"
)

// Error is a server's refusal of a request.
type Error struct {
	// Status is the HTTP status, 400 or above.
	Status int `json:"-"`
	// Code is the error's code, empty where the server has none for it.
	Code      string `json:"error_code,omitempty"`
	Message   string `json:"message"`
	RequestID string `json:"request_id"`
}

// Error implements error.
func (e *Error) Error() string {
	s := fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status))
	if e.Message != "" && e.Message != http.StatusText(e.Status) {
		s += ": " + printable.Text(e.Message)
	}
	if e.Code != "" {
		s += " (" + printable.Line(e.Code) + ")"
	}
	return s
}
