//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// launchDeadline bounds a launch until all nodes have answered: 50
	// guests that boot on two cores without KVM take more than a minute.
	launchDeadline = 15 * time.Minute
	// commandDeadline bounds all else that a peer is asked to do.
	commandDeadline = 3 * time.Minute
	// startDeadline bounds the start of a daemon.
	startDeadline = 30 * time.Second
)

// ring is a topology: nodes in a ring, or a single one.
type ring struct {
	image string
	nodes int
}

func (r ring) String() string {
	if r.nodes == 1 {
		return r.image + ", 1 node"
	}
	return fmt.Sprintf("%s, ring of %d", r.image, r.nodes)
}

// nics is how many interfaces each node has.
func (r ring) nics() int {
	if r.nodes == 1 {
		return 0
	}
	return 2
}

// contender launches rings.
type contender interface {
	peer() peer
	// open prepares what is not measured.
	open(ctx context.Context, r ring) (lab, error)
}

// lab is a ring of a contender's.
type lab interface {
	// launch returns when each node has answered a call.
	launch(ctx context.Context) error
	// processes are those of the nodes, without daemons that serve all.
	processes() ([]int, error)
	// destroy removes all that launch has made.
	destroy(ctx context.Context) error
	// close removes what is still there, prepared or launched.
	close()
}

// command returns a command that is interrupted when ctx ends.
func (b *bench) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	return cmd
}

// output runs a command that has to succeed, and returns what it prints.
func (b *bench) output(ctx context.Context, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, commandDeadline, fmt.Errorf("%s did not end within %v", filepath.Base(name), commandDeadline))
	defer cancel()
	return finish(ctx, b.command(ctx, name, args...))
}

// do runs a command that has to succeed.
func (b *bench) do(ctx context.Context, name string, args ...string) error {
	_, err := b.output(ctx, name, args...)
	return err
}

// finish runs a command, and has its error say what the command said.
func finish(ctx context.Context, cmd *exec.Cmd) ([]byte, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err == nil {
		return out, nil
	}
	words := make([]string, 0, len(cmd.Args))
	for _, arg := range cmd.Args {
		words = append(words, filepath.Base(arg))
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	said := strings.TrimSpace(stderr.String())
	if said == "" {
		said = strings.TrimSpace(string(out))
	}
	return out, fmt.Errorf("%s: %w: %s", oneLine(strings.Join(words, " ")), err, said)
}

// daemon is a process that serves a peer until it is ended.
type daemon struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

// startDaemon starts a program whose output goes to a file, and waits until
// ready succeeds. Daemons tell nobody when they are: ready is tried again.
func (b *bench) startDaemon(ctx context.Context, log string, ready func(context.Context) error, name string, args ...string) (*daemon, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	d := &daemon{cmd: exec.Command(name, args...), log: log, done: make(chan struct{})}
	d.cmd.Stdout, d.cmd.Stderr = file, file
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { _ = d.cmd.Wait(); close(d.done) }()
	ctx, cancel := context.WithTimeoutCause(ctx, startDeadline, fmt.Errorf("it was not ready within %v", startDeadline))
	defer cancel()
	for {
		last := ready(ctx)
		if last == nil {
			return d, nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
			continue
		case <-d.done:
			err = errors.New("it ended at once")
		case <-ctx.Done():
			err = errors.Join(context.Cause(ctx), last)
		}
		d.stop()
		return nil, fmt.Errorf("starting %s: %w; it said: %s", name, err, d.said())
	}
}

// said is the end of what the daemon wrote.
func (d *daemon) said() string {
	text := strings.TrimSpace(readFile(d.log))
	return oneLine(text[max(0, len(text)-maxReason):])
}

// stop ends the daemon, in the end by force.
func (d *daemon) stop() {
	_ = d.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-d.done:
	case <-time.After(20 * time.Second):
		slog.Warn("a daemon does not end; killing it", "daemon", d.cmd.Path)
		_ = d.cmd.Process.Kill()
		<-d.done
	}
}

// each does something for the numbers from 0, limit at once, all for 0. The
// first error ends the rest.
func each(ctx context.Context, n, limit int, do func(ctx context.Context, i int) error) error {
	if limit <= 0 || limit > n {
		limit = n
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, max(limit, 1))
	var all sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			if ctx.Err() != nil {
				return
			}
			if err := do(ctx, i); err != nil {
				cancel(fmt.Errorf("node n%d: %w", i, err))
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// missing is the reason why a program could not be installed, nil where it is
// there.
func (b *bench) missing(programs ...string) error {
	for _, name := range programs {
		if _, err := exec.LookPath(name); err == nil {
			continue
		}
		if why := readFile(filepath.Join(b.work, "missing", name)); why != "" {
			return errors.New(strings.TrimSpace(why))
		}
		return fmt.Errorf("there is no %s on this machine", name)
	}
	return nil
}

// discard reads a console, so that its guest is not held up.
func discard(r io.Reader) { go func() { _, _ = io.Copy(io.Discard, r) }() }
