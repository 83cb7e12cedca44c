package state

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func open(t *testing.T, path string) *Folder {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestOneFolderHasOnePathWhateverTheWayToIt(t *testing.T) {
	base := t.TempDir()
	real := filepath.Join(base, "real")
	if err := os.MkdirAll(real, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, filepath.Join(base, "link")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(base)
	for _, below := range []string{".falcon", "deep/.falcon", "very/deep/.falcon"} {
		want := open(t, filepath.Join(real, below))
		for _, path := range []string{
			filepath.Join(base, "link", below), filepath.Join("link", below), filepath.Join("real", below),
			"./link/../link/" + below + "/",
		} {
			before := open(t, path)
			if before.Path() != want.Path() {
				t.Errorf("%s is %s before it exists, want %s", path, before.Path(), want.Path())
			}
		}
		if err := want.Create(); err != nil {
			t.Fatal(err)
		}
		if after := open(t, filepath.Join(base, "link", below)); after.Path() != want.Path() {
			t.Errorf("%s is %s once it exists, want %s", below, after.Path(), want.Path())
		}
	}
}

func TestFoldersOfDifferentPathsHaveDifferentIdentities(t *testing.T) {
	base := t.TempDir()
	a, b := open(t, base+"/a"), open(t, base+"/b")
	if a.ID() == b.ID() {
		t.Errorf("%s and %s are both %s", a.Path(), b.Path(), a.ID())
	}
	if len(a.ID()) != 8 || strings.Trim(a.ID(), "0123456789abcdef") != "" {
		t.Errorf("ID %q is not eight hexadecimal digits", a.ID())
	}
}

func TestCreateMakesAFolderForItsOwnerAlone(t *testing.T) {
	f := open(t, t.TempDir()+"/a/b")
	for range 2 { // the second finds it there
		if err := f.Create(); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(f.Path())
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %v (%v), want 0700", info.Mode(), err)
	}
}

func TestRemoveKeepsAFolderWithForeignFiles(t *testing.T) {
	f := newFolder(t)
	if err := os.WriteFile(f.File("notes"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Remove(); err != nil {
		t.Fatal(err)
	}
	if err := f.RemoveFile("notes"); err != nil {
		t.Errorf("the foreign file is not there any more: %v", err)
	}
	for range 2 { // the second finds nothing
		if err := f.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(f.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the empty folder is still there (%v)", err)
	}
}

type document struct {
	Words []string `json:"words"`
}

func TestDocumentsAreReplacedInOneStep(t *testing.T) {
	f := newFolder(t)
	long := document{strings.Fields(strings.Repeat("word ", 20000))}
	docs := []document{{[]string{"short"}}, long}
	if err := f.WriteJSON("doc", docs[0]); err != nil {
		t.Fatal(err)
	}
	const rounds = 12
	written := make(chan error, 1)
	go func() {
		for i := range rounds {
			if err := f.WriteJSON("doc", docs[i%2]); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	for {
		var got document
		if err := f.ReadJSON("doc", &got); err != nil {
			t.Fatalf("a reader met a half-written document: %v", err)
		}
		if n := len(got.Words); n != 1 && n != len(long.Words) {
			t.Fatalf("a reader met %d words", n)
		}
		select {
		case err := <-written:
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"doc"}, entriesOf(t, f.Path())); diff != "" {
				t.Errorf("files of the folder (-want +got):\n%s", diff)
			}
			return
		default:
		}
	}
}

func TestFilesAreForTheirOwnerAlone(t *testing.T) {
	f := newFolder(t)
	if err := f.WriteFile("file", []byte("x")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(f.File("file"))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("the file has mode %v (%v), want 0600", info.Mode(), err)
	}
}

func TestADocumentThatCannotBeWrittenLeavesTheOldOne(t *testing.T) {
	f := newFolder(t)
	want := document{[]string{"old"}}
	if err := f.WriteJSON("doc", want); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteJSON("doc", func() {}); err == nil {
		t.Error("a function was written as JSON")
	}
	// A folder in the document's place makes the last step fail.
	if err := os.Mkdir(f.File("taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteJSON("taken", want); err == nil {
		t.Error("a document replaced a folder")
	}
	var got document
	if err := f.ReadJSON("doc", &got); err != nil || !cmp.Equal(got, want) {
		t.Errorf("read %v (%v), want %v", got, err, want)
	}
	if diff := cmp.Diff([]string{"doc", "taken"}, entriesOf(t, f.Path())); diff != "" {
		t.Errorf("files of the folder (-want +got):\n%s", diff)
	}
}

// What a process that was killed between its two steps has left goes with the
// file, or the folder would never be empty.
func TestRemoveFileTakesAHalfWrittenSuccessorWithIt(t *testing.T) {
	for _, have := range []string{"the file too", "only the successor"} {
		f := newFolder(t)
		if have == "the file too" {
			if err := f.WriteFile("doc", []byte("old")); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(f.File(successor("doc")), []byte("ne"), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := f.RemoveFile("doc"); err != nil {
				t.Fatal(err)
			}
		}
		if left := entriesOf(t, f.Path()); len(left) > 0 {
			t.Errorf("with %s: RemoveFile leaves %q", have, left)
		}
	}
}

func TestRemoveFilesRemovesThoseAlone(t *testing.T) {
	f := newFolder(t)
	for _, name := range []string{"a", "b", "other", filepath.Base(successor("b")), filepath.Base(successor("c"))} {
		if err := os.WriteFile(f.File(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := f.RemoveFiles([]string{"a", "b", "c", "d"}); err != nil {
			t.Fatal(err)
		}
	}
	if left := entriesOf(t, f.Path()); !cmp.Equal(left, []string{"other"}) {
		t.Errorf("left are %q", left)
	}
	if err := os.MkdirAll(filepath.Join(f.File("full"), "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := f.RemoveFiles([]string{"full", "other"}); err == nil || fileExists(f.File("other")) {
		t.Errorf("after what cannot be removed: error %v, the next one stands: %v", err, fileExists(f.File("other")))
	}
	gone, err := Open(filepath.Join(t.TempDir(), "gone"))
	if err != nil {
		t.Fatal(err)
	}
	if err := gone.RemoveFiles([]string{"a"}); err != nil {
		t.Errorf("without a folder: %v", err)
	}
}

func fileExists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestReadJSONTellsAbsentFromDamaged(t *testing.T) {
	f := newFolder(t)
	var v document
	if err := f.ReadJSON("doc", &v); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("reading what is not there: %v, want %v", err, os.ErrNotExist)
	}
	if err := f.WriteFile("doc", []byte(`{"words":["cut o`)); err != nil {
		t.Fatal(err)
	}
	err := f.ReadJSON("doc", &v)
	if err == nil || errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), f.File("doc")) {
		t.Errorf("reading a damaged document: %v, want an error with its path", err)
	}
}
