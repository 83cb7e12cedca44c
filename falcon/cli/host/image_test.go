package host

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
)

// importDisk makes an image of a raw disk that begins with a text.
func importDisk(t *testing.T, name, text string, flags ...string) (disk string) {
	t.Helper()
	disk = filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(disk, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 1<<20); err != nil {
		t.Fatal(err)
	}
	got := run(t, append([]string{"image", "import", disk, name}, flags...)...)
	if got.status != 0 || !strings.Contains(got.stdout, name+" is imported") {
		t.Fatalf("image import: %+v", got)
	}
	return disk
}

func TestImportedImageIsListedShownExportedAndRemoved(t *testing.T) {
	newHome(t)
	disk := importDisk(t, "mine", "hello", "--boot", "uefi", "--login", "login:", "--user", "admin", "--os", "plan9")

	if got := run(t, "image", "ls"); got.status != 0 || !strings.Contains(got.stdout, "mine ") || !strings.Contains(got.stdout, "1.0 MiB") {
		t.Errorf("ls: %+v", got)
	}
	var list struct {
		Version int
		Images  []image.Image
	}
	if err := json.Unmarshal([]byte(run(t, "image", "ls", "--json").stdout), &list); err != nil || list.Version != 1 || len(list.Images) == 0 {
		t.Errorf("ls --json: %+v, %v", list, err)
	}
	for _, want := range []string{"mine", "uefi", "login:", "plan9", "1.0 MiB", "sha256:"} {
		if got := run(t, "image", "show", "mine"); got.status != 0 || !strings.Contains(got.stdout, want) {
			t.Errorf("show lacks %q: %+v", want, got)
		}
	}
	var shown struct {
		Version int
		image.Image
		UsedBy []string `json:"used_by"`
	}
	if err := json.Unmarshal([]byte(run(t, "image", "show", "mine", "--json").stdout), &shown); err != nil {
		t.Fatal(err)
	}
	if shown.Name != "mine" || shown.Console.User != "admin" || !shown.Console.Known || shown.UsedBy == nil || len(shown.UsedBy) != 0 {
		t.Errorf("show --json: %+v", shown)
	}
	if got := run(t, "image", "path", "mine"); got.stdout != shown.Disk+"\n" {
		t.Errorf("path: %+v, the disk is %s", got, shown.Disk)
	}
	out := filepath.Join(t.TempDir(), "out.raw")
	if got := run(t, "image", "export", "mine", out); got.status != 0 {
		t.Errorf("export: %+v", got)
	}
	want, errWant := os.ReadFile(disk)
	have, errHave := os.ReadFile(out)
	if errWant != nil || errHave != nil || !bytes.Equal(want, have) {
		t.Errorf("the export differs: %v, %v", errWant, errHave)
	}
	if got := run(t, "image", "rm", "mine"); got.status != 0 || got.stdout != "mine is removed\n" {
		t.Errorf("rm: %+v", got)
	}
	if got := run(t, "image", "path", "mine"); got.status == 0 {
		t.Errorf("it is still there: %+v", got)
	}
}

func TestImageCommandsSayWhatToDo(t *testing.T) {
	newHome(t)
	disk := importDisk(t, "mine", "hello")
	store, err := image.Open(image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	owner := image.DiskOwner{ID: "t1", Topology: "duo", Folder: "/lab/duo", Node: "violin"}
	if err := store.CreateDisk(t.Context(), owner, "mine", image.DiskOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, want string }{
		{"image rm mine", `node "violin" of topology "duo" (/lab/duo)`},
		{"image rm none", `"none" not found`},
		{"image show no-micro", "falcon image import FILE no-micro"},
		{"image build plan9", "falcon image import FILE plan9"},
		{"image import " + disk + " mine", "exists already"},
		{"image import " + disk + " other --sha256 " + strings.Repeat("0", 64), "digest"},
		{"image import " + disk + " not/a/name", "letter"},
		{"image import /nothing/here.raw other", "/nothing/here.raw"},
		{"image export mine disk.vmdk", ".qcow2"},
		{"image import " + disk, "falcon image import FILE NAME"},
	} {
		if got := run(t, strings.Fields(c.args)...); got.status == 0 || !strings.Contains(got.stderr, c.want) {
			t.Errorf("%s: %+v, want %q", c.args, got, c.want)
		}
	}
	if got := run(t, "image", "show", "mine"); !strings.Contains(got.stdout, "violin") {
		t.Errorf("show does not say who uses it: %+v", got)
	}
}

func TestStepTextHasRateAndTimeLeft(t *testing.T) {
	for _, c := range []struct {
		step    image.Step
		elapsed time.Duration
		want    string
	}{
		{image.Step{What: "unpacking"}, time.Second, "unpacking"},
		{image.Step{What: "downloading", Done: 20, Total: 100}, time.Second, "downloading: 20%"},
		{image.Step{What: "reading", Done: 2048, Bytes: true}, time.Second, "reading: 2.0 KiB"},
		{image.Step{What: "reading", Done: 1 << 20, Total: 4 << 20, Bytes: true}, 0, "reading: 1.0 MiB of 4.0 MiB"},
		{image.Step{What: "reading", Done: 1 << 20, Total: 4 << 20, Bytes: true}, 2 * time.Second, "reading: 1.0 MiB of 4.0 MiB, 512.0 KiB/s, 6s left"},
		{image.Step{What: "reading", Done: 0, Total: 4 << 30, Bytes: true}, 2 * time.Second, "reading: 0 B of 4.0 GiB"},
	} {
		if got := stepText(c.step, c.elapsed); got != c.want {
			t.Errorf("%+v after %v: %q, want %q", c.step, c.elapsed, got, c.want)
		}
	}
}

func TestImageProgressOnATerminalAndInAFile(t *testing.T) {
	steps := []image.Step{
		{What: "a"}, {What: "b", Total: 100}, {What: "b", Done: 9, Total: 100}, {What: "b", Done: 11, Total: 100},
		{What: "b", Done: 19, Total: 100}, {What: "b", Done: 100, Total: 100}, {What: "c"},
	}
	for terminal, want := range map[bool]string{
		false: "a\nb: 0%\nb: 11%\nb: 100%\nc\n",
		// Each takes 60 ms; a line that was painted less than 100 ms ago stays.
		true: "\r\x1b[Ka\r\x1b[Kb: 0%\r\x1b[Kb: 11%\r\x1b[Kb: 100%\r\x1b[Kc\r\x1b[K",
	} {
		var out bytes.Buffer
		p := newImageProgress(&out)
		var now time.Time
		p.terminal, p.now = terminal, func() time.Time { return now }
		for _, s := range steps {
			p.report(s)
			now = now.Add(60 * time.Millisecond)
		}
		p.end()
		if got := out.String(); got != want {
			t.Errorf("terminal %v: %q, want %q", terminal, got, want)
		}
	}
}

func TestUnfinishedImagesAreNamed(t *testing.T) {
	newHome(t)
	home := os.Getenv("FALCON_HOME")
	if err := os.MkdirAll(filepath.Join(home, "img", "half"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, flags := range [][]string{nil, {"--json"}} {
		got := run(t, append([]string{"image", "ls"}, flags...)...)
		if got.status != 0 || !strings.Contains(got.stderr, "unfinished: "+filepath.Join(home, "img", "half")) || !strings.Contains(got.stderr, "falcon doctor --fix") {
			t.Errorf("ls: %+v", got)
		}
	}
}
