package conformance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/falcon-vm/falcon-go/falcon"
)

// site is where a check has its labs, with a home of falcon's of its own. What
// its labs leave fails the check.
type site struct {
	*testing.T
	Platform
	dir, home string
	before    []string
}

// newHome makes a home of falcon's for the checks of a platform.
func newHome(t *testing.T, p Platform) string {
	t.Helper()
	s := &site{T: t, Platform: p, dir: makeDir(t)}
	s.home = s.mkdir("home")
	s.mkdir("home/img")
	if p.ImageDir != "" {
		s.check(os.Symlink(p.ImageDir, filepath.Join(s.home, "img", p.Image)))
	}
	return s.home
}

// makeDir makes a folder for a test. It is not t.TempDir, into which other users
// do not get, and whose path may be too long for a socket's.
func makeDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fc-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

func newSite(t *testing.T, p Platform, home string) *site {
	t.Helper()
	s := &site{T: t, Platform: p, dir: makeDir(t), home: home}
	s.before = s.stands()
	t.Cleanup(func() { s.clean("at the end") })
	return s
}

func (s *site) check(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// mkdir makes a folder of the site's user.
func (s *site) mkdir(name string) string {
	s.Helper()
	dir := filepath.Join(s.dir, name)
	s.check(os.Mkdir(dir, 0o755))
	if s.User != nil {
		s.check(os.Chown(dir, int(s.User.Uid), int(s.User.Gid)))
	}
	return dir
}

func (s *site) stands() []string {
	s.Helper()
	all, err := s.Stands()
	s.check(err)
	return all
}

// clean fails the check for all that its labs have left.
func (s *site) clean(when string) {
	s.Helper()
	left := slices.DeleteFunc(s.stands(), func(o string) bool { return slices.Contains(s.before, o) })
	processes, err := processesIn(s.dir)
	s.check(err)
	left = append(left, processes...)
	// Of a home, images and locks may stay, and of the folders the labs' own.
	for _, dir := range []string{s.dir, s.home} {
		err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			inside, _ := filepath.Rel(s.home, path)
			kept := strings.HasPrefix(inside, "..") || d.IsDir() || strings.Contains("/"+inside, "/img/") || strings.Contains("/"+inside+"/", "/lock/")
			if err == nil && (!kept || d.Name() == falcon.DefaultDir || d.Type()&fs.ModeSocket != 0) {
				left = append(left, path)
			}
			return err
		})
		s.check(err)
	}
	if len(left) > 0 {
		s.Errorf("%s there is left behind:\n%s", when, strings.Join(left, "\n"))
	}
}

// outcome is what a command came to; status is -1 when a signal ended it.
type outcome struct {
	stdout, stderr string
	status         int
}

// run runs a program in a folder.
func (s *site) run(dir, program string, env []string, args ...string) outcome {
	s.Helper()
	// That of the test has ended when it cleans up.
	ctx, cancel := context.WithTimeout(context.Background(), s.Command)
	defer cancel()
	return s.finish(s.command(ctx, dir, program, env, args...))
}

func (s *site) command(ctx context.Context, dir, program string, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "FALCON_HOME="+s.home, "HOME="+s.dir)
	cmd.Env = append(append(cmd.Env, s.Env...), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: s.User}
	return cmd
}

func (s *site) finish(cmd *exec.Cmd) outcome {
	s.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		s.Fatalf("%s: %v", cmd, err)
	}
	return outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// must runs the host tool, which has to succeed.
func (s *site) must(args ...string) string {
	s.Helper()
	out := s.run(s.dir, s.Falcon, nil, args...)
	if out.status != 0 {
		s.Fatalf("falcon %s: %+v", strings.Join(args, " "), out)
	}
	return out.stdout
}

// lab is a topology in a working directory of its own. Flags are given to
// launches alone: falcon remembers them.
type lab struct {
	*site
	dir   string
	flags []string
	env   []string
}

// lab returns a lab that is destroyed at the end of the check.
func (s *site) lab(name string, flags ...string) *lab {
	s.Helper()
	l := &lab{site: s, dir: s.mkdir(name), flags: append([]string{"--image", s.Image}, flags...)}
	s.Cleanup(func() {
		if _, err := os.Stat(l.state("journal")); err == nil {
			l.must("destroy")
		}
	})
	return l
}

// state is the path of a file in the lab's state folder.
func (l *lab) state(name string) string { return filepath.Join(l.dir, falcon.DefaultDir, name) }

func (l *lab) run(args ...string) outcome {
	l.Helper()
	return l.site.run(l.dir, l.Any, l.env, args...)
}

// must runs a command of the lab, which has to succeed.
func (l *lab) must(args ...string) string {
	l.Helper()
	out := l.run(args...)
	if out.status != 0 {
		l.Fatalf("%s: %+v", strings.Join(args, " "), out)
	}
	return out.stdout
}

// refuse runs a command that has to fail, with words in its message.
func (l *lab) refuse(args []string, words ...string) {
	l.Helper()
	out := l.run(args...)
	if out.status <= 0 {
		l.Errorf("%s is not refused: %+v", strings.Join(args, " "), out)
	}
	for _, w := range words {
		if !strings.Contains(out.stderr, w) {
			l.Errorf("%s: the message has no %q: %s", strings.Join(args, " "), w, out.stderr)
		}
	}
}

func (l *lab) launchArgs(args ...string) []string {
	words := append(slices.Clone(l.flags), "launch", "--timeout", l.Login.String())
	return append(append(words, l.Launch...), args...)
}

func (l *lab) launch() string {
	l.Helper()
	return l.must(l.launchArgs()...)
}

// destroy destroys the lab and looks that its folder is gone.
func (l *lab) destroy() {
	l.Helper()
	l.must("destroy")
	l.gone()
}

func (l *lab) gone() {
	l.Helper()
	if files, _ := filepath.Glob(l.state("*")); len(files) > 0 {
		l.Errorf("in the state folder there are still %v", files)
	}
	if _, err := os.Stat(l.state("")); err == nil {
		l.Error("the state folder is still there")
	}
}

// sh runs a command in a guest, which has to succeed.
func (l *lab) sh(node, command string) string {
	l.Helper()
	return l.must("exec", node, command)
}

func (l *lab) status() falcon.Status {
	l.Helper()
	var s falcon.Status
	l.check(json.Unmarshal([]byte(l.must("info", "--json")), &s))
	return s
}

func (l *lab) node(name string) falcon.NodeStatus {
	l.Helper()
	s := l.status()
	i := slices.IndexFunc(s.Nodes, func(n falcon.NodeStatus) bool { return n.Name == name })
	if i < 0 {
		l.Fatalf("info has no node %s: %+v", name, s)
	}
	return s.Nodes[i]
}

// wants looks that nodes are in a state.
func (l *lab) wants(state falcon.NodeState, names ...string) {
	l.Helper()
	for _, name := range names {
		if n := l.node(name); n.State != state {
			l.Errorf("node %s is %s (%s), want %s", name, n.State, n.Reason, state)
		}
	}
}

// device is the name of a node's interface in its guest: that with the MAC.
func (l *lab) device(node string, index int) string {
	l.Helper()
	mac := l.node(node).Links[index].MAC
	for line := range strings.Lines(l.sh(node, "ip -o link")) {
		if fields := strings.Fields(line); strings.Contains(line, mac) && len(fields) > 1 {
			name, _, _ := strings.Cut(strings.TrimSuffix(fields[1], ":"), "@")
			return name
		}
	}
	l.Fatalf("the guest of %s has no interface with the address %s", node, mac)
	return ""
}

// joined looks that two nodes reach each other by their first interfaces.
func (l *lab) joined(a, b string) {
	l.Helper()
	for i, node := range []string{a, b} {
		dev := l.device(node, 0)
		l.sh(node, "ip link set "+dev+" up && ip addr replace 10.77.0."+string('1'+rune(i))+"/24 dev "+dev)
	}
	// A guest on a busy host may need a while.
	l.sh(a, "for i in 1 2 3 4 5 6 7 8; do ping -c 1 -W 3 10.77.0.2 && exit 0; done; exit 1")
}

// launching is a launch that is on its way.
type launching struct {
	l      *lab
	cmd    *exec.Cmd
	steps  *bufio.Scanner
	stderr bytes.Buffer
}

// begin starts a launch that shows its steps as JSON.
func (l *lab) begin() *launching {
	l.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), l.Command)
	l.Cleanup(cancel)
	p := &launching{l: l, cmd: l.command(ctx, l.dir, l.Any, append(l.env, l.Slow...), l.launchArgs("--json")...)}
	p.cmd.Stderr = &p.stderr
	out, err := p.cmd.StdoutPipe()
	l.check(err)
	p.steps = bufio.NewScanner(out)
	l.check(p.cmd.Start())
	return p
}

// until waits for a stage of any node, and reports whether it came.
func (p *launching) until(stage falcon.Stage) bool {
	for p.steps.Scan() {
		var step falcon.Progress
		if json.Unmarshal(p.steps.Bytes(), &step) == nil && step.Stage == stage {
			return true
		}
	}
	return false
}

// end waits for the end of the launch and returns its status, -1 when it was
// killed.
func (p *launching) end() int {
	for p.steps.Scan() { // so that it is not held by a full pipe
	}
	_ = p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode()
}
