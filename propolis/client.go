package propolis

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/falcon-vm/falcon-go/internal/printable"
)

// maxAnswer bounds the size of an answer that the client reads, in bytes. The
// largest is a serial history of 2 MiB, at most four characters a byte.
const maxAnswer = 16 << 20

// Client drives one Propolis server. Its methods may be called concurrently.
// It has no timeouts of its own: contexts bound each call.
type Client struct {
	addr    string
	version string
	dial    func(ctx context.Context) (net.Conn, error)
	http    *http.Client
}

// Option changes how a [Client] works.
type Option func(*Client)

// WithAPIVersion makes the client send version v of the API, 2.0.0 or newer,
// with every request.
func WithAPIVersion(v string) Option {
	return func(c *Client) { c.version = v }
}

// NewClient returns a client of the server at addr, which is "host:port" or
// "unix:" and the path of a socket; that path may be longer than a socket
// address holds. It does not connect.
func NewClient(addr string, opts ...Option) (*Client, error) {
	c := &Client{addr: addr}
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		if path == "" {
			return nil, errors.New("propolis: address \"unix:\" lacks the path of a socket")
		}
		c.dial = func(ctx context.Context) (net.Conn, error) { return DialUnix(ctx, path) }
	} else {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return nil, fmt.Errorf("propolis: address %q is neither host:port nor unix:path: %w", addr, err)
		}
		c.dial = func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
	}
	for _, opt := range opts {
		opt(c)
	}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
		// Few servers see more than one request a minute.
		IdleConnTimeout: 30 * time.Second,
	}}
	return c, nil
}

// Close drops the client's idle connections.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// Ensure creates the instance. It returns when the instance exists, stopped;
// [Client.SetState] with [RequestRun] starts it.
func (c *Client) Ensure(ctx context.Context, req InstanceEnsureRequest) error {
	version := requiredVersion(req.Spec)
	return c.do(ctx, call{method: http.MethodPut, path: "/instance", version: version, body: req}, nil)
}

// requiredVersion is the oldest version of the API that can carry spec.
func requiredVersion(spec InstanceSpec) string {
	version := APIVersion
	for _, comp := range spec.Components {
		switch comp := comp.(type) {
		case VirtioSocket:
			version = max(version, "3.0.0")
		case NVMeDisk:
			if comp.HasWriteCache {
				version = max(version, "6.0.0")
			}
		}
	}
	return version
}

// Instance returns the instance and its state.
func (c *Client) Instance(ctx context.Context) (Instance, error) {
	var answer struct {
		Instance Instance `json:"instance"`
	}
	err := c.do(ctx, call{method: http.MethodGet, path: "/instance"}, &answer)
	return answer.Instance, err
}

// ErrNoSpec says that an instance waits for a migration to bring its spec.
var ErrNoSpec = errors.New("propolis: the instance has no spec yet: it waits for a migration's source")

// Spec returns the instance's spec as the server holds it.
func (c *Client) Spec(ctx context.Context) (InstanceSpec, error) {
	var answer struct {
		Spec struct {
			Type  string       `json:"type"`
			Value InstanceSpec `json:"value"`
		} `json:"spec"`
	}
	err := c.do(ctx, call{method: http.MethodGet, path: "/instance/spec"}, &answer)
	if err == nil && answer.Spec.Type != "Present" {
		err = ErrNoSpec
	}
	return answer.Spec.Value, err
}

// SetState asks for a change of state and returns when it is queued;
// [Client.WaitState] waits for it.
func (c *Client) SetState(ctx context.Context, req StateRequest) error {
	return c.do(ctx, call{method: http.MethodPut, path: "/instance/state", body: req}, nil)
}

// Monitor waits until the instance's state is of generation gen or later and
// returns it as it then is. Generations in between may be skipped.
func (c *Client) Monitor(ctx context.Context, gen uint64) (StateRecord, error) {
	body := struct {
		Gen uint64 `json:"gen"`
	}{gen}
	var rec StateRecord
	err := c.do(ctx, call{method: http.MethodGet, path: "/instance/state-monitor", body: body}, &rec)
	return rec, err
}

// WaitError says that an instance did not reach a state.
type WaitError struct {
	// Want is the state that was waited for, Last the newest that was seen.
	Want InstanceState
	Last StateRecord
	// Waited is how long the wait lasted.
	Waited time.Duration
	// Err is why the wait ended; nil means that Last is terminal.
	Err error
}

// Error implements error.
func (e *WaitError) Error() string {
	last := "no state seen"
	if e.Last.State != "" {
		last = "last state " + printable.Line(string(e.Last.State))
	}
	s := fmt.Sprintf("propolis: waited %v for state %s: %s", e.Waited.Round(time.Millisecond), e.Want, last)
	if e.Last.Failure != "" {
		s += ": " + printable.Text(e.Last.Failure)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns why the wait ended.
func (e *WaitError) Unwrap() error { return e.Err }

// WaitState waits until the instance is in state want. It fails with a
// [*WaitError], at once if the instance is in a terminal state that is not
// want. Destroyed satisfies a wait for Stopped, which the server may pass
// through unseen.
func (c *Client) WaitState(ctx context.Context, want InstanceState) error {
	start := time.Now()
	var last StateRecord
	for {
		rec, err := c.Monitor(ctx, last.Gen+1)
		if err == nil {
			last = rec
		}
		switch {
		case err == nil && reached(last.State, want):
			return nil
		case err != nil || last.State.Terminal():
			return &WaitError{Want: want, Last: last, Waited: time.Since(start), Err: err}
		}
	}
}

func reached(state, want InstanceState) bool {
	return state == want || want == StateStopped && state == StateDestroyed
}

// History returns a part of the serial console's past output.
func (c *Client) History(ctx context.Context, req HistoryRequest) (History, error) {
	q := offsetQuery(req.FromStart, req.MostRecent)
	if req.MaxBytes > 0 {
		q.Set("max_bytes", strconv.FormatUint(req.MaxBytes, 10))
	}
	var h History
	err := c.do(ctx, call{method: http.MethodGet, path: "/instance/serial/history", query: q}, &h)
	return h, err
}

func offsetQuery(fromStart, mostRecent *uint64) url.Values {
	q := url.Values{}
	if fromStart != nil {
		q.Set("from_start", strconv.FormatUint(*fromStart, 10))
	}
	if mostRecent != nil {
		q.Set("most_recent", strconv.FormatUint(*mostRecent, 10))
	}
	return q
}

// OverlayWaiting is appended to a disk's path to name the overlay that is to take
// the place of the file there (see [OverlayRequest]).
const OverlayWaiting = ".next"

// SaveTemplate stops the instance of a server that was started to make a
// template, and keeps it as that. Only our own server has this path.
func (c *Client) SaveTemplate(ctx context.Context) error {
	return c.do(ctx, call{method: http.MethodPut, path: "/falcon/template"}, nil)
}

// OverlayRequest is the body of [Client.SwitchOverlay]'s request.
type OverlayRequest struct {
	// Path is where a qcow2 file is to be whose backing file is the disk's
	// present one. It is there, or it waits with [OverlayWaiting] appended to
	// Path, as it must where Path names the disk's present file, and takes its place.
	Path string `json:"path"`
}

// SwitchOverlay makes the running instance write to the empty qcow2 file at
// path from now on (see [OverlayRequest]), whose backing file must be the present
// file of the backend component disk. The guest is paused for the moment it takes. It is an
// extension of this module's own server; others answer 404.
func (c *Client) SwitchOverlay(ctx context.Context, disk, path string) error {
	p := "/falcon/disk/" + url.PathEscape(disk) + "/overlay"
	return c.do(ctx, call{method: http.MethodPut, path: p, body: OverlayRequest{Path: path}}, nil)
}

// call is one request. An empty version stands for the client's.
type call struct {
	method, path string
	query        url.Values
	version      string
	body         any
}

func (c *Client) apiVersion(required string) string {
	switch {
	case c.version != "":
		return c.version
	case required != "":
		return required
	}
	return APIVersion
}

func (c *Client) url(scheme, path string, q url.Values) string {
	// The host is only for the Host header: dial knows where to connect.
	host := c.addr
	if strings.HasPrefix(host, "unix:") {
		host = "localhost"
	}
	u := scheme + "://" + host + path
	if len(q) > 0 {
		u += "?" + q.Encode()
	}
	return u
}

// do makes a call and decodes its answer into out, unless that is nil.
func (c *Client) do(ctx context.Context, call call, out any) error {
	if err := c.roundTrip(ctx, call, out); err != nil {
		return fmt.Errorf("propolis: %s %s: %w", call.method, call.path, err)
	}
	return nil
}

func (c *Client) roundTrip(ctx context.Context, call call, out any) error {
	var body io.Reader
	if call.body != nil {
		b, err := json.Marshal(call.body)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, call.method, c.url("http", call.path, call.query), body)
	if err != nil {
		return err
	}
	req.Header.Set("api-version", c.apiVersion(call.version))
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.transportError(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case err != nil:
		return fmt.Errorf("read the answer of %s: %w", c.addr, err)
	case resp.StatusCode >= 300:
		return decodeError(resp, data)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("decode the answer of %s: %w", c.addr, err)
	}
	return nil
}

// transportError names the server in place of the made-up URL of err.
func (c *Client) transportError(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	return fmt.Errorf("server at %s: %w", c.addr, err)
}

// decodeError makes an [*Error] of a refusal, also of one that is not JSON.
func decodeError(resp *http.Response, body []byte) *Error {
	e := &Error{}
	if err := json.Unmarshal(body, e); err != nil {
		*e = Error{Message: strings.TrimSpace(string(body[:min(len(body), 512)]))}
	}
	e.Status = resp.StatusCode
	if e.RequestID == "" {
		e.RequestID = resp.Header.Get("x-request-id")
	}
	return e
}
