package state

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Two who hold a lock together write over each other's note: who is left is named
// all the same, and who has gone is not.
func TestTheHolderThatIsNamedHolds(t *testing.T) {
	f, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := f.LockShared(t.Context(), "snapshot a", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	// Another process comes and goes, as hyperstop of another node does.
	other := exec.Command("sh", "-c", "exec 3<>\"$0\"; flock -s 3; echo \"hyperstop b (pid $$)\" >\"$0\"", f.File(lockFile))
	if out, err := other.CombinedOutput(); err != nil {
		t.Skipf("%v: %s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	var named string
	_, err = f.Lock(ctx, "destroy", func(holder string) { named = holder })
	if err == nil || strings.Contains(err.Error(), "hyperstop b") || strings.Contains(named, "hyperstop b") {
		t.Errorf("waiting for %q: %v", named, err)
	}
	if want := "(pid " + strconv.Itoa(os.Getpid()) + ")"; !strings.Contains(named, want) || !strings.Contains(err.Error(), want) {
		t.Errorf("%s holds it, and %q is waited for: %v", want, named, err)
	}
}

func TestHoldersAreReadFromTheKernelsList(t *testing.T) {
	const locks = "1: POSIX  ADVISORY  WRITE 10 00:2a:77 0 EOF\n2: FLOCK  ADVISORY  READ 11 00:2a:77 0 EOF\n" +
		"3: FLOCK  ADVISORY  READ 12 00:2a:77 0 EOF\n3: -> FLOCK  ADVISORY  WRITE 13 00:2a:77 0 EOF\n4: FLOCK  ADVISORY  WRITE 14 00:2a:78 0 EOF\n"
	if got := holdersOf(locks, "00:2a:77"); !slices.Equal(got, []int{11, 12}) {
		t.Errorf("%v", got)
	}
}
