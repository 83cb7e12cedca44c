package softnpu

import (
	_ "embed"
)

// The built-in program.
var (
	//go:embed program/sidecar.p4
	sidecarP4 string
	//go:embed program/headers.p4
	headersP4 string
	//go:embed program/parser.p4
	parserP4 string
)

// BuiltIn is the program of an ASIC that is given no other: a router for IPv4
// and IPv6 with VLANs, NAT by Geneve, proxy ARP and a port for the CPU, whose
// tables are those of sidecar-lite.
func BuiltIn() Source {
	return Source{Main: "sidecar.p4", Files: map[string]string{
		"sidecar.p4": sidecarP4, "headers.p4": headersP4, "parser.p4": parserP4,
	}}
}
