package confine

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// Levels that this host refuses are no failure, but of the least there is always
// one.
func TestLevels(t *testing.T) {
	for level := Full; level <= Least; level++ {
		err := try(level)
		if errors.Is(err, ErrUnavailable) && level != Least {
			t.Logf("%s: %v", level, err)
		} else if err != nil {
			t.Errorf("%s: %v", level, err)
		}
	}
	level, why := Probe()
	if (level == Full) != (why == nil) {
		t.Errorf("the level is %s because of %v", level, why)
	}
}

// What is wrong with what is handed in is no reason to confine a program less.
func TestAMissingFolderIsNoReasonForLess(t *testing.T) {
	for _, path := range []string{"/is/not/there", "/dev/null/file"} {
		err := start(Config{Path: "/bin/true", IDBase: FirstID, Mounts: append(System(""), Mount{Source: path, Target: "/x"})})
		if err == nil || errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), path) {
			t.Errorf("a folder that is not there: %v", err)
		}
	}
	err := start(Config{Path: "/is/not/there", IDBase: FirstID, Mounts: System("")})
	if err == nil || errors.Is(err, ErrUnavailable) {
		t.Errorf("a program that is not there: %v", err)
	}
}

// A folder that the program's user may not read is refused with the remedy.
func TestAFolderThatCannotBeReadIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a user's program reads what the user reads")
	}
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(dir, 0o700), os.Chown(dir, IDs+1, IDs+1)); err != nil {
		t.Fatal(err)
	}
	err := start(Config{Path: "/bin/true", IDBase: FirstID, Mounts: append(System(""), Mount{Source: dir, Target: "/x", Owned: true})})
	if err == nil || !strings.Contains(err.Error(), "chmod -R o+rX "+dir) {
		t.Errorf("the error is %v", err)
	}
}
