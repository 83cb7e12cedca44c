//go:build linux

package examples_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// TestLabsComeBack breaks a lab in the ways in which hosts do, one after the
// other, and repairs it with hyperstart.
func TestLabsComeBack(t *testing.T) {
	l := newSite(t).lab("pair", "any", "--node", "a,b", "--link", "a:b")
	l.launch()
	l.sh("a", "echo kept > /root/kept; sync")
	macs := l.info().Nodes[0].Links[0].MAC

	t.Run("QEMU killed", func(t *testing.T) {
		at := l.in(t)
		n := at.node("a")
		kill(t, n.PID)
		at.failed("a", "signal: killed")
		if b := at.node("b"); b.State != "running" {
			t.Errorf("the other node: %+v", b)
		}
		at.refuse([]string{"exec", "a", "true"}, "node a", "hyperstart a")
		at.repaired()
	})
	t.Run("propolis-server killed", func(t *testing.T) {
		at := l.in(t)
		n := at.node("a")
		kill(t, n.ServerPID)
		at.failed("a", "propolis-server")
		awaitEnd(t, n.PID) // a guest does not outlive its server
		at.repaired()
	})
	t.Run("host restarted", func(t *testing.T) {
		at := l.in(t)
		i := at.info()
		for _, n := range i.Nodes {
			kill(t, n.ServerPID)
			kill(t, n.PID)
		}
		check(t, netns.DeleteNamed(i.Namespace))
		for _, n := range at.info().Nodes {
			if n.State != "failed" || n.Reason == "" {
				t.Errorf("after the restart: %+v", n)
			}
		}
		at.repaired()
	})
	if mac := l.info().Nodes[0].Links[0].MAC; mac != macs {
		t.Errorf("the MAC was %s and is %s", macs, mac)
	}
	l.destroy()
}

// in returns the lab for a part of its test.
func (l *lab) in(t *testing.T) *lab {
	s, on := *l.site, *l
	s.t, on.site = t, &s
	return &on
}

// failed waits until info says that a node has failed, and why.
func (l *lab) failed(name, why string) {
	l.t.Helper()
	n := l.node(name)
	// The server learns of QEMU's end a moment after the test.
	for range 100 {
		if n.State == "failed" {
			break
		}
		time.Sleep(50 * time.Millisecond)
		n = l.node(name)
	}
	if n.State != "failed" || !strings.Contains(n.Reason, why) {
		l.t.Errorf("info says of %s: state %q, reason %q; want failed, %q", name, n.State, n.Reason, why)
	}
}

// repaired starts what does not run and looks that nodes, disks and links are
// what they were.
func (l *lab) repaired() {
	l.t.Helper()
	l.must("hyperstart", "--all")
	for _, n := range l.info().Nodes {
		if n.State != "running" || n.Reason != "" {
			l.t.Errorf("after hyperstart: %+v", n)
		}
	}
	if got := l.sh("a", "cat /root/kept"); got != "kept\n" {
		l.t.Errorf("the file on the disk is %q", got)
	}
	l.addresses("a", "b", 3)
	l.pings("a", "10.9.3.2")
}

// kill kills a process and waits for its end.
func kill(t *testing.T, pid int) {
	t.Helper()
	if pid <= 0 {
		t.Fatalf("there is no process %d to kill", pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
		t.Fatal(err)
	}
	awaitEnd(t, pid)
}

// awaitEnd waits for the end of a process that is no child of this one, which
// is told by a descriptor of it.
func awaitEnd(t *testing.T, pid int) {
	t.Helper()
	p, err := os.FindProcess(pid)
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for p.Signal(syscall.Signal(0)) == nil && !zombie(pid) {
		select {
		case <-ctx.Done():
			t.Fatalf("process %d has not ended within a minute", pid)
		case <-time.After(20 * time.Millisecond): // nothing tells the end of a stranger's child
		}
	}
}

// zombie reports whether a process has ended, and nobody has asked for its
// status yet.
func zombie(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "stat"))
	_, fields, _ := strings.Cut(string(stat), ") ")
	return err != nil || strings.HasPrefix(fields, "Z")
}

func TestDestroyGoesOnPastWhatIsGoneOrCannotGo(t *testing.T) {
	s := newSite(t)
	l := s.lab("pair", "any", "--node", "a,b,c", "--link", "a:b,b:c")
	// Nothing here needs a guest that has booted.
	l.cold = true
	l.launchUntil("a boot", "b boot", "c boot")
	i := l.info()
	kill(t, i.Nodes[0].ServerPID)
	check(t, os.Remove(i.Nodes[1].Disk))
	check(t, netns.DeleteNamed(i.Namespace))
	// A disk that cannot be removed, because something is mounted there, and a
	// namespace that cannot be, because it is none.
	stuck := i.Nodes[2].Disk
	check(t, syscall.Mount(stuck, stuck, "", syscall.MS_BIND, ""))
	unmount := func() { _ = syscall.Unmount(stuck, syscall.MNT_DETACH) }
	t.Cleanup(unmount)
	blocked := filepath.Join("/run/netns", i.Namespace)
	check(t, os.Mkdir(blocked, 0o700))
	check(t, os.WriteFile(filepath.Join(blocked, "in-the-way"), nil, 0o600))
	t.Cleanup(func() { os.RemoveAll(blocked) })

	l.refuse([]string{"destroy"}, "disk c", "links "+i.Namespace)
	for _, n := range i.Nodes {
		if n.PID != 0 && !zombie(n.PID) {
			t.Errorf("node %s runs after destroy", n.Name)
		}
	}
	if list := s.falcon("ls"); !strings.Contains(list.stdout, l.dir) {
		t.Errorf("a lab that is half destroyed is not listed: %s", list)
	}
	l.refuse([]string{"destroy"}, "disk c")
	unmount()
	check(t, os.RemoveAll(blocked))
	l.destroy()
	l.must("destroy")
}

func TestTwoLabsOfOneNameStandSideBySide(t *testing.T) {
	s := newSite(t)
	var labs []*lab
	macs := make(map[string]string)
	for _, dir := range []string{"here", "there"} {
		l := s.lab(dir, "any", "--node", "a,b", "--link", "a:b")
		l.cold = true
		l.launchUntil("a boot", "b boot")
		labs = append(labs, l)
		for _, n := range l.info().Nodes {
			for _, link := range n.Links {
				if other := macs[link.MAC]; other != "" {
					t.Errorf("%s/%s and %s have the MAC %s", dir, n.Name, other, link.MAC)
				}
				macs[link.MAC] = dir + "/" + n.Name
			}
		}
	}
	labs[0].destroy()
	for _, n := range labs[1].info().Nodes {
		if n.State != "unfinished" || zombie(n.PID) {
			t.Errorf("after the other's end: %+v", n)
		}
	}
	if ns := labs[1].info().Namespace; !exists("/run/netns/" + ns) {
		t.Errorf("the other's namespace %s is gone", ns)
	}
	labs[1].destroy()
}

// links returns the names of devices in a namespace of a lab.
func links(t *testing.T, namespace string) []string {
	t.Helper()
	ns, err := netns.GetFromName(namespace)
	check(t, err)
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns)
	check(t, err)
	defer h.Close()
	list, err := h.LinkList()
	check(t, err)
	var names []string
	for _, l := range list {
		if l.Attrs().Name != "lo" {
			names = append(names, l.Attrs().Name)
		}
	}
	return names
}

func TestNetcreateAndNetdestroyWorkAlone(t *testing.T) {
	l := newSite(t).lab("pair", "any", "--node", "a,b", "--link", "a:b,a:b")
	l.must(append(l.flags, "netcreate")...)
	i := l.info()
	if got := links(t, i.Namespace); len(got) != 4 {
		t.Errorf("two links have the devices %v", got)
	}
	for _, n := range i.Nodes {
		if n.PID != 0 || n.Disk != "" && exists(n.Disk) {
			t.Errorf("netcreate has made a node: %+v", n)
		}
	}
	l.must("netcreate")
	if got := links(t, i.Namespace); len(got) != 4 {
		t.Errorf("after a second netcreate there are the devices %v", got)
	}
	l.must("netdestroy")
	l.gone()
}
