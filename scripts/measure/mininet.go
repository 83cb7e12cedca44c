//go:build linux

package main

import (
	"bufio"
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

//go:embed mininet.py
var mininetScript []byte

// mininet makes hosts of Mininet's: shells in network namespaces.
type mininet struct{ b *bench }

func (c *mininet) peer() peer {
	return peer{Name: "Mininet", Version: c.b.packageVersion(context.Background(), "mininet"),
		Settings: "Debian's package; a script that makes hosts and links in a ring, no switch and no controller, from the start of Python until each host has run `true`; a host is a shell in a network namespace, not a machine"}
}

func (c *mininet) open(ctx context.Context, r ring) (lab, error) {
	if err := c.b.missing("mnexec", "/usr/bin/python3"); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(c.b.work, "m")
	if err != nil {
		return nil, err
	}
	script := filepath.Join(dir, "ring.py")
	return &mininetLab{dir: dir, script: script, nodes: r.nodes}, os.WriteFile(script, mininetScript, 0o644)
}

// mininetLab is a script that runs; it says when the hosts are ready, and ends
// them when its input ends.
type mininetLab struct {
	dir, script string
	nodes       int

	cmd   *exec.Cmd
	stdin io.Closer
	said  tail
	pids  []int
}

func (l *mininetLab) launch(ctx context.Context) error {
	l.cmd = exec.Command("/usr/bin/python3", l.script, strconv.Itoa(l.nodes))
	l.cmd.Dir, l.cmd.Stderr = l.dir, &l.said
	stdin, err := l.cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := l.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := l.cmd.Start(); err != nil {
		return err
	}
	l.stdin = stdin
	defer context.AfterFunc(ctx, func() { _ = l.cmd.Process.Kill() })()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	words := strings.Fields(line)
	if err != nil || len(words) != l.nodes+1 || words[0] != "ready" {
		return fmt.Errorf("the script did not say that it is ready but %q (%w): %s", line, err, &l.said)
	}
	for _, word := range words[1:] {
		pid, err := strconv.Atoi(word)
		if err != nil {
			return err
		}
		l.pids = append(l.pids, pid)
	}
	return nil
}

func (l *mininetLab) processes() ([]int, error) { return l.pids, nil }

func (l *mininetLab) destroy(ctx context.Context) error {
	if l.cmd == nil || l.cmd.Process == nil {
		return nil
	}
	cmd := l.cmd
	l.cmd = nil
	if l.stdin != nil {
		l.stdin.Close()
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("the script: %w: %s", err, &l.said)
	}
	return nil
}

func (l *mininetLab) close() {
	ctx, cancel := context.WithTimeoutCause(context.Background(), commandDeadline, fmt.Errorf("the script of Mininet did not end within %v", commandDeadline))
	defer cancel()
	_ = l.destroy(ctx) // the end of the namespaces ends what this cannot
	os.RemoveAll(l.dir)
}

// tail keeps the end of what is written to it.
type tail struct{ text []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-4*maxReason):]
	return len(p), nil
}

func (t *tail) String() string { return oneLine(string(t.text)) }
