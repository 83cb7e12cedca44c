package link

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Root on a Linux that has what the package needs can do all of it.
func TestProbeAsRoot(t *testing.T) {
	needRoot(t)
	start := time.Now()
	c, err := Probe(t.Context())
	if err != nil || c != (Capabilities{}) {
		t.Errorf("got %+v, %v", c, err)
	}
	t.Logf("took %v", time.Since(start))
}

func TestProbeIsNotConclusiveWhenCancelled(t *testing.T) {
	needRoot(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := Probe(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestShortageIsNotConclusive(t *testing.T) {
	for err, want := range map[error]bool{unix.EMFILE: true, unix.ENOMEM: true, unix.EPERM: false, ErrNotSupported: false} {
		c := Capabilities{BPF: opError("join taps", "", err, "")}
		if got := inconclusive(t.Context(), c) != nil; got != want {
			t.Errorf("%v: inconclusive=%v, want %v", err, got, want)
		}
	}
}

// As an ordinary user, in a process of its own, each answer is a reason.
func TestProbeAsUser(t *testing.T) {
	const child = "LINK_TEST_PROBE"
	if os.Getenv(child) != "" {
		c, err := Probe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i, why := range []error{c.Namespace, c.Tap, c.BPF, c.Mirred, c.Veth, c.Macvtap} {
			if !errors.Is(why, ErrNotPermitted) {
				t.Errorf("answer %d: %v", i, why)
			}
		}
		k := Kernel{Namespace: NamespacePrefix + "user"}
		if err := k.Create(t.Context(), []Cable{validCable()}, nil); !errors.Is(err, ErrNotPermitted) {
			t.Errorf("create: %v", err)
		}
		fmt.Println("probed")
		return
	}
	needRoot(t)
	// The test's binary is in a folder that only root can enter.
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "link")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	binary := filepath.Join(dir, "test")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(binary, self, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, "-test.run=^TestProbeAsUser$", "-test.v")
	cmd.Env = []string{child + "=1"}
	cmd.Dir = "/"
	const nobody = 65534
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}
