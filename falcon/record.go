package falcon

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/state"
)

// recordFile is the document of a launched topology in its state folder.
const recordFile = "topology.json"

// recordVersion is the version of that document. A newer one is refused.
const recordVersion = 1

// record is what falcon remembers of a launched topology.
type record struct {
	Version  int    `json:"version"`
	Topology string `json:"topology"`
	// ID and Home are those of the topology's identity.
	ID   string `json:"id,omitempty"`
	Home string `json:"home,omitempty"`
	// Host is where it runs, Dataset the ZFS dataset of its images and
	// disks; empty where they are files.
	Host    string    `json:"host,omitempty"`
	Dataset string    `json:"dataset,omitempty"`
	Flags   []string  `json:"flags,omitempty"`
	Created time.Time `json:"created"`
	// Lease names the program that the topology ends with; empty when it is
	// persistent.
	Lease string `json:"lease,omitempty"`
	// IDs holds the instance UUIDs of the nodes, MACs the derived addresses
	// by the identity of the end.
	IDs  map[string]string `json:"ids"`
	MACs map[string]string `json:"macs"`
	Plan *Plan             `json:"plan"`
	// IDBase is the first of the ids that its hypervisors run as if root starts
	// them.
	IDBase int `json:"id_base,omitempty"`
}

// ErrNotLaunched is wrapped by errors about a topology that is not launched.
var ErrNotLaunched = errors.New("no topology is launched there")

// loadRecord reads the record of a folder. The error wraps ErrNotLaunched when
// there is none.
func loadRecord(f *state.Folder) (*record, error) {
	var r record
	if err := readRecord(f, &r); err != nil {
		return nil, err
	}
	return &r, r.check()
}

// readRecord reads as much of the record of a folder as v takes.
func readRecord(f *state.Folder, v any) error {
	err := f.ReadJSON(recordFile, v)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("state folder %s: %w", f.Path(), ErrNotLaunched)
	}
	return err
}

// recordHeader is the part of a record that says what it is.
type recordHeader struct {
	Version  int       `json:"version"`
	Topology string    `json:"topology"`
	Host     string    `json:"host"`
	Dataset  string    `json:"dataset"`
	Flags    []string  `json:"flags"`
	Plan     *struct{} `json:"plan"`
}

// loadHeader is loadRecord for those who need no more than the header: the plan
// may be large, and be damaged.
func loadHeader(f *state.Folder) (*recordHeader, error) {
	var h recordHeader
	if err := readRecord(f, &h); err != nil {
		return nil, err
	}
	r := record{Version: h.Version, Topology: h.Topology}
	if h.Plan != nil {
		r.Plan = &Plan{}
	}
	return &h, r.check()
}

// check refuses documents that are not of a topology, or of a later falcon.
func (r *record) check() error {
	switch {
	case r.Version > recordVersion:
		return fmt.Errorf("%s has version %d, this program knows %d: use the newer program", recordFile, r.Version, recordVersion)
	case r.Version < 1 || r.Plan == nil || r.Topology == "":
		return fmt.Errorf("%s is not a falcon topology", recordFile)
	}
	return r.Plan.check()
}

// check refuses a plan that refers to what it does not have, or has names that
// are no part of a file's name: it has been read from a file.
func (p *Plan) check() error {
	ends := make(map[string]int, len(p.Nodes))
	for _, n := range p.Nodes {
		ends[n.Name] = len(n.Interfaces)
	}
	has := func(e Endpoint) bool { return e.Index >= 0 && e.Index < ends[e.Node] }
	damaged := func(err error) error { return fmt.Errorf("%s is damaged: %w", recordFile, err) }
	for i := range p.Nodes {
		n := &p.Nodes[i]
		if err := validName("node", n.Name); err != nil {
			return damaged(err)
		}
		for _, x := range n.Interfaces {
			if x.Peer != "" && !has(Endpoint{x.Peer, x.PeerIndex}) {
				return damaged(fmt.Errorf("interface %d of node %s is linked to interface %d of node %s, which there is not",
					x.Index, n.Name, x.PeerIndex, x.Peer))
			}
		}
	}
	for i, l := range p.Links {
		if !has(l.A) || !has(l.B) {
			return damaged(fmt.Errorf("link %d has an end that there is not", i))
		}
	}
	return nil
}
