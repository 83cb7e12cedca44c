package falcon

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/falcon-vm/falcon-go/falcon/internal/state"
)

// recorded returns what a launch of a small topology records.
func recorded(t testing.TB) *record {
	t.Helper()
	topo := New("duo")
	topo.Flags = []string{"--image", "debian-12"}
	violin, piano := node(topo, "violin"), node(topo, "piano")
	topo.Link(violin, piano)
	topo.SoftNPULink(violin, piano).A.MAC("02:00:00:00:00:01")
	violin.ExtLink("igb0")
	return newRecord(topo, planned(t, topo, factsOf(fakeFabric{})), nil)
}

// damagedRecord is a record with a change that no falcon makes.
func damagedRecord(t *testing.T, damage func(*Plan)) string {
	t.Helper()
	r := recorded(t)
	damage(r.Plan)
	return string(indented(t, r))
}

func folderWith(t *testing.T, content string) *state.Folder {
	t.Helper()
	f, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if content != "" {
		if err := os.WriteFile(f.File(recordFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func TestRecordIsReadAsItWasWritten(t *testing.T) {
	r := recorded(t)
	f := folderWith(t, "")
	if err := f.WriteJSON(recordFile, r); err != nil {
		t.Fatal(err)
	}
	got, err := loadRecord(f)
	if err != nil {
		t.Fatal(err)
	}
	want, is := indented(t, r), indented(t, got)
	if diff := cmp.Diff(string(want), string(is)); diff != "" {
		t.Errorf("record (-written +read):\n%s", diff)
	}
	if _, there := got.MACs["violin/piano/1"]; there || got.MACs["violin/piano/0"] == "" || got.IDs["piano"] == "" {
		t.Errorf("recorded are the MACs %v and IDs %v: want those that falcon chose", got.MACs, got.IDs)
	}
}

func TestRecordOfALaterLaunchKeepsIDs(t *testing.T) {
	first := recorded(t)
	topo := New("duo")
	node(topo, "drum")
	node(topo, "violin")
	second := newRecord(topo, planned(t, topo, factsOf(fakeFabric{})), first)
	if second.IDs["violin"] != first.IDs["violin"] || second.IDs["drum"] == "" || second.Created != first.Created {
		t.Errorf("IDs %v of %v became %v of %v", first.IDs, first.Created, second.IDs, second.Created)
	}
}

func TestRecordRefuses(t *testing.T) {
	for name, c := range map[string]struct{ content, want string }{
		"nothing":           {"{}", "is not a falcon topology"},
		"no object":         {"null", "is not a falcon topology"},
		"a later version":   {`{"version":2,"topology":"duo","plan":{}}`, "has version 2, this program knows 1: use the newer program"},
		"no plan":           {`{"version":1,"topology":"duo"}`, "is not a falcon topology"},
		"no topology":       {`{"version":1,"plan":{}}`, "is not a falcon topology"},
		"a negative value":  {`{"version":-1,"topology":"duo","plan":{}}`, "is not a falcon topology"},
		"a cut document":    {`{"version":1,"topology":"du`, "is damaged"},
		"an empty file":     {" ", "is damaged"},
		"a strange device":  {`{"version":1,"topology":"duo","plan":{"nodes":[{"spec":{"board":{},"components":{"x":{"type":"warp_core","component":{}}}}}]}}`, `unknown type "warp_core"`},
		"a node of no name": {`{"version":1,"topology":"duo","plan":{"nodes":[{"name":"../x"}]}}`, `damaged: node name "../x"`},
		"no such peer":      {damagedRecord(t, func(p *Plan) { p.Nodes[0].Interfaces[0].Peer = "drum" }), "interface 0 of node violin is linked to interface 0 of node drum"},
		"no such interface": {damagedRecord(t, func(p *Plan) { p.Nodes[0].Interfaces[0].PeerIndex = -1 }), "interface -1 of node piano, which there is not"},
		"no such end":       {damagedRecord(t, func(p *Plan) { p.Links[1].B.Index = 2 }), "link 1 has an end that there is not"},
	} {
		_, err := loadRecord(folderWith(t, c.content))
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, ErrNotLaunched) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := loadRecord(folderWith(t, "")); !errors.Is(err, ErrNotLaunched) {
		t.Errorf("no record: %v, want %v", err, ErrNotLaunched)
	}
}

func FuzzRecord(f *testing.F) {
	good, err := json.Marshal(recorded(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"version":1,"topology":"duo","plan":{"nodes":null,"links":[{"a":{"node":"x","index":7}}]}}`))
	f.Add([]byte(`{"version":1,"topology":"duo","plan":{"nodes":[{"name":"a","interfaces":[{"peer":"b","peer_index":-1}]}]}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r record
		if json.Unmarshal(data, &r) != nil || r.check() != nil {
			return
		}
		useRecord(&r)
		again, err := json.Marshal(&r)
		if err != nil {
			t.Fatalf("what was accepted cannot be written again: %v", err)
		}
		var back record
		if err := json.Unmarshal(again, &back); err != nil {
			t.Fatalf("what was accepted cannot be read again: %v", err)
		}
		if err := back.check(); err != nil {
			t.Fatalf("what was accepted is refused once written again: %v", err)
		}
	})
}

// useRecord does with a record what commands do with one they have read.
func useRecord(r *record) {
	for i := range r.Plan.Nodes {
		linkStatuses(r.Plan, &r.Plan.Nodes[i], nil)
	}
	for _, l := range r.Plan.Links {
		for _, e := range []Endpoint{l.A, l.B} {
			_ = r.Plan.Node(e.Node).Interfaces[e.Index]
		}
	}
}
