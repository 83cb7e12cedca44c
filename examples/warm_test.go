//go:build linux

package examples_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// view is what a guest sees of its machine, once it has loaded all drivers.
const view = `until [ -e /run/falcon-later ]; do sleep 0.1; done
cd /sys/bus/pci/devices
for d in *; do echo "$d $(cat $d/vendor $d/device $d/class | tr '\n' ' ') $(basename "$(readlink $d/driver)")"; done
ip -d -j link
for n in /sys/class/net/*; do echo "$n $(basename "$(readlink $n/device)") $(cat $n/address $n/mtu $n/carrier 2>/dev/null | tr '\n' ' ')"; done
cat /proc/mounts /proc/cmdline /proc/swaps
for b in /sys/class/block/*; do echo "$b $(cat $b/size)"; done
ls /dev /sys/class/tty /sys/class/virtio-ports
grep -v -e MHz -e bogomips /proc/cpuinfo
grep MemTotal /proc/meminfo
cat /etc/hostname /etc/hosts; hostname
`

// TestClonesSeeTheMachineThatColdNodesSee launches the same lab twice, with
// nodes that boot and with clones, and has the guests tell what they see.
func TestClonesSeeTheMachineThatColdNodesSee(t *testing.T) {
	for _, image := range []string{"micro"} {
		t.Run(image, func(t *testing.T) {
			s := newSite(t)
			cargo := s.mkdir("cargo")
			check(t, os.WriteFile(filepath.Join(cargo, "manifest"), []byte("violin\n"), 0o644))
			l := s.lab("views", "any", "--image", image, "--node", "a,b", "--link", "a:b", "--link", "a:b", "--link", "b:a",
				"--ext", "a:user", "--mount", "a:"+cargo+":/opt/cargo", "--disk", "b:2048")
			views := make(map[string]map[string]string) // by how it was launched, and node
			for how, args := range map[string][]string{"cold": {"--cold"}, "warm": nil} {
				l.launch(args...)
				views[how] = make(map[string]string)
				for _, n := range l.info().Nodes {
					if got := n.Start.Cold; got != (how == "cold") {
						t.Errorf("%s launch: node %s is cold: %v (%s)", how, n.Name, got, n.Start.Why)
					}
					var total float64
					for _, s := range n.Start.Stages {
						total += s.Seconds
					}
					t.Logf("%s: %s took %.2f s", how, n.Name, total)
					views[how][n.Name] = l.sh(n.Name, view)
				}
				if got := l.sh("a", "cat /opt/cargo/manifest"); got != "violin\n" {
					t.Errorf("%s: the mounted file has %q", how, got)
				}
				l.sh("a", "ip link set eth0 up; ip addr add 10.9.8.1/24 dev eth0")
				l.sh("b", "ip link set eth0 up; ip addr add 10.9.8.2/24 dev eth0; ping -c 1 -w 10 10.9.8.1")
				l.destroy()
			}
			if diff := cmp.Diff(views["cold"], views["warm"]); diff != "" {
				t.Errorf("-cold +warm:\n%s", diff)
			}
		})
	}
}

// TestNoTwoClonesAreTheSame launches clones of one template and compares what
// makes a machine itself.
func TestNoTwoClonesAreTheSame(t *testing.T) {
	const clones = 16
	l := newSite(t).lab("clones", "ring", "-n", strconv.Itoa(clones))
	l.launch()
	seen := make(map[string]string) // by what it is and its value
	for i := range clones {
		node := "n" + strconv.Itoa(i)
		for _, what := range []string{
			"hostname", "cat /etc/hostname", "cat /etc/machine-id", "cat /sys/class/dmi/id/product_uuid", "cat /sys/class/net/eth0/address",
			"head -c 32 /dev/urandom | od -An -tx1", "cat /proc/sys/kernel/random/uuid",
		} {
			value := strings.TrimSpace(l.sh(node, what))
			if value == "" {
				t.Errorf("%s: %s says nothing", node, what)
			}
			if other := seen[what+": "+value]; other != "" {
				t.Errorf("%s and %s both have %s from %s", other, node, value, what)
			}
			seen[what+": "+value] = node
		}
		before := time.Now()
		now, err := strconv.ParseInt(strings.TrimSpace(l.sh(node, "date +%s")), 10, 64)
		if clock := time.Unix(now, 0); err != nil || clock.Before(before.Add(-2*time.Second)) || clock.After(time.Now().Add(time.Second)) {
			t.Errorf("at %v the clock of %s says %v (%v)", before, node, clock, err)
		}
		if got := l.sh(node, "ls /root; echo "+node+" > /root/mine; cat /root/mine"); got != node+"\n" {
			t.Errorf("the disk of %s has %q", node, got)
		}
	}
	l.destroy()
}

// templates returns the folders of the templates in the site's home.
func (s *site) templates() []string {
	dirs, err := filepath.Glob(filepath.Join(s.home, "img", ".warm-*"))
	check(s.t, err)
	return dirs
}

// TestTemplatesAreMadeAnewWhateverBecameOfThem kills who makes a template, and
// damages one in each way; the next launch has good clones all the same.
func TestTemplatesAreMadeAnewWhateverBecameOfThem(t *testing.T) {
	s := newSite(t)
	s.ownHome("home")
	l := s.lab("broken", "any", "--node", "a")
	warm := func(when string) {
		t.Helper()
		l.launch()
		if n := l.node("a"); n.Start.Cold {
			t.Errorf("%s: the node booted: %s", when, n.Start.Why)
		}
		if got := l.sh("a", "hostname"); got != "a\n" {
			t.Errorf("%s: the node says that it is %q", when, got)
		}
		l.destroy()
		if got := s.templates(); len(got) != 1 {
			t.Errorf("%s: there are the templates %v", when, got)
		}
	}
	for _, stage := range []string{"booting", "preparing", "saving"} {
		l.launchUntil("template: " + stage)
		s.waitForNoProcesses()
		if got := s.templates(); len(got) != 0 {
			t.Errorf("after a kill while %s there are the templates %v", stage, got)
		}
	}
	l.must("destroy")
	warm("after launches that were killed")
	ram := filepath.Join(s.templates()[0], "ram")
	check(t, os.Truncate(ram, 1<<20))
	warm("after its memory was cut off")
	// A change that is dated back is noticed by what the kernel notes of it.
	state := filepath.Join(s.templates()[0], "state")
	info, err := os.Stat(state)
	check(t, err)
	check(t, overwrite(state, 100_000))
	check(t, os.Chtimes(state, info.ModTime(), info.ModTime()))
	damaged, err := os.ReadFile(state)
	check(t, err)
	warm("after its state was damaged")
	if is, err := os.ReadFile(filepath.Join(s.templates()[0], "state")); err != nil || bytes.Equal(is, damaged) {
		t.Errorf("a damaged template was used (%v)", err)
	}
}

// overwrite changes a byte of a file.
func overwrite(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		return err
	}
	b[0] ^= 0xff
	_, err = f.WriteAt(b, at)
	return err
}

// waitForNoProcesses waits until all that was started from the site has ended.
func (s *site) waitForNoProcesses() {
	s.t.Helper()
	// Nothing tells when processes end that are not ours.
	for deadline := time.Now().Add(20 * time.Second); len(s.processes()) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("there are still %v", s.processes())
		}
	}
}

// TestTwoLaunchesMakeATemplateOnce launches two labs at once that need the same
// template.
func TestTwoLaunchesMakeATemplateOnce(t *testing.T) {
	s := newSite(t)
	s.ownHome("home")
	var wg sync.WaitGroup
	for i := range 2 {
		l := s.lab(fmt.Sprint("lab", i), "any", "--name", fmt.Sprint("lab", i), "--node", "a")
		wg.Go(func() { l.launch() })
		t.Cleanup(l.destroy)
	}
	wg.Wait()
	if got := s.templates(); len(got) != 1 {
		t.Errorf("there are the templates %v", got)
	}
}

// TestTemplatesGoWhenNothingStandsOnThem looks after a template by hand.
func TestTemplatesGoWhenNothingStandsOnThem(t *testing.T) {
	s := newSite(t)
	s.ownHome("home")
	must := func(args ...string) string {
		t.Helper()
		out := s.falcon(args...)
		if out.status != 0 {
			t.Fatalf("falcon %s: %s", strings.Join(args, " "), out)
		}
		return out.stdout
	}
	must("image", "warm", "micro", "--memory", "128M", "--interfaces", "0")
	l := s.lab("lab", "any", "--node", "a")
	begun := l.launch()
	if strings.Contains(begun, "template") {
		t.Errorf("the launch made a template that was there:\n%s", begun)
	}
	l.must("hyperstop", "a")
	l.must("snapshot", "a", "mine")
	if out := must("image", "ls"); strings.Contains(out, ".warm") || !strings.Contains(out, "mine") {
		t.Errorf("the images are\n%s", out)
	}
	var doc struct {
		Removed, Kept []struct {
			InUse []string `json:"in_use"`
		}
	}
	check(t, json.Unmarshal([]byte(must("image", "prune", "--all", "--json")), &doc))
	if len(doc.Removed) != 0 || len(doc.Kept) != 1 || len(doc.Kept[0].InUse) == 0 {
		t.Errorf("pruned while it is in use: %+v", doc)
	}
	l.destroy()
	must("image", "prune", "--all")
	if len(s.templates()) != 1 {
		t.Error("a template is gone on which a snapshot stands")
	}
	must("image", "rm", "mine")
	must("image", "prune")
	if len(s.templates()) != 1 {
		t.Error("a template is gone that the next launch would use")
	}
	must("image", "prune", "--all")
	if got := s.templates(); len(got) != 0 {
		t.Errorf("there are still %v", got)
	}
}

// TestACloneWhoseQEMUIsKilledFails kills QEMU of a clone; the node starts again.
func TestACloneWhoseQEMUIsKilledFails(t *testing.T) {
	l := newSite(t).lab("killed", "any", "--node", "a")
	l.launch()
	l.sh("a", "echo kept > /root/kept; sync")
	check(t, syscall.Kill(l.node("a").PID, syscall.SIGKILL))
	// Its server notices at once, but tells nobody who does not ask.
	for deadline := time.Now().Add(20 * time.Second); l.node("a").State != "failed"; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the node is %s", l.node("a").State)
		}
	}
	l.must("hyperstart", "a")
	if got := l.sh("a", "cat /root/kept; hostname"); got != "kept\na\n" {
		t.Errorf("after its QEMU was killed the node has %q", got)
	}
	if n := l.node("a"); !n.Start.Cold {
		t.Error("the node did not boot from its own disk")
	}
	l.destroy()
}
