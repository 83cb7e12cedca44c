//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine is where and when the figures are from.
type machine struct {
	Begun        time.Time `json:"begun"`
	Took         string    `json:"took"`
	Revision     string    `json:"revision"`
	Plan         string    `json:"plan"`
	Processors   int       `json:"processors"`
	Processor    string    `json:"processor"`
	MemoryGiB    float64   `json:"memory_gib"`
	Kernel       string    `json:"kernel"`
	QEMU         string    `json:"qemu"`
	Acceleration string    `json:"acceleration"`
	Load         string    `json:"load_before"`
}

func (b *bench) describe(ctx context.Context) machine {
	var name unix.Utsname
	_ = unix.Uname(&name) // it cannot fail with room for the answer
	m := machine{
		Begun: time.Now().UTC(), Processors: runtime.NumCPU(),
		Kernel:   "Linux " + unix.ByteSliceToString(name.Release[:]),
		Plan:     fmt.Sprintf("Rounds of launches: %d; of links and operations: %d. In each round contenders take turns.", b.plan.rounds, b.plan.repeat),
		Revision: strings.TrimSpace(readFile(filepath.Join(b.work, "revision"))),
		Load:     strings.Join(strings.Fields(readFile("/proc/loadavg"))[:3], " "),
	}
	if found := regexp.MustCompile(`(?m)^model name\s*: (.*)$`).FindStringSubmatch(readFile("/proc/cpuinfo")); found != nil {
		m.Processor = found[1]
	}
	var kib float64
	_, _ = fmt.Sscanf(readFile("/proc/meminfo"), "MemTotal: %f", &kib)
	m.MemoryGiB = kib / (1 << 20)
	m.QEMU = firstLine(b.version(ctx, "qemu-system-x86_64", "--version"))
	m.Acceleration = "an accelerator that falcon doctor does not name"
	doctor, _ := b.command(ctx, filepath.Join(b.work, "falcon"), "doctor").Output() // what is missing is no matter here
	if found := regexp.MustCompile(`(?m)^\s*\S+\s+acceleration\s+(.*)$`).FindSubmatch(doctor); found != nil {
		m.Acceleration = oneLine(string(found[1]))
	}
	return m
}

// version is what a program says of its version, or nothing.
func (b *bench) version(ctx context.Context, name string, args ...string) string {
	out, err := b.command(ctx, name, args...).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// packageVersion is the version of a Debian package.
func (b *bench) packageVersion(ctx context.Context, name string) string {
	return b.version(ctx, "dpkg-query", "--showformat=${Version}", "--show", name)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// readFile returns the content of a file, nothing where there is none.
func readFile(path string) string {
	text, _ := os.ReadFile(path)
	return string(text)
}
