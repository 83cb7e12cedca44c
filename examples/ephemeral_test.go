//go:build linux

package examples_test

import (
	"bufio"
	"context"
	"path/filepath"
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
			p.site.goneWithin(t, p.dir)
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
			s.goneWithin(t, dir)
		})
	}
}

// program is a program that has launched a topology.
type program struct {
	site *site
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
	return &program{s, dir, cmd.Process.Pid, func() error { in.Close(); return cmd.Wait() }, cmd.Wait}
}

// goneWithin waits for the end of a topology that nobody here destroys.
func (s *site) goneWithin(t *testing.T, dir string) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); time.Now().Before(limit); {
		if !exists(dir) && !s.serving() {
			return
		}
		time.Sleep(50 * time.Millisecond) // the reaper is nobody's child
	}
	t.Errorf("after a minute there is still %s: %v, with the processes %v", dir, exists(dir), s.processes())
}

// serving reports whether servers, hypervisors or reapers of the site run.
func (s *site) serving() bool {
	for _, p := range s.processes() {
		if strings.Contains(p, "falcon-propolis-server") || strings.Contains(p, "qemu-system") || strings.Contains(p, "falcon-reaper") {
			return true
		}
	}
	return false
}
