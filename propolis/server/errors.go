package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/falcon-vm/falcon-go/propolis"
)

func badRequest(format string, args ...any) *propolis.Error {
	return &propolis.Error{Status: http.StatusBadRequest, Message: fmt.Sprintf(format, args...)}
}

func errBadSpec(cause error) *propolis.Error {
	return badRequest("failed to generate internal instance spec: %v", cause)
}

func errNotCreated() *propolis.Error {
	return &propolis.Error{
		Status:  http.StatusFailedDependency,
		Code:    propolis.CodeNoInstance,
		Message: "Server not initialized (no instance)",
	}
}

func errAlreadyInitialized() *propolis.Error {
	return &propolis.Error{
		Status:  http.StatusConflict,
		Code:    propolis.CodeAlreadyInitialized,
		Message: "instance already initialized",
	}
}

func errDenied(reason string) *propolis.Error {
	return &propolis.Error{
		Status:  http.StatusForbidden,
		Code:    "instance state change not allowed: " + reason,
		Message: http.StatusText(http.StatusForbidden),
	}
}

func errInitializing() *propolis.Error {
	return &propolis.Error{
		Status:  http.StatusServiceUnavailable,
		Message: http.StatusText(http.StatusServiceUnavailable),
	}
}

func errGone(gen uint64) *propolis.Error {
	return &propolis.Error{
		Status:  http.StatusGone,
		Code:    propolis.CodeNoInstance,
		Message: fmt.Sprintf("No instance present; will never reach generation %d", gen),
	}
}

func errNoDisk(name string) *propolis.Error {
	return &propolis.Error{
		Status:  http.StatusNotFound,
		Message: fmt.Sprintf("no file_storage_backend component %q", name),
	}
}

// errInternal keeps Propolis' message at the front and adds the cause, which
// Propolis leaves in its log.
func errInternal(cause error) *propolis.Error {
	return &propolis.Error{
		Status:  http.StatusInternalServerError,
		Code:    propolis.CodeInternal,
		Message: "Internal Server Error: " + cause.Error(),
	}
}

// writeError answers with err in the form of the API and returns its status.
func writeError(w http.ResponseWriter, requestID string, err error) int {
	var e *propolis.Error
	if !errors.As(err, &e) {
		e = errInternal(err)
	}
	answer := *e
	answer.RequestID = requestID
	writeJSON(w, answer.Status, answer)
	return answer.Status
}

// writeJSON answers with v. The client may be gone, which is its affair.
func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
