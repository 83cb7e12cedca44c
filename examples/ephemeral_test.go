//go:build linux

package examples_test

import (
	"bufio"
	"context"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestTopologyThatIsNotPersistentEndsWithItsProgram ends a program in different
// ways, and looks that nothing of its topology is left.
func TestTopologyThatIsNotPersistentEndsWithItsProgram(t *testing.T) {
	s := newSite(t)
	for _, tt := range []struct {
		name, then string
		end        func(t *testing.T, p *program)
	}{
		{"its context is cancelled", "cancel", func(t *testing.T, p *program) {
			s.goneWithin(t, p.dir, "falcon-propolis-server", "qemu-system")
			check(t, p.stop()) // the program went on meanwhile
		}},
		{"it returns", "return", func(t *testing.T, p *program) { check(t, p.wait()) }},
		{"it is killed", "wait", func(t *testing.T, p *program) {
			check(t, syscall.Kill(p.pid, syscall.SIGKILL))
			_ = p.wait()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(s.mkdir(tt.then), ".falcon")
			p := s.startProgram(t, dir, tt.then)
			if qemus := len(s.processes()); tt.then == "wait" && qemus < 5 {
				t.Errorf("while the program runs there are the processes %v", s.processes())
			}
			tt.end(t, p)
			s.goneWithin(t, dir, "")
		})
	}
}

// program is a program that has launched a topology.
type program struct {
	dir  string
	pid  int
	stop func() error // ends its input, and waits
	wait func() error
}

// startProgram returns when the program's topology is up.
func (s *site) startProgram(t *testing.T, dir, then string) *program {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandDeadline)
	t.Cleanup(cancel)
	cmd := s.command(ctx, s.dir, filepath.Join(built.dir, "ephemeral"), dir, then)
	in, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	check(t, cmd.Start())
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "up" {
		t.Fatalf("the program says %q, %v: %s", lines.Text(), cmd.Wait(), stderr.String())
	}
	return &program{dir, cmd.Process.Pid, func() error { in.Close(); return cmd.Wait() }, cmd.Wait}
}

// goneWithin waits for the end of a topology that nobody here destroys: of its
// folder, and of the site's processes with one of the words.
func (s *site) goneWithin(t *testing.T, dir string, words ...string) {
	t.Helper()
	gone := func() bool {
		return !exists(dir) && !slices.ContainsFunc(s.processes(), func(p string) bool {
			return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(p, w) })
		})
	}
	for limit := time.Now().Add(time.Minute); !gone(); {
		if time.Now().After(limit) {
			t.Fatalf("after a minute there is still %s: %v, with the processes %v", dir, exists(dir), s.processes())
		}
		time.Sleep(50 * time.Millisecond) // the reaper is nobody's child
	}
}
