package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/falcon"
)

// withLogs returns a program whose node violin has logs, and their paths.
func withLogs(t *testing.T) (*testProgram, falcon.LogFiles) {
	dir := t.TempDir()
	files := falcon.LogFiles{Server: filepath.Join(dir, "violin.out"), Stderr: filepath.Join(dir, "violin.err")}
	for path, text := range map[string]string{files.Server: "served\n", files.Stderr: "complained\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &testProgram{lab: fakeLab{nodes: map[string]*fakeNode{"violin": {logs: files}}}}, files
}

func TestLogsPrintsTheLogThatIsAskedFor(t *testing.T) {
	p, files := withLogs(t)
	for args, want := range map[string]string{
		"logs violin":          "served\n",
		"logs --stderr violin": "complained\n",
		"logs violin --json":   "{\n  \"server\": \"" + files.Server + "\",\n  \"stderr\": \"" + files.Stderr + "\"\n}\n",
	} {
		if got := p.run(t, strings.Fields(args)...); got != (outcome{0, want, ""}) {
			t.Errorf("%s: %+v, want %q", args, got, want)
		}
	}
	got := p.run(t, "logs", "piano")
	if got.status != 1 || !strings.Contains(got.stderr, "node piano has no log") {
		t.Errorf("of a node without a log: %+v", got)
	}
}

func TestVerboseLaunchesPrintTheCommandLinesOfHypervisors(t *testing.T) {
	for args, want := range map[string]string{
		"-v launch":            "violin: qemu -m '1 2'\npiano: its hypervisor's command line: open : no such file or directory\n",
		"hyperstart -v violin": "",
		"launch":               "",
	} {
		p, files := withLogs(t)
		appendTo(t, files.Server, `{"msg":"starting QEMU","by_hand":"qemu -m 1"}`+"\n{\n"+
			`{"msg":"starting QEMU","by_hand":"qemu -m '1 2'"}`+"\n"+`{"msg":"listening"}`+"\n")
		p.lab.steps = []falcon.Progress{
			{Node: "violin", Stage: falcon.StageStart}, {Node: "violin", Stage: falcon.StageBoot}, {Node: "piano", Stage: falcon.StageBoot},
		}
		if got := p.run(t, strings.Fields(args)...); got.status != 0 || got.stderr != want {
			t.Errorf("%s: %+v, want %q", args, got, want)
		}
	}
}

func TestFollowingALogEndsWhenItIsRemoved(t *testing.T) {
	_, files := withLogs(t)
	lines := make(chan string, 16)
	done := follow(t, t.Context(), files.Server, lines)
	expect(t, lines, "served\n")
	appendTo(t, files.Server, "more\n")
	expect(t, lines, "more\n")
	if err := os.Truncate(files.Server, 0); err != nil { // a node that is started again
		t.Fatal(err)
	}
	appendTo(t, files.Server, "anew\n")
	expect(t, lines, "anew\n")
	if err := os.Remove(files.Server); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A server cuts its log in place: to half of it, below a line that says how much
// is gone.
func TestFollowingALogThatIsCut(t *testing.T) {
	_, files := withLogs(t)
	lines := make(chan string, 16)
	done := follow(t, t.Context(), files.Server, lines)
	expect(t, lines, "served\n")
	appendTo(t, files.Server, strings.Repeat("x", 600)+"\nolder\nold\n")
	expect(t, lines, strings.Repeat("x", 600)+"\nolder\nold\n")
	dropped := len("served\n") + 601
	cut := fmt.Sprintf(`{"msg":"the log was cut","dropped_bytes":%d}`+"\nolder\nold\n", dropped)
	if err := os.Truncate(files.Server, 0); err != nil {
		t.Fatal(err)
	}
	appendTo(t, files.Server, cut)
	appendTo(t, files.Server, "new\n")
	expect(t, lines, "new\n") // and nothing twice
	if err := os.Remove(files.Server); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestFollowingALogEndsWithItsContext(t *testing.T) {
	_, files := withLogs(t)
	ctx, cancel := context.WithCancel(t.Context())
	lines := make(chan string, 16)
	done := follow(t, ctx, files.Server, lines)
	expect(t, lines, "served\n")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func follow(t *testing.T, ctx context.Context, path string, to chan<- string) <-chan error {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	done := make(chan error, 1)
	go func() { done <- followFile(ctx, file, writerFunc(func(b []byte) { to <- string(bytes.Clone(b)) })) }()
	return done
}

func expect(t *testing.T, lines <-chan string, want string) {
	t.Helper()
	select {
	case got := <-lines:
		if got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("nothing came within 10 s, want %q", want)
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}
