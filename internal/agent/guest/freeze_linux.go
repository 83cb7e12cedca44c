package guest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/internal/agent"
)

// Requests of a file system, from the kernel's linux/fs.h.
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// maxFreeze bounds every freeze: a guest that cannot write stands still sooner
// or later.
const maxFreeze = time.Minute

// freeze freezes the file systems for as long as the call lasts, so that a host
// that goes leaves no guest frozen.
func (s *server) freeze(c *call, content []byte) {
	limit, err := agent.DecodeNumber(content)
	if err != nil {
		c.done(nil, err)
		return
	}
	if !s.frozen.CompareAndSwap(false, true) {
		c.done(nil, errors.New("the file systems are frozen already"))
		return
	}
	defer s.frozen.Store(false)
	duration := min(time.Duration(limit), maxFreeze)
	standDown := s.standBy(duration + thawMargin)
	systems, err := freezeAll()
	if err != nil {
		standDown()
		c.done(nil, err)
		return
	}
	thaw := make(chan struct{})
	go func() {
		defer close(thaw)
		_, _, _ = c.Receive() // a message or the end of the call mean the same
	}()
	_ = c.Send(agent.Done, agent.EncodeTexts(paths(systems)))
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-thaw:
		standDown()
		c.done(nil, thawAll(systems))
	case <-timer.C:
		standDown()
		c.done(nil, errors.Join(fmt.Errorf("the file systems were frozen for %v and thawed then", duration), thawAll(systems)))
	}
}

// thawWord has this program thaw the file systems after a time: it is the agent's
// deputy, whose file systems must not stay frozen when it is stopped or killed.
const thawWord = "thaw-after"

// thawMargin is how much later than the agent its deputy thaws.
const thawMargin = 5 * time.Second

// standBy starts the deputy, and returns what ends it. Where this is not the
// program of a guest there is none.
func (s *server) standBy(d time.Duration) (standDown func()) {
	if self, err := os.Readlink("/proc/self/exe"); err != nil || self != Program {
		return func() {}
	}
	p, err := s.start(agent.Exec{Argv: []string{Program, thawWord, d.String()}, Merge: true})
	if err != nil { // the agent itself thaws
		fmt.Fprintln(os.Stderr, "falcon-agent: standing by to thaw:", err)
		return func() {}
	}
	return func() {
		_ = unix.Kill(-p.pid, unix.SIGKILL)
		p.wait()
		p.close()
	}
}

// thawLater thaws all file systems after a time.
func thawLater(after string, stderr io.Writer) int {
	d, err := time.ParseDuration(after)
	if err != nil {
		fmt.Fprintln(stderr, "falcon-agent:", err)
		return 2
	}
	time.Sleep(d)
	mounts, err := diskMounts()
	for _, path := range mounts {
		if f, oerr := os.Open(path); oerr == nil {
			_ = unix.IoctlSetInt(int(f.Fd()), fiThaw, 0) // most are not frozen any more
			f.Close()
		}
	}
	if err != nil {
		fmt.Fprintln(stderr, "falcon-agent:", err)
		return 1
	}
	return 0
}

// system is a mounted file system, open so that it can be thawed.
type system struct {
	path string
	f    *os.File
}

func paths(systems []system) []string {
	var list []string
	for _, s := range systems {
		list = append(list, s.path)
	}
	return list
}

// freezeAll freezes all file systems on disks, those mounted last first.
func freezeAll() ([]system, error) {
	mounts, err := diskMounts()
	if err != nil {
		return nil, err
	}
	var frozen []system
	for _, path := range slices.Backward(mounts) {
		f, err := os.Open(path)
		if err == nil {
			err = unix.IoctlSetInt(int(f.Fd()), fiFreeze, 0)
			if errors.Is(err, unix.EOPNOTSUPP) {
				f.Close()
				continue
			}
		}
		if err != nil {
			if f != nil {
				f.Close()
			}
			return nil, errors.Join(fmt.Errorf("freezing %s: %w", path, err), thawAll(frozen))
		}
		frozen = append(frozen, system{path, f})
	}
	return frozen, nil
}

// thawAll thaws file systems, those frozen last first.
func thawAll(systems []system) error {
	var errs []error
	for _, s := range slices.Backward(systems) {
		if err := unix.IoctlSetInt(int(s.f.Fd()), fiThaw, 0); err != nil {
			errs = append(errs, fmt.Errorf("thawing %s: %w", s.path, err))
		}
		s.f.Close()
	}
	return errors.Join(errs...)
}

// diskMounts lists where file systems on block devices are mounted for writing,
// each once, in the order of mounting.
func diskMounts() ([]string, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMounts(string(info)), nil
}

// parseMounts reads lines such as
//
//	25 1 254:0 / / rw,noatime shared:1 - ext4 /dev/vda rw
//
// A file system on a block device has a device number with a major of its own.
func parseMounts(info string) []string {
	var list []string
	seen := make(map[string]bool)
	for line := range strings.Lines(info) {
		head, tail, _ := strings.Cut(line, " - ")
		h, t := strings.Fields(head), strings.Fields(tail)
		if len(h) < 6 || len(t) < 3 || strings.HasPrefix(h[2], "0:") && t[0] != "btrfs" {
			continue
		}
		if seen[h[2]] || !slices.Contains(strings.Split(t[2], ","), "rw") {
			continue
		}
		seen[h[2]] = true
		list = append(list, mountsEscape.Replace(h[4]))
	}
	return list
}

// mountsEscape undoes how the kernel writes paths.
var mountsEscape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
