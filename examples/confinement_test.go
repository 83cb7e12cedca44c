//go:build linux

package examples_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// status returns a line of a process's status.
func status(t *testing.T, pid int, name string) string {
	t.Helper()
	data, err := os.ReadFile("/proc/" + itoa(pid) + "/status")
	check(t, err)
	_, rest, _ := strings.Cut(string(data), "\n"+name+":")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.Join(strings.Fields(line), " ")
}

// checkConfined checks what the QEMUs of a lab and their servers may do, and
// returns as whom the QEMUs run.
func checkConfined(l *lab) (uids []string) {
	l.t.Helper()
	for _, n := range l.info().Nodes {
		for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
			if got := status(l.t, n.PID, set); strings.Trim(got, "0") != "" {
				l.t.Errorf("%s of %s's QEMU is %s", set, n.Name, got)
			}
		}
		for _, line := range [][2]string{{"NoNewPrivs", "1"}, {"Seccomp", "2"}} {
			if got := status(l.t, n.PID, line[0]); got != line[1] {
				l.t.Errorf("%s of %s's QEMU is %q, want %q", line[0], n.Name, got, line[1])
			}
		}
		if got := status(l.t, n.PID, "Groups"); os.Geteuid() == 0 && got != "" {
			l.t.Errorf("%s's QEMU has the groups %s", n.Name, got)
		}
		ids := strings.Fields(status(l.t, n.PID, "Uid"))
		if len(slices.Compact(ids)) != 1 || status(l.t, n.PID, "Gid") != status(l.t, n.PID, "Uid") {
			l.t.Errorf("%s's QEMU runs as %v, groups %s", n.Name, ids, status(l.t, n.PID, "Gid"))
		}
		uids = append(uids, ids[0])
		data, err := os.ReadFile(l.state(n.Name + ".pid"))
		check(l.t, err)
		server, err := strconv.Atoi(strings.TrimSpace(string(data)))
		check(l.t, err)
		const timeAndModules = 1<<25 | 1<<16 // CAP_SYS_TIME, CAP_SYS_MODULE, of those that it does not need
		var may uint64
		may, err = strconv.ParseUint(status(l.t, server, "CapEff"), 16, 64)
		if err != nil || may&timeAndModules != 0 || status(l.t, server, "NoNewPrivs") != "1" {
			l.t.Errorf("%s's server may %x, and gain new privileges (%v)", n.Name, may, err)
		}
	}
	return uids
}

// Each lab of root's runs as a user of its own, and its guests have the folders of
// the host as they are there, though only root may read them.
func TestQEMUOfRootsIsNotRoot(t *testing.T) {
	s := newSite(t)
	cargo := s.mkdir("cargo")
	for name, owner := range map[string]int{"roots": 0, "users": 1234} {
		path := filepath.Join(cargo, name)
		check(t, errors.Join(os.WriteFile(path, []byte("of "+name+"\n"), 0o640), os.Chown(path, owner, owner)))
	}
	check(t, errors.Join(os.Chmod(filepath.Join(cargo, "users"), 0o644), os.Chmod(cargo, 0o700)))
	l := s.lab("duo", "duo", "--cargo-bay", cargo)
	l.launch()
	other := s.lab("other", "duo", "--cargo-bay", cargo)
	other.launch()
	a, b := checkConfined(l), checkConfined(other)
	if a[0] == "0" || a[0] != a[1] || b[0] != b[1] || a[0] == b[0] {
		t.Errorf("the QEMUs of two labs run as %v and %v", a, b)
	}
	if got := l.sh("violin", "cd /opt/cargo-bay; stat -c '%u %g %a' . roots users; cat roots users"); got != "0 0 700\n0 0 640\n1234 1234 644\nof roots\nof users\n" {
		t.Errorf("the guest sees:\n%s", got)
	}
	l.must("hyperstop", "violin")
	l.must("hyperstart", "violin")
	if again := checkConfined(l); !slices.Equal(a, again) {
		t.Errorf("after a start they run as %v, before as %v", again, a)
	}
	l.destroy()
	other.destroy()

	// A folder of a user's, who alone may read it.
	check(t, os.Chown(cargo, 1234, 1234))
	l = s.lab("users", "solo", "--cargo-bay", cargo)
	l.launch()
	check(t, os.Chmod(filepath.Join(cargo, "users"), 0o600))
	if got := l.sh("violin", "cat /opt/cargo-bay/users"); got != "of users\n" {
		t.Errorf("the guest reads %q", got)
	}
	l.destroy()
}

func TestQEMUOfAUsersHasNoPrivilege(t *testing.T) {
	s := newSiteOf(t, ordinary())
	l := s.lab("duo", "duo")
	l.launch()
	for _, uid := range checkConfined(l) {
		if uid != itoa(int(s.user.Uid)) {
			t.Errorf("a QEMU runs as %s", uid)
		}
	}
	l.addresses("violin", "piano", 1)
	l.pings("violin", "10.9.1.2")
	l.must("hyperstop", "piano") // links survive the start of either end
	l.must("hyperstart", "piano")
	l.address("piano", "violin", "10.9.1.2/24")
	l.pings("piano", "10.9.1.1")
	l.destroy()
}
