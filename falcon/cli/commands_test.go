package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/falcon-vm/falcon-go/falcon"
)

func TestExecPrintsTheOutputAndEndsWithTheGuestsStatus(t *testing.T) {
	for _, status := range []int{0, 1, 7, 255} {
		n := &fakeNode{result: falcon.ExecResult{Output: []byte("out\x00\xff"), Status: status}}
		p := testProgram{lab: fakeLab{nodes: map[string]*fakeNode{"violin": n}}}
		got := p.run(t, "exec", "violin", "cat", "file")
		if got != (outcome{status, "out\x00\xff", ""}) {
			t.Errorf("%+v, want status %d", got, status)
		}
	}
}

func TestExecTakesDashesBeforeTheCommand(t *testing.T) {
	p := testProgram{lab: fakeLab{nodes: map[string]*fakeNode{"violin": {}}}}
	got := p.run(t, "exec", "violin", "--", "echo", "--", "x")
	if got.status != 0 || !slices.Equal(p.lab.calls, []string{"exec violin echo -- x"}) {
		t.Errorf("%+v, calls %q", got, p.lab.calls)
	}
}

func TestExecLeavesFlagsBehindTheNodeToTheCommand(t *testing.T) {
	n := &fakeNode{}
	p := testProgram{lab: fakeLab{nodes: map[string]*fakeNode{"violin": n}}}
	got := p.run(t, "-n", "3", "ex", "--timeout", "5s", "violin", "ls", "-n", "--json", "-f", "a  b", "|", "wc")
	if got.status != 0 || !slices.Equal(p.lab.calls, []string{"exec violin ls -n --json -f a  b | wc"}) {
		t.Errorf("%+v, calls %q", got, p.lab.calls)
	}
	if n.options.timeout != 5*time.Second || p.nodes != 3 {
		t.Errorf("timeout %v, %d nodes", n.options.timeout, p.nodes)
	}
}

func TestExecPassesInputAndErrorOutputOn(t *testing.T) {
	n := &fakeNode{}
	p := testProgram{lab: fakeLab{nodes: map[string]*fakeNode{"violin": n}}}
	for _, tt := range []struct {
		args          string
		input, stderr bool
	}{
		{"exec violin ls", false, true},
		{"exec -i violin cat", true, true},
		{"exec --json -i violin cat", true, false}, // all that it says is in the document
	} {
		if got := p.run(t, strings.Fields(tt.args)...); got.status != 0 {
			t.Errorf("%s: %+v", tt.args, got)
		}
		if (n.options.input != nil) != tt.input || (n.options.stderr != nil) != tt.stderr {
			t.Errorf("%s: %+v", tt.args, n.options)
		}
	}
}

func TestCopyGoesBothWays(t *testing.T) {
	for args, call := range map[string]string{
		"a/b violin:/etc/":         "copy a/b to /etc/ of violin",
		"violin:notes there":       "copy to there from notes of violin",
		"./odd:name violin:/tmp/x": "copy ./odd:name to /tmp/x of violin",
		"violin:/a:b .":            "copy to . from /a:b of violin",
	} {
		p := testProgram{}
		got := p.run(t, append([]string{"cp"}, strings.Fields(args)...)...)
		if got.status != 0 || !slices.Equal(p.lab.calls, []string{call}) {
			t.Errorf("%s: %+v, calls %q", args, got, p.lab.calls)
		}
		if !strings.HasPrefix(got.stdout, "copied ") || got.stderr != "" {
			t.Errorf("%s: %+v", args, got)
		}
	}
}

func TestCopyPrintsJSON(t *testing.T) {
	p := testProgram{}
	got := p.run(t, "cp", "--json", "a", "violin:/b")
	var d copyDocument
	if err := json.Unmarshal([]byte(got.stdout), &d); err != nil || d.Seconds < 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if d.Seconds = 0; d != (copyDocument{Node: "violin", Source: "a", Target: "/b", Bytes: 10, Total: 10, Final: true}) {
		t.Errorf("%+v", d)
	}
	p = testProgram{lab: fakeLab{err: errors.New("no space")}}
	if got := p.run(t, "cp", "--json", "a", "violin:/b"); got.status != 1 || got.stdout != "" {
		t.Errorf("a copy that fails: %+v", got)
	}
}

func TestExecPassesEnvironmentAndFolder(t *testing.T) {
	t.Setenv("HERE", "a b")
	n := &fakeNode{}
	p := testProgram{lab: fakeLab{nodes: map[string]*fakeNode{"violin": n}}}
	got := p.run(t, "exec", "-e", "A=1=2", "--env", "HERE", "-e", "NOT_HERE_AT_ALL", "-w", "/var/log", "violin", "ls", "-e", "x")
	o := n.options
	if got.status != 0 || !slices.Equal(o.env, []string{"A=1=2", "HERE=a b"}) || o.dir != "/var/log" || !slices.Equal(p.lab.calls, []string{"exec violin ls -e x"}) {
		t.Errorf("%+v, %q in %q, calls %q", got, o.env, o.dir, p.lab.calls)
	}
	for _, bad := range []string{"=x", "A B=x", "1A=x", ""} {
		if got := p.run(t, "exec", "-e", bad, "violin", "ls"); got.status != 125 || !strings.Contains(got.stderr, "VARIABLE=value") {
			t.Errorf("-e %q: %+v", bad, got)
		}
	}
}

func TestCopyRefusesWhatIsNotOneNodeAndOnePath(t *testing.T) {
	for args, want := range map[string]string{
		"a b":                   "NODE:PATH",
		"violin:/a piano:/b":    "NODE:PATH",
		"a cello:/b":            `no node "cello"`,
		"a violin:":             "a path is missing",
		"violin:/a":             "want",
		"violin:/a b violin:/c": "want",
	} {
		p := testProgram{}
		if got := p.run(t, append([]string{"cp"}, strings.Fields(args)...)...); got.status != 2 || !strings.Contains(got.stderr, want) || len(p.lab.calls) > 0 {
			t.Errorf("%s: %+v, calls %q", args, got, p.lab.calls)
		}
	}
}

func TestExecEndsWith125WhenFalconFails(t *testing.T) {
	p := testProgram{lab: fakeLab{err: errors.New("it is stopped; start it with: hyperstart violin")}}
	for _, args := range []string{"exec violin ls", "exec --json violin ls"} {
		got := p.run(t, strings.Fields(args)...)
		if got != (outcome{125, "", "ring: it is stopped; start it with: hyperstart violin\n"}) {
			t.Errorf("%s: %+v", args, got)
		}
	}
}

func TestExecPrintsJSON(t *testing.T) {
	for _, tt := range []struct{ output, want string }{
		{"hello\n", `"output": "hello\n"`},
		{"", `"output": ""`},
		{"\xff\x00", `"output_base64": "/wA="`},
	} {
		n := &fakeNode{result: falcon.ExecResult{Output: []byte(tt.output), Status: 3, Duration: 1500 * time.Millisecond}}
		p := testProgram{lab: fakeLab{nodes: map[string]*fakeNode{"violin": n}}}
		got := p.run(t, "exec", "--json", "violin", "echo", "hello")
		want := `{
  "node": "violin",
  "command": "echo hello",
  "status": 3,
  "seconds": 1.5,
  ` + tt.want + `
}
`
		if diff := cmp.Diff(want, got.stdout); diff != "" || got.status != 3 {
			t.Error(got.status, diff)
		}
	}
}

func TestDestroySaysWhatItRemoved(t *testing.T) {
	var p testProgram
	p.launchedWith(t, "")
	p.lab.removed = falcon.Removed{Nodes: 1, Disks: 2, Networks: 1, Files: true, Problems: []string{"line 3 is damaged"}}
	if got, want := p.run(t, "destroy"), "ring is gone: 1 node, 2 disks, 1 network\n"; got.status != 0 || got.stdout != want || !strings.Contains(got.stderr, "note: line 3 is damaged\n") {
		t.Errorf("%+v, want %q", got, want)
	}
	p.lab.removed = falcon.Removed{}
	if got, want := p.run(t, "destroy"), "nothing of ring in "+p.dir+"\n"; got.status != 0 || got.stdout != want {
		t.Errorf("the second time: %+v, want %q", got, want)
	}
}

func TestPowerCommandsActOnTheNodesThatAreNamed(t *testing.T) {
	for args, want := range map[string][]string{
		"reboot violin":            {"reboot violin"},
		"hyperstop piano violin":   {"stop piano", "stop violin"},
		"hyperstart violin violin": {"start violin"},
		"hyperstop --all":          {"stop piano", "stop violin"},
		"-n 3 hyperstart --all":    {"start cello", "start piano", "start violin"},
		"hyperstart --json --all":  {"start piano", "start violin"},
	} {
		var p testProgram
		got := p.run(t, strings.Fields(args)...)
		slices.Sort(p.lab.calls) // they are called at once
		if diff := cmp.Diff(want, p.lab.calls); got.status != 0 || diff != "" {
			t.Errorf("%s: %+v %s", args, got, diff)
		}
	}
}

func TestPowerCommandsGoOnPastANodeThatFails(t *testing.T) {
	fresh := func() *testProgram {
		broken := &fakeNode{err: errors.New("node violin: stuck")}
		return &testProgram{lab: fakeLab{nodes: map[string]*fakeNode{"violin": broken}}}
	}
	got := fresh().run(t, "hyperstop", "--all")
	if got.status != 1 || got.stderr != "ring: node violin: stuck\n" || !strings.Contains(got.stdout, "piano stopped") {
		t.Errorf("%+v", got)
	}
	got = fresh().run(t, "hyperstop", "--all", "--json")
	var doc powerDocument
	if err := json.Unmarshal([]byte(got.stdout), &doc); err != nil {
		t.Fatal(err)
	}
	want := powerDocument{[]powerOutcome{
		{Name: "violin", Stage: "failed", Error: "node violin: stuck"}, {Name: "piano", Stage: "stopped"}}}
	if diff := cmp.Diff(want, doc); got.status != 1 || diff != "" {
		t.Error(got.status, diff)
	}
}

func TestCommandsOnTheWholeLabPrintTheirOutcome(t *testing.T) {
	for args, want := range map[string]string{
		"netcreate":                   "the links of ring are up\n",
		"netdestroy":                  "the links of ring are gone\n",
		"netcreate --json":            "{\n  \"topology\": \"ring\",\n  \"links\": \"up\"\n}\n",
		"snapshot violin base":        "the disk of violin is now the image base\n",
		"snapshot violin base --json": "{\n  \"node\": \"violin\",\n  \"image\": \"base\"\n}\n",
		"snapshot --live violin base": "the disk of violin is now the image base\n",
	} {
		var p testProgram
		if got := p.run(t, strings.Fields(args)...); got != (outcome{0, want, ""}) {
			t.Errorf("%s: %+v, want %q", args, got, want)
		}
		if p.lab.live != strings.Contains(args, "--live") {
			t.Errorf("%s: live is %v", args, p.lab.live)
		}
	}
}

// status is that of a running node and one that has failed.
func status() *falcon.Status {
	return &falcon.Status{
		Version: 1, Topology: "ring", Folder: "/lab/.falcon", Launched: true, Flags: []string{"--nodes=2"},
		Fabric: "kernel", Namespace: "falcon-1a2b3c4d",
		Nodes: []falcon.NodeStatus{
			{
				Name: "violin", State: falcon.NodeRunning, Image: "micro", PID: 4711, UptimeSeconds: 61,
				Cores: 1, Memory: falcon.MiB(128), PSS: falcon.MiB(33) + 512<<10, ServerPSS: 2_900_000, Console: "/lab/.falcon/violin.sock",
				Start: &falcon.NodeStart{Stages: []falcon.StageTime{{Stage: falcon.StageStart, Seconds: 0.2}, {Stage: falcon.StageSetup, Seconds: 0.05}}},
				Links: []falcon.LinkStatus{
					{Index: 0, MAC: "02:00:00:00:00:01", Slot: "0.5.0", Device: "f1v0", Peer: "piano", PeerIndex: 0, PeerDevice: "f1v1"},
					{Index: 1, MAC: "02:00:00:00:00:02", Slot: "0.6.0", External: "user"},
				},
			},
			{
				Name: "piano", State: falcon.NodeFailed, Reason: "its machine died", Image: "debian-12",
				Cores: 2, Memory: falcon.GiB(2),
				Start: &falcon.NodeStart{Cold: true, Why: "its image has no guest agent", Stages: []falcon.StageTime{{Stage: falcon.StageBoot, Seconds: 8}}},
				Links: []falcon.LinkStatus{{MAC: "02:00:00:00:00:03", Device: "f1v1", Peer: "violin", PeerDevice: "f1v0"}},
			},
		},
	}
}

func TestInfoShowsDeclarationAndState(t *testing.T) {
	p := testProgram{lab: fakeLab{status: status()}}
	want := `topology ring in /lab/.falcon
links by kernel in network namespace falcon-1a2b3c4d
launched with --nodes=2

NODE    IMAGE      STATE    PID   UPTIME  STARTED      CORES  MEMORY   PSS       SERVER PSS  CONSOLE
violin  micro      running  4711  1m1s    warm, 0.25s  1      128 MiB  33.5 MiB  2.8 MiB     /lab/.falcon/violin.sock
piano   debian-12  failed   -     -       cold, 8.00s  2      2 GiB    -         -           -

piano failed: its machine died

violin is a clone: start 0.20s, set-up 0.05s
piano booted (its image has no guest agent): boot 8.00s

INTERFACE  MAC                SLOT   DEVICE  PEER      PEER DEVICE
violin/0   02:00:00:00:00:01  0.5.0  f1v0    piano/0   f1v1
violin/1   02:00:00:00:00:02  0.6.0  -       user      -
piano/0    02:00:00:00:00:03  -      f1v1    violin/0  f1v0
`
	got := p.run(t, "info")
	if diff := cmp.Diff(want, got.stdout); diff != "" {
		t.Error(diff)
	}
}

func TestInfoOfNodesWithoutLinksHasNoTableOfThem(t *testing.T) {
	s := status()
	s.Nodes = s.Nodes[:1]
	s.Nodes[0].Links, s.Nodes[0].Start = nil, nil
	p := testProgram{lab: fakeLab{status: s}}
	if got := p.run(t, "info"); strings.Contains(got.stdout, "INTERFACE") || !strings.HasSuffix(got.stdout, "violin.sock\n") {
		t.Errorf("got %s", got.stdout)
	}
}

func TestInfoAsJSONHasWhatScriptsReadOfIt(t *testing.T) {
	p := testProgram{lab: fakeLab{status: status()}}
	got := p.run(t, "info", "--json")
	var doc struct {
		Version  int
		Topology string
		Nodes    []struct {
			Name, State, Image string
			PID                int
			Memory, PSS        uint64
			ServerPSS          uint64 `json:"server_pss"`
			Links              []struct{ MAC, Peer, Device string }
		}
	}
	if err := json.Unmarshal([]byte(got.stdout), &doc); err != nil {
		t.Fatal(err)
	}
	n := doc.Nodes[0]
	if doc.Version != 1 || doc.Topology != "ring" || n.Name != "violin" || n.State != "running" || n.PID != 4711 ||
		n.Image != "micro" || n.Memory != 128<<20 || n.PSS != 67<<19 || n.ServerPSS != 2_900_000 || n.Links[0].MAC != "02:00:00:00:00:01" || n.Links[0].Peer != "piano" || n.Links[0].Device != "f1v0" {
		t.Errorf("got %+v of\n%s", doc, got.stdout)
	}
}

func TestPreflightShowsThePlanAndWhatFails(t *testing.T) {
	p := testProgram{lab: fakeLab{err: errors.New("not enough memory"), preflight: &falcon.Preflight{
		Checks: []falcon.Check{{Name: "qemu", Detail: "/usr/bin/qemu"}, {Name: "memory", Err: errors.New("not enough memory")}},
		Plan: &falcon.Plan{
			Nodes: []falcon.NodePlan{{Name: "violin", Image: "micro", Cores: 1, Memory: falcon.MiB(128), DiskSize: falcon.GiB(1)}},
			Links: []falcon.LinkPlan{{A: falcon.Endpoint{Node: "violin"}, B: falcon.Endpoint{Node: "piano", Index: 1}}},
		},
	}}}
	got := p.run(t, "preflight")
	want := `NODE    IMAGE  CORES  MEMORY   DISK   INTERFACES
violin  micro  1      128 MiB  1 GiB  0

LINK  FROM      TO
      violin/0  piano/1

ok     qemu    /usr/bin/qemu
FAILS  memory  not enough memory
`
	if diff := cmp.Diff(want, got.stdout); got.status != 1 || diff != "" {
		t.Error(got.status, diff)
	}
	got = p.run(t, "preflight", "--json")
	var doc struct {
		Checks []struct {
			Name, Error string
			OK          bool
		}
		Plan struct{ Nodes []struct{ Name string } }
	}
	if err := json.Unmarshal([]byte(got.stdout), &doc); err != nil {
		t.Fatal(err)
	}
	if got.status != 1 || !doc.Checks[0].OK || doc.Checks[1].Error != "not enough memory" || doc.Plan.Nodes[0].Name != "violin" {
		t.Errorf("status %d, %+v", got.status, doc)
	}
}

func TestADryRunPrintsTheStepsAndLaunchesNothing(t *testing.T) {
	steps := []falcon.DryStep{
		{Note: "links"}, {Command: []string{"dladm", "create-simnet", "-t", "a b"}},
		{Node: "n0", Command: []string{"server", "run"}, Note: "in the background"},
		{Node: "n0", Request: "PUT x/instance", Body: []byte(`{"a":1}`), Note: "1 vCPU"},
	}
	p := testProgram{lab: fakeLab{dry: steps}}
	got := p.run(t, "launch", "--dry-run")
	want := "# links\ndladm create-simnet -t 'a b'\n# n0: in the background\nserver run\n# n0: PUT x/instance  1 vCPU\n"
	if got != (outcome{0, want, ""}) || !slices.Equal(p.lab.calls, []string{"dry run"}) {
		t.Errorf("%+v, calls %q", got, p.lab.calls)
	}
	p = testProgram{lab: fakeLab{dry: steps}}
	got = p.run(t, "launch", "--dry-run", "--json")
	var doc dryRunDocument
	if err := json.Unmarshal([]byte(got.stdout), &doc); err != nil || doc.Version != dryRunVersion || doc.Topology != "ring" || len(doc.Steps) != 4 {
		t.Fatalf("%v: %s", err, got.stdout)
	}
	var body bytes.Buffer
	if err := json.Compact(&body, doc.Steps[3].Body); err != nil || body.String() != `{"a":1}` {
		t.Errorf("body %s, %v", doc.Steps[3].Body, err)
	}
}

func TestAPropolisOfOnesOwnMustBeAProgram(t *testing.T) {
	dir := t.TempDir()
	file, program := filepath.Join(dir, "file"), filepath.Join(dir, "program")
	for path, mode := range map[string]os.FileMode{file: 0o644, program: 0o755} {
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, command := range []string{"launch", "hyperstart violin"} {
		for path, status := range map[string]int{filepath.Join(dir, "none"): statusUsage, dir: statusUsage, file: statusUsage, program: 0} {
			p := testProgram{lab: fakeLab{nodes: map[string]*fakeNode{"violin": {}}}}
			got := p.run(t, append(strings.Fields(command), "--propolis", path)...)
			if got.status != status || (status != 0) != (len(p.lab.calls) == 0) {
				t.Errorf("%s with %s: %+v, calls %q", command, path, got, p.lab.calls)
			}
			if status == 0 && p.lab.topology.Propolis != program {
				t.Errorf("%s: the topology is given %q", command, p.lab.topology.Propolis)
			}
		}
	}
}

func TestTheTopologyKnowsWhatItsCommandLinesBeginWith(t *testing.T) {
	for args, want := range map[string]string{
		"launch":             "ring",
		"launch -f a/lab":    "ring -f a/lab",
		"-f a/lab launch":    "ring -f a/lab",
		"launch -f=the\tlab": "ring -f 'the\tlab'",
	} {
		var p testProgram
		p.run(t, strings.Split(args, " ")...)
		if got := p.lab.topology.Command; got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
}
