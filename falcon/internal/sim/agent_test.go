package sim

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/internal/agent"
	"github.com/falcon-vm/falcon-go/internal/mux"
	"github.com/falcon-vm/falcon-go/propolis/server"
)

// agent serves the agent of a guest and returns a client of it.
func (b *bench) agent(g *guest) *agent.Client {
	b.t.Helper()
	path := filepath.Join(b.dir, g.cfg.Name+AgentExt)
	l, err := net.Listen("unix", path)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.t.Cleanup(cancel)
	s := &agentServer{guest: func() *guest { return g }, running: make(map[uint64]context.CancelFunc)}
	go s.serve(ctx, l)
	return agent.New(func(ctx context.Context) (io.ReadWriteCloser, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err != nil {
			return nil, err
		}
		return mux.Client(conn), nil
	})
}

func TestAgentRunsCommandsAsALinuxDoes(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	g := b.guest("violin", builtIn("micro"))
	a := b.agent(g)
	if _, err := a.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "does not run") {
		t.Errorf("the agent of a machine that is off: %v", err)
	}
	b.run(g)
	if info, err := a.Ping(t.Context()); err != nil || info.Version != agent.Version {
		t.Errorf("%+v, %v", info, err)
	}
	for script, want := range map[string]struct {
		x        agent.Exec
		in       io.Reader
		out, err string
		code     int
	}{
		"echo out; echo err >&2; exit 7": {out: "out\n", err: "err\n", code: 7},
		"kill -9 $$":                     {code: 137},
		"pwd; echo $A":                   {x: agent.Exec{Dir: "/tmp", Env: []string{"A=b c"}}, out: "/tmp\nb c\n"},
		"cat; echo end":                  {in: strings.NewReader("input\n"), out: "input\nend\n"},
		"cat":                            {},
	} {
		want.x.Argv = []string{"sh", "-c", script}
		var out, errs bytes.Buffer
		exit, err := a.Exec(t.Context(), agent.Command{Exec: want.x, Input: want.in, Stdout: &out, Stderr: &errs})
		if err != nil || exit.Code() != want.code || out.String() != want.out || errs.String() != want.err {
			t.Errorf("%s: %+v, %v, %q, %q", script, exit, err, out.String(), errs.String())
		}
	}
	sleep := agent.Exec{Argv: []string{"sleep", "60"}, Timeout: 50 * time.Millisecond}
	var timeout *agent.TimeoutError
	if _, err := a.Exec(t.Context(), agent.Command{Exec: sleep}); !errors.As(err, &timeout) {
		t.Errorf("a command that takes too long: %v", err)
	}
	sleep.Timeout = 0
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if exit, err := a.Exec(ctx, agent.Command{Exec: sleep}); !errors.Is(err, context.DeadlineExceeded) || exit.Code() != interrupted {
		t.Errorf("a command that is interrupted: %+v, %v", exit, err)
	}
	if _, err := a.Exec(t.Context(), agent.Command{Exec: agent.Exec{Argv: []string{"ls"}, Dir: "/none"}}); err == nil || !strings.Contains(err.Error(), "no folder /none") {
		t.Errorf("in no folder: %v", err)
	}
}

func TestAgentCopiesBothWays(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	g := b.guest("violin", builtIn("micro"))
	a := b.agent(g)
	b.run(g)
	source, back := filepath.Join(b.dir, "source"), filepath.Join(b.dir, "back")
	must(t, os.MkdirAll(filepath.Join(source, "deep"), 0o755))
	want := bytes.Repeat([]byte("text "), 50_000)
	must(t, os.WriteFile(filepath.Join(source, "deep", "a b"), want, 0o640))
	must(t, a.CopyTo(t.Context(), source, "/root", nil))
	must(t, a.CopyFrom(t.Context(), "source", back, nil)) // relative to root's home
	got, err := os.ReadFile(filepath.Join(back, "deep", "a b"))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if info, err := os.Stat(filepath.Join(back, "deep", "a b")); err != nil || info.Mode() != 0o640 {
		t.Errorf("%v, %v", info, err)
	}
	if err := a.CopyTo(t.Context(), source, "/none/there", nil); err == nil || !strings.Contains(err.Error(), "there is no folder /none") {
		t.Errorf("error %v", err)
	}
	must(t, os.Symlink("x", filepath.Join(source, "link")))
	if err := a.CopyTo(t.Context(), source, "/root", nil); err == nil || !strings.Contains(err.Error(), "/root/source/link: a simulated guest") {
		t.Errorf("error %v", err)
	}
}

func TestAgentPowersOffAsTheScriptHasIt(t *testing.T) {
	t.Parallel()
	b := newBench(t, "stop:violin=never*1")
	g := b.guest("violin", builtIn("micro"))
	a := b.agent(g)
	b.run(g)
	if err := a.Power(t.Context(), agent.PowerOff); err == nil || !strings.Contains(err.Error(), "does not power off") {
		t.Errorf("error %v", err)
	}
	must(t, a.Power(t.Context(), agent.PowerOff))
	if e := <-g.Events(); e.Kind != server.Shutdown || !e.ByGuest {
		t.Errorf("event %+v", e)
	}
}
