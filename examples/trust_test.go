//go:build linux

package examples_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// planted is what a journal that was made up names: a process, a namespace and a
// file that are none of the topology's.
type planted struct {
	t         *testing.T
	process   *exec.Cmd
	namespace string
	victim    string
}

func newPlanted(t *testing.T, s *site) *planted {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	check(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	p := &planted{t, cmd, fmt.Sprintf("falcon-planted-%08x", newNumber(t)), filepath.Join(s.home, "victim.json")}
	newNamespace(t, p.namespace)
	check(t, os.WriteFile(p.victim, nil, 0o600))
	t.Cleanup(func() { os.Remove(p.victim) })
	return p
}

// journal is the journal that names all of them.
func (p *planted) journal() string {
	p.t.Helper()
	stat, err := os.ReadFile("/proc/" + itoa(p.process.Process.Pid) + "/stat")
	check(p.t, err)
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	check(p.t, err)
	start := strings.Fields(string(stat))[21]
	return fmt.Sprintf(`{"op":"make","object":{"kind":"server","name":"a","process":{"pid":%d,"start":%s,"boot":%q}}}
{"op":"make","object":{"kind":"links","name":%q}}
{"op":"make","object":{"kind":"registration","name":"../victim"}}
`, p.process.Process.Pid, start, strings.TrimSpace(string(boot)), p.namespace)
}

// stand fails when one of them is gone.
func (p *planted) stand(after string) {
	p.t.Helper()
	if zombie(p.process.Process.Pid) {
		p.t.Errorf("%s: the process was ended", after)
	}
	if !exists("/run/netns/" + p.namespace) {
		p.t.Errorf("%s: the namespace was removed", after)
	}
	if !exists(p.victim) {
		p.t.Errorf("%s: the file was removed", after)
	}
}

func TestRootDoesNotFollowTheFoldersOfOthers(t *testing.T) {
	s := newSite(t)
	l := s.lab("lab", "any", "--node", "a")
	p := newPlanted(t, s)
	for name, files := range map[string]map[string]string{
		"journal": {"journal": p.journal()}, "lock": {"lock": ""}, "empty": nil,
		"record": {"journal": p.journal(), "topology.json": `{"version":1,"topology":"any","plan":{"version":1,"topology":"any","nodes":[{"name":"a"}]}}`},
	} {
		for how, spoil := range map[string]func(dir string) error{
			"another user's": func(dir string) error { return os.Chown(dir, 54321, 54321) },
			"for all":        func(dir string) error { return os.Chmod(dir, 0o777) },
			"in one for all": func(dir string) error { return os.Chmod(filepath.Dir(dir), 0o777) },
		} {
			what := name + " " + how
			dir := filepath.Join(s.mkdir(strings.ReplaceAll(what, " ", "-")), "state")
			check(t, os.Mkdir(dir, 0o700))
			for file, text := range files {
				check(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600))
			}
			check(t, spoil(dir))
			for _, words := range [][]string{
				{"launch"}, {"destroy"}, {"info"}, {"exec", "a", "true"}, {"serial", "a"}, {"cp", "a:/etc/hostname", "x"}, {"logs", "a"},
				{"hyperstop", "a"}, {"hyperstart", "a"}, {"reboot", "a"}, {"snapshot", "a", "x"}, {"netcreate"}, {"netdestroy"},
			} {
				l.refuse(append([]string{"--node", "a", "-f", dir}, words...), dir[:len(dir)-len("/state")])
			}
			if out := s.falcon("destroy", dir); out.status != 1 || !strings.Contains(out.stderr, "not believed") {
				t.Errorf("%s: falcon destroy: %s", what, out)
			}
			p.stand(what)
			if left, err := os.ReadDir(dir); err != nil || len(left) != len(files) {
				t.Errorf("%s: the folder has %v (%v)", what, left, err)
			}
		}
	}
}

// In a folder of one's own a journal that names what is not the topology's is
// passed over, and told.
func TestAPlantedJournalIsToldAndPassedOver(t *testing.T) {
	s := newSite(t)
	l := s.lab("lab", "any", "--node", "a")
	p := newPlanted(t, s)
	check(t, os.Mkdir(l.state(""), 0o700))
	check(t, os.WriteFile(l.state("journal"), []byte(p.journal()), 0o600))
	out := s.falcon("destroy", l.state(""))
	if out.status != 0 || strings.Count(out.stderr, "note: ") < 3 {
		t.Errorf("%s", out)
	}
	p.stand("destroy")
	check(t, os.MkdirAll(l.state(""), 0o700))
	check(t, os.WriteFile(l.state("journal"), []byte(p.journal()), 0o600))
	l.launch()
	p.stand("launch")
	l.destroy()
	p.stand("destroy of what was launched")
}

func TestPlantedLinksAreNotFollowed(t *testing.T) {
	s := newSite(t)
	l := s.lab("lab", "any", "--node", "a")
	victim := filepath.Join(s.dir, "victim")
	check(t, os.Mkdir(l.state(""), 0o700))
	files := []string{"a.err", "a.out", ".topology.json.new", ".a.uuid.new", ".a.pid.new", ".a.start.new", "a.qemu.pid.tmp", ".identity.json.new", "a.pid", "a.uuid", "a.qemu.pid"}
	for _, name := range files {
		check(t, os.WriteFile(victim+name, []byte("kept"), 0o600))
		check(t, os.Symlink(victim+name, l.state(name)))
	}
	l.launch()
	l.sh("a", "true")
	l.destroy()
	for _, name := range []string{"lock", "journal", "topology.json", "identity.json", "a.lock"} {
		check(t, os.MkdirAll(l.state(""), 0o700))
		check(t, os.WriteFile(victim+name, []byte("kept"), 0o600))
		check(t, os.Symlink(victim+name, l.state(name)))
		l.run(l.launchArgs()...) // refused, or it replaces it
		l.run("hyperstop", "a")
		l.run("destroy")
		files = append(files, name)
		check(t, os.RemoveAll(filepath.Join(l.dir, ".falcon", name)))
		l.run("destroy")
	}
	for _, name := range files {
		if text, err := os.ReadFile(victim + name); err != nil || string(text) != "kept" {
			t.Errorf("by way of %s another file was changed to %q (%v)", name, text, err)
		}
		check(t, os.Remove(victim+name))
	}
	check(t, os.RemoveAll(l.state("")))
}

// A lab is what it is wherever its folder goes, and under any FALCON_HOME.
func TestALabIsMovedAndCopied(t *testing.T) {
	for name, user := range map[string]*syscall.Credential{"root": nil, "user": ordinary()} {
		t.Run(name, func(t *testing.T) {
			if name == "root" && os.Geteuid() != 0 {
				t.Skip("needs root")
			}
			s := newSiteOf(t, user)
			l := s.lab("pair", "any", "--node", "a,b", "--link", "a:b")
			l.launch()
			to := s.mkdir("other")
			check(t, os.Rename(l.state(""), filepath.Join(to, ".falcon")))
			from := l.dir
			l.dir = to
			l.addresses("a", "b", 1)
			l.pings("a", "10.9.1.2")
			l.must("hyperstop", "a")
			l.env = []string{"FALCON_HOME=" + filepath.Join(s.mkdir("nowhere"), "home")}
			l.must("hyperstart", "a")
			l.address("a", "b", "10.9.1.1/24")
			l.pings("a", "10.9.1.2")

			check(t, exec.Command("cp", "-a", l.state(""), filepath.Join(from, ".falcon")).Run())
			l.dir = from
			for _, words := range [][]string{{"destroy"}, {"hyperstop", "a"}, {"exec", "a", "true"}, {"launch"}} {
				l.refuse(words, "is a copy of "+filepath.Join(to, ".falcon"))
			}
			check(t, os.RemoveAll(l.state("")))
			l.dir = to
			if got := l.must("destroy"); !strings.Contains(got, "2 nodes, 2 disks, 1 network") {
				t.Errorf("destroy says %q", got)
			}
			l.gone()
		})
	}
}

// A lab with external links alone has a namespace, too.
func TestExternalLinksAloneLeaveNothing(t *testing.T) {
	s := newSite(t)
	l := s.lab("alone", "any", "--node", "a", "--ext", "a:"+addVeth(t, "198.51.100.1/24"))
	l.launch()
	l.destroy()
	s.clean("after the destroy")
}

// The folder and the processes of a lab are lost; its network, disks and all that
// runs is found and removed.
func TestDoctorClearsALabWhoseFolderIsLost(t *testing.T) {
	for name, user := range map[string]*syscall.Credential{"root": nil, "user": ordinary()} {
		t.Run(name, func(t *testing.T) {
			if name == "root" && os.Geteuid() != 0 {
				t.Skip("needs root")
			}
			s := newSiteOf(t, user)
			l := s.lab("pair", "any", "--node", "a,b", "--link", "a:b")
			l.launch()
			var identity struct{ ID string }
			text, err := os.ReadFile(l.state("identity.json"))
			check(t, err)
			check(t, json.Unmarshal(text, &identity))
			check(t, os.RemoveAll(l.state("")))
			if out := l.run("destroy"); out.status != 0 || !strings.Contains(out.stdout, "nothing of ") || !strings.Contains(out.stderr, "falcon doctor --fix") {
				t.Errorf("destroy: %s", out)
			}
			if out := s.falcon("doctor"); strings.Contains(out.stdout, "/topo/"+identity.ID) || strings.Count(out.stdout, " of topology "+identity.ID) != 4 {
				t.Errorf("while its nodes run: %s", out)
			}
			if out := s.falcon("doctor", "--fix"); strings.Count(out.stdout, "/topo/"+identity.ID) != 2 || strings.Contains(out.stdout, "LEFT") {
				t.Errorf("doctor --fix: %s", out)
			}
			if out := s.falcon("doctor", "--fix"); strings.Contains(out.stdout, identity.ID) || strings.Contains(out.stdout, l.dir) {
				t.Errorf("the second time: %s", out)
			}
			s.clean("after the doctor")
		})
	}
}
