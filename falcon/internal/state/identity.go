package state

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"time"
)

// identityFile is the document of a folder's identity. No file of a node has
// that name.
const identityFile = "identity.json"

// identityVersion is the version of that document.
const identityVersion = 1

// Identity is what a topology is, wherever its folder goes: all that it makes on
// the host carries the ID.
type Identity struct {
	Version int `json:"version"`
	// ID is eight random hexadecimal digits.
	ID       string `json:"id"`
	Topology string `json:"topology"`
	// Home is the FALCON_HOME that it was launched with, Host and Dataset
	// where its nodes and disks are.
	Home    string    `json:"home"`
	Host    string    `json:"host"`
	Dataset string    `json:"dataset,omitempty"`
	Created time.Time `json:"created"`
}

// complete fills in what every identity has.
func (i Identity) complete() Identity {
	i.Version = identityVersion
	if i.Created.IsZero() {
		i.Created = time.Now().UTC().Truncate(time.Second)
	}
	return i
}

var idPattern = regexp.MustCompile(`^[0-9a-f]{8}$`)

// ValidID reports whether a text has the form of an identity's ID.
func ValidID(id string) bool { return idPattern.MatchString(id) }

func (i Identity) valid() bool {
	return i.Version == identityVersion && ValidID(i.ID) && filepath.IsAbs(i.Home)
}

func newID() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	return hex.EncodeToString(b[:])
}

// ID returns eight hexadecimal digits that stand for the folder's topology on
// this host. As long as the folder has no identity they are a proposal.
func (f *Folder) ID() string { return f.identity.ID }

// Identity returns the identity of the folder's topology, and whether it has one.
func (f *Folder) Identity() (Identity, bool) { return f.identity, f.known }

// Adopt takes what is known from elsewhere for the folder's identity.
func (f *Folder) Adopt(i Identity) { f.identity, f.known = i, true }

// Reload reads the document of the folder's identity, which another process may
// have made, and says whether there is one. One that is damaged is as good as
// none.
func (f *Folder) Reload() (found bool, err error) {
	var i Identity
	err = f.ReadJSON(identityFile, &i)
	var distrust *TrustError
	if errors.As(err, &distrust) {
		return false, fmt.Errorf("state folder: %w", err)
	}
	found = err == nil && i.valid()
	if found {
		f.Adopt(i)
	}
	return found, nil
}

// Establish writes the document of the folder's identity, which is durable when
// it returns.
func (f *Folder) Establish() error {
	err := f.RemoveFile(identityFile) // a damaged one
	if err == nil {
		err = f.createJSON(identityFile, f.identity)
	}
	if err != nil {
		return fmt.Errorf("identity of the topology: %w", err)
	}
	f.known = true
	return nil
}

// RemoveIdentity removes the folder's identity.
func (f *Folder) RemoveIdentity() error { return f.RemoveFile(identityFile) }

// Holds reports whether the folder at a path has an identity with that ID. What
// cannot be believed or read holds none.
func Holds(path, id string) bool {
	f, err := Open(path)
	return err == nil && f.known && f.ID() == id
}
