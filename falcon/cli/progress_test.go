package cli

import (
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/falcon-vm/falcon-go/falcon"
)

// steps is a launch in which one node fails, with the image built before.
func steps() []falcon.Progress {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return []falcon.Progress{
		{Stage: falcon.StageImage, Detail: "micro: fetching", Done: 1, Total: 100, Time: at},
		{Stage: falcon.StageImage, Detail: "micro: fetching", Done: 9, Total: 100, Time: at},
		{Stage: falcon.StageImage, Detail: "micro: fetching", Done: 55, Total: 100, Time: at},
		{Node: "violin", Stage: falcon.StageBoot, Detail: "kernel", Time: at},
		{Node: "violin", Stage: falcon.StageBoot, Detail: "kernel", Time: at},
		{Node: "violin", Stage: falcon.StageReady, Time: at},
		{Node: "piano", Stage: falcon.StageFailed, Err: errors.New("no memory"), Time: at},
	}
}

func TestLaunchPrintsALineForEachStepWithoutATerminal(t *testing.T) {
	p := testProgram{lab: fakeLab{steps: steps()}}
	got := p.run(t, "launch")
	elapsed := regexp.MustCompile(`(?m)^ *[0-9.]+s  `)
	want := `ring image: micro: fetching 1% of 1 KiB
ring image: micro: fetching 55% of 1 KiB
violin boot: kernel
violin ready
piano failed: no memory
`
	text, rest, _ := strings.Cut(elapsed.ReplaceAllString(got.stdout, ""), "ring is up after ")
	if diff := cmp.Diff(want, text); diff != "" {
		t.Error(diff)
	}
	for _, next := range []string{"ring serial violin", "ring exec violin COMMAND", "ring destroy", p.dir} {
		if !strings.Contains(rest, next) {
			t.Errorf("what to do next, %q, does not tell of %q", rest, next)
		}
	}
}

func TestLaunchPrintsStepsAsLinesOfJSON(t *testing.T) {
	p := testProgram{lab: fakeLab{steps: steps(), err: errors.New("launching ring: no memory")}}
	got := p.run(t, "launch", "--json")
	lines := strings.Split(strings.TrimSpace(got.stdout), "\n")
	if len(lines) != len(steps())+1 {
		t.Fatalf("%d lines, want one for each of the %d steps and the outcome:\n%s", len(lines), len(steps()), got.stdout)
	}
	for i, want := range map[int]string{
		2: `{"topology":"ring","stage":"image","detail":"micro: fetching","done":55,"total":100,"time":"2026-01-02T03:04:05Z"}`,
		3: `{"topology":"ring","node":"violin","stage":"boot","detail":"kernel","time":"2026-01-02T03:04:05Z"}`,
		6: `{"topology":"ring","node":"piano","stage":"failed","time":"2026-01-02T03:04:05Z","error":"no memory"}`,
	} {
		if lines[i] != want {
			t.Errorf("line %d is\n%s, want\n%s", i, lines[i], want)
		}
	}
	var last struct {
		Topology, Stage, Error string
		Final                  bool
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
		t.Fatal(err)
	}
	if last.Topology != "ring" || last.Stage != "failed" || !last.Final || last.Error != "launching ring: no memory" {
		t.Errorf("the outcome is %+v", last)
	}
	if got.status != 1 || got.stderr != "ring: launching ring: no memory\n" {
		t.Errorf("status %d, %q", got.status, got.stderr)
	}
}

func TestALaunchThatKeepsWhatItMadeSaysSo(t *testing.T) {
	p := testProgram{lab: fakeLab{err: errors.New("no memory")}}
	got := p.run(t, "launch", "--keep")
	if want := "ring: no memory\nwhat was made is kept: launch again to go on, or remove it (ring destroy)\n"; got.status != 1 || got.stderr != want {
		t.Errorf("status %d, %q, want 1, %q", got.status, got.stderr, want)
	}
}

func TestLaunchPassesItsOptionsOn(t *testing.T) {
	for args, want := range map[string]launchOptions{
		"launch":                 {loginTimeout: falcon.DefaultLoginTimeout},
		"launch --keep":          {keep: true, loginTimeout: falcon.DefaultLoginTimeout},
		"launch --timeout 7s -v": {loginTimeout: 7 * time.Second},
	} {
		var p testProgram
		if got := p.run(t, strings.Fields(args)...); got.status != 0 || p.lab.launched != want {
			t.Errorf("%s: status %d, %+v, want %+v", args, got.status, p.lab.launched, want)
		}
		if !p.lab.topology.Persistent || p.lab.topology.Dir != p.dir {
			t.Errorf("%s: the topology is %+v", args, p.lab.topology)
		}
	}
}
