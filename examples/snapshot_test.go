//go:build linux

package examples_test

import (
	"strings"
	"testing"
)

// TestLiveSnapshot takes a snapshot of a guest that is writing all the while,
// has it read again from the disk what it wrote before, and launches the image.
func TestLiveSnapshot(t *testing.T) {
	s := newSite(t)
	l := s.lab("lab", "any", "--node", "a")
	l.launch()
	sum := writeAllTheWhile(t, l)

	other := s.lab("other", "any", "--node", "b:128:live")
	other.launch()
	if got := other.sh("b", "cat /root/two; sha256sum /root/before"); got != "two\n"+sum {
		t.Errorf("a node of the snapshot has %q", got)
	}
	l.destroy()
	other.destroy()
}

// writeAllTheWhile takes the snapshot, and returns the digest of a file that had
// been written before.
func writeAllTheWhile(t *testing.T, l *lab) string {
	sum := l.sh("a", "echo two > /root/two; rm -f /tmp/stop; "+
		"dd if=/dev/urandom of=/root/before bs=64k count=64 2>/dev/null; sha256sum /root/before; "+
		"{ i=0; while [ ! -e /tmp/stop ]; do i=$((i+1)); echo $i >> /root/counter; dd if=/dev/urandom of=/root/noise bs=64k count=8 conv=fsync; done; } >/dev/null 2>&1 &")
	pid := l.node("a").PID
	l.must("snapshot", "a", "live", "--live")
	count := strings.TrimSpace(l.sh("a", "tail -n 1 /root/counter"))
	l.sh("a", "for i in 1 2 3 4 5 6 7 8 9 10; do [ $(tail -n 1 /root/counter) != "+count+" ] && exit 0; sleep 1; done; exit 1")
	if got := l.sh("a", "touch /tmp/stop; echo 3 > /proc/sys/vm/drop_caches; sha256sum /root/before"); got != sum {
		t.Errorf("what was written before the snapshot had the digest %s and has %s", sum, got)
	}
	if got := l.sh("a", "dmesg | grep -i 'EXT4-fs error' || true"); got != "" {
		t.Errorf("after a live snapshot the guest's kernel says\n%s", got)
	}
	if n := l.node("a"); n.PID != pid || n.State != "running" {
		t.Errorf("after a live snapshot: %+v", n)
	}
	return sum
}
