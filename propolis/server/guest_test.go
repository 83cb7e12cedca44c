package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/propolis"
)

// These tests run QEMU. The guest is SeaBIOS, which says on its console that
// there is nothing to boot, and does not know a power button.

// guestLimit bounds what a test waits for. It is ample: without KVM, on a busy
// machine, SeaBIOS takes a few seconds.
const guestLimit = 60 * time.Second

// newGuest starts a server and makes an instance of SeaBIOS and components in
// a folder.
func newGuest(t *testing.T, components propolis.Components, args ...string) *runningServer {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a guest")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skipf("needs QEMU: %v", err)
	}
	args = append([]string{"bios", "[::]:0", "--accel", "tcg", "--stop-grace", "100ms"}, args...)
	s := runMain(t, args...)
	if err := s.Ensure(guestContext(t), ensureRequest(components)); err != nil {
		t.Fatal(err)
	}
	return s
}

func guestContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), guestLimit)
	t.Cleanup(cancel)
	return ctx
}

// change asks for a change of state and waits for its effect.
func (s *runningServer) change(t *testing.T, req propolis.StateRequest, want propolis.InstanceState) {
	t.Helper()
	if err := s.SetState(guestContext(t), req); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitState(guestContext(t), want); err != nil {
		t.Fatal(err)
	}
}

// readUntil reads the console until it has shown want.
func readUntil(t *testing.T, s *propolis.SerialConn, want string) {
	t.Helper()
	_ = s.SetReadDeadline(time.Now().Add(guestLimit))
	var seen []byte
	for buf := make([]byte, 4096); !strings.Contains(string(seen), want); {
		n, err := s.Read(buf)
		seen = append(seen, buf[:n]...)
		if err != nil {
			t.Fatalf("waiting for %q: %v; the console shows %q", want, err, seen)
		}
	}
}

const (
	biosBanner = "SeaBIOS"
	biosEnd    = "No bootable device"
)

func TestGuestLivesAndEnds(t *testing.T) {
	s := newGuest(t, nil)
	console, err := s.Serial(guestContext(t), propolis.SerialOptions{FromStart: new(uint64)})
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	s.change(t, propolis.RequestRun, propolis.StateRunning)
	readUntil(t, console, biosBanner)
	readUntil(t, console, biosEnd)
	s.change(t, propolis.RequestReboot, propolis.StateRunning)
	readUntil(t, console, biosBanner)

	s.change(t, propolis.RequestStop, propolis.StateDestroyed)
	if _, err := io.Copy(io.Discard, console); !errors.Is(err, propolis.ErrVMStopped) {
		t.Errorf("the console ended with %v", err)
	}

	// The server has room for another.
	if err := s.Ensure(guestContext(t), ensureRequest(nil)); err != nil {
		t.Fatal(err)
	}
	s.change(t, propolis.RequestRun, propolis.StateRunning)
	if status := s.stop(); status != 0 {
		t.Errorf("status %d", status)
	}
}

func TestAKilledQEMUIsAFailedInstance(t *testing.T) {
	pidfile := filepath.Join(t.TempDir(), "pid")
	s := newGuest(t, nil, "--pidfile", pidfile)
	s.change(t, propolis.RequestRun, propolis.StateRunning)
	text, err := os.ReadFile(pidfile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	err = s.WaitState(guestContext(t), propolis.StateStopped)
	var we *propolis.WaitError
	if !errors.As(err, &we) || we.Last.State != propolis.StateFailed || !strings.Contains(we.Last.Failure, "killed") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(s.stderr.String(), "killed") {
		t.Errorf("stderr does not tell: %s", s.stderr.String())
	}
	if _, err := os.Stat(pidfile); err == nil {
		t.Error("the pid file is left behind")
	}
}

func TestTheCommandLineOfQEMUIsLogged(t *testing.T) {
	s := newGuest(t, nil)
	if !regexp.MustCompile(`qemu-system-x86_64 .*-uuid ` + testID).MatchString(s.stdout.String()) {
		t.Errorf("got %s", s.stdout.String())
	}
}

func TestWhatQEMURefusesIsTold(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "d.qcow2")
	if err := os.WriteFile(disk, []byte("no qcow2"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newGuest(t, nil)
	s.change(t, propolis.RequestStop, propolis.StateDestroyed)
	err := s.Ensure(guestContext(t), ensureRequest(diskComponents(disk)))
	e := refused(t, err, 500, propolis.CodeInternal)
	if !strings.Contains(e.Message, "qcow2") {
		t.Errorf("the error does not have QEMU's words: %s", e.Message)
	}
}

func diskComponents(path string) propolis.Components {
	return propolis.Components{
		"disk": propolis.VirtioDisk{BackendID: "file", PCIPath: propolis.PCIPath{Device: 4}},
		"file": propolis.FileStorageBackend{Path: path, BlockSize: 512},
	}
}

func TestARunningDiskMovesToAnOverlay(t *testing.T) {
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skipf("needs qemu-img: %v", err)
	}
	dir := t.TempDir()
	base, overlay := filepath.Join(dir, "base.qcow2"), filepath.Join(dir, "overlay.qcow2")
	create(t, base, "64M")
	create(t, overlay, "-b", base, "-F", "qcow2")
	s := newGuest(t, diskComponents(base))
	s.change(t, propolis.RequestRun, propolis.StateRunning)
	if err := s.SwitchOverlay(guestContext(t), "file", overlay); err != nil {
		t.Fatal(err)
	}
	for path, used := range map[string]bool{base: false, overlay: true} {
		if got := opened(t, path); got != used {
			t.Errorf("QEMU has %s open for writing: %v, want %v", filepath.Base(path), got, used)
		}
	}
	err := s.SwitchOverlay(guestContext(t), "file", filepath.Join(dir, "none.qcow2"))
	if e := refused(t, err, 500, propolis.CodeInternal); !strings.Contains(e.Message, "none.qcow2") {
		t.Errorf("message %q", e.Message)
	}
	if i, err := s.Instance(guestContext(t)); err != nil || i.State != propolis.StateRunning {
		t.Errorf("after the switches the instance is %v, %v", i.State, err)
	}
}

// create makes a qcow2 file.
func create(t *testing.T, path string, args ...string) {
	t.Helper()
	var size []string
	if len(args) == 1 {
		size, args = args, nil
	}
	args = append(append([]string{"create", "-q", "-f", "qcow2"}, args...), path)
	if out, err := exec.Command("qemu-img", append(args, size...)...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v: %s", err, out)
	}
}

// opened reports whether QEMU has path open for writing.
func opened(t *testing.T, path string) bool {
	t.Helper()
	pid := qemuPID(t)
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if target, _ := os.Readlink(fd); target != path {
			continue
		}
		info, err := os.Lstat(fd)
		if err == nil && info.Mode().Perm()&0o200 != 0 {
			return true
		}
	}
	return false
}

// qemuPID finds the QEMU that runs the test's instance.
func qemuPID(t *testing.T) int {
	t.Helper()
	cmdlines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range cmdlines {
		text, _ := os.ReadFile(path)
		if strings.Contains(string(text), "-uuid\x00"+testID) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			return pid
		}
	}
	t.Fatal("QEMU does not run")
	return 0
}
