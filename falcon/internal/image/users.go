package image

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/falcon-vm/falcon-go/internal/printable"
)

// A store of the system does not see what its users put on its images. So each
// home leaves a note of that, its claims, in a folder of that store: a file for
// each home, whose owner proves whose home it is. Nobody can list the folder but
// its owner, so nobody can take the name of another's file.
//
// The store's owner believes a claim only as far as the home bears it out, which
// is read as what a stranger may have written: it can have an image stay, and
// nothing else.
const (
	usersFolder = "users"
	usersMode   = 0o733 | fs.ModeSticky
	// tokenFile is in a home, and has the part of its claims' name that
	// nobody guesses.
	tokenFile = "claims.name"
)

// claims is the file of a home in the folder of users.
type claims struct {
	Version int    `json:"version"`
	Home    string `json:"home"`
	// Images are the folders of the images that it uses.
	Images []string `json:"images"`

	path string // empty for what nobody claims
	uid  uint32
}

// claim has it known that something of this home comes to stand on an image.
// The claims are not given up again until done is called.
func (s *Files) claim(ctx context.Context, img Image) (done func(), err error) {
	foreign, err := s.foreign(img)
	if err != nil || len(foreign) == 0 {
		return func() {}, err
	}
	l, err := acquire(ctx, s.claimsLock(), false)
	if err != nil {
		return nil, err
	}
	for _, dir := range foreign {
		if err := s.claimIn(ctx, dir); err != nil {
			l.release()
			return nil, fmt.Errorf("telling the owner of %s that it is used: %w", dir, err)
		}
	}
	return l.release, nil
}

func (s *Files) claimsLock() string { return filepath.Join(s.home, "lock", "claims") }

// foreign lists the folders of an image, and of those that it stands on, that
// are of other homes.
func (s *Files) foreign(img Image) ([]string, error) {
	var dirs []string
	ref := &parentRef{Dir: img.Dir}
	for range maxDepth {
		if filepath.Dir(ref.Dir) != filepath.Join(s.home, "img") {
			dirs = append(dirs, ref.Dir)
		}
		r, err := readBase(ref.Dir)
		if err != nil || r.Parent == nil {
			return dirs, err
		}
		ref = r.Parent
	}
	return dirs, nil
}

// claimIn notes the use of an image in its store, unless that is noted, or the
// store has no place for it.
func (s *Files) claimIn(ctx context.Context, dir string) error {
	users := filepath.Join(filepath.Dir(filepath.Dir(dir)), usersFolder)
	if !exists(users) {
		return nil
	}
	c, err := s.ownClaims(users)
	if err != nil || slices.Contains(c.Images, dir) {
		return err
	}
	// Others may be about to note another image in the same file.
	l, err := acquire(ctx, s.claimsLock()+".change", true)
	if err != nil {
		return err
	}
	defer l.release()
	if c, err = s.ownClaims(users); err != nil || slices.Contains(c.Images, dir) {
		return err
	}
	c.Images = append(c.Images, dir)
	return writeJSON(c.path, c, 0o600)
}

// ownClaims returns the claims of this home in a folder of users.
func (s *Files) ownClaims(users string) (claims, error) {
	token, err := s.token()
	if err != nil {
		return claims{}, err
	}
	c := claims{path: filepath.Join(users, fmt.Sprintf("%d-%s", os.Geteuid(), token))}
	if err := readJSON(c.path, &c); err != nil {
		c.Images = nil // none yet, or damaged: written anew
	}
	c.Version, c.Home = recordVersion, s.home
	return c, nil
}

var tokenRE = regexp.MustCompile(`^[0-9a-f]{32}$`)

// token returns what tells this home's claims from those of others. The first of
// several that want it at once makes it for all.
func (s *Files) token() (string, error) {
	path := filepath.Join(s.home, tokenFile)
	for range 2 {
		data, err := os.ReadFile(path)
		if token := strings.TrimSpace(string(data)); err == nil && tokenRE.MatchString(token) {
			return token, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		secret := make([]byte, 16)
		_, _ = rand.Read(secret) // never fails, by its documentation
		l, err := acquire(context.Background(), filepath.Join(s.home, "lock", tokenFile), true)
		if err != nil {
			return "", err
		}
		if other, rerr := os.ReadFile(path); rerr != nil || !tokenRE.MatchString(strings.TrimSpace(string(other))) {
			err = replaceFile(path, 0o600, func(f *os.File) error {
				_, err := fmt.Fprintln(f, hex.EncodeToString(secret))
				return err
			})
		}
		l.release()
		if err != nil {
			return "", err
		}
	}
	return "", fmt.Errorf("%s cannot be read back", path)
}

// disclaim gives up the claims of which nothing is left. If something comes to
// stand somewhere at this moment, that is left to a later call.
func (s *Files) disclaim(ctx context.Context) error {
	if !exists(filepath.Join(s.home, tokenFile)) {
		return nil
	}
	l, busy, err := tryLock(s.claimsLock())
	if busy || err != nil {
		return err
	}
	defer l.release()
	for _, home := range s.system {
		if err := s.disclaimIn(ctx, filepath.Join(home, usersFolder)); err != nil {
			return fmt.Errorf("giving up what is noted in %s: %w", home, err)
		}
	}
	return nil
}

func (s *Files) disclaimIn(ctx context.Context, users string) error {
	if !exists(users) {
		return nil
	}
	c, err := s.ownClaims(users)
	if err != nil || len(c.Images) == 0 {
		return err
	}
	var used []string
	for _, dir := range c.Images {
		by, err := s.usedHere(ctx, dir)
		if err != nil {
			return err
		}
		if len(by) > 0 {
			used = append(used, dir)
		}
	}
	switch {
	case len(used) == len(c.Images):
		return nil
	case len(used) == 0:
		return removeIfThere(c.path)
	}
	c.Images = used
	return writeJSON(c.path, c, 0o600)
}

const (
	// lookDeadline bounds the look into all homes: one may be on a server that
	// does not answer.
	lookDeadline = 10 * time.Second
	// maxClaims, maxHomes, maxRecords and maxForeign bound what a user can
	// have the owner of a store read: files of claims, homes of one user,
	// files of one home, and the size of a file.
	maxClaims  = 4096
	maxHomes   = 16
	maxRecords = 20000
	maxForeign = 1 << 20
)

// usedElsewhere describes what stands in other homes on an image of this store.
// A home into which nobody can look counts: not knowing is no reason to have a
// disk lose what it stands on.
func (s *Files) usedElsewhere(ctx context.Context, dir string) ([]string, error) {
	all, err := readClaims(filepath.Join(s.home, usersFolder))
	if err != nil {
		return nil, fmt.Errorf("who uses it in other homes: %w", err)
	}
	if s.home == SystemHome {
		all = append(all, usualHomes(dir, all)...)
	}
	ctx, cancel := context.WithTimeout(ctx, lookDeadline)
	defer cancel()
	by := make([][]string, len(all))
	homes := make(map[uint32]int)
	var wg sync.WaitGroup
	for i, c := range all {
		if !slices.Contains(c.Images, dir) {
			continue
		}
		if homes[c.uid]++; homes[c.uid] > maxHomes {
			by[i] = []string{c.unknown(fmt.Errorf("the user has more than %d homes", maxHomes))}
			continue
		}
		wg.Go(func() {
			var err error
			if by[i], err = c.look(ctx, dir); err != nil && c.path != "" {
				by[i] = []string{c.unknown(err)}
			}
		})
	}
	wg.Wait()
	return slices.Concat(by...), nil
}

// halfClaimsRE matches what a user has left who was killed while he noted
// something: nobody but the owner of the store sees it.
var halfClaimsRE = regexp.MustCompile(`^\.[0-9]{1,10}-[0-9a-f]{32}\.new-[0-9]+$`)

// claimWrites is how long the writing of claims never takes.
const claimWrites = time.Hour

// halfClaims lists what was left in a folder of users.
func halfClaims(users string) []string {
	if !isOwnFolder(users) {
		return nil
	}
	entries, _ := os.ReadDir(users)
	var left []string
	for _, e := range entries {
		if info, err := e.Info(); err == nil && halfClaimsRE.MatchString(e.Name()) && time.Since(info.ModTime()) > claimWrites {
			left = append(left, filepath.Join(users, e.Name()))
		}
	}
	return left
}

var claimsRE = regexp.MustCompile(`^([0-9]{1,10})-[0-9a-f]{32}$`)

// readClaims reads what is in a folder of users. Files that are not what their
// names say are nobody's.
func readClaims(users string) ([]claims, error) {
	root, err := os.OpenRoot(users)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer root.Close()
	names, err := foreignNames(root, ".", maxClaims)
	if err != nil {
		return nil, err
	}
	var all []claims
	for _, name := range names {
		m := claimsRE.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		uid, err := strconv.ParseUint(m[1], 10, 32)
		if err != nil {
			continue
		}
		c := claims{path: filepath.Join(users, name), uid: uint32(uid)}
		if readForeign(root, name, c.uid, &c) == nil && filepath.IsAbs(c.Home) {
			all = append(all, c)
		}
	}
	return all, nil
}

// usualHomes lists the homes of the host's users that claim nothing, as if they
// claimed an image: they may have disks of before there were claims.
func usualHomes(dir string, claiming []claims) []claims {
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return nil
	}
	var all []claims
	for line := range strings.Lines(string(passwd)) {
		f := strings.Split(line, ":")
		if len(f) < 7 || len(all) == maxClaims {
			continue
		}
		uid, err := strconv.ParseUint(f[2], 10, 32)
		home := filepath.Join(f[5], ".local", "share", "falcon")
		if err != nil || !filepath.IsAbs(home) || slices.ContainsFunc(claiming, func(c claims) bool { return c.Home == home }) {
			continue
		}
		all = append(all, claims{Home: home, Images: []string{dir}, uid: uint32(uid)})
	}
	return all
}

func (c *claims) user() string { return fmt.Sprintf("user %d", c.uid) }

// unknown describes a home into which nobody can look.
func (c *claims) unknown(err error) string {
	return fmt.Sprintf("%s, as far as can be told: the home %q cannot be looked into (%v; if it is gone for good: rm %s)", c.user(), c.Home, err, printable.Word(c.path))
}

// look is lookInto, which may hang with the file system that the home is on.
func (c *claims) look(ctx context.Context, dir string) ([]string, error) {
	type result struct {
		by  []string
		err error
	}
	seen := make(chan result, 1)
	go func() {
		by, err := c.lookInto(ctx, dir)
		seen <- result{by, err}
	}()
	select {
	case r := <-seen:
		return r.by, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("it was not read within %v", lookDeadline)
	}
}

// lookInto describes what stands in a home on an image of another one.
func (c *claims) lookInto(ctx context.Context, dir string) ([]string, error) {
	info, err := os.Stat(c.Home) // OpenRoot would wait for the other end of a pipe
	if err == nil && !info.IsDir() {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, err
	}
	home, err := os.OpenRoot(c.Home)
	if err != nil {
		return nil, err
	}
	defer home.Close()
	if info, err := home.Stat("."); err != nil || !ownedBy(info, c.uid) {
		return nil, err // not the home of who claims: it says nothing
	}
	h := foreignHome{home: home, claims: c, on: map[string]bool{}}
	if err := h.images(ctx, dir); err != nil {
		return nil, err
	}
	return h.by, h.disks(ctx, dir)
}

// foreignHome is a home of somebody else while it is looked into.
type foreignHome struct {
	home   *os.Root
	claims *claims
	read   int             // files so far
	on     map[string]bool // names of its own images that lead to the image
	by     []string
}

// stands tells whether what refers to an image leads to the image in dir.
func (h *foreignHome) stands(ref parentRef, dir string) bool {
	return ref.Dir == dir || h.on[filepath.Base(ref.Dir)]
}

// images finds the home's images that stand on the image in dir. Templates are
// none that anybody knows: what stands on them matters.
func (h *foreignHome) images(ctx context.Context, dir string) error {
	names, err := foreignNames(h.home, "img", maxRecords)
	if err != nil {
		return err
	}
	parents := make(map[string]record)
	for _, name := range names {
		for _, file := range []string{recordFile, pendingFile} {
			var r record
			if found, err := h.record(ctx, filepath.Join("img", name, file), &r); err != nil {
				return err
			} else if found && r.Parent != nil {
				parents[name] = r
				break
			}
		}
	}
	for grown := true; grown; {
		grown = false
		for name, r := range parents {
			if h.on[name] || !h.stands(*r.Parent, dir) {
				continue
			}
			h.on[name], grown = true, true
			if r.Template == nil {
				h.add(fmt.Sprintf("image %.80q", name))
			}
		}
	}
	slices.Sort(h.by)
	return nil
}

// disks finds the home's disks that stand on the image in dir.
func (h *foreignHome) disks(ctx context.Context, dir string) error {
	labs, err := foreignNames(h.home, "topo", maxRecords)
	if err != nil {
		return err
	}
	for _, lab := range labs {
		files, err := foreignNames(h.home, filepath.Join("topo", lab), maxRecords)
		if err != nil && !errors.Is(err, syscall.ENOTDIR) {
			return err
		}
		for _, file := range files {
			if strings.HasPrefix(file, ".") || filepath.Ext(file) != ".json" {
				continue
			}
			var r diskRecord
			if found, err := h.record(ctx, filepath.Join("topo", lab, file), &r); err != nil {
				return err
			} else if found && h.stands(r.Image, dir) {
				h.add(fmt.Sprintf("node %.80q of topology %.80q (%.300q)", r.Owner.Node, r.Owner.Topology, r.Owner.Folder))
			}
		}
	}
	return nil
}

func (h *foreignHome) add(what string) { h.by = append(h.by, h.claims.user()+": "+what) }

// record reads a record of the home. What is none is not found.
func (h *foreignHome) record(ctx context.Context, path string, into any) (found bool, err error) {
	if h.read++; h.read > maxRecords {
		return false, fmt.Errorf("it has more than %d records", maxRecords)
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	return readForeign(h.home, path, h.claims.uid, into) == nil, nil
}

// foreignNames lists a folder of somebody else's, which may not be there.
func foreignNames(root *os.Root, path string, most int) ([]string, error) {
	f, err := root.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(most + 1)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	case len(names) > most:
		return nil, fmt.Errorf("%s has more than %d entries", path, most)
	}
	slices.Sort(names)
	return names, nil
}

// readForeign reads a document that belongs to a user, who may have put anything
// in its place.
func readForeign(root *os.Root, path string, uid uint32, into any) error {
	f, err := root.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || !ownedBy(info, uid) || info.Size() > maxForeign {
		return fmt.Errorf("%s is no record of user %d", path, uid)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxForeign))
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

func ownedBy(info fs.FileInfo, uid uint32) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Uid == uid
}
