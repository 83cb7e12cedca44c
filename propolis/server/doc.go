// Package server is a propolis-server for Linux: it serves Propolis' HTTP API,
// versions 1.0.0 to 6.0.0, and runs each instance as a QEMU process.
//
// A server has one instance at a time. It outlives it: after a guest has
// powered off, a new instance may be made. An instance is driven by one
// goroutine (instance.go), which takes the guest's events and the clients'
// requests one by one and publishes the states that follow (states.go). The
// guest's serial port is shared by any number of clients (console.go).
//
// # Differences from Propolis
//
// A request to stop presses the ACPI power button first and stops the machine
// hard only when the guest has not powered off in time. The record of a state
// Failed, and the error of a failed creation, say why. The serial history
// stays readable after an instance has ended, until the next is made. Any
// number of 9p shares is served. Component keys are returned as they were
// given. A SoftNPU ASIC runs P4 source, which it gets by its management channel:
// soft_npu_p9 takes its place on PCI, and nothing is there. What this host cannot
// serve (Crucible, migration, and so on) is refused by name.
//
// Network backends may name more than a host device; package qemu has the
// forms. The screen is served on a Unix socket, or on a TCP port that asks for a
// password. Some paths are ours:
//
//	PUT /falcon/disk/{id}/overlay  {"path": "new.qcow2"}
//
// makes the running disk of the backend component id write to an existing, empty
// qcow2 file, whose backing file is the disk's present one, while the guest is
// paused for a moment. The file is at path, or it waits there with ".next"
// appended to take the place of the file at path. It answers 204.
//
//	PUT /falcon/template
//
// stops an instance of a server that was started with --make-template and keeps
// it as a template in the folder of --template, for other servers with that flag
// to make their instances of: those go on where this one stopped. It answers
// 204. Before, the guest must have let go of its network interfaces.
//
//	GET /falcon/machine?gen=N
//
// answers a [propolis.MachineStatus] as soon as its generation is N or later: what
// the machine does that nobody asked for (events.go), for which the states of an
// instance have no place. A machine that waits for room on the host goes on by
// itself; any that stands still does by
//
//	PUT /falcon/machine/resume
//
// which answers 204, and 409 as long as there is no room for it.
package server
