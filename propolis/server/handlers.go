package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/uuid"

	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/falcon-vm/falcon-go/propolis/internal/qemu"
)

func (s *server) putInstance(w http.ResponseWriter, r *request) error {
	var req propolis.InstanceEnsureRequest
	if err := r.body(&req); err != nil {
		return err
	}
	if err := validate(req); err != nil {
		return errBadSpec(err)
	}
	i, before, err := s.claim(req)
	if err != nil {
		return err
	}
	if err := s.create(i, before, req); err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, map[string]any{"migrate": nil})
	return nil
}

// claim makes a new instance the server's, unless it has one that has not
// ended. It returns the one before, nil if there was none.
func (s *server) claim(req propolis.InstanceEnsureRequest) (i, before *instance, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before = s.instance
	if before != nil && before.currentPhase() != rundown {
		return nil, nil, errAlreadyInitialized()
	}
	s.instance = newInstance(s, req)
	return s.instance, before, nil
}

// create makes the machine of a claimed instance. It goes on when the client
// that asked for it leaves, as it does with any other request. An instance
// whose spec is refused leaves no trace.
func (s *server) create(i, before *instance, req propolis.InstanceEnsureRequest) error {
	i.logState(i.states.current())
	ctx, cancel := context.WithTimeout(s.ctx, startTimeout)
	defer cancel()
	m, err := s.start(ctx, req.Properties, req.Spec)
	var refusal *qemu.Refusal
	switch {
	case errors.As(err, &refusal):
		i.abort(err)
		s.mu.Lock()
		s.instance = before
		s.mu.Unlock()
		return errBadSpec(err)
	case err != nil:
		err = fmt.Errorf("create the machine: %w", err)
		i.abort(err)
		return errInternal(err)
	}
	i.begin(s.ctx, m)
	return nil
}

func (s *server) getInstance(w http.ResponseWriter, _ *request) error {
	i, err := s.current()
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"instance": propolis.Instance{Properties: i.props, State: i.states.current().State},
	})
	return nil
}

func (s *server) getSpec(w http.ResponseWriter, r *request) error {
	i, err := s.current()
	if err != nil {
		return err
	}
	spec, err := specFor(r.version, i.currentSpec())
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"properties": i.props,
		"state":      i.states.current().State,
		"spec":       map[string]any{"type": "Present", "value": spec},
	})
	return nil
}

func (s *server) putState(w http.ResponseWriter, r *request) error {
	var req propolis.StateRequest
	if err := r.body(&req); err != nil {
		return err
	}
	switch req {
	case propolis.RequestRun, propolis.RequestStop, propolis.RequestReboot:
	default:
		return badRequest("unable to parse JSON body: unknown variant `%s`, expected one of `Run`, `Stop`, `Reboot`", req)
	}
	i, err := s.current()
	if err != nil {
		return err
	}
	if err := i.request(req); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) monitorState(w http.ResponseWriter, r *request) error {
	var req struct {
		Gen *uint64 `json:"gen"`
	}
	if err := r.body(&req); err != nil {
		return err
	}
	if req.Gen == nil {
		return badRequest("unable to parse JSON body: missing field `gen`")
	}
	i, err := s.current()
	if err != nil {
		return err
	}
	rec, err := i.states.wait(r.Context(), *req.Gen)
	if err != nil {
		return errGone(*req.Gen)
	}
	writeJSON(w, http.StatusOK, rec)
	return nil
}

func (s *server) serialHistory(w http.ResponseWriter, r *request) error {
	o, err := r.offset()
	if err != nil {
		return err
	}
	limit, err := r.number("max_bytes")
	switch {
	case err != nil:
		return err
	case !o.single():
		return badRequest("Exactly one of 'from_start' or 'most_recent' must be specified.")
	case limit == nil:
		limit = new(uint64)
		*limit = maxMessage
	}
	i, err := s.current()
	if err != nil {
		return err
	}
	data, at, err := i.console.read(o, *limit)
	if err != nil {
		return badRequest("%v", err)
	}
	writeJSON(w, http.StatusOK, propolis.History{Data: data, LastByteOffset: at + uint64(len(data))})
	return nil
}

func (s *server) nmi(w http.ResponseWriter, r *request) error {
	i, err := s.current()
	if err != nil {
		return err
	}
	err = i.command(r.Context(), func(ctx context.Context, m Machine) error { return m.NMI(ctx) })
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, nil)
	return nil
}

func (s *server) migrationStatus(w http.ResponseWriter, _ *request) error {
	if _, err := s.current(); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, propolis.MigrationStatus{})
	return nil
}

// migrate refuses to be the source of a migration.
func (s *server) migrate(http.ResponseWriter, *request) error {
	return &propolis.Error{
		Status:  http.StatusNotImplemented,
		Message: "this server cannot migrate virtual machines",
	}
}

// crucible answers requests about a Crucible volume. There never is one.
func (s *server) crucible(_ http.ResponseWriter, r *request) error {
	if id := r.PathValue("snapshot_id"); id != "" && uuid.Validate(id) != nil {
		return badRequest("bad parameter in URL path: snapshot_id: %q is no UUID", id)
	}
	if _, err := s.current(); err != nil {
		return err
	}
	return &propolis.Error{
		Status:  http.StatusNotFound,
		Message: fmt.Sprintf("no Crucible volume %q: this server serves none", r.PathValue("id")),
	}
}

func (s *server) putOverlay(w http.ResponseWriter, r *request) error {
	var req propolis.OverlayRequest
	if err := r.body(&req); err != nil {
		return err
	}
	if req.Path == "" {
		return badRequest("unable to parse JSON body: missing field `path`")
	}
	i, err := s.current()
	if err != nil {
		return err
	}
	if err := i.switchOverlay(r.Context(), r.PathValue("id"), req.Path); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) putTemplate(w http.ResponseWriter, r *request) error {
	i, err := s.current()
	if err != nil {
		return err
	}
	if err := i.saveTemplate(r.Context(), s.template); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
