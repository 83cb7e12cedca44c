package process_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/process"
)

// helperEnv makes the test binary a process of the tests: its value says which.
const helperEnv = "FALCON_PROCESS_TEST_HELPER"

// deadline bounds what a test waits for. It only passes when a test fails.
const deadline = 20 * time.Second

func TestMain(m *testing.M) {
	helpers := map[string]func() error{
		"gated":   runGated,
		"starter": runStarter,
		"gate":    process.WaitGate,
	}
	helper := os.Getenv(helperEnv)
	if helper == "" {
		os.Exit(m.Run())
	}
	if err := helpers[helper](); err != nil {
		fmt.Println("error:", err)
		os.Exit(3)
	}
}

// runGated is what falcon starts: it waits for its gate, then does what its
// arguments say.
func runGated() error {
	fmt.Println("at the gate")
	if err := process.WaitGate(); err != nil {
		return err
	}
	fmt.Println("through")
	switch os.Args[1] {
	case "fail":
		return errors.New("as it was told")
	case "tell":
		dir, err := os.Getwd()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(os.NewFile(process.GateFD+1, "file"), "%s in %s with %s\n", os.Args[0], dir, os.Getenv("FALCON_PROCESS_TEST_WORD"))
		return err
	}
	stay()
	return nil
}

// stay blocks until the process is killed, or its test must have failed.
func stay() { time.Sleep(2 * deadline) }

// runStarter starts a gated process and never finishes recording it.
func runStarter() error {
	cfg := config("stay")
	cfg.Stdout = nil
	_, err := process.Start(cfg, func(id process.Identity) error {
		if err := json.NewEncoder(os.Stdout).Encode(id); err != nil {
			return err
		}
		stay()
		return nil
	})
	return err
}

// config is that of a gated process.
func config(args ...string) process.Config {
	// The race detector would have it wait for a second at its end.
	return process.Config{Path: os.Args[0], Args: args, Env: []string{helperEnv + "=gated", "GORACE=atexit_sleep_ms=0"}}
}

// output is a pipe to read what a process says.
type output struct {
	*bufio.Reader
	read, write *os.File
}

func newOutput(t *testing.T) *output {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		w.Close()
	})
	if err := r.SetReadDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	return &output{bufio.NewReader(r), r, w}
}

func (o *output) line(t *testing.T) string {
	t.Helper()
	line, err := o.ReadString('\n')
	if err != nil {
		t.Fatalf("reading what the process says: %v", err)
	}
	return strings.TrimSuffix(line, "\n")
}

func noRecord(process.Identity) error { return nil }

// start starts a gated process that is killed when the test ends.
func start(t *testing.T, cfg process.Config) *process.Process {
	t.Helper()
	p, err := process.Start(cfg, noRecord)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		if err := p.Kill(ctx); err != nil {
			t.Error(err)
		}
	})
	return p
}

func short(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return ctx
}

func waitDone(t *testing.T, p *process.Process) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(deadline):
		t.Fatalf("process %d has not ended in %v", p.PID, deadline)
	}
}

func TestAProcessWaitsUntilItIsRecorded(t *testing.T) {
	out := newOutput(t)
	cfg := config("stay")
	cfg.Stdout = out.write
	var recorded process.Identity
	p, err := process.Start(cfg, func(id process.Identity) error {
		recorded = id
		if got := out.line(t); got != "at the gate" {
			t.Errorf("it said %q first", got)
		}
		// There is no event for what must not happen.
		if err := out.read.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			return err
		}
		if b, err := out.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("it went on before it was recorded: %q, %v", b, err)
		}
		return out.read.SetReadDeadline(time.Now().Add(deadline))
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Kill(short(t)); err != nil {
			t.Error(err)
		}
	}()
	if got := out.line(t); got != "through" {
		t.Errorf("once recorded it said %q", got)
	}
	if recorded != p.Identity || !recorded.Alive() {
		t.Errorf("recorded %+v, want the running process %+v", recorded, p.Identity)
	}
}

func TestAProcessThatIsNotRecordedLeaves(t *testing.T) {
	out := newOutput(t)
	cfg := config("stay")
	cfg.Stdout = out.write
	full := errors.New("the disk is full")
	var id process.Identity
	p, err := process.Start(cfg, func(i process.Identity) error {
		id = i
		return full
	})
	if p != nil || !errors.Is(err, full) || !strings.Contains(err.Error(), cfg.Path) {
		t.Errorf("Start returned %v and %v, want an error of %s that wraps %v", p, err, cfg.Path, full)
	}
	if id.PID == 0 || id.Alive() {
		t.Errorf("process %+v still runs", id)
	}
	out.write.Close()
	said, err := io.ReadAll(out)
	if err != nil || strings.Contains(string(said), "through") {
		t.Errorf("it said %q (%v)", said, err)
	}
	if !strings.Contains(string(said), process.ErrNoGate.Error()) {
		t.Errorf("it said %q, not why it leaves", said)
	}
}

func TestAProcessLeavesWhenItsStarterIsKilledBeforeRecording(t *testing.T) {
	starter := exec.Command(os.Args[0])
	starter.Env = append(os.Environ(), helperEnv+"=starter")
	stdout, err := starter.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := starter.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = starter.Process.Kill()
		_ = starter.Wait()
	}()
	var id process.Identity
	if err := json.NewDecoder(stdout).Decode(&id); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = id.Kill(short(t)) }()
	if !id.Alive() {
		t.Fatalf("process %d has left while its starter was there", id.PID)
	}
	if err := starter.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := id.Wait(short(t)); err != nil {
		t.Errorf("process %d stays after its starter was killed: %v", id.PID, err)
	}
}

func TestWaitGateWithoutAGate(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"=gate", "GORACE=atexit_sleep_ms=0")
	out, err := cmd.Output()
	if err == nil || !strings.Contains(string(out), process.ErrNoGate.Error()) {
		t.Errorf("it said %q (%v), want %v", out, err, process.ErrNoGate)
	}
}

func TestAProcessGetsWhatItsConfigSays(t *testing.T) {
	out := newOutput(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cfg := config("tell")
	cfg.Path, err = filepath.Abs(cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Name, cfg.Dir, cfg.Files = "falcon-test", dir, []*os.File{out.write}
	cfg.Env = append(cfg.Env, "FALCON_PROCESS_TEST_WORD=word")
	p := start(t, cfg)
	if got, want := out.line(t), "falcon-test in "+dir+" with word"; got != want {
		t.Errorf("it said %q, want %q", got, want)
	}
	waitDone(t, p)
	if err := p.Err(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func TestErrSaysHowAProcessEnded(t *testing.T) {
	p := start(t, config("fail"))
	waitDone(t, p)
	var exit *exec.ExitError
	if !errors.As(p.Err(), &exit) || exit.ExitCode() != 3 {
		t.Errorf("it ended with %v, want exit status 3", p.Err())
	}
	running := start(t, config("stay"))
	if err := running.Err(); err != nil {
		t.Errorf("a process that runs ended with %v", err)
	}
}

func TestStartOfWhatIsNotThere(t *testing.T) {
	cfg := process.Config{Path: filepath.Join(t.TempDir(), "nothing")}
	_, err := process.Start(cfg, func(id process.Identity) error {
		t.Errorf("process %+v was recorded", id)
		return nil
	})
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), cfg.Path) {
		t.Errorf("%v, want %v with the path", err, os.ErrNotExist)
	}
}

func TestKillReturnsWhenTheProcessIsGone(t *testing.T) {
	p := start(t, config("stay"))
	if !p.Alive() {
		t.Fatal("it does not run")
	}
	for range 2 { // the second finds nothing
		if err := p.Kill(short(t)); err != nil {
			t.Fatal(err)
		}
		if p.Alive() {
			t.Fatal("it runs after Kill")
		}
	}
	waitDone(t, p)
	if p.Err() == nil {
		t.Error("a killed process ended well")
	}
}

func TestAnotherProcessOfThatNumberIsLeftAlone(t *testing.T) {
	p := start(t, config("stay"))
	others := map[string]process.Identity{
		"started at another time": {PID: p.PID, Start: p.Start + 1, Boot: p.Boot},
		"of another boot":         {PID: p.PID, Start: p.Start, Boot: "another boot"},
		"without a start":         {PID: p.PID},
		"no process":              {},
		"a negative number":       {PID: -p.PID, Start: p.Start, Boot: p.Boot},
	}
	for name, id := range others {
		t.Run(name, func(t *testing.T) {
			if id.Alive() {
				t.Error("it is alive")
			}
			if err := id.Kill(short(t)); err != nil {
				t.Errorf("Kill: %v", err)
			}
			if err := id.Wait(short(t)); err != nil {
				t.Errorf("Wait: %v", err)
			}
			if !p.Alive() {
				t.Fatal("the process that has the number now was killed")
			}
		})
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	p := start(t, config("stay"))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Wait(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait with a cancelled context: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	waited := make(chan error, 1)
	go func() { waited <- p.Wait(ctx) }()
	cancel()
	select {
	case err := <-waited:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Wait: %v, want %v", err, context.Canceled)
		}
	case <-time.After(deadline):
		t.Fatalf("Wait has not returned %v after its context was cancelled", deadline)
	}
	if !p.Alive() {
		t.Error("waiting for it ended it")
	}
}

func TestWaitReturnsAtTheEndOfAProcess(t *testing.T) {
	p := start(t, config("stay"))
	waited := make(chan error, 1)
	go func() { waited <- p.Wait(short(t)) }()
	if err := p.Kill(short(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
}

func TestIdentifyTellsWhenAProcessWasStarted(t *testing.T) {
	// The process table counts in hundredths of a second.
	const tick = 20 * time.Millisecond
	before := time.Now().Add(-tick)
	p := start(t, config("stay"))
	after := time.Now().Add(tick)
	started, err := p.Started()
	if err != nil || started.Before(before) || started.After(after) {
		t.Errorf("started at %v (%v), want between %v and %v", started, err, before, after)
	}
	again, err := process.Identify(p.PID)
	if err != nil || again != p.Identity {
		t.Errorf("it is %+v (%v), and was %+v", again, err, p.Identity)
	}
	if err := p.Kill(short(t)); err != nil {
		t.Fatal(err)
	}
	waitDone(t, p)
	if id, err := process.Identify(p.PID); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("a process that has gone is %+v (%v), want %v", id, err, os.ErrProcessDone)
	}
}
