package image

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// put writes empty files; what ends in a slash is a folder.
func put(t *testing.T, s *Files, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(s.Home(), name)
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if strings.HasSuffix(name, "/") {
			err = errors.Join(err, os.MkdirAll(path, 0o700))
		} else {
			err = errors.Join(err, os.WriteFile(path, nil, 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// everything lists all files and folders below a home.
func everything(t *testing.T, s *Files) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(s.Home(), func(path string, _ os.DirEntry, err error) error {
		all = append(all, strings.TrimPrefix(path, s.Home()))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestWhatKilledCommandsLeaveIsFoundAndRemoved by the doctor, and by the next
// command that makes or removes something.
func TestWhatKilledCommandsLeaveIsFoundAndRemoved(t *testing.T) {
	next := map[string]func(*testing.T, *Files){
		"the doctor": func(t *testing.T, s *Files) {
			all, err := s.Abandoned(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range all {
				if a.Kind == "" || a.Reason == "" {
					t.Errorf("it is said of it: %+v", a)
				}
				if err := a.Remove(t.Context()); err != nil {
					t.Error(err)
				}
			}
		},
		"a build": func(t *testing.T, s *Files) {
			d, err := s.Create(t.Context(), "next", nil)
			if err != nil {
				t.Fatal(err)
			}
			d.Discard()
		},
		"an export": func(t *testing.T, s *Files) {
			if err := s.Export(t.Context(), "base", filepath.Join(t.TempDir(), "x.raw"), nil); err != nil {
				t.Error(err)
			}
		},
		"a snapshot": func(t *testing.T, s *Files) {
			if _, err := s.Snapshot(t.Context(), owner("nobody"), "x", nil); err == nil {
				t.Error("there is a snapshot of nothing")
			}
		},
		"a prune": func(t *testing.T, s *Files) {
			if _, err := s.PruneTemplates(t.Context(), 1<<40, func(Template) bool { return false }); err != nil {
				t.Error(err)
			}
		},
	}
	for name, left := range map[string][]string{
		"a template's draft":     {"tmp/.warm-k1-00000001/ram", "tmp/.warm-k1-00000001/mount/", "lock/tmp..warm-k1-00000001", "lock/img..warm-k1"},
		"an empty draft":         {"tmp/micro-00000002/"},
		"a snapshot's record":    {"img/one/.image.json.pending.new-123"},
		"a snapshot's folder":    {"img/one/"},
		"a removal":              {"img/one/disk.raw", "img/one/vmlinux"},
		"a removal at its begin": {"img/one/image.json.removed", "img/one/disk.raw"},
		"a template's removal":   {"img/.warm-k1/ram", "img/.warm-k1/disk.qcow2"},
		"a record":               {"img/base/.image.json.new-7"},
		"disks":                  {"topo/t9/.a.json.new-1", "topo/t9/.a.qcow2.new-2"},
		"a lab's folder":         {"topo/t9/"},
		"locks":                  {"lock/img.one", "lock/disk.t9.a", "lock/claims"},
		"downloads":              {"fetch/", "fetch/a.raw.xz.part", "fetch/b.raw.xz", "fetch/.b.raw.xz.lock"},
	} {
		for by, run := range next {
			t.Run(name+" by "+by, func(t *testing.T) {
				s := testStore(t)
				addImage(t, s, "base", "hello")
				was := everything(t, s)
				put(t, s, left...)
				run(t, s)
				is := slices.DeleteFunc(everything(t, s), func(path string) bool { return filepath.Base(path) == fetchFolder })
				if !slices.Equal(is, was) {
					t.Errorf("there is %q, there was %q", is, was)
				}
			})
		}
	}
}

func TestWhatSomebodyHoldsIsNotAbandoned(t *testing.T) {
	s := testStore(t)
	addImage(t, s, "base", "hello")
	addDisk(t, s, owner("violin"), "base")
	if _, err := s.Snapshot(t.Context(), owner("violin"), "tuned", nil); err != nil {
		t.Fatal(err)
	}
	build, err := s.Create(t.Context(), "building", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer build.Discard()
	template, err := s.CreateTemplate(t.Context(), TemplateOptions{Key: "k1", Image: "base"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer template.Discard()
	lab, discard, err := WorkFolder(s.Home(), "agent")
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "tmp/dead-00000001/"+WorkLab+"/journal") // it goes when the lab has gone
	// A snapshot whose disk somebody works on.
	if err := os.Rename(filepath.Join(s.imageDir("tuned"), recordFile), filepath.Join(s.imageDir("tuned"), pendingFile)); err != nil {
		t.Fatal(err)
	}
	l, err := s.lockDisk(t.Context(), owner("violin"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.release()
	if all, err := s.Abandoned(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("Abandoned = %+v, %v", all, err)
	}
	discard()
	if exists(lab) {
		t.Error("the work folder is still there")
	}
}

// TestAnExportsFolderGoesWithItsWorkFolder, and nothing else does, whatever is
// noted.
func TestAnExportsFolderGoesWithItsWorkFolder(t *testing.T) {
	s := testStore(t)
	addImage(t, s, "base", "hello")
	dir := t.TempDir()
	for _, name := range []string{besidePrefix + "00000001", "precious"} {
		if err := os.MkdirAll(filepath.Join(dir, name, "disk"), 0o700); err != nil {
			t.Fatal(err)
		}
		work := "tmp/export-" + name + "/"
		put(t, s, work)
		if err := os.WriteFile(filepath.Join(s.Home(), work, besideNote), []byte(filepath.Join(dir, name)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "precious" {
		t.Errorf("left: %v, %v", left, err)
	}
}
