package qemu

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/falcon-vm/falcon-go/propolis/internal/networkns"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// property reads a property of a device from a running QEMU.
func (g *guest) property(device, name string) string {
	g.t.Helper()
	var value any
	args := map[string]any{"path": "/machine/peripheral/" + device, "property": name}
	if err := g.qmp.Execute(g.t.Context(), "qom-get", args, &value); err != nil {
		g.t.Fatal(err)
	}
	return fmt.Sprint(value)
}

func TestQEMUAcceptsEveryDevice(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cfg := testConfig(t, merge(isoOn(file("boot.iso")), propolis.Components{
		"com2": propolis.SerialPort{Num: "com2"}, "com3": propolis.SerialPort{Num: "com3"}, "com4": propolis.SerialPort{Num: "com4"},
		"nvme":                     propolis.NVMeDisk{BackendID: "nvmeb", PCIPath: at(16), SerialNumber: propolis.NewNVMeSerial("falcon 0")},
		"nvmeb":                    propolis.FileStorageBackend{Path: file("a,b.raw"), BlockSize: 4096},
		testID:                     propolis.VirtioDisk{BackendID: "longer_than_twenty_bytes", PCIPath: at(17)},
		"longer_than_twenty_bytes": propolis.FileStorageBackend{Path: file("ro.raw"), BlockSize: 2048, Readonly: true},
		"bridge":                   propolis.PCIBridge{DownstreamBus: 1, PCIPath: at(3)},
		"far":                      propolis.P9FS{Source: dir, Target: strings.Repeat("t", maxTag), PCIPath: propolis.PCIPath{Bus: 1}},
		"one":                      propolis.P9FS{Source: dir, Target: "a,b", PCIPath: at(13)},
		"two":                      propolis.P9FS{Source: dir, Target: "/opt/cargo-bay", PCIPath: propolis.PCIPath{Device: 13, Function: 7}},
		"panic":                    propolis.PVPanic{EnableISA: true},
	}, nicOn("net0", 8, "dgram:"+dir+"/a?peer="+dir+"/b&mac=02:00:00:00:00:01&mtu=9216"),
		nicOn("net1", 9, "dgram:"+dir+"/b?peer="+dir+"/a&mac=02:00:00:00:00:02"),
		nicOn("net2", 10, "user:?mac=02:00:00:00:00:03"), nicOn("net3", 11, "user:?mac=02:00:00:00:00:04")))
	cfg.Name, cfg.Screen = "a, b", true
	cfg.Spec.Smbios = &propolis.SmbiosType1{Manufacturer: "Strings, Inc.", ProductName: "a=b", Version: 7}
	cfg.Spec.Board.CPUs = 2
	g := startGuest(t, cfg)
	for _, want := range [][3]string{
		{"dev-net0", "mac", "02:00:00:00:00:01"}, {"dev-net0", "host_mtu", "9216"}, {"dev-net1", "host_mtu", "0"},
		{"dev-nvme", "logical_block_size", "4096"}, {"dev-nvme", "serial", "falcon 0"},
		{"dev-two", "addr", fmt.Sprint(13<<3 | 7)}, {"dev-far", "mount_tag", strings.Repeat("t", maxTag)},
	} {
		if got := g.property(want[0], want[1]); got != want[2] {
			t.Errorf("%s of %s is %s, want %s", want[1], want[0], got, want[2])
		}
	}
	g.run()
	g.send("x") // QEMU takes it although nobody listens
}

// namespace makes a network namespace and returns its path and a handle.
func namespace(t *testing.T) (string, *netlink.Handle) {
	t.Helper()
	needQEMU(t)
	if os.Getuid() != 0 {
		t.Skip("makes a network namespace, which needs root")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	ns, err := netns.New()
	if err != nil {
		t.Skipf("this host makes no network namespaces: %v", err)
	}
	t.Cleanup(func() { ns.Close() })
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(handle.Close)
	if err := netns.Set(own); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(ns)), handle
}

// addTap makes a persistent tap with an alternative name in a namespace.
func addTap(t *testing.T, h *netlink.Handle, path, name, alt string) *netlink.Tuntap {
	t.Helper()
	tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TAP,
		Flags: netlink.TUNTAP_NO_PI | netlink.TUNTAP_VNET_HDR}
	// The tun device acts in the namespace of the thread that opens it.
	if err := networkns.Run(path, func() error { return netlink.LinkAdd(tap) }); err != nil {
		t.Skipf("this host makes no taps: %v", err)
	}
	if err := h.LinkAddAltName(tap, alt); err != nil {
		t.Fatal(err)
	}
	return tap
}

func TestTapsAndMacvtapsAreOpenedInTheirNamespace(t *testing.T) {
	path, handle := namespace(t)
	const alt = "duo_violin_vn_vnic0_is_a_long_name"
	addTap(t, handle, path, "ft0", alt)
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "fv0"}, PeerName: "fv1"}
	if err := handle.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	parent, err := handle.LinkByName("fv0")
	if err != nil {
		t.Fatal(err)
	}
	macvtap := &netlink.Macvtap{Macvlan: netlink.Macvlan{
		LinkAttrs: netlink.LinkAttrs{Name: "fm0", ParentIndex: parent.Attrs().Index}, Mode: netlink.MACVLAN_MODE_PASSTHRU}}
	withMacvtap := handle.LinkAdd(macvtap) == nil
	components := merge(nicOn("net0", 5, alt), nicOn("net1", 6, "user:?mac=02:00:00:00:00:03"))
	if withMacvtap {
		components = merge(components, nicOn("net2", 7, "fm0?mtu=1400"))
	} else {
		t.Log("this host makes no macvtaps")
	}
	cfg := testConfig(t, components)
	cfg.NetNS = path
	g := startGuest(t, cfg)
	for device, name := range map[string]string{"dev-net0": "ft0", "dev-net2": "fm0"} {
		if name == "fm0" && !withMacvtap {
			continue
		}
		link, err := handle.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := g.property(device, "mac"); got != link.Attrs().HardwareAddr.String() {
			t.Errorf("MAC of %s is %s, want that of %s, %s", device, got, name, link.Attrs().HardwareAddr)
		}
	}
	cfg.PIDFile = filepath.Join(t.TempDir(), "second.pid")
	if _, err := Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "another process has it open") {
		t.Errorf("a second QEMU on the same tap: %v", err)
	}
}

func TestDevicesThatAreNoGoodAreRefused(t *testing.T) {
	path, _ := namespace(t)
	for name, want := range map[string]string{
		"none": `network device "none" in network namespace ` + path + `: there is none of that name`,
		"lo":   "QEMU needs a tap or a macvtap",
	} {
		cfg := testConfig(t, nicOn("n", 5, name))
		cfg.NetNS = path
		_, err := Start(t.Context(), cfg)
		expectRefusal(t, err, want)
	}
	cfg := testConfig(t, nicOn("n", 5, "none"))
	cfg.NetNS = filepath.Join(t.TempDir(), "gone")
	_, err := Start(t.Context(), cfg)
	expectRefusal(t, err, "no such file")
}

func TestQEMUIsOutOfReachOfTheTerminalsInterrupt(t *testing.T) {
	g := startGuest(t, testConfig(t, nil))
	group, err := syscall.Getpgid(g.PID())
	if err != nil || group != g.PID() {
		t.Errorf("process group %d (%v), want QEMU's own, %d", group, err, g.PID())
	}
}

// serverEnv makes the test binary act as a server that starts a QEMU, prints
// its process id and waits.
const serverEnv = "QEMU_TEST_SERVER"

func TestMain(m *testing.M) {
	if pidFile := os.Getenv(serverEnv); pidFile != "" {
		if err := serve(pidFile); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serve starts a QEMU from a goroutine whose thread ends right after.
func serve(pidFile string) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		m, err := Start(context.Background(), Config{ID: testID, Spec: spec(nil), Firmware: FirmwareBIOS, Accel: AccelTCG, PIDFile: pidFile})
		if err == nil {
			fmt.Println(m.PID())
		}
		started <- err
	}()
	if err := <-started; err != nil {
		return err
	}
	select {}
}

func TestQEMUDiesWithItsServerAndNotBefore(t *testing.T) {
	needQEMU(t)
	server := exec.Command(os.Args[0])
	server.Env = append(os.Environ(), serverEnv+"="+filepath.Join(t.TempDir(), "qemu.pid"))
	server.Stderr = os.Stderr
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Process.Kill(); server.Wait() })
	line := make([]byte, 32)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(line[:n])))
	if err != nil {
		t.Fatal(err)
	}
	qemu, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(qemu)
	if gone(t, qemu, 500*time.Millisecond) {
		t.Fatal("QEMU died with the thread that asked for it")
	}
	if err := server.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !gone(t, qemu, 10*time.Second) {
		syscall.Kill(pid, syscall.SIGKILL)
		t.Fatal("QEMU outlives its server")
	}
}

// gone waits for the end of a process by its pidfd.
func gone(t *testing.T, pidfd int, limit time.Duration) bool {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, int(limit.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return n > 0
	}
}
