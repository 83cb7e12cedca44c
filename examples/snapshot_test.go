//go:build linux

package examples_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestSnapshotsAreImagesOfTheirOwn takes a snapshot, launches it elsewhere,
// takes one of that, and ends the labs in the order in which they were made.
func TestSnapshotsAreImagesOfTheirOwn(t *testing.T) {
	s := newSite(t)
	first := s.lab("first", "any", "--node", "a")
	first.launch()
	first.sh("a", "echo one > /root/one; rm -f /root/.never")
	first.refuse([]string{"snapshot", "a", "one"}, "hyperstop", "--live")
	first.must("hyperstop", "a")
	first.must("snapshot", "a", "one")
	first.refuse([]string{"snapshot", "a", "one"}, "one", "exists")
	first.must("hyperstart", "a")
	if got := first.sh("a", "cat /root/one; echo later > /root/later"); got != "one\n" {
		t.Errorf("after its snapshot the node has %q", got)
	}

	second := s.lab("second", "any", "--node", "b:128:one")
	second.launch()
	if got := second.sh("b", "cat /root/one; cat /root/later 2>&-; hostname"); got != "one\nb\n" {
		t.Errorf("a node of the snapshot has %q", got)
	}
	testLiveSnapshot(t, second)

	third := s.lab("third", "any", "--node", "c:128:two")
	third.launch()
	if got := third.sh("c", "cat /root/one /root/two"); got != "one\ntwo\n" {
		t.Errorf("a node of the snapshot of a snapshot has %q", got)
	}
	testUsedImages(t, s)
	if got := first.sh("a", "cat /root/one /root/later"); got != "one\nlater\n" {
		t.Errorf("meanwhile the first node has %q", got)
	}
	first.destroy()
	second.destroy()
	if got := third.sh("c", "cat /root/one /root/two"); got != "one\ntwo\n" {
		t.Errorf("after the others' end a node has %q", got)
	}
	third.destroy()
	for _, image := range []string{"two", "one"} { // an image after what stands on it
		if out := s.falcon("image", "rm", image); out.status != 0 {
			t.Errorf("removing %s: %s", image, out)
		}
	}
}

// testLiveSnapshot takes a snapshot of a guest that is writing all the while,
// and has it read again from the disk what it wrote before.
func testLiveSnapshot(t *testing.T, l *lab) {
	sum := l.sh("b", "echo two > /root/two; rm -f /tmp/stop; "+
		"dd if=/dev/urandom of=/root/before bs=64k count=64 2>/dev/null; sha256sum /root/before; "+
		"{ i=0; while [ ! -e /tmp/stop ]; do i=$((i+1)); echo $i >> /root/counter; dd if=/dev/urandom of=/root/noise bs=64k count=8 conv=fsync; done; } >/dev/null 2>&1 &")
	pid := l.node("b").PID
	l.must("snapshot", "b", "two", "--live")
	count := strings.TrimSpace(l.sh("b", "tail -n 1 /root/counter"))
	l.sh("b", "for i in 1 2 3 4 5 6 7 8 9 10; do [ $(tail -n 1 /root/counter) != "+count+" ] && exit 0; sleep 1; done; exit 1")
	if got := l.sh("b", "touch /tmp/stop; echo 3 > /proc/sys/vm/drop_caches; sha256sum /root/before"); got != sum {
		t.Errorf("what was written before the snapshot had the digest %s and has %s", sum, got)
	}
	if got := l.sh("b", "dmesg | grep -i 'EXT4-fs error' || true"); got != "" {
		t.Errorf("after a live snapshot the guest's kernel says\n%s", got)
	}
	if n := l.node("b"); n.PID != pid || n.State != "running" {
		t.Errorf("after a live snapshot: %+v", n)
	}
}

// testUsedImages removes images in use, which is refused with who uses them.
func testUsedImages(t *testing.T, s *site) {
	for image, users := range map[string][]string{
		"one": {`"two"`, filepath.Join(s.dir, "first"), "a"},
		"two": {filepath.Join(s.dir, "second"), filepath.Join(s.dir, "third"), "c"},
	} {
		out := s.falcon("image", "rm", image)
		if out.status == 0 {
			t.Errorf("%s is removed while in use: %s", image, out)
		}
		for _, u := range users {
			if !strings.Contains(out.stderr, u) {
				t.Errorf("removing %s: the message does not name %s: %s", image, u, out)
			}
		}
	}
}
