package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/falcon-vm/falcon-go/propolis"
)

const (
	// maxBody is the largest body of a request, in bytes, as Propolis has it.
	maxBody = 1 << 20
	// startTimeout bounds the creation of a machine.
	startTimeout = 60 * time.Second
)

// server serves the API. Its fields are set before it serves.
type server struct {
	log    *slog.Logger
	stderr io.Writer // gets a line for each instance that fails
	start  StartFunc
	grace  time.Duration
	screen bool // instances have one
	agent  *agentRelay
	asic   *asicDesk
	// template is the folder of the template that instances are made of, or
	// that one becomes; empty for neither.
	template string

	// ctx ends the instance, conns the websockets, which may outlive it by
	// a moment.
	ctx, conns context.Context
	streams    sync.WaitGroup // websockets being served

	mu       sync.Mutex
	instance *instance // the newest one; nil before the first
}

// route is the handlers of one path by method.
type route map[string]func(*server, http.ResponseWriter, *request) error

func routes() map[string]route {
	return map[string]route{
		"/instance":                                  {"GET": (*server).getInstance, "PUT": (*server).putInstance},
		"/instance/spec":                             {"GET": (*server).getSpec},
		"/instance/state":                            {"PUT": (*server).putState},
		"/instance/state-monitor":                    {"GET": (*server).monitorState},
		"/instance/serial":                           {"GET": (*server).serial},
		"/instance/serial/history":                   {"GET": (*server).serialHistory},
		"/instance/vnc":                              {"GET": (*server).vncStream},
		"/instance/nmi":                              {"POST": (*server).nmi},
		"/instance/migration-status":                 {"GET": (*server).migrationStatus},
		"/instance/migrate/{migration_id}/start":     {"GET": (*server).migrate},
		"/instance/disk/{id}/snapshot/{snapshot_id}": {"POST": (*server).crucible},
		"/instance/disk/{id}/status":                 {"GET": (*server).crucible},
		"/instance/disk/{id}/vcr":                    {"PUT": (*server).crucible},
		"/falcon/disk/{id}/overlay":                  {"PUT": (*server).putOverlay},
		"/falcon/template":                           {"PUT": (*server).putTemplate},
		"/falcon/machine":                            {"GET": (*server).getMachine},
		"/falcon/machine/resume":                     {"PUT": (*server).resumeMachine},
	}
}

// request is a request with what the server knows of it.
type request struct {
	*http.Request
	id      string
	version apiVersion
}

// handler returns the server's HTTP handler.
func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	for path, route := range routes() {
		mux.Handle(path, s.handle(route))
	}
	mux.Handle("/", s.handle(nil))
	return mux
}

func errNotFound() *propolis.Error {
	return &propolis.Error{Status: http.StatusNotFound, Message: http.StatusText(http.StatusNotFound)}
}

// handle serves a route: what each request has in common.
func (s *server) handle(route route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		r := &request{Request: hr, id: uuid.NewString()}
		start := time.Now()
		w.Header().Set("x-request-id", r.id)
		hr.Body = http.MaxBytesReader(w, hr.Body, maxBody)
		log := s.log.With("req_id", r.id, "method", r.Method, "uri", r.RequestURI)
		if err := s.dispatch(route, w, r); err != nil {
			status := writeError(w, r.id, err)
			log.Info("request failed", "response_code", status, "error", err.Error())
			return
		}
		log.Info("request completed", "latency_us", time.Since(start).Microseconds())
	})
}

func (s *server) dispatch(route route, w http.ResponseWriter, r *request) (err error) {
	if r.version, err = requestVersion(r.Request); err != nil {
		return err
	}
	if route == nil {
		return errNotFound()
	}
	h, ok := route[r.Method]
	if !ok {
		status := http.StatusMethodNotAllowed
		return &propolis.Error{Status: status, Message: http.StatusText(status)}
	}
	return h(s, w, r)
}

// body decodes a request's JSON body.
func (r *request) body(v any) error {
	if ct := r.Header.Get("Content-Type"); ct != "" {
		if media, _, err := mime.ParseMediaType(ct); err != nil || media != "application/json" {
			return badRequest("expected content type \"application/json\", got %q", ct)
		}
	}
	data, err := io.ReadAll(r.Body)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return badRequest("request body exceeded maximum size of %d bytes", tooLarge.Limit)
	case err != nil:
		return badRequest("cannot read the request body: %v", err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return badRequest("unable to parse JSON body: %v", err)
	}
	return nil
}

// number returns an unsigned query parameter, nil if it is absent.
func (r *request) number(name string) (*uint64, error) {
	q := r.URL.Query()
	if !q.Has(name) {
		return nil, nil
	}
	n, err := strconv.ParseUint(q.Get(name), 10, 64)
	if err != nil {
		return nil, badRequest("unable to parse query string: %s: %q is no unsigned number", name, q.Get(name))
	}
	return &n, nil
}

// offset returns the position in the console's output that a request asks for.
func (r *request) offset() (o offset, err error) {
	if o.fromStart, err = r.number("from_start"); err != nil {
		return o, err
	}
	o.mostRecent, err = r.number("most_recent")
	return o, err
}

// current returns the newest instance, which may have ended.
func (s *server) current() (*instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.instance == nil {
		return nil, errNotCreated()
	}
	return s.instance, nil
}

// close ends the instance, if there is one, and waits for its end. The ctx of
// the server must have ended.
func (s *server) close() {
	if i, err := s.current(); err == nil {
		<-i.ended
	}
}
