// Package propolis speaks the Propolis HTTP API: the types of its requests and
// answers, a client for it, and the serial console stream.
//
// Propolis is the user-space half of Oxide's virtual machine monitor. One
// server process runs one virtual machine. The client here drives the real
// propolis-server on illumos and the one of package server on Linux alike.
package propolis
