package propolis

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// everyComponent has a component of each kind.
func everyComponent() Components {
	workers := uint64(8)
	path := PCIPath{Device: 4, Function: 1}
	return Components{
		"com1":     SerialPort{Num: "com1"},
		"disk":     VirtioDisk{BackendID: "file", PCIPath: path},
		"nvme":     NVMeDisk{BackendID: "file", PCIPath: path, SerialNumber: NewNVMeSerial("s1"), HasWriteCache: true},
		"file":     FileStorageBackend{Path: "d.raw", Readonly: true, BlockSize: 512, Workers: &workers},
		"blob":     BlobStorageBackend{Base64: "AA==", Readonly: true},
		"crucible": CrucibleStorageBackend{RequestJSON: "{}", Readonly: true},
		"nic":      VirtioNIC{BackendID: "vnic", InterfaceID: NilUUID, PCIPath: path},
		"vnic":     VirtioNetworkBackend{VNICName: "vnic0"},
		"dlpi":     DLPINetworkBackend{VNICName: "vnic1"},
		"fs":       P9FS{Source: "/s", Target: "/t", ChunkSize: 65536, PCIPath: path},
		"npu9":     SoftNPUP9{PCIPath: path},
		"npuport":  SoftNPUPCIPort{PCIPath: path},
		"npulink":  SoftNPUPort{LinkName: "l", BackendID: "dlpi"},
		"boot":     BootSettings{Order: []BootOrderEntry{{ID: "disk"}}},
		"bridge":   PCIBridge{DownstreamBus: 1, PCIPath: path},
		"panic":    PVPanic{EnableISA: true},
		"vsock":    VirtioSocket{GuestCID: 3, PCIPath: path},
		"injector": MigrationFailureInjector{FailExports: 1, FailImports: 2},
	}
}

func TestComponentsSurviveTheWire(t *testing.T) {
	want := everyComponent()
	if len(want) != len(prototypes()) {
		t.Fatalf("the test knows %d kinds of components, the package %d", len(want), len(prototypes()))
	}
	body, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Components
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("components changed on the wire (-sent +received):\n%s", diff)
	}
}

// The body is what upstream's falcon sends for a node with a disk, a mount, a
// link and a SoftNPU link.
func TestEnsureRequestHasTheFormOfUpstream(t *testing.T) {
	body, err := os.ReadFile("testdata/ensure.json")
	if err != nil {
		t.Fatal(err)
	}
	var req InstanceEnsureRequest
	if err := json.Unmarshal(body, &req); err != nil {
		t.Fatal(err)
	}
	if got, want := len(req.Spec.Components), 12; got != want {
		t.Errorf("got %d components, want %d", got, want)
	}
	again, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	var want, got any
	if err := errors.Join(json.Unmarshal(body, &want), json.Unmarshal(again, &got)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the request is sent in another form (-upstream +ours):\n%s", diff)
	}
}

// ensureBody returns an ensure request whose spec holds the given members.
func ensureBody(spec string) string {
	return `{"properties":{},"init":{"method":"Spec","value":{"spec":{` + spec + `}}}}`
}

func TestEnsureRequestDecoding(t *testing.T) {
	const board = `"board":{"cpus":1}`
	tests := []struct {
		name, body string
		want       string // part of the error; empty for none
	}{
		{"least", ensureBody(board + `,"components":{}`), ""},
		{"unknown field beside the board", ensureBody(board + `,"components":{},"later":1`), ""},
		{"smbios", ensureBody(board + `,"components":{},"smbios":{"manufacturer":"a4x2"}`), ""},
		{"no properties", `{"init":{"method":"Spec"}}`, "missing field `properties`"},
		{"no init", `{"properties":{}}`, "missing field `init`"},
		{"no value", `{"properties":{},"init":{"method":"Spec"}}`, "missing field `value`"},
		{"no spec", `{"properties":{},"init":{"method":"Spec","value":{}}}`, "missing field `spec`"},
		{"no board", ensureBody(`"components":{}`), "missing field `board`"},
		{"no components", ensureBody(board), "`components`"},
		{"unknown field in the board", ensureBody(`"board":{"cores":1},"components":{}`), `board: json: unknown field "cores"`},
		{"unknown field in smbios", ensureBody(board + `,"components":{},"smbios":{"uuid":""}`), "smbios:"},
		{"unknown kind", ensureBody(board + `,"components":{"x":{"type":"floppy","component":{}}}`), `component "x": unknown type "floppy"`},
		{"unknown field in a component", ensureBody(board + `,"components":{"x":{"type":"serial_port","component":{"number":"com1"}}}`), "serial_port:"},
		{"unknown field beside a component", ensureBody(board + `,"components":{"x":{"type":"serial_port","component":{},"y":1}}`), `"x"`},
		{"component without body", ensureBody(board + `,"components":{"x":{"type":"serial_port"}}`), "missing body"},
		{"name given twice", ensureBody(board + `,"components":{"x":{"type":"serial_port","component":{"num":"com1"}},"x":{"type":"serial_port","component":{"num":"com2"}}}`), "used twice"},
		{"components of another form", ensureBody(board + `,"components":[]`), "want a JSON object"},
		{"short serial number", ensureBody(board + `,"components":{"x":{"type":"nvme_disk","component":{"serial_number":[1,2]}}}`), "array of 20 bytes"},
		{"serial number as a string", ensureBody(board + `,"components":{"x":{"type":"nvme_disk","component":{"serial_number":"QUFBQUFBQUFBQUFBQUFBQUFBQUE="}}}`), "array of 20 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var req InstanceEnsureRequest
			err := json.Unmarshal([]byte(tt.body), &req)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestEnsureByMigrationIsRefusedByType(t *testing.T) {
	body := `{"properties":{},"init":{"method":"MigrationTarget","value":{"migration_id":"x","src_addr":"[::1]:1","replace_components":{}}}}`
	var req InstanceEnsureRequest
	err := json.Unmarshal([]byte(body), &req)
	var unsupported *UnsupportedInitError
	if !errors.As(err, &unsupported) || unsupported.Method != "MigrationTarget" {
		t.Errorf("got %v, want an UnsupportedInitError for MigrationTarget", err)
	}
}

func TestEmptyMetadataIsSentAsNilUUIDs(t *testing.T) {
	body, err := json.Marshal(InstanceProperties{Name: "n"})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(body), NilUUID); got != 3 {
		t.Errorf("got %d nil UUIDs in %s, want 3", got, body)
	}
}

func TestHistoryIsAnArrayOfNumbers(t *testing.T) {
	tests := []struct {
		h    History
		want string
	}{
		{History{}, `{"data":[],"last_byte_offset":0}`},
		{History{Data: []byte{0, 65, 255}, LastByteOffset: 7}, `{"data":[0,65,255],"last_byte_offset":7}`},
	}
	for _, tt := range tests {
		body, err := json.Marshal(tt.h)
		if err != nil || string(body) != tt.want {
			t.Errorf("got %s, %v, want %s", body, err, tt.want)
		}
		var back History
		if err := json.Unmarshal(body, &back); err != nil || string(back.Data) != string(tt.h.Data) {
			t.Errorf("%s came back as %v, %v", body, back, err)
		}
	}
}

func TestOnlyFailedAndDestroyedAreTerminal(t *testing.T) {
	terminal := map[InstanceState]bool{StateFailed: true, StateDestroyed: true}
	for _, s := range []InstanceState{
		StateCreating, StateStarting, StateRunning, StateStopping, StateStopped,
		StateRebooting, StateMigrating, StateRepairing, StateFailed, StateDestroyed,
	} {
		if s.Terminal() != terminal[s] {
			t.Errorf("%s.Terminal() is %v", s, s.Terminal())
		}
	}
}

// A request that decodes must survive being sent on.
func FuzzEnsureRequest(f *testing.F) {
	body, err := os.ReadFile("testdata/ensure.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add([]byte(ensureBody(`"board":{"cpus":1,"guest_hv_interface":{"type":"hyper_v","value":{"features":["reference_tsc"]}}},"components":{}`)))
	all, err := json.Marshal(InstanceEnsureRequest{Spec: InstanceSpec{Components: everyComponent(), Smbios: &SmbiosType1{Version: 2}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(all)
	f.Fuzz(func(t *testing.T, data []byte) {
		var req, again InstanceEnsureRequest
		if json.Unmarshal(data, &req) != nil {
			return
		}
		body, err := json.Marshal(req)
		if err != nil {
			t.Fatalf("decoded, but cannot be encoded: %v", err)
		}
		if err := json.Unmarshal(body, &again); err != nil {
			t.Fatalf("encoded as %s, which does not decode: %v", body, err)
		}
		sent, err := json.Marshal(again)
		if err != nil || string(sent) != string(body) {
			t.Fatalf("sent as %s, then as %s (%v)", body, sent, err)
		}
	})
}
