//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/falcon-vm/falcon-go/internal/agent"
)

const (
	sectionCalls = "calls in a node"
	sectionCopy  = "copying 100 MB"
	sectionNode  = "a node's disk and power"
)

// copySize is how much is copied, in bytes.
const copySize = 100_000_000

// operations measures what is done to nodes that run.
func (b *bench) operations(ctx context.Context) error {
	containers := &docker{b: b}
	defer containers.stop()
	payload := filepath.Join(b.work, "payload")
	if err := writeNoise(payload); err != nil {
		return err
	}
	for _, image := range images {
		if err := b.nodeOperations(ctx, image, payload); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			b.report.fail(sectionCalls, "all, "+image, "falcon", err)
		}
	}
	if err := b.containerOperations(ctx, containers, payload); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b.report.fail(sectionCalls, "all", "Docker", err)
	}
	return nil
}

// writeNoise writes a file that nothing can make shorter.
func writeNoise(path string) error {
	data := make([]byte, copySize)
	_, _ = rand.Read(data) // never fails, by its documentation
	return os.WriteFile(path, data, 0o644)
}

// repeat notes how long something takes, in a unit of so many per second.
func (b *bench) repeat(ctx context.Context, times int, section, what, who, unit string, per float64, do func(ctx context.Context, i int) error) error {
	for i := range times {
		took, err := timed(ctx, func(ctx context.Context) error { return do(ctx, i) })
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			b.report.fail(section, what, who, err)
			return nil
		}
		value := took * per
		if unit == "MB/s" {
			value = copySize / 1e6 / took
		}
		b.report.addQuietly(section, what, who, unit, value)
	}
	return nil
}

// nodeOperations measures what falcon does to a node of an image.
func (b *bench) nodeOperations(ctx context.Context, image, payload string) error {
	f := &falcon{b: b, warm: true, lines: make(map[ring][]commandLine)}
	opened, err := f.open(ctx, ring{image, 1})
	if err != nil {
		return err
	}
	defer opened.close()
	l := opened.(*falconLab)
	if _, err := timed(ctx, l.launch); err != nil {
		return err
	}
	slog.Info("measuring operations", "who", "falcon", "image", image)
	a := l.agent(0)
	run := func(args ...string) func(context.Context, int) error {
		return func(ctx context.Context, _ int) error { _, err := l.run(ctx, args...); return err }
	}
	call := func(argv ...string) func(context.Context, int) error {
		return func(ctx context.Context, _ int) error {
			_, err := a.Exec(ctx, agent.Command{Exec: agent.Exec{Argv: argv}})
			return err
		}
	}
	back := filepath.Join(l.dir, "back")
	who := "falcon, " + image
	snapshot := func(flags ...string) func(context.Context, int) error {
		return func(ctx context.Context, i int) error {
			_, err := l.run(ctx, append([]string{"snapshot", "n0", fmt.Sprintf("bench-%s-%d-%d", image, len(flags), i)}, flags...)...)
			return err
		}
	}
	for _, m := range []struct {
		times               int
		section, what, unit string
		per                 float64
		do                  func(context.Context, int) error
	}{
		{b.plan.execs, sectionCalls, "a call that does nothing", "ms", 1000, func(ctx context.Context, _ int) error { _, err := a.Ping(ctx); return err }},
		{b.plan.execs, sectionCalls, "/bin/true", "ms", 1000, call("/bin/true")},
		{b.plan.repeat, sectionCalls, "/bin/true, 100 at once", "ms", 1000, func(ctx context.Context, _ int) error {
			return each(ctx, 100, 0, func(ctx context.Context, i int) error { return call("/bin/true")(ctx, i) })
		}},
		{max(b.plan.execs/10, 3), sectionCalls, "/bin/true by the command line", "ms", 1000, run("exec", "n0", "/bin/true")},
		{b.plan.repeat, sectionCopy, "into a node", "MB/s", 1, run("cp", payload, "n0:/tmp/payload")},
		{b.plan.repeat, sectionCopy, "out of a node", "MB/s", 1, func(ctx context.Context, i int) error {
			return errors.Join(os.RemoveAll(back), run("cp", "n0:/tmp/payload", back)(ctx, i))
		}},
		{b.plan.repeat, sectionNode, "snapshot of a node that runs", "s", 1, snapshot("--live")},
	} {
		if err := b.repeat(ctx, m.times, m.section, m.what, who, m.unit, m.per, m.do); err != nil {
			return err
		}
	}
	if err := same(payload, back); err != nil {
		b.report.fail(sectionCopy, "out of a node", who, err)
	}
	for i := range b.plan.repeat {
		for _, m := range []struct {
			what string
			do   func(context.Context, int) error
		}{
			{"hyperstop", run("hyperstop", "n0")},
			{"snapshot of a node that is off", func(ctx context.Context, _ int) error { return snapshot()(ctx, i) }},
			{"hyperstart", run("hyperstart", "n0")},
		} {
			if err := b.repeat(ctx, 1, sectionNode, m.what, who, "s", 1, m.do); err != nil {
				return err
			}
		}
	}
	return nil
}

// containerOperations measures what Docker does to a container.
func (b *bench) containerOperations(ctx context.Context, c *docker, payload string) error {
	opened, err := c.open(ctx, ring{"micro", 1})
	if err != nil {
		return err
	}
	defer opened.close()
	if _, err := timed(ctx, opened.launch); err != nil {
		return err
	}
	b.report.introduce(c.peer())
	slog.Info("measuring operations", "who", "Docker")
	run := func(args ...string) func(context.Context, int) error {
		return func(ctx context.Context, _ int) error { _, err := c.cli(ctx, args...); return err }
	}
	name := containerName(0)
	back := filepath.Join(b.work, "back")
	for _, m := range []struct {
		times               int
		section, what, unit string
		per                 float64
		do                  func(context.Context, int) error
	}{
		{max(b.plan.execs/10, 3), sectionCalls, "/bin/true by the command line", "ms", 1000, run("exec", name, "/bin/true")},
		{b.plan.repeat, sectionCopy, "into a node", "MB/s", 1, run("cp", payload, name+":/tmp/payload")},
		{b.plan.repeat, sectionCopy, "out of a node", "MB/s", 1, func(ctx context.Context, i int) error {
			return errors.Join(os.RemoveAll(back), run("cp", name+":/tmp/payload", back)(ctx, i))
		}},
		{b.plan.repeat, sectionNode, "snapshot of a node that runs", "s", 1, func(ctx context.Context, i int) error {
			_, err := c.cli(ctx, "commit", name, fmt.Sprintf("bench:%d", i))
			return err
		}},
	} {
		if err := b.repeat(ctx, m.times, m.section, m.what, "Docker", m.unit, m.per, m.do); err != nil {
			return err
		}
	}
	return same(payload, back)
}

// same compares two files.
func same(a, b string) error {
	var sums [2][sha256.Size]byte
	for i, path := range []string{a, b} {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		sums[i] = sha256.Sum256(data)
	}
	if sums[0] != sums[1] {
		return errors.New("what came back is not what was copied")
	}
	return nil
}
