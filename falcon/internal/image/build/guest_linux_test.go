package build

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
)

// guest is a virtual machine of a test, with its console.
type guest struct {
	t      *testing.T
	cmd    *exec.Cmd
	in     io.Writer
	out    chan []byte // closed when the console ends
	prompt *regexp.Regexp
	qmp    string
	seen   []byte // since the last prompt
}

const (
	bootTimeout = 3 * time.Minute // machines that run tests are slow and busy
	stepTimeout = time.Minute
)

// boot starts a guest from an image on a disk and waits for its prompt.
func boot(t *testing.T, img image.Image, disk string, megabytes int, args ...string) *guest {
	t.Helper()
	began := time.Now()
	g := start(t, img, disk, megabytes, args...)
	g.await(g.prompt, bootTimeout)
	t.Logf("%s: %.1f s to the prompt", img.Name, time.Since(began).Seconds())
	return g
}

// start starts a guest from an image on a disk.
func start(t *testing.T, img image.Image, disk string, megabytes int, args ...string) *guest {
	t.Helper()
	g := &guest{t: t, out: make(chan []byte, 64), prompt: regexp.MustCompile(img.Console.Prompt), qmp: filepath.Join(t.TempDir(), "q")}
	g.cmd = exec.Command("qemu-system-x86_64", append([]string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-M", "pc", "-global", "PIIX4_PM.acpi-root-pci-hotplug=off",
		"-accel", "tcg,thread=multi", "-cpu", "qemu64", "-m", fmt.Sprint(megabytes),
		"-kernel", img.Boot.Kernel, "-initrd", img.Boot.Initrd, "-append", img.Boot.Append,
		"-drive", "file=" + disk + ",if=none,id=disk,format=qcow2", "-device", "virtio-blk-pci,drive=disk,addr=4",
		"-serial", "stdio", "-qmp", "unix:" + g.qmp + ",server=on,wait=off",
	}, args...)...)
	in, err := g.cmd.StdinPipe()
	must(t, err)
	out, err := g.cmd.StdoutPipe()
	must(t, err)
	var errs bytes.Buffer
	g.in, g.cmd.Stderr = in, &errs
	must(t, g.cmd.Start())
	t.Cleanup(func() { _ = g.cmd.Process.Kill(); _ = g.cmd.Wait() })
	go func() {
		defer close(g.out)
		for {
			buf := make([]byte, 4096)
			n, err := out.Read(buf)
			if n > 0 {
				g.out <- buf[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	return g
}

// await reads the console until it matches, and returns what was read.
func (g *guest) await(want *regexp.Regexp, timeout time.Duration) string {
	g.t.Helper()
	g.seen = nil
	deadline := time.After(timeout)
	for !want.Match(g.seen) {
		select {
		case chunk, open := <-g.out:
			if !open {
				g.t.Fatalf("the guest has ended, %s was awaited; it said:\n%s", want, g.seen)
			}
			g.seen = append(g.seen, chunk...)
		case <-deadline:
			g.t.Fatalf("no %s within %v; the guest said:\n%s", want, timeout, g.seen)
		}
	}
	return string(g.seen)
}

// sh runs a command in the guest's shell and returns its output.
func (g *guest) sh(command string) string {
	g.t.Helper()
	_, err := io.WriteString(g.in, command+"; echo status=$?\n")
	must(g.t, err)
	out := strings.ReplaceAll(g.await(regexp.MustCompile(`(?s)status=\d+\r?\n.*`+g.prompt.String()), stepTimeout), "\r", "")
	_, out, _ = strings.Cut(out, "\n") // the echo
	out, status, _ := strings.Cut(out, "status=")
	if !strings.HasPrefix(status, "0\n") {
		g.t.Errorf("%s: status %q, output:\n%s", command, status, out)
	}
	return strings.TrimSpace(out)
}

// want runs a command whose output must contain a text.
func (g *guest) want(command, text string) {
	g.t.Helper()
	if out := g.sh(command); !strings.Contains(out, text) {
		g.t.Errorf("%s: want %q, got:\n%s", command, text, out)
	}
}

// logout ends the shell, after which there must be another.
func (g *guest) logout() {
	g.t.Helper()
	_, err := io.WriteString(g.in, "exit\n")
	must(g.t, err)
	g.await(regexp.MustCompile("exit|logout"), stepTimeout)
	g.await(g.prompt, stepTimeout)
}

// press presses the power button.
func (g *guest) press() {
	g.t.Helper()
	c, err := net.Dial("unix", g.qmp)
	must(g.t, err)
	g.t.Cleanup(func() { _ = c.Close() })
	_, err = io.WriteString(c, `{"execute":"qmp_capabilities"}{"execute":"system_powerdown"}`)
	must(g.t, err)
}

// ends waits until the guest has switched itself off.
func (g *guest) ends(how string) {
	g.t.Helper()
	began, deadline := time.Now(), time.After(stepTimeout)
	for {
		select {
		case _, open := <-g.out:
			if open {
				continue
			}
			if err := g.cmd.Wait(); err != nil {
				g.t.Errorf("after %s: %v", how, err)
			}
			g.t.Logf("off %.2f s after %s", time.Since(began).Seconds(), how)
			return
		case <-deadline:
			g.t.Fatalf("still running %v after %s", stepTimeout, how)
		}
	}
}

// needGuests skips tests that boot a guest where that cannot be.
func needGuests(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a guest")
	}
	need(t, tool{"qemu-system-x86_64", "qemu-system-x86"}, aptGet, qemuImg)
}

func storeAt(t *testing.T, home string) image.Store {
	t.Helper()
	s, err := image.Open(image.Options{Home: home, System: []string{}})
	must(t, err)
	return s
}

// newDisk makes a disk of 2 GiB more than its image.
func newDisk(t *testing.T, s image.Store, img image.Image, node string) string {
	t.Helper()
	owner := image.DiskOwner{ID: "test", Node: node}
	err := s.CreateDisk(t.Context(), owner, img.Name, image.DiskOptions{Size: img.VirtualSize + 2<<30})
	must(t, err)
	return s.DiskPath(owner, "")
}

// microHome names the store in which TestMicro, run again as an ordinary user,
// is to build.
const microHome = "FALCON_TEST_HOME"

// microStore is a store with a micro image that an ordinary user has built.
func microStore(t *testing.T) image.Store {
	t.Helper()
	home := os.Getenv(microHome)
	switch {
	case home != "":
	case os.Geteuid() == 0:
		dir := asNobody(t, "TestMicro", microHome+"=home")
		// Root believes no home but its own.
		must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Lchown(path, 0, 0))
		}))
		return storeAt(t, filepath.Join(dir, "home"))
	default:
		home = t.TempDir()
	}
	s := storeAt(t, home)
	_, err := Builder{Store: s}.Ensure(t.Context(), "micro", nil)
	must(t, err)
	return s
}

func TestMicro(t *testing.T) {
	needGuests(t)
	s := microStore(t)
	if os.Getenv(microHome) != "" {
		return // the one who called works with it
	}
	img, err := s.Get(t.Context(), "micro")
	must(t, err)
	t.Run("is small", func(t *testing.T) {
		var sum int64
		for _, f := range []string{img.Disk, img.Boot.Kernel, img.Boot.Initrd} {
			info, err := os.Stat(f)
			must(t, err)
			sum += info.Size()
		}
		if sum >= 64<<20 || img.Size >= 64<<20 {
			t.Errorf("its files have %d bytes and take %d", sum, img.Size)
		}
	})
	disk, share := newDisk(t, s, img, "node"), t.TempDir()
	must(t, os.WriteFile(filepath.Join(share, "given"), []byte("from the host"), 0o644))
	t.Run("works", func(t *testing.T) { microWorks(t, img, disk, share) })
	t.Run("keeps its disk", func(t *testing.T) {
		g := boot(t, img, disk, 256)
		g.want("cat /root/kept; hostname", "precious\nviolin")
		g.press() // before all is there that reacts to it
		g.ends("the power button")
	})
	t.Run("ends at the power button", func(t *testing.T) {
		g := boot(t, img, disk, 256)
		g.sh("until pidof dd; do sleep 1; done")
		g.press()
		g.ends("the power button")
	})
	t.Run("reboots", func(t *testing.T) {
		g := boot(t, img, disk, 256)
		_, err := io.WriteString(g.in, "reboot\n")
		must(t, err)
		g.ends("reboot")
	})
}

// microWorks boots with several of each device.
func microWorks(t *testing.T, img image.Image, disk, share string) {
	var args []string
	for i := range 4 { // the first on the command line is not the first in the guest
		args = append(args, "-netdev", fmt.Sprintf("user,id=n%d,restrict=on", i), "-device",
			fmt.Sprintf("virtio-net-pci,netdev=n%d,mac=02:00:00:00:00:0%d,addr=%d,romfile=", i, 3-i, 11-i))
	}
	for i := range 2 {
		extra := filepath.Join(t.TempDir(), fmt.Sprint("extra", i))
		must(t, errors.Join(os.WriteFile(extra, nil, 0o600), os.Truncate(extra, 1<<20)))
		args = append(args, "-drive", fmt.Sprintf("file=%s,if=none,id=x%d,format=raw", extra, i), "-device", fmt.Sprintf("virtio-blk-pci,drive=x%d,addr=%d", i, 12+i))
	}
	args = append(args, "-fsdev", "local,id=share,path="+share+",security_model=none", "-device", "virtio-9p-pci,fsdev=share,mount_tag=share,addr=14")
	g := boot(t, img, disk, 256, args...)
	for i := range 4 {
		g.want(fmt.Sprintf("cat /sys/class/net/eth%d/address", i), fmt.Sprintf("02:00:00:00:00:0%d", i))
	}
	g.want("ls /dev/vda /dev/vdb /dev/vdc", "/dev/vdc")
	g.want("mkdir /mnt/share && mount -t 9p -o trans=virtio,version=9p2000.L share /mnt/share && cat /mnt/share/given", "from the host")
	g.want("echo reply >/mnt/share/taken && ip -V", "iproute2")
	for _, kind := range []string{"bridge", "dummy", "vrf table 10", "bond", "vxlan id 5 dstport 0", "wireguard", "ifb"} {
		g.sh("ip link add dev0 type " + kind + " && ip link del dev0")
	}
	g.sh("ip link set eth0 up && tc qdisc add dev eth0 root netem delay 1ms && tc qdisc add dev eth1 clsact")
	for _, program := range []string{"ethtool --version", "tcpdump --version", "iperf3 --version", "base64 --version 2>&1; true", "od --help 2>&1; true", "stty -a", "ss -tn", "bridge link"} {
		g.sh(program)
	}
	g.want("id -u", "0")
	g.sh("modprobe -a bridge 8021q mpls_router nf_tables && sysctl -w net.mpls.platform_labels=100")
	g.sh("echo precious >/root/kept && echo violin >/etc/hostname")
	g.logout()
	g.sh("until df -m / | grep -q ' 29[0-9][0-9] '; do sleep 1; done") // growing goes on while the shell is there
	g.want("df -m / | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2", "29")
	if data, err := os.ReadFile(filepath.Join(share, "taken")); err != nil || string(data) != "reply\n" {
		t.Errorf("the guest wrote %q to the share, %v", data, err)
	}
	_, err := io.WriteString(g.in, "poweroff\n")
	must(t, err)
	g.ends("poweroff")
}

func TestDebian(t *testing.T) {
	needGuests(t)
	need(t, mmdebstrap)
	if err := canBootstrap(t.Context()); err != nil {
		t.Skip(err)
	}
	s := storeAt(t, t.TempDir())
	img, err := Builder{Store: s}.Ensure(t.Context(), "debian-12", nil)
	must(t, err)
	if img.VirtualSize < 4<<30 || img.Size > 1<<30 {
		t.Errorf("its disk has %d bytes and takes %d", img.VirtualSize, img.Size)
	}
	t.Run("is a template", func(t *testing.T) { testTemplate(t, s, img, 512) })
	disk := newDisk(t, s, img, "node")
	nic := []string{"-netdev", "user,id=n,restrict=on", "-device", "virtio-net-pci,netdev=n,addr=6,romfile="}
	g := boot(t, img, disk, 512, nic...)
	g.want("ip -br link", "enp0s6")
	g.want("systemctl is-system-running --wait", "running")
	g.want("systemctl is-enabled frr; true", "disabled")
	for _, program := range []string{"vtysh", "ping", "ethtool", "tcpdump", "iperf3", "qemu-ga"} {
		g.sh("command -v " + program)
	}
	g.sh("until [ $(df -m --output=size / | tail -n 1) -gt 9000 ]; do sleep 1; done") // its disk has 10 GiB
	id := g.sh("cat /etc/machine-id")
	if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(id) {
		t.Errorf("machine-id is %q", id)
	}
	g.want("modprobe -a 9p 9pnet_virtio vrf mpls_router wireguard && grep -c . /proc/modules", "")
	g.sh("ping -c 1 127.0.0.1")
	g.logout()
	g.press()
	g.ends("the power button")
	g = boot(t, img, disk, 512, nic...)
	g.want("cat /etc/machine-id", id)
	_, err = io.WriteString(g.in, "poweroff\n")
	must(t, err)
	g.ends("poweroff")
}
