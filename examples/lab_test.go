//go:build linux

package examples_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// loginTimeout is given to launches: a guest needs 3 s on an idle host,
	// and hosts of tests are rarely idle.
	loginTimeout = 100 * time.Second
	// commandDeadline bounds each command of a lab, a launch of several
	// guests included.
	commandDeadline = 4 * time.Minute
)

// site is what a test has of the host: a folder for its labs, and a home of
// falcon's of its own.
type site struct {
	t    *testing.T
	dir  string
	home string
	user *syscall.Credential // nil for the user who runs the tests

	before map[string]bool // hostObjects
}

// newSite returns a site whose leftovers fail the test. The test needs root and
// guests.
func newSite(t *testing.T) *site {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("it makes kernel devices, which needs root")
	}
	return newSiteOf(t, nil)
}

// newSiteOf returns the site of a user.
func newSiteOf(t *testing.T, user *syscall.Credential) *site {
	t.Helper()
	if reason := noGuests(); reason != "" {
		t.Skip(reason)
	}
	// Not t.TempDir, into which other users do not get.
	dir, err := os.MkdirTemp("", "falcon-"+strings.ReplaceAll(t.Name(), "/", "-")+"-")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &site{t: t, dir: dir, home: built.home, user: user}
	check(t, os.Chmod(dir, 0o711))
	if user != nil {
		s.ownHome("data/falcon") // in XDG_DATA_HOME
	}
	s.before = s.hostObjects()
	t.Cleanup(func() { s.clean("at the end") })
	return s
}

// ownHome gives the site a home of its own, without templates.
func (s *site) ownHome(path string) {
	s.home = filepath.Join(s.dir, path)
	s.linkImage()
}

// linkImage puts the image micro into a home of the site's own, where it is not
// the system's.
func (s *site) linkImage() {
	s.t.Helper()
	home, err := filepath.Rel(s.dir, s.home)
	check(s.t, err)
	s.mkdir(filepath.Join(home, "img"))
	if built.image != systemImage {
		check(s.t, os.Symlink(built.image, filepath.Join(s.home, "img", "micro")))
	}
}

// mkdir makes a folder in the site that its user owns.
func (s *site) mkdir(path string) string {
	s.t.Helper()
	made := s.dir
	for part := range strings.SplitSeq(path, "/") {
		made = filepath.Join(made, part)
		if err := os.Mkdir(made, 0o755); errors.Is(err, os.ErrExist) {
			continue
		} else if err != nil {
			s.t.Fatal(err)
		}
		if s.user != nil {
			check(s.t, os.Chown(made, int(s.user.Uid), int(s.user.Gid)))
		}
	}
	return made
}

// lab is a topology program in a working directory of its own.
type lab struct {
	*site
	program string
	flags   []string // the topology's own, given to launch alone: it remembers
	dir     string   // the working directory
	env     []string
	cold    bool // its nodes boot
}

// lab returns a lab that is destroyed at the end of the test.
func (s *site) lab(name, program string, flags ...string) *lab {
	s.t.Helper()
	l := &lab{site: s, program: filepath.Join(built.dir, program), flags: flags, dir: s.mkdir(name)}
	s.t.Cleanup(l.cleanUp)
	return l
}

// state returns the path of a file in the lab's state folder, or the folder's.
func (l *lab) state(name string) string { return filepath.Join(l.dir, ".falcon", name) }

// cleanUp destroys what the test has not. A failed test shows what the servers
// of its nodes had to say.
func (l *lab) cleanUp() {
	if l.t.Failed() {
		logs, _ := filepath.Glob(l.state("*.err"))
		for _, path := range append(logs, l.state("journal")) {
			if text, err := os.ReadFile(path); err == nil && len(text) > 0 {
				l.t.Logf("%s:\n%s", path, text)
			}
		}
	}
	if !exists(l.state("")) {
		return
	}
	if out := l.falcon("destroy", l.state("")); out.status != 0 {
		l.t.Errorf("destroying %s: %s", l.dir, out)
	}
}

// outcome is what a command came to.
type outcome struct {
	stdout, stderr string
	status         int
}

func (o outcome) String() string {
	return fmt.Sprintf("status %d\nstdout: %s\nstderr: %s", o.status, o.stdout, o.stderr)
}

// command returns a command as the site's user runs it.
func (s *site) command(ctx context.Context, dir, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains([]string{"FALCON_HOME", "FALCON_DATASET", "FALCON_EXT", "FALCON_LOG"}, name)
	})
	if s.user == nil {
		cmd.Env = append(cmd.Env, "FALCON_HOME="+s.home)
	} else {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.user}
		cmd.Env = append(cmd.Env, "HOME="+s.dir, "XDG_DATA_HOME="+filepath.Dir(s.home))
	}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// finish runs a command to its end.
func (s *site) finish(cmd *exec.Cmd) outcome {
	s.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	out := outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		s.t.Errorf("%v: %v", cmd, err)
		out.status = -1
	}
	return out
}

// falcon runs the host tool.
func (s *site) falcon(args ...string) outcome {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandDeadline)
	defer cancel()
	return s.finish(s.command(ctx, s.dir, filepath.Join(built.dir, "falcon"), args...))
}

// command returns a command of the lab's program.
func (l *lab) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := l.site.command(ctx, l.dir, l.program, args...)
	cmd.Env = append(cmd.Env, l.env...)
	return cmd
}

// run runs a command of the lab's program.
func (l *lab) run(args ...string) outcome {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandDeadline)
	defer cancel()
	return l.finish(l.command(ctx, args...))
}

// must runs a command that has to succeed, and returns what it prints.
func (l *lab) must(args ...string) string {
	l.t.Helper()
	out := l.run(args...)
	if out.status != 0 {
		l.t.Fatalf("%s: %s", strings.Join(args, " "), out)
	}
	return out.stdout
}

// launchArgs are the words of a launch with the lab's flags.
func (l *lab) launchArgs(args ...string) []string {
	words := append(slices.Clone(l.flags), "launch", "--timeout", loginTimeout.String())
	if l.cold {
		words = append(words, "--cold")
	}
	return append(words, args...)
}

// launch launches the lab, which has to succeed.
func (l *lab) launch(args ...string) string {
	l.t.Helper()
	return l.must(l.launchArgs(args...)...)
}

// refuse runs a command that has to fail, and looks for words in its message.
func (l *lab) refuse(args []string, words ...string) {
	l.t.Helper()
	out := l.run(args...)
	if out.status <= 0 {
		l.t.Errorf("%s is not refused: %s", strings.Join(args, " "), out)
	}
	for _, w := range words {
		if !strings.Contains(out.stderr, w) {
			l.t.Errorf("%s: the message has no %q: %s", strings.Join(args, " "), w, out)
		}
	}
}

// sh runs a command in a guest, which has to succeed, and returns its output.
func (l *lab) sh(node, command string) string {
	l.t.Helper()
	return l.must("exec", "--timeout", "60s", node, command)
}

// info is the part of `info --json` that the tests use.
type info struct {
	Version   int    `json:"version"`
	Topology  string `json:"topology"`
	Launched  bool   `json:"launched"`
	Namespace string `json:"namespace"`
	Nodes     []node `json:"nodes"`
}

type node struct {
	Name      string     `json:"name"`
	State     string     `json:"state"`
	Reason    string     `json:"reason"`
	Image     string     `json:"image"`
	UUID      string     `json:"uuid"`
	PID       int        `json:"pid"`
	ServerPID int        `json:"server_pid"`
	Resets    int        `json:"resets"`
	LastReset time.Time  `json:"last_reset"`
	Disk      string     `json:"disk"`
	Console   string     `json:"console"`
	Links     []nodeLink `json:"links"`
	Start     struct {
		Stage  string `json:"stage"`
		Cold   bool   `json:"cold"`
		Why    string `json:"why"`
		Stages []struct {
			Stage   string  `json:"stage"`
			Seconds float64 `json:"seconds"`
		} `json:"stages"`
	} `json:"start"`
}

type nodeLink struct {
	MAC    string `json:"mac"`
	Peer   string `json:"peer"`
	Device string `json:"device"`
}

func (l *lab) info() info {
	l.t.Helper()
	var i info
	check(l.t, json.Unmarshal([]byte(l.must("info", "--json")), &i))
	return i
}

func (l *lab) node(name string) node {
	l.t.Helper()
	i := l.info()
	for _, n := range i.Nodes {
		if n.Name == name {
			return n
		}
	}
	l.t.Fatalf("info has no node %s: %+v", name, i)
	return node{}
}

// addresses gives the ends of the link between two nodes addresses. The guests'
// names for interfaces differ with the image: MACs do not.
func (l *lab) addresses(a, b string, subnet int) {
	l.t.Helper()
	l.address(a, b, fmt.Sprintf("10.9.%d.1/24", subnet))
	l.address(b, a, fmt.Sprintf("10.9.%d.2/24", subnet))
}

// address gives a node's end of its link to a peer an address.
func (l *lab) address(name, peer, address string) {
	l.t.Helper()
	l.sh(name, l.device(name, peer)+" && ip link set $dev up && ip addr replace "+address+" dev $dev")
}

// device is a shell command that finds a node's interface to a peer as $dev.
func (l *lab) device(name, peer string) string {
	l.t.Helper()
	for _, link := range l.node(name).Links {
		if link.Peer == peer {
			return "dev=$(grep -l " + link.MAC + " /sys/class/net/*/address | cut -d/ -f5) && test -n \"$dev\""
		}
	}
	l.t.Fatalf("%s has no link to %s", name, peer)
	return ""
}

// pings has a guest ping an address, for as long as a busy host may need until
// the other side answers.
func (l *lab) pings(name, address string) {
	l.t.Helper()
	l.sh(name, "for i in 1 2 3 4 5 6 7 8; do ping -c 1 -W 3 "+address+" && exit 0; done; exit 1")
}

// destroy destroys the lab, and looks that its folder is gone.
func (l *lab) destroy() {
	l.t.Helper()
	l.must("destroy")
	l.gone()
}

// gone looks that the state folder is not there.
func (l *lab) gone() {
	l.t.Helper()
	if exists(l.state("")) {
		files, _ := filepath.Glob(l.state("*"))
		l.t.Errorf("the state folder is still there: %v", files)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
