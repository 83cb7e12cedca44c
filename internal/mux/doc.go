// Package mux carries many streams over one port that joins a host and a guest,
// such as a virtio-serial port.
//
// Such a port has no connections that both ends see begin and end: a host may go
// in the middle of a frame and another one begin in what the guest takes for the
// rest of it, a guest may be reset, a program that writes may be killed. So a
// frame begins with a mark and a checked header and ends with a copy of the
// check; whoever finds that missing looks for the next mark in what it has read.
// Whoever begins, first sends padding as long as the longest frame, which
// completes every frame that was cut off.
//
// The host begins a session with hello, which has a random number, the epoch, in
// its header; the guest ends all streams of the session before and answers
// welcome. From then on only frames of that epoch count, so that nothing that is
// left of an earlier session, and no frame inside somebody's data, is taken for
// one of this. A guest that has just started says announce, and the host then
// begins a new session.
//
// In a session the host opens streams. Each direction of a stream has a window
// of its own: a stream that nobody reads holds up nobody but its writer.
package mux
