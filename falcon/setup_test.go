package falcon

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestGuestsAreSetUpByTheirOperatingSystem(t *testing.T) {
	mounts := []MountPlan{{Mount: Mount{Source: "/srv/cargo-bay", Target: "/opt/cargo bay"}, Tag: "/opt/cargo bay"}}
	linux := []string{
		"echo 'violin' > /proc/sys/kernel/hostname\n", "echo 'violin' > /etc/hostname\n", "echo '127.0.1.1 violin' >> /etc/hosts",
		"mount -t 9p -o trans=virtio,version=9p2000.L,msize=65536,ro '/opt/cargo bay' '/opt/cargo bay'",
	}
	illumos := []string{
		"hostname 'violin'\n", "echo 'violin' > /etc/nodename\n",
		"echo '::1 violin.local violin' >> /etc/hosts", "echo '127.0.0.1 violin.local violin' >> /etc/hosts",
		"( cd '/opt/cargo bay' && RUST_LOG=error p9kp pull )",
	}
	for _, tt := range []struct {
		os          string
		want, never []string
	}{
		{"debian-12", linux, []string{"p9kp", "nodename"}},
		{"debian-11", linux, []string{"p9kp", "nodename"}},
		{"micro", linux, []string{"p9kp", "nodename"}},
		{"", linux, []string{"p9kp", "nodename"}},
		{"helios-2.5", illumos, []string{"/proc/", "mount -t", "/etc/hostname"}},
		{"omnios-r151054", illumos, []string{"/proc/", "mount -t", "/etc/hostname"}},
	} {
		script := setupScript(&NodePlan{Name: "violin", OS: tt.os, Mounts: mounts})
		for _, want := range tt.want {
			if !strings.Contains(script, want) {
				t.Errorf("%q: the script lacks %q:\n%s", tt.os, want, script)
			}
		}
		for _, never := range tt.never {
			if strings.Contains(script, never) {
				t.Errorf("%q: the script has %q:\n%s", tt.os, never, script)
			}
		}
	}
}

// The files of the guest and its programs are replaced by those of a folder, so
// that the script itself runs.
func TestTheSetUpOfAnIllumosGuestCanBeRepeated(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"hosts":    "127.0.0.1 localhost violinist\n",
		"hostname": "#!/bin/sh\necho \"$*\" >> \"" + dir + "/called\"\n",
		"p9kp":     "#!/bin/sh\necho cargo > readme\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script := setupScript(&NodePlan{Name: "violin", OS: "helios-2.5",
		Mounts: []MountPlan{{Mount: Mount{Target: "/opt/cargo-bay"}}}})
	script = strings.ReplaceAll(strings.ReplaceAll(script, "/etc/", dir+"/"), "/opt/", dir+"/")
	for range 2 {
		cmd := exec.Command("sh", "-c", script)
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s\n%s", err, out, script)
		}
	}
	for name, want := range map[string]string{
		"hosts":            "127.0.0.1 localhost violinist\n::1 violin.local violin\n127.0.0.1 violin.local violin\n",
		"nodename":         "violin\n",
		"called":           "violin\nviolin\n",
		"cargo-bay/readme": "cargo\n",
	} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
}
