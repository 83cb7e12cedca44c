package state

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestASearchFindsFoldersOfTopologiesAndSaysWhatItHasNotSeen(t *testing.T) {
	top := t.TempDir()
	var want []string
	for _, dir := range []string{"lab", "a/b/c/lab", "none"} {
		path := filepath.Join(top, dir)
		must(t, os.MkdirAll(path, 0o700))
		if dir != "none" {
			must(t, os.WriteFile(filepath.Join(path, JournalFile), nil, 0o600))
			want = append(want, path)
		}
	}
	must(t, os.Symlink(top, filepath.Join(top, "a", "loop")))
	find := func(enough int) (found []string, err error) {
		err = Search(t.Context(), []string{filepath.Join(top, "a"), top, filepath.Join(top, "gone")}, func(dir string) bool {
			found = append(found, dir)
			return len(found) == enough
		})
		slices.Sort(found)
		return found, err
	}
	slices.Sort(want)
	if found, err := find(9); err != nil || !slices.Equal(found, want) {
		t.Errorf("found %v (%v)", found, err)
	}
	if found, err := find(1); err != nil || len(found) != 1 {
		t.Errorf("that is enough: found %v (%v)", found, err)
	}
	if os.Geteuid() != 0 {
		must(t, os.Chmod(filepath.Join(top, "none"), 0o300))
		if _, err := find(9); err == nil {
			t.Error("a folder was not seen, and that is not said")
		}
		must(t, os.Chmod(filepath.Join(top, "none"), 0o700))
	}
	defer func(n int) { maxSearched = n }(maxSearched)
	maxSearched = 2
	if _, err := find(9); err == nil {
		t.Error("the search ended early, and that is not said")
	}
}
