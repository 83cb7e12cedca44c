// Package cli makes a command line of a topology: launch, destroy, exec, serial
// and the rest, and the program's own commands beside them.
//
// The main of a topology program declares and hands over:
//
//	topo := falcon.New("duo")
//	…
//	cli.Main(topo)
//
// [Command] gives the command tree instead, to add to, and [Run] runs it. A
// program whose topology depends on flags describes itself as a [Program].
//
// # Exit statuses
//
// A command ends with status 0 when it did what it says, with 2 when it was
// called wrongly, with 130 when it was interrupted, and with 1 when it failed.
// exec ends with the status of the guest's command, and with 125 where falcon
// itself failed. Commands of a program's own choose theirs with [ExitError].
//
// # Flags of the topology
//
// What a topology was launched with is kept in its state folder until it is
// destroyed, and later commands declare the topology from there. A flag that is
// given again has to say the same, but for launch, where it changes the
// declaration: the launch then adds to what stands, and refuses what it could
// not add without losing something.
package cli
