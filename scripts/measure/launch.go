//go:build linux

package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"
)

const (
	sectionLaunch  = "launch until every node has run a command"
	sectionBefore  = "the same launches before the command in each node"
	sectionRatio   = "launches compared: ratio within a round"
	sectionIdle    = "idle nodes"
	sectionDestroy = "destroy"
)

// settle is how long guests are left alone before they count as idle.
const settle = 3 * time.Second

// launches measures launches, idle nodes and destruction.
func (b *bench) launches(ctx context.Context) error {
	cold := &falcon{b: b, lines: make(map[ring][]commandLine)}
	warm := &falcon{b: b, warm: true, lines: make(map[ring][]commandLine)}
	domains := &libvirt{b: b}
	containers := &docker{b: b}
	defer domains.stop()
	defer containers.stop()
	machines := []contender{cold, &bare{b, cold}, domains, warm, &bare{b, warm}}
	for _, image := range images {
		contenders := slices.Clone(machines)
		if image == "micro" {
			contenders = append(contenders, &mininet{b}, containers)
		}
		for _, n := range b.plan.rings[image] {
			r := ring{image, n}
			for range b.plan.rounds {
				if err := b.round(ctx, r, contenders); err != nil {
					return err
				}
			}
		}
	}
	b.stated()
	return nil
}

// round has each contender launch a ring, one after the other.
func (b *bench) round(ctx context.Context, r ring, contenders []contender) error {
	took := make(map[string]launchTimes)
	for _, c := range contenders {
		slog.Info("launching", "ring", r, "who", c.peer().Name)
		times, err := b.once(ctx, c, r)
		p := c.peer() // some know themselves only once they run
		b.report.introduce(p)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			b.fail(r, p.Name, err)
			continue
		}
		took[p.Name] = times
	}
	const ours, floor = "falcon, warm", "bare QEMU, warm (the floor)"
	for _, pair := range [][2]string{{ours, floor}, {"falcon, cold", ours}, {"falcon, cold", "bare QEMU, cold"}} {
		if x, y := took[pair[0]].ran, took[pair[1]].ran; x > 0 && y > 0 {
			b.report.add(sectionRatio, r.String(), pair[0]+" / "+pair[1], "×", x/y)
		}
	}
	if x, y := took[ours].before, took[floor].before; x > 0 && y > 0 {
		b.report.add(sectionRatio, r.String(), ours+" / "+floor+", both before the command in each node", "×", x/y)
	}
	return nil
}

// launchTimes are those of one launch, in seconds.
type launchTimes struct {
	ran    float64 // each node has run a command
	before float64 // as far as it was before those commands; 0 if that is not known
}

// fail notes that a ring could not be launched, wherever figures of it were to be.
func (b *bench) fail(r ring, who string, err error) {
	b.report.fail(sectionLaunch, r.String(), who, err)
	if b.plan.idleAt[r.image] == r.nodes {
		b.report.fail(sectionIdle, whatMemory(r), who, err)
		b.report.fail(sectionIdle, whatProcessor(r), who, err)
	}
	if slices.Contains(b.plan.destroyed, r.nodes) {
		b.report.fail(sectionDestroy, r.String(), who, err)
	}
}

func whatMemory(r ring) string    { return r.String() + ", memory (PSS) of a node" }
func whatProcessor(r ring) string { return r.String() + ", processor of a node" }

// once has a contender launch a ring, and notes all that is to be known of it.
func (b *bench) once(ctx context.Context, c contender, r ring) (times launchTimes, err error) {
	l, err := c.open(ctx, r)
	if err != nil {
		return times, err
	}
	defer l.close()
	who := c.peer().Name
	if times.ran, err = timed(ctx, l.launch); err != nil {
		return times, err
	}
	before := ""
	switch l := l.(type) {
	case *falconLab:
		times.before, before = l.returned, "the command has ended"
		if err := l.remember(ctx); err != nil { // a clone that has booted instead does not count
			return times, err
		}
	case *bareLab:
		times.before, before = l.answered, "every agent has answered"
	}
	b.report.add(sectionLaunch, r.String(), who, "s", times.ran)
	if before != "" {
		b.report.add(sectionBefore, r.String(), who+": "+before, "s", times.before)
	}
	if b.plan.idleAt[r.image] == r.nodes {
		if err := b.idleNodes(ctx, l, r, who); err != nil {
			b.report.fail(sectionIdle, whatMemory(r), who, err)
			b.report.fail(sectionIdle, whatProcessor(r), who, err)
		}
	}
	gone, err := timed(ctx, l.destroy)
	if err != nil {
		b.report.fail(sectionDestroy, r.String(), who, err)
	} else if slices.Contains(b.plan.destroyed, r.nodes) {
		b.report.add(sectionDestroy, r.String(), who, "s", gone)
	}
	return times, nil
}

// idleNodes looks at what nodes need when nobody asks anything of them.
func (b *bench) idleNodes(ctx context.Context, l lab, r ring, who string) error {
	pids, err := l.processes()
	if err != nil {
		return err
	}
	if len(pids) == 0 {
		return errors.New("its nodes have no processes")
	}
	if err := pause(ctx, settle); err != nil {
		return err
	}
	percent, err := idle(ctx, pids, b.plan.idle)
	if err != nil {
		return err
	}
	mib, err := proportionalMiB(pids)
	if err != nil {
		return err
	}
	b.report.add(sectionIdle, whatMemory(r), who, "MiB", mib/float64(r.nodes))
	b.report.add(sectionIdle, whatProcessor(r), who, "%", percent/float64(r.nodes))
	return nil
}

// stated adds what was not measured in this run, and is known from another.
func (b *bench) stated() {
	const remark = "stated, not of this run: containers, on the machine that this benchmark was written on; containerlab does not run there without changes"
	launch, destroy := map[int]string{10: "2.8 s", 30: "7.1 s", 50: "11.6 s"}, map[int]string{10: "1.2 s", 30: "2.8 s", 50: "4.7 s"}
	for _, n := range []int{10, 30, 50} {
		what := ring{"micro", n}.String()
		if !slices.Contains(b.plan.rings["micro"], n) {
			continue
		}
		b.report.Recorded = append(b.report.Recorded,
			recordOnly{Section: sectionLaunch, What: what, Who: "containerlab 0.79", Value: launch[n], Remark: remark},
			recordOnly{Section: sectionDestroy, What: what, Who: "containerlab 0.79", Value: destroy[n], Remark: remark})
	}
}
