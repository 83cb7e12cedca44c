package link

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestSocketsRemovesItsSocketsAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	s := Sockets{Dir: dir}
	bind := func(name string) string {
		path := filepath.Join(dir, name)
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		// Unlike a stream listener's, the file stays.
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ours := []string{bind(s.File("violin", 0)), bind(s.File("piano", 12))}
	a, b := s.File("organ", 0), s.File("flute", 0)
	if err := s.Create(a, b); err != nil {
		t.Fatal(err)
	}
	first, second := s.Ends(a, b)
	ours = append(ours, bind(first), bind(second), filepath.Join(dir, filepath.Dir(first)))
	others := []string{bind("violin.sock"), filepath.Join(dir, s.File("file", 0))}
	if err := os.WriteFile(others[1], nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range ours {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	for _, path := range others {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s is gone: %v", path, err)
		}
	}
}

// The ends of a link share a folder with nobody else.
func TestEachLinkHasAFolderOfItsOwn(t *testing.T) {
	var s Sockets
	a, b := s.Ends("violin-0.link", "piano-0.link")
	if b2, a2 := s.Ends("piano-0.link", "violin-0.link"); a != a2 || b != b2 || filepath.Dir(a) != filepath.Dir(b) {
		t.Errorf("the ends are %s and %s from the one, %s and %s from the other", a, b, a2, b2)
	}
	c, _ := s.Ends("violin-1.link", "piano-1.link")
	if filepath.Dir(c) == filepath.Dir(a) || filepath.Dir(a) == "." {
		t.Errorf("links are in %s and %s", filepath.Dir(a), filepath.Dir(c))
	}
}

func TestSocketsRemoveWithoutFolder(t *testing.T) {
	if err := (Sockets{Dir: filepath.Join(t.TempDir(), "gone")}).Remove(); err != nil {
		t.Error(err)
	}
}

func TestSocketFilesDifferByNodeAndIndex(t *testing.T) {
	var s Sockets
	seen := map[string]bool{}
	for _, node := range []string{"a", "a1", "b"} {
		for _, index := range []int{0, 1, 10} {
			seen[s.File(node, index)] = true
		}
	}
	if len(seen) != 9 {
		t.Errorf("file names: %v", seen)
	}
}
