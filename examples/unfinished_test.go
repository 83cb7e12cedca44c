//go:build linux

package examples_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/internal/agent"
)

// stage returns how far a node has come, as its file says.
func (l *lab) stage(node string) string {
	var s struct{ Stage string }
	if data, err := os.ReadFile(l.state(node + ".start")); err == nil {
		_ = json.Unmarshal(data, &s) // it is replaced at once
	}
	return s.Stage
}

// kill runs a command and kills it as soon as a node is at a stage, or a time
// after that.
func (l *lab) kill(node, stage string, later time.Duration, args ...string) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandDeadline)
	defer cancel()
	cmd := l.command(ctx, args...)
	check(l.t, cmd.Start())
	for l.stage(node) != stage && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(later)
	check(l.t, cmd.Process.Kill())
	_ = cmd.Wait()
	check(l.t, ctx.Err())
}

// whoAmI tells what no two machines have in common.
const whoAmI = "hostname; cat /etc/machine-id /proc/sys/kernel/random/uuid; head -c 16 /dev/urandom | od -An -tx1"

// truth checks that info says of a node what is so, and that nobody uses it before
// it is set up.
func (l *lab) truth(node string) {
	l.t.Helper()
	n := l.node(node)
	switch n.State {
	case "running":
		if got := strings.TrimSpace(l.sh(node, "hostname")); got != node {
			l.t.Errorf("info says that %s runs, and it is %q", node, got)
		}
		return
	case "unfinished":
		if !strings.Contains(n.Reason, "hyperstart "+node) {
			l.t.Errorf("%s: the reason has no cure: %s", node, n.Reason)
		}
		l.refuse([]string{"cp", node + ":/etc/hostname", l.dir}, "broken off", "hyperstart "+node)
		l.refuse([]string{"snapshot", "--live", node, "raw"}, "broken off")
	case "failed", "stopped":
	default:
		l.t.Errorf("info says of %s, on which nobody works: %s", node, n.State)
	}
	if out := l.run("exec", node, "hostname"); out.status != 125 {
		l.t.Errorf("exec in %s (%s) ended with %d: %s", node, n.State, out.status, out.stdout)
	}
}

// TestWhatWasBrokenOffIsFinished kills what starts nodes at each stage. What info
// then says is so, and after the same command each node is a machine of its own.
func TestWhatWasBrokenOffIsFinished(t *testing.T) {
	s := newSite(t)
	l := s.lab("killed", "ring", "-n", "2")
	l.launch() // makes the template
	l.destroy()
	var seen []string
	finished := func(what string, again ...string) {
		t.Helper()
		for _, n := range []string{"n0", "n1"} {
			l.truth(n)
		}
		l.must(again...)
		for _, node := range []string{"n0", "n1"} {
			if n := l.node(node); n.State != "running" || n.Start.Stage != "ready" {
				t.Errorf("%s: %s is %s (%s)", what, node, n.State, n.Reason)
			}
			lines := strings.Split(strings.TrimSpace(l.sh(node, whoAmI)), "\n")
			if len(lines) != 4 || lines[0] != node {
				t.Fatalf("%s: %s is %q", what, node, lines)
			}
			for _, line := range lines[2:] {
				if slices.Contains(seen, line) {
					t.Errorf("%s: %s has what another one had: %s", what, node, line)
				}
				seen = append(seen, line)
			}
		}
	}
	for _, at := range []struct {
		stage string
		later time.Duration
	}{{"start", 0}, {"start", 100 * time.Millisecond}, {"set-up", 0}, {"set-up", 20 * time.Millisecond}, {"set-up", 60 * time.Millisecond}} {
		l.kill("n0", at.stage, at.later, l.launchArgs()...)
		finished("warm, "+at.stage+" "+at.later.String(), l.launchArgs()...)
		l.destroy()
	}
	l.kill("n0", "boot", 500*time.Millisecond, l.launchArgs("--cold")...)
	finished("cold, boot", l.launchArgs("--cold")...)
	for _, stage := range []string{"start", "boot"} {
		l.must("hyperstop", "--all")
		l.kill("n0", stage, 0, "hyperstart", "--all")
		finished("hyperstart, "+stage, "hyperstart", "--all")
	}
	l.kill("n0", "boot", 100*time.Millisecond, "reboot", "n0")
	finished("reboot", "hyperstart", "n0")
	l.destroy()
}

// TestACloneWithoutAnIdentityIsNotToBeUsed kills the launch of clones before they
// are themselves. Whoever then talks to the guest, past falcon, gets nothing of it;
// and when it is let go without any entropy, it has its own, of its seed.
func TestACloneWithoutAnIdentityIsNotToBeUsed(t *testing.T) {
	l := newSite(t).lab("raw", "any", "--node", "a")
	l.launch()
	l.destroy()
	var drawn []string
	for range 2 {
		l.killHeld("a")
		ctx, cancel := context.WithTimeout(context.Background(), commandDeadline)
		defer cancel()
		a := l.agent("a")
		if err := a.CopyFrom(ctx, "/etc/hostname", t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "no identity") {
			t.Errorf("a copy out of it: %v", err)
		}
		check(t, a.Identify(ctx, agent.Identity{}))
		var out bytes.Buffer
		_, err := a.Exec(ctx, agent.Command{Exec: agent.Exec{Argv: []string{"sh", "-c", "cat /proc/sys/kernel/random/uuid"}}, Stdout: &out})
		check(t, err)
		drawn = append(drawn, out.String())
		l.destroy()
	}
	if drawn[0] == drawn[1] || drawn[0] == "" {
		t.Errorf("two clones drew %q", drawn)
	}
	l.killHeld("a")
	begun := time.Now()
	l.must("hyperstop", "a")
	if took := time.Since(begun); took > 25*time.Second {
		t.Errorf("it was stopped after %v", took)
	}
	l.destroy()
}

// killHeld kills a launch when a node is a clone that is not itself yet.
func (l *lab) killHeld(node string) {
	l.t.Helper()
	for range 60 {
		l.kill(node, "set-up", 0, l.launchArgs()...)
		// An identity that was on its way when the launch was killed may still come.
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(context.Background(), commandDeadline)
		info, err := l.agent(node).Ping(ctx)
		cancel()
		check(l.t, err)
		if info.Held {
			return
		}
		l.destroy()
	}
	l.t.Skip("the clone was always quicker than the kill")
}

// TestAResetKeepsWhatANodeIs resets a guest before its kernel has written anything
// by itself, and then one of which nothing was left on the disk.
func TestAResetKeepsWhatANodeIs(t *testing.T) {
	l := newSite(t).lab("reset", "ring", "-n", "2")
	l.launch()
	reset := func(name, first string) {
		t.Helper()
		before := l.node(name).Resets
		l.sh(name, first+"echo 1 >/proc/sys/kernel/sysrq; (sleep 0.3; echo b >/proc/sysrq-trigger) >/dev/null 2>&1 &")
		l.becomes(name, "reset", func(n node) bool { return n.Resets > before })
	}
	isItself := func(node string) {
		t.Helper()
		want := node + " " + strings.ReplaceAll(l.node(node).UUID, "-", "") + " " + node
		if got := strings.Join(strings.Fields(l.sh(node, "hostname; cat /etc/machine-id /etc/hostname")), " "); got != want {
			t.Errorf("after its reset %s is %q, not %q", node, got, want)
		}
	}
	reset("n0", "")
	isItself("n0")
	reset("n1", "rm /var/lib/falcon-agent/boot; : >/etc/machine-id; sync; ")
	l.becomesState("n1", "unfinished")
	l.truth("n1")
	l.must(l.launchArgs()...)
	isItself("n1")
	reset("n1", "rm /var/lib/falcon-agent/boot; : >/etc/machine-id; sync; ")
	l.must("hyperstart", "n1")
	isItself("n1")
}
