//go:build linux

// Command measure measures falcon beside its peers: scripts/bench runs it in
// namespaces of its own, in which it may leave anything behind.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/falcon-vm/falcon-go/internal/agent"
)

// bench is one run of the benchmark.
type bench struct {
	work   string // folder of the run: programs, images, labs
	cgroup string // under which peers make theirs
	plan   plan
	report *report
	// images has each image's template made, by number of NICs.
	templates map[string]bool
}

// plan is how much is measured.
type plan struct {
	rounds    int              // how often each launch is measured
	rings     map[string][]int // numbers of nodes by image
	destroyed []int            // rings whose destruction is reported
	idleAt    map[string]int   // size of the rings whose idle nodes are looked at
	idle      time.Duration    // for how long
	transfer  time.Duration    // of iperf3
	repeat    int              // of links' figures and operations
	execs     int              // calls in a row
	// inFlight is how many bare machines start at once, 0 for all.
	inFlight int
}

func full() plan {
	return plan{
		rounds:    3,
		rings:     map[string][]int{"micro": {1, 2, 10, 30, 50}, "debian-12": {1, 2, 10, 16}},
		destroyed: []int{10, 30, 50},
		idleAt:    map[string]int{"micro": 10, "debian-12": 10},
		idle:      10 * time.Second,
		transfer:  3 * time.Second,
		repeat:    3,
		execs:     200,
	}
}

func quick() plan {
	return plan{
		rounds:    1,
		rings:     map[string][]int{"micro": {1, 2, 10}, "debian-12": {1, 2}},
		destroyed: []int{10},
		idleAt:    map[string]int{"micro": 10, "debian-12": 2},
		idle:      3 * time.Second,
		transfer:  time.Second,
		repeat:    1,
		execs:     50,
	}
}

// startsPerCore is how many nodes falcon starts at once for each core, to begin
// with.
const startsPerCore = 16

// images are the images in the order in which they are measured.
var images = []string{"micro", "debian-12"}

// memory is what nodes of an image get, in MiB.
var memory = map[string]int{"micro": 128, "debian-12": 256}

func main() {
	work := flag.String("work", "", "`folder` with the programs and images")
	cgroup := flag.String("cgroup", "falcon-bench", "`name` of the control group of those who make some")
	isQuick := flag.Bool("quick", false, "small labs, each figure once")
	only := flag.String("only", "", "comma-separated `sections`: launch, links, operations")
	inFlight := flag.Int("in-flight", startsPerCore*runtime.NumCPU(), "bare machines that start at once, 0 for all")
	rings := flag.String("rings", "", "other rings than usual, as `micro=1,10;debian-12=2`")
	agentVersion := flag.Bool("agent", false, "print the version of the guest agent that images must have, and nothing else")
	flag.Parse()
	if *agentVersion {
		fmt.Println(agent.Version)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p := full()
	if *isQuick {
		p = quick()
	}
	p.inFlight = *inFlight
	b := &bench{work: *work, cgroup: *cgroup, plan: p, report: new(report), templates: make(map[string]bool)}
	err := b.setRings(*rings)
	if err == nil {
		err = b.run(ctx, *only)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "measure:", err)
		os.Exit(1)
	}
}

// setRings changes which rings are launched.
func (b *bench) setRings(text string) error {
	if text == "" {
		return nil
	}
	b.plan.rings = make(map[string][]int)
	for part := range strings.SplitSeq(text, ";") {
		image, list, _ := strings.Cut(part, "=")
		for word := range strings.SplitSeq(list, ",") {
			var n int
			if _, err := fmt.Sscan(word, &n); err != nil || n < 1 || memory[image] == 0 {
				return fmt.Errorf("-rings %q: want IMAGE=N,N;IMAGE=N", text)
			}
			b.plan.rings[image] = append(b.plan.rings[image], n)
		}
		b.plan.idleAt[image] = slices.Max(b.plan.rings[image])
	}
	return nil
}

// run measures the sections that are asked for and writes the report after each.
func (b *bench) run(ctx context.Context, only string) error {
	sections := []struct {
		name string
		run  func(context.Context) error
	}{{"launch", b.launches}, {"links", b.links}, {"operations", b.operations}}
	wanted := strings.Split(only, ",")
	for _, name := range wanted {
		if only != "" && !slices.ContainsFunc(sections, func(s struct {
			name string
			run  func(context.Context) error
		}) bool {
			return s.name == name
		}) {
			return fmt.Errorf("there is no section %q", name)
		}
	}
	b.report.Machine = b.describe(ctx)
	for _, s := range sections {
		if only != "" && !slices.Contains(wanted, s.name) {
			continue
		}
		slog.Info("measuring", "section", s.name)
		if err := s.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		b.report.Machine.Took = time.Since(b.report.Machine.Begun).Round(time.Second).String()
		if err := b.report.write(filepath.Join(b.work, "out")); err != nil {
			return err
		}
	}
	return nil
}
