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

// Fifty nodes are fifty processes that are waited for, twice when they end.
func TestWaitingTakesNoThreads(t *testing.T) {
	const processes = 20
	before := threads(t)
	waited := make(chan error, processes)
	ps := make([]*process.Process, processes)
	for i := range ps {
		ps[i] = start(t, config("stay"))
		go func() { waited <- ps[i].Wait(short(t)) }()
	}
	runtime.Gosched()
	if more := threads(t) - before; more > processes/2 {
		t.Errorf("%d threads more for %d processes", more, processes)
	}
	for _, p := range ps {
		if err := p.Kill(short(t)); err != nil {
			t.Error(err)
		}
		waitDone(t, p)
	}
	for range ps {
		if err := <-waited; err != nil {
			t.Error(err)
		}
	}
}

func threads(t *testing.T) int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(tasks)
}

func TestOnlyAChildIsAChild(t *testing.T) {
	self, err := process.Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, config("stay"))
	if child, err := self.Child(p.PID); err != nil || child != p.Identity {
		t.Errorf("%+v (%v), want %+v", child, err, p.Identity)
	}
	for name, c := range map[string]struct {
		parent process.Identity
		pid    int
	}{
		"a parent":           {p.Identity, os.Getpid()},
		"itself":             {self, os.Getpid()},
		"no number":          {self, 0},
		"a parent that died": {process.Identity{PID: self.PID, Start: self.Start - 1, Boot: self.Boot}, p.PID},
	} {
		if child, err := c.parent.Child(c.pid); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("%s: %+v (%v)", name, child, err)
		}
	}
}
