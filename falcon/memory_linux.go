package falcon

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
)

// pss reads the sum that the kernel makes over all mappings of a process: a page
// that n processes share counts for one n-th.
func (h *linuxHost) pss(pid int) (Bytes, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		return 0, err
	}
	return kernelSize(data, "Pss")
}

// freeMemory returns what the kernel estimates that new programs may use.
func freeMemory() (Bytes, error) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	free, err := kernelSize(data, "MemAvailable")
	if err != nil {
		return 0, fmt.Errorf("/proc/meminfo: %w", err)
	}
	return free, nil
}

// errNoSize says that a file of the kernel lacks a line that is looked for.
var errNoSize = errors.New("no such size")

// kernelSize returns the size that a line of a file of /proc gives: "Name: 12 kB".
func kernelSize(data []byte, name string) (Bytes, error) {
	for line := range bytes.Lines(data) {
		fields := bytes.Fields(line)
		if len(fields) != 3 || string(fields[0]) != name+":" || string(fields[2]) != "kB" {
			continue
		}
		kib, err := strconv.ParseUint(string(fields[1]), 10, 54)
		return Bytes(kib << 10), err
	}
	return 0, fmt.Errorf("%s: %w", name, errNoSize)
}
