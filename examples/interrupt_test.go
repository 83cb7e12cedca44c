//go:build linux

package examples_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func itoa(n int) string { return strconv.Itoa(n) }

// launching is a launch that is on its way.
type launching struct {
	l      *lab
	cmd    *exec.Cmd
	lines  *bufio.Scanner // one for each step
	stderr bytes.Buffer
}

// begin starts a launch in a process group of its own, so that a signal reaches
// it alone.
func (l *lab) begin(args ...string) *launching {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandDeadline)
	l.t.Cleanup(cancel)
	p := &launching{l: l, cmd: l.command(ctx, l.launchArgs(args...)...)}
	p.cmd.Stderr = &p.stderr
	p.start()
	return p
}

func (p *launching) start() {
	p.l.t.Helper()
	out, err := p.cmd.StdoutPipe()
	check(p.l.t, err)
	p.lines = bufio.NewScanner(out)
	check(p.l.t, p.cmd.Start())
}

// until waits until steps with all of the words have been shown.
func (p *launching) until(words ...string) {
	p.l.t.Helper()
	var seen []string
	for len(words) > 0 && p.lines.Scan() {
		seen = append(seen, p.lines.Text())
		words = slices.DeleteFunc(words, func(w string) bool { return strings.Contains(p.lines.Text(), w) })
	}
	if len(words) > 0 {
		p.l.t.Fatalf("the launch ended before %q: %s\n%s", words, strings.Join(seen, "\n"), p.stderr.String())
	}
}

// signal sends a signal and returns the exit status, -1 for a killed launch.
func (p *launching) signal(sig syscall.Signal) int {
	p.l.t.Helper()
	check(p.l.t, p.cmd.Process.Signal(sig))
	for p.lines.Scan() { // so that it is not held by a full pipe
	}
	_ = p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode()
}

// launchUntil launches until steps with all of the words have been shown, and
// kills the launch there. What it has made stays.
func (l *lab) launchUntil(words ...string) {
	l.t.Helper()
	p := l.begin()
	p.until(words...)
	p.signal(syscall.SIGKILL)
}

// TestDestroyAfterALaunchThatWasKilled kills launches of a lab with a device on a
// host interface: as that is made, and as the nodes get on.
func TestDestroyAfterALaunchThatWasKilled(t *testing.T) {
	s := newSite(t)
	host := addVeth(t, "198.51.100.1/24")
	var points []func(*launching)
	for n := 2; n <= 5; n++ {
		points = append(points, func(p *launching) { p.untilJournal(n) })
	}
	for _, word := range []string{"boot", "ready"} {
		points = append(points, func(p *launching) { p.until(word) })
	}
	for i, reach := range points {
		l := s.lab(fmt.Sprint("at", i), "any", "--node", "a,b", "--link", "a:b", "--ext", "a:"+host)
		l.cold = true
		p := l.begin()
		reach(p)
		p.signal(syscall.SIGKILL)
		// Both ways to destroy have to do; the one without the program does
		// not take a folder for a lab's that has not as much as a journal.
		var out outcome
		if i%2 == 0 && exists(l.state("journal")) {
			out = s.falcon("destroy", l.state(""))
		} else {
			out = l.run("destroy")
		}
		if out.status != 0 {
			t.Errorf("point %d: %s", i, out)
		}
		l.gone()
		s.clean(fmt.Sprint("after point ", i))
		if t.Failed() {
			return
		}
	}
}

// untilJournal waits until the journal has a number of lines.
func (p *launching) untilJournal(lines int) {
	p.l.t.Helper()
	for limit := time.Now().Add(time.Minute); time.Now().Before(limit); {
		journal, _ := os.ReadFile(p.l.state("journal"))
		if bytes.Count(journal, []byte("\n")) >= lines {
			return
		}
		time.Sleep(100 * time.Microsecond) // to be close behind is the point
	}
	p.l.t.Fatalf("the journal has not got %d lines within a minute", lines)
}

func TestInterruptedLaunchIsKeptIfAsked(t *testing.T) {
	kept := newSite(t).lab("kept", "any", "--node", "a")
	kept.cold = true
	p := kept.begin("--keep")
	p.until("boot")
	if status := p.signal(syscall.SIGINT); status != 130 {
		t.Errorf("interrupted with --keep the launch ends with status %d: %s", status, p.stderr.String())
	}
	if n := kept.node("a"); n.State != "unfinished" || !strings.Contains(n.Reason, "hyperstart a") || zombie(n.PID) {
		t.Errorf("with --keep the node is %+v", n)
	}
	kept.destroy()
}

func TestInterruptedLaunchThatAddsLeavesTheRest(t *testing.T) {
	l := newSite(t).lab("pair", "any", "--node", "a,b", "--link", "a:b")
	l.launch()
	before := l.info()
	l.flags, l.cold = []string{"--node", "a,b,c,d", "--link", "a:b,c:d"}, true
	p := l.begin()
	p.until("boot")
	if status := p.signal(syscall.SIGINT); status != 130 {
		t.Errorf("status %d: %s", status, p.stderr.String())
	}
	after := l.info()
	if len(after.Nodes) != 2 {
		t.Fatalf("the lab is %+v", after)
	}
	for i, n := range before.Nodes {
		if a := after.Nodes[i]; a.PID != n.PID || a.State != "running" {
			t.Errorf("%+v has become %+v", n, a)
		}
	}
	l.addresses("a", "b", 1)
	l.pings("a", "10.9.1.2")
	if disks, _ := filepath.Glob(filepath.Join(l.home, "topo", "*", "*.qcow2")); len(disks) != 2 {
		t.Errorf("there are the disks %v", disks)
	}
	if files, _ := filepath.Glob(l.state("[cd].*")); len(files) != 0 {
		t.Errorf("of the nodes that were not added there are %v", files)
	}
	l.destroy()
}

func TestTwoLaunchesAtOnceMakeOneLab(t *testing.T) {
	l := newSite(t).lab("pair", "any", "--node", "a,b", "--link", "a:b")
	var both [2]outcome
	var wg sync.WaitGroup
	for i := range both {
		wg.Go(func() { both[i] = l.run(l.launchArgs()...) })
	}
	wg.Wait()
	for i, out := range both {
		if out.status != 0 {
			t.Errorf("launch %d: %s", i, out)
		}
	}
	if (strings.Contains(both[0].stdout, "runs already")) == strings.Contains(both[1].stdout, "runs already") {
		t.Errorf("not one of the two found the nodes running:\n%s\n%s", both[0], both[1])
	}
	qemus := 0
	for _, p := range l.processes() {
		if strings.Contains(p, "qemu-system") {
			qemus++
		}
	}
	if qemus != 2 {
		t.Errorf("%d QEMUs run: %v", qemus, l.processes())
	}
	l.addresses("a", "b", 1)
	l.pings("a", "10.9.1.2")
	l.destroy()
}
