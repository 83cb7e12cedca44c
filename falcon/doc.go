// Package falcon turns a network of virtual machines into a Go program.
//
// A program declares a [Topology]: nodes, the links between them, links to
// the host's own network, and folders shared with the guests. Declaring does
// nothing else: mistakes are kept with the topology, all of them, and come
// back from [Topology.Validate] and from everything that acts.
//
// From there it goes one way. [Topology.Plan] works out what must exist:
// devices, MAC addresses, disks and one Propolis instance for each node.
// [Topology.Launch] makes it so and can be called again: what stands is left
// alone. [Topology.Destroy] removes it, also after a crash, because every
// object is written to a journal before it is made.
//
// A topology lives in a state folder ([Topology.Dir], ".falcon" by default).
// Unless it is [Topology.Persistent], it is destroyed when the context of
// Launch is cancelled or the program ends, however it ends. Package
// falcon/cli makes a command line of a topology, and makes it persistent.
package falcon
