package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/falcon-vm/falcon-go/falcon/internal/fetch"
)

// Known is an image that its makers publish, ready to be imported.
type Known struct {
	Name, Description string
	// URL is where its disk is, raw and compressed with xz. The digest is
	// beside it where its makers publish one.
	URL     string
	Boot    Boot
	Console Console
	OS      string
}

// knownAt is where upstream's falcon gets its images from.
const knownAt = "https://oxide-falcon-assets.s3.us-west-2.amazonaws.com/"

// known are the images that upstream's falcon knows. Both ask for a user on the
// first serial port and take root with an empty password, or without asking for
// one.
var known = []Known{
	{
		Name: "debian-11.0", Description: "Debian 11, as upstream's falcon has it",
		URL: knownAt + "debian-11.0_0.raw.xz", OS: "debian-11",
		Boot:    Boot{Method: BootUEFI},
		Console: Console{Known: true, Login: "login:", User: "root", Prompt: `root@.+# ?$`},
	},
	{
		Name: "helios-2.5", Description: "Helios 2.5, illumos as made by Oxide",
		URL: knownAt + "helios-2.5_0.raw.xz", OS: "helios-2.5",
		Boot:    Boot{Method: BootUEFI},
		Console: Console{Known: true, Login: "login:", User: "root", Prompt: `root@.+# ?$`},
	},
}

// KnownImages lists them by name.
func KnownImages() []Known { return append([]Known(nil), known...) }

// KnownNames lists their names.
func KnownNames() []string {
	var names []string
	for _, k := range known {
		names = append(names, k.Name)
	}
	return names
}

// FindKnown returns the known image of a name.
func FindKnown(name string) (Known, bool) {
	for _, k := range known {
		if k.Name == name {
			return k, true
		}
	}
	return Known{}, false
}

// Fetch makes an image of a known disk, which it downloads. The disk must have
// the given SHA-256 digest, or if that is empty the one that its makers publish.
func Fetch(ctx context.Context, s Store, name, digest string, progress Progress) (Image, error) {
	k, ok := FindKnown(name)
	if !ok {
		return Image{}, &NotFoundError{Name: name, Hint: "fetch knows " + strings.Join(KnownNames(), " and ") +
			"; all others are imported: falcon image import FILE " + name}
	}
	return k.fetch(ctx, s, digest, progress)
}

func (k Known) fetch(ctx context.Context, s Store, digest string, progress Progress) (Image, error) {
	if _, err := s.Get(ctx, k.Name); !errors.Is(err, ErrNotFound) {
		if err == nil {
			err = fmt.Errorf("%w: %q", ErrExists, k.Name)
		}
		return Image{}, err
	}
	fail := func(err error) (Image, error) {
		return Image{}, fmt.Errorf("fetching image %q: %w; without a network, get %s some other way and import it: falcon image import %s %s",
			k.Name, err, k.URL, path.Base(k.URL), k.Name)
	}
	if digest == "" {
		var err error
		digest, err = fetch.Digest(ctx, fetch.Published(k.URL).DigestURL)
		var status *fetch.StatusError
		if errors.As(err, &status) && (status.Status == http.StatusNotFound || status.Status == http.StatusForbidden) {
			err = fmt.Errorf("its makers publish no digest (%w): say which one it must have (--sha256)", err)
		}
		if err != nil {
			return fail(err)
		}
	}
	// Not in the work folder, which builders clear.
	dir := filepath.Join(s.Home(), fetchFolder)
	if err := os.MkdirAll(dir, 0o755); err != nil { // the store itself is for all to read
		return fail(err)
	}
	file := filepath.Join(dir, path.Base(k.URL))
	unlock, err := fetch.Lock(ctx, file)
	if err != nil {
		return fail(err)
	}
	defer unlock()
	defer os.Remove(file)
	report := func(done, total int64) {
		progress.Report(Step{What: "downloading", Bytes: true, Done: done, Total: total})
	}
	if err := fetch.File(ctx, k.URL, digest, file, report); err != nil {
		return fail(explainSpace(err, s.Home()))
	}
	return Import(ctx, s, file, k.Name, ImportOptions{SHA256: digest, Boot: k.Boot, Console: k.Console, OS: k.OS, Progress: progress})
}
