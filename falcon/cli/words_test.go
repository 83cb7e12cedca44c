package cli

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/falcon-vm/falcon-go/falcon"
)

// hostile is what a guest might have a terminal obey: to clear it, to name its
// window, to type, to overwrite a line, to turn text around; and no text at all.
const hostile = "\x1b[2J\x1b]0;x\a\x1b[21t\r\b\x7f\u009b31m\u202egnp\u2066\xff\x9b0m end"

// Words of a guest, of its files and of QEMU come to a person's terminal as what
// can be seen, whichever way they come.
func TestWordsOfOthersAreHarmlessOnATerminal(t *testing.T) {
	p, files := withLogs(t)
	appendTo(t, files.Server, `{"msg":"`+"\x7f\u009b31m\u202e end"+`"}`+"\n")
	appendTo(t, files.Stderr, hostile+"\n")
	p.lab.status = &falcon.Status{Topology: "ring", Nodes: []falcon.NodeStatus{{
		Name: "violin", State: falcon.NodeFailed, Image: "x" + hostile, Reason: hostile, Start: &falcon.NodeStart{Cold: true, Why: hostile, Stages: []falcon.StageTime{{Stage: falcon.StageBoot, Seconds: 1}}},
	}}}
	p.lab.steps = []falcon.Progress{{Node: "violin", Stage: falcon.StageFailed, Detail: hostile, Err: errors.New(hostile)}}
	for _, args := range []string{
		"logs violin", "logs --stderr violin", "info", "info --json", "launch", "launch --json", "-v launch",
	} {
		got := p.run(t, strings.Fields(args)...)
		harmless(t, args, got.stdout+got.stderr)
		if !strings.Contains(got.stdout, "end") {
			t.Errorf("%s: the words are gone: %q", args, got.stdout)
		}
		if strings.HasSuffix(args, "info --json") && !json.Valid([]byte(got.stdout)) {
			t.Errorf("%s: %s", args, got.stdout)
		}
	}
	p.lab.err = errors.New("in the guest: " + hostile)
	for _, args := range []string{"launch", "snapshot violin x", "destroy"} {
		got := p.run(t, strings.Fields(args)...)
		harmless(t, args, got.stderr)
		if got.status != 1 || !strings.Contains(got.stderr, "end") {
			t.Errorf("%s: %+v", args, got)
		}
	}
	// What a log's reader makes of it is the same document.
	data, err := os.ReadFile(files.Server)
	if err != nil || !strings.Contains(string(data), "\u202e") {
		t.Errorf("the log itself is %q, %v", data, err)
	}
}

func harmless(t *testing.T, what, printed string) {
	t.Helper()
	for i, r := range printed {
		_, n := utf8.DecodeRuneInString(printed[i:])
		if r != '\n' && r != '\t' && !unicode.IsGraphic(r) || r == utf8.RuneError && n == 1 {
			t.Fatalf("%s printed %q: %q", what, r, printed)
		}
	}
}
