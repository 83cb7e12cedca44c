package server

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/falcon-vm/falcon-go/propolis"
)

// exchange is a request as bytes on the wire and its answer.
type exchange struct {
	method, path, body string
	header             map[string]string // besides, or instead of, the usual
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   map[string]any // nil if it is not a JSON object
	raw    string
}

// transport reaches the server at the address that the harness has now.
func (h *harness) transport() *http.Transport {
	path := strings.TrimPrefix(h.addr, "unix:")
	return &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
}

// raw makes a request without the client's help.
func (h *harness) raw(x exchange) answer {
	h.t.Helper()
	transport := h.transport()
	req, err := http.NewRequestWithContext(h.ctx(), x.method, "http://localhost"+x.path, strings.NewReader(x.body))
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("api-version", "5.0.0")
	if x.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range x.header {
		req.Header.Set(name, value)
		if value == "" {
			req.Header.Del(name)
		}
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	a := answer{status: resp.StatusCode, header: resp.Header, raw: string(raw)}
	_ = json.Unmarshal(raw, &a.body)
	return a
}

// ensureJSON is the body of a request for the least instance.
func ensureJSON(t *testing.T) string {
	t.Helper()
	body, err := json.Marshal(ensureRequest(nil))
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestErrorBodies(t *testing.T) {
	tests := []struct {
		name    string
		x       exchange
		status  int
		code    string // empty for none
		message string // prefix
	}{
		{"no instance", exchange{method: "GET", path: "/instance"}, 424, "NoInstance", "Server not initialized (no instance)"},
		{"no spec", exchange{method: "GET", path: "/instance/spec"}, 424, "NoInstance", "Server not initialized"},
		{"no state to change", exchange{method: "PUT", path: "/instance/state", body: `"Run"`}, 424, "NoInstance", "Server not initialized"},
		{"no state to watch", exchange{method: "GET", path: "/instance/state-monitor", body: `{"gen":0}`}, 424, "NoInstance", "Server not initialized"},
		{"no history", exchange{method: "GET", path: "/instance/serial/history?from_start=0"}, 424, "NoInstance", "Server not initialized"},
		{"no guest to interrupt", exchange{method: "POST", path: "/instance/nmi"}, 424, "NoInstance", "Server not initialized"},
		{"no migration", exchange{method: "GET", path: "/instance/migration-status"}, 424, "NoInstance", "Server not initialized"},
		{"no such path", exchange{method: "GET", path: "/instances"}, 404, "", "Not Found"},
		{"no such method", exchange{method: "DELETE", path: "/instance"}, 405, "", "Method Not Allowed"},
		{"not JSON", exchange{method: "PUT", path: "/instance", body: `{`}, 400, "", "unable to parse JSON body"},
		{"no body", exchange{method: "PUT", path: "/instance"}, 400, "", "unable to parse JSON body"},
		{"more than a body", exchange{method: "PUT", path: "/instance/state", body: `"Run" "Run"`}, 400, "", "unable to parse JSON body"},
		{"unknown state", exchange{method: "PUT", path: "/instance/state", body: `"Start"`}, 400, "", "unable to parse JSON body: unknown variant `Start`"},
		{"no generation", exchange{method: "GET", path: "/instance/state-monitor", body: `{}`}, 400, "", "unable to parse JSON body: missing field `gen`"},
		{"negative generation", exchange{method: "GET", path: "/instance/state-monitor", body: `{"gen":-1}`}, 400, "", "unable to parse JSON body"},
		{"other media type", exchange{method: "PUT", path: "/instance/state", body: `"Run"`, header: map[string]string{"Content-Type": "text/plain"}}, 400, "", `expected content type "application/json", got "text/plain"`},
		{"migration target", exchange{method: "PUT", path: "/instance", body: `{"properties":{},"init":{"method":"MigrationTarget","value":{}}}`}, 400, "", "unable to parse JSON body: initialization method MigrationTarget is not supported"},
		{"migration source", exchange{method: "GET", path: "/instance/migrate/" + testID + "/start"}, 501, "", "this server cannot migrate"},
		{"offset that is no number", exchange{method: "GET", path: "/instance/serial/history?from_start=-1"}, 400, "", "unable to parse query string: from_start"},
		{"history without an offset", exchange{method: "GET", path: "/instance/serial/history"}, 400, "", "Exactly one of 'from_start' or 'most_recent' must be specified."},
		{"history with two offsets", exchange{method: "GET", path: "/instance/serial/history?from_start=1&most_recent=1"}, 400, "", "Exactly one of"},
		{"serial without an upgrade", exchange{method: "GET", path: "/instance/serial"}, 400, "", "expected connection upgrade"},
		{"VNC without an address", exchange{method: "GET", path: "/instance/vnc"}, 400, "", "the server was started without a VNC address"},
	}
	h := newHarness(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { checkError(t, h.raw(tt.x), tt.status, tt.code, tt.message) })
	}
}

// checkError checks an answer for all that errors have in common.
func checkError(t *testing.T, a answer, status int, code, message string) {
	t.Helper()
	id, _ := a.body["request_id"].(string)
	if a.status != status || uuid.Validate(id) != nil || id != a.header.Get("x-request-id") {
		t.Errorf("got status %d, request id %q and header %q, want %d and equal UUIDs", a.status, id, a.header.Get("x-request-id"), status)
	}
	if got, _ := a.body["message"].(string); !strings.HasPrefix(got, message) {
		t.Errorf("got message %q, want %q", got, message)
	}
	got, there := a.body["error_code"]
	if there != (code != "") || there && got != code {
		t.Errorf("got code %v, want %q", got, code)
	}
	if ct := a.header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("got content type %q", ct)
	}
}

func TestErrorsOfAnInstance(t *testing.T) {
	tests := []struct {
		name    string
		x       exchange
		status  int
		code    string
		message string
	}{
		{"ensured twice", exchange{method: "PUT", path: "/instance", body: ensureJSON(t)}, 409, "AlreadyInitialized", "instance already initialized"},
		{"reboot before run", exchange{method: "PUT", path: "/instance/state", body: `"Reboot"`}, 403, "instance state change not allowed: Operation requires an active instance", "Forbidden"},
		{"snapshot", exchange{method: "POST", path: "/instance/disk/d/snapshot/" + testID}, 404, "", `no Crucible volume "d"`},
		{"snapshot of no UUID", exchange{method: "POST", path: "/instance/disk/d/snapshot/1"}, 400, "", "bad parameter"},
		{"volume status", exchange{method: "GET", path: "/instance/disk/d/status"}, 404, "", `no Crucible volume "d"`},
		{"volume replacement", exchange{method: "PUT", path: "/instance/disk/d/vcr", body: `{"vcr_json":""}`}, 404, "", `no Crucible volume "d"`},
	}
	h := newHarness(t)
	h.created()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { checkError(t, h.raw(tt.x), tt.status, tt.code, tt.message) })
	}
}

func TestRequestsWhileStoppingAreDenied(t *testing.T) {
	h := newHarness(t)
	h.machine.ignorePower = true
	h.running()
	h.request(propolis.RequestStop)
	h.called("powerdown")
	h.request(propolis.RequestStop) // is ignored
	for _, req := range []propolis.StateRequest{propolis.RequestRun, propolis.RequestReboot} {
		refused(t, h.SetState(h.ctx(), req), 403, "instance state change not allowed: Instance is preparing to stop")
	}
}

func TestAnswers(t *testing.T) {
	tests := []struct {
		name   string
		x      exchange
		status int
		body   string // the JSON; empty for none
	}{
		{"ensure", exchange{method: "PUT", path: "/instance", body: ensureJSON(t)}, 201, `{"migrate":null}`},
		{"monitor", exchange{method: "GET", path: "/instance/state-monitor", body: `{"gen":1}`}, 200,
			`{"gen":1,"state":"Creating","migration":{"migration_in":null,"migration_out":null}}`},
		{"run", exchange{method: "PUT", path: "/instance/state", body: `"Run"`}, 204, ""},
		{"monitor while it starts", exchange{method: "GET", path: "/instance/state-monitor", body: `{"gen":3}`}, 200,
			`{"gen":3,"state":"Running","migration":{"migration_in":null,"migration_out":null}}`},
		{"instance", exchange{method: "GET", path: "/instance"}, 200, `{"instance":{"properties":{"id":"` + testID + `","name":"violin","description":"",
			"metadata":{"silo_id":"` + propolis.NilUUID + `","project_id":"` + propolis.NilUUID + `","sled_id":"` + propolis.NilUUID + `","sled_serial":"","sled_revision":0,"sled_model":""}},
			"state":"Running"}}`},
		{"history", exchange{method: "GET", path: "/instance/serial/history?most_recent=5"}, 200, `{"data":[],"last_byte_offset":0}`},
		{"nmi", exchange{method: "POST", path: "/instance/nmi"}, 200, `null`},
		{"migration status", exchange{method: "GET", path: "/instance/migration-status"}, 200, `{"migration_in":null,"migration_out":null}`},
	}
	h := newHarness(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := h.raw(tt.x)
			if a.status != tt.status || uuid.Validate(a.header.Get("x-request-id")) != nil {
				t.Fatalf("got status %d, %v, %s", a.status, a.header, a.raw)
			}
			if tt.body == "" {
				if a.raw != "" {
					t.Errorf("got body %q, want none", a.raw)
				}
				return
			}
			var want, got any
			if json.Unmarshal([]byte(tt.body), &want) != nil || json.Unmarshal([]byte(a.raw), &got) != nil || !cmp.Equal(want, got) {
				t.Errorf("got %s\nwant %s", a.raw, tt.body)
			}
		})
	}
	h.called("run")
	h.called("nmi")
}

func TestBodiesAreAtMostAMebibyte(t *testing.T) {
	h := newHarness(t)
	body := ensureJSON(t)
	fits := body + strings.Repeat(" ", 1<<20-len(body))
	checkError(t, h.raw(exchange{method: "PUT", path: "/instance", body: fits + " "}), 400, "",
		"request body exceeded maximum size of 1048576 bytes")
	if a := h.raw(exchange{method: "PUT", path: "/instance", body: fits}); a.status != 201 {
		t.Errorf("a body of a mebibyte got %d %s", a.status, a.raw)
	}
}

func TestVersionsThatAreSpoken(t *testing.T) {
	tests := []struct {
		version, want string // the message; empty for success
	}{
		{"", `missing expected header "api-version"`},
		{"five", "bad value"},
		{"5.0", "bad value"},
		{"5.0.0.0", "bad value"},
		{"5.-1.0", "bad value"},
		{"0.9.0", "Not Found"},
		{"1.0.0", ""},
		{"2.0.0", ""},
		{"3.0.0", ""},
		{"4.0.0", ""},
		{"5.0.0", ""},
		{"5.9.9", ""},
		{"6.0.0", ""},
		{"6.0.1", "server does not support this API version: 6.0.1"},
		{"6.1.0", "server does not support this API version: 6.1.0"},
		{"7.0.0", "server does not support this API version: 7.0.0"},
	}
	h := newHarness(t)
	h.created()
	for _, tt := range tests {
		t.Run(tt.version, func(t *testing.T) {
			a := h.raw(exchange{method: "GET", path: "/instance", header: map[string]string{"api-version": tt.version}})
			if tt.want == "" {
				if a.status != 200 {
					t.Errorf("got %d %s", a.status, a.raw)
				}
				return
			}
			status := 400
			if tt.want == "Not Found" {
				status = 404
			}
			checkError(t, a, status, "", tt.want)
		})
	}
}

func TestTheSpecByVersion(t *testing.T) {
	h := newHarness(t)
	req := ensureRequest(propolis.Components{
		"disk": propolis.NVMeDisk{BackendID: "file", PCIPath: propolis.PCIPath{Device: 4}, SerialNumber: propolis.NewNVMeSerial("s")},
		"file": propolis.FileStorageBackend{Path: "d.raw", BlockSize: 4096},
	})
	req.Spec.Smbios = &propolis.SmbiosType1{Manufacturer: "a4x2"}
	if err := h.Ensure(h.ctx(), req); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		version                     string
		wrapped, smbios, writeCache bool
	}{
		{version: "1.0.0", wrapped: true},
		{version: "2.0.0", smbios: true},
		{version: "5.0.0", smbios: true},
		{version: "6.0.0", smbios: true, writeCache: true},
	}
	for _, tt := range tests {
		t.Run(tt.version, func(t *testing.T) {
			a := h.raw(exchange{method: "GET", path: "/instance/spec", header: map[string]string{"api-version": tt.version}})
			status := a.body["spec"].(map[string]any)
			spec := status["value"].(map[string]any)
			if status["type"] != "Present" || a.body["state"] != "Creating" || a.body["properties"] == nil {
				t.Errorf("got %s", a.raw)
			}
			if _, wrapped := spec["spec"]; wrapped != tt.wrapped || wrapped && spec["version"] != "V0" {
				t.Fatalf("got %s", a.raw)
			}
			if tt.wrapped {
				spec = spec["spec"].(map[string]any)
			}
			if _, smbios := spec["smbios"]; smbios != tt.smbios {
				t.Errorf("smbios is there: %v, want %v", smbios, tt.smbios)
			}
			disk := spec["components"].(map[string]any)["disk"].(map[string]any)["component"].(map[string]any)
			cache, there := disk["has_write_cache"]
			if there != tt.writeCache || there && cache != false {
				t.Errorf("has_write_cache is %v (%v), want it there: %v", cache, there, tt.writeCache)
			}
			if path := disk["pci_path"].(map[string]any); path["device"] != 4.0 {
				t.Errorf("the disk is at %v", path)
			}
		})
	}
}

func TestTheSpecComesBackAsItWasGiven(t *testing.T) {
	h := newHarness(t)
	body, err := os.ReadFile("../testdata/ensure.json")
	if err != nil {
		t.Fatal(err)
	}
	var req propolis.InstanceEnsureRequest
	if err := json.Unmarshal(body, &req); err != nil {
		t.Fatal(err)
	}
	if err := h.Ensure(h.ctx(), req); err != nil {
		t.Fatal(err)
	}
	spec, err := h.Spec(h.ctx())
	if diff := cmp.Diff(req.Spec, spec); err != nil || diff != "" {
		t.Errorf("%v (-sent +got):\n%s", err, diff)
	}
}

func TestMonitorsOfALeavingClientEnd(t *testing.T) {
	h := newHarness(t)
	h.created()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := h.Monitor(ctx, 99)
		done <- err
	}()
	cancel()
	if err := <-done; err == nil {
		t.Error("the monitor answered")
	}
	// That the server's side ends too is what TestMain's leak check sees.
}

func TestMonitorsEndWithTheServer(t *testing.T) {
	h := newHarness(t)
	h.created()
	done := make(chan error, 1)
	go func() {
		_, err := h.Monitor(h.ctx(), 99)
		done <- err
	}()
	if err := h.stop(); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Error("the monitor answered")
	}
}
