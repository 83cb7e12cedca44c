package sim

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/console"
	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/link"
	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/falcon-vm/falcon-go/propolis/server"
)

// bench is a world in the test's own process.
type bench struct {
	*world
	t    *testing.T
	dir  string
	rule []Rule
}

func newBench(t *testing.T, script string) *bench {
	t.Helper()
	rules, err := ParseScript(script)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{links: newLinks(), bases: make(map[string]map[string]*file)}
	return &bench{world: w, t: t, dir: t.TempDir(), rule: rules}
}

// guest makes a machine with interfaces, as pairs of their own device's and
// their peer's name.
func (b *bench) guest(name string, img image.Image, nics ...[2]string) *guest {
	b.t.Helper()
	spec := propolis.InstanceSpec{Board: propolis.Board{CPUs: 1, MemoryMiB: 64}, Components: propolis.Components{
		"fs0": propolis.P9FS{Source: b.dir, Target: "tag"},
	}}
	for i, n := range nics {
		id := fmt.Sprintf("net%d", i)
		mac := net.HardwareAddr{2, 0, 0, 0, name[0], byte(i)}
		// Components have no order; slots do.
		spec.Components[id] = propolis.VirtioNIC{BackendID: id + "-backing", PCIPath: propolis.PCIPath{Device: uint8(5 + i)}}
		spec.Components[id+"-backing"] = propolis.VirtioNetworkBackend{VNICName: link.SocketVNIC(n[0], n[1], mac.String(), 0)}
	}
	cfg := NodeConfig{Name: name, Disk: filepath.Join(b.dir, name+".disk"), Console: img.Console, OS: img.OS}
	m, err := b.newMachine(cfg, NewScript(b.rule), spec)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { m.Close(context.Background()) })
	return m
}

// stream is a console that nobody shares.
type stream struct{ io.ReadWriteCloser }

func (stream) SetWriteDeadline(time.Time) error { return nil }

func builtIn(name string) image.Image { return OpenStore("/nowhere", NewScript(nil)).builtIn(name) }

// run starts a guest and logs in.
func (b *bench) run(g *guest) *console.Console {
	b.t.Helper()
	if err := g.Run(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	c := console.New(stream{g.Console()}, console.Options{Name: g.cfg.Name})
	b.t.Cleanup(func() { c.Close() })
	if err := b.login(c, g); err != nil {
		b.t.Fatal(err)
	}
	return c
}

func (b *bench) login(c *console.Console, g *guest) error {
	ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Second)
	defer cancel()
	p := console.Profile{Known: true, User: g.cfg.Console.User, Password: g.cfg.Console.Password, Prompt: regexp.MustCompile(g.cfg.Console.Prompt)}
	if l := g.cfg.Console.Login; l != "" {
		p.Login = regexp.MustCompile(regexp.QuoteMeta(l) + `\s*$`)
	}
	return c.Login(ctx, p)
}

func (b *bench) exec(c *console.Console, shell string) console.Result {
	b.t.Helper()
	r, err := c.Exec(b.t.Context(), console.Command{Shell: shell, Timeout: 10 * time.Second})
	if err != nil {
		b.t.Fatalf("%s: %v", shell, err)
	}
	return r
}

func TestGuestsOfAllKindsLetFalconIn(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"micro", "debian-12", "helios-2.5", "somebodys-own"} {
		b := newBench(t, "")
		c := b.run(b.guest("violin", builtIn(name)))
		if r := b.exec(c, "echo hello; exit 3"); string(r.Output) != "hello\n" || r.Status != 3 {
			t.Errorf("%s: output %q, status %d", name, r.Output, r.Status)
		}
	}
}

func TestGuestRunsShellCommands(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	if err := os.WriteFile(filepath.Join(b.dir, "shared"), []byte("of the host\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := b.run(b.guest("violin", builtIn("micro"), [2]string{"a", "b"}))
	for _, test := range []struct {
		shell, want string
		status      int
	}{
		{"true", "", 0},
		{"false", "", 1},
		{"nothing-of-the-sort", "sh: nothing-of-the-sort: not found\n", 127},
		{"echo 'it''s' \"$((6*7))\"; exit 9", "its 42\n", 9},
		{"echo out; echo err >&2", "out\nerr\n", 0},
		{"cd /tmp && echo a > x && echo b >> x && cat x && pwd", "a\nb\n/tmp\n", 0},
		{"for i in 1 2 3; do echo $i; done | wc -l", "3\n", 0},
		{"seq 3 | sort -r | head -n 1", "3\n", 0},
		{"cat /etc/missing", "cat: /etc/missing: No such file or directory\n", 1},
		{"mkdir -p /a/b/c; touch /a/b/c/d; ls /a/b /a/b/c; rm -r /a; ls /a", "/a/b:\nc\n/a/b/c:\nd\nls: /a: No such file or directory\n", 1},
		{"mkdir /no/parent", "mkdir: /no/parent: No such file or directory\n", 1},
		{"sh -c 'echo $1 $0' sh one", "one sh\n", 0},
		{"x=1; export y=2; sh -c 'echo [$x$y]'", "[2]\n", 0},
		{"printf 'echo from a script $1' > s; sh s arg", "from a script arg\n", 0},
		{"head -c 100 /dev/urandom | wc -c", "100\n", 0},
		{"[ -d /etc ] && [ ! -e /nowhere ] && [ -r /etc/hosts ] && echo yes", "yes\n", 0},
		{"kill -9 $$; echo never", "", 137},
		{"sh -c 'kill $$; echo never'", "", 143},
		{"kill 999999; echo on", "kill: no such process: 999999\non\n", 0},
		{"command -v cat; command -v nonsense", "/bin/cat\n", 1},
		{"echo violin > /proc/sys/kernel/hostname; hostname; uname -n; cat /proc/sys/kernel/hostname", "violin\nviolin\nviolin\n", 0},
		{"mkdir /mnt/h; mount -t 9p -o ro tag /mnt/h; cat /mnt/h/shared; grep -c 9p /proc/mounts; echo x > /mnt/h/y", "of the host\n1\nopen /mnt/h/y: read-only file system\n", 1},
		{"mount -t 9p other /mnt", "mount: mounting other on /mnt failed: No such file or directory\n", 1},
		{"cat /sys/class/net/eth0/address; ip -br link show eth0", "02:00:00:00:76:00\neth0             DOWN           02:00:00:00:76:00 <BROADCAST,MULTICAST> \n", 0},
		{"ip link set eth0 mtu 9000 up address 02:00:00:00:00:09; ip -br link show eth0; cat /sys/class/net/eth0/mtu", "eth0             UP             02:00:00:00:00:09 <BROADCAST,MULTICAST,UP,LOWER_UP> \n9000\n", 0},
		{"ip link set eth7 up", "Cannot find device \"eth7\"\n", 1},
		{"ip address add 10.0.0.1/24 dev eth0; ip address add 10.0.0.1/24 dev eth0", "RTNETLINK answers: File exists\n", 2},
		{"ping -c 1 192.0.2.1", "PING 192.0.2.1 (192.0.2.1): 56 data bytes\nping: sendto: Network is unreachable\n", 1},
		{"echo \"unclosed", "sh:1:6: reached EOF without closing quote `\"`\n", 2},
	} {
		if r := b.exec(c, test.shell); string(r.Output) != test.want || r.Status != test.status {
			t.Errorf("%s\noutput %q, status %d\n  want %q, status %d", test.shell, r.Output, r.Status, test.want, test.status)
		}
	}
}

func TestGuestHandsOverMuchOutputExactly(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	c := b.run(b.guest("violin", builtIn("micro")))
	var want bytes.Buffer
	for i := range 30000 {
		fmt.Fprintln(&want, i+1)
	}
	if r := b.exec(c, "seq 30000"); !bytes.Equal(r.Output, want.Bytes()) {
		t.Errorf("%d bytes came, want %d", len(r.Output), want.Len())
	}
	long := "echo " + strings.Repeat("x", 40<<10)
	if r := b.exec(c, long); len(r.Output) != 40<<10+1 {
		t.Errorf("a long command printed %d bytes", len(r.Output))
	}
}

// What is typed while a command runs is its input, and the shell's when it does
// not read it.
func TestGuestReadsWhatIsTyped(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	g := b.guest("violin", builtIn("micro"))
	c := b.run(g)
	console := g.Console()
	typed := func(keys string) {
		if _, err := console.Write([]byte(keys)); err != nil {
			t.Fatal(err)
		}
	}
	wait := func(want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := c.WaitLine(ctx, want, func(line string, _ bool) bool { return regexp.MustCompile(want).MatchString(line) }); err != nil {
			t.Fatal(err)
		}
	}
	typed("read x; echo got $x\rone\recho the next is $((1+1))\r")
	wait("the next is 2$")
	if !regexp.MustCompile(`(?m)(^|# )got one$`).MatchString(c.Tail()) {
		t.Errorf("the console shows:\n%s", c.Tail())
	}
	typed("cat; echo ended $((1+2))\rtwo\r\x04")
	wait("ended 3$")
	typed("echo thrown away\x15echo kep\x7fpt 'in\rtwo lines'\r")
	wait("^two lines$")
	if !regexp.MustCompile(`(?m)(^|[#>] )kept in$`).MatchString(c.Tail()) {
		t.Errorf("the console shows:\n%s", c.Tail())
	}
	typed("sleep 600\r\x03echo ba''ck\r")
	wait("back$")
	typed("exit\recho a new she''ll\r")
	wait("a new shell$")
}

func TestGuestHeedsCtrlC(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	c := b.run(b.guest("violin", builtIn("micro")))
	for _, endless := range []string{"echo begun; sleep 600", "while true; do :; done", "cat /dev/zero > /dev/null", "ping 127.0.0.1 >/dev/null"} {
		begun := time.Now()
		_, err := c.Exec(t.Context(), console.Command{Shell: endless, Timeout: 200 * time.Millisecond})
		if err == nil || time.Since(begun) > 5*time.Second {
			t.Errorf("%s: error %v after %v", endless, err, time.Since(begun))
		}
		if r := b.exec(c, "echo well"); string(r.Output) != "well\n" {
			t.Errorf("%s: the shell says %q afterwards", endless, r.Output)
		}
	}
}

// What is written to the disk is there in the next life of the guest, and what
// is not is lost with the power.
func TestGuestKeepsWhatIsOnItsDisk(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	g := b.guest("violin", builtIn("micro"))
	c := b.run(g)
	again := func() {
		t.Helper()
		if err := b.login(c, g); err != nil {
			t.Fatal(err)
		}
	}
	b.exec(c, "echo kept > /root/a; rm /etc/group; sync; echo lost > /root/b; echo gone > /tmp/c")
	if err := g.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	again()
	if r := b.exec(c, "cat /root/a; ls /root /tmp; ls /etc/group"); string(r.Output) != "kept\n/root:\na\n/tmp:\nls: /etc/group: No such file or directory\n" {
		t.Errorf("after a reset: %q", r.Output)
	}
	_, _ = c.Exec(t.Context(), console.Command{Shell: "echo late > /root/d; reboot", Timeout: time.Second})
	if e := <-g.Events(); e.Kind != server.Reset || !e.ByGuest {
		t.Errorf("the guest's own reboot is the event %+v", e)
	}
	again()
	if r := b.exec(c, "cat /root/d"); string(r.Output) != "late\n" {
		t.Errorf("after a reboot: %q", r.Output)
	}
}

func TestGuestsPowerOffIsAnEvent(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	g := b.guest("violin", builtIn("micro"))
	c := b.run(g)
	go c.Exec(context.Background(), console.Command{Shell: "poweroff", Timeout: 5 * time.Second})
	if e := <-g.Events(); e.Kind != server.Shutdown || !e.ByGuest {
		t.Errorf("poweroff is the event %+v", e)
	}
	g.Close(t.Context())
	if e := <-g.Events(); e.Kind != server.Exited || e.Err != nil {
		t.Errorf("the end is the event %+v", e)
	}
	if _, ok := <-g.Events(); ok {
		t.Error("there are events after the end")
	}
}

func TestFramesPassUnchangedAndAreCounted(t *testing.T) {
	t.Parallel()
	l := newLinks()
	a, b := newNIC(l, "eth0", net.HardwareAddr{2, 0, 0, 0, 0, 1}, 0), newNIC(l, "eth0", net.HardwareAddr{2, 0, 0, 0, 0, 2}, 0)
	a.device, a.peer, b.device, b.peer = "a.0", "b.0", "b.0", "a.0"
	var mu sync.Mutex
	var got [][]byte
	b.tap = func(frame []byte) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, bytes.Clone(frame))
	}
	l.attach(a)
	frames := [][]byte{{}, {1, 2, 3}, bytes.Repeat([]byte{0xff}, 9216), append(make([]byte, 12), 0x81, 0x00, 0x01, 0x23, 0x88, 0xcc, 9)}
	a.up, b.up = true, true
	a.send([]byte("nobody is there yet"))
	l.attach(b)
	for _, f := range frames {
		a.send(f)
	}
	if len(got) != len(frames) {
		t.Fatalf("%d frames came of %d", len(got), len(frames))
	}
	sum := 0
	for i, f := range frames {
		sum += len(f)
		if !bytes.Equal(got[i], f) {
			t.Errorf("frame %d came as %x", i, got[i])
		}
	}
	c := l.counters()
	if x := c["a.0"]; x.ReceivedFrames != 5 || x.ReceivedBytes != uint64(sum+len("nobody is there yet")) || x.SentFrames != 0 {
		t.Errorf("the sender's device counts %+v", x)
	}
	if x := c["b.0"]; x.SentFrames != 4 || x.SentBytes != uint64(sum) || x.ReceivedFrames != 0 {
		t.Errorf("the receiver's device counts %+v", x)
	}
	l.detach(b)
	a.send([]byte("nobody is there any more"))
	if len(got) != len(frames) {
		t.Error("a frame came to an interface that had gone")
	}
}

func TestGuestsPingEachOther(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	violin := b.run(b.guest("violin", builtIn("micro"), [2]string{"v.0", "x.0"}, [2]string{"v.1", "p.0"}))
	piano := b.run(b.guest("piano", builtIn("debian-12"), [2]string{"p.0", "v.1"}))
	b.exec(violin, "ip link set eth1 up; ip address add 10.0.0.1/24 dev eth1")
	if r := b.exec(violin, "ping -c 1 -W 0.2 10.0.0.2"); r.Status != 1 || !strings.Contains(string(r.Output), "100% packet loss") {
		t.Errorf("an interface that is down answered: %s", r.Output)
	}
	b.exec(piano, "ip link set eth0 up; ip address add 10.0.0.2/24 dev eth0")
	r := b.exec(violin, "ping -c 3 -i 0.01 10.0.0.2")
	if r.Status != 0 || !strings.Contains(string(r.Output), "3 packets transmitted, 3 packets received, 0% packet loss") {
		t.Errorf("status %d:\n%s", r.Status, r.Output)
	}
	if r := b.exec(violin, "ping -c 1 -W 1 -s 2000 10.0.0.2"); r.Status != 1 {
		t.Errorf("a packet above the MTU passed:\n%s", r.Output)
	}
	if r := b.exec(piano, "ip neigh"); !strings.Contains(string(r.Output), "10.0.0.1 dev eth0 lladdr 02:00:00:00:76:01") {
		t.Errorf("piano knows %q", r.Output)
	}
}

func TestChecksumOfAMessageWithItIsZero(t *testing.T) {
	for _, p := range [][]byte{{8, 0, 0, 0, 1, 2, 3, 4}, {0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 7}} {
		if got := checksum(sumICMP(p)); got != 0 {
			t.Errorf("%x: %#x", p, got)
		}
	}
	from, to := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	if got := checksum(ipv4(from, to, nil)[:20]); got != 0 {
		t.Errorf("header: %#x", got)
	}
}

func TestScriptOfAGuest(t *testing.T) {
	t.Parallel()
	t.Run("its machine dies", func(t *testing.T) {
		for _, stage := range []string{StepStart, StepBoot, StepLogin} {
			b := newBench(t, "die:violin@"+stage)
			g := b.guest("violin", builtIn("micro"))
			if err := g.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			select {
			case e := <-g.Events():
				if e.Kind != server.Exited || e.Err == nil {
					t.Errorf("%s: event %+v", stage, e)
				}
			case <-time.After(10 * time.Second):
				t.Errorf("%s: it lives after 10 s", stage)
			}
		}
	})
	t.Run("its commands fail, after the first", func(t *testing.T) {
		b := newBench(t, "exec:violin=fail*1")
		c := b.run(b.guest("violin", builtIn("micro")))
		if r := b.exec(c, "true"); r.Status != 1 {
			t.Errorf("status %d, want 1", r.Status)
		}
		if r := b.exec(c, "true"); r.Status != 0 {
			t.Errorf("the second time status %d, want 0", r.Status)
		}
	})
	t.Run("it does not heed its power button", func(t *testing.T) {
		b := newBench(t, "stop:violin=never*1")
		g := b.guest("violin", builtIn("micro"))
		b.run(g)
		if err := g.PowerDown(t.Context()); err != nil {
			t.Fatal(err)
		}
		select {
		case e := <-g.Events():
			t.Errorf("it did: %+v", e)
		case <-time.After(50 * time.Millisecond):
		}
		if err := g.PowerDown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if e := <-g.Events(); e.Kind != server.Shutdown {
			t.Errorf("the second time: %+v", e)
		}
	})
}
