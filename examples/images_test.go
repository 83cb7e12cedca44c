//go:build linux

package examples_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestANodeIsNotStartedOnAnotherImage of the name of its own: nothing is made,
// and whoever asks is told.
func TestANodeIsNotStartedOnAnotherImage(t *testing.T) {
	s := newSite(t)
	s.home = s.mkdir("own")
	images := s.mkdir("own/img")
	img := filepath.Join(images, "micro")
	check(t, exec.Command("cp", "-aL", built.image, img).Run())
	l := s.lab("lab", "any", "--node", "a")
	l.cold = true
	l.launch()
	l.sh("a", "echo mine >/root/note; sync")
	l.must("hyperstop", "a")
	l.must("snapshot", "a", "noted")

	away := filepath.Join(s.dir, "away")
	for reason, replace := range map[string]func(){
		"is gone": func() {},
		"in spite of its record": func() {
			check(t, exec.Command("cp", "-a", away, img).Run())
			disk, err := filepath.Glob(filepath.Join(img, "disk.*"))
			check(t, err)
			f, err := os.OpenFile(disk[0], os.O_WRONLY, 0)
			check(t, err)
			_, err = f.WriteAt([]byte("other"), 1<<20)
			check(t, err)
			check(t, f.Close())
		},
	} {
		check(t, os.Rename(img, away))
		replace()
		for _, args := range [][]string{{"hyperstart", "a"}, l.launchArgs(), {"preflight"}, {"snapshot", "a", "again"}} {
			l.refuse(args, "a", `"micro"`, reason, "falcon destroy ")
		}
		if n := l.node("a"); n.State != "stopped" || !strings.Contains(n.Reason, reason) {
			t.Errorf("info says %+v", n)
		}
		for _, args := range [][]string{{"doctor"}, {"image", "export", "noted", filepath.Join(s.dir, "x.raw")}} {
			if out := s.falcon(args...); out.status != 1 || !strings.Contains(out.stdout+out.stderr, reason) {
				t.Errorf("%v: %s", args, out)
			}
		}
		if left := l.processes(); len(left) > 0 {
			t.Errorf("there are %v", left)
		}
		check(t, os.RemoveAll(img))
		check(t, os.Rename(away, img))
	}
	l.must("hyperstart", "a")
	if got := l.sh("a", "cat /root/note"); got != "mine\n" {
		t.Errorf("with its image back the node has %q", got)
	}
	l.destroy()
}
