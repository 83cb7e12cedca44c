package falcon

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/state"
)

// A node whose set-up was broken off is shown as such and not used, and whatever
// starts it finishes it.
func TestANodeWhoseSetUpWasBrokenOffIsFinished(t *testing.T) {
	s := newSimLab(t)
	topo := s.launched("")
	violin := topo.Lookup("violin")
	l, err := topo.open()
	if err != nil {
		t.Fatal(err)
	}
	for name, finish := range map[string]func() error{
		"launch":     func() error { return topo.Launch(t.Context()) },
		"hyperstart": func() error { return violin.Start(t.Context()) },
		"reboot":     func() error { return violin.Reboot(t.Context()) },
		"hyperstop":  func() error { return errors.Join(violin.Stop(t.Context()), violin.Start(t.Context())) },
	} {
		for _, left := range []func() error{
			func() error { return l.noteStage("violin", StageStart) },
			func() error { return l.noteStage("violin", StageBoot) },
			func() error { return l.noteStage("violin", StageSetup) },
			func() error { return l.folder.RemoveFile("violin" + startExt) },
		} {
			if err := left(); err != nil {
				t.Fatal(err)
			}
			if got := s.states(topo); got["violin"] != NodeUnfinished || got["piano"] != NodeRunning {
				t.Errorf("%s: the states are %v", name, got)
			}
			var broken *UnfinishedError
			if _, err := violin.Exec(t.Context(), "true"); !errors.As(err, &broken) || !strings.Contains(err.Error(), "hyperstart violin") {
				t.Errorf("%s: exec: %v", name, err)
			}
			if err := violin.CopyFrom(t.Context(), "/etc/hostname", t.TempDir(), nil); !errors.As(err, &broken) {
				t.Errorf("%s: cp: %v", name, err)
			}
			if err := topo.Snapshot(t.Context(), "violin", "raw", SnapshotOptions{Live: true}); !errors.As(err, &broken) {
				t.Errorf("%s: snapshot: %v", name, err)
			}
			if err := finish(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got := s.states(topo); got["violin"] != NodeRunning {
				t.Errorf("%s: afterwards the states are %v", name, got)
			}
			if got := string(s.exec(topo, "violin", "hostname").Output); strings.TrimSpace(got) != "violin" {
				t.Errorf("%s: it is %q", name, got)
			}
		}
	}
}

// A node on which somebody works at this moment is not broken off.
func TestANodeThatIsWorkedOnIsStarting(t *testing.T) {
	s := newSimLab(t)
	topo := s.launched("")
	l, err := topo.open()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.noteStage("violin", StageSetup); err != nil {
		t.Fatal(err)
	}
	unlock, err := l.lock(t.Context(), "launch")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if got := s.states(topo)["violin"]; got != NodeStarting {
		t.Errorf("it is %s", got)
	}
	_, err = topo.Lookup("violin").Exec(t.Context(), "true")
	var broken *UnfinishedError
	if err == nil || errors.As(err, &broken) || !strings.Contains(err.Error(), "launch") {
		t.Errorf("exec: %v", err)
	}
}

// What an older falcon has noted of a node that was ready says so still.
func TestAnOldNoteIsThatOfANodeThatIsReady(t *testing.T) {
	f, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{folder: f}
	if err := f.WriteNote("violin"+startExt, []byte(`{"cold":false,"stages":[{"stage":"start","seconds":1}]}`)); err != nil {
		t.Fatal(err)
	}
	if got := l.setUpStage("violin"); got != StageReady {
		t.Errorf("it is at %s", got)
	}
	if err := l.noteStage("violin", StageBoot); err != nil || l.setUpStage("violin") != StageBoot {
		t.Errorf("it is at %s, %v", l.setUpStage("violin"), err)
	}
}

// A guest without an agent mounts at each boot what it mounts now, by the table of
// its system.
func TestAGuestWithoutAnAgentMountsAtEachBoot(t *testing.T) {
	dir := t.TempDir()
	fstab := filepath.Join(dir, "fstab")
	if err := os.WriteFile(fstab, []byte("proc /proc proc defaults 0 0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	keepMount(&b, MountPlan{Mount: Mount{Target: "/opt/cargo bay"}, Tag: "/opt/cargo bay"})
	keepMount(&b, MountPlan{Mount: Mount{Target: "/srv"}, Tag: "/srv"})
	script := "set -e\n" + strings.ReplaceAll(b.String(), "/etc/fstab", "'"+fstab+"'")
	for range 2 { // it changes nothing that is right already
		if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s\n%s", err, out, script)
		}
	}
	const options = " 9p trans=virtio,version=9p2000.L,msize=65536,ro,nofail 0 0\n"
	want := "proc /proc proc defaults 0 0\n" + `/opt/cargo\040bay /opt/cargo\040bay` + options + "/srv /srv" + options
	if got, err := os.ReadFile(fstab); err != nil || string(got) != want {
		t.Errorf("%v: %s", err, got)
	}
}

// A node that somebody holds who waits for its guest is stopped all the same, and
// one who holds it for ever is named.
func TestHyperstopIsNotHeldUpByWhoWaitsForTheGuest(t *testing.T) {
	s := newSimLab(t)
	topo := s.launched("")
	violin := topo.Lookup("violin")
	l, err := topo.open()
	if err != nil {
		t.Fatal(err)
	}
	release, err := l.folder.LockFile(t.Context(), "violin"+lockExt, "snapshot violin", nil)
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	err = violin.Stop(t.Context())
	if took := time.Since(begun); err == nil || !strings.Contains(err.Error(), "snapshot violin") || took > stopGrace {
		t.Errorf("it took %v: %v", took, err)
	}
	if o, err := l.server("violin"); err != nil || l.runs(t.Context(), o) {
		t.Errorf("the guest runs on (%v)", err)
	}
	release()
	if err := violin.Stop(t.Context()); err != nil || s.states(topo)["violin"] != NodeStopped {
		t.Errorf("afterwards: %v, %v", err, s.states(topo))
	}
}

// A node that is started anew does not run twice, whatever became of the journal.
func TestAServerThatTheJournalHasLostIsEndedBeforeAnother(t *testing.T) {
	s := newSimLab(t)
	topo := s.launched("")
	l, err := topo.open()
	must(t, err)
	was, err := l.server("violin")
	must(t, err)
	must(t, topo.Lookup("piano").Stop(t.Context())) // so that the process is violin's alone
	must(t, l.folder.RemoveFile("violin"+startExt))
	must(t, os.Truncate(filepath.Join(s.dir, state.JournalFile), 0))
	must(t, topo.Lookup("violin").Start(t.Context()))
	if got := s.states(topo)["violin"]; got != NodeRunning {
		t.Errorf("it is %s", got)
	}
	if is, err := l.server("violin"); err != nil || was.Process.Alive() || !is.Process.Alive() {
		t.Errorf("it ran in %v, and does in %v (%v)", was.Process, is.Process, err)
	}
}

// What an error advises can be pasted.
func TestCuresNameProgramAndFolder(t *testing.T) {
	s := newSimLab(t)
	topo := s.launched("")
	topo.Command = "ring -f lab"
	l, err := topo.open()
	if err != nil {
		t.Fatal(err)
	}
	violin := topo.Lookup("violin")
	if err := l.noteStage("violin", StageSetup); err != nil {
		t.Fatal(err)
	}
	const cure = "with: ring -f lab hyperstart violin"
	if _, err := violin.Exec(t.Context(), "true"); !strings.HasSuffix(says(err), cure) {
		t.Errorf("exec: %v", err)
	}
	status, err := topo.Status(t.Context())
	if err != nil || !strings.HasSuffix(status.Nodes[0].Reason, cure) {
		t.Errorf("info: %v, %v", status, err)
	}
	if err := violin.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := violin.Exec(t.Context(), "true"); !strings.HasSuffix(says(err), cure) {
		t.Errorf("exec: %v", err)
	}
}

// Who waits says for what, whatever it is that waits.
func TestWhoWaitsSaysWhatWaits(t *testing.T) {
	s := newSimLab(t)
	topo := s.launched("")
	l, err := topo.open()
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := l.lock(t.Context(), "launch")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { unlock() }()
	var said []string
	topo.Progress = func(p Progress) {
		if p.Stage == StageWait {
			said = append(said, p.Detail)
			unlock()
			unlock = func() {}
		}
	}
	if err := topo.Destroy(t.Context()); err != nil || len(said) != 1 || !strings.HasPrefix(said[0], "destroy waits for launch (pid ") {
		t.Errorf("it says %q: %v", said, err)
	}
}
