package falcon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/process"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bystander starts a process that is none of falcon's.
func bystander(t *testing.T, env ...string) process.Identity {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.Env = append(os.Environ(), env...)
	must(t, cmd.Start())
	id, err := process.Identify(cmd.Process.Pid)
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := id.Kill(ctx); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // it was killed
	})
	return id
}

func journalLine(o state.Object) string {
	process := ""
	if o.Process != nil {
		process = fmt.Sprintf(`,"process":{"pid":%d,"start":%d,"boot":%q}`, o.Process.PID, o.Process.Start, o.Process.Boot)
	}
	return fmt.Sprintf(`{"op":"make","object":{"kind":%q,"name":%q,"device":%q,"host":%q%s}}`+"\n", o.Kind, o.Name, o.Device, o.Host, process)
}

// A journal is input: it names what is not the topology's own, and that is left
// alone and told, whether the process has the topology's mark or not.
func TestAPlantedJournalIsNotFollowed(t *testing.T) {
	for _, launched := range []bool{false, true} {
		t.Run(fmt.Sprint("launched ", launched), func(t *testing.T) {
			s := newSimLab(t)
			victim := filepath.Join(s.home, "victim.json")
			must(t, os.WriteFile(victim, nil, 0o600))
			marked := bystander(t)
			if launched {
				s.launched("")
				l, err := s.duo("").open()
				must(t, err)
				marked = bystander(t, process.LabEnv+"="+l.folder.ID())
			} else {
				must(t, os.Mkdir(s.dir, 0o700))
			}
			plain := bystander(t)
			var lines string
			for _, o := range []state.Object{
				{Kind: state.Server, Name: "violin", Process: &plain},
				{Kind: state.Server, Name: "piano", Process: &marked},
				{Kind: state.Server, Name: "../violin", Process: &plain},
				{Kind: state.Registration, Name: "../../victim"},
				{Kind: state.Links, Name: "falcon-other-01234567"},
				{Kind: state.Links, Name: "../../victim"},
				{Kind: state.Disk, Name: "../../victim"},
				{Kind: "martian", Name: "violin"},
			} {
				lines += journalLine(o)
			}
			file, err := os.OpenFile(filepath.Join(s.dir, state.JournalFile), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
			must(t, err)
			_, err = file.WriteString(lines)
			must(t, errors.Join(err, file.Close()))
			removed, err := RemoveFolder(t.Context(), s.dir, nil)
			must(t, err)
			for _, id := range []process.Identity{plain, marked} {
				if !id.Alive() {
					t.Error("a process that is no server of the topology was ended")
				}
			}
			if _, err := os.Stat(victim); err != nil {
				t.Errorf("a file outside was removed: %v", err)
			}
			if len(removed.Problems) < 5 || removed.Networks != 0 && !launched {
				t.Errorf("it removed %+v", removed)
			}
			s.empty()
		})
	}
}

// A launch in a folder with a planted journal does not end the process either.
func TestALaunchOverAPlantedJournalEndsNothing(t *testing.T) {
	s := newSimLab(t)
	id := bystander(t)
	must(t, os.Mkdir(s.dir, 0o700))
	must(t, os.WriteFile(filepath.Join(s.dir, state.JournalFile), []byte(journalLine(state.Object{Kind: state.Server, Name: "violin", Process: &id})), 0o600))
	s.launched("")
	if !id.Alive() {
		t.Error("the process was ended")
	}
}

func TestALabThatWasMovedGoesOn(t *testing.T) {
	s := newSimLab(t)
	topo := s.launched("")
	s.exec(topo, "violin", "echo kept > /root/kept")
	moved := filepath.Join(t.TempDir(), "elsewhere")
	must(t, os.Rename(s.dir, moved))
	s.dir = moved
	topo = s.duo("")
	if got := s.states(topo); got["violin"] != NodeRunning || got["piano"] != NodeRunning {
		t.Errorf("moved, its nodes are %v", got)
	}
	must(t, topo.Lookup("violin").Stop(t.Context()))
	must(t, topo.Lookup("violin").Start(t.Context()))
	if got := s.exec(topo, "violin", "cat /root/kept"); string(got.Output) != "kept\n" {
		t.Errorf("the file on the disk is %q", got.Output)
	}
	t.Setenv(hostEnv, HostSim)
	if list, err := List(t.Context()); err != nil || len(list) != 1 || list[0].Folder != moved || list[0].Running != 2 {
		t.Errorf("listed: %+v (%v)", list, err)
	}
	removed, err := topo.Remove(t.Context())
	if err != nil || removed.Nodes != 2 || removed.Disks != 2 {
		t.Errorf("removed %+v (%v)", removed, err)
	}
}

// A copy refuses all commands; they would be done to the original.
func TestACopyOfALabIsRefused(t *testing.T) {
	s := newSimLab(t)
	topo := s.launched("")
	copied := filepath.Join(t.TempDir(), "copy")
	must(t, exec.Command("cp", "-a", s.dir, copied).Run())
	other := s.duo("")
	other.Dir = copied
	for what, do := range map[string]func() error{
		"destroy":        func() error { return other.Destroy(t.Context()) },
		"destroy folder": func() error { return DestroyFolder(t.Context(), copied, nil) },
		"launch":         func() error { return other.Launch(t.Context()) },
		"hyperstop":      func() error { return other.Lookup("violin").Stop(t.Context()) },
		"info":           func() error { _, err := other.Status(t.Context()); return err },
	} {
		var copyErr *CopyError
		if err := do(); !errors.As(err, &copyErr) || copyErr.Original != s.dir {
			t.Errorf("%s says %v", what, err)
		}
	}
	if got := s.states(topo); got["violin"] != NodeRunning || got["piano"] != NodeRunning {
		t.Errorf("after that the nodes of the original are %v", got)
	}
	must(t, topo.Destroy(t.Context()))
}

func TestALabRemembersItsHome(t *testing.T) {
	s := newSimLab(t)
	topo := s.launched("")
	t.Setenv("FALCON_HOME", t.TempDir())
	must(t, topo.Lookup("violin").Stop(t.Context()))
	must(t, topo.Lookup("violin").Start(t.Context()))
	removed, err := RemoveFolder(t.Context(), s.dir, nil)
	if err != nil || removed.Nodes != 2 || removed.Disks != 2 {
		t.Errorf("removed %+v (%v)", removed, err)
	}
	s.empty()
}

// What falcon has written down may be lost in any part: info tells what runs, and
// destroy removes all.
func TestALabIsDestroyedWhateverIsLostOfItsFiles(t *testing.T) {
	for name, lose := range map[string]func(dir string) error{
		"journal emptied": func(dir string) error { return os.Truncate(filepath.Join(dir, state.JournalFile), 0) },
		"journal gone":    func(dir string) error { return os.Remove(filepath.Join(dir, state.JournalFile)) },
		"journal damaged": func(dir string) error {
			text, err := os.ReadFile(filepath.Join(dir, state.JournalFile))
			return errors.Join(err, os.WriteFile(filepath.Join(dir, state.JournalFile), []byte("\x00\x00"+string(text[2:])), 0o600))
		},
		"journal is noise": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, state.JournalFile), []byte("a\nb\nc\n"), 0o600)
		},
		"identity gone":    func(dir string) error { return os.Remove(filepath.Join(dir, "identity.json")) },
		"identity damaged": func(dir string) error { return os.WriteFile(filepath.Join(dir, "identity.json"), []byte("{"), 0o600) },
		"record gone":      func(dir string) error { return os.Remove(filepath.Join(dir, recordFile)) },
		"record damaged":   func(dir string) error { return os.WriteFile(filepath.Join(dir, recordFile), []byte("{"), 0o600) },
		"all three gone": func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, recordFile)), os.Remove(filepath.Join(dir, "identity.json")), os.Remove(filepath.Join(dir, state.JournalFile)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSimLab(t)
			topo := s.launched("")
			must(t, lose(s.dir))
			status, err := topo.Status(t.Context())
			text := fmt.Sprint(err)
			if err == nil {
				text = fmt.Sprint(status.Problems)
				for _, n := range status.Nodes {
					if n.State == NodeStopped || n.State == NodeAbsent && !strings.Contains(text, "2 nodes") {
						t.Errorf("info says of %s: %s, and %s", n.Name, n.State, text)
					}
				}
			} else if !strings.Contains(text, "falcon destroy "+s.dir) {
				t.Errorf("info says %s", text)
			}
			removed, err := RemoveFolder(t.Context(), s.dir, nil)
			if err != nil || removed.Nodes != 2 || removed.Disks != 2 || removed.Networks != 1 {
				t.Errorf("removed %+v (%v)", removed, err)
			}
			s.empty()
		})
	}
}

// A lab whose journal was lost goes on, and has one again.
func TestAJournalThatWasLostIsWrittenAnew(t *testing.T) {
	s := newSimLab(t)
	topo := s.launched("")
	must(t, os.Truncate(filepath.Join(s.dir, state.JournalFile), 0))
	must(t, topo.Launch(t.Context()))
	folder, err := state.Open(s.dir)
	must(t, err)
	if got, err := folder.Standing(); err != nil || len(got) != 2*2+2 {
		t.Errorf("the journal lists %v (%v)", got, err)
	}
}

// The doctor ends what a lost lab runs before it removes what that uses, and does
// not touch a lab that stands.
func TestDoctorClearsALostLabAndNoOther(t *testing.T) {
	s := newSimLab(t)
	t.Setenv(hostEnv, HostSim)
	s.launched("")
	l, err := s.duo("").open()
	must(t, err)
	lost := l.folder.ID()
	must(t, os.RemoveAll(s.dir))
	removed, err := s.duo("").Remove(t.Context())
	if err != nil || removed.String() != "" || !strings.Contains(fmt.Sprint(removed.Problems), "falcon doctor --fix") {
		t.Errorf("destroying what is lost: %+v (%v)", removed, err)
	}
	topo := s.launched("") // has an identity of its own
	report, err := Doctor(t.Context(), false)
	must(t, err)
	for _, left := range report.Leftovers {
		if left.Kind == "disk" {
			t.Errorf("a disk is offered while its process runs: %+v", left)
		}
	}
	var kinds []string
	for range 2 {
		report, err := Doctor(t.Context(), true)
		must(t, err)
		kinds = nil
		for _, left := range report.Leftovers {
			kinds = append(kinds, left.Kind)
			if !left.Fixed {
				t.Errorf("left: %+v", left)
			}
		}
	}
	if len(kinds) > 0 {
		t.Errorf("the second time it finds %v", kinds)
	}
	if marks, err := marked(lost); err != nil || len(marks) > 0 {
		t.Errorf("there still run %v (%v)", marks, err)
	}
	if got := s.states(topo); got["violin"] != NodeRunning || got["piano"] != NodeRunning {
		t.Errorf("the nodes of the other lab are %v", got)
	}
}

// What a launch that was killed at its very beginning leaves is found.
func TestDoctorFindsAFolderWithOnlyALock(t *testing.T) {
	s := newSimLab(t)
	l, err := s.duo("").open()
	must(t, err)
	must(t, l.claim())
	unlock, err := l.folder.Lock(t.Context(), "launch", nil)
	must(t, err)
	t.Setenv(hostEnv, HostSim)
	if report, err := Doctor(t.Context(), true); err != nil || len(report.Leftovers) > 0 {
		t.Errorf("while it is launched the doctor finds %+v (%v)", report.Leftovers, err)
	}
	unlock()
	report, err := Doctor(t.Context(), true)
	if err != nil || len(report.Leftovers) != 1 || !report.Leftovers[0].Fixed {
		t.Errorf("the doctor finds %+v (%v)", report.Leftovers, err)
	}
	s.empty()
}

// Undo removes what the transaction has made, and not what stood in its way.
func TestUndoLeavesTheDiskThatStoodInTheWay(t *testing.T) {
	s := newSimLab(t)
	l, err := s.duo("").open()
	must(t, err)
	must(t, l.folder.Create())
	store := l.host.store()
	must(t, store.CreateDisk(t.Context(), l.owner("piano"), "micro", image.DiskOptions{}))
	t.Cleanup(func() { must(t, store.RemoveDisk(context.Background(), l.owner("piano"))) })
	err = l.transact(t.Context(), nil, false, func(tx *transaction) error {
		for _, node := range []string{"violin", "piano"} {
			err := tx.make(state.Object{Kind: state.Disk, Name: node}, func() error {
				return store.CreateDisk(t.Context(), l.owner(node), "micro", image.DiskOptions{})
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if !errors.Is(err, image.ErrDiskExists) {
		t.Errorf("the transaction ends with %v", err)
	}
	if !store.HasDisk(t.Context(), l.owner("piano"), "") {
		t.Error("the disk that stood in the way was removed")
	}
	if store.HasDisk(t.Context(), l.owner("violin"), "") {
		t.Error("the disk that the transaction made stands")
	}
}

// A launch that fails in a folder in which an earlier one has left something does
// not forget that.
func TestUndoForgetsNothingThatStoodBefore(t *testing.T) {
	s := newSimLab(t)
	topo := s.launched("")
	must(t, topo.Lookup("violin").Stop(t.Context()))
	must(t, os.Remove(filepath.Join(s.dir, recordFile)))
	if err := s.duo("start:violin=fail").Launch(t.Context()); err == nil {
		t.Fatal("the launch did not fail")
	}
	folder, err := state.Open(s.dir)
	must(t, err)
	if got, err := folder.Standing(); err != nil || len(got) < 3 {
		t.Errorf("the journal lists %v (%v), of what stood before", got, err)
	}
}
