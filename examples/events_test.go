//go:build linux

package examples_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// limitedHome gives a site a home on a file system of its own, of so many MiB.
func (s *site) limitedHome(size int) {
	s.t.Helper()
	if os.Geteuid() != 0 {
		s.t.Skip("it mounts a file system, which needs root")
	}
	s.home = s.mkdir("data/falcon")
	options := fmt.Sprintf("mode=700,size=%dm", size)
	if s.user != nil {
		options += fmt.Sprintf(",uid=%d,gid=%d", s.user.Uid, s.user.Gid)
	}
	check(s.t, syscall.Mount("tmpfs", s.home, "tmpfs", 0, options))
	s.t.Cleanup(func() {
		err := syscall.Unmount(s.home, 0)
		for limit := time.Now().Add(10 * time.Second); err == syscall.EBUSY && time.Now().Before(limit); err = syscall.Unmount(s.home, 0) {
			time.Sleep(10 * time.Millisecond) // a process that was killed lets go of its files a moment later
		}
		check(s.t, err)
	})
	s.linkImage()
}

// resize changes the size of the file system of a limited home.
func (s *site) resize(size int) {
	s.t.Helper()
	check(s.t, syscall.Mount("tmpfs", s.home, "tmpfs", syscall.MS_REMOUNT, fmt.Sprintf("size=%dm", size)))
}

// becomes waits until info says of a node what is wanted.
func (l *lab) becomes(name, what string, suits func(node) bool) node {
	l.t.Helper()
	for limit := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) { // info is asked, and does not tell
		n := l.node(name)
		if suits(n) {
			return n
		}
		if time.Now().After(limit) {
			l.t.Fatalf("after a minute node %s is not %s, but %+v", name, what, n)
		}
	}
}

func (l *lab) becomesState(name, state string) node {
	l.t.Helper()
	return l.becomes(name, state, func(n node) bool { return n.State == state })
}

// writer fills 40 MiB of a disk, and then looks whether all of it is right.
const writer = `cat >/writer <<'END'
dd if=/dev/urandom of=/seed bs=1M count=4 2>/dev/null
sum=$(cksum </seed)
for i in 0 1 2 3 4 5 6 7 8 9; do dd if=/seed of=/copy$i bs=64k conv=fsync 2>/dev/null; done
echo 3 >/proc/sys/vm/drop_caches
for i in 0 1 2 3 4 5 6 7 8 9; do [ "$(cksum </copy$i)" = "$sum" ] || echo copy $i is bad >>/result; done
dmesg | grep -i 'i/o error' >>/result
echo finished >>/result
END
setsid sh /writer </dev/null >/dev/null 2>&1 &`

func TestHostDiskFull(t *testing.T) {
	t.Run("root", func(t *testing.T) { testHostDiskFull(t, newSite(t)) })
	t.Run("user", func(t *testing.T) { testHostDiskFull(t, newSiteOf(t, ordinary())) })
}

func testHostDiskFull(t *testing.T, s *site) {
	s.limitedHome(40)
	l := s.lab("full", "any", "--node", "a,b,c", "--link", "a:b")
	l.cold = true
	if out := l.must(append(l.flags, "preflight")...); !strings.Contains(out, "WARNS  disks") || !strings.Contains(out, "may grow by 3 GiB; 40 MiB are free") {
		t.Errorf("preflight does not warn of the disks:\n%s", out)
	}
	l.launch()
	l.sh("c", "sync; echo u >/proc/sysrq-trigger; sleep 1") // it writes nothing from now on
	for _, n := range []string{"a", "b"} {
		l.sh(n, writer)
	}
	l.sh("c", "true") // which goes on
	for _, name := range []string{"a", "b"} {
		n := l.becomesState(name, "paused")
		for _, w := range []string{n.Disk, "no space left", "since " + time.Now().Format("2006-01-02")} {
			if !strings.Contains(n.Reason, w) {
				t.Errorf("the reason has no %q: %s", w, n.Reason)
			}
		}
		begun := time.Now()
		out := l.run("exec", name, "true")
		if out.status != 125 || !strings.Contains(out.stderr, n.Disk) || !strings.Contains(out.stderr, "paused") || time.Since(begun) > 10*time.Second {
			t.Errorf("exec after %v: %s", time.Since(begun), out)
		}
		l.refuse([]string{"hyperstart", name}, "no space left", n.Disk)
		l.refuse([]string{"reboot", name}, "no space left", n.Disk) // which would lose what it has not written
		l.refuse([]string{"cp", name + ":/etc/hostname", s.dir + "/hostname"}, "no space left")
	}
	if out := l.must("info"); !strings.Contains(out, "beware: guests that write more") {
		t.Errorf("info says:\n%s", out)
	}
	l.refuse(l.launchArgs(), "no space left")
	l.sh("c", "true")

	s.resize(200)
	for _, name := range []string{"a", "b"} {
		l.becomesState(name, "running")
		for limit := time.Now().Add(time.Minute); l.run("exec", name, "cat /result").status != 0; {
			if time.Now().After(limit) {
				t.Fatal("the writer does not end")
			}
		}
		if got := l.sh(name, "cat /result"); got != "finished\n" {
			t.Errorf("node %s wrote:\n%s", name, got)
		}
	}
	var fs syscall.Statfs_t
	check(t, syscall.Statfs(s.home, &fs))
	s.resize(int((fs.Blocks-fs.Bfree)*uint64(fs.Bsize)>>20) + 2) // full again, soon
	l.run("exec", "a", "setsid dd if=/dev/zero of=/more bs=1M count=20 conv=fsync >/dev/null 2>&1 &")
	l.becomesState("a", "paused")
	begun := time.Now()
	l.must("hyperstop", "a")
	if d := time.Since(begun); d > 15*time.Second {
		t.Errorf("hyperstop of a node that stands still took %v", d)
	}
	l.destroy()
}

func TestAnExecEndsWhenItsNodeStandsStill(t *testing.T) {
	s := newSite(t)
	s.limitedHome(8)
	l := s.lab("full", "any", "--node", "a")
	l.cold = true
	l.launch()
	begun := time.Now()
	out := l.run("exec", "a", "dd if=/dev/urandom of=/big bs=1M count=20 conv=fsync")
	if out.status != 125 || !strings.Contains(out.stderr, "paused") || time.Since(begun) > 40*time.Second {
		t.Errorf("after %v: %s", time.Since(begun), out)
	}
	s.resize(200)
	l.becomesState("a", "running")
	l.sh("a", "true")
}

func (l *lab) needsPanicDriver(name string) {
	l.t.Helper()
	if l.run("exec", name, "[ -e /sys/bus/platform/drivers/pvpanic-mmio ]").status != 0 {
		l.t.Fatal("the image micro has no panic driver; if it is the host's and of an older falcon: falcon image rm micro && falcon image build micro")
	}
}

// crash has a guest panic a moment later, and reboot when that many seconds are
// over; 0 for never.
func (l *lab) crash(name string, reboot int) {
	l.t.Helper()
	l.needsPanicDriver(name)
	l.sh(name, fmt.Sprintf("echo %d >/proc/sys/kernel/panic; (usleep 300000; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &", reboot))
}

func TestPanicsAndRebootsAreShown(t *testing.T) {
	l := newSite(t).lab("panic", "any", "--node", "a,b,c")
	l.launch()
	l.crash("a", 0)
	l.crash("b", 1)
	n := l.becomesState("a", "panicked")
	if !strings.Contains(n.Reason, "Kernel panic - not syncing: sysrq triggered crash") {
		t.Errorf("the reason is %s", n.Reason)
	}
	begun := time.Now()
	out := l.run("exec", "a", "true")
	if out.status != 125 || !strings.Contains(out.stderr, "Kernel panic - not syncing") || time.Since(begun) > 5*time.Second {
		t.Errorf("exec after %v: %s", time.Since(begun), out)
	}
	l.sh("c", "(usleep 300000; reboot -f) >/dev/null 2>&1 &")
	for _, name := range []string{"b", "c"} {
		n := l.becomes(name, "rebooted", func(n node) bool { return n.Resets > 0 })
		if n.Resets != 1 || n.LastReset.IsZero() {
			t.Errorf("node %s was reset %d times, last at %v", name, n.Resets, n.LastReset)
		}
	}
	text := l.must("info")
	for _, w := range []string{"b: its kernel panicked ", "b: rebooted itself, ", "c: rebooted itself, "} {
		if !strings.Contains(text, w) {
			t.Errorf("info has no %q:\n%s", w, text)
		}
	}
	for i, anew := range [][]string{{"reboot", "a"}, l.launchArgs(), {"hyperstart", "a"}} {
		if i > 0 {
			l.crash("a", 0)
			l.becomesState("a", "panicked")
		}
		l.must(anew...)
		if n := l.node("a"); n.State != "running" {
			t.Errorf("after %v it is %+v", anew, n)
		}
		l.sh("a", "true")
	}

	// A command that runs when its guest panics ends at once.
	l.crash("a", 0)
	begun = time.Now()
	out = l.run("exec", "a", "sleep 100")
	if out.status != 125 || !strings.Contains(out.stderr, "Kernel panic - not syncing") || time.Since(begun) > 20*time.Second {
		t.Errorf("exec after %v: %s", time.Since(begun), out)
	}
}

func TestALaunchFailsWithThePanicOfItsGuest(t *testing.T) {
	s := newSite(t)
	l := s.lab("doomed", "any", "--node", "a")
	l.launch()
	l.crashAtBoot("a")
	l.must("hyperstop", "a")
	l.must("snapshot", "a", "doomed")
	begun := time.Now()
	l.refuse([]string{"hyperstart", "a"}, "Kernel panic - not syncing")
	if d := time.Since(begun); d > 30*time.Second {
		t.Errorf("hyperstart failed after %v", d)
	}
	l.destroy()
	other := s.lab("other", "any", "--node", "a:128:doomed")
	begun = time.Now()
	other.refuse(other.launchArgs("--cold"), "node a", "Kernel panic - not syncing")
	if d := time.Since(begun); d > 30*time.Second {
		t.Errorf("the launch failed after %v", d)
	}
	other.gone()
	if out := s.falcon("image", "rm", "doomed"); out.status != 0 {
		t.Error(out)
	}
}

// crashAtBoot has a guest panic whenever it boots from now on.
func (l *lab) crashAtBoot(name string) {
	l.t.Helper()
	l.needsPanicDriver(name)
	l.sh(name, `printf '#!/bin/sh\nmount -t proc proc /proc\necho c >/proc/sysrq-trigger\n' >/usr/bin/init.new && chmod 755 /usr/bin/init.new && mv /usr/bin/init.new /usr/bin/init && sync`)
}

func TestScreens(t *testing.T) {
	s := newSite(t)
	password := filepath.Join(s.dir, "password")
	check(t, os.WriteFile(password, []byte("violin\n"), 0o600))
	refused := s.lab("refused", "any", "--node", "a", "--vnc", "a:5977")
	refused.refuse(refused.launchArgs(), "node a", "5977", "VNCPassword", "VNC()")
	refused.gone()

	l := s.lab("screens", "any", "--node", "a,b", "--vnc", "a", "--vnc", "b:5977:"+password)
	l.launch()
	path := l.state("a.vnc.sock")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	for _, test := range []struct {
		network, address string
		security         byte // VNC's number: 1 none, 2 a password
	}{{"unix", path, 1}, {"tcp", "127.0.0.1:5977", 2}} {
		conn, err := net.Dial(test.network, test.address)
		check(t, err)
		defer conn.Close()
		check(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
		got := make([]byte, 14)
		_, err = io.ReadFull(conn, got[:12])
		check(t, err)
		_, err = conn.Write(got[:12])
		check(t, err)
		_, err = io.ReadFull(conn, got[12:])
		check(t, err)
		if string(got[:4]) != "RFB " || got[12] != 1 || got[13] != test.security {
			t.Errorf("%s says %q, want security type %d", test.network, got, test.security)
		}
	}
	if out := l.must("vnc", "--json", "a"); !strings.Contains(out, path) {
		t.Errorf("vnc --json says %s", out)
	}
	for _, n := range l.info().Nodes {
		args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", n.PID))
		check(t, err)
		if strings.Contains(string(args), "violin") {
			t.Errorf("the password is on the command line of node %s", n.Name)
		}
	}
	l.must("hyperstop", "b")
	check(t, os.Chmod(password, 0o644))
	l.refuse([]string{"hyperstart", "b"}, "node b", "chmod 600 "+password)
	l.refuse(append(slices.Clone(l.flags), "preflight"), "node b", "chmod 600 "+password)
	l.refuse(l.launchArgs(), "node b", "chmod 600 "+password)
	l.destroy()
}
