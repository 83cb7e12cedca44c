package host

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/falcon/cli"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
)

var update = flag.Bool("update", false, "write the golden files")

type outcome struct {
	status         int
	stdout, stderr string
}

// run runs the tool with a home of the test's own.
func run(t *testing.T, args ...string) outcome {
	t.Helper()
	root := Command()
	var stdout, stderr bytes.Buffer
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	status := cli.Execute(t.Context(), root, args)
	return outcome{status, stdout.String(), stderr.String()}
}

// newHome makes an empty home and returns its list of labs.
func newHome(t *testing.T) state.Registry {
	t.Helper()
	home := t.TempDir()
	t.Setenv("FALCON_HOME", home)
	return state.Registry{Dir: filepath.Join(home, "labs")}
}

// newLab makes the state folder of a lab of which only the links had been made,
// and those are gone.
func newLab(t *testing.T, labs state.Registry, name string) string {
	t.Helper()
	folder, err := state.Open(filepath.Join(t.TempDir(), ".falcon"))
	if err != nil {
		t.Fatal(err)
	}
	if err := folder.Create(); err != nil {
		t.Fatal(err)
	}
	record := `{"version": 1, "topology": "` + name + `", "plan": {"version": 1, "topology": "` + name + `"}}`
	journal := `{"op":"make","object":{"kind":"registration","name":"` + folder.ID() + `"}}` + "\n"
	for file, text := range map[string]string{"topology.json": record, "journal": journal} {
		if err := folder.WriteFile(file, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := labs.Add(folder, name); err != nil {
		t.Fatal(err)
	}
	return folder.Path()
}

func TestLsListsLabsWithTheirFolders(t *testing.T) {
	labs := newHome(t)
	if got := run(t, "ls", "--json"); got.status != 0 || got.stdout != "{\n  \"version\": 1,\n  \"topologies\": []\n}\n" {
		t.Errorf("of no labs: %+v", got)
	}
	duo := newLab(t, labs, "duo")
	gone := newLab(t, labs, "gone")
	if err := os.RemoveAll(gone); err != nil {
		t.Fatal(err)
	}
	got := run(t, "ls")
	for _, want := range []string{"TOPOLOGY", duo, gone, "gone in " + gone + ": ", "falcon doctor"} {
		if got.status != 0 || !strings.Contains(got.stdout, want) {
			t.Errorf("status %d, no %q in\n%s%s", got.status, want, got.stdout, got.stderr)
		}
	}
	var doc struct {
		Version    int
		Topologies []struct{ Topology, Folder, Problem string }
	}
	if err := json.Unmarshal([]byte(run(t, "ls", "--json").stdout), &doc); err != nil {
		t.Fatal(err)
	}
	problems := make(map[string]bool)
	for _, l := range doc.Topologies {
		problems[l.Topology+" "+l.Folder] = l.Problem != ""
	}
	if diff := cmp.Diff(map[string]bool{"duo " + duo: false, "gone " + gone: true}, problems); doc.Version != 1 || diff != "" {
		t.Error(doc.Version, diff)
	}
}

func TestDestroyNeedsNoProgramAndGoesOnPastErrors(t *testing.T) {
	labs := newHome(t)
	duo, nothing, ring := newLab(t, labs, "duo"), t.TempDir(), newLab(t, labs, "ring")
	got := run(t, "destroy", duo, nothing, ring)
	if got.status != 1 || got.stdout != duo+" is destroyed\n"+ring+" is destroyed\n" || !strings.Contains(got.stderr, nothing) {
		t.Errorf("%+v", got)
	}
	for _, dir := range []string{duo, ring} {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", dir, err)
		}
	}
	if left, err := labs.List(); err != nil || len(left) > 0 {
		t.Errorf("the list still has %v (%v)", left, err)
	}
	if _, err := os.Stat(nothing); err != nil {
		t.Errorf("the folder without a lab: %v", err)
	}
}

func TestDestroyPrintsJSON(t *testing.T) {
	labs := newHome(t)
	duo, nothing := newLab(t, labs, "duo"), t.TempDir()
	got := run(t, "destroy", "--json", duo, nothing)
	var doc destroyDocument
	if err := json.Unmarshal([]byte(got.stdout), &doc); err != nil {
		t.Fatal(err, got)
	}
	if f := doc.Folders; got.status != 1 || len(f) != 2 || !f[0].Destroyed || f[0].Error != "" || f[1].Destroyed || f[1].Error == "" {
		t.Errorf("status %d, %+v", got.status, doc)
	}
}

func TestDoctorFindsLeftovers(t *testing.T) {
	labs := newHome(t)
	gone := newLab(t, labs, "gone")
	if err := os.RemoveAll(gone); err != nil {
		t.Fatal(err)
	}
	got := run(t, "doctor")
	if got.status != 1 || !strings.Contains(got.stdout, "LEFT") || !strings.Contains(got.stdout, gone) || !strings.Contains(got.stderr, "falcon doctor --fix") {
		t.Errorf("%+v", got)
	}
	got = run(t, "doctor", "--json")
	var doc struct {
		Checks    []struct{ Name string }
		Leftovers []struct{ Kind, Name, Reason string }
	}
	if err := json.Unmarshal([]byte(got.stdout), &doc); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, l := range doc.Leftovers {
		found = found || l.Kind == "registration" && l.Name == "gone"
	}
	if !found || len(doc.Checks) == 0 {
		t.Errorf("got %+v", doc)
	}
}

func TestWrongCommandLinesEndWith2(t *testing.T) {
	newHome(t)
	for args, want := range map[string]string{
		"destroy":     "want falcon destroy DIR…",
		"new":         "want falcon new NAME",
		"new a b":     "want falcon new NAME",
		"new 9lives":  `"9lives"`,
		"ls there":    "want falcon ls",
		"doctor --it": "unknown flag: --it",
		"list":        `unknown command "list" (did you mean ls?)`,
		"d":           "ambiguous: destroy, doctor",
	} {
		got := run(t, strings.Fields(args)...)
		if got.status != 2 || !strings.Contains(got.stderr, want) {
			t.Errorf("%s: status %d, %q; want 2, %q", args, got.status, got.stderr, want)
		}
	}
}

func TestNewWritesAProgramThatBuildsAndRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("there is no go command: ", err)
	}
	newHome(t)
	dir := t.TempDir()
	t.Chdir(dir)
	if got := run(t, "new", "quartet"); got.status != 0 || !strings.Contains(got.stdout, "cd quartet && go build && ./quartet launch") {
		t.Fatalf("%+v", got)
	}
	if got := run(t, "new", "quartet"); got.status != 1 || !strings.Contains(got.stderr, "quartet exists already") {
		t.Errorf("the second time: %+v", got)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-mod=readonly")
	build.Dir, build.Env = "quartet", append(os.Environ(), "GOFLAGS=", "GOPROXY=off", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	info := exec.CommandContext(t.Context(), "./quartet", "info", "--json")
	info.Dir = "quartet"
	out, err := info.CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"topology": "quartet"`) {
		t.Errorf("info: %v\n%s", err, out)
	}
}

func TestNewInsideAModuleLeavesTheModuleAlone(t *testing.T) {
	for mod, want := range map[string]string{
		"module example.org/labs\n":                                  "go get " + module + " && cd trio && go build && ./trio launch\n",
		"module example.org/labs\n\nrequire " + module + " v0.1.0\n": "next: cd trio && go build && ./trio launch\n",
		"module " + module + "\n":                                    "next: cd trio && go build && ./trio launch\n",
	} {
		dir := t.TempDir()
		t.Chdir(dir)
		if err := os.WriteFile("go.mod", []byte(mod), 0o600); err != nil {
			t.Fatal(err)
		}
		got := run(t, "new", "trio")
		if got.status != 0 || !strings.HasSuffix(got.stdout, want) {
			t.Errorf("in %q: %+v, want %q", mod, got, want)
		}
		files, err := os.ReadDir("trio")
		if err != nil || len(files) != 1 || files[0].Name() != "main.go" {
			t.Errorf("in %q there is %v (%v)", mod, files, err)
		}
	}
}

func TestHelpOfEachCommand(t *testing.T) {
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		words := strings.Fields(c.CommandPath())
		t.Run(c.CommandPath(), func(t *testing.T) {
			got := run(t, append(words[1:], "--help")...)
			if got.status != 0 || got.stderr != "" {
				t.Errorf("status %d, %q", got.status, got.stderr)
			}
			golden(t, filepath.Join("testdata", "help", strings.Join(words, "_")+".txt"), got.stdout)
		})
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(Command())
}

// golden compares text with a file, or writes it with -update.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (go test -update writes it anew):\n%s", path, diff)
	}
}
