package server

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/coder/websocket"
)

// maxKeystrokes bounds a message from a client, in bytes.
const maxKeystrokes = 1 << 20

// upgrade turns a request into a websocket. Its error, if any, is still to be
// answered unless the response is nil; the answer to a bad handshake is 400 as
// Propolis has it.
func upgrade(w http.ResponseWriter, r *request) (*websocket.Conn, error) {
	key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-WebSocket-Key"))
	switch {
	case !hasToken(r.Header, "Connection", "upgrade"):
		return nil, badRequest("expected connection upgrade")
	case !hasToken(r.Header, "Upgrade", "websocket"):
		return nil, badRequest("unexpected protocol for upgrade")
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		return nil, badRequest("missing or invalid websocket version")
	case err != nil || len(key) != 16:
		return nil, badRequest("missing websocket key")
	case foreignOrigin(r.Request):
		return nil, badRequest("websockets from other origins are refused")
	}
	return websocket.Accept(w, r.Request, &websocket.AcceptOptions{InsecureSkipVerify: true})
}

func hasToken(h http.Header, name, token string) bool {
	tokens := strings.Split(strings.Join(h.Values(name), ","), ",")
	return slices.ContainsFunc(tokens, func(t string) bool {
		return strings.EqualFold(strings.TrimSpace(t), token)
	})
}

// foreignOrigin reports whether a web page of another host makes the request.
// Programs send no origin.
func foreignOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	return origin != "" && origin != "http://"+r.Host && origin != "https://"+r.Host
}

// serial serves the console. As with Propolis the upgrade comes first: a
// client is connected, and dropped if there is no instance.
func (s *server) serial(w http.ResponseWriter, r *request) error {
	o, err := r.offset()
	if err != nil {
		return err
	}
	ws, err := upgrade(w, r)
	if err != nil {
		return err
	}
	s.streams.Add(1)
	defer s.streams.Done()
	defer ws.CloseNow()
	i, err := s.current()
	if err != nil || i.currentPhase() != serving {
		return nil
	}
	ctx, cancel := context.WithCancelCause(s.conns)
	defer cancel(nil)
	if err := streamConsole(ctx, cancel, ws, i.console, o); err != nil {
		s.log.Info("a serial client left", "req_id", r.id, "reason", err.Error())
	}
	return nil
}

// streamConsole serves one client until it leaves, is dropped or the console
// ends. It ends ctx by cancel.
func streamConsole(ctx context.Context, cancel context.CancelCauseFunc, ws *websocket.Conn, c *console, o offset) error {
	cl, err := c.attach(o, cancel)
	if err != nil {
		_ = ws.Close(websocket.StatusPolicyViolation, "the bytes at this offset are no longer held")
		return err
	}
	defer c.detach(cl)
	ws.SetReadLimit(maxKeystrokes)
	keys := make(chan error, 1)
	go func() {
		err := receiveKeys(ctx, ws, c)
		if !errors.Is(err, io.ErrClosedPipe) {
			cancel(err)
		}
		keys <- err
	}()
	if err = sendOutput(ctx, ws, c, cl); err == io.EOF {
		err = ws.Close(websocket.StatusGoingAway, "VM stopped")
	}
	cancel(err)
	<-keys
	return err
}

// sendOutput sends what the guest writes.
func sendOutput(ctx context.Context, ws *websocket.Conn, c *console, cl *consoleClient) error {
	buf := make([]byte, maxMessage)
	for {
		n, err := c.next(ctx, cl, buf)
		if err != nil {
			return err
		}
		if err := ws.Write(ctx, websocket.MessageBinary, buf[:n]); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
	}
}

// receiveKeys passes a client's keystrokes to the guest. Messages that are not
// binary are ignored.
func receiveKeys(ctx context.Context, ws *websocket.Conn, c *console) error {
	for {
		typ, p, err := ws.Read(ctx)
		if err != nil {
			return err
		}
		if typ != websocket.MessageBinary || len(p) == 0 {
			continue
		}
		if err := c.send(ctx, p); err != nil {
			return err
		}
	}
}

// vncStream passes a websocket's bytes to and from the machine's screen.
func (s *server) vncStream(w http.ResponseWriter, r *request) error {
	if !s.screen {
		return badRequest("the server was started without a VNC address")
	}
	ws, err := upgrade(w, r)
	if err != nil {
		return err
	}
	s.streams.Add(1)
	defer s.streams.Done()
	defer ws.CloseNow()
	s.view(s.conns, websocket.NetConn(s.conns, ws, websocket.MessageBinary), false)
	return nil
}
