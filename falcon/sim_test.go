package falcon

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

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
)

// simLab is a home of simulated images and a folder of a topology, both of which
// the test must leave empty.
type simLab struct {
	t    *testing.T
	dir  string
	home string
	// stages are what the progress told, as NODE STAGE.
	mu     sync.Mutex
	stages []string
}

func newSimLab(t *testing.T) *simLab {
	t.Helper()
	s := &simLab{t: t, dir: filepath.Join(t.TempDir(), "lab"), home: t.TempDir()}
	t.Setenv("FALCON_HOME", s.home)
	t.Setenv(hostEnv, "")
	t.Setenv(simEnv, "")
	t.Cleanup(func() {
		if err := s.duo("").Destroy(context.Background()); err != nil {
			t.Error(err)
		}
		s.empty()
	})
	return s
}

// duo declares two nodes and a link on the simulated host.
func (s *simLab) duo(script string) *Topology {
	topo := New("duo")
	topo.Dir, topo.Host, topo.Sim, topo.Persistent = s.dir, HostSim, script, true
	topo.Progress = func(p Progress) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stages = append(s.stages, p.Node+" "+string(p.Stage))
	}
	topo.Link(topo.Node("violin", "micro", 1, MiB(64)), topo.Node("piano", "micro", 1, MiB(64)))
	return topo
}

func (s *simLab) launched(script string) *Topology {
	s.t.Helper()
	topo := s.duo(script)
	if err := topo.Launch(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return topo
}

// empty fails when anything of the topology is left.
func (s *simLab) empty() {
	s.t.Helper()
	if _, err := os.Stat(s.dir); !errors.Is(err, os.ErrNotExist) {
		entries, _ := os.ReadDir(s.dir)
		s.t.Errorf("the state folder is still there, with %v", entries)
	}
	for _, what := range []string{"labs/*", "topo/*"} {
		if left, _ := filepath.Glob(filepath.Join(s.home, "sim", what)); len(left) > 0 {
			s.t.Errorf("left in the home: %q", left)
		}
	}
}

// says returns an error's text; "" for none.
func says(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (s *simLab) exec(topo *Topology, node, command string) ExecResult {
	s.t.Helper()
	r, err := topo.Lookup(node).Exec(s.t.Context(), command)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func (s *simLab) states(topo *Topology) map[string]NodeState {
	s.t.Helper()
	status, err := topo.Status(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	states := make(map[string]NodeState)
	for _, n := range status.Nodes {
		states[n.Name] = n.State
	}
	return states
}

func TestSimLaunchThatFailsIsUndone(t *testing.T) {
	for script, want := range map[string]string{
		"disk:piano=fail":   `launching duo: node piano: making the disk of node "piano" of topology "duo" (FOLDER): no space left on the simulated device (the script says so)`,
		"link:piano/0=fail": "launching duo: node piano: making the link at interface 0: the script says so",
		"start:piano=fail":  "launching duo: node piano: starting its server: the script says so",
		"boot:piano=fail":   "last state Failed: start the guest: the simulated machine failed (the script says so); its last words: ",
		// Its end shows at its console and in its state, whichever comes first.
		"die:piano@set-up":     "launching duo: node piano: ",
		"login:piano=fail":     `launching duo: node piano: console of node piano: cannot log in: user "root" was refused 3 times; last seen on the console:`,
		"image:micro=nonsense": `launching duo: the script of the simulated host (FALCON_SIM): rule "image:micro=nonsense": effect "nonsense": step image can have missing`,
	} {
		t.Run(script, func(t *testing.T) {
			s := newSimLab(t)
			err := s.duo(script).Launch(t.Context())
			if want = strings.ReplaceAll(want, "FOLDER", s.dir); !strings.Contains(says(err), want) {
				t.Errorf("error %v\n want %s", err, want)
			}
			s.empty()
		})
	}
}

func TestSimNodeThatNeverLogsInIsNamedWithItsConsole(t *testing.T) {
	s := newSimLab(t)
	err := s.duo("login:piano=never").Launch(t.Context(), LoginTimeout(300*time.Millisecond))
	for _, want := range []string{
		"launching duo: node piano: console of node piano: timed out after 3", // 300 ms and some
		"waiting for a login or shell prompt; last seen on the console:", "Linux version 6.1.0-sim (micro, simulated)",
	} {
		if !strings.Contains(says(err), want) {
			t.Errorf("error %v\n want %s", err, want)
		}
	}
	var ne *NodeError
	if !errors.As(err, &ne) || ne.Node != "piano" || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error is %#v", err)
	}
	s.empty()
}

func TestSimBusyLinkIsTriedAgain(t *testing.T) {
	s := newSimLab(t)
	topo := s.launched("link:violin/0=busy*2")
	if got := s.states(topo); got["violin"] != NodeRunning || got["piano"] != NodeRunning {
		t.Errorf("states %v", got)
	}
}

func TestSimCancelInEveryStageLeavesNothing(t *testing.T) {
	for _, at := range []string{
		"disk:piano=1m", "link:piano/0=1m", "start:piano=1m", "boot:piano=never", "login:piano=never", "link:*=busy",
	} {
		t.Run(at, func(t *testing.T) {
			s := newSimLab(t)
			stop := errors.New("stopped by hand")
			ctx, cancel := context.WithCancelCause(t.Context())
			timer := time.AfterFunc(150*time.Millisecond, func() { cancel(stop) })
			defer timer.Stop()
			if err := s.duo(at).Launch(ctx); !errors.Is(err, stop) {
				t.Errorf("error %v, want %v", err, stop)
			}
			s.empty()
		})
	}
}

func TestSimLaunchIsRepeated(t *testing.T) {
	s := newSimLab(t)
	if err := s.duo("start:piano=fail").Launch(t.Context(), Keep()); err == nil {
		t.Fatal("a node whose server fails was launched")
	}
	s.stages = nil
	topo := s.launched("")
	if got := s.states(topo); got["violin"] != NodeRunning || got["piano"] != NodeRunning {
		t.Errorf("states %v", got)
	}
	s.exec(topo, "violin", "echo still here > /run/mark")
	s.stages = nil
	s.launched("")
	slices.Sort(s.stages)
	if !slices.Equal(s.stages, []string{"piano running", "violin running"}) {
		t.Errorf("the second launch did %q", s.stages)
	}
	if r := s.exec(topo, "violin", "cat /run/mark"); string(r.Output) != "still here\n" {
		t.Errorf("violin says %q", r.Output)
	}
}

// What repeats a launch is found in the record, not in what the caller says.
func TestSimTopologyStaysWhereItIs(t *testing.T) {
	s := newSimLab(t)
	s.launched("")
	topo := s.duo("")
	topo.Host = HostNative
	if err := topo.Launch(t.Context()); !strings.Contains(says(err), "is launched on host sim, not on "+HostNative) {
		t.Errorf("error %v", err)
	}
	topo.Host = ""
	if got := s.states(topo); got["violin"] != NodeRunning {
		t.Errorf("states %v", got)
	}
}

func TestSimNodeIsStoppedAndStarted(t *testing.T) {
	s := newSimLab(t)
	topo := s.launched("")
	violin := topo.Lookup("violin")
	s.exec(topo, "violin", "echo kept > /root/a; ip link set eth0 up; ip address add 10.0.0.1/24 dev eth0")
	s.exec(topo, "piano", "ip link set eth0 up; ip address add 10.0.0.2/24 dev eth0")
	if r := s.exec(topo, "piano", "ping -c 1 10.0.0.1"); r.Status != 0 {
		t.Errorf("ping: %s", r.Output)
	}
	for range 2 { // the second time it is stopped already
		if err := violin.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.states(topo); got["violin"] != NodeStopped || got["piano"] != NodeRunning {
		t.Errorf("states %v", got)
	}
	if r := s.exec(topo, "piano", "ping -c 1 -W 0.1 10.0.0.1"); r.Status != 1 {
		t.Errorf("a node that is stopped answers: %s", r.Output)
	}
	if _, err := violin.Exec(t.Context(), "true"); !strings.Contains(says(err), "node violin: it is stopped; start it with: hyperstart violin") {
		t.Errorf("error %v", err)
	}
	for range 2 {
		if err := violin.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if r := s.exec(topo, "violin", "cat /root/a; hostname; ip -br addr show eth0"); string(r.Output) != "kept\nviolin\neth0             DOWN           \n" {
		t.Errorf("violin has %q", r.Output)
	}
	begun := time.Now()
	if err := violin.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("the reboot took %v: its prompt was waited for in vain", took)
	}
	if r := s.exec(topo, "violin", "cat /root/a; hostname"); string(r.Output) != "kept\nviolin\n" {
		t.Errorf("after a reboot violin has %q", r.Output)
	}
}

func TestSimStoppedNodesLeaveTheOthersAlone(t *testing.T) {
	s := newSimLab(t)
	topo := s.launched("")
	for _, n := range []string{"violin", "piano"} {
		if err := topo.Lookup(n).Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.states(topo); got["violin"] != NodeStopped || got["piano"] != NodeStopped {
		t.Errorf("states %v", got)
	}
	// The process has ended with the last node; another begins with this one.
	if err := topo.Lookup("piano").Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.states(topo); got["violin"] != NodeStopped || got["piano"] != NodeRunning {
		t.Errorf("states %v", got)
	}
}

func TestSimNodesOfAKilledProcessHaveFailed(t *testing.T) {
	s := newSimLab(t)
	topo := s.launched("")
	s.exec(topo, "violin", "echo kept > /root/a; sync; echo lost > /root/b")
	l, err := topo.open()
	if err != nil {
		t.Fatal(err)
	}
	o, err := l.server("piano")
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(o.Process.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := o.Process.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.states(topo); got["violin"] != NodeFailed || got["piano"] != NodeFailed {
		t.Errorf("states %v", got)
	}
	if _, err := topo.Lookup("piano").Exec(t.Context(), "true"); !strings.Contains(says(err), "its propolis-server has gone: killed, or the host was restarted; start it with: hyperstart piano") {
		t.Errorf("error %v", err)
	}
	if err := topo.Lookup("violin").Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.states(topo); got["violin"] != NodeRunning || got["piano"] != NodeFailed {
		t.Errorf("with violin started again: states %v", got)
	}
	if r := s.exec(topo, "violin", "cat /root/a; ls /root"); string(r.Output) != "kept\na\n" {
		t.Errorf("violin has %q", r.Output)
	}
	// Ending what has failed must not touch what runs.
	if err := topo.Lookup("piano").Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.states(topo); got["violin"] != NodeRunning || got["piano"] != NodeStopped {
		t.Errorf("with piano ended: states %v", got)
	}
}

func TestSimSnapshotOfASnapshot(t *testing.T) {
	s := newSimLab(t)
	topo := s.launched("")
	s.exec(topo, "violin", "echo one > /root/a")
	if err := topo.Snapshot(t.Context(), "violin", "first", SnapshotOptions{}); !strings.Contains(says(err), "it runs: hyperstop it first") {
		t.Errorf("error %v", err)
	}
	if err := topo.Snapshot(t.Context(), "violin", "first", SnapshotOptions{Live: true}); err != nil {
		t.Fatal(err)
	}
	s.exec(topo, "violin", "echo two > /root/b")
	if err := topo.Lookup("violin").Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := topo.Snapshot(t.Context(), "violin", "second", SnapshotOptions{}); err != nil {
		t.Fatal(err)
	}
	other := New("other")
	other.Dir, other.Host, other.Persistent = s.dir+"2", HostSim, true
	other.Node("a", "first", 1, MiB(64))
	other.Node("b", "second", 1, MiB(64))
	if err := other.Launch(t.Context()); err != nil {
		t.Fatal(err)
	}
	for node, want := range map[string]string{"a": "a\n", "b": "a\nb\n"} {
		if r := s.exec(other, node, "ls /root"); string(r.Output) != want {
			t.Errorf("%s has %q, want %q", node, r.Output, want)
		}
	}
	store, err := newSimStore()
	if err != nil {
		t.Fatal(err)
	}
	var used *image.InUseError
	if err := store.Remove(t.Context(), "second"); !errors.As(err, &used) {
		t.Errorf("an image with a disk on it: %v", err)
	}
	for range 2 {
		if err := errors.Join(other.Destroy(t.Context()), topo.Destroy(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(store.Remove(t.Context(), "second"), store.Remove(t.Context(), "first")); err != nil {
		t.Error(err)
	}
}

func TestSimLinksStandAlone(t *testing.T) {
	s := newSimLab(t)
	topo := s.duo("")
	if err := topo.NetCreate(t.Context()); err != nil {
		t.Fatal(err)
	}
	present := func() []bool {
		status, err := topo.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var p []bool
		for _, n := range status.Nodes {
			for _, l := range n.Links {
				p = append(p, l.Present != nil && *l.Present)
			}
		}
		return p
	}
	if got := present(); !slices.Equal(got, []bool{true, true}) {
		t.Errorf("devices %v", got)
	}
	s.launched("")
	if err := topo.NetDestroy(t.Context()); !strings.Contains(says(err), "it runs and uses its links") {
		t.Errorf("error %v", err)
	}
	for _, n := range topo.Nodes() {
		if err := n.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := topo.NetDestroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := present(); !slices.Equal(got, []bool{false, false}) {
		t.Errorf("devices %v", got)
	}
}

func TestSimFramesAreCounted(t *testing.T) {
	s := newSimLab(t)
	topo := s.launched("")
	s.exec(topo, "violin", "ip link set eth0 up; ip address add 10.0.0.1/24 dev eth0; ping -c 1 -W 0.05 10.0.0.2")
	status, err := topo.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	violin, piano := status.Nodes[0].Links[0], status.Nodes[1].Links[0]
	if violin.SentFrames != 1 || violin.SentBytes != 42 || piano.ReceivedFrames != 1 || piano.ReceivedBytes != 42 || piano.SentFrames != 0 {
		t.Errorf("an ARP request is counted as %+v at violin, %+v at piano", violin, piano)
	}
}

func TestSimTopologiesAreListed(t *testing.T) {
	s := newSimLab(t)
	s.launched("")
	list, err := List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0].Folder != s.dir || list[0].Running != 2 || list[0].Problem != "" {
		t.Errorf("listed: %+v", list)
	}
	// Its disks are left over once the folder has gone, and are found.
	l, err := s.duo("").open()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range s.duo("").Nodes() {
		if err := n.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(l.folder.Path()); err != nil {
		t.Fatal(err)
	}
	report, err := Doctor(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, left := range report.Leftovers {
		kinds = append(kinds, fmt.Sprint(left.Kind, " ", left.Fixed))
	}
	if !slices.Equal(kinds, []string{"registration true", "disk true", "disk true"}) {
		t.Errorf("doctor has found %q", kinds)
	}
	s.empty()
}

// A ring of many nodes is not more than its parts.
func TestSimRingOfAHundred(t *testing.T) {
	s := newSimLab(t)
	const count = 100
	topo := New("duo") // which the lab's end destroys
	topo.Dir, topo.Host, topo.Persistent = s.dir, HostSim, true
	for i := range count {
		topo.Node(fmt.Sprintf("n%d", i), "micro", 1, MiB(64))
	}
	for i, n := range topo.Nodes() {
		topo.Link(n, topo.Nodes()[(i+1)%count])
	}
	if err := topo.Launch(t.Context()); err != nil {
		t.Fatal(err)
	}
	for n, state := range s.states(topo) {
		if state != NodeRunning {
			t.Errorf("%s is %s", n, state)
		}
	}
	s.exec(topo, "n0", "ip link set eth1 up; ip address add 10.0.0.1/24 dev eth1")
	s.exec(topo, "n99", "ip link set eth1 up; ip address add 10.0.0.2/24 dev eth1")
	if r := s.exec(topo, "n0", "ping -c 1 10.0.0.2"); r.Status != 0 {
		t.Errorf("the ring is not closed: %s", r.Output)
	}
	folder, err := state.Open(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := folder.Standing(); err != nil || len(got) != 2*count+2 {
		t.Errorf("the journal lists %d objects (%v), want a server and a disk for each node, the links and the registration", len(got), err)
	}
}
