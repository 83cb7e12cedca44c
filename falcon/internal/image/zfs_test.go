package image

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestFailedSnapshotIsUndone has each step of a snapshot fail, before it is done
// and after: a command that is killed may have done its work.
func TestFailedSnapshotIsUndone(t *testing.T) {
	for _, f := range []modelFault{{Verb: "snapshot", Nth: 1}, {Verb: "clone", Nth: 1}, {Verb: "promote", Nth: 1}, {Verb: "snapshot", Nth: 2}} {
		for _, after := range []bool{false, true} {
			name := "before " + f.Verb
			if after {
				name = "after " + f.Verb
			}
			t.Run(name, func(t *testing.T) {
				s := newModelSuite(t)
				s.addImage(t, "base", "hello")
				disk := s.addDisk(t, owner("violin"), "base")
				s.take(t, "violin", "one")
				s.writeAt(t, disk, 1<<20, "later")
				was := s.datasets(t)
				f := f
				f.After, f.Says = after, "cannot do it: pool I/O is currently suspended"
				setFault(t, f)
				_, err := s.Snapshot(t.Context(), owner("violin"), "two", nil)
				if err == nil || !strings.Contains(err.Error(), "pool I/O is currently suspended") || !strings.Contains(err.Error(), "tank/falcon") {
					t.Errorf("Snapshot = %v", err)
				}
				if is := s.datasets(t); !slices.Equal(is, was) {
					t.Errorf("ZFS has %v, it had %v", is, was)
				}
				s.reads(t, disk, 1<<20, "later")
				s.inUse(t, "one", owner("violin").String())
				two := s.take(t, "violin", "two")
				if two.Parent != "one" {
					t.Errorf("a further snapshot is %+v", two)
				}
			})
		}
	}
}

func TestFailedCommitIsUndone(t *testing.T) {
	for _, f := range []modelFault{{Verb: "create", Nth: 3}, {Verb: "create", Nth: 5}, {Verb: "set", Nth: 1}, {Verb: "snapshot", Nth: 1}} {
		for _, after := range []bool{false, true} {
			s := newModelSuite(t)
			// The third and the fifth create make the dataset and the volume:
			// what is below a missing one is tried first.
			f.After, f.Says = after, "cannot do it: out of space"
			setFault(t, f)
			d, err := s.Create(t.Context(), "base", nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(d.Dir, "disk.raw"), suiteDisk("hello"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(d.Dir, "vmlinux"), []byte("kernel"), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err = d.Commit(t.Context(), suiteSpec)
			d.Discard()
			if err == nil || !strings.Contains(err.Error(), "out of space") || !strings.Contains(err.Error(), "tank/falcon") {
				t.Errorf("%+v: Commit = %v", f, err)
			}
			if left := slices.DeleteFunc(s.datasets(t), func(name string) bool { return name == "img" }); len(left) > 0 {
				t.Errorf("%+v: ZFS has %v", f, left)
			}
			if left, _ := filepath.Glob(filepath.Join(s.Home(), "boot", "*")); len(left) > 0 {
				t.Errorf("%+v: left: %v", f, left)
			}
			s.addImage(t, "base", "hello")
		}
	}
}

// TestFailedCreateDiskIsUndone: the second create makes topo, the third what the
// first could not.
func TestFailedCreateDiskIsUndone(t *testing.T) {
	for _, f := range []modelFault{{Verb: "create", Nth: 2}, {Verb: "create", Nth: 3}, {Verb: "clone", Nth: 1}, {Verb: "set", Nth: 1}} {
		for _, after := range []bool{false, true} {
			s := newModelSuite(t)
			s.addImage(t, "base", "hello")
			f.After, f.Says = after, "cannot do it: out of space"
			setFault(t, f)
			err := s.CreateDisk(t.Context(), owner("violin"), "base", DiskOptions{Size: 8 << 20})
			if err == nil || !strings.Contains(err.Error(), "out of space") || !strings.Contains(err.Error(), "tank/falcon") {
				t.Errorf("%+v: CreateDisk = %v", f, err)
			}
			if left := slices.DeleteFunc(s.datasets(t), func(name string) bool { return name == "topo" }); !slices.Equal(left, []string{"img", "img/base", "img/base@base"}) {
				t.Errorf("%+v: ZFS has %v", f, left)
			}
			s.addDisk(t, owner("violin"), "base")
		}
	}
}

// TestCancelledSnapshotIsUndone ends the context while a step has done its work
// and not ended.
func TestCancelledSnapshotIsUndone(t *testing.T) {
	for _, f := range []modelFault{{Verb: "snapshot", Nth: 1}, {Verb: "clone", Nth: 1}, {Verb: "promote", Nth: 1}, {Verb: "snapshot", Nth: 2}} {
		s := newModelSuite(t)
		s.addImage(t, "base", "hello")
		s.addDisk(t, owner("violin"), "base")
		was := s.datasets(t)
		f.Hang = true
		setFault(t, f)
		why := errors.New("somebody pressed a key")
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() {
			for !exists(filepath.Join(os.Getenv(modelEnv), "hangs")) && t.Context().Err() == nil {
				time.Sleep(time.Millisecond) // a file of another process
			}
			cancel(why)
		}()
		if _, err := s.Snapshot(ctx, owner("violin"), "one", nil); !errors.Is(err, why) {
			t.Errorf("%+v: Snapshot = %v", f, err)
		}
		if is := s.datasets(t); !slices.Equal(is, was) {
			t.Errorf("%+v: ZFS has %v, it had %v", f, is, was)
		}
	}
}

func TestBusyVolumeIsDestroyedWhenItIsIdle(t *testing.T) {
	s := newModelSuite(t)
	s.addImage(t, "base", "hello")
	s.addDisk(t, owner("violin"), "base")
	setFault(t, modelFault{Verb: "destroy", Nth: 1, Times: 2, Says: "cannot destroy 'tank/falcon/topo/duo/violin': dataset is busy"})
	s.removeDisk(t, "violin")
	s.has(t, "img", "img/base", "img/base@base", "topo")

	s.addDisk(t, owner("violin"), "base")
	setFault(t, modelFault{Verb: "destroy", Nth: 1, Times: 1000, Says: "cannot destroy 'tank/falcon/topo/duo/violin': dataset is busy"})
	ctx, cancel := context.WithTimeout(t.Context(), 3*busyPause)
	defer cancel()
	err := s.RemoveDisk(ctx, owner("violin"))
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "dataset is busy") {
		t.Errorf("RemoveDisk = %v", err)
	}
}

func TestStoreIsChosen(t *testing.T) {
	home := t.TempDir()
	open := func(t *testing.T, dataset string) (Store, error) {
		t.Helper()
		return Open(Options{Home: home, System: []string{}, Dataset: dataset})
	}
	want := func(t *testing.T, dataset, in, why string) {
		t.Helper()
		s, err := open(t, dataset)
		if err != nil {
			t.Errorf("with dataset %q: %v", dataset, err)
		} else if s.Dataset() != in || !strings.Contains(s.Why(), why) {
			t.Errorf("with dataset %q: %q, %s", dataset, s.Dataset(), s.Why())
		}
	}
	refused := func(t *testing.T, dataset string, words ...string) {
		t.Helper()
		_, err := open(t, dataset)
		for _, w := range words {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("with dataset %q: %v, want %q in it", dataset, err, w)
			}
		}
	}
	t.Run("without ZFS", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		t.Setenv(datasetEnv, "")
		want(t, "", "", "ZFS is not installed")
		want(t, NoDataset, "", "no ZFS dataset is wanted")
		refused(t, "tank/falcon", "tank/falcon", "install OpenZFS", datasetEnv+"=none")
	})
	t.Run("with ZFS", func(t *testing.T) {
		newModel(t)
		t.Setenv(datasetEnv, "")
		reason := "no pool rpool"
		if os.Geteuid() != 0 {
			reason = "need root"
		}
		want(t, "", "", reason)
		want(t, "tank/falcon", "tank/falcon", "the topology is there")
		refused(t, "nopool/falcon", "cannot open 'nopool': no such pool", "zpool import nopool")
		for _, name := range []string{"/tank", "tank/", "tank//x", "a@b", "-r", "tank/x y", "tank/../x", strings.Repeat("x", maxDataset+1)} {
			refused(t, name, "is not the name of a ZFS dataset")
		}
		t.Setenv(datasetEnv, "tank/other")
		want(t, "", "tank/other", "FALCON_DATASET says so")
		want(t, "tank/falcon", "tank/falcon", "")
		want(t, NoDataset, "", "")
		t.Setenv(datasetEnv, NoDataset)
		want(t, "", "", "no ZFS dataset is wanted")
	})
}

func TestOpenAsksNobodyWhenFilesAreWanted(t *testing.T) {
	newModel(t)
	if _, err := Open(Options{Home: t.TempDir(), Dataset: NoDataset}); err != nil {
		t.Fatal(err)
	}
	if asked := zfsCommands(t); asked != "" {
		t.Errorf("ZFS was asked:\n%s", asked)
	}
}

func TestCopyDiskKeepsHolesAndFillsBlocks(t *testing.T) {
	from, err := os.Create(filepath.Join(t.TempDir(), "from"))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	const size = 64<<20 + 512
	for at, word := range map[int64]string{0: "start", 32<<20 + 5: "middle", size - 3: "end"} {
		if _, err := from.WriteAt([]byte(word), at); err != nil {
			t.Fatal(err)
		}
	}
	to := &blocks{}
	var last Step
	if err := copyDisk(t.Context(), to, from, size, "copying", func(s Step) { last = s }); err != nil {
		t.Fatal(err)
	}
	// The source ends with its last byte; what follows in its block is zeros.
	want := []int64{0, 32 << 20, 64 << 20}
	if !slices.Equal(to.at, want) || to.uneven {
		t.Errorf("written at %v, parts of blocks: %v; want %v", to.at, to.uneven, want)
	}
	if !bytes.HasPrefix(to.data[1][5:], []byte("middle")) || !bytes.HasPrefix(to.data[2][509:], []byte("end\x00")) {
		t.Errorf("written: %q, %q", to.data[1][:16], to.data[2][500:520])
	}
	if last != (Step{What: "copying", Done: size, Total: size, Bytes: true}) {
		t.Errorf("at last it said %+v", last)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := copyDisk(cancelled, to, from, size, "", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

// blocks notes down what is written.
type blocks struct {
	at     []int64
	data   [][]byte
	uneven bool
}

func (b *blocks) WriteAt(p []byte, at int64) (int, error) {
	b.at, b.data = append(b.at, at), append(b.data, bytes.Clone(p))
	b.uneven = b.uneven || len(p)%volumeBlock != 0 || at%volumeBlock != 0
	return len(p), nil
}

func TestTreeRefusesWhatItCannotRead(t *testing.T) {
	for _, line := range []string{"", "a\tb\tc", "tank/x\tvolsize\tmany\tlocal", "tank/x\tcreation\ttoday\t-"} {
		if err := (tree{}).read(line); err == nil {
			t.Errorf("line %q is taken", line)
		}
	}
}
