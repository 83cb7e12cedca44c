package propolis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// newTestClient returns a client of a server that answers with h.
func newTestClient(t *testing.T, h http.HandlerFunc, opts ...Option) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c, err := NewClient(strings.TrimPrefix(srv.URL, "http://"), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestNewClientRefusesAddressesItCannotDial(t *testing.T) {
	for _, addr := range []string{"", "unix:", "localhost", "/run/sock"} {
		if _, err := NewClient(addr); err == nil {
			t.Errorf("NewClient(%q) succeeded", addr)
		}
	}
}

func TestRequestsAsTheServerSeesThem(t *testing.T) {
	from := uint64(7)
	tests := []struct {
		name string
		do   func(context.Context, *Client) error
		want string // method, URI and body
	}{
		{"state", func(ctx context.Context, c *Client) error { return c.SetState(ctx, RequestRun) }, `PUT /instance/state "Run"`},
		{"monitor", func(ctx context.Context, c *Client) error { _, err := c.Monitor(ctx, 3); return err }, `GET /instance/state-monitor {"gen":3}`},
		{"instance", func(ctx context.Context, c *Client) error { _, err := c.Instance(ctx); return err }, `GET /instance `},
		{"history", func(ctx context.Context, c *Client) error {
			_, err := c.History(ctx, HistoryRequest{FromStart: &from, MaxBytes: 9})
			return err
		}, `GET /instance/serial/history?from_start=7&max_bytes=9 `},
		{"template", func(ctx context.Context, c *Client) error { return c.SaveTemplate(ctx) }, `PUT /falcon/template `},
		{"overlay", func(ctx context.Context, c *Client) error { return c.SwitchOverlay(ctx, "a/b", "o.qcow2") }, `PUT /falcon/disk/a%2Fb/overlay {"path":"o.qcow2"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got, version, media string
			c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				got = fmt.Sprintf("%s %s %s", r.Method, r.RequestURI, body)
				version, media = r.Header.Get("api-version"), r.Header.Get("Content-Type")
				fmt.Fprint(w, `{}`)
			})
			if err := tt.do(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			if got != tt.want || version != APIVersion {
				t.Errorf("got %q with version %q, want %q with %q", got, version, tt.want, APIVersion)
			}
			if hasBody := !strings.HasSuffix(got, " "); hasBody != (media == "application/json") {
				t.Errorf("content type %q with request %q", media, got)
			}
		})
	}
}

func TestEnsureAsksForTheVersionThatItsSpecNeeds(t *testing.T) {
	tests := []struct {
		name       string
		components Components
		opts       []Option
		want       string
	}{
		{"nothing special", Components{"d": NVMeDisk{}}, nil, "2.0.0"},
		{"vsock", Components{"v": VirtioSocket{}}, nil, "3.0.0"},
		{"write cache", Components{"v": VirtioSocket{}, "d": NVMeDisk{HasWriteCache: true}}, nil, "6.0.0"},
		{"as told", Components{"v": VirtioSocket{}}, []Option{WithAPIVersion("5.0.0")}, "5.0.0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got string
			c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
				got = r.Header.Get("api-version")
				w.WriteHeader(http.StatusCreated)
				fmt.Fprint(w, `{"migrate":null}`)
			}, tt.opts...)
			req := InstanceEnsureRequest{Spec: InstanceSpec{Components: tt.components}}
			if err := c.Ensure(t.Context(), req); err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("got api-version %s, want %s", got, tt.want)
			}
		})
	}
}

func TestRefusalsAreTypedErrors(t *testing.T) {
	tests := []struct {
		name, body string
		status     int
		want       Error
	}{
		{"of the API", `{"request_id":"r1","message":"instance already initialized","error_code":"AlreadyInitialized"}`, 409,
			Error{409, CodeAlreadyInitialized, "instance already initialized", "r1"}},
		{"without a code", `{"request_id":"r1","message":"bad"}`, 400, Error{400, "", "bad", "r1"}},
		{"not JSON", "no such page\n", 404, Error{404, "", "no such page", "of-header"}},
		{"empty", "", 500, Error{500, "", "", "of-header"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newTestClient(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("x-request-id", "of-header")
				w.WriteHeader(tt.status)
				fmt.Fprint(w, tt.body)
			})
			_, err := c.Instance(t.Context())
			var e *Error
			if !errors.As(err, &e) || *e != tt.want {
				t.Errorf("got %#v (%v), want %#v", e, err, tt.want)
			}
		})
	}
}

func TestErrorsNameTheServer(t *testing.T) {
	c, err := NewClient("unix:" + filepath.Join(t.TempDir(), "gone.sock"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Instance(t.Context())
	if err == nil || !strings.Contains(err.Error(), "gone.sock") || strings.Contains(err.Error(), "http://") {
		t.Errorf("got %v, want an error with the socket and without a URL", err)
	}
}

func TestUnixSocketsOfAnyLength(t *testing.T) {
	long := strings.Repeat("long", 30)
	for name, dir := range map[string]string{"short": "", "long": long} {
		t.Run(name, func(t *testing.T) {
			if dir != "" && runtime.GOOS != "linux" {
				t.Skip("long paths of sockets need Linux")
			}
			dir := filepath.Join(t.TempDir(), dir)
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			serveUnix(t, filepath.Join(dir, "s.sock"))
			c, err := NewClient("unix:" + filepath.Join(dir, "s.sock"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if rec, err := c.Monitor(t.Context(), 0); err != nil || rec.State != StateRunning {
				t.Errorf("got %v, %v", rec, err)
			}
		})
	}
}

// serveUnix answers each request on a socket with a record of state Running.
func serveUnix(t *testing.T, path string) {
	t.Helper()
	// The socket is bound in a folder with a short name and then moved.
	short := filepath.Join(t.TempDir(), "s")
	if len(short) > 100 {
		dir, err := os.MkdirTemp("", "s")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		short = filepath.Join(dir, "s")
	}
	l, err := net.Listen("unix", short)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(short, path); err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"gen":1,"state":"Running","migration":{"migration_in":null,"migration_out":null}}`)
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
}

// scripted answers state-monitor requests from a list of states, of which the
// first has generation 1, as a server does: with the newest that is due. After
// the last it answers 410.
func scripted(states ...InstanceState) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req struct{ Gen uint64 }
		_ = json.NewDecoder(r.Body).Decode(&req)
		if req.Gen > uint64(len(states)) {
			w.WriteHeader(http.StatusGone)
			fmt.Fprint(w, `{"message":"gone","request_id":"r","error_code":"NoInstance"}`)
			return
		}
		gen := max(req.Gen, 1)
		rec := StateRecord{Gen: gen, State: states[gen-1]}
		if rec.State == StateFailed {
			rec.Failure = "QEMU is out of breath"
		}
		_ = json.NewEncoder(w).Encode(rec)
	}
}

func TestWaitState(t *testing.T) {
	tests := []struct {
		name   string
		states []InstanceState
		want   InstanceState
		err    string // part of the error; empty for success
	}{
		{"there already", []InstanceState{StateRunning}, StateRunning, ""},
		{"on the way", []InstanceState{StateCreating, StateStarting, StateRunning}, StateRunning, ""},
		{"failed on the way", []InstanceState{StateStarting, StateFailed, StateRunning}, StateRunning, "last state Failed: QEMU is out of breath"},
		{"ended on the way", []InstanceState{StateStarting, StateDestroyed}, StateRunning, "last state Destroyed"},
		{"failure wanted", []InstanceState{StateStarting, StateFailed}, StateFailed, ""},
		{"stopped unseen", []InstanceState{StateStopping, StateDestroyed}, StateStopped, ""},
		{"never comes", []InstanceState{StateRunning}, StateStopped, "last state Running"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newTestClient(t, scripted(tt.states...))
			err := c.WaitState(t.Context(), tt.want)
			if tt.err == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var we *WaitError
			if !errors.As(err, &we) || we.Want != tt.want || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %v, want a WaitError with %q", err, tt.err)
			}
		})
	}
}

func TestWaitStateSaysWhatItSawWhenItsTimeIsUp(t *testing.T) {
	c := newTestClient(t, func(w http.ResponseWriter, r *http.Request) {
		var req struct{ Gen uint64 }
		_ = json.NewDecoder(r.Body).Decode(&req)
		if req.Gen > 1 {
			<-r.Context().Done()
			return
		}
		_ = json.NewEncoder(w).Encode(StateRecord{Gen: 1, State: StateStarting})
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := c.WaitState(ctx, StateRunning)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "last state Starting") {
		t.Errorf("got %v, want the deadline and the last state", err)
	}
}

func TestSpecThatWaitsForAMigration(t *testing.T) {
	c := newTestClient(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"spec":{"type":"WaitingForMigrationSource"}}`)
	})
	if _, err := c.Spec(t.Context()); !errors.Is(err, ErrNoSpec) {
		t.Errorf("got %v, want ErrNoSpec", err)
	}
}
