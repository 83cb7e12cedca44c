package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/falcon-vm/falcon-go/internal/mux"
	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/falcon-vm/falcon-go/propolis/internal/qemu"
)

// agentHarness is a harness whose machine has an agent's port, and whose relay
// has clients at a path.
func agentHarness(t *testing.T) (h *harness, guest net.Conn, path string) {
	t.Helper()
	relay := newAgentRelay()
	h = newHarness(t, func(s *server) { s.agent = relay })
	guest, h.machine.agent = net.Pipe()
	path = filepath.Join(shortTempDir(t), "a")
	l, err := listen(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	served.Go(func() { relay.serve(ctx, l) })
	t.Cleanup(func() { cancel(); served.Wait() })
	return h, guest, path
}

// say has the guest answer each stream with a text.
func say(guest io.ReadWriteCloser, text string) *mux.Session {
	return mux.Guest(guest, func(st *mux.Stream) { go func() { _ = st.Finish([]byte(text)) }() })
}

// ask opens a connection to the relay and returns all that comes.
func ask(t *testing.T, path string) (string, error) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := mux.Client(conn)
	_, _ = c.Write([]byte("hello")) // where that fails, the relay has said why
	answer, err := io.ReadAll(c)
	return string(answer), err
}

func TestAgentRelayServesManyClientsOverOnePort(t *testing.T) {
	h, guest, path := agentHarness(t)
	// A client may come before there is a machine.
	early := make(chan string, 1)
	go func() {
		answer, err := ask(t, path)
		early <- fmt.Sprint(answer, err)
	}()
	h.running()
	g := say(guest, "here")
	defer g.Close()
	if got := <-early; got != "here<nil>" {
		t.Errorf("the early client got %s", got)
	}
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if answer, err := ask(t, path); err != nil || answer != "here" {
				t.Errorf("got %q, %v", answer, err)
			}
		})
	}
	all.Wait()
}

func TestAgentRelayTellsClientsThatTheMachineHasEnded(t *testing.T) {
	h, guest, path := agentHarness(t)
	h.running()
	g := mux.Guest(guest, func(*mux.Stream) {}) // never answers
	defer g.Close()
	waiting := make(chan error, 1)
	go func() {
		_, err := ask(t, path)
		waiting <- err
	}()
	h.request(propolis.RequestStop)
	h.wait(propolis.StateDestroyed)
	<-waiting // however it ended, it ended
	if _, err := ask(t, path); err == nil || err.Error() != errNoMachine.Error() {
		t.Errorf("after the end: %v", err)
	}
}

func TestAgentRelayBeginsAnewWhenTheGuestIsReset(t *testing.T) {
	h, guest, path := agentHarness(t)
	h.running()
	opened := make(chan struct{}, 1)
	ended := make(chan struct{}, 1)
	g := mux.Guest(guest, func(st *mux.Stream) {
		st.OnEnd(func() { ended <- struct{}{} })
		opened <- struct{}{}
	})
	defer g.Close()
	waiting := make(chan error, 1)
	go func() {
		_, err := ask(t, path)
		waiting <- err
	}()
	<-opened
	h.machine.events <- qemu.Event{Kind: qemu.Reset, ByGuest: true}
	if err := <-waiting; err != nil && !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the call that the reset ended: %v", err)
	}
	<-ended // the guest hears of it, if it is still there
}
