package illumos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/falcon-vm/falcon-go/falcon/internal/state"
)

// Claims is the list of the links that topologies on this host have made or
// are about to make: a file for each set of them. The names of links are the
// whole host's and say nothing about whose they are.
type Claims struct {
	// Dir holds the files.
	Dir string
	// Boot identifies the run of the host's kernel. Links do not survive it.
	Boot string
}

// Claim is a set of links of one topology, which come and go together.
type Claim struct {
	// ID tells sets apart: it is that of the topology, with a suffix where that
	// has several. Folder is its state folder, for people.
	ID       string   `json:"id"`
	Topology string   `json:"topology"`
	Folder   string   `json:"folder"`
	Boot     string   `json:"boot"`
	Links    []string `json:"links"`
}

// of is the ID of the topology.
func (c Claim) of() string {
	id, _, _ := strings.Cut(c.ID, "-")
	return id
}

// Owner describes whose links they are, for people.
func (c Claim) Owner() string { return fmt.Sprintf("topology %s (%s)", c.Topology, c.Folder) }

// List returns the claims that hold in this run of the host's kernel.
func (s Claims) List() ([]Claim, error) {
	files, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list of links: %w", err)
	}
	var claims []Claim
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".json")
		if !ok || strings.HasPrefix(name, ".") {
			continue
		}
		c, err := s.read(name)
		if err != nil {
			return nil, err
		}
		if c.ID == name && c.Boot == s.Boot {
			claims = append(claims, c)
		}
	}
	return claims, nil
}

// Get returns the claim of an ID; one without links when there is none.
func (s Claims) Get(id string) (Claim, error) {
	c, err := s.read(id)
	if errors.Is(err, os.ErrNotExist) || err == nil && c.Boot != s.Boot {
		return Claim{ID: id, Boot: s.Boot}, nil
	}
	return c, err
}

func (s Claims) read(id string) (Claim, error) {
	f, err := state.Open(s.Dir)
	var c Claim
	if err == nil {
		err = f.ReadJSON(id+".json", &c)
	}
	if err != nil {
		return Claim{}, fmt.Errorf("list of links: %w", err)
	}
	return c, nil
}

// Conflict returns a *NameError for the first name that a topology of another
// folder claims, or that exists and is nobody's.
func (s Claims) Conflict(id string, names []string, have Links) error {
	claims, err := s.List()
	if err != nil {
		return err
	}
	var mine []string
	for _, c := range claims {
		if c.of() == id {
			mine = append(mine, c.Links...)
			continue
		}
		for _, n := range names {
			if slices.Contains(c.Links, n) {
				return &NameError{Name: n, Owner: c.Owner()}
			}
		}
	}
	for _, n := range names {
		if l, stands := have[n]; stands && !slices.Contains(mine, n) {
			return sameKind(Links{n: l}, n, "", "")
		}
	}
	return nil
}

// Add claims names for a topology, if nobody else has them: have says which links
// exist. It must return before they are made.
func (s Claims) Add(ctx context.Context, c Claim, have func() (Links, error)) error {
	return s.locked(ctx, func(f *state.Folder) error {
		links, err := have()
		if err != nil {
			return err
		}
		if err := s.Conflict(c.of(), c.Links, links); err != nil {
			return err
		}
		old, err := s.Get(c.ID)
		if err != nil {
			return err
		}
		c.Boot = s.Boot
		c.Links = append(old.Links, c.Links...)
		slices.Sort(c.Links)
		c.Links = slices.Compact(c.Links)
		return f.WriteJSON(c.ID+".json", c)
	})
}

// Drop takes names from a claim: they are gone, or were never made.
func (s Claims) Drop(ctx context.Context, id string, names []string) error {
	if _, err := os.Stat(s.Dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return s.locked(ctx, func(f *state.Folder) error {
		c, err := s.Get(id)
		if err != nil {
			return err
		}
		c.Links = slices.DeleteFunc(c.Links, func(n string) bool { return slices.Contains(names, n) })
		if len(c.Links) == 0 {
			return f.RemoveFile(id + ".json")
		}
		return f.WriteJSON(id+".json", c)
	})
}

func (s Claims) locked(ctx context.Context, do func(*state.Folder) error) error {
	f, err := state.Open(s.Dir)
	if err != nil {
		return err
	}
	unlock, err := f.LockFile(ctx, "lock", "links", nil)
	if err != nil {
		return fmt.Errorf("list of links: %w", err)
	}
	defer unlock()
	return do(f)
}
