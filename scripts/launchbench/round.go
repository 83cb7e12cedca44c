package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// promptDeadline bounds the boot of guests that were started by hand.
const promptDeadline = 5 * time.Minute

// prompt is what a micro guest's shell prints when it is ready.
var prompt = regexp.MustCompile(`\[micro [^\]\r\n]*\]# $`)

// round launches once by falcon and once by hand.
func round(ctx context.Context, programs string, nodes int) (ours, byHand time.Duration, err error) {
	dir, err := os.MkdirTemp("", "launchbench-")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir)
	l := lab{ctx: ctx, dir: dir, program: filepath.Join(programs, "ring"), flags: []string{"-n", fmt.Sprint(nodes)}}
	if nodes == 1 {
		l.program, l.flags = filepath.Join(programs, "solo"), nil
	}
	defer func() {
		l.ctx = context.WithoutCancel(ctx)
		err = errors.Join(err, l.run("destroy"))
	}()
	begun := time.Now()
	if err := l.run(append(l.flags, "launch")...); err != nil {
		return 0, 0, err
	}
	ours = time.Since(begun)
	lines, err := l.commandLines()
	if err != nil {
		return 0, 0, err
	}
	// Links and their devices stay for the guests that are started by hand.
	if err := l.run("hyperstop", "--all"); err != nil {
		return 0, 0, err
	}
	byHand, err = runByHand(ctx, lines)
	return ours, byHand, err
}

// lab is a topology program with its working directory.
type lab struct {
	ctx          context.Context
	dir, program string
	flags        []string
}

func (l *lab) output(args ...string) ([]byte, error) {
	cmd := exec.CommandContext(l.ctx, l.program, args...)
	cmd.Dir = l.dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, &said)
	}
	return out, nil
}

func (l *lab) run(args ...string) error {
	_, err := l.output(args...)
	return err
}

// commandLines returns, for each node, the shell command that its server's log
// gives for running its QEMU by hand, on a fresh disk.
func (l *lab) commandLines() ([]string, error) {
	out, err := l.output("info", "--json")
	if err != nil {
		return nil, err
	}
	var info struct {
		Nodes []struct{ Name, Disk string }
	}
	if err := json.Unmarshal(out, &info); err != nil {
		return nil, err
	}
	var lines []string
	for _, n := range info.Nodes {
		log, err := os.ReadFile(filepath.Join(l.dir, ".falcon", n.Name+".out"))
		if err != nil {
			return nil, err
		}
		line, err := byHand(log)
		if err != nil {
			return nil, fmt.Errorf("node %s: %w", n.Name, err)
		}
		fresh := filepath.Join(l.dir, n.Name+".qcow2")
		if err := l.freshDisk(n.Disk, fresh); err != nil {
			return nil, err
		}
		lines = append(lines, strings.ReplaceAll(line, n.Disk, fresh))
	}
	return lines, nil
}

// byHand finds the command line in the log of a node's server: the last one,
// should the node have been started more than once.
func byHand(log []byte) (string, error) {
	found := ""
	for line := range bytes.Lines(log) {
		var entry struct {
			ByHand string `json:"by_hand"`
		}
		if json.Unmarshal(line, &entry) == nil && entry.ByHand != "" {
			found = entry.ByHand
		}
	}
	if found == "" {
		return "", errors.New("its log has no command line of QEMU")
	}
	return found, nil
}

// freshDisk makes a disk on the same image as another one.
func (l *lab) freshDisk(like, path string) error {
	out, err := exec.CommandContext(l.ctx, "qemu-img", "info", "-U", "--output=json", like).Output()
	if err != nil {
		return fmt.Errorf("qemu-img info %s: %w", like, err)
	}
	var info struct {
		Base string `json:"full-backing-filename"`
		Size int64  `json:"virtual-size"`
	}
	if err := json.Unmarshal(out, &info); err != nil {
		return err
	}
	out, err = exec.CommandContext(l.ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", info.Base,
		path, fmt.Sprint(info.Size)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("qemu-img create %s: %w: %s", path, err, out)
	}
	return nil
}

// runByHand starts all guests and returns after how long the last has printed
// its prompt. Then it ends them.
func runByHand(ctx context.Context, lines []string) (time.Duration, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, promptDeadline,
		fmt.Errorf("no prompt from all guests within %v", promptDeadline))
	prompts := make(chan error, len(lines))
	begun := time.Now()
	var wait []func() error
	for _, line := range lines {
		// Cancelling kills QEMU itself: the shell and nsenter become it.
		cmd := exec.CommandContext(ctx, "sh", "-c", "exec "+line)
		stdin, err := cmd.StdinPipe() // must stay open: the console is there
		if err == nil {
			var stdout io.Reader
			if stdout, err = cmd.StdoutPipe(); err == nil {
				if err = cmd.Start(); err == nil {
					wait = append(wait, func() error { defer stdin.Close(); return cmd.Wait() })
					go func() { prompts <- awaitPrompt(stdout) }()
				}
			}
		}
		if err != nil {
			prompts <- err
		}
	}
	var err error
	for range lines {
		err = errors.Join(err, <-prompts)
	}
	took := time.Since(begun)
	if ctx.Err() != nil {
		err = errors.Join(err, context.Cause(ctx))
	}
	cancel()
	for _, w := range wait {
		_ = w() // killed
	}
	return took, err
}

// awaitPrompt reads a console until its last line is a prompt.
func awaitPrompt(console io.Reader) error {
	in := bufio.NewReader(console)
	var line []byte
	for {
		b, err := in.ReadByte()
		if err != nil {
			return fmt.Errorf("a guest started by hand ended before its prompt (%w): %q", err, line)
		}
		if line = append(line, b); b == '\n' {
			line = line[:0]
		}
		if in.Buffered() == 0 && prompt.Match(line) {
			return nil
		}
	}
}

func median[T time.Duration | float64](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// ratio is the median of the rounds' ratios. The two launches of a round follow
// each other, so that what slows the machine for a while slows both.
func ratio(ours, byHand []time.Duration) float64 {
	ratios := make([]float64, len(ours))
	for i := range ours {
		ratios[i] = ours[i].Seconds() / byHand[i].Seconds()
	}
	return median(ratios)
}

// spread shows a median with the least and the greatest value.
func spread(d []time.Duration) string {
	return fmt.Sprintf("%.2f s (%.2f to %.2f)", median(d).Seconds(), slices.Min(d).Seconds(), slices.Max(d).Seconds())
}
