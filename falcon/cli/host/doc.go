// Package host is the command line of the host tool, falcon: what there is to do
// on a host besides the work in one lab, which is package cli's.
package host
