//go:build linux

package examples_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A soak is "go test -run TestKilledAtAnyMoment -kills 500 ./examples".
var (
	kills    = flag.Int("kills", 6, "how many commands TestKilledAtAnyMoment kills for each user")
	killSeed = flag.Uint64("kill-seed", 1, "the seed of TestKilledAtAnyMoment's choices; 0 draws one, which a failure names")
)

// TestKilledAtAnyMoment kills what works on a lab, at moments drawn by chance,
// and looks that info says what is, that a launch repairs everything, that every
// node is a machine of its own, and that destroy leaves nothing.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Run("root", func(t *testing.T) { soak(newSite(t)) })
	t.Run("user", func(t *testing.T) { soak(newSiteOf(t, ordinary())) })
}

func soak(s *site) {
	s.t.Helper()
	if s.user == nil {
		s.ownHome("home") // whose residue is this test's
	}
	seed := *killSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	k := &killing{
		lab: s.lab("killed", "any", "--node", "a,b", "--link", "a:b"), rand: rand.New(rand.NewPCG(seed, 0)),
		took: make(map[string]time.Duration), identities: make(map[string]string),
	}
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Logf("again: -kills %d -kill-seed %d; the last: %s", *kills, seed, k.story)
		}
	})
	k.launch() // the template is made once
	k.destroy()
	k.clean = k.homeFiles()
	for n := range *kills {
		k.once(n)
		if n%5 == 4 || n == *kills-1 {
			k.leaveNothing()
		}
		if s.t.Failed() {
			return
		}
	}
}

// killing is a lab whose commands are killed.
type killing struct {
	*lab
	rand *rand.Rand
	// took is how long each command has needed.
	took map[string]time.Duration
	// identities are all values that belong to one machine alone, and whose
	// they were.
	identities map[string]string
	kept       bool // the nodes' disks have /root/kept
	made       []string
	clean      []string // homeFiles of before
	story      string
}

// deed is a command and what must be there before it.
type deed struct {
	name    string
	prepare func()
	program string // the lab's, or falcon
	args    []string
}

func (k *killing) deeds(n int) []deed {
	image := fmt.Sprint("made", n)
	running := func() { k.whole() }
	stopped := func() { k.whole(); k.must("hyperstop", "a") }
	blob := filepath.Join(k.dir, "blob")
	falcon := filepath.Join(built.dir, "falcon")
	return []deed{
		{"launch", k.nothing, k.program, k.launchArgs()},
		{"launch", func() { stopped() }, k.program, k.launchArgs()},
		{"destroy", running, k.program, []string{"destroy"}},
		{"hyperstart", stopped, k.program, []string{"hyperstart", "a"}},
		{"hyperstop", running, k.program, []string{"hyperstop", "a"}},
		{"reboot", running, k.program, []string{"reboot", "a"}},
		{"snapshot", stopped, k.program, []string{"snapshot", "a", image}},
		{"snapshot --live", running, k.program, []string{"snapshot", "--live", "a", image}},
		{"cp to", running, k.program, []string{"cp", blob, "a:/root/blob"}},
		{"cp from", running, k.program, []string{"cp", "a:/bin/busybox", filepath.Join(k.dir, "busybox")}},
		{"import", func() {}, falcon, []string{"image", "import", filepath.Join(built.image, "disk.qcow2"), image}},
		{"template", func() {}, falcon, []string{"image", "warm", "micro", "--memory", fmt.Sprint(96+n, "M"), "--interfaces", "1"}},
	}
}

// nothing destroys the lab.
func (k *killing) nothing() {
	k.must("destroy")
	k.kept = false
}

// whole has the lab run, with a file on each disk that must not be lost.
func (k *killing) whole() {
	k.t.Helper()
	k.launch()
	if !k.kept {
		for _, n := range []string{"a", "b"} {
			k.sh(n, "echo kept >/root/kept; sync")
		}
		k.kept = true
	}
}

// once kills one command, or what it works on, and looks at what has come of it.
func (k *killing) once(n int) {
	deeds := k.deeds(n)
	d := deeds[k.rand.IntN(len(deeds))]
	check(k.t, os.WriteFile(filepath.Join(k.dir, "blob"), make([]byte, 4<<20), 0o644))
	d.prepare()
	k.made = append(k.made, fmt.Sprint("made", n))
	victim := []string{"program", "program", "group", "server", "QEMU"}[k.rand.IntN(5)]
	expected := max(k.took[d.name], 200*time.Millisecond)
	at := time.Duration(k.rand.Int64N(int64(expected * 11 / 10)))
	k.story = fmt.Sprintf("%d: %s, %s killed after %v", n, d.name, victim, at)
	k.t.Log(k.story)
	k.strike(d, victim, at)
	if d.name == "destroy" {
		k.kept = false
		k.must("destroy")
		k.gone()
	}
	if d.name == "hyperstop" {
		time.Sleep(3 * time.Second) // a guest that was asked to power off does so, whoever asked
	}
	k.truth()
	k.whole()
	k.distinct()
}

// strike runs a command and kills the victim at a moment of it.
func (k *killing) strike(d deed, victim string, at time.Duration) {
	k.t.Helper()
	pids := map[string]int{}
	if victim == "server" || victim == "QEMU" {
		for _, n := range k.info().Nodes {
			pids["server"], pids["QEMU"] = n.ServerPID, n.PID
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), commandDeadline)
	defer cancel()
	cmd := k.site.command(ctx, k.lab.dir, d.program, d.args...)
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	begun := time.Now()
	check(k.t, cmd.Start())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	select {
	case <-ended:
		k.took[d.name] = time.Since(begun)
		return
	case <-time.After(at): // the moment is the point
	}
	switch victim {
	case "program":
		_ = cmd.Process.Kill()
	case "group":
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	default:
		pid := pids[victim]
		if files, _ := filepath.Glob(k.state("[ab].pid")); pid == 0 && victim == "server" && len(files) > 0 {
			pid = pidIn(files[0])
		}
		if files, _ := filepath.Glob(k.state("[ab].qemu.pid")); pid == 0 && victim == "QEMU" && len(files) > 0 {
			pid = pidIn(files[0])
		}
		if pid > 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	<-ended
	k.took[d.name] = max(k.took[d.name], time.Since(begun))
}

func pidIn(file string) (pid int) {
	data, _ := os.ReadFile(file)
	_, _ = fmt.Sscan(string(data), &pid)
	return pid
}

// truth looks that info says what is. A server that was killed may take its QEMU
// with it a moment later, so a node may still become something else: what is
// asked for is that it is right in the end.
func (k *killing) truth() {
	k.t.Helper()
	var lie string
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); time.Sleep(100 * time.Millisecond) {
		if lie = k.lie(); lie == "" {
			return
		}
	}
	k.t.Errorf("%s: %s", k.story, lie)
}

// lie returns what info says that is not so.
func (k *killing) lie() string {
	k.t.Helper()
	for _, n := range k.info().Nodes {
		out := k.run("exec", "--timeout", "20s", n.Name, "hostname")
		obeys := out.status == 0 && strings.TrimSpace(out.stdout) == n.Name
		alive := n.PID > 0 && !zombie(n.PID)
		switch {
		case n.State == "running" && (!obeys || !alive):
			return fmt.Sprintf("info says that %s runs as process %d: alive %v; exec: %s", n.Name, n.PID, alive, out)
		case n.State != "running" && out.status == 0:
			return fmt.Sprintf("info says of %s: %s (%s); exec: %s", n.Name, n.State, n.Reason, out)
		case n.State == "starting":
			return fmt.Sprintf("info says that %s starts, and nobody starts it", n.Name)
		}
	}
	return ""
}

// distinct looks that each node is a machine of its own, with what it had kept.
func (k *killing) distinct() {
	k.t.Helper()
	for _, n := range []string{"a", "b"} {
		words := strings.Fields(k.sh(n, "hostname; cat /root/kept /proc/sys/kernel/random/uuid; head -c 16 /dev/urandom | hexdump -v -e '16/1 \"%02x\"'"))
		if len(words) != 4 || words[0] != n || words[1] != "kept" {
			k.t.Errorf("%s: node %s has %q", k.story, n, words)
			continue
		}
		for _, id := range words[2:] {
			if other := k.identities[id]; other != "" {
				k.t.Errorf("%s: %s draws %s, as %s did", k.story, n, id, other)
			}
			k.identities[id] = n + " in " + k.story
		}
	}
	if a, b := k.sh("a", "cat /etc/machine-id"), k.sh("b", "cat /etc/machine-id"); a == b {
		k.t.Errorf("%s: both nodes have the machine id %s", k.story, a)
	}
}

// leaveNothing removes all that was made by the commands for it, and looks that
// nothing else was.
func (k *killing) leaveNothing() {
	k.t.Helper()
	k.nothing()
	k.gone()
	var list struct {
		Images []struct {
			Name string `json:"name"`
		} `json:"images"`
	}
	out := k.falcon("image", "ls", "--json")
	check(k.t, json.Unmarshal([]byte(out.stdout), &list))
	for _, i := range slices.Backward(list.Images) {
		if slices.Contains(k.made, i.Name) {
			if out := k.falcon("image", "rm", i.Name); out.status != 0 {
				k.t.Errorf("%s: removing image %s: %s", k.story, i.Name, out)
			}
		}
	}
	k.made = nil
	// What was left by half is the next command's to remove.
	if out := k.falcon("image", "prune", "--all"); out.status != 0 {
		k.t.Errorf("%s: prune: %s", k.story, out)
	}
	// Not --fix: the host may have other labs that are lost.
	for line := range strings.Lines(k.falcon("doctor").stdout) {
		if strings.HasPrefix(line, "LEFT") && strings.Contains(line, k.site.dir) {
			k.t.Errorf("%s: doctor: %s", k.story, line)
		}
	}
	for _, f := range k.homeFiles() {
		if !slices.Contains(k.clean, f) && !strings.Contains(f, "/.warm-") {
			k.t.Errorf("%s: left in the home: %s", k.story, f)
		}
	}
	k.site.clean("after " + k.story)
}

// homeFiles lists what is in the home.
func (k *killing) homeFiles() []string {
	var files []string
	_ = filepath.WalkDir(k.home, func(path string, d fs.DirEntry, err error) error {
		if err == nil && (!d.IsDir() || strings.Contains(path, "/img/") || strings.Contains(path, "/topo/")) {
			files = append(files, path)
		}
		return nil
	})
	return files
}
