package process

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	all, err := Marked()
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
	if open := Opened([]string{file.Name(), filepath.Join(dir, "none")}); len(open) != 1 || !open[file.Name()] {
		t.Errorf("open are %v", open)
	}
	if err := id.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if _, err := id.Mark(); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("of one that has ended: %v", err)
	}
	if open := Opened([]string{file.Name()}); len(open) != 0 {
		t.Errorf("open are %v", open)
	}
}
