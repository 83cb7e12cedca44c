package fetch

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// published serves files by path and counts requests.
type published struct {
	files map[string]string
	asked int
}

func (p *published) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.asked++
	text, ok := p.files[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write([]byte(text))
}

func digestOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func TestAFileIsFetchedOnceAndThenUsedOffline(t *testing.T) {
	p := &published{files: map[string]string{"/server": "program", "/server.sha256.txt": digestOf("program") + "\n"}}
	s := httptest.NewServer(p)
	dir := t.TempDir()
	from := Published(s.URL + "/server")
	var done, total int64
	path, err := Keep(t.Context(), dir, "server", from, 0o755, func(d, t int64) { done, total = d, t })
	if err != nil {
		t.Fatal(err)
	}
	if done != 7 || total != 7 {
		t.Errorf("progress ended at %d of %d", done, total)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info, err)
	}
	s.Close()
	asked := p.asked
	if again, err := Keep(t.Context(), dir, "server", from, 0o755, nil); err != nil || again != path || p.asked != asked {
		t.Errorf("offline: %q, %v, %d more requests", again, err, p.asked-asked)
	}
}

func TestAKeptFileThatChangedIsRefused(t *testing.T) {
	s := httptest.NewServer(&published{files: map[string]string{"/f": "good", "/f.sha256.txt": digestOf("good") + "  f\n"}})
	defer s.Close()
	dir := t.TempDir()
	path, err := Keep(t.Context(), dir, "f", Published(s.URL+"/f"), 0o644, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("evil"), 0o644); err != nil {
		t.Fatal(err)
	}
	var wrong *DigestError
	if _, err := Keep(t.Context(), dir, "f", Published(s.URL+"/f"), 0o644, nil); !errors.As(err, &wrong) || wrong.Got != digestOf("evil") {
		t.Errorf("%v", err)
	}
}

func TestWhatIsNotTheFileIsNotKept(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"no digest":             {"/f": "good"},
		"a page for a digest":   {"/f": "good", "/f.sha256.txt": "<html>not found</html>"},
		"no file":               {"/f.sha256.txt": digestOf("good")},
		"another file":          {"/f": "evil", "/f.sha256.txt": digestOf("good")},
		"half a digest":         {"/f": "good", "/f.sha256.txt": digestOf("good")[:63]},
		"digits and then words": {"/f": "good", "/f.sha256.txt": "x " + digestOf("good")},
	} {
		s := httptest.NewServer(&published{files: files})
		dir := t.TempDir()
		_, err := Keep(t.Context(), dir, "f", Published(s.URL+"/f"), 0o644, nil)
		s.Close()
		if err == nil || !strings.Contains(err.Error(), "without a network, put the file") {
			t.Errorf("%s: %v", name, err)
		}
		left, _ := filepath.Glob(filepath.Join(dir, "[^.]*"))
		if len(left) > 0 {
			t.Errorf("%s: left behind: %q", name, left)
		}
	}
}
