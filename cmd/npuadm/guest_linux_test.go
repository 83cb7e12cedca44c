package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/propolis/softnpu"
	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4"
	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/match"
)

// guestLimit bounds what a test waits for in a guest without KVM on a busy
// machine.
const guestLimit = 2 * time.Minute

// guest is a machine with an ASIC: its management channel is COM4, and its CPU
// port a virtio NIC.
type guest struct {
	t       *testing.T
	console net.Conn
	seen    bytes.Buffer
	marks   int
}

// image returns the folder of the base image micro.
func image(t *testing.T) string {
	t.Helper()
	home := os.Getenv("FALCON_HOME")
	if home == "" {
		home = "/var/lib/falcon"
	}
	dir := filepath.Join(home, "img", "micro")
	if testing.Short() {
		t.Skip("-short: boots a guest")
	}
	if _, err := os.Stat(filepath.Join(dir, "vmlinux")); err != nil {
		t.Skipf("boots a guest from the image micro: %v", err)
	}
	return dir
}

// boot starts a guest with a folder of the host under /mnt.
func boot(t *testing.T, folder string, a *softnpu.ASIC, cpu *os.File) *guest {
	image, run := image(t), t.TempDir()
	channel := listen(t, filepath.Join(run, "com4"))
	console := listen(t, filepath.Join(run, "com1"))
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-M", "pc", "-accel", "tcg", "-cpu", "qemu64", "-m", "256",
		"-nodefaults", "-no-user-config", "-display", "none", "-vga", "none",
		"-kernel", filepath.Join(image, "vmlinux"), "-initrd", filepath.Join(image, "initrd.img"),
		"-append", "console=ttyS0,115200 root=/dev/vda quiet loglevel=3 mitigations=off nokaslr tsc=reliable no_timer_check",
		"-drive", "if=virtio,format=qcow2,snapshot=on,file="+filepath.Join(image, "disk.qcow2"),
		"-chardev", "socket,id=com1,path="+filepath.Join(run, "com1"), "-device", "isa-serial,index=0,chardev=com1",
		"-chardev", "socket,id=com4,path="+filepath.Join(run, "com4"), "-device", "isa-serial,index=3,chardev=com4",
		"-netdev", "dgram,id=cpu,local.type=fd,local.str=3", "-device", "virtio-net-pci,netdev=cpu,mac=a8:40:25:00:00:01,romfile=",
		"-fsdev", "local,id=share,security_model=none,readonly=on,path="+folder, "-device", "virtio-9p-pci,fsdev=share,mount_tag=share")
	cmd.ExtraFiles = []*os.File{cpu}
	cmd.Env = append(os.Environ(), "TMPDIR="+run)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("QEMU says %q", said.String())
		}
	})
	com4, err := channel.Accept()
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- a.ServeManagement(ctx, com4) }()
	t.Cleanup(func() {
		cancel()
		<-served
	})
	g := &guest{t: t}
	if g.console, err = console.Accept(); err != nil {
		t.Fatal(err)
	}
	g.await("# ")
	g.run("mkdir -p /mnt && mount -t 9p -o ro,trans=virtio,version=9p2000.L share /mnt")
	return g
}

func listen(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := l.SetDeadline(time.Now().Add(guestLimit)); err != nil {
		t.Fatal(err)
	}
	return l
}

// await reads the console until it has shown something, and returns what came
// before.
func (g *guest) await(what string) string {
	g.t.Helper()
	if err := g.console.SetReadDeadline(time.Now().Add(guestLimit)); err != nil {
		g.t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for {
		if before, after, found := strings.Cut(g.seen.String(), what); found {
			g.seen.Reset()
			g.seen.WriteString(after)
			return before
		}
		n, err := g.console.Read(buf)
		g.seen.Write(buf[:n])
		if err != nil {
			g.t.Fatalf("waiting for %q: %v; the console shows %q", what, err, g.seen.String())
		}
	}
}

// run has the shell do something and returns what it prints.
func (g *guest) run(command string) string {
	g.t.Helper()
	g.marks++
	mark := fmt.Sprintf("mark-%d", g.marks)
	// The echo of the line does not have the marks as they are printed.
	if _, err := fmt.Fprintf(g.console, "echo '%s'-begin; %s; echo '%s'-end $?\n", mark, command, mark); err != nil {
		g.t.Fatal(err)
	}
	g.await(mark + "-begin\r\n")
	out := strings.ReplaceAll(g.await(mark+"-end "), "\r\n", "\n")
	if status := g.await("\r\n"); status != "0" {
		g.t.Fatalf("%s: status %s: %s", command, status, out)
	}
	return out
}

// The whole way: npuadm in a guest, COM4, the ASIC, and its CPU port in the
// guest again.
func TestGuestSetsItsASIC(t *testing.T) {
	image(t)
	folder := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(folder, "npuadm"), ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build npuadm: %v\n%s", err, out)
	}
	program := softnpu.BuiltIn()
	for name, text := range program.Files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cpu, far, err := softnpu.SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	a, err := softnpu.New(softnpu.Config{Ports: []softnpu.Wire{wire{closed}, wire{closed}}, CPU: cpu, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		close(closed)
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	g := boot(t, folder, a, far)
	far.Close()

	const npuadm = "/mnt/npuadm "
	g.run(npuadm + "load-program /mnt/" + program.Main)
	if got := g.run(npuadm + "port-count"); got != "2\n" {
		t.Errorf("port-count: %q", got)
	}
	g.run(npuadm + "add-route4 10.0.1.0 24 2 10.0.0.1")
	if got := g.run(npuadm + "dump-state"); !strings.Contains(got, "  10.0.1.0/24  → index(") || !strings.Contains(got, "→ forward(port 2, nexthop 10.0.0.1)") {
		t.Errorf("dump-state: %s", got)
	}
	// A dump that is longer than all buffers on its way, by a serial port
	// without flow control.
	const many = 500
	for i := range many {
		err := a.Pipeline().Add("ingress.resolver.resolver_v6", neighbour(i))
		if err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	if got := g.run(npuadm + "save --filename /tmp/tables.json && grep -c rewrite_dst /tmp/tables.json"); got != fmt.Sprintf("%d\n", many) {
		t.Errorf("the saved state has %s entries", got)
	}
	t.Logf("a dump of %d entries took %v", many, time.Since(begin))
	if got := g.run(npuadm + "restore --filename /tmp/tables.json"); got != "added 0 entries, replaced 0\n" {
		t.Errorf("restore: %s", got)
	}
	// What somebody else writes to the port.
	g.run("echo hello >/dev/ttyS3; printf '\\345{\"TableAdd\":\\n' >/dev/ttyS3")
	if got := g.run(npuadm + "port-count"); got != "2\n" {
		t.Errorf("port-count after garbage: %q", got)
	}
	// What a client of SoftNPU does, without npuadm.
	if got := g.run(`exec 3<>/dev/ttyS3; stty -F /dev/ttyS3 raw -echo; printf '\345"RadixRequest"\n' >&3; read -t 60 n <&3; exec 3>&-; echo "$n"`); got != "2\n" {
		t.Errorf("the answer to a RadixRequest is %q", got)
	}
	// The CPU port: what the guest sends comes to the program, which drops it
	// for its want of a header, or would give it back.
	before := a.Counters()[softnpu.CPUPort]
	g.run("ip link set eth0 up; ip addr add 10.0.0.2/24 dev eth0; ping -c 1 -W 1 10.0.0.1 || true")
	after := a.Counters()[softnpu.CPUPort]
	if after.ReceivedFrames == before.ReceivedFrames || after.ReceivedFrames != after.Dropped+after.Misdirected {
		t.Errorf("the CPU port counts %+v", after)
	}
}

// neighbour is an entry of a table of addresses.
func neighbour(i int) p4.Entry {
	address := make([]byte, 16)
	address[0], address[14], address[15] = 0xfd, byte(i>>8), byte(i)
	return p4.Entry{Match: []match.Match{{Value: address}}, Action: "rewrite_dst", Args: [][]byte{make([]byte, 6)}}
}

// wire is that of a port without a cable.
type wire struct{ closed chan struct{} }

func (w wire) Read([]softnpu.Frame) (int, error)    { <-w.closed; return 0, net.ErrClosed }
func (w wire) Write(f []softnpu.Frame) (int, error) { return len(f), nil }
func (w wire) TryWrite(f []softnpu.Frame) int       { return len(f) }
func (w wire) Offloads() bool                       { return false }
func (w wire) Close() error                         { return nil }
