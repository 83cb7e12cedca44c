package sim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/process"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
	"github.com/falcon-vm/falcon-go/propolis"
)

const testWorld = "test-world"

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == testWorld {
		err := process.WaitGate()
		if err == nil {
			err = Run(context.Background(), os.NewFile(ReadyFD, "ready"))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if filepath.Base(os.Args[0]) == "sleeper" {
		time.Sleep(time.Minute)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// newClient returns a client of a folder whose world ends with the test.
func newClient(t *testing.T) *Client {
	t.Helper()
	f, err := state.Open(filepath.Join(t.TempDir(), "lab"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Create(); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &Client{Folder: f, Program: self, Name: testWorld}
	t.Cleanup(func() {
		if conn, err := dial(context.Background(), f); err == nil {
			conn.Close()
			if err := conn.world.Kill(context.Background()); err != nil {
				t.Error(err)
			}
		}
	})
	return c
}

func another(c *Client) *Client {
	return &Client{Folder: c.Folder, Program: c.Program, Name: c.Name}
}

// serve serves a node and returns the world's identity as it was recorded.
func serve(t *testing.T, c *Client, node string) (process.Identity, <-chan struct{}) {
	t.Helper()
	var id process.Identity
	img := builtIn("micro")
	done, err := c.Serve(t.Context(), NodeConfig{
		Name: node, Disk: c.Folder.File(node + ".disk"), Console: img.Console, OS: img.OS, StopGraceMS: 1000,
	}, func(p process.Identity) error { id = p; return nil })
	if err != nil {
		t.Fatal(err)
	}
	return id, done
}

// start makes and runs the instance of a node, and leaves it running.
func start(t *testing.T, c *Client, node string) {
	t.Helper()
	client, err := propolis.NewClient("unix:" + c.Folder.File(node+SocketExt))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	err = client.Ensure(t.Context(), propolis.InstanceEnsureRequest{
		Properties: propolis.InstanceProperties{ID: "00000000-0000-4000-8000-000000000001", Name: node, Metadata: propolis.InstanceMetadata{
			SiloID: propolis.NilUUID, ProjectID: propolis.NilUUID, SledID: propolis.NilUUID}},
		Spec: propolis.InstanceSpec{Board: propolis.Board{CPUs: 1, MemoryMiB: 64, Chipset: propolis.Chipset{Type: "i440_fx"}}, Components: propolis.Components{}},
	})
	if err == nil {
		err = client.SetState(t.Context(), propolis.RequestRun)
	}
	if err == nil {
		err = client.WaitState(t.Context(), propolis.StateRunning)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// left lists the folder but for sockets and logs.
func left(t *testing.T, c *Client) []string {
	t.Helper()
	entries, err := os.ReadDir(c.Folder.Path())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), LogExt) && !strings.HasSuffix(e.Name(), SocketExt) {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestOneWorldServesAllNodesAndEndsWithTheLast(t *testing.T) {
	c := newClient(t)
	var ids []process.Identity
	for _, n := range []string{"violin", "piano", "drum"} {
		id, _ := serve(t, another(c), n)
		ids = append(ids, id)
		start(t, c, n)
	}
	if ids[0] != ids[1] || ids[0] != ids[2] {
		t.Fatalf("the nodes are in the processes %v", ids)
	}
	for i, n := range []string{"piano", "violin", "violin", "nobody", "drum"} {
		if !ids[0].Alive() {
			t.Fatalf("the world has ended before %s, number %d, was removed", n, i)
		}
		if err := another(c).Remove(t.Context(), n, ids[0]); err != nil {
			t.Fatal(err)
		}
	}
	if ids[0].Alive() {
		t.Error("the world lives on without nodes")
	}
	if files := left(t, c); len(files) > 0 {
		t.Errorf("it has left %q", files)
	}
	if err := another(c).Remove(t.Context(), "drum", ids[0]); err != nil {
		t.Errorf("removing from no world: %v", err)
	}
}

func TestWorldThatWasKilledIsReplaced(t *testing.T) {
	c := newClient(t)
	id, done := serve(t, c, "violin")
	start(t, c, "violin")
	if err := syscall.Kill(id.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody told that the world was killed")
	}
	c = another(c)
	next, _ := serve(t, c, "violin")
	if next == id {
		t.Error("the node is recorded with the dead process")
	}
	start(t, c, "violin")
	if err := another(c).Remove(t.Context(), "violin", next); err != nil {
		t.Fatal(err)
	}
	if files := left(t, c); next.Alive() || len(files) > 0 {
		t.Errorf("alive %v, files %q", next.Alive(), files)
	}
}

func TestWhatADeadWorldHasLeftIsCleared(t *testing.T) {
	c := newClient(t)
	id, _ := serve(t, c, "violin")
	if err := id.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := another(c).Remove(t.Context(), "violin", id); err != nil {
		t.Fatal(err)
	}
	if files := left(t, c); len(files) > 0 {
		t.Errorf("left: %q", files)
	}
}

// Nothing may run that is not recorded: neither a world nor a node.
func TestNodeThatIsNotRecordedIsNotServed(t *testing.T) {
	c := newClient(t)
	refused := errors.New("refused")
	_, err := c.Serve(t.Context(), NodeConfig{Name: "violin"}, func(process.Identity) error { return refused })
	if !errors.Is(err, refused) {
		t.Fatalf("error %v", err)
	}
	if _, err := dial(t.Context(), c.Folder); !errors.Is(err, errNoWorld) {
		t.Errorf("a world runs: %v", err)
	}
	serve(t, c, "piano")
	if _, err := c.Serve(t.Context(), NodeConfig{Name: "violin"}, func(process.Identity) error { return refused }); !errors.Is(err, refused) {
		t.Fatalf("error %v", err)
	}
	if _, err := os.Stat(c.Folder.File("violin" + SocketExt)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the node is served: %v", err)
	}
}

// A program that dies between record and order must not keep a world alive.
func TestReservationEndsWithItsClient(t *testing.T) {
	c := newClient(t)
	id, _ := serve(t, c, "violin")
	dead := another(c)
	conn, err := dead.connect(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ask(t.Context(), order{Op: opReserve, Name: "piano"}); err != nil {
		t.Fatal(err)
	}
	dead.forget(conn)
	if err := another(c).Remove(t.Context(), "violin", id); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := id.Wait(ctx); err != nil {
		t.Error(err)
	}
}

func TestManyStartAndEndAtOnce(t *testing.T) {
	c := newClient(t)
	for range 3 {
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				own := another(c)
				img := builtIn("micro")
				name := fmt.Sprintf("n%d", i)
				var id process.Identity
				_, err := own.Serve(t.Context(), NodeConfig{Name: name, Console: img.Console, OS: img.OS}, func(p process.Identity) error { id = p; return nil })
				if err == nil {
					err = own.Remove(t.Context(), name, id)
				}
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		all.Wait()
		if _, err := dial(t.Context(), c.Folder); !errors.Is(err, errNoWorld) {
			t.Fatalf("the world is still there: %v", err)
		}
	}
}

// A starter that is killed leaves a world behind that nobody can reach yet.
func TestWorldThatIsNotReadyYetIsEnded(t *testing.T) {
	c := newClient(t)
	self, err := os.Executable()
	must(t, err)
	p, err := process.Start(process.Config{Path: self, Name: "sleeper", Dir: c.Folder.Path()}, func(process.Identity) error { return nil })
	must(t, err)
	if err := c.Remove(t.Context(), "violin", p.Identity); err != nil {
		t.Fatal(err)
	}
	if p.Alive() || len(left(t, c)) > 0 {
		t.Errorf("alive %v, left %q", p.Alive(), left(t, c))
	}
}

// A caller that gives up while the world starts can still have it removed.
func TestCallerWhoGivesUpLeavesNoWorld(t *testing.T) {
	c := newClient(t)
	ctx, cancel := context.WithCancel(t.Context())
	var id process.Identity
	_, err := c.Serve(ctx, NodeConfig{Name: "violin"}, func(p process.Identity) error {
		id = p
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if err := c.Remove(t.Context(), "violin", id); err != nil {
		t.Fatal(err)
	}
	if id.Alive() || len(left(t, c)) > 0 {
		t.Errorf("alive %v, left %q", id.Alive(), left(t, c))
	}
}

func TestWorldSaysWhyItCannotStart(t *testing.T) {
	c := newClient(t)

	c.Program = "/bin/false"
	_, err := c.Serve(t.Context(), NodeConfig{Name: "violin"}, func(process.Identity) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "starting") {
		t.Errorf("error %v", err)
	}
	if !slices.Equal(left(t, c), []string{LockFile, WordsFile}) {
		t.Errorf("left: %q", left(t, c))
	}
	if err := another(c).Remove(t.Context(), "violin", process.Identity{}); err != nil || len(left(t, c)) > 0 {
		t.Errorf("after the removal: %v, %q", err, left(t, c))
	}
}
