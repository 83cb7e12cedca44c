package server

import (
	"context"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/falcon-vm/falcon-go/propolis/internal/qemu"
)

// Machine is a virtual machine as a server sees it. Those of [Main] are QEMU
// processes; [Serve] takes any.
type Machine interface {
	// Console is COM1. Its Read returns io.EOF when the machine is gone.
	Console() io.ReadWriteCloser
	// Run starts the stopped vCPUs.
	Run(ctx context.Context) error
	// Reset is a hard reset.
	Reset(ctx context.Context) error
	// PowerDown presses the ACPI power button and returns at once.
	PowerDown(ctx context.Context) error
	// SwitchOverlay makes the disk of that backend write to another file.
	SwitchOverlay(ctx context.Context, disk, path string) error
	// Save stops the machine and keeps it as the template that it was made
	// to be.
	Save(ctx context.Context) error
	NMI(ctx context.Context) error
	// Events is closed after the Exited event.
	Events() <-chan Event
	// Close quits the machine, kills it when ctx ends, and returns when it
	// is gone. It may be called again.
	Close(ctx context.Context) error
	PID() int
}

// Event is a change of a machine that the server did not ask for, or that
// follows from what it asked.
type Event = qemu.Event

// The kinds of events.
const (
	Reset    = qemu.Reset
	Shutdown = qemu.Shutdown
	Exited   = qemu.Exited
	Panicked = qemu.Panicked
	// What the machine does that nobody asked for.
	Paused    = qemu.Paused
	Resumed   = qemu.Resumed
	DiskError = qemu.DiskError
	Watchdog  = qemu.Watchdog
)

// StartFunc creates a machine with stopped vCPUs.
type StartFunc func(context.Context, propolis.InstanceProperties, propolis.InstanceSpec) (Machine, error)

// Options are what a server needs beside a listener.
type Options struct {
	// Start makes the machine of each instance.
	Start StartFunc
	// StopGrace is how long a guest may take to power off when it is stopped.
	StopGrace time.Duration
	// Log gets the server's log, Stderr a line for each instance that fails.
	Log, Stderr io.Writer
	// Level is the least that is logged; the zero Level is Info.
	Level slog.Level
}

// Serve serves the API on l until ctx ends. It ends the instance, and closes l,
// before it returns.
func Serve(ctx context.Context, l net.Listener, o Options) error {
	s := &server{log: newLogger(o.Log, o.Level), stderr: o.Stderr, start: o.Start, grace: o.StopGrace}
	return s.serve(ctx, l)
}
