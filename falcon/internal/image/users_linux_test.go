package image

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	stranger  = 54321
	actEnv    = "FALCON_TEST_ACT"
	homeEnv   = "FALCON_TEST_HOME"
	systemEnv = "FALCON_TEST_SYSTEM"
)

// TestAct is no test: it is what another.acts has another user do.
func TestAct(t *testing.T) {
	what := os.Getenv(actEnv)
	if what == "" {
		return
	}
	s, err := OpenFiles(Options{Home: os.Getenv(homeEnv), System: []string{os.Getenv(systemEnv)}})
	if err != nil {
		t.Fatal(err)
	}
	verb, of, _ := strings.Cut(what, " ")
	switch verb {
	case "disk":
		err = s.CreateDisk(t.Context(), owner("violin"), of, DiskOptions{})
	case "snapshot":
		_, err = s.Snapshot(t.Context(), owner("violin"), of, nil)
	case "template":
		addTemplate(t, s, of, "base")
	case "remove":
		err = errors.Join(s.RemoveDisk(t.Context(), owner("violin")))
		if of != "" {
			err = errors.Join(err, s.Remove(t.Context(), of))
		}
	case "verify":
		err = s.VerifyDisk(t.Context(), owner("violin"))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// another is a home of another user, beside the store of the system.
type another struct {
	t            *testing.T
	system, home string
}

// newAnother returns a system's store with the image base, and a home of another
// user.
func newAnother(t *testing.T) (*Files, *another) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("it acts as another user, which needs root")
	}
	dir, err := os.MkdirTemp("", "falcon-users-") // not t.TempDir, into which other users do not get
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	home := filepath.Join(dir, "home")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(home, 0o700), os.Chown(home, stranger, stranger)); err != nil {
		t.Fatal(err)
	}
	s, err := OpenFiles(Options{Home: filepath.Join(dir, "system"), System: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	addImage(t, s, "base", "hello")
	return s, &another{t, s.Home(), home}
}

// acts has the other user do something.
func (a *another) acts(what string) {
	a.t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestAct$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), actEnv+"="+what, homeEnv+"="+a.home, systemEnv+"="+a.system)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger, Gid: stranger}}
	if out, err := cmd.CombinedOutput(); err != nil {
		a.t.Fatalf("as another user, %s: %v\n%s", what, err, out)
	}
}

// TestAnImageThatAnotherUserNeedsStays: in use means by anybody.
func TestAnImageThatAnotherUserNeedsStays(t *testing.T) {
	for name, tt := range map[string]struct {
		acts []string
		want string // by whom it is used
		ends []string
	}{
		"a disk":               {[]string{"disk base"}, `node "violin" of topology "duo"`, []string{"remove"}},
		"an image of a disk":   {[]string{"disk base", "snapshot own", "remove"}, `image "own"`, []string{"remove own"}},
		"a disk on a template": {[]string{"template k1", "disk .warm-k1"}, `node "violin"`, []string{"remove"}},
		"a template alone":     {[]string{"template k1"}, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			s, other := newAnother(t)
			for _, what := range tt.acts {
				other.acts(what)
			}
			if tt.want != "" {
				err := s.Remove(t.Context(), "base")
				var used *InUseError
				if !errors.As(err, &used) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), fmt.Sprint("user ", stranger)) {
					t.Fatalf("Remove = %v, want it in use by %s of user %d", err, tt.want, stranger)
				}
				if _, err := s.Get(t.Context(), "base"); err != nil {
					t.Fatalf("the image has gone all the same: %v", err)
				}
				if by, err := s.UsedBy(t.Context(), Image{Name: "base", Dir: s.imageDir("base")}); err != nil || len(by) == 0 {
					t.Errorf("UsedBy = %v, %v", by, err)
				}
			}
			for _, what := range tt.ends {
				other.acts(what)
			}
			if err := s.Remove(t.Context(), "base"); err != nil {
				t.Errorf("when nobody needs it any more: %v", err)
			}
		})
	}
}

// TestClaimsOfOneMomentAreAllKept: nodes of a lab get their disks at once.
func TestClaimsOfOneMomentAreAllKept(t *testing.T) {
	system := testStore(t)
	if err := system.prepare(); err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(system.Home(), usersFolder)
	if err := os.MkdirAll(users, 0o700); err != nil { // made by root alone
		t.Fatal(err)
	}
	s := testStore(t, system.Home())
	const images = 8
	for i := range images {
		addImage(t, system, fmt.Sprint("image", i), "hello")
	}
	var making sync.WaitGroup
	for i := range images {
		making.Go(func() {
			if err := s.CreateDisk(t.Context(), owner(fmt.Sprint("n", i)), fmt.Sprint("image", i), DiskOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	making.Wait()
	for i := range images {
		if err := system.Remove(t.Context(), fmt.Sprint("image", i)); !errors.As(err, new(*InUseError)) {
			t.Errorf("image %d: %v", i, err)
		}
	}
}

func TestAUserOfBeforeThereWereClaimsIsKnownFromHisNextLaunch(t *testing.T) {
	s, other := newAnother(t)
	users := filepath.Join(s.Home(), usersFolder)
	if err := os.RemoveAll(users); err != nil {
		t.Fatal(err)
	}
	other.acts("disk base")
	if err := s.prepare(); err != nil {
		t.Fatal(err)
	}
	other.acts("verify")
	if err := s.Remove(t.Context(), "base"); !errors.As(err, new(*InUseError)) {
		t.Errorf("Remove = %v", err)
	}
}

// TestAnImageThatIsOpenStays: a hypervisor's user may have told nobody.
func TestAnImageThatIsOpenStays(t *testing.T) {
	s := testStore(t)
	img := addImage(t, s, "base", "hello")
	f, err := os.Open(img.Disk)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "base"); !errors.As(err, new(*InUseError)) || !strings.Contains(err.Error(), fmt.Sprint("process ", os.Getpid())) {
		t.Errorf("Remove = %v", err)
	}
	f.Close()
	if err := s.Remove(t.Context(), "base"); err != nil {
		t.Error(err)
	}
}

// plant writes files of the other user: what ends in a slash is a folder.
func (a *another) plant(files map[string]string) {
	a.t.Helper()
	for name, content := range files {
		path := filepath.Join(a.home, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		switch {
		case strings.HasPrefix(content, "-> "):
			err = errors.Join(err, os.Symlink(content[3:], path))
		case content == "fifo":
			err = errors.Join(err, syscall.Mkfifo(path, 0o644))
		case content == "huge":
			err = errors.Join(err, os.WriteFile(path, nil, 0o644), os.Truncate(path, 1<<40))
		default:
			err = errors.Join(err, os.WriteFile(path, []byte(content), 0o644))
		}
		if err != nil {
			a.t.Fatal(err)
		}
	}
	if out, err := exec.Command("chown", "-hR", fmt.Sprint(stranger), a.home).CombinedOutput(); err != nil {
		a.t.Fatalf("%v: %s", err, out)
	}
}

// claim writes what a user claims.
func (a *another) claim(name, content string) {
	a.t.Helper()
	path := filepath.Join(a.system, usersFolder, name)
	if err := errors.Join(os.WriteFile(path, []byte(content), 0o600), os.Chown(path, stranger, stranger)); err != nil {
		a.t.Fatal(err)
	}
}

const token = "0123456789abcdef0123456789abcdef"

// TestWhatStrangersWriteOnlyHasAnImageStay: it is not followed, not waited for
// and not believed beyond that.
func TestWhatStrangersWriteOnlyHasAnImageStay(t *testing.T) {
	mine := fmt.Sprintf("%d-%s", stranger, token)
	claimed := func(home, base string) string {
		return fmt.Sprintf(`{"version":1,"home":%q,"images":[%q]}`, home, base)
	}
	disk := func(base string) string {
		return fmt.Sprintf(`{"version":1,"owner":{"id":"t1","topology":"duo\u001b[31m","folder":"/x\u0007","node":"n"},"image":{"name":"base","dir":%q}}`, base)
	}
	for name, tt := range map[string]struct {
		claim func(a *another, base string)
		files func(base string) map[string]string
		stays bool
	}{
		"a disk": {files: func(base string) map[string]string { return map[string]string{"topo/t1/n.json": disk(base)} }, stays: true},
		"records that are none": {files: func(base string) map[string]string {
			return map[string]string{
				"topo/t1/a.json": "fifo", "topo/t1/b.json": "huge", "topo/t1/c.json": "-> c.json", "topo/t1/d.json": "-> /etc/shadow",
				"topo/t1/e.json": "{", "topo/t1/f.json": `{"image":7}`, "topo/file": "x", "img/loop": "-> .", "img/x/image.json": "fifo",
			}
		}},
		"a folder that is a pipe": {files: func(string) map[string]string { return map[string]string{"topo": "fifo"} }, stays: true},
		"images in a circle": {files: func(base string) map[string]string {
			return map[string]string{
				"img/a/image.json": `{"parent":{"name":"b","dir":"/h/img/b"}}`, "img/b/image.json": `{"parent":{"name":"a","dir":"/h/img/a"}}`,
			}
		}},
		"a home that is gone": {claim: func(a *another, base string) { a.claim(mine, claimed("/nowhere", base)) }, stays: true},
		"a home of root's":    {claim: func(a *another, base string) { a.claim(mine, claimed("/etc", base)) }},
		"a home that is a pipe": {claim: func(a *another, base string) {
			a.plant(map[string]string{"pipe": "fifo"})
			a.claim(mine, claimed(a.home+"/pipe", base))
		}, stays: true},
		"a claim for another user": {claim: func(a *another, base string) { a.claim("0-"+token, claimed("/nowhere", base)) }},
		"a name that is none":      {claim: func(a *another, base string) { a.claim("x", claimed("/nowhere", base)) }},
		"a huge claim": {claim: func(a *another, base string) {
			a.claim(mine, "")
			if err := os.Truncate(filepath.Join(a.system, usersFolder, mine), 1<<40); err != nil {
				a.t.Fatal(err)
			}
		}},
		"a claim that is a link": {claim: func(a *another, base string) {
			path := filepath.Join(a.system, usersFolder, mine)
			if err := errors.Join(os.Symlink("/etc/passwd", path), os.Lchown(path, stranger, stranger)); err != nil {
				a.t.Fatal(err)
			}
		}},
		"more homes than anybody has": {claim: func(a *another, base string) {
			for i := range maxHomes + 1 {
				a.claim(fmt.Sprintf("%d-%032x", stranger, i), claimed(a.home, base))
			}
		}, stays: true},
	} {
		t.Run(name, func(t *testing.T) {
			s, other := newAnother(t)
			base := s.imageDir("base")
			if tt.files != nil {
				other.plant(tt.files(base))
			}
			if tt.claim == nil {
				other.claim(mine, claimed(other.home, base))
			} else {
				tt.claim(other, base)
			}
			begun := time.Now()
			err := s.Remove(t.Context(), "base")
			if used := errors.As(err, new(*InUseError)); used != tt.stays || err != nil && !used {
				t.Errorf("Remove = %v, want it to stay: %v", err, tt.stays)
			}
			if took := time.Since(begun); took > lookDeadline/2 {
				t.Errorf("it took %v", took)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\x1b\x07") {
				t.Errorf("control characters of a stranger are in %q", err)
			}
		})
	}
}

// TestHalfWrittenClaimsAreLeftovers after a time in which they might be finished.
func TestHalfWrittenClaimsAreLeftovers(t *testing.T) {
	s, other := newAnother(t)
	name := "." + fmt.Sprint(stranger) + "-" + token + ".new-7"
	other.claim(name, "{")
	if all, err := s.Abandoned(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("at once: %+v, %v", all, err)
	}
	path := filepath.Join(s.Home(), usersFolder, name)
	old := time.Now().Add(-2 * claimWrites)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Abandoned(t.Context()); err != nil || len(all) != 1 || all[0].Name != path {
		t.Errorf("later: %+v, %v", all, err)
	}
}

// TestARemovalThatWasCutShort: it is finished, or the image comes back if somebody
// needs it.
func TestARemovalThatWasCutShort(t *testing.T) {
	for _, used := range []bool{false, true} {
		s, other := newAnother(t)
		dir := s.imageDir("base")
		if used {
			other.acts("disk base")
		}
		if err := os.Rename(filepath.Join(dir, recordFile), filepath.Join(dir, removedFile)); err != nil {
			t.Fatal(err)
		}
		all, err := s.Abandoned(t.Context())
		if err != nil || len(all) != 1 || all[0].Name != dir {
			t.Fatalf("Abandoned = %+v, %v", all, err)
		}
		if err := all[0].Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		if there := exists(filepath.Join(dir, recordFile)); there != used || exists(dir) != used {
			t.Errorf("used %v: there %v", used, there)
		}
	}
}
