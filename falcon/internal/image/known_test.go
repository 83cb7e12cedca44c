package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"
)

// published serves a known image with its digest, or without one.
func published(t *testing.T, disk []byte, withDigest bool) Known {
	t.Helper()
	var packed bytes.Buffer
	w, err := xz.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(disk); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(packed.Bytes())
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/helios-2.5_0.raw.xz":
			_, _ = w.Write(packed.Bytes())
		case r.URL.Path == "/helios-2.5_0.raw.xz.sha256.txt" && withDigest:
			_, _ = w.Write([]byte(hex.EncodeToString(sum[:]) + "\n"))
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	k, ok := FindKnown("helios-2.5")
	if !ok {
		t.Fatal("helios-2.5 is not known")
	}
	k.URL = s.URL + "/helios-2.5_0.raw.xz"
	return k
}

func TestAKnownImageIsFetchedAndImported(t *testing.T) {
	s, err := OpenFiles(Options{Home: t.TempDir(), System: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	k := published(t, testDisk(t), true)
	img, err := k.fetch(t.Context(), s, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if img.OS != "helios-2.5" || img.Boot.Method != BootUEFI || img.Console != k.Console || img.VirtualSize != 4<<20 {
		t.Errorf("%+v", img)
	}
	if left, _ := filepath.Glob(filepath.Join(s.Home(), "fetch", "[^.]*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if _, err := k.fetch(t.Context(), s, "", nil); !errors.Is(err, ErrExists) {
		t.Errorf("fetched again: %v", err)
	}
}

func TestAnImageWithoutItsDigestIsNotTaken(t *testing.T) {
	for name, tt := range map[string]struct{ digest, want string }{
		"none is published": {"", "publish no digest"},
		"another one":       {strings.Repeat("0", 64), "wanted is 0000"},
	} {
		s, err := OpenFiles(Options{Home: t.TempDir(), System: []string{}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = published(t, testDisk(t), false).fetch(t.Context(), s, tt.digest, nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "falcon image import helios-2.5_0.raw.xz helios-2.5") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(s.Home(), "img", "helios-2.5")); err == nil {
			t.Errorf("%s: it is there", name)
		}
	}
}

func TestKnownImagesCanBeImported(t *testing.T) {
	for _, k := range KnownImages() {
		if err := ValidName(k.Name); err != nil || formatOf(k.URL) != "raw" || k.OS == "" || !k.Console.Known {
			t.Errorf("%+v: %v", k, err)
		}
	}
}
