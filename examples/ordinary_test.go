//go:build linux

package examples_test

import (
	"os"
	"syscall"
	"testing"
)

// ordinary is a user without any privilege: who runs the tests, or nobody in
// particular when that is root.
func ordinary() *syscall.Credential {
	if os.Geteuid() != 0 {
		return &syscall.Credential{Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid()), NoSetGroups: true}
	}
	return &syscall.Credential{Uid: 54321, Gid: 54321}
}

func TestOrdinaryUserNeedsNoPrivilege(t *testing.T) {
	s := newSiteOf(t, ordinary())
	cargo := s.mkdir("cargo")
	check(t, os.WriteFile(cargo+"/readme.txt", []byte("from the host\n"), 0o644))
	l := s.lab("duo", "duo", "--cargo-bay", cargo, "--ext", "user")
	l.launch()
	l.addresses("violin", "piano", 1)
	l.pings("violin", "10.9.1.2")
	l.pings("piano", "10.9.1.1")
	if got := l.sh("violin", "cat /opt/cargo-bay/readme.txt"); got != "from the host\n" {
		t.Errorf("the mount has %q", got)
	}
	for _, n := range l.info().Nodes {
		if n.State != "running" || !owns(n.PID, s.user.Uid) {
			t.Errorf("info says of %s: %+v", n.Name, n)
		}
	}
	l.destroy()

	refused := s.lab("refused", "any", "--node", "a", "--ext", "a:lo")
	refused.refuse(refused.launchArgs(), "node a", "root")
	refused.gone()
}

// owns reports whether a process belongs to a user.
func owns(pid int, user uint32) bool {
	info, err := os.Stat("/proc/" + itoa(pid))
	if err != nil {
		return false
	}
	return info.Sys().(*syscall.Stat_t).Uid == user
}
