package guest

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/internal/agent"
)

// errHeld is the answer of a clone that nobody has made a machine of its own.
var errHeld = errors.New("this clone has no identity yet: whoever launched it was cut off")

// held is the waiting of a template, and of each of its clones, for an identity.
type held struct {
	// stopped are the processes that go on when the guest is itself.
	stopped []int

	mu    sync.Mutex
	seed  []byte // a page of its own, which a clone finds changed
	was   []byte // the complement of what it was: the mark must not be there twice
	taken bool
}

// hold stops all processes but the first, which cannot be stopped, and this one,
// and waits for the seed of a clone.
func (s *server) hold() error {
	seed, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return fmt.Errorf("making a place for the seeds of clones: %w", err)
	}
	h := &held{seed: seed, was: agent.SeedMark()}
	copy(seed, h.was)
	for i := range h.was {
		h.was[i] = ^h.was[i]
	}
	if h.stopped, err = stopAll(); err != nil {
		resume(h.stopped)
		return err
	}
	s.mu.Lock()
	s.held = h
	s.mu.Unlock()
	go s.awaitSeed(h)
	return nil
}

// seedPause is how often a template, or a clone in its first moment, looks whether
// it is a clone. Nothing tells a machine that it is another one.
const seedPause = time.Millisecond

// awaitSeed takes the seed as soon as it is there.
func (s *server) awaitSeed(h *held) {
	for {
		if done, err := h.sow(); done || err != nil {
			if err != nil {
				fmt.Fprintln(os.Stderr, "falcon-agent: adding the clone's seed:", err)
			}
			return
		}
		time.Sleep(seedPause)
	}
}

// sow adds the seed to the kernel's entropy, once. It is done when that was done
// or there is nothing to wait for.
func (h *held) sow() (done bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.taken || !h.changed() {
		return h.taken, nil
	}
	h.taken = true
	err = addEntropy(h.seed[:len(h.was)])
	return true, errors.Join(err, unix.Munmap(h.seed))
}

// changed reports whether the seed is another than the mark.
func (h *held) changed() bool {
	for i := 0; i < len(h.was); i += 8 {
		is := atomic.LoadUint64((*uint64)(unsafe.Pointer(&h.seed[i])))
		if is != ^*(*uint64)(unsafe.Pointer(&h.was[i])) {
			return true
		}
	}
	return false
}

func (s *server) isHeld() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held != nil
}

// sow takes the seed of a guest that is held.
func (s *server) sow() error {
	s.mu.Lock()
	h := s.held
	s.mu.Unlock()
	if h == nil {
		return nil
	}
	_, err := h.sow()
	return err
}

// goOn has the processes of a guest that was held run again.
func (s *server) goOn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != nil {
		resume(s.held.stopped)
		s.held.stopped = nil
	}
}

// free ends the hold: the guest is a machine of its own.
func (s *server) free(machine string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = nil
	if machine != "" {
		s.machine = machine
	}
}

// stopAll stops all processes but the first and this one. Those that have begun
// others meanwhile are looked at again.
func stopAll() (stopped []int, err error) {
	for before := -1; len(stopped) != before; {
		before = len(stopped)
		entries, err := os.ReadDir("/proc")
		if err != nil {
			return stopped, fmt.Errorf("listing the guest's processes: %w", err)
		}
		for _, e := range entries {
			pid, err := strconv.Atoi(e.Name())
			if err != nil || pid == 1 || pid == os.Getpid() || !stoppable(e.Name()) {
				continue
			}
			if err := unix.Kill(pid, unix.SIGSTOP); err == nil {
				stopped = append(stopped, pid)
			} else if !errors.Is(err, unix.ESRCH) {
				return stopped, fmt.Errorf("stopping process %d: %w", pid, err)
			}
		}
	}
	return stopped, nil
}

// stoppable reports whether a process is one that runs: no part of the kernel,
// and not stopped or dead.
func stoppable(pid string) bool {
	stat, err := readFile("/proc/" + pid + "/stat")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // state, parent, ...
	fields := strings.Fields(rest)
	if len(fields) < 2 {
		return false
	}
	return pid != "2" && fields[1] != "2" && !strings.Contains("TtZX", fields[0])
}

// resume has processes go on that were stopped.
func resume(stopped []int) {
	for _, pid := range stopped {
		_ = unix.Kill(pid, unix.SIGCONT) // one may have been killed
	}
}
