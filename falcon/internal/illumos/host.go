package illumos

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrNoDefaultRoute says that the host has no default route.
var ErrNoDefaultRoute = errors.New("the host has no default route")

var routeGet = Command{"route", "-n", "get", "default"}

// DefaultRouteLink returns the link that carries the default route.
func DefaultRouteLink(ctx context.Context, r Runner) (string, error) {
	out, err := r.Run(ctx, routeGet)
	if says(err, "not in table", "no such process", "network is unreachable") {
		return "", ErrNoDefaultRoute
	}
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(key) != "interface" {
			continue
		}
		// A logical interface, igb0:1, is on the link igb0.
		if link, _, _ := strings.Cut(strings.TrimSpace(value), ":"); link != "" {
			return link, nil
		}
	}
	return "", fmt.Errorf("%s: its answer names no interface: %q", routeGet, strings.TrimSpace(out))
}

var showIf = Command{"ipadm", "show-if", "-p", "-o", "ifname"}

// IPInterfaces returns the names of the links on which the host speaks IP.
func IPInterfaces(ctx context.Context, r Runner) (map[string]bool, error) {
	out, err := r.Run(ctx, showIf)
	if err != nil {
		return nil, err
	}
	rows, err := table(showIf, out, 1)
	interfaces := make(map[string]bool)
	for _, row := range rows {
		interfaces[row[0]] = true
	}
	return interfaces, err
}

var kstatMemory = Command{"kstat", "-p", "unix:0:system_pages:availrmem"}

// FreePages returns how many pages of memory can be locked, as those of guests
// are.
func FreePages(ctx context.Context, r Runner) (uint64, error) {
	out, err := r.Run(ctx, kstatMemory)
	if err != nil {
		return 0, err
	}
	_, value, _ := strings.Cut(strings.TrimSpace(out), "\t")
	pages, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: cannot read %q", kstatMemory, out)
	}
	return pages, nil
}

// DestroyVMCommand removes what the kernel keeps of a virtual machine: a server
// that is killed leaves it, and it holds the guest's memory.
func DestroyVMCommand(uuid string) Command {
	return Command{"bhyvectl", "--destroy", "--vm=" + uuid}
}

// DestroyVM removes a virtual machine; that there is none is no error.
func DestroyVM(ctx context.Context, r Runner, uuid string) error {
	_, err := r.Run(ctx, DestroyVMCommand(uuid))
	if says(err, "is not created", "no such file or directory") {
		return nil
	}
	return err
}
