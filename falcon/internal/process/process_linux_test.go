package process_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/falcon/internal/process"
)

func TestAProcessHasASessionOfItsOwn(t *testing.T) {
	p := start(t, config("stay"))
	if sid, err := unix.Getsid(p.PID); err != nil || sid != p.PID {
		t.Errorf("process %d is in session %d (%v)", p.PID, sid, err)
	}
}

func TestAZombieIsNotAlive(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	pid := cmd.Process.Pid
	// It ends, and is not taken away before this test is over.
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
	id, err := process.Identify(pid)
	if err != nil {
		t.Fatalf("a zombie keeps its number, and Identify says %v", err)
	}
	if id.Alive() {
		t.Error("a zombie is alive")
	}
	if err := id.Kill(short(t)); err != nil {
		t.Errorf("Kill: %v", err)
	}
	if err := id.Wait(short(t)); err != nil {
		t.Errorf("Wait: %v", err)
	}
}

// Threads and processes draw their numbers from one pool, so that a number of
// old may be a thread's now.
func TestANumberThatBecameAThreadsIsNotAProcess(t *testing.T) {
	tids, release := make(chan int), make(chan struct{})
	defer close(release)
	for range 2 { // one of the two is not the process's first thread
		go func() {
			runtime.LockOSThread()
			tids <- unix.Gettid()
			<-release
		}()
	}
	tid, other := <-tids, <-tids
	if tid == os.Getpid() {
		tid = other
	}
	id := process.Identity{PID: tid, Start: 1, Boot: "another boot"}
	if id.Alive() {
		t.Error("it is alive")
	}
	if err := id.Kill(short(t)); err != nil {
		t.Errorf("Kill: %v", err)
	}
	if err := id.Wait(short(t)); err != nil {
		t.Errorf("Wait: %v", err)
	}
}

func TestIdentitiesLeaveNoDescriptorsOpen(t *testing.T) {
	p := start(t, config("stay"))
	reused := process.Identity{PID: p.PID, Start: p.Start + 1, Boot: p.Boot}
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	before := count()
	for range 20 {
		p.Alive()
		reused.Alive()
		_ = p.Wait(cancelled)
		_ = reused.Kill(t.Context())
		if _, err := process.Start(config("stay"), func(process.Identity) error { return errors.New("no") }); err == nil {
			t.Fatal("Start ignored that nothing was recorded")
		}
	}
	if after := count(); after > before+5 { // the runtime's own come and go
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}
