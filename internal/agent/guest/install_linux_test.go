package guest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each init is told to start the agent, once, and what it was told before stays.
func TestInstallTellsTheInit(t *testing.T) {
	for name, tt := range map[string]struct {
		there map[string]string // files of the system
		init  string
		want  map[string]string // parts of files after it
	}{
		"systemd": {
			there: map[string]string{"usr/lib/systemd/systemd": "", "etc/inittab": "x"}, init: "systemd",
			want: map[string]string{
				"etc/systemd/system/falcon-agent.service":                         "ExecStart=" + Program,
				"etc/systemd/system/multi-user.target.wants/falcon-agent.service": "->/etc/systemd/system/falcon-agent.service",
				"etc/inittab": "x",
			},
		},
		"our debian": {
			there: map[string]string{"lib/systemd/systemd": "", "etc/systemd/system/falcon-agent.service": "own"}, init: "systemd",
			want: map[string]string{"etc/systemd/system/falcon-agent.service": "own"},
		},
		"OpenRC": {
			there: map[string]string{"sbin/openrc-run": "", "etc/inittab": "::x\n"}, init: "OpenRC",
			want: map[string]string{"etc/init.d/falcon-agent": "command=" + Program, "etc/runlevels/default/falcon-agent": "->/etc/init.d/falcon-agent"},
		},
		"busybox": {
			there: map[string]string{"etc/inittab": "# x\n::sysinit:/etc/rc\nttyS0::respawn:sh"}, init: "/etc/inittab",
			want: map[string]string{"etc/inittab": "ttyS0::respawn:sh\n::respawn:" + Program + "\n"},
		},
		"System V": {
			there: map[string]string{"etc/inittab": "id:3:initdefault:\n"}, init: "/etc/inittab",
			want: map[string]string{"etc/inittab": "id:3:initdefault:\nfa:2345:respawn:" + Program + "\n"},
		},
		"micro": {there: map[string]string{"etc/os-release": "NAME=x\nID=falcon-micro\n", "etc/inittab": ""}, init: "the micro image's own", want: map[string]string{"etc/inittab": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for file, text := range tt.there {
				writeText(t, filepath.Join(root, file), text)
			}
			for range 2 { // the second time changes nothing
				if init, err := install(root); err != nil || init != tt.init {
					t.Fatalf("%q, %v", init, err)
				}
			}
			if info, err := os.Stat(filepath.Join(root, Program)); err != nil || info.Mode() != 0o755 || info.Size() == 0 {
				t.Errorf("the program: %v, %v", info, err)
			}
			for file, want := range tt.want {
				path := filepath.Join(root, file)
				if target, link := strings.CutPrefix(want, "->"); link {
					if got, err := os.Readlink(path); err != nil || got != target {
						t.Errorf("%s leads to %q, %v", file, got, err)
					}
					continue
				}
				got, err := os.ReadFile(path)
				if err != nil || !strings.Contains(string(got), want) || strings.Count(string(got), Program) > 1 {
					t.Errorf("%s has %q, %v", file, got, err)
				}
			}
		})
	}
	if _, err := install(t.TempDir()); err == nil || !strings.Contains(err.Error(), Program+" at boot") {
		t.Errorf("a system without an init: %v", err)
	}
}

func writeText(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
