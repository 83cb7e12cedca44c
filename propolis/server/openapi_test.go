package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/google/go-cmp/cmp"

	"github.com/falcon-vm/falcon-go/propolis"
)

// documentPath is Propolis' own description of its API, which is kept beside
// this repository and not in it.
const documentPath = "../../../shared/data/propolis-server-5.0.0.json"

// document checks requests and answers against Propolis' own description.
type document struct {
	router routers.Router
	doc    *openapi3.T

	mu       sync.Mutex
	seen     map[string]bool // operations that were answered as the document says
	problems []error
}

func openDocument(t *testing.T) *document {
	t.Helper()
	data, err := os.ReadFile(documentPath)
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("Propolis' OpenAPI document is not at %s", documentPath)
	}
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range doc.Components.Schemas {
		closeSchema(s)
	}
	// A UUID is a string, too, so that no key would be exactly one of the two.
	key := doc.Components.Schemas["SpecKey"].Value
	key.AnyOf, key.OneOf = key.OneOf, nil
	// Its writer has no other way to say null than a string that is null.
	nmi := doc.Paths.Find("/instance/nmi").Post.Responses.Status(http.StatusOK).Value
	nmi.Content.Get("application/json").Schema.Value.Nullable = true
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return &document{router: router, doc: doc, seen: make(map[string]bool)}
}

// closeSchema refuses what an object's schema does not list, so that a field
// with a wrong name is found even where it is not a required one.
func closeSchema(ref *openapi3.SchemaRef) {
	s := ref.Value
	if len(s.Properties) > 0 && s.AdditionalProperties.Has == nil {
		no := false
		s.AdditionalProperties.Has = &no
	}
	for _, more := range slices.Concat(s.OneOf, s.AnyOf, s.AllOf, slices.Collect(maps.Values(s.Properties))) {
		if more.Ref == "" {
			closeSchema(more)
		}
	}
}

// check validates an exchange. A websocket has no body.
func (d *document) check(req *http.Request, sent []byte, resp *http.Response, got []byte) error {
	route, params, err := d.router.FindRoute(req)
	if err != nil {
		return err
	}
	in := &openapi3filter.RequestValidationInput{Request: req, PathParams: params, Route: route}
	if resp.StatusCode < 400 { // what is refused may well be wrong
		req.Body = io.NopCloser(bytes.NewReader(sent))
		if err := openapi3filter.ValidateRequest(req.Context(), in); err != nil {
			return err
		}
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		out := &openapi3filter.ResponseValidationInput{
			RequestValidationInput: in, Status: resp.StatusCode, Header: resp.Header,
			Options: &openapi3filter.Options{IncludeResponseStatus: true},
		}
		if err := openapi3filter.ValidateResponse(req.Context(), out.SetBodyBytes(got)); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen[route.Operation.OperationID] = true
	return nil
}

// between returns the address of a proxy to the harness's server that checks
// what passes.
func (d *document) between(h *harness) string {
	to, err := url.Parse("http://localhost")
	if err != nil {
		h.t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.Transport = h.transport()
	type bodyKey struct{}
	proxy.ModifyResponse = func(resp *http.Response) error {
		var got []byte
		if resp.StatusCode != http.StatusSwitchingProtocols {
			if got, err = io.ReadAll(resp.Body); err != nil {
				return err
			}
			resp.Body = io.NopCloser(bytes.NewReader(got))
		}
		sent, _ := resp.Request.Context().Value(bodyKey{}).([]byte)
		req := resp.Request.Clone(resp.Request.Context())
		if err := d.check(req, sent, resp, got); err != nil {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.problems = append(d.problems, fmt.Errorf("%s %s, sent %s, got status %d, %s: %w", req.Method, req.URL.Path, sent, resp.StatusCode, got, err))
		}
		return nil
	}
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(sent)), int64(len(sent))
		proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), bodyKey{}, sent)))
	}))
	front.Listener.Close()
	socket := filepath.Join(shortTempDir(h.t), "p")
	if front.Listener, err = net.Listen("unix", socket); err != nil {
		h.t.Fatal(err)
	}
	front.Start()
	h.t.Cleanup(front.Close)
	return "unix:" + socket
}

// everyComponent has each kind of component once.
func everyComponent() propolis.Components {
	at := func(n uint8) propolis.PCIPath { return propolis.PCIPath{Device: n} }
	workers := uint64(2)
	return propolis.Components{
		"com1":     propolis.SerialPort{Num: "com1"},
		"file":     propolis.FileStorageBackend{Path: "/disk", BlockSize: 512, Workers: &workers},
		"disk":     propolis.VirtioDisk{BackendID: "file", PCIPath: at(4)},
		"blob":     propolis.BlobStorageBackend{Base64: "AA==", Readonly: true},
		"nvme":     propolis.NVMeDisk{BackendID: "blob", PCIPath: at(5), SerialNumber: propolis.NewNVMeSerial("s")},
		"crucible": propolis.CrucibleStorageBackend{RequestJSON: "{}"},
		"net":      propolis.VirtioNetworkBackend{VNICName: "vnic0"},
		"nic":      propolis.VirtioNIC{BackendID: "net", InterfaceID: testID, PCIPath: at(6)},
		"dlpi":     propolis.DLPINetworkBackend{VNICName: "vnic1"},
		"port":     propolis.SoftNPUPort{LinkName: "port0", BackendID: "dlpi"},
		"asic":     propolis.SoftNPUPCIPort{PCIPath: at(7)},
		"p4":       propolis.SoftNPUP9{PCIPath: at(8)},
		"share":    propolis.P9FS{Source: "/src", Target: "tag", ChunkSize: 65536, PCIPath: at(9)},
		"boot":     propolis.BootSettings{Order: []propolis.BootOrderEntry{{ID: "disk"}}},
		"bridge":   propolis.PCIBridge{DownstreamBus: 1, PCIPath: at(10)},
		"panic":    propolis.PVPanic{EnableISA: true},
		"vsock":    propolis.VirtioSocket{GuestCID: 3, PCIPath: at(11)},
		"injector": propolis.MigrationFailureInjector{},
	}
}

func TestClientAndServerSpeakAsPropolisDocumentSays(t *testing.T) {
	d := openDocument(t)
	h := newHarness(t)
	checked := d.between(h)
	c, err := propolis.NewClient(checked)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	h.addr = checked
	want := func(what string, err error, ok bool) {
		t.Helper()
		if (err == nil) != ok {
			t.Errorf("%s: %v", what, err)
		}
	}

	// Each operation before there is an instance, which is an error of each.
	_, err = c.Instance(h.ctx())
	want("instance before ensure", err, false)
	_, err = c.Spec(h.ctx())
	want("spec before ensure", err, false)
	_, err = c.Monitor(h.ctx(), 0)
	want("monitor before ensure", err, false)
	_, err = c.History(h.ctx(), propolis.HistoryRequest{MostRecent: new(uint64)})
	want("history before ensure", err, false)
	want("run before ensure", c.SetState(h.ctx(), propolis.RequestRun), false)

	req := ensureRequest(everyComponent())
	nobody := propolis.NilUUID
	req.Properties.Metadata = propolis.InstanceMetadata{SiloID: nobody, ProjectID: nobody, SledID: nobody, SledSerial: "1", SledModel: "falcon"}
	req.Spec.Smbios = &propolis.SmbiosType1{Manufacturer: "m", ProductName: "p", SerialNumber: "s", Version: 1}
	want("ensure", c.Ensure(h.ctx(), req), true)
	want("ensure of another", c.Ensure(h.ctx(), func() propolis.InstanceEnsureRequest { r := req; r.Properties.Name = "piano"; return r }()), false)
	// What is wrong in the client's reading only shows in what it read.
	instance, err := c.Instance(h.ctx())
	want("instance", err, true)
	if diff := cmp.Diff(propolis.Instance{Properties: req.Properties, State: propolis.StateCreating}, instance); diff != "" {
		t.Errorf("the instance is read as (-want +got)\n%s", diff)
	}
	spec, err := c.Spec(h.ctx())
	want("spec", err, true)
	if diff := cmp.Diff(req.Spec, spec); diff != "" {
		t.Errorf("the spec is read as (-want +got)\n%s", diff)
	}
	want("run", c.SetState(h.ctx(), propolis.RequestRun), true)
	want("running", c.WaitState(h.ctx(), propolis.StateRunning), true)
	serial, err := c.Serial(h.ctx(), propolis.SerialOptions{FromStart: new(uint64)})
	if err != nil {
		t.Fatal(err)
	}
	h.machine.types(t, "hello")
	if _, err := io.ReadFull(serial, make([]byte, 5)); err != nil {
		t.Error(err)
	}
	serial.Close()
	history, err := c.History(h.ctx(), propolis.HistoryRequest{FromStart: new(uint64), MaxBytes: 10})
	want("history", err, true)
	if string(history.Data) != "hello" || history.LastByteOffset != 5 {
		t.Errorf("the history is read as %+v", history)
	}
	_, err = c.History(h.ctx(), propolis.HistoryRequest{})
	want("history of no place", err, false)
	// What our client has no use for, and what only a Crucible volume has.
	disk := "/instance/disk/" + testID
	for _, x := range []exchange{
		{method: http.MethodPost, path: "/instance/nmi"},
		{method: http.MethodGet, path: "/instance/migration-status"},
		{method: http.MethodGet, path: "/instance/migrate/" + testID + "/start"},
		{method: http.MethodGet, path: disk + "/status"},
		{method: http.MethodPost, path: disk + "/snapshot/" + testID},
		{method: http.MethodPut, path: disk + "/vcr", body: `{"vcr_json":"{}"}`},
		{method: http.MethodPut, path: "/instance/state", body: `"Jump"`},
		{method: http.MethodPut, path: "/instance", body: `{}`},
	} {
		h.raw(x)
	}
	want("reboot", c.SetState(h.ctx(), propolis.RequestReboot), true)
	want("stop", c.SetState(h.ctx(), propolis.RequestStop), true)
	want("destroyed", c.WaitState(h.ctx(), propolis.StateDestroyed), true)

	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.problems {
		t.Error(p)
	}
	for path, item := range d.doc.Paths.Map() {
		for method, op := range item.Operations() {
			if !d.seen[op.OperationID] {
				t.Errorf("%s %s was not exchanged", method, path)
			}
		}
	}
	kinds := make(map[string]bool)
	for _, c := range req.Spec.Components {
		kinds[c.Kind()] = true
	}
	for _, one := range d.doc.Components.Schemas["Component"].Value.OneOf {
		if kind := one.Value.Properties["type"].Value.Enum[0].(string); !kinds[kind] {
			t.Errorf("component kind %s was not exchanged", kind)
		}
	}
}

// TestTheDocumentRefusesAMisspeltField shows that the check above can fail.
func TestTheDocumentRefusesAMisspeltField(t *testing.T) {
	d := openDocument(t)
	good, err := json.Marshal(ensureRequest(everyComponent()))
	if err != nil {
		t.Fatal(err)
	}
	exchange := func(sent, got string) error {
		req := httptest.NewRequest(http.MethodPut, "http://localhost/instance", strings.NewReader(sent))
		req.Header.Set("Content-Type", "application/json")
		resp := &http.Response{StatusCode: http.StatusCreated, Header: http.Header{"Content-Type": {"application/json"}}}
		return d.check(req, []byte(sent), resp, []byte(got))
	}
	if err := exchange(string(good), `{"migrate":null}`); err != nil {
		t.Errorf("what is right: %v", err)
	}
	for _, field := range []string{"init", "memory_mb", "backend_id", "workers", "smbios", "pci_path", "description", "chunk_size", "serial_number"} {
		bad := strings.Replace(string(good), `"`+field+`"`, `"`+field+`_"`, 1)
		if err := exchange(bad, `{"migrate":null}`); err == nil {
			t.Errorf("a request with %s_ passes", field)
		}
	}
	for _, bad := range []string{`{"migrated":null}`, `{"migrate":null,"more":1}`, `{"migrate":{"migration_id":7}}`, `null`} {
		if err := exchange(string(good), bad); err == nil {
			t.Errorf("the answer %s passes", bad)
		}
	}
}
