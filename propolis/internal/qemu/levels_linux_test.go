package qemu

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/falcon-vm/falcon-go/propolis/internal/confine"
)

// status returns a line of a process's status.
func (g *guest) status(name string) string {
	g.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.PID()))
	if err != nil {
		g.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "\n"+name+":")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

// QEMU has no privilege at any level, and runs with disks on others, folders that
// only their owner may read and sockets.
func TestQEMUHasNoPrivilegeAtAnyLevel(t *testing.T) {
	for level := confine.Full; level <= confine.Least; level++ {
		if level == confine.Mounts && os.Geteuid() != 0 {
			continue
		}
		t.Run(level.String()[:4], func(t *testing.T) {
			dir := t.TempDir()
			private := filepath.Join(dir, "private")
			if err := os.Mkdir(private, 0o700); err != nil {
				t.Fatal(err)
			}
			if level == confine.Mounts {
				_ = os.Chmod(private, 0o755) // there is no user namespace to read it in
			}
			cfg := testConfig(t, merge(diskOn(biosDisk(t)), propolis.Components{
				"share": propolis.P9FS{Source: private, Target: "share", PCIPath: at(6)},
			}))
			cfg.level = level
			g := startGuest(t, cfg)
			g.run()
			g.expect(hello)
			for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
				if got := g.status(set); strings.Trim(got, "0") != "" && (set != "CapBnd" || os.Geteuid() == 0) {
					t.Errorf("%s is %s", set, got)
				}
			}
			if g.status("NoNewPrivs") != "1" || g.status("Seccomp") != "2" {
				t.Errorf("no new privileges %s, seccomp %s", g.status("NoNewPrivs"), g.status("Seccomp"))
			}
			own := fmt.Sprintf("%d", os.Geteuid())
			if os.Geteuid() == 0 && level != confine.Least {
				own = fmt.Sprint(confine.FirstID)
			}
			if got := strings.Fields(g.status("Uid")); strings.Join(got, " ") != strings.Join([]string{own, own, own, own}, " ") {
				t.Errorf("it runs as %v, want %s", got, own)
			}
		})
	}
}
