//go:build linux

package examples_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDuo works through the commands in one lab, because booting is what takes
// the time.
func TestDuo(t *testing.T) {
	s := newSite(t)
	cargo := s.mkdir("cargo")
	check(t, os.WriteFile(filepath.Join(cargo, "readme.txt"), []byte("from the host\n"), 0o644))
	l := s.lab("duo", "duo", "--cargo-bay", cargo)

	testPreflight(t, l)
	l.launch()
	for _, step := range []struct {
		name string
		run  func(*testing.T, *lab)
	}{
		{"info", testInfo},
		{"pings both ways", testPings},
		{"mount", testMount},
		{"exec ends with the guest's status", testExecStatus},
		{"exec carries binary output byte for byte", testExecBinary},
		{"launch again changes nothing", testLaunchAgain},
		{"serial", testSerial},
		{"logs", testLogs},
		{"reboot", testReboot},
		{"a stopped node keeps its disk", testStopStart},
		{"all nodes stopped and started", testStopStartAll},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, l.in(t)) }) {
			return
		}
	}
	l.destroy()
	if out := l.must("destroy"); !strings.Contains(out, "nothing of duo") {
		t.Errorf("destroyed a second time: %s", out)
	}
}

func testPreflight(t *testing.T, l *lab) {
	var doc struct {
		Checks []struct {
			Name string
			OK   bool
		}
		Plan struct {
			Nodes []struct{ Name string }
			Links []any
		}
	}
	check(t, json.Unmarshal([]byte(l.must(append(l.flags, "preflight", "--json")...)), &doc))
	if len(doc.Checks) == 0 || len(doc.Plan.Nodes) != 2 || doc.Plan.Nodes[0].Name != "violin" || len(doc.Plan.Links) != 1 {
		t.Errorf("preflight says %+v", doc)
	}
	for _, c := range doc.Checks {
		if !c.OK {
			t.Errorf("the check %q fails", c.Name)
		}
	}
	l.gone() // it makes nothing
}

func testInfo(t *testing.T, l *lab) {
	i := l.info()
	if i.Version != 1 || i.Topology != "duo" || !i.Launched || len(i.Nodes) != 2 {
		t.Fatalf("info says %+v", i)
	}
	peers := map[string]string{"violin": "piano", "piano": "violin"}
	for _, n := range i.Nodes {
		if n.State != "running" || n.PID == 0 || n.Image != "micro" || len(n.Links) != 1 || n.Links[0].Peer != peers[n.Name] || n.Links[0].Device == "" {
			t.Errorf("info says of %s: %+v", n.Name, n)
		}
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", n.PID))
		if err != nil || !strings.HasPrefix(string(comm), "qemu") {
			t.Errorf("process %d of %s is %q (%v), not QEMU", n.PID, n.Name, comm, err)
		}
		if got := l.sh(n.Name, "cat /sys/class/net/e*/address"); strings.TrimSpace(got) != n.Links[0].MAC {
			t.Errorf("%s has the address %q, info says %s", n.Name, got, n.Links[0].MAC)
		}
		if got := strings.TrimSpace(l.sh(n.Name, "hostname")); got != n.Name {
			t.Errorf("%s calls itself %s", n.Name, got)
		}
	}
	if out := l.must("info"); !regexp.MustCompile(`violin +micro +running +\d+`).MatchString(out) {
		t.Errorf("info prints\n%s", out)
	}
	if out := l.falcon("ls"); out.status != 0 || !strings.Contains(out.stdout, filepath.Dir(l.state("x"))) {
		t.Errorf("falcon ls: %s", out)
	}
}

func testPings(_ *testing.T, l *lab) {
	l.addresses("violin", "piano", 1)
	l.pings("violin", "10.9.1.2")
	l.pings("piano", "10.9.1.1")
}

func testMount(t *testing.T, l *lab) {
	if got := l.sh("violin", "cat /opt/cargo-bay/readme.txt"); got != "from the host\n" {
		t.Errorf("the mount has %q", got)
	}
	if out := l.run("exec", "violin", "touch /opt/cargo-bay/from-guest"); out.status == 0 || exists(filepath.Join(l.site.dir, "cargo", "from-guest")) {
		t.Errorf("the guest writes to the host's folder: %s", out)
	}
}

func testExecStatus(t *testing.T, l *lab) {
	for command, want := range map[string]outcome{
		"exit 7":                       {"", "", 7},
		"true":                         {"", "", 0},
		"echo out; echo err >&2":       {"out\n", "err\n", 0},
		"printf %s no-newline; exit 1": {"no-newline", "", 1},
		"no-such-command-xyz 2>&-":     {"", "", 127},
		"kill -9 $$":                   {"", "", 137},
	} {
		if got := l.run("exec", "violin", command); got != want {
			t.Errorf("exec of %q: %s\nwant %s", command, got, want)
		}
	}
	if out := l.run("exec", "--timeout", "5s", "violin", "sleep 600"); out.status != 125 || !strings.Contains(out.stderr, "5s") {
		t.Errorf("exec that takes too long: %s", out)
	}
	if got := l.sh("violin", "echo still here"); got != "still here\n" {
		t.Errorf("after an exec that took too long: %q", got)
	}
}

func testExecBinary(t *testing.T, l *lab) {
	want := strings.TrimSpace(l.sh("violin", "dd if=/dev/urandom of=/tmp/dump bs=1024 count=1024 2>&- && sha256sum /tmp/dump | cut -c 1-64"))
	out := l.must("exec", "violin", "cat /tmp/dump")
	sum := sha256.Sum256([]byte(out))
	if got := hex.EncodeToString(sum[:]); len(out) != 1<<20 || got != want {
		t.Errorf("%d bytes with digest %s arrived, want %d with %s", len(out), got, 1<<20, want)
	}
}

func testLaunchAgain(t *testing.T, l *lab) {
	before := l.info()
	out := l.must("launch") // without its flags: they are remembered
	if !strings.Contains(out, "runs already") {
		t.Errorf("a second launch says\n%s", out)
	}
	after := l.info()
	for i, n := range before.Nodes {
		if a := after.Nodes[i]; a.PID != n.PID || a.ServerPID != n.ServerPID || a.Links[0] != n.Links[0] {
			t.Errorf("a second launch made of %+v\n%+v", n, a)
		}
	}
	if s := l.state(""); !exists(s) {
		t.Errorf("%s is gone", s)
	}
}

func testLogs(t *testing.T, l *lab) {
	if out := l.must("logs", "violin"); !strings.Contains(out, "qemu-system-x86_64") || !strings.Contains(out, "local_addr") {
		t.Errorf("the log lacks QEMU's command line or the server's address:\n%s", out)
	}
	l.refuse([]string{"logs", "viola"}, `"viola"`, "violin")
}

func testReboot(t *testing.T, l *lab) {
	l.sh("violin", "echo kept > /root/kept; touch /run/gone")
	before := l.node("violin")
	uptime := "cut -d. -f1 /proc/uptime"
	l.must("reboot", "violin")
	if after := l.node("violin"); after.PID != before.PID || after.State != "running" {
		t.Errorf("reboot made of %+v\n%+v", before, after)
	}
	if got := l.sh("violin", "cat /root/kept; ls /run/gone 2>&-; hostname; cat /opt/cargo-bay/readme.txt"); got != "kept\nviolin\nfrom the host\n" {
		t.Errorf("after a reboot the guest has %q (up for %s s)", got, l.sh("violin", uptime))
	}
}

func testStopStart(t *testing.T, l *lab) {
	l.sh("violin", "echo on disk > /root/file")
	pid := l.node("violin").PID
	l.must("hyperstop", "violin")
	if n := l.node("violin"); n.State != "stopped" || n.PID != 0 || exists(fmt.Sprintf("/proc/%d", pid)) {
		t.Errorf("after hyperstop: %+v", n)
	}
	if n := l.node("piano"); n.State != "running" {
		t.Errorf("the other node: %+v", n)
	}
	l.refuse([]string{"exec", "violin", "true"}, "violin", "hyperstart violin")
	l.must("hyperstart", "violin")
	if got := l.sh("violin", "cat /root/file"); got != "on disk\n" {
		t.Errorf("the file is %q", got)
	}
	testPings(t, l)
}

func testStopStartAll(t *testing.T, l *lab) {
	l.refuse([]string{"netdestroy"}, "hyperstop")
	l.must("hyperstop", "--all")
	for _, n := range l.info().Nodes {
		if n.State != "stopped" {
			t.Errorf("after hyperstop --all: %+v", n)
		}
	}
	l.must("netdestroy")
	if ns := l.info().Namespace; exists("/run/netns/" + ns) {
		t.Errorf("after netdestroy there is a namespace %s", ns)
	}
	l.must("hyperstart", "--all") // makes the links again
	if got := l.sh("violin", "cat /root/file"); got != "on disk\n" {
		t.Errorf("the file is %q", got)
	}
	testPings(t, l)
}
