// Package agent is how a host has things done in a guest in which falcon-agent
// runs: the calls as they are on the wire, and the [Client] that makes them. The
// guest's side is package guest.
//
// Each call is a stream of its own ([mux.Stream], or a connection to a relay of
// them) in which messages go both ways: the first one asks, the last one answers.
// Closing the stream cancels the call, and what it started in the guest ends.
package agent

import "strconv"

// Port is the name of the agent's virtio-serial port.
const Port = "dev.falcon.agent.0"

// Version is the version of the agent. It changes with what the agent can do.
const Version = "5"

// oldest is the oldest version of an agent that does what every host asks for.
const oldest = 2

// holds is the oldest version of an agent that can hold a guest, see [Client.Hold].
const holds = 4

// tells is the oldest version of an agent that says whose identity its guest has.
const tells = 5

// Holds reports whether an agent of a version can be that of a template.
func Holds(version string) bool {
	n, err := strconv.Atoi(version)
	return err == nil && n >= holds
}

// Fits reports whether an agent of a version does what every host asks for. What
// it may lack beyond that, a call's UnknownCallError tells.
func Fits(version string) bool {
	n, err := strconv.Atoi(version)
	return err == nil && n >= oldest
}
