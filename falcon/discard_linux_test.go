package falcon

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/process"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
	"github.com/falcon-vm/falcon-go/propolis"
)

// family starts a process that heeds no SIGTERM, and a child of it.
func family(t *testing.T) (server, vmm process.Identity) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `trap "" TERM; sleep 600 & echo $!; wait`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	server, err = process.Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if vmm, err = process.Identify(pid); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for _, id := range []process.Identity{vmm, server} {
			if err := id.Kill(ctx); err != nil {
				t.Error(err)
			}
		}
		_ = cmd.Wait() // it was killed
	})
	return server, vmm
}

func TestADiscardedServerTakesItsHypervisorAlong(t *testing.T) {
	folder, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	server, vmm := family(t)
	_, stranger := family(t)
	for node, pid := range map[string]int{"a": vmm.PID, "b": stranger.PID} {
		for _, ext := range []string{socketExt, agentExt, pidExt} {
			if err := folder.WriteNote(node+ext, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := folder.WriteNote(node+vmmPIDExt, fmt.Appendln(nil, pid)); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	h := &linuxHost{}
	for range 2 { // what is gone is no error
		if err := h.discard(t.Context(), folder, state.Object{Kind: state.Server, Name: "a", Process: &server}); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(begun); took >= endGrace {
		t.Errorf("it took %v", took)
	}
	if server.Alive() || vmm.Alive() {
		t.Errorf("the server is alive: %v; its hypervisor: %v", server.Alive(), vmm.Alive())
	}
	// A number that is not the server's child's is of no hypervisor.
	if err := h.discard(t.Context(), folder, state.Object{Kind: state.Server, Name: "b", Process: &server}); err != nil {
		t.Fatal(err)
	}
	if !stranger.Alive() {
		t.Error("a process that is no child of the server was killed")
	}
	if left, err := os.ReadDir(folder.Path()); err != nil || len(left) != 0 {
		t.Errorf("left are %v (%v)", left, err)
	}
}

func TestOnlyWhatIsThrownAwayIsWorthless(t *testing.T) {
	plain := NodePlan{Name: "plain", Disk: "/topo/plain.qcow2"}
	plain.Spec.Components = propolis.Components{
		"main": propolis.FileStorageBackend{Path: plain.Disk},
		"iso":  propolis.FileStorageBackend{Path: "/cd.iso", Readonly: true},
	}
	stopped := NodePlan{Name: "stopped", Disk: "/topo/stopped.qcow2"} // its disk stays
	writer := NodePlan{Name: "writer", Disk: "/topo/writer.qcow2"}
	writer.Spec.Components = propolis.Components{
		"main": propolis.FileStorageBackend{Path: writer.Disk},
		"data": propolis.FileStorageBackend{Path: "/srv/data.raw"},
	}
	folder, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{name: "duo", folder: folder}
	objects := []state.Object{
		{Kind: state.Server, Name: "plain"}, {Kind: state.Disk, Name: "plain"},
		{Kind: state.Server, Name: "stopped"},
		{Kind: state.Server, Name: "writer"}, {Kind: state.Disk, Name: "writer"},
	}
	if got := l.worthless(objects); len(got) != 0 {
		t.Errorf("without a record: %v", got)
	}
	r := &record{Version: recordVersion, Topology: "duo", Plan: &Plan{Nodes: []NodePlan{plain, stopped, writer}}}
	if err := folder.WriteJSON(recordFile, r); err != nil {
		t.Fatal(err)
	}
	if got := l.worthless(objects); len(got) != 1 || !got["plain"] {
		t.Errorf("worthless are %v, want plain alone", got)
	}
}
