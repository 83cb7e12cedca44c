package agent

import (
	"crypto/sha256"
	"strconv"
	"time"
)

// Info is what an agent says of itself.
type Info struct {
	// Version is the agent's [Version].
	Version string
	// Boot identifies the run of the guest's kernel.
	Boot string
	// PID is the agent's process.
	PID int
	// Held is whether the guest is a clone that waits for its identity.
	Held bool
	// Machine is the machine id of the identity that the guest has. Agents from
	// before version 5 do not say.
	Machine string
}

// Is reports whether the guest may be the machine with an id: its agent says so,
// or is of those that do not say.
func (i Info) Is(machine string) bool {
	n, err := strconv.Atoi(i.Version)
	return err != nil || n < tells || i.Machine == machine
}

// Encode returns the bytes of an Info.
func (i Info) Encode() []byte {
	var e encoder
	e.text(i.Version)
	e.text(i.Boot)
	e.number(uint64(i.PID))
	e.flag(i.Held)
	e.text(i.Machine)
	return e
}

// DecodeInfo reads what Encode wrote.
func DecodeInfo(p []byte) (Info, error) {
	d := decoder{rest: p}
	i := Info{Version: d.text(), Boot: d.text(), PID: int(d.number())}
	if len(d.rest) > 0 { // an older agent holds nothing
		i.Held = d.flag()
	}
	if len(d.rest) > 0 {
		i.Machine = d.text()
	}
	return i, d.err
}

// Exec is a command to run.
type Exec struct {
	// Argv is the command and its arguments. A command without a slash is
	// found in the PATH of Env, or of the agent.
	Argv []string
	// Env is added to the agent's environment.
	Env []string
	// Dir is the working directory; root's home if empty.
	Dir string
	// Stdin is whether input follows; else it is empty.
	Stdin bool
	// Merge sends stderr the way of stdout, in the order of writing.
	Merge bool
	// Timeout ends the command and its process group; 0 is none.
	Timeout time.Duration
	// ID names the command to AskInterrupt; 0 is no name.
	ID uint64
}

// Encode returns the bytes of an Exec.
func (x Exec) Encode() []byte {
	var e encoder
	e.texts(x.Argv)
	e.texts(x.Env)
	e.text(x.Dir)
	e.flag(x.Stdin)
	e.flag(x.Merge)
	e.number(uint64(x.Timeout))
	e.number(x.ID)
	return e
}

// DecodeExec reads what Encode wrote.
func DecodeExec(p []byte) (Exec, error) {
	d := decoder{rest: p}
	x := Exec{Argv: d.texts(), Env: d.texts(), Dir: d.text(), Stdin: d.flag(), Merge: d.flag(), Timeout: time.Duration(d.number())}
	if len(d.rest) > 0 { // an older host has sent none
		x.ID = d.number()
	}
	return x, d.err
}

// Exit is how a command ended.
type Exit struct {
	// Status is its exit status, Signal the number of the signal that ended
	// it; one of them is 0.
	Status, Signal int
	// TimedOut is set when its time was over.
	TimedOut bool
}

// Code is the exit status as shells have it: 128 and more for a signal.
func (x Exit) Code() int {
	if x.Signal != 0 {
		return 128 + x.Signal
	}
	return x.Status
}

// Encode returns the bytes of an Exit.
func (x Exit) Encode() []byte {
	var e encoder
	e.number(uint64(x.Status))
	e.number(uint64(x.Signal))
	e.flag(x.TimedOut)
	return e
}

// DecodeExit reads what Encode wrote.
func DecodeExit(p []byte) (Exit, error) {
	d := decoder{rest: p}
	x := Exit{Status: int(d.number()), Signal: int(d.number()), TimedOut: d.flag()}
	return x, d.err
}

// Tree names a file or folder that is copied.
type Tree struct {
	// Path is where it is in the guest, or is to be.
	Path string
	// Base is the name under which it comes where Path is a folder that
	// exists; empty means to copy into Path as it is.
	Base string
}

// Encode returns the bytes of a Tree.
func (t Tree) Encode() []byte {
	var e encoder
	e.text(t.Path)
	e.text(t.Base)
	return e
}

// DecodeTree reads what Encode wrote.
func DecodeTree(p []byte) (Tree, error) {
	d := decoder{rest: p}
	t := Tree{Path: d.text(), Base: d.text()}
	return t, d.err
}

// Prepared is a guest that is ready to be saved as a template.
type Prepared struct {
	// Interfaces are those that were up and are down now. [Client.Identify]
	// takes them up again.
	Interfaces []string
}

// Encode returns the bytes of a Prepared.
func (p Prepared) Encode() []byte { return EncodeTexts(p.Interfaces) }

// DecodePrepared reads what Encode wrote.
func DecodePrepared(p []byte) (Prepared, error) {
	d := decoder{rest: p}
	return Prepared{Interfaces: d.texts()}, d.err
}

// SeedMark returns what is in the memory of a template where each of its clones
// has a seed of its own, put there before its processors run. It is made here, so
// that no program has it in its text.
func SeedMark() []byte {
	first := sha256.Sum256([]byte("falcon: the seed of a clone"))
	second := sha256.Sum256(first[:])
	return append(first[:], second[:]...)
}

// Identity makes a guest, which may be a clone, the machine that it is to be.
// What is empty stays as it is. What is right already is not done again.
type Identity struct {
	// Entropy is credited to the kernel's random number generator, before
	// anything else is done.
	Entropy []byte
	// Time is what the clock is set to.
	Time time.Time
	// Hostname and MachineID are set, now and for later boots.
	Hostname, MachineID string
	// SSHKeys has the host keys of an SSH server made anew, where there are any,
	// each time. An RSA key beside others follows some seconds later.
	SSHKeys bool
	// Mounts are mounted, read-only.
	Mounts []Mount
}

// Mount is a folder of the host's that a guest mounts over 9p.
type Mount struct {
	// Tag is the name of the device.
	Tag string
	// Target is where in the guest it is mounted. It is made if it is missing.
	Target string
}

// Encode returns the bytes of an Identity.
func (i Identity) Encode() []byte {
	var e encoder
	e.text(string(i.Entropy))
	if i.Time.IsZero() {
		e.number(0)
	} else {
		e.number(uint64(i.Time.UnixNano()))
	}
	e.text(i.Hostname)
	e.text(i.MachineID)
	e.flag(i.SSHKeys)
	e.number(uint64(len(i.Mounts)))
	for _, m := range i.Mounts {
		e.text(m.Tag)
		e.text(m.Target)
	}
	return e
}

// DecodeIdentity reads what Encode wrote.
func DecodeIdentity(p []byte) (Identity, error) {
	d := decoder{rest: p}
	i := Identity{Entropy: []byte(d.text())}
	if ns := d.number(); ns != 0 {
		i.Time = time.Unix(0, int64(ns))
	}
	i.Hostname, i.MachineID, i.SSHKeys = d.text(), d.text(), d.flag()
	for n := d.number(); n > 0 && d.err == nil; n-- {
		i.Mounts = append(i.Mounts, Mount{Tag: d.text(), Target: d.text()})
	}
	return i, d.err
}

// PowerAction is an orderly end of the guest.
type PowerAction string

// The orderly ends.
const (
	PowerOff PowerAction = "poweroff"
	Reboot   PowerAction = "reboot"
)

// Number returns the bytes of a number.
func Number(n uint64) []byte {
	var e encoder
	e.number(n)
	return e
}

// DecodeNumber reads what Number wrote.
func DecodeNumber(p []byte) (uint64, error) {
	d := decoder{rest: p}
	n := d.number()
	return n, d.err
}
