package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stranger is a user that is not this one.
const stranger = 54321

// needRoot skips a test that gives files away.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("it gives files to another user, which needs root")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A folder is believed only if nobody else can have put anything into it, whatever
// is there: a journal alone, a lock alone, or nothing.
func TestAFolderOfOthersIsNotBelieved(t *testing.T) {
	needRoot(t)
	for name, spoil := range map[string]func(dir string) error{
		"it is another user's":         func(dir string) error { return os.Chown(dir, stranger, stranger) },
		"all can write to it":          func(dir string) error { return os.Chmod(dir, 0o777) },
		"a group can write to it":      func(dir string) error { return errors.Join(os.Chown(dir, -1, stranger), os.Chmod(dir, 0o770)) },
		"its parent is another user's": func(dir string) error { return os.Chown(filepath.Dir(dir), stranger, stranger) },
		"all can write to its parent":  func(dir string) error { return os.Chmod(filepath.Dir(dir), 0o777) },
		"a group can write to its parent": func(dir string) error {
			p := filepath.Dir(dir)
			return errors.Join(os.Chown(p, -1, stranger), os.Chmod(p, 0o775))
		},
		"all can write to one above": func(dir string) error { return os.Chmod(filepath.Dir(filepath.Dir(dir)), 0o777) },
	} {
		for _, file := range []string{"", JournalFile, lockFile, "topology.json"} {
			t.Run(name+"/"+file, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "a", "b", "state")
				must(t, os.MkdirAll(dir, 0o700))
				if file != "" {
					must(t, os.WriteFile(filepath.Join(dir, file), nil, 0o600))
				}
				must(t, spoil(dir))
				_, err := Open(dir)
				var distrust *TrustError
				if !errors.As(err, &distrust) || !strings.Contains(err.Error(), distrust.Path) || distrust.Fix == "" {
					t.Errorf("opening it says %v", err)
				}
			})
		}
	}
}

func TestAFolderInASharedPlaceIsBelieved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tmp")
	must(t, os.Mkdir(dir, 0o700))
	must(t, os.Chmod(dir, 0o777|os.ModeSticky))
	if _, err := Open(filepath.Join(dir, "state")); err != nil {
		t.Errorf("below a sticky folder: %v", err)
	}
	if _, err := Open(dir); err == nil {
		t.Error("the shared folder itself is believed")
	}
}

func TestOnlyAGroupOfOnesOwnMayWrite(t *testing.T) {
	old := [2]string{groupFile, passwdFile}
	t.Cleanup(func() { groupFile, passwdFile = old[0], old[1] })
	dir := t.TempDir()
	groupFile, passwdFile = filepath.Join(dir, "group"), filepath.Join(dir, "passwd")
	must(t, os.WriteFile(passwdFile, []byte("ann:x:1000:1000::/:/bin/sh\nbob:x:1001:100::/:/bin/sh\neve:x:1002:1002::/:/bin/sh\ndan:x:1003:1002::/:/bin/sh\nfay:x:1004:1004::/:/bin/sh\n"), 0o600))
	must(t, os.WriteFile(groupFile, []byte("ann:x:1000:ann\nusers:x:100:\neve:x:1002:\nfay:x:1004:fay,ann\n"), 0o600))
	for _, c := range []struct {
		uid, gid uint32
		want     bool
	}{{1000, 1000, true}, {1001, 100, false}, {1002, 1002, false}, {1004, 1004, false}, {1000, 1004, false}, {1009, 1009, false}} {
		if got := privateGroup(c.uid, c.gid); got != c.want {
			t.Errorf("group %d is the own one of user %d: %v", c.gid, c.uid, got)
		}
	}
}

// What was planted under the name of a file is never a way to another place.
func TestPlantedFilesLeadNowhere(t *testing.T) {
	const text = "not falcon's"
	plants := map[string]func(victim, at string) error{
		"symbolic link": os.Symlink,
		"dangling link": func(victim, at string) error { return os.Symlink(victim+".none", at) },
		"hard link":     os.Link,
		"FIFO":          func(_, at string) error { return unix.Mkfifo(at, 0o600) },
		"folder":        func(_, at string) error { return os.Mkdir(at, 0o700) },
	}
	uses := map[string]func(f *Folder) error{
		"doc":         func(f *Folder) error { return f.WriteFile("doc", []byte("new")) },
		".doc.new":    func(f *Folder) error { return f.WriteFile("doc", []byte("new")) },
		".n0.pid.new": func(f *Folder) error { return f.WriteNote("n0.pid", []byte("new")) },
		"n0.out":      func(f *Folder) error { return useLog(f.OpenLog("n0.out", false)) },
		"n0.err":      func(f *Folder) error { return useLog(f.OpenLog("n0.err", true)) },
		lockFile: func(f *Folder) error {
			unlock, err := f.Lock(t.Context(), "test", nil)
			if err == nil {
				unlock()
			}
			return err
		},
		JournalFile: func(f *Folder) error {
			j, err := f.Journal()
			if err != nil {
				return err
			}
			defer j.Close()
			return j.Make(Object{Kind: Disk, Name: "n0"})
		},
		identityFile: func(f *Folder) error { return f.Establish() },
		"n0.start":   func(f *Folder) error { _, err := f.ReadFile("n0.start"); return err },
	}
	for what, plant := range plants {
		for name, use := range uses {
			t.Run(what+" "+name, func(t *testing.T) {
				f := newFolder(t)
				victim := filepath.Join(t.TempDir(), "victim")
				must(t, os.WriteFile(victim, []byte(text), 0o600))
				must(t, plant(victim, f.File(name)))
				done := make(chan error, 1)
				go func() { done <- use(f) }()
				select {
				case err := <-done: // replaced, or refused
					t.Log(err)
				case <-time.After(deadline):
					t.Fatal("it waits for what was planted")
				}
				if got, err := os.ReadFile(victim); err != nil || string(got) != text && what != "hard link" {
					t.Errorf("the file outside is %q (%v)", got, err)
				}
				if _, err := os.Lstat(victim + ".none"); err == nil {
					t.Error("a file was made outside")
				}
			})
		}
	}
}

func useLog(file *os.File, err error) error {
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = fmt.Fprintln(file, "a line")
	return err
}

// A log that has another name elsewhere is not written to.
func TestAHardLinkIsNotALog(t *testing.T) {
	f := newFolder(t)
	victim := filepath.Join(t.TempDir(), "victim")
	must(t, os.WriteFile(victim, []byte("kept"), 0o600))
	must(t, os.Link(victim, f.File("n0.err")))
	must(t, useLog(f.OpenLog("n0.err", true)))
	if got, err := os.ReadFile(victim); err != nil || string(got) != "kept" {
		t.Errorf("the other name has %q (%v)", got, err)
	}
}

func TestAFileOfOthersIsNotBelieved(t *testing.T) {
	needRoot(t)
	f := newFolder(t)
	for name, spoil := range map[string]func(path string) error{
		"owner": func(path string) error { return os.Chown(path, stranger, stranger) },
		"mode":  func(path string) error { return os.Chmod(path, 0o666) },
	} {
		must(t, f.WriteFile(JournalFile, nil))
		must(t, spoil(f.File(JournalFile)))
		var distrust *TrustError
		if _, err := f.Standing(); !errors.As(err, &distrust) {
			t.Errorf("%s: the journal is believed (%v)", name, err)
		}
		if _, err := f.Journal(); !errors.As(err, &distrust) {
			t.Errorf("%s: the journal is opened (%v)", name, err)
		}
	}
}

func TestNamesWithAPathAreRefused(t *testing.T) {
	r := Registry{Dir: filepath.Join(t.TempDir(), "labs")}
	victim := filepath.Join(filepath.Dir(r.Dir), "victim.json")
	must(t, os.WriteFile(victim, nil, 0o600))
	must(t, os.Mkdir(r.Dir, 0o700))
	for _, id := range []string{"../victim", "", ".", "/etc/passwd", "0123456", "01234567x", "0123456G"} {
		if err := r.Remove(id); err == nil {
			t.Errorf("%q is removed from the list", id)
		}
	}
	f := newFolder(t)
	for _, name := range []string{"../victim.json", "/etc/passwd", "", ".."} {
		if err := f.RemoveFile(name); err == nil {
			t.Errorf("%q is removed", name)
		}
	}
	if _, err := os.Stat(victim); err != nil {
		t.Error(err)
	}
}

func TestAnIdentityIsClaimedOnce(t *testing.T) {
	r := Registry{Dir: filepath.Join(t.TempDir(), "labs")}
	a, b := newFolder(t), newFolder(t)
	b.identity.ID = a.ID()
	for _, f := range []*Folder{a, b} {
		must(t, r.Claim(f, Identity{Topology: "duo", Home: "/home"}))
		must(t, f.Establish())
	}
	if a.ID() == b.ID() || len(list(t, r)) != 2 {
		t.Errorf("two folders are %s and %s, and the list has %v", a.ID(), b.ID(), list(t, r))
	}
	if again := open(t, a.Path()); again.ID() != a.ID() {
		t.Errorf("opened again it is %s, was %s", again.ID(), a.ID())
	}
	if e, err := r.Get(a.ID()); err != nil || !e.Same(PlaceOf(a.Path())) || e.Home != "/home" {
		t.Errorf("listed as %+v (%v)", e, err)
	}
}
