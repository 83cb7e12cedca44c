package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBoundedLog(t *testing.T) {
	const limit = 64 << 10
	path := filepath.Join(t.TempDir(), "violin.out")
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fmt.Fprintln(file, "from an earlier server")
	log := bound(file, limit)
	const lines = 10_000
	for i := range lines {
		if _, err := fmt.Fprintf(log, "line %d\n", i); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Size() > limit {
			t.Fatalf("after %d lines: %v, %v", i, info.Size(), err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	first, rest, _ := bytes.Cut(data, []byte("\n"))
	var marker struct {
		Dropped int64  `json:"dropped_bytes"`
		Msg     string `json:"msg"`
	}
	if err := json.Unmarshal(first, &marker); err != nil || marker.Dropped < limit/4 || !strings.Contains(marker.Msg, "dropped") {
		t.Errorf("the first line is %s (%v)", first, err)
	}
	kept := strings.Split(strings.TrimSpace(string(rest)), "\n")
	for i, line := range kept {
		if want := fmt.Sprintf("line %d", lines-len(kept)+i); line != want {
			t.Fatalf("line %d of those kept is %q, want %q", i, line, want)
		}
	}
	if len(rest) < limit/4 {
		t.Errorf("only %d bytes are kept", len(rest))
	}
}

func TestOnlyFilesAreBounded(t *testing.T) {
	var b bytes.Buffer
	if bound(&b, 10) != &b {
		t.Error("a buffer is bounded")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if bound(w, 10) != w {
		t.Error("a pipe is bounded")
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if bound(file, 0) != file {
		t.Error("a file is bounded without a limit")
	}
}
