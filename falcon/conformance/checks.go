package conformance

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/falcon-vm/falcon-go/falcon"
)

func checkLaunch(s *site) {
	cargo := s.mkdir("cargo")
	s.check(os.WriteFile(cargo+"/readme", []byte("from the host\n"), 0o644))
	l := s.lab("lab", "--node", "a,b", "--link", "a:b", "--mount", "a:"+cargo+":/opt/cargo")
	l.must(append(l.flags, "preflight")...)
	l.gone() // a preflight makes nothing
	l.launch()
	l.wants(falcon.NodeRunning, "a", "b")
	for _, node := range []string{"a", "b"} {
		if got := l.sh(node, "hostname; grep -cw "+node+" /etc/hosts"); got != node+"\n1\n" {
			s.Errorf("host name and line of /etc/hosts in %s: %q", node, got)
		}
	}
	if got := l.sh("a", "cat /opt/cargo/readme"); got != "from the host\n" {
		s.Errorf("the mount shows %q", got)
	}
	l.joined("a", "b")
	if list := s.must("ls"); !strings.Contains(list, l.dir) {
		s.Errorf("falcon ls does not list %s:\n%s", l.dir, list)
	}
	l.destroy()
	l.must("destroy") // again is no error
	if list := s.must("ls"); strings.Contains(list, l.dir) {
		s.Errorf("after destroy falcon ls lists\n%s", list)
	}
}

// checkFolders moves a state folder, copies it, and loses parts of it.
func checkFolders(s *site) {
	l := s.lab("lab", "--node", "a,b", "--link", "a:b")
	l.launch()
	from, to := l.dir, s.mkdir("other")
	s.check(os.Rename(l.state(""), filepath.Join(to, falcon.DefaultDir)))
	l.dir = to
	l.wants(falcon.NodeRunning, "a", "b")
	l.joined("a", "b")
	l.must("hyperstop", "a")
	l.must("hyperstart", "a")
	s.check(exec.Command("cp", "-a", l.state(""), filepath.Join(from, falcon.DefaultDir)).Run())
	l.dir = from
	for _, words := range [][]string{{"destroy"}, {"hyperstop", "a"}, {"netdestroy"}} {
		l.refuse(words, "is a copy of "+to)
	}
	s.check(os.RemoveAll(l.state("")))
	l.dir = to
	l.wants(falcon.NodeRunning, "a", "b")
	s.check(os.WriteFile(l.state("journal"), []byte("noise\n"), 0o600))
	l.wants(falcon.NodeRunning, "a", "b")
	l.destroy()
	for _, lost := range [][]string{{"journal"}, {"identity.json"}, {"topology.json", "journal"}} {
		l.launch()
		for _, name := range lost {
			s.check(os.Remove(l.state(name)))
		}
		l.destroy()
		s.clean(fmt.Sprint("after the loss of ", lost))
	}
}

// checkEnsure launches what runs, what has lost a node, and what has got one.
func checkEnsure(s *site) {
	l := s.lab("lab", "--node", "a,b", "--link", "a:b")
	l.launch()
	l.sh("a", "echo here > /tmp/here")
	l.sh("b", "echo here > /tmp/here")
	before := l.status()
	l.launch()
	l.must("hyperstop", "b")
	l.flags = []string{"--image", s.Image, "--node", "a,b,c", "--link", "a:b"}
	l.launch()
	l.wants(falcon.NodeRunning, "a", "b", "c")
	after := l.status()
	for i, n := range before.Nodes {
		a := after.Nodes[i]
		if a.UUID != n.UUID || a.Links[0].MAC != n.Links[0].MAC || a.Disk != n.Disk {
			s.Errorf("%+v has become %+v", n, a)
		}
	}
	if got := l.sh("a", "cat /tmp/here"); got != "here\n" {
		s.Errorf("what ran was not left alone: %q", got)
	}
	l.joined("a", "b")
	l.destroy()
}

// checkOrderOfInterfaces gives two nodes interfaces with addresses in an order
// that no sorting gives, and more than ten of them, which would be the second in
// an order by name.
func checkOrderOfInterfaces(s *site) {
	var links, left, right []string
	for i, n := range []int{3, 11, 0, 7, 1, 10, 2, 9, 5, 4, 8, 6} {
		a, b := fmt.Sprintf("02:00:00:00:0a:%02x", n), fmt.Sprintf("02:00:00:00:0b:%02x", 15-n)
		left, right = append(left, a), append(right, b)
		words := []string{"a", "b", strings.ReplaceAll(a, ":", "-"), strings.ReplaceAll(b, ":", "-")}
		if i%2 == 1 { // whichever end is named first
			words = []string{words[1], words[0], words[3], words[2]}
		}
		links = append(links, strings.Join(words, ":"))
	}
	l := s.lab("lab", "--node", "a,b", "--link", strings.Join(links, ","))
	l.launch()
	for node, want := range map[string][]string{"a": left, "b": right} {
		var got []string
		for word := range strings.FieldsSeq(l.sh(node, "ip -o link")) {
			if strings.HasPrefix(word, "02:00:00:00:0") {
				got = append(got, word)
			}
		}
		if !slices.Equal(got, want) {
			s.Errorf("declared are the interfaces of %s\n%v, and its guest has\n%v", node, want, got)
		}
	}
	l.destroy()
}

func checkExecStatus(s *site) {
	l := s.lab("lab", "--node", "a")
	l.launch()
	for _, c := range []struct {
		args   []string
		status int
		stdout string
	}{
		{[]string{"true"}, 0, ""},
		{[]string{"exit 7"}, 7, ""},
		{[]string{"exit 255"}, 255, ""},
		{[]string{"kill -9 $$"}, 137, ""},
		{[]string{"echo out; false"}, 1, "out\n"},
		{[]string{"-e", "A=b c", "-w", "/tmp", "pwd; echo $A"}, 0, "/tmp\nb c\n"},
		{[]string{"-w", "/no/such/folder", "true"}, 125, ""},
		{[]string{"echo", "two  words", "$HOME"}, 0, ""},
		{[]string{"/no/such/program"}, 127, ""},
		{[]string{`printf 'a\0b\377\r\n\t%s' "\$"`}, 0, "a\x00b\xff\r\n\t$"},
		{[]string{"cd /tmp && pwd"}, 0, "/tmp\n"},
		{[]string{"cat"}, 0, ""}, // there is nothing on its input
		{[]string{"i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done"}, 0, lines(3000)},
		{[]string{"--timeout", "2s", "sleep 60"}, 125, ""},
		{[]string{"echo after that"}, 0, "after that\n"},
	} {
		flags := 0 // each with a value
		for strings.HasPrefix(c.args[flags], "-") {
			flags += 2
		}
		out := l.run(slices.Concat([]string{"exec"}, c.args[:flags], []string{"a"}, c.args[flags:])...)
		if out.status != c.status {
			s.Errorf("exec %q: status %d, want %d: %s", c.args, out.status, c.status, out.stderr)
		}
		if c.stdout != "" && out.stdout != c.stdout {
			s.Errorf("exec %q: output %.200q, want %.200q", c.args, out.stdout, c.stdout)
		}
	}
	// A console does not tell one from the other, an agent does.
	if out := l.run("exec", "a", "echo out; echo err >&2"); out.stdout+out.stderr != "out\nerr\n" || s.Agent != (out.stderr != "") {
		s.Errorf("output and error output: %+v", out)
	}
	for _, args := range [][]string{{"exec", "nobody", "true"}, {"exec", "a"}} {
		if out := l.run(args...); out.status != 125 {
			s.Errorf("%v: %+v, want status 125", args, out)
		}
	}
	l.destroy()
}

func lines(n int) string {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.String()
}

// checkAgent has a node do what takes an agent.
func checkAgent(s *site) {
	l := s.lab("lab", "--node", "a")
	l.launch()
	tree, back := s.mkdir("tree"), s.mkdir("back")
	s.check(os.WriteFile(tree+"/file", []byte(lines(20_000)), 0o640))
	if s.User != nil {
		s.check(os.Chown(tree+"/file", int(s.User.Uid), int(s.User.Gid)))
	}
	if !s.Agent {
		l.refuse([]string{"cp", tree, "a:/root"}, "guest agent")
		l.refuse([]string{"exec", "-i", "a", "cat"}, "guest agent")
		l.destroy()
		return
	}
	l.must("cp", tree, "a:/root")
	l.must("cp", "a:tree", back)
	if got, err := os.ReadFile(back + "/tree/file"); err != nil || string(got) != lines(20_000) {
		s.Errorf("a file comes back with %d bytes, %v", len(got), err)
	}
	if info, err := os.Stat(back + "/tree/file"); err == nil && info.Mode() != 0o640 {
		s.Errorf("a file comes back with mode %v", info.Mode())
	}
	l.refuse([]string{"cp", tree, "a:/none/there"}, "/none")
	l.refuse([]string{"cp", "a:/none", back}, "/none")
	ctx, cancel := context.WithTimeout(context.Background(), s.Command)
	defer cancel()
	cmd := s.command(ctx, l.dir, s.Any, nil, "exec", "-i", "a", "wc -c")
	cmd.Stdin = bytes.NewReader(make([]byte, 300_000))
	if out := s.finish(cmd); strings.TrimSpace(out.stdout) != "300000" {
		s.Errorf("exec -i: %+v", out)
	}
	var all sync.WaitGroup
	for i := range 10 { // at once
		all.Go(func() {
			if out := l.run("exec", "a", fmt.Sprintf("sleep 0.2; echo %d; exit %d", i, i)); out.status != i || out.stdout != fmt.Sprintln(i) {
				s.Errorf("command %d: %+v", i, out)
			}
		})
	}
	all.Wait()
	l.destroy()
}

func checkStopAndStart(s *site) {
	l := s.lab("lab", "--node", "a,b", "--link", "a:b")
	l.launch()
	l.sh("a", "echo kept > /root/kept; echo lost > /dev/shm/lost 2>/dev/null; sync")
	uuid := l.node("a").UUID
	l.must("hyperstop", "a")
	l.must("hyperstop", "a") // again is no error
	l.wants(falcon.NodeStopped, "a")
	l.wants(falcon.NodeRunning, "b")
	l.refuse([]string{"exec", "a", "true"}, "node a", "hyperstart")
	l.must("hyperstart", "a")
	l.must("hyperstart", "a")
	l.wants(falcon.NodeRunning, "a", "b")
	if got := l.sh("a", "cat /root/kept; hostname; cat /dev/shm/lost 2>/dev/null; true"); got != "kept\na\n" {
		s.Errorf("after hyperstart the guest says %q", got)
	}
	if n := l.node("a"); n.UUID != uuid {
		s.Errorf("the UUID was %s and is %s", uuid, n.UUID)
	}
	l.joined("a", "b")
	l.sh("a", "echo again > /root/kept")
	l.must("reboot", "a")
	if got := l.sh("a", "cat /root/kept"); got != "again\n" {
		s.Errorf("after a reboot the file is %q", got)
	}
	l.must("hyperstop", "--all")
	l.wants(falcon.NodeStopped, "a", "b")
	l.must("hyperstart", "--all")
	l.joined("a", "b")
	l.destroy()
}

func checkSnapshotOfASnapshot(s *site) {
	first := s.lab("first", "--name", "first", "--node", "a")
	first.launch()
	first.sh("a", "echo one > /root/one")
	first.refuse([]string{"snapshot", "a", "one"}, "hyperstop", "--live")
	first.must("hyperstop", "a")
	first.must("snapshot", "a", "one")
	first.refuse([]string{"snapshot", "a", "one"}, "one", "exists")
	first.must("hyperstart", "a")
	if got := first.sh("a", "cat /root/one; echo later > /root/later"); got != "one\n" {
		s.Errorf("after its snapshot the node has %q", got)
	}
	first.must("hyperstop", "a")
	first.must("snapshot", "a", "later") // a second of the same node

	second := s.lab("second", "--name", "second", "--node", "b:128:one")
	second.launch()
	if got := second.sh("b", "cat /root/one; cat /root/later 2>/dev/null; hostname; echo two > /root/two"); got != "one\nb\n" {
		s.Errorf("a node of the snapshot has %q", got)
	}
	second.must("hyperstop", "b")
	second.must("snapshot", "b", "two")

	third := s.lab("third", "--name", "third", "--node", "c:128:two,d:128:later")
	third.launch()
	if got := third.sh("c", "cat /root/one /root/two"); got != "one\ntwo\n" {
		s.Errorf("a node of the snapshot of a snapshot has %q", got)
	}
	if out := s.run(s.dir, s.Falcon, nil, "image", "rm", "two"); out.status == 0 || !strings.Contains(out.stderr, "in use") ||
		!strings.Contains(out.stderr, third.dir) {
		s.Errorf("removing an image in use: %+v", out)
	}
	first.destroy()
	second.destroy()
	if got := third.sh("c", "cat /root/one /root/two") + third.sh("d", "cat /root/one /root/later"); got != "one\ntwo\none\nlater\n" {
		s.Errorf("after the others' end the nodes have %q", got)
	}
	third.destroy()
	for _, image := range []string{"two", "later", "one"} { // after what stands on it
		s.must("image", "rm", image)
	}
}

func checkNameCollisions(s *site) {
	l := s.lab("one", "--node", "a")
	for name, flags := range map[string][]string{
		`a`:   {"--node", "a,a"},
		`a-b`: {"--node", "a-b"},
		`9`:   {"--name", "9", "--node", "a"},
	} {
		bad := &lab{site: s, dir: l.dir, flags: flags}
		bad.refuse(bad.launchArgs(), name)
		l.gone()
	}
	l.launch()
	other := &lab{site: s, dir: l.dir, flags: []string{"--name", "other", "--node", "a"}}
	other.refuse(other.launchArgs(), "any", "other", l.state(""))

	twin := s.lab("two", "--node", "a,b", "--link", "a:b")
	if s.OneOfAName {
		twin.refuse(twin.launchArgs(), l.state(""))
		twin.gone()
	} else {
		twin.launch()
		l.sh("a", "echo mine > /root/mine")
		twin.sh("a", "echo ours > /root/mine")
		if got := l.sh("a", "cat /root/mine") + twin.sh("a", "cat /root/mine"); got != "mine\nours\n" {
			s.Errorf("two labs of one name have %q", got)
		}
		twin.destroy()
	}
	l.wants(falcon.NodeRunning, "a")
	l.sh("a", "true")
	l.destroy()
}

func checkCancelInEveryStage(s *site) {
	for _, stage := range []falcon.Stage{falcon.StageDisk, falcon.StageStart, falcon.StageBoot, falcon.StageLogin, falcon.StageSetup} {
		if slices.Contains(s.Without, stage) {
			continue
		}
		l := s.lab("at_"+strings.ReplaceAll(string(stage), "-", ""), "--node", "a,b", "--link", "a:b")
		p := l.begin()
		if !p.until(stage) {
			s.Fatalf("a launch has no stage %s: %s", stage, p.stderr.String())
		}
		s.check(p.cmd.Process.Signal(syscall.SIGINT))
		if status := p.end(); status != 130 {
			s.Errorf("interrupted at %s the launch ends with status %d: %s", stage, status, p.stderr.String())
		}
		l.gone()
		s.clean("interrupted at " + string(stage))
	}
}

// checkDestroyAfterAKill kills launches when their journals have got one more
// line each time, until one has ended before.
func checkDestroyAfterAKill(s *site) {
	for entries := 1; ; entries++ {
		l := s.lab(fmt.Sprint("at", entries), "--node", "a,b", "--link", "a:b")
		p := l.begin()
		reached := p.untilJournal(entries)
		if status := p.end(); !reached && status != 0 {
			s.Fatalf("the launch ends with status %d: %s", status, p.stderr.String())
		}
		// Both ways to destroy have to do.
		if entries%2 == 0 {
			s.must("destroy", l.state(""))
		} else {
			l.must("destroy")
		}
		l.gone()
		s.clean(fmt.Sprintf("killed after entry %d", entries))
		if s.Failed() {
			return
		}
		if !reached {
			if entries < 5 {
				s.Errorf("a launch has %d entries in its journal only", entries-1)
			}
			return
		}
	}
}

// untilJournal kills the launch when its journal has a number of lines, and
// reports whether it came to that.
func (p *launching) untilJournal(entries int) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for p.steps.Scan() { // to the end of its output
		}
	}()
	defer func() { <-done }()
	for {
		journal, _ := os.ReadFile(p.l.state("journal"))
		if bytes.Count(journal, []byte("\n")) >= entries {
			p.l.check(p.cmd.Process.Kill())
			return true
		}
		select {
		case <-done:
			return false
		case <-time.After(100 * time.Microsecond): // to be close behind is the point
		}
	}
}
