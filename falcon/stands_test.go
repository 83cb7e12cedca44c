package falcon

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/state"
	"github.com/falcon-vm/falcon-go/propolis"
)

// troubledHost is a host on which the machine of a node has come to something,
// until its server has ended.
type troubledHost struct {
	host
	t *testing.T

	mu      sync.Mutex
	trouble map[string]propolis.MachineStatus
	ended   int
	resets  int
}

// afflict has a topology see the trouble of its nodes.
func afflict(t *testing.T, topo *Topology) *troubledHost {
	h := &troubledHost{t: t, trouble: make(map[string]propolis.MachineStatus)}
	topo.openHost = func(c hostChoice, name string, folder *state.Folder, log *slog.Logger) (_ host, err error) {
		c.open = nil
		h.host, err = newHost(c, name, folder, log)
		return h, err
	}
	return h
}

func (h *troubledHost) becomes(node string, s propolis.MachineStatus) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.Gen = 1
	h.trouble[node] = s
}

func (h *troubledHost) end(ctx context.Context, f *state.Folder, o state.Object, grace time.Duration) error {
	h.mu.Lock()
	delete(h.trouble, o.Name)
	h.ended++
	h.mu.Unlock()
	return h.host.end(ctx, f, o, grace)
}

// client goes by way of a server that knows of the trouble.
func (h *troubledHost) client(f *state.Folder, node string) (*propolis.Client, error) {
	h.mu.Lock()
	status, troubled := h.trouble[node]
	h.mu.Unlock()
	if !troubled {
		return h.host.client(f, node)
	}
	to := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "server"}) },
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return propolis.DialUnix(ctx, h.address(f, node))
		}},
	}
	mux := http.NewServeMux()
	mux.Handle("/", to)
	mux.HandleFunc("GET /falcon/machine", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("gen") > "1" {
			<-r.Context().Done()
		}
		_ = json.NewEncoder(w).Encode(status)
	})
	mux.HandleFunc("PUT /instance/state", func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.resets++
		h.mu.Unlock()
		to.ServeHTTP(w, r)
	})
	path := filepath.Join(h.t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	s := &http.Server{Handler: mux}
	go s.Serve(l)
	h.t.Cleanup(func() { s.Close() })
	return propolis.NewClient("unix:" + path)
}

var (
	aPanic = propolis.MachineStatus{Panic: &propolis.Panic{At: time.Now()}}
	aPause = propolis.MachineStatus{Pause: &propolis.Pause{Since: time.Now(), Reason: propolis.PauseNoSpace, Path: "/img/violin"}}
)

// Nobody is told that a node is up whose kernel has panicked.
func TestANodeThatHasPanickedIsStartedAnew(t *testing.T) {
	s := newSimLab(t)
	topo := s.launched("")
	h := afflict(t, topo)
	violin := topo.Lookup("violin")
	for name, start := range map[string]func() error{
		"launch":     func() error { return topo.Launch(t.Context()) },
		"hyperstart": func() error { return violin.Start(t.Context()) },
	} {
		h.becomes("violin", aPanic)
		if got := s.states(topo)["violin"]; got != NodePanicked {
			t.Fatalf("%s: it is %s", name, got)
		}
		h.ended = 0
		if err := start(); err != nil || h.ended != 1 {
			t.Errorf("%s: %d servers have ended: %v", name, h.ended, err)
		}
		if got := s.states(topo); got["violin"] != NodeRunning || got["piano"] != NodeRunning {
			t.Errorf("%s: the states are %v", name, got)
		}
		over := aPanic
		over.Panic = &propolis.Panic{At: time.Now(), Over: true}
		h.becomes("violin", over)
		h.ended = 0
		if err := start(); err != nil || h.ended != 0 {
			t.Errorf("%s after a panic that is over: %d servers have ended: %v", name, h.ended, err)
		}
	}
}

// What a pause keeps back would be lost with a reset.
func TestANodeThatStandsStillIsNotReset(t *testing.T) {
	s := newSimLab(t)
	topo := s.launched("")
	h := afflict(t, topo)
	h.becomes("violin", aPause)
	begun := time.Now()
	err := topo.Lookup("violin").Reboot(t.Context())
	var paused *PausedError
	if !errors.As(err, &paused) || h.resets != 0 {
		t.Errorf("after %d resets: %v", h.resets, err)
	}
	if d := time.Since(begun); d > pausePatience/2 {
		t.Errorf("it took %v", d)
	}
}

// An unfinished node that does nothing is shown as what keeps it from that.
func TestWhatAnUnfinishedNodeHasComeToIsShown(t *testing.T) {
	s := newSimLab(t)
	topo := s.launched("")
	h := afflict(t, topo)
	l, err := topo.open()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.noteStage("violin", StageSetup); err != nil {
		t.Fatal(err)
	}
	for want, trouble := range map[NodeState]propolis.MachineStatus{NodePaused: aPause, NodePanicked: aPanic, NodeUnfinished: {}} {
		h.becomes("violin", trouble)
		if got := s.states(topo)["violin"]; got != want {
			t.Errorf("it is %s, want %s", got, want)
		}
	}
}
