package falcon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/falcon-vm/falcon-go/falcon/internal/fetch"
	"github.com/falcon-vm/falcon-go/falcon/internal/illumos"
	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
)

// onModel has a topology run on the model in a folder, as root of it.
func onModel(t *Topology, dir string, change func(*illumosHost)) {
	t.Dir, t.Persistent = filepath.Join(dir, "state"), true
	t.Propolis = filepath.Join(dir, "path", propolisFile)
	t.openHost = func(_ hostChoice, name string, folder *state.Folder, log *slog.Logger) (host, error) {
		images, err := image.OpenFiles(image.Options{Home: filepath.Join(dir, "home"), System: []string{}})
		if err != nil {
			return nil, err
		}
		h, err := newIllumosHost(images, name, folder, log)
		if err != nil {
			return nil, err
		}
		h.root = true
		h.programs.from = programSources{} // no network
		if change != nil {
			change(h)
		}
		return h, nil
	}
}

// modelDuo is the topology of these tests.
func modelDuo(dir string, change func(*illumosHost)) *Topology {
	topo := New("duo")
	violin := topo.Node("violin", "guest", 1, MiB(256))
	piano := topo.Node("piano", "guest", 1, MiB(256))
	topo.Link(violin, piano)
	topo.SoftNPULink(violin, piano).MTU(1600)
	violin.DefaultExtLink()
	piano.ExtLinkExclusive("igb1")
	onModel(topo, dir, change)
	return topo
}

// modelHome makes FALCON_HOME of the model: an image and firmware.
func modelHome(t *testing.T, dir string) {
	t.Helper()
	home := filepath.Join(dir, "home")
	s, err := image.OpenFiles(image.Options{Home: home, System: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	raw := filepath.Join(dir, "guest.raw")
	if err := os.WriteFile(raw, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := image.Import(t.Context(), s, raw, "guest", image.ImportOptions{Boot: image.Boot{Method: image.BootUEFI}}); err != nil {
		t.Fatal(err)
	}
	bin := (&programs{home: home}).dir()
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	const digestOfNothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for name, text := range map[string]string{firmwareFile: "", firmwareFile + ".sha256.txt": digestOfNothing + "\n"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func launched(t *testing.T, topo *Topology) {
	t.Helper()
	t.Cleanup(func() {
		if err := topo.Destroy(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	if err := topo.Launch(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// duoLinks are the links that modelDuo has beside the host's own.
var duoLinks = []string{
	"duo_piano_vn_sim0", "duo_piano_vn_sim1", "duo_piano_vn_vnic0", "duo_piano_vn_vnic1",
	"duo_violin_sn_sim1", "duo_violin_sn_vnic1", "duo_violin_vn_sim0", "duo_violin_vn_vnic0", "duo_violin_vn_vnic2",
}

func TestTheWholeLifeOfATopologyOnIllumos(t *testing.T) {
	dir := newModel(t, nil)
	modelHome(t, dir)
	topo := modelDuo(dir, nil)
	launched(t, topo)

	m := modelState(t)
	if diff := cmp.Diff(append(slices.Clone(duoLinks), hostLinks...), m.names()); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
	plan, err := topo.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]modelLinkState{
		"duo_violin_vn_sim0":  {Class: "simnet", Peer: "duo_piano_vn_sim0", MTU: 9000},
		"duo_piano_vn_sim0":   {Class: "simnet", Peer: "duo_violin_vn_sim0", MTU: 9000},
		"duo_violin_sn_sim1":  {Class: "simnet", Peer: "duo_piano_vn_sim1", MTU: 1600},
		"duo_piano_vn_vnic1":  {Class: "vnic", Over: "duo_piano_vn_sim1", MTU: 1600, MAC: plan.Node("piano").Interfaces[1].MAC, Promiscuous: true},
		"duo_violin_vn_vnic2": {Class: "vnic", Over: "igb0", MTU: 1500, MAC: plan.Node("violin").Interfaces[2].MAC},
	} {
		if m.Links[name] != want {
			t.Errorf("%s is %+v, want %+v", name, m.Links[name], want)
		}
	}
	if m.Users["igb1"] == 0 {
		t.Error("nobody uses igb1, which piano is to have for itself")
	}
	if len(m.VMs) != 2 {
		t.Errorf("the kernel knows %d virtual machines", len(m.VMs))
	}

	status := statusOf(t, topo)
	for _, n := range status.Nodes {
		if n.State != NodeRunning || !strings.HasPrefix(n.Console, "[::1]:") || n.Disk == "" {
			t.Errorf("%+v", n)
		}
		for _, l := range n.Links {
			if l.Present == nil || !*l.Present {
				t.Errorf("%s of %s is not there", l.Device, n.Name)
			}
		}
	}

	violin := topo.Lookup("violin")
	if err := violin.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m = modelState(t); len(m.VMs) != 1 || len(m.Links) != len(duoLinks)+2 {
		t.Errorf("after a stop: %d virtual machines, links %q", len(m.VMs), m.names())
	}
	if err := topo.Snapshot(t.Context(), "violin", "noted", SnapshotOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := violin.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m = modelState(t); len(m.VMs) != 2 {
		t.Errorf("after a start the kernel knows %d virtual machines", len(m.VMs))
	}

	before := len(modelState(t).Log)
	if err := topo.Launch(t.Context()); err != nil {
		t.Fatalf("launching once more: %v", err)
	}
	for _, line := range modelState(t).Log[before:] {
		if strings.Contains(line, "create-") || strings.Contains(line, " run ") {
			t.Errorf("launching once more gave the command %s", line)
		}
	}

	if err := topo.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	empty(t, topo, dir)
}

func statusOf(t *testing.T, topo *Topology) *Status {
	t.Helper()
	s, err := topo.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// empty checks that nothing of a topology is left.
func empty(t *testing.T, topo *Topology, dir string) {
	t.Helper()
	m := modelState(t)
	if diff := cmp.Diff(hostLinks, m.names()); diff != "" {
		t.Errorf("links that are left (-want +got):\n%s", diff)
	}
	if len(m.VMs) > 0 {
		t.Errorf("virtual machines that are left: %v", m.VMs)
	}
	for _, pid := range m.Users {
		if syscall.Kill(pid, 0) == nil {
			t.Errorf("the server with process %d still runs", pid)
		}
	}
	for _, path := range []string{topo.Dir, filepath.Join(dir, "home", "links", "*.json"), filepath.Join(dir, "home", "labs", "*.json"), filepath.Join(dir, "home", "topo", "*", "*")} {
		if left, _ := filepath.Glob(path); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	}
}

func TestALaunchGivesTheCommandsOfItsDryRun(t *testing.T) {
	dir := newModel(t, nil)
	modelHome(t, dir)
	topo := modelDuo(dir, nil)
	steps, err := topo.DryRun(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range modelState(t).Log {
		if changes(line) {
			t.Errorf("the dry run gave the command %s", line)
		}
	}
	if fileExists(topo.Dir) {
		t.Errorf("the dry run made %s", topo.Dir)
	}
	var want []string
	for _, s := range steps {
		if len(s.Command) > 0 {
			want = append(want, strings.TrimPrefix(illumos.Command(s.Command).String(), filepath.Dir(topo.Propolis)+"/"))
		}
	}
	launched(t, topo)
	var got []string
	for _, line := range modelState(t).Log {
		if changes(line) || strings.HasPrefix(line, "propolis-server run") {
			got = append(got, line)
		}
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(got))); diff != "" {
		t.Errorf("commands (-dry run +launch):\n%s", diff)
	}
	// What is about one link, or stands on it, must come in the order that the
	// dry run gives; pairs are made at the same time.
	for _, ends := range [][]string{{"duo_violin_vn_sim0", "duo_piano_vn_sim0"}, {"duo_violin_sn_sim1", "duo_piano_vn_sim1"}} {
		about := func(lines []string) (some []string) {
			for _, l := range lines {
				if strings.HasPrefix(l, "dladm") && (strings.Contains(l, ends[0]) || strings.Contains(l, ends[1])) {
					some = append(some, l)
				}
			}
			return some
		}
		if diff := cmp.Diff(about(want), about(got)); diff != "" {
			t.Errorf("order of commands about %q (-dry run +launch):\n%s", ends, diff)
		}
	}
}

func TestALinkThatIsBusyForAWhileIsWaitedFor(t *testing.T) {
	dir := newModel(t, func(m *model) {
		m.Busy["duo_violin_vn_vnic0"], m.Busy["duo_piano_vn_sim0"] = 2, 2
	})
	modelHome(t, dir)
	topo := modelDuo(dir, nil)
	launched(t, topo)
	changeModel(t, func(m *model) { m.Busy["duo_violin_vn_vnic0"], m.Busy["duo_piano_vn_sim0"] = 2, 2 })
	if err := topo.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	empty(t, topo, dir)
}

func TestALinkThatStaysBusyIsAnErrorWithItsDeadline(t *testing.T) {
	dir := newModel(t, func(m *model) { m.Busy["duo_piano_vn_vnic0"] = -1 })
	modelHome(t, dir)
	topo := modelDuo(dir, func(h *illumosHost) { h.dladm.Busy = 200 * time.Millisecond })
	err := topo.Launch(t.Context())
	var failed *illumos.CommandError
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), "link busy") || !strings.Contains(err.Error(), "for the link to be let go") {
		t.Fatalf("%v", err)
	}
	// The rest of the pair is gone: it never became anybody's.
	empty(t, topo, dir)

	// And one that cannot be removed is kept in mind.
	changeModel(t, func(m *model) { clear(m.Busy) })
	if err := topo.Launch(t.Context()); err != nil {
		t.Fatal(err)
	}
	changeModel(t, func(m *model) { m.Busy["duo_piano_vn_vnic0"] = -1 })
	if err := topo.Destroy(t.Context()); err == nil || !strings.Contains(err.Error(), "delete-vnic -t duo_piano_vn_vnic0") {
		t.Errorf("%v", err)
	}
	changeModel(t, func(m *model) { clear(m.Busy) })
	if err := topo.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
	empty(t, topo, dir)
}

func TestAForeignLinkOfTheNameIsRefusedAndStays(t *testing.T) {
	dir := newModel(t, func(m *model) { m.Links["duo_piano_vn_sim0"] = modelLinkState{Class: "simnet", MTU: 9000} })
	modelHome(t, dir)
	topo := modelDuo(dir, nil)
	err := topo.Launch(t.Context())
	var taken *illumos.NameError
	if !errors.As(err, &taken) || taken.Name != "duo_piano_vn_sim0" || taken.Owner != "" {
		t.Errorf("%v", err)
	}
	m := modelState(t)
	if _, stands := m.Links["duo_piano_vn_sim0"]; !stands || len(m.Links) != 3 {
		t.Errorf("links: %q", m.names())
	}
	if fileExists(topo.Dir) {
		t.Error("the refused launch left a state folder")
	}
}

func TestASecondTopologyOfTheNameIsToldWhoseTheLinksAre(t *testing.T) {
	dir := newModel(t, nil)
	modelHome(t, dir)
	topo := modelDuo(dir, nil)
	launched(t, topo)
	second := modelDuo(dir, nil)
	second.Dir = filepath.Join(dir, "second")
	err := second.Launch(t.Context())
	var taken *illumos.NameError
	if !errors.As(err, &taken) || !strings.Contains(taken.Owner, topo.Dir) {
		t.Errorf("%v", err)
	}
	if m := modelState(t); len(m.Links) != len(duoLinks)+2 || len(m.VMs) != 2 {
		t.Errorf("the first has lost something: %q, %v", m.names(), m.VMs)
	}
}

func TestWhatTheHostItselfUsesIsNotGivenAway(t *testing.T) {
	for name, change := range map[string]struct {
		do   func(*model)
		want string
	}{
		"default route": {func(m *model) { m.DefaultRoute = "igb1" }, "default route"},
		"IP":            {func(m *model) { m.IP = append(m.IP, "igb1") }, "ipadm delete-if igb1"},
		"absent":        {func(m *model) { delete(m.Links, "igb1") }, "no link igb1"},
		"no route":      {func(m *model) { m.DefaultRoute = "" }, "no default route"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := newModel(t, change.do)
			modelHome(t, dir)
			err := modelDuo(dir, nil).Launch(t.Context())
			if err == nil || !strings.Contains(err.Error(), change.want) {
				t.Errorf("%v, want %q in it", err, change.want)
			}
			if m := modelState(t); len(m.VMs) > 0 || slices.ContainsFunc(m.Log, changes) {
				t.Errorf("something was changed: %q", m.Log)
			}
		})
	}
}

func TestWhatAnIllumosHostCannotDoIsRefused(t *testing.T) {
	dir := newModel(t, nil)
	modelHome(t, dir)
	topo := New("limits")
	a := topo.Node("a", "guest", 1, MiB(256)).Mount(dir, "/one").Mount(dir, "/two")
	b := topo.Node("b", "guest", 1, MiB(256))
	b.UserExtLink()
	topo.Link(a, b).MTU(9216)
	onModel(topo, dir, nil)
	err := topo.Launch(t.Context())
	for _, want := range []string{"it has 2 mounts, and propolis-server keeps only the last of several 9p devices", "bhyve has none", "at most 9000"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q in it", err, want)
		}
	}
}

func TestWithoutPrivilegeNothingIsMade(t *testing.T) {
	dir := newModel(t, nil)
	modelHome(t, dir)
	err := modelDuo(dir, func(h *illumosHost) { h.root = false }).Launch(t.Context())
	if err == nil || !strings.Contains(err.Error(), "pfexec "+os.Args[0]) {
		t.Errorf("%v", err)
	}
	if m := modelState(t); len(m.Log) > 0 {
		t.Errorf("commands were given: %q", m.Log)
	}
}

func TestServersThatWillNotDoAreNamedAsSuch(t *testing.T) {
	for behaviour, want := range map[string]string{
		"does not run": "libdlpi.so.1: open failed",
		"too old":      "the propolis-server is too old: it does not speak API version 2.0.0",
		"older":        "probably because it is too old",
		"stripped":     "built without the feature \"falcon\", and so has no SoftNPU",
		"dies":         "its propolis-server ended (exit status 101) before it listened; its last words: thread 'main' panicked",
	} {
		t.Run(behaviour, func(t *testing.T) {
			dir := newModel(t, func(m *model) { m.Propolis = behaviour })
			modelHome(t, dir)
			topo := modelDuo(dir, nil)
			if err := topo.Launch(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v\nwant %q in it", err, want)
			}
			empty(t, topo, dir)
		})
	}
}

// silentServer is a server that runs.
type silentServer chan struct{}

func (s silentServer) Done() <-chan struct{} { return s }
func (s silentServer) Err() error            { return nil }

func TestThePortIsReadFromTheServersLog(t *testing.T) {
	const listening = `{"msg":"listening","v":0,"name":"propolis-server","local_addr":"[::1]:4711"}` + "\n"
	const old = `{"msg":"listening","local_addr":"[::1]:1"}` + "\n"
	for _, tt := range []struct{ log, want, err string }{
		{"no JSON\n{\"msg\":\"starting\"}\n" + listening, "4711", ""},
		{strings.Replace(listening, "[::1]", "127.0.0.1", 1), "4711", ""},
		{strings.Replace(listening, "4711", "0", 1), "", "its log ends with"},
		{strings.TrimSuffix(listening, "\n"), "", "its log ends with"}, // it may have more digits
		{"something that is no JSON\n", "", `has not said within 30ms at which port it listens; its log ends with: "something that is no JSON"`},
	} {
		got, err := awaitPort(t.Context(), strings.NewReader(old+tt.log), int64(len(old)), 30*time.Millisecond, make(silentServer))
		if got != tt.want || (tt.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%q: %q, %v", tt.log, got, err)
		}
	}
}

func TestADeadServerLeavesNoVirtualMachine(t *testing.T) {
	dir := newModel(t, nil)
	modelHome(t, dir)
	topo := modelDuo(dir, nil)
	launched(t, topo)
	m := modelState(t)
	for _, pid := range m.VMs {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(topo.Dir, "violin.pid")); err != nil {
		t.Fatal(err)
	}
	if err := topo.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	empty(t, topo, dir)
}

// launchEnv makes the test binary launch modelDuo in a folder.
const launchEnv = "FALCON_MODEL_LAUNCH"

func launchOnModel(dir string) int {
	if err := modelDuo(dir, nil).Launch(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func TestALaunchThatIsKilledCanBeDestroyedOrGoneOnWith(t *testing.T) {
	points := []int{1, 3, 6, 9, 14}
	if testing.Short() {
		points = []int{3, 14}
	}
	for _, at := range points {
		t.Run(fmt.Sprintf("before command %d", at), func(t *testing.T) {
			dir := newModel(t, func(m *model) { m.KillAt = at })
			modelHome(t, dir)
			cmd := exec.Command(testBinary(t))
			cmd.Env = append(os.Environ(), launchEnv+"="+dir)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the launch was to be killed: %v, %s", err, out)
			}
			topo := modelDuo(dir, nil)
			if at%2 == 0 {
				launched(t, topo)
				m := modelState(t)
				if len(m.Links) != len(duoLinks)+2 || len(m.VMs) != 2 || m.Links["duo_violin_vn_sim0"].Peer == "" || !m.Links["duo_violin_vn_vnic0"].Promiscuous {
					t.Errorf("going on: %+v", m.Links)
				}
			}
			if err := topo.Destroy(t.Context()); err != nil {
				t.Fatal(err)
			}
			empty(t, topo, dir)
		})
	}
}

func TestLinksOfALostFolderAreFoundAndRemoved(t *testing.T) {
	dir := newModel(t, nil)
	modelHome(t, dir)
	topo := modelDuo(dir, nil)
	if err := topo.NetCreate(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := topo.open()
	if err != nil {
		t.Fatal(err)
	}
	if left, err := l.host.abandonedLinks(t.Context(), map[string]bool{l.folder.ID(): true}); err != nil || len(left) > 0 {
		t.Errorf("links of a listed topology: %v, %v", left, err)
	}
	left, err := l.host.abandonedLinks(t.Context(), nil)
	if err != nil || len(left) != 2 {
		t.Fatalf("%+v, %v", left, err)
	}
	for _, o := range left {
		if err := o.remove(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff(hostLinks, modelState(t).names()); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
	if err := topo.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTheServerIsFetchedOnlyWhereThereIsNone(t *testing.T) {
	dir := newModel(t, nil)
	modelHome(t, dir)
	topo := modelDuo(dir, func(h *illumosHost) {
		h.programs.from.propolis = fetch.Published("http://127.0.0.1:1/propolis-server")
	})
	topo.Propolis = ""
	err := topo.Launch(t.Context())
	if err == nil || !strings.Contains(err.Error(), "without a network, put the file from http://127.0.0.1:1/propolis-server there as") ||
		!strings.Contains(err.Error(), "--propolis PATH") {
		t.Errorf("%v", err)
	}
	if m := modelState(t); slices.ContainsFunc(m.Log, changes) {
		t.Errorf("something was changed: %q", m.Log)
	}
}

func TestLinksThatARestartOfTheHostTookAwayAreForgotten(t *testing.T) {
	dir := newModel(t, nil)
	modelHome(t, dir)
	topo := modelDuo(dir, nil)
	if err := topo.NetCreate(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Somebody else has taken a name since.
	changeModel(t, func(m *model) {
		for _, name := range duoLinks {
			delete(m.Links, name)
		}
		m.Links["duo_piano_vn_vnic0"] = modelLinkState{Class: "vnic", Over: "igb0", MTU: 1500}
	})
	later := modelDuo(dir, func(h *illumosHost) { h.claims.Boot = "a later one" })
	if err := later.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	changeModel(t, func(m *model) {
		if _, stands := m.Links["duo_piano_vn_vnic0"]; !stands {
			t.Error("a link of somebody else was removed")
		}
		delete(m.Links, "duo_piano_vn_vnic0")
	})
	empty(t, later, dir)
}

func TestAnIllumosHostThatIsNotThereIsOnlyShown(t *testing.T) {
	topo := New("duo")
	topo.Dir, topo.Host = filepath.Join(t.TempDir(), "state"), HostIllumos
	violin := topo.Node("violin", "any", 2, GiB(1)).DiskSize(GiB(20)).Reserve(GiB(10)).VNC(5901)
	topo.SoftNPULink(violin, topo.Node("piano", "any", 1, GiB(1)))
	violin.ExtLinkExclusive("igb1")
	steps, err := topo.DryRun(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var text, body string
	for _, s := range steps {
		text += s.String() + "\n"
		if s.Node == "violin" && strings.HasSuffix(s.Request, "/instance") {
			body = string(s.Body)
		}
	}
	for _, want := range []string{
		"dladm create-vnic -t -l duo_violin_sn_sim0 -m ",
		"zfs set volsize=21474836480 reservation=10737418240 rpool/falcon/topo/duo/violin\n",
		"OVMF_CODE.fd '[::1]:0' 127.0.0.1:5901\n",
		"0.6.0 softnpu-pci-port", "0.7.0 net0 (igb1)",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	for _, want := range []string{`"vnic_name":"duo_violin_sn_vnic0"`, `"vnic_name":"igb1"`, `"path":"/dev/zvol/rdsk/rpool/falcon/topo/duo/violin"`, `"method":"Spec"`} {
		if !strings.Contains(body, want) {
			t.Errorf("%s is not in the request %s", want, body)
		}
	}
	if strings.Contains(text, "igb1_") || strings.Contains(text, "-l igb1") {
		t.Errorf("a VNIC is made on a link that is used exclusively:\n%s", text)
	}
	if err := topo.Launch(t.Context()); err == nil || !strings.Contains(err.Error(), "launch --dry-run") {
		t.Errorf("it is launched: %v", err)
	}
	violin.Mount("/a", "/a").Mount("/b", "/b")
	if _, err := topo.DryRun(t.Context()); err == nil || !strings.Contains(err.Error(), "it has 2 mounts") {
		t.Errorf("shown with two mounts: %v", err)
	}
}

func TestAnIllumosGuestHasOneMountOnAnyHost(t *testing.T) {
	for os, refused := range map[string]bool{"helios-2.5": true, "debian-12": false} {
		topo := New("duo")
		topo.Node("violin", "guest", 1, GiB(1)).Mount("/a", "/a").Mount("/b", "/b")
		f := factsOf(fakeFabric{})
		f.images["guest"] = image.Image{Name: "guest", OS: os, Boot: image.Boot{Method: image.BootUEFI}}
		reasons := planned(t, topo, f).Node("violin").Unsupported
		if (len(reasons) > 0) != refused {
			t.Errorf("%s: %q", os, reasons)
		}
	}
}
