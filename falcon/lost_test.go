package falcon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/falcon-vm/falcon-go/falcon/internal/state"
)

// stopped launches, and stops all nodes: nothing runs that would tell where the
// folder is.
func (s *simLab) stopped() {
	s.t.Helper()
	topo := s.launched("")
	s.exec(topo, "violin", "echo kept > /root/kept")
	for _, node := range []string{"violin", "piano"} {
		must(s.t, topo.Lookup(node).Stop(s.t.Context()))
	}
	s.t.Setenv(hostEnv, HostSim)
}

// relist changes what the list has of the lab's place.
func (s *simLab) relist(change func(*state.Entry)) {
	s.t.Helper()
	l, err := s.duo("").open()
	must(s.t, err)
	list, err := state.Open(l.host.registry().Dir)
	must(s.t, err)
	e, err := l.host.registry().Get(l.folder.ID())
	must(s.t, err)
	change(&e)
	must(s.t, list.WriteJSON(e.ID+".json", e))
}

// left returns what a doctor finds of the test's home, and what he says of labs.
func (s *simLab) left(fix bool) (kinds []string, labs string) {
	s.t.Helper()
	report, err := Doctor(s.t.Context(), fix)
	must(s.t, err)
	for _, o := range report.Leftovers {
		if o.Kind == "namespace" || o.Kind == "device" || o.Kind == "links" {
			continue // the host's, of whoever works on it beside this test
		}
		kinds = append(kinds, o.Kind)
	}
	for _, c := range report.Checks {
		if strings.HasPrefix(c.Name, "lab ") {
			labs += fmt.Sprintln(c.Name, c.Err)
		}
	}
	return kinds, labs
}

// A lab that is moved far away while none of its nodes runs loses nothing.
func TestDoctorKeepsWhatALabHasThatWasMovedFarAway(t *testing.T) {
	for name, known := range map[string]func(*state.Entry){
		"with a handle":    func(*state.Entry) {},
		"by its number":    func(e *state.Entry) { e.Handle = "" },
		"by its identity":  func(e *state.Entry) { e.Handle, e.Device, e.Inode = "", 0, 0 },
		"handle of others": func(e *state.Entry) { e.Handle = strings.Repeat("0", 16) + e.Handle[16:] },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSimLab(t)
			s.stopped()
			s.relist(known)
			far := filepath.Join(t.TempDir(), "quite", "far", "away")
			must(t, os.MkdirAll(filepath.Dir(far), 0o700))
			must(t, os.Rename(s.dir, far))
			s.dir = far
			if kinds, labs := s.left(true); len(kinds) > 0 || labs != "" {
				t.Errorf("the doctor finds %v, and says %s", kinds, labs)
			}
			topo := s.duo("")
			must(t, topo.Lookup("violin").Start(t.Context()))
			if got := s.exec(topo, "violin", "cat /root/kept"); string(got.Output) != "kept\n" {
				t.Errorf("the file on the disk is %q", got.Output)
			}
		})
	}
}

// So does one that is moved to another file system, where it becomes another folder.
func TestDoctorKeepsWhatALabHasThatWasMovedToAnotherFileSystem(t *testing.T) {
	const memory = "/dev/shm"
	s := newSimLab(t)
	if other := state.PlaceOf(memory); other.Inode == 0 || other.Device == state.PlaceOf(s.home).Device {
		t.Skip(memory + " is no other file system")
	}
	s.stopped()
	far, err := os.MkdirTemp(memory, "falcon-test-")
	must(t, err)
	t.Cleanup(func() { must(t, os.Remove(far)) })
	moved := filepath.Join(far, "a", "lab")
	must(t, os.Mkdir(filepath.Dir(moved), 0o700))
	t.Cleanup(func() { must(t, os.Remove(filepath.Dir(moved))) })
	must(t, exec.Command("mv", s.dir, moved).Run())
	if kinds, labs := s.left(true); len(kinds) > 0 || labs != "" {
		t.Errorf("the doctor finds %v, and says %s", kinds, labs)
	}
	s.dir = moved
	topo := s.duo("")
	must(t, topo.Lookup("violin").Start(t.Context()))
	must(t, topo.Destroy(t.Context()))
}

// So does one that a list has lost: its disks are known by their own record.
func TestDoctorKeepsTheDisksOfAMovedLabThatIsOnNoList(t *testing.T) {
	s := newSimLab(t)
	s.stopped()
	l, err := s.duo("").open()
	must(t, err)
	must(t, l.host.registry().Remove(l.folder.ID()))
	far := filepath.Join(t.TempDir(), "far", "away")
	must(t, os.MkdirAll(filepath.Dir(far), 0o700))
	must(t, os.Rename(s.dir, far))
	s.dir = far
	if kinds, labs := s.left(true); len(kinds) > 0 || labs != "" {
		t.Errorf("the doctor finds %v, and says %s", kinds, labs)
	}
	must(t, s.duo("").Lookup("violin").Start(t.Context()))
}

// Where it cannot be told that a folder is gone, the disks stay, and who wants
// them gone is told how.
func TestDisksOfALabThatMayBeSomewhereAreRemovedOnPurpose(t *testing.T) {
	s := newSimLab(t)
	s.stopped()
	s.relist(func(e *state.Entry) { e.Device = 1 << 40 }) // of a stick that was pulled
	must(t, os.RemoveAll(s.dir))
	for range 2 {
		kinds, labs := s.left(true)
		if len(kinds) > 0 || !strings.Contains(labs, "not mounted") || !strings.Contains(labs, "falcon destroy --lost "+s.dir) {
			t.Errorf("the doctor finds %v, and says %s", kinds, labs)
		}
	}
	removed, err := RemoveLost(t.Context(), s.dir, nil)
	if err != nil || removed.Disks != 2 {
		t.Errorf("removed %+v (%v)", removed, err)
	}
	if kinds, labs := s.left(false); len(kinds) > 0 || labs != "" {
		t.Errorf("after that the doctor finds %v, and says %s", kinds, labs)
	}
	if _, err := RemoveLost(t.Context(), s.dir, nil); !errors.Is(err, ErrNotLaunched) {
		t.Errorf("once more: %v", err)
	}
}

// What stands in its folder is not lost.
func TestALabInItsFolderIsNotDestroyedAsLost(t *testing.T) {
	s := newSimLab(t)
	topo := s.launched("")
	if _, err := RemoveLost(t.Context(), s.dir, nil); err == nil || !strings.Contains(err.Error(), "falcon destroy") {
		t.Errorf("it says %v", err)
	}
	if got := s.states(topo); got["violin"] != NodeRunning || got["piano"] != NodeRunning {
		t.Errorf("its nodes are %v", got)
	}
}

// Nor is one that was moved to where it is found; who looks for it is told where.
func TestAMovedLabIsNotDestroyedAsLost(t *testing.T) {
	s := newSimLab(t)
	s.launched("")
	old, moved := s.dir, filepath.Join(t.TempDir(), "far", "lab") // the nodes run, so anybody can find it
	must(t, os.Mkdir(filepath.Dir(moved), 0o700))
	must(t, os.Rename(s.dir, moved))
	removed, err := s.duo("").Remove(t.Context())
	if err != nil || removed.String() != "" || !strings.Contains(fmt.Sprint(removed.Problems), moved) {
		t.Errorf("destroying it where it was: %+v (%v)", removed, err)
	}
	t.Setenv(hostEnv, HostSim)
	if _, err := RemoveLost(t.Context(), old, nil); err == nil || !strings.Contains(err.Error(), "falcon destroy "+moved) {
		t.Errorf("it says %v", err)
	}
	s.dir = moved
	if got := s.states(s.duo("")); got["violin"] != NodeRunning || got["piano"] != NodeRunning {
		t.Errorf("its nodes are %v", got)
	}
}

// A lab whose folder is certainly gone is cleared, though none of its nodes runs.
func TestDoctorClearsALabWhoseFolderIsGone(t *testing.T) {
	s := newSimLab(t)
	s.stopped()
	must(t, os.RemoveAll(s.dir))
	kinds, labs := s.left(true)
	slices.Sort(kinds)
	if !maps.Equal(map[string]int{"disk": 2, "registration": 1}, count(kinds)) && labs == "" {
		t.Errorf("the doctor finds %v, and says %s", kinds, labs)
	}
	if labs != "" { // an ordinary user's search may have ended early
		if _, err := RemoveLost(t.Context(), s.dir, nil); err != nil {
			t.Error(err)
		}
	}
}

func count(words []string) map[string]int {
	n := make(map[string]int)
	for _, w := range words {
		n[w]++
	}
	return n
}

// A lab that is launched while the doctor looks is none of a lost one.
func TestDoctorLeavesALabThatIsLaunchedMeanwhile(t *testing.T) {
	s := newSimLab(t)
	t.Setenv(hostEnv, HostSim)
	labs, err := hosts("")
	must(t, err)
	d := newDoctor(labs)
	left, err := d.left(t.Context(), func(ctx context.Context) ([]Leftover, error) {
		s.launched("")
		return d.labs[0].leftDisks(ctx, d.listed)
	})
	if err != nil || len(left) > 0 {
		t.Errorf("it finds %+v (%v)", left, err)
	}
}
