package illumos

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
)

// MaxLinkName is the longest name of a link, in bytes (MAXLINKNAMELEN less its
// terminating zero).
const MaxLinkName = 31

var linkName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.]*[0-9]$`)

// ValidLinkName says what is wrong with the name of a link, if anything.
func ValidLinkName(name string) error {
	switch {
	case len(name) > MaxLinkName:
		return fmt.Errorf("link name %q has %d bytes, at most %d are allowed", name, len(name), MaxLinkName)
	case !linkName.MatchString(name):
		return fmt.Errorf("link name %q: want a letter, then letters, digits and '_', and a digit at the end", name)
	}
	return nil
}

// shortDigits is how much of a digest makes a short name.
const shortDigits = 10

// VNICName returns the name of the VNIC for an end of a link whose full name is
// as upstream's falcon has it, such as duo_violin_vn_vnic0: that name where it
// fits, else one with the beginning of the node's name and a digest of all,
// which is the same at every launch.
func VNICName(full, node string) string {
	if len(full) <= MaxLinkName {
		return full
	}
	// What is behind the names of topology and node: _vn_vnic0.
	tail := full[strings.LastIndex(full[:strings.LastIndexByte(full, '_')], "_"):]
	sum := sha256.Sum256([]byte(full))
	digest := "_" + hex.EncodeToString(sum[:])[:shortDigits]
	room := max(MaxLinkName-len(tail)-len(digest), 1)
	return node[:min(room, len(node))] + digest + tail
}

// SimnetName returns the name of the simnet link under a VNIC.
func SimnetName(vnic string) string {
	i := strings.LastIndex(vnic, "_vnic")
	return vnic[:i] + "_sim" + vnic[i+len("_vnic"):]
}
