package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

func TestAProcessIsKnownByItsMark(t *testing.T) {
	dir := t.TempDir()
	want := Mark{Lab: "0123abcd", Node: "violin", Home: dir}
	file, err := os.Create(filepath.Join(dir, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "600")
	cmd.Args[0] = "falcon-of-a-test"
	cmd.Env, cmd.Dir, cmd.Stdin = append(os.Environ(), want.Env()...), dir, file
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	file.Close()
	id, err := Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	mine := func(uid int) bool { return uid == os.Geteuid() }
	nobody := func(int) bool { return false }
	if all, err := Marked(nobody); err != nil || len(all) > 0 {
		t.Errorf("of nobody's processes there are marked %v (%v)", all, err)
	}
	all, err := Marked(mine)
	i := slices.IndexFunc(all, func(m Mark) bool { return m.Identity == id })
	if err != nil || i < 0 {
		t.Fatalf("it is not among %v (%v)", all, err)
	}
	m, err := id.Mark()
	if err != nil || m.Lab != want.Lab || m.Node != want.Node || m.Home != dir || m.Dir != dir || m.UID != os.Geteuid() {
		t.Errorf("its mark is %+v (%v)", m, err)
	}
	if !m.Runs("falcon-of-a-test") || m.Runs("sleep", "600") {
		t.Errorf("it runs %v", m.Args)
	}
	if open, err := Opened([]string{file.Name(), filepath.Join(dir, "none")}, mine); err != nil || len(open) != 1 || !open[file.Name()] {
		t.Errorf("open are %v (%v)", open, err)
	}
	if open, err := Opened([]string{file.Name()}, nobody); err != nil || len(open) > 0 {
		t.Errorf("in nobody's processes are open %v (%v)", open, err)
	}
	if err := id.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if _, err := id.Mark(); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("of one that has ended: %v", err)
	}
	if open, err := Opened([]string{file.Name()}, mine); err != nil || len(open) != 0 {
		t.Errorf("open are %v (%v)", open, err)
	}
}

// What another user has started is not root's for running as root: its environment
// is that user's.
func TestAProcessIsOfTheUserWhoStartedIt(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it runs as another user, which needs root")
	}
	const other = 54321
	program := filepath.Join(t.TempDir(), "sleep")
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(program, data, 0o755), os.Chmod(program, 0o755|os.ModeSetuid)); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(program); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "600")
	cmd.Dir = "/"
	cmd.Env = Mark{Lab: "0123abcd", Home: "/"}.Env()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: other, Gid: other}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	id, err := Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = id.Kill(t.Context()), cmd.Wait() }()
	info, err := os.Stat(fmt.Sprintf("/proc/%d", id.PID))
	if err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Skipf("it does not run as root (%v)", err)
	}
	if uid, err := userOf(id.PID); err != nil || uid != other {
		t.Errorf("it is user %d's (%v)", uid, err)
	}
	marked, err := Marked(func(uid int) bool { return uid == 0 })
	if err != nil || slices.ContainsFunc(marked, func(m Mark) bool { return m.Identity == id }) {
		t.Errorf("it is among root's (%v)", err)
	}
}
