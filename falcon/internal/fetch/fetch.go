// Package fetch downloads files whose digests are published beside them, and
// keeps them for use without a network.
package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/state"
)

const (
	dialWait   = 15 * time.Second
	answerWait = 30 * time.Second
	// stallWait is how long a download may stand still.
	stallWait = time.Minute
	// maxDigest bounds the size of a digest's file, in bytes.
	maxDigest = 4 << 10
)

var client = &http.Client{Transport: &http.Transport{
	Proxy:                 http.ProxyFromEnvironment,
	DialContext:           (&net.Dialer{Timeout: dialWait}).DialContext,
	TLSHandshakeTimeout:   dialWait,
	ResponseHeaderTimeout: answerWait,
}}

// Source says where a file and its digest are published.
type Source struct{ URL, DigestURL string }

// Published is the usual place of a digest: beside the file.
func Published(url string) Source { return Source{url, url + ".sha256.txt"} }

// DigestError says that what was read is not what its digest says.
type DigestError struct{ Of, Want, Got string }

func (e *DigestError) Error() string {
	return fmt.Sprintf("%s has the SHA-256 digest %s, wanted is %s: it is damaged or another one", e.Of, e.Got, e.Want)
}

// StatusError says that a server answered with something else than the file.
type StatusError struct {
	URL    string
	Status int
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s: %d %s", e.URL, e.Status, http.StatusText(e.Status))
}

// Digest reads a published SHA-256 digest: 64 hex digits, which a file's name
// may follow.
func Digest(ctx context.Context, url string) (string, error) {
	body, _, err := get(ctx, url)
	if err != nil {
		return "", err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, maxDigest))
	if err != nil {
		return "", fmt.Errorf("%s: %w", url, err)
	}
	digest, err := parseDigest(string(text))
	if err != nil {
		return "", fmt.Errorf("%s: %w", url, err)
	}
	return digest, nil
}

func parseDigest(text string) (string, error) {
	words := strings.Fields(text)
	if len(words) > 0 {
		if raw, err := hex.DecodeString(words[0]); err == nil && len(raw) == sha256.Size {
			return strings.ToLower(words[0]), nil
		}
	}
	return "", fmt.Errorf("there is no SHA-256 digest in it, but %.40q", text)
}

// Progress is told how much of a file there is, and how much there will be, 0
// if that is not known.
type Progress func(done, total int64)

// File downloads a file that has the given digest. If anything is wrong, there
// is no file at path.
func File(ctx context.Context, url, digest, path string, progress Progress) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	body, size, err := get(ctx, url)
	if err != nil {
		return err
	}
	defer body.Close()
	part := path + ".part"
	out, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(part))
		}
	}()
	sum := sha256.New()
	stall := time.AfterFunc(stallWait, func() { cancel(fmt.Errorf("nothing came for %v", stallWait)) })
	defer stall.Stop()
	in := &meter{r: body, total: max(size, 0), progress: progress, moved: func() { stall.Reset(stallWait) }}
	_, err = io.Copy(io.MultiWriter(out, sum), in)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != strings.ToLower(digest) {
		return &DigestError{Of: url, Want: digest, Got: got}
	}
	return os.Rename(part, path)
}

func get(ctx context.Context, url string) (io.ReadCloser, int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, 0, &StatusError{url, resp.StatusCode}
	}
	return resp.Body, resp.ContentLength, nil
}

// meter counts what is read.
type meter struct {
	r           io.Reader
	done, total int64
	progress    Progress
	moved       func()
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.moved()
	m.done += int64(n)
	if m.progress != nil {
		m.progress(m.done, m.total)
	}
	return n, err
}

// Keep returns the path of a file in dir that is fetched once, with its digest,
// and kept. Each call compares the kept file with the kept digest; only when one
// of the two is not there the network is needed.
func Keep(ctx context.Context, dir, name string, from Source, mode os.FileMode, progress Progress) (string, error) {
	path := filepath.Join(dir, name)
	if Kept(dir, name) {
		return path, verify(path)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	folder, err := state.Open(dir)
	if err != nil {
		return "", err
	}
	unlock, err := Lock(ctx, path)
	if err != nil {
		return "", err
	}
	defer unlock()
	if Kept(dir, name) { // meanwhile
		return path, verify(path)
	}
	digest, err := Digest(ctx, from.DigestURL)
	if err == nil {
		err = File(ctx, from.URL, digest, path, progress)
	}
	if err == nil {
		err = os.Chmod(path, mode)
	}
	if err == nil {
		err = folder.WriteFile(filepath.Base(digestFile(path)), []byte(digest+"\n"))
	}
	if err != nil {
		return "", fmt.Errorf("fetching %s: %w; without a network, put the file from %s there as %s, and its digest from %s as %s",
			name, err, from.URL, path, from.DigestURL, digestFile(path))
	}
	return path, nil
}

// Lock keeps others from fetching the file at path until unlock is called.
func Lock(ctx context.Context, path string) (unlock func(), err error) {
	folder, err := state.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	name := filepath.Base(path)
	return folder.LockFile(ctx, "."+name+".lock", "fetching "+name, nil)
}

// Kept reports whether a file and its digest are there.
func Kept(dir, name string) bool {
	path := filepath.Join(dir, name)
	_, err := os.Stat(path)
	_, derr := os.Stat(digestFile(path))
	return err == nil && derr == nil
}

func digestFile(path string) string { return path + ".sha256.txt" }

// verify compares a kept file with its kept digest.
func verify(path string) error {
	text, err := os.ReadFile(digestFile(path))
	if err != nil {
		return err
	}
	want, err := parseDigest(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", digestFile(path), err)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != want {
		return fmt.Errorf("%w; remove both (%s, %s), and they are fetched again", &DigestError{Of: path, Want: want, Got: got}, path, digestFile(path))
	}
	return nil
}
