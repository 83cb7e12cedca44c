//go:build linux

package examples_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// simulated returns a command of a ring of three on a simulated host, whose
// second node never logs in.
func simulated(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(filepath.Join(built.dir, "ring"), append([]string{"-n", "3"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "FALCON_HOST=sim", "FALCON_SIM=login:n1=never", "FALCON_HOME="+filepath.Join(dir, "home"))
	return cmd
}

// TestASignalDuringALaunchUndoesIt whichever it is.
func TestASignalDuringALaunchUndoesIt(t *testing.T) {
	if reason := noGuests(); reason != "" {
		t.Skip(reason) // nothing is built then
	}
	for signal, status := range map[syscall.Signal]int{
		syscall.SIGHUP: 129, syscall.SIGINT: 130, syscall.SIGQUIT: 131, syscall.SIGTERM: 143,
	} {
		dir := t.TempDir()
		cmd := simulated(t, dir, "launch")
		var said strings.Builder
		cmd.Stderr = &said
		p := &launching{l: &lab{site: &site{t: t}}, cmd: cmd}
		p.start()
		p.until("n0 ready", "n2 ready")
		if got := p.signal(signal); got != status {
			t.Errorf("%v: status %d, want %d: %s", signal, got, status, said.String())
		}
		undone(t, dir)
	}
}

// undone looks that nothing of a launch is there any more.
func undone(t *testing.T, dir string) {
	t.Helper()
	if exists(filepath.Join(dir, ".falcon")) {
		t.Error("the state folder is there")
	}
	left, _ := filepath.Glob(filepath.Join(dir, "home", "sim", "topo", "*", "*"))
	if labs, _ := filepath.Glob(filepath.Join(dir, "home", "sim", "labs", "*")); len(left)+len(labs) > 0 {
		t.Errorf("there are %v and %v", left, labs)
	}
}

// TestALaunchThatNobodyReadsIsUndone in a pipe whose reader has had enough.
func TestALaunchThatNobodyReadsIsUndone(t *testing.T) {
	if reason := noGuests(); reason != "" {
		t.Skip(reason)
	}
	for _, pipe := range []string{`"$0" "$@" | head -n 1`, `"$0" "$@" --json | true`, `"$0" "$@" 2>&1 | head -n 1`} {
		dir := t.TempDir()
		launch := simulated(t, dir, "launch", "--timeout", "30s")
		cmd := exec.Command("bash", append([]string{"-c", pipe + " >/dev/null; exit ${PIPESTATUS[0]}"}, launch.Args...)...)
		cmd.Dir, cmd.Env = launch.Dir, launch.Env
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != 141 {
			t.Errorf("%s: status %d, want 141: %s", pipe, got, out)
		}
		undone(t, dir)
	}
}

// TestASecondSignalSaysWhatClearsWhatIsLeft, which then does.
func TestASecondSignalSaysWhatClearsWhatIsLeft(t *testing.T) {
	if reason := noGuests(); reason != "" {
		t.Skip(reason)
	}
	dir := t.TempDir()
	cmd := simulated(t, dir, "launch")
	// The undoing waits for the lock of the journal, which the test has.
	var said strings.Builder
	cmd.Stderr = &said
	p := &launching{l: &lab{site: &site{t: t}}, cmd: cmd}
	p.start()
	p.until("n0 ready", "n2 ready")
	journal, err := os.Open(filepath.Join(dir, ".falcon", "journal"))
	check(t, err)
	defer journal.Close()
	check(t, syscall.Flock(int(journal.Fd()), syscall.LOCK_EX))
	check(t, cmd.Process.Signal(syscall.SIGINT))
	time.Sleep(200 * time.Millisecond) // a person's second thought
	if status := p.signal(syscall.SIGINT); status != 130 {
		t.Errorf("status %d: %s", status, said.String())
	}
	check(t, syscall.Flock(int(journal.Fd()), syscall.LOCK_UN))
	_, clear, found := strings.Cut(said.String(), "remove that with: falcon ")
	if !found || !strings.Contains(said.String(), "3 disks") {
		t.Fatalf("it says %q", said.String())
	}
	destroy := exec.Command(filepath.Join(built.dir, "falcon"), strings.Fields(clear)...)
	destroy.Env = cmd.Env
	if out, err := destroy.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	undone(t, dir)
}

// TestALaunchWhoseOutputIsLostSaysSo at its end, and the lab stays.
func TestALaunchWhoseOutputIsLostSaysSo(t *testing.T) {
	if reason := noGuests(); reason != "" {
		t.Skip(reason)
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	check(t, err)
	defer full.Close()
	dir := t.TempDir()
	run := func(args ...string) (int, string) {
		cmd := simulated(t, dir, args...)
		cmd.Env = append(cmd.Env, "FALCON_SIM=")
		var said strings.Builder
		cmd.Stdout, cmd.Stderr = full, &said
		_ = cmd.Run()
		return cmd.ProcessState.ExitCode(), said.String()
	}
	for _, args := range [][]string{{"launch"}, {"info"}, {"launch", "--json"}, {"hyperstop", "--all"}, {"destroy"}} {
		if status, said := run(args...); status != 1 || !strings.Contains(said, "no space left on device") {
			t.Errorf("%v: status %d, %q", args, status, said)
		}
		if args[0] != "destroy" && !exists(filepath.Join(dir, ".falcon", "topology.json")) {
			t.Errorf("%v: the lab is gone", args)
		}
	}
	undone(t, dir)
}
