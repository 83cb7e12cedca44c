//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTicks is the unit of processor time in /proc: USER_HZ, which is 100 on
// all of Linux' architectures that falcon runs on.
const clockTicks = 100

// proportionalMiB is the memory of processes, what is shared among n processes
// being counted as one n-th for each (PSS).
func proportionalMiB(pids []int) (float64, error) {
	var sum float64
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		_, rest, found := strings.Cut(string(text), "\nPss:")
		var kib float64
		if _, err := fmt.Sscan(rest, &kib); !found || err != nil {
			return 0, fmt.Errorf("/proc/%d/smaps_rollup has no Pss", pid)
		}
		sum += kib / 1024
	}
	return sum, nil
}

// processorTime is the time that processes have used, in seconds.
func processorTime(pids []int) (float64, error) {
	var sum float64
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		// The name, in parentheses, may hold anything; utime and stime are
		// fields 14 and 15.
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if len(fields) < 13 {
			return 0, fmt.Errorf("/proc/%d/stat: %q", pid, text)
		}
		for _, field := range fields[11:13] {
			ticks, err := strconv.ParseFloat(field, 64)
			if err != nil {
				return 0, err
			}
			sum += ticks / clockTicks
		}
	}
	return sum, nil
}

// idle is what processes use while nobody asks anything of them, as percent of
// one processor.
func idle(ctx context.Context, pids []int, during time.Duration) (percent float64, err error) {
	before, err := processorTime(pids)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	if err := pause(ctx, during); err != nil {
		return 0, err
	}
	after, err := processorTime(pids)
	if err != nil {
		return 0, err
	}
	return (after - before) / time.Since(begun).Seconds() * 100, nil
}

// pause lets time pass: that of a measurement, or that of guests to come to rest.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
