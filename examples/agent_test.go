//go:build linux

package examples_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/internal/agent"
	"github.com/falcon-vm/falcon-go/internal/mux"
)

// agentLab launches a lab of one node.
func agentLab(t *testing.T) *lab {
	t.Helper()
	l := newSite(t).lab("agent", "solo")
	l.launch()
	return l
}

// agent returns a client of a node's agent, as falcon's own is.
func (l *lab) agent(node string) *agent.Client {
	return agent.New(func(ctx context.Context) (io.ReadWriteCloser, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", l.state(node+".agent.sock"))
		if err != nil {
			return nil, err
		}
		return mux.Client(conn), nil
	})
}

func TestAgent(t *testing.T) {
	l := agentLab(t)
	for _, sub := range []struct {
		name string
		test func(*testing.T, *lab)
	}{
		{"its socket is the owner's alone", agentSocket},
		{"exec tells stderr from stdout and takes input", agentStreams},
		{"a hundred calls at once", agentCalls},
		{"100 MB both ways", agentLargeFile},
		{"a folder both ways", agentFolder},
		{"a timeout ends the process group", agentTimeout},
		{"variables and a folder", agentEnvironment},
		{"Ctrl-C reaches the command", agentInterrupt},
		{"owners and holes are copied", agentOwnersAndHoles},
		{"a client that is killed ends its command", agentClientKilled},
		{"half a message from a client that dies", agentHalfMessage},
		{"an agent that is killed comes back", agentKilled},
		{"a guest that is reset comes back", agentReset},
		{"an identity", agentIdentity},
		{"a freeze holds writers and ends", agentFreeze},
		{"how long calls take", agentLatency},
		{"it powers its guest off", agentPowerOff},
	} {
		t.Run(sub.name, func(t *testing.T) {
			inner := *l
			site := *l.site
			site.t, inner.site = t, &site
			sub.test(t, &inner)
		})
	}
}

func agentSocket(t *testing.T, l *lab) {
	info, err := os.Stat(l.state("violin.agent.sock"))
	check(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func agentStreams(t *testing.T, l *lab) {
	out := l.run("exec", "violin", "echo out; echo err >&2; exit 7")
	if out.status != 7 || out.stdout != "out\n" || out.stderr != "err\n" {
		t.Errorf("%s", out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), commandDeadline)
	defer cancel()
	cmd := l.command(ctx, "exec", "-i", "violin", "wc -c")
	cmd.Stdin = bytes.NewReader(make([]byte, 1_000_000))
	if out := l.finish(cmd); strings.TrimSpace(out.stdout) != "1000000" {
		t.Errorf("%s", out)
	}
	if out := l.run("exec", "violin", "kill -9 $$"); out.status != 128+9 {
		t.Errorf("%s", out)
	}
}

func agentCalls(t *testing.T, l *lab) {
	c := l.agent("violin")
	ctx, cancel := context.WithTimeout(context.Background(), commandDeadline)
	defer cancel()
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			var out bytes.Buffer
			exit, err := c.Exec(ctx, agent.Command{Exec: agent.Exec{Argv: []string{"sh", "-c", fmt.Sprintf("echo %d; exit %d", i, i)}}, Stdout: &out})
			if err != nil || exit.Status != i || out.String() != fmt.Sprintln(i) {
				t.Errorf("call %d: %+v, %v, %q", i, exit, err, out.String())
			}
		})
	}
	for i := range 8 { // and commands of falcon's beside them
		all.Go(func() {
			if out := l.run("exec", "violin", fmt.Sprint("echo falcon ", i)); out.stdout != fmt.Sprintf("falcon %d\n", i) {
				t.Errorf("%s", out)
			}
		})
	}
	all.Wait()
}

func agentLargeFile(t *testing.T, l *lab) {
	const size = 100 << 20
	noise := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise) // never fails
	want := fmt.Sprintf("%x", sha256.Sum256(noise))
	there, back := filepath.Join(l.dir, "noise"), filepath.Join(l.dir, "back")
	check(t, os.WriteFile(there, noise, 0o640))
	begun := time.Now()
	l.must("cp", there, "violin:/root/noise")
	t.Logf("to the guest: %v", time.Since(begun))
	if sum, _, _ := strings.Cut(l.sh("violin", "sha256sum /root/noise; stat -c %a /root/noise"), " "); sum != want {
		t.Errorf("the guest has %s, want %s", sum, want)
	}
	begun = time.Now()
	l.must("cp", "violin:/root/noise", back)
	t.Logf("from the guest: %v", time.Since(begun))
	got, err := os.ReadFile(back)
	check(t, err)
	if sum := fmt.Sprintf("%x", sha256.Sum256(got)); sum != want {
		t.Errorf("back came %s, want %s", sum, want)
	}
	if info, err := os.Stat(back); err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	l.sh("violin", "rm /root/noise")
}

func agentFolder(t *testing.T, l *lab) {
	tree := filepath.Join(l.dir, "tree")
	check(t, os.MkdirAll(filepath.Join(tree, "deep", "er"), 0o755))
	check(t, os.WriteFile(filepath.Join(tree, "deep", "er", "a b"), []byte("text"), 0o755))
	check(t, os.Symlink("deep/er", filepath.Join(tree, "link")))
	check(t, os.Chmod(filepath.Join(tree, "deep"), 0o500))
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(tree, "deep"), 0o700) })
	l.must("cp", tree, "violin:/root")
	if out := l.sh("violin", "cd /root/tree; stat -c '%a %N' deep 'deep/er/a b' link; cat 'link/a b'"); !strings.Contains(out, "500 deep") ||
		!strings.Contains(out, "755 deep/er/a b") || !strings.Contains(out, "link") || !strings.HasSuffix(out, "text") {
		t.Errorf("the guest has:\n%s", out)
	}
	l.must("cp", "violin:tree", filepath.Join(l.dir, "again")) // relative to root's home
	if text, err := os.ReadFile(filepath.Join(l.dir, "again", "link", "a b")); err != nil || string(text) != "text" {
		t.Errorf("%q, %v", text, err)
	}
	check(t, os.Chmod(filepath.Join(l.dir, "again", "deep"), 0o700))
	l.refuse([]string{"cp", "violin:/none", l.dir}, "/none")
	l.refuse([]string{"cp", tree, "violin:/none/there"}, "there is no folder /none")
	l.refuse([]string{"cp", tree, filepath.Join(l.dir, "x")}, "NODE:PATH")
	l.refuse([]string{"cp", tree, "cello:/x"}, "no node")
}

// left counts the processes of a guest whose command line has a word.
func (l *lab) left(node, word string) string {
	l.t.Helper()
	return strings.TrimSpace(l.sh(node, "n=0; for p in /proc/[0-9]*/cmdline; do grep -qs '"+word[:1]+"["+word[1:2]+"]"+word[2:]+"' $p && n=$((n+1)); done; echo $n"))
}

func agentTimeout(t *testing.T, l *lab) {
	out := l.run("exec", "--timeout", "1s", "violin", "trap '' TERM; sleep 4711 & sleep 4711; sleep 4711")
	if out.status != 125 || !strings.Contains(out.stderr, "timed out after 1s") {
		t.Errorf("%s", out)
	}
	if n := l.left("violin", "4711"); n != "0" {
		t.Errorf("%s processes are left", n)
	}
}

func agentEnvironment(t *testing.T, l *lab) {
	if out := l.run("exec", "-e", "A=b c", "-w", "/var/log", "violin", "pwd; echo $A"); out.stdout != "/var/log\nb c\n" {
		t.Errorf("%s", out)
	}
	if out := l.run("exec", "-w", "/none", "violin", "true"); out.status != 125 || !strings.Contains(out.stderr, "no folder /none") {
		t.Errorf("%s", out)
	}
}

// agentInterrupt interrupts a command that does not read the input that comes,
// and that has started another one.
func agentInterrupt(t *testing.T, l *lab) {
	ctx, cancel := context.WithTimeout(context.Background(), commandDeadline)
	defer cancel()
	cmd := l.command(ctx, "exec", "-i", "violin", "trap 'echo bye; exit 3' INT; echo begun; sleep 4713 & wait")
	zeros, err := os.Open("/dev/zero")
	check(t, err)
	defer zeros.Close()
	cmd.Stdin = zeros
	stdout, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	_, err = io.ReadFull(stdout, make([]byte, len("begun\n")))
	check(t, err)
	check(t, cmd.Process.Signal(os.Interrupt))
	rest, err := io.ReadAll(stdout)
	check(t, err)
	_ = cmd.Wait()
	if status := cmd.ProcessState.ExitCode(); status != 130 || string(rest) != "bye\n" {
		t.Errorf("status %d, after the signal %q", status, rest)
	}
	if n := l.left("violin", "4713"); n != "0" {
		t.Errorf("%s processes are left", n)
	}
}

func agentOwnersAndHoles(t *testing.T, l *lab) {
	there, back := filepath.Join(l.dir, "holes"), filepath.Join(l.dir, "holes-back")
	const size = 5 << 30
	check(t, os.WriteFile(there, []byte("begin"), 0o600))
	check(t, os.Truncate(there, size))
	check(t, os.Chown(there, 1234, 5678))
	l.must("cp", there, "violin:/root/")
	if got := l.sh("violin", "stat -c '%u %g %s' /root/holes"); got != fmt.Sprintf("1234 5678 %d\n", size) {
		t.Errorf("the guest has %q", got)
	}
	l.must("cp", "violin:/root/holes", back)
	info, err := os.Stat(back)
	check(t, err)
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 1234 || st.Gid != 5678 || st.Size != size || st.Blocks > 1000 {
		t.Errorf("back came %d bytes in %d blocks of %d:%d", st.Size, st.Blocks, st.Uid, st.Gid)
	}
	l.sh("violin", "rm /root/holes")
	// One that does not fit leaves nothing, and says which it is.
	check(t, os.WriteFile(there, bytes.Repeat([]byte("x"), 64<<20), 0o600))
	l.sh("violin", "mkdir -p /mnt/small; mount -t tmpfs -o size=1m tmpfs /mnt/small")
	l.refuse([]string{"cp", there, "violin:/mnt/small/"}, "/mnt/small/holes: no space left")
	if got := l.sh("violin", "ls -A /mnt/small; umount /mnt/small"); got != "" {
		t.Errorf("a copy that failed has left %q", got)
	}
}

// agentPowerOff stops the node by its agent, and not by its power button.
func agentPowerOff(t *testing.T, l *lab) {
	l.must("hyperstop", "violin")
	log, err := os.ReadFile(l.state("violin.out"))
	check(t, err)
	if !bytes.Contains(log, []byte("the guest powered off")) || bytes.Contains(log, []byte(`"request":"Stop"`)) {
		t.Errorf("the server says\n%s", log)
	}
	l.must("hyperstart", "violin")
	l.sh("violin", "true")
}

// TestAgentIntoAnImage puts the agent into an image of which nothing is known but
// how to log in.
func TestAgentIntoAnImage(t *testing.T) {
	s := newSite(t)
	record, err := os.ReadFile(filepath.Join(built.image, "image.json"))
	check(t, err)
	var micro struct {
		Boot    struct{ Append string }
		Console struct{ Prompt string }
	}
	check(t, json.Unmarshal(record, &micro))
	s.importImage(filepath.Join(built.image, "disk.qcow2"), "plain",
		"--kernel", filepath.Join(built.image, "vmlinux"), "--initrd", filepath.Join(built.image, "initrd.img"),
		"--append", micro.Boot.Append, "--user", "root", "--prompt", micro.Console.Prompt)
	for args, want := range map[string]string{
		"image build plain --agent-into plain": "exists",
		"image build new --agent-into none":    `"none" not found`,
	} {
		if out := s.falcon(strings.Fields(args)...); out.status != 1 || !strings.Contains(out.stderr, want) {
			t.Errorf("%s: %s", args, out)
		}
	}
	if out := s.falcon("image", "build", "equipped", "--agent-into", "plain"); out.status != 0 {
		t.Fatalf("%s", out)
	}
	if out := s.falcon("image", "show", "equipped"); !strings.Contains(out.stdout, "version "+agent.Version) {
		t.Errorf("%s", out)
	}
	l := s.lab("equipped", "solo", "--image", "equipped")
	l.launch("--cold")
	ctx, cancel := context.WithTimeout(context.Background(), commandDeadline)
	defer cancel()
	if info, err := l.agent("violin").Ping(ctx); err != nil || info.Version != agent.Version {
		t.Errorf("%+v, %v", info, err)
	}
	l.destroy()
	for _, name := range []string{"equipped", "plain"} {
		if out := s.falcon("image", "rm", name); out.status != 0 {
			t.Errorf("%s", out)
		}
	}
}

func agentClientKilled(t *testing.T, l *lab) {
	ctx, cancel := context.WithTimeout(context.Background(), commandDeadline)
	defer cancel()
	cmd := l.command(ctx, "exec", "violin", "echo begun; sleep 4712 & sleep 4712")
	stdout, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	_, err = io.ReadFull(stdout, make([]byte, len("begun\n")))
	check(t, err)
	check(t, cmd.Process.Signal(syscall.SIGKILL))
	_ = cmd.Wait()
	for deadline := time.Now().Add(20 * time.Second); l.left("violin", "4712") != "0"; {
		if time.Now().After(deadline) {
			t.Fatal("the command of a client that has gone runs on")
		}
		time.Sleep(100 * time.Millisecond) // nothing tells of the end of a process in the guest
	}
}

func agentHalfMessage(t *testing.T, l *lab) {
	for _, half := range []string{"\x02", "\x02\x00\x10\x00\x00", "\x02\x00\x10\x00\x00half", "\xff\xff\xff\xff\xff"} {
		conn, err := net.Dial("unix", l.state("violin.agent.sock"))
		check(t, err)
		_, err = io.WriteString(conn, half)
		check(t, err)
		conn.Close()
	}
	l.sh("violin", "true")
}

func agentKilled(t *testing.T, l *lab) {
	ctx, cancel := context.WithTimeout(context.Background(), commandDeadline)
	defer cancel()
	c := l.agent("violin")
	before, err := c.Ping(ctx)
	check(t, err)
	if _, err := c.Exec(ctx, agent.Command{Exec: agent.Exec{Argv: []string{"kill", "-9", fmt.Sprint(before.PID)}}}); err == nil {
		t.Error("a call whose agent was killed came to a good end")
	}
	after, err := c.Ping(ctx)
	check(t, err)
	if after.PID == before.PID || after.Boot != before.Boot {
		t.Errorf("before %+v, after %+v", before, after)
	}
	l.sh("violin", "true")
}

func agentReset(t *testing.T, l *lab) {
	ctx, cancel := context.WithTimeout(context.Background(), commandDeadline)
	defer cancel()
	before, err := l.agent("violin").Ping(ctx)
	check(t, err)
	l.must("reboot", "violin")
	after, err := l.agent("violin").Ping(ctx)
	check(t, err)
	if after.Boot == before.Boot {
		t.Error("the guest has not been started anew")
	}
	if name := strings.TrimSpace(l.sh("violin", "hostname")); name != "violin" {
		t.Errorf("host name %q", name)
	}
}

func agentIdentity(t *testing.T, l *lab) {
	ctx, cancel := context.WithTimeout(context.Background(), commandDeadline)
	defer cancel()
	l.sh("violin", "mkdir -p /etc/ssh; echo old >/etc/ssh/ssh_host_ed25519_key; echo old >/etc/ssh/ssh_host_ed25519_key.pub; date -s '2001-01-01 00:00:00'")
	id := agent.Identity{
		Entropy: make([]byte, 64), Time: time.Now(), Hostname: "cello", MachineID: "0123456789abcdef0123456789abcdef",
		SSHKeys: true,
	}
	check(t, l.agent("violin").Identify(ctx, id))
	// To falcon that is another machine than its node's by now.
	l.refuse([]string{"exec", "violin", "true"}, "hyperstart violin")
	var out bytes.Buffer
	look := []string{"sh", "-c", "hostname; cat /etc/hostname /etc/machine-id; grep -c cello /etc/hosts; grep -c PRIVATE /etc/ssh/ssh_host_ed25519_key; cut -d ' ' -f 1,3 /etc/ssh/ssh_host_ed25519_key.pub; date +%s"}
	_, err := l.agent("violin").Exec(ctx, agent.Command{Exec: agent.Exec{Argv: look}, Stdout: &out})
	check(t, err)
	lines := strings.Fields(out.String())
	want := []string{"cello", "cello", id.MachineID, "1", "2", "ssh-ed25519", "root@cello"}
	if len(lines) != len(want)+1 || !slices.Equal(lines[:len(want)], want) {
		t.Fatalf("the guest has %q", lines)
	}
	var now int64
	fmt.Sscan(lines[len(want)], &now)
	if off := time.Since(time.Unix(now, 0)); off > 30*time.Second || off < -2*time.Second {
		t.Errorf("the clock is %v off", off)
	}
	id = agent.Identity{Mounts: []agent.Mount{{Tag: "none", Target: "/mnt/none"}}}
	if err := l.agent("violin").Identify(ctx, id); err == nil || !strings.Contains(err.Error(), "cannot mount /mnt/none") {
		t.Errorf("a mount that fails: %v", err)
	}
	l.must("hyperstart", "violin")
	if name := strings.TrimSpace(l.sh("violin", "rm /etc/ssh/*; hostname")); name != "violin" {
		t.Errorf("after hyperstart its name is %q", name)
	}
}

func agentFreeze(t *testing.T, l *lab) {
	ctx, cancel := context.WithTimeout(context.Background(), commandDeadline)
	defer cancel()
	c := l.agent("violin")
	write := func() <-chan error {
		written := make(chan error, 1)
		go func() {
			_, err := c.Exec(ctx, agent.Command{Exec: agent.Exec{Argv: []string{"sh", "-c", "echo x >>/root/frozen; sync"}}})
			written <- err
		}()
		return written
	}
	frozen, err := c.Freeze(ctx, time.Minute)
	check(t, err)
	if !slices.Contains(frozen.Systems, "/") {
		t.Errorf("frozen are %q", frozen.Systems)
	}
	written := write()
	select {
	case err := <-written:
		t.Errorf("a writer was not held: %v", err)
	case <-time.After(time.Second):
	}
	check(t, frozen.Thaw())
	check(t, <-written)
	// A host that goes, and one that takes too long.
	short, stop := context.WithCancel(ctx)
	_, err = c.Freeze(short, time.Minute)
	check(t, err)
	stop()
	check(t, <-write())
	frozen, err = c.Freeze(ctx, 200*time.Millisecond)
	check(t, err)
	check(t, <-write())
	if err := frozen.Thaw(); err == nil || !strings.Contains(err.Error(), "thawed then") {
		t.Errorf("a freeze that was over: %v", err)
	}
}

// agentLatency prints what calls take; how long they may take depends on the
// host, and a busy one is no failure.
func agentLatency(t *testing.T, l *lab) {
	ctx, cancel := context.WithTimeout(context.Background(), commandDeadline)
	defer cancel()
	c := l.agent("violin")
	for _, call := range []struct {
		name string
		do   func() error
	}{
		{"no-op", func() error { _, err := c.Ping(ctx); return err }},
		{"/bin/true", func() error {
			_, err := c.Exec(ctx, agent.Command{Exec: agent.Exec{Argv: []string{"/bin/true"}}})
			return err
		}},
		{"sh -c /bin/true", func() error {
			_, err := c.Exec(ctx, agent.Command{Exec: agent.Exec{Argv: []string{"sh", "-c", "/bin/true"}}})
			return err
		}},
	} {
		var took []time.Duration
		for range 50 {
			begun := time.Now()
			check(t, call.do())
			took = append(took, time.Since(begun))
		}
		slices.Sort(took)
		t.Logf("%s: least %v, median %v, nine tenths within %v", call.name, took[0], took[25], took[45])
	}
}
