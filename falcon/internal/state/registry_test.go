package state

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func list(t *testing.T, r Registry) []Entry {
	t.Helper()
	entries, err := r.List()
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func TestRegistryListsWhatIsAddedAndNotRemoved(t *testing.T) {
	r := Registry{Dir: filepath.Join(t.TempDir(), "home", "labs")}
	if got := list(t, r); len(got) > 0 {
		t.Fatalf("a list that does not exist holds %v", got)
	}
	a, b := open(t, "/lab/a"), open(t, "/lab/b")
	before := time.Now().Add(-time.Second)
	for _, add := range []struct {
		f        *Folder
		topology string
	}{{a, "duo"}, {b, "duo"}, {a, "ring"}} { // one name twice; a again
		if err := r.Add(add.f, add.topology); err != nil {
			t.Fatal(err)
		}
	}
	got := make(map[string]string)
	for _, e := range list(t, r) {
		if e.Created.Before(before) || e.Created.After(time.Now()) {
			t.Errorf("%s was created at %v", e.Folder, e.Created)
		}
		got[e.ID] = e.Topology + " in " + e.Folder
	}
	want := map[string]string{a.ID(): "ring in /lab/a", b.ID(): "duo in /lab/b"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	for range 2 { // the second finds nothing
		if err := r.Remove(a.ID()); err != nil {
			t.Fatal(err)
		}
	}
	if got := list(t, r); len(got) != 1 || got[0].ID != b.ID() {
		t.Errorf("after the removal of %s the list holds %v", a.ID(), got)
	}
}

func TestRegistryLeavesOutWhatItCannotRead(t *testing.T) {
	r := Registry{Dir: t.TempDir()}
	good := open(t, "/lab/good")
	if err := r.Add(good, "duo"); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"00000000.json": "",
		"00000001.json": `{"id":"00000001","topology":"du`,
		"00000002.json": "null",
		"00000003.json": "{}",
		"00000004.json": `{"id":"` + good.ID() + `","topology":"duo","folder":"/lab/good"}`, // a copy
		"00000005.json": `["00000005"]`,
		"00000006.json": `{"id":"00000006","topology":"duo","folder":"not/absolute"}`,
		".hidden.json":  `{"id":".hidden","topology":"duo","folder":"/lab/hidden"}`,
		"README":        "not a topology",
	} {
		if err := os.WriteFile(filepath.Join(r.Dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(r.Dir, "00000007.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got := list(t, r); len(got) != 1 || got[0].Folder != "/lab/good" {
		t.Errorf("the list holds %v, want the one good entry", got)
	}
}

func TestRegistryWhoseFolderCannotBeReadIsAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := Registry{Dir: file}
	if got, err := r.List(); err == nil {
		t.Errorf("a file was listed as a folder: %v", got)
	}
	if err := r.Add(open(t, "/lab/a"), "duo"); err == nil {
		t.Error("an entry was added to a file")
	}
}
