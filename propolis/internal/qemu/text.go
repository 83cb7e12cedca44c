package qemu

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// escape protects the commas of a value inside a QEMU option.
func escape(value string) string { return strings.ReplaceAll(value, ",", ",,") }

// option returns head followed by key=value pairs, values escaped.
func option(head string, pairs ...string) string {
	var s strings.Builder
	s.WriteString(head)
	for i := 0; i+1 < len(pairs); i += 2 {
		s.WriteString("," + pairs[i] + "=" + escape(pairs[i+1]))
	}
	return s.String()
}

// maxIDName keeps an id made of a name, a prefix and an overlay's number
// within the 31 bytes that QEMU allows for a block node.
const maxIDName = 20

var idName = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

// objectID returns an id that QEMU accepts for the component name: readable
// where the name allows it, a digest of it otherwise.
func objectID(prefix, name string) string {
	if len(name) <= maxIDName && idName.MatchString(name) {
		return prefix + "-" + name
	}
	sum := sha256.Sum256([]byte(name))
	return prefix + "_" + hex.EncodeToString(sum[:8])
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// shellQuote quotes a word for a POSIX shell.
func shellQuote(word string) string {
	if plainWord.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// maxSocketPath is the longest path of a Unix socket, one byte less than
// Linux' sun_path.
const maxSocketPath = 107

func checkSocketPath(path string) error {
	switch {
	case path == "":
		return errors.New("the path of the socket is empty")
	case len(path) > maxSocketPath:
		return fmt.Errorf("the path %q has %d bytes; a Unix socket's has at most %d", path, len(path), maxSocketPath)
	}
	return nil
}
