package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// killedAt takes a snapshot whose process dies after a step: what a death lets go
// of, locks, is let go of, and nothing else is done.
func killedAt(t *testing.T, s *Files, step string, switchOverlay func(string) error) {
	t.Helper()
	died := errors.New("killed")
	s.cut = func(done string) {
		if done == step {
			panic(died)
		}
	}
	defer func() {
		s.cut = nil
		if recover() != died {
			t.Fatalf("there is no step %q", step)
		}
	}()
	_, err := s.Snapshot(t.Context(), owner("violin"), "one", switchOverlay)
	t.Fatalf("the snapshot was not killed: %v", err)
}

// switches is what a hypervisor's server does.
func switches(path string) error {
	return errors.Join(os.Rename(path+".next", path+".1"), os.Rename(path+".1", path))
}

// snapshotSteps are the points at which a snapshot can be killed, and whether the
// image is there then once it is settled.
var snapshotSteps = map[string]struct {
	step string
	live func(path string) error
	done bool
}{
	"folder":                   {"folder", nil, false},
	"record":                   {"record", nil, false},
	"disk's record":            {"disk's record", nil, false},
	"link":                     {"link", nil, false},
	"overlay":                  {"overlay", nil, true},
	"known to the disk":        {"known to the disk", nil, true},
	"live, link":               {"link", switches, false},
	"live, overlay":            {"overlay", switches, false},
	"live, switch":             {"switch", switches, true},
	"live, known to the disk":  {"known to the disk", switches, true},
	"live, server killed, too": {"switch", func(path string) error { return os.Rename(path+".next", path+".1") }, false},
	"live, undone in part":     {"disk's record back", func(string) error { return errors.New("refused") }, false},
}

// TestAKilledSnapshotIsFinishedOrUndone by whatever comes next, and the disk has
// what it had. Nothing is left, and all names can be taken.
func TestAKilledSnapshotIsFinishedOrUndone(t *testing.T) {
	next := map[string]func(t *testing.T, s *Files){
		"settling": func(t *testing.T, s *Files) { ok(t, s.SettleDisk(t.Context(), owner("violin"))) },
		"the doctor": func(t *testing.T, s *Files) {
			all, err := s.Abandoned(t.Context())
			ok(t, err)
			if len(all) == 0 {
				t.Error("the doctor sees nothing")
			}
			for _, a := range all {
				ok(t, a.Remove(t.Context()))
			}
		},
		"another live snapshot": func(t *testing.T, s *Files) {
			_, err := s.Snapshot(t.Context(), owner("violin"), "two", switches)
			ok(t, err)
		},
		"another snapshot": func(t *testing.T, s *Files) {
			_, err := s.Snapshot(t.Context(), owner("violin"), "two", nil)
			ok(t, err)
		},
		"the same live snapshot": func(t *testing.T, s *Files) {
			_, err := s.Snapshot(t.Context(), owner("violin"), "one", switches)
			ok(t, err)
		},
		"removing the image": func(t *testing.T, s *Files) {
			err := s.Remove(t.Context(), "one")
			if !errors.As(err, new(*InUseError)) && !errors.Is(err, ErrNotFound) {
				ok(t, err)
			}
		},
	}
	for at, tt := range snapshotSteps {
		for by, do := range next {
			t.Run(at+" by "+by, func(t *testing.T) {
				s := testStore(t)
				addImage(t, s, "base", "hello")
				disk := addDisk(t, s, owner("violin"), "base")
				write(t, disk, "0x11", "1M")
				killedAt(t, s, tt.step, tt.live)
				reads(t, disk, "0x11", "1M")
				do(t, s)
				reads(t, disk, "0x11", "1M")
				ok(t, s.tidy(t.Context()))
				settled(t, s)
				_, err := s.Get(t.Context(), "one")
				if tt.done {
					ok(t, err)
				} else if !errors.Is(err, ErrNotFound) && by != "the same live snapshot" {
					t.Errorf("the image was never switched to, and is there: %v", err)
				}
				ok(t, s.RemoveDisk(t.Context(), owner("violin")))
				for _, name := range []string{"two", "one", "base"} {
					if err := s.Remove(t.Context(), name); !errors.Is(err, ErrNotFound) {
						ok(t, err)
					}
				}
				if left := leftovers(t, s); len(left) > 0 {
					t.Errorf("left over: %v", left)
				}
			})
		}
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// settled wants a store in which nothing is half-made.
func settled(t *testing.T, s *Files) {
	t.Helper()
	ok(t, s.VerifyDisk(t.Context(), owner("violin")))
	for _, pattern := range []string{"img/*/" + pendingFile, "topo/*/*.next", "topo/*/*.[0-9]*", "topo/*/.*"} {
		if left, _ := filepath.Glob(filepath.Join(s.Home(), pattern)); len(left) > 0 {
			t.Errorf("there is %v", left)
		}
	}
}

// TestASwitchThatIsUnderWayIsNotCutOff: the server of a node goes on when whoever
// asked it was killed, so what its hypervisor has open is left to it.
func TestASwitchThatIsUnderWayIsNotCutOff(t *testing.T) {
	for name, taken := range map[string]string{"waits": ".next", "taken": ".1"} {
		t.Run(name, func(t *testing.T) {
			s := testStore(t)
			addImage(t, s, "base", "hello")
			disk := addDisk(t, s, owner("violin"), "base")
			killedAt(t, s, "overlay", switches)
			ok(t, os.Rename(disk+".next", disk+taken))
			old, err := os.OpenFile(disk, os.O_RDWR, 0) // as QEMU has it
			ok(t, err)
			defer old.Close()
			fresh, err := os.OpenFile(disk+taken, os.O_RDWR, 0)
			ok(t, err)
			defer fresh.Close()
			if err := s.SettleDisk(t.Context(), owner("violin")); err == nil || !strings.Contains(err.Error(), "try again") {
				t.Errorf("SettleDisk = %v", err)
			}
			ok(t, os.Rename(disk+taken, disk)) // the server goes on
			ok(t, s.SettleDisk(t.Context(), owner("violin")))
			if _, err := s.Get(t.Context(), "one"); err != nil {
				t.Errorf("the image is not there: %v", err)
			}
			settled(t, s)
		})
	}
}

// TestASnapshotWhoseAskerGaveUpIsThere if the hypervisor has switched all the same.
func TestASnapshotWhoseAskerGaveUpIsThere(t *testing.T) {
	s := testStore(t)
	addImage(t, s, "base", "hello")
	disk := addDisk(t, s, owner("violin"), "base")
	_, err := s.Snapshot(t.Context(), owner("violin"), "one", func(path string) error {
		ok(t, switches(path))
		write(t, disk, "0x22", "2M")
		return errors.New("no answer in time")
	})
	ok(t, err)
	reads(t, disk, "0x22", "2M")
	settled(t, s)
}
