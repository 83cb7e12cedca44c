package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

func TestWhatALabWasLaunchedWithIsRemembered(t *testing.T) {
	for _, tt := range []struct {
		name, remembered, args string
		nodes                  int
		image                  string
	}{
		{"nothing launched", "", "info", 2, "micro"},
		{"flags are taken over", `"--image=debian-12", "--nodes=4"`, "info", 4, "debian-12"},
		{"also by a bare launch", `"--image=debian-12", "--nodes=4"`, "launch", 4, "debian-12"},
		{"and by destroy", `"--image=debian-12", "--nodes=4"`, "destroy", 4, "debian-12"},
		{"saying the same is no contradiction", `"--image=micro", "--nodes=3"`, "-n 3 info", 3, "micro"},
		{"launch may add, and keeps the rest", `"--image=debian-12", "--nodes=3"`, "-n 4 launch", 4, "debian-12"},
		{"flags of an older program are passed over", `"--colour=red", "--nodes=3"`, "info", 3, "micro"},
		{"flags that are new have their default", `"--nodes=3"`, "info", 3, "micro"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := testProgram{}
			p.lab.status = status()
			if tt.remembered != "" {
				p.launchedWith(t, tt.remembered)
			}
			if got := p.run(t, strings.Fields(tt.args)...); got.status != 0 {
				t.Fatalf("status %d: %s", got.status, got.stderr)
			}
			if p.nodes != tt.nodes || p.image != tt.image {
				t.Errorf("declared with %d nodes of %s, want %d of %s", p.nodes, p.image, tt.nodes, tt.image)
			}
			// All of them, so that a change of a default changes nothing.
			want := words(p.app(t).flags)
			if diff := cmp.Diff(len(want), len(p.lab.topology.Flags)); diff != "" {
				t.Errorf("remembers %q", p.lab.topology.Flags)
			}
		})
	}
}

func TestFlagsThatContradictTheLaunchedLabAreRefused(t *testing.T) {
	p := testProgram{}
	p.launchedWith(t, `"--image=micro", "--nodes=3"`)
	for args, status := range map[string]int{"-n 4 info": 2, "--image debian-12 -n 4 destroy": 2, "exec -n 4 violin ls": 125} {
		got := p.run(t, strings.Fields(args)...)
		if got.status != status || len(p.lab.calls) > 0 {
			t.Errorf("%s: status %d, calls %v, want %d and none", args, got.status, p.lab.calls, status)
		}
		for _, want := range []string{"--image=micro --nodes=3", "leave out", "--nodes", "ring destroy", "-f", p.dir} {
			if !strings.Contains(got.stderr, want) {
				t.Errorf("%s: %q does not have %q", args, got.stderr, want)
			}
		}
	}
}

func TestADamagedRecordIsAnError(t *testing.T) {
	p := testProgram{}
	p.launchedWith(t, "")
	if err := os.WriteFile(filepath.Join(p.dir, "topology.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := p.run(t, "info")
	if got.status != 1 || !strings.Contains(got.stderr, p.dir) {
		t.Errorf("status %d, %q", got.status, got.stderr)
	}
}

func TestFlagsOfAllKindsSurviveBeingRemembered(t *testing.T) {
	declare := func() *pflag.FlagSet {
		f := pflag.NewFlagSet("", pflag.ContinueOnError)
		f.String("text", "default", "")
		f.Bool("switch", true, "")
		f.Duration("wait", 0, "")
		f.StringSlice("list", []string{"a"}, "")
		f.StringArray("array", nil, "")
		f.IntSlice("numbers", nil, "")
		f.StringToString("map", nil, "")
		f.Count("count", "")
		return f
	}
	before := declare()
	args := []string{"--text=two words = x", "--switch=false", "--wait=90s", "--list=b,c", "--list", `"d,e"`,
		"--array=one,1", "--array=", "--numbers=1,2", "--map=k=v,l=w", "--count", "--count"}
	if err := before.Parse(args); err != nil {
		t.Fatal(err)
	}
	after := declare()
	differing, err := restore(after, words(before))
	if err != nil || differing != nil {
		t.Fatal(err, differing)
	}
	before.VisitAll(func(f *pflag.Flag) {
		if f.Name == "map" {
			return // in no order
		}
		if got := after.Lookup(f.Name).Value.String(); got != f.Value.String() {
			t.Errorf("--%s is %s, was %s", f.Name, got, f.Value)
		}
	})
	if got, _ := after.GetStringToString("map"); !cmp.Equal(got, map[string]string{"k": "v", "l": "w"}) {
		t.Errorf("--map is %v", got)
	}
}
