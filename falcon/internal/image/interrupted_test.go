package image

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestRemoveDiskRemovesWhatKilledCallsHaveMade(t *testing.T) {
	for name, tt := range map[string]struct{ files, stay []string }{
		"the folder alone":     {nil, nil},
		"half of the record":   {[]string{".a.json.new-123"}, nil},
		"half of the disk":     {[]string{"a.json", ".a.qcow2.new-123"}, nil},
		"both, several times":  {[]string{".a.json.new-1", ".a.json.new-2", "a.json", ".a.qcow2.new-3"}, nil},
		"live snapshots":       {[]string{"a.json", "a.qcow2", "a.qcow2.next", "a.qcow2.1"}, nil},
		"beside another disk":  {[]string{".a.json.new-1"}, []string{"b.json", "b.qcow2", ".b.json.new-1"}},
		"beside a longer name": {[]string{"a.json"}, []string{"aa.json", ".aa.json.new-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := testStore(t)
			owner := DiskOwner{ID: "topo", Node: "a"}
			dir := filepath.Dir(s.DiskPath(owner, ""))
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			for _, f := range append(tt.files, tt.stay...) {
				if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.RemoveDisk(t.Context(), owner); err != nil {
				t.Fatal(err)
			}
			var left []string
			if entries, err := os.ReadDir(dir); err == nil {
				for _, e := range entries {
					left = append(left, e.Name())
				}
				if len(left) == 0 {
					t.Errorf("the empty folder is left")
				}
			}
			slices.Sort(tt.stay)
			if !slices.Equal(left, tt.stay) {
				t.Errorf("left are %v, want %v", left, tt.stay)
			}
		})
	}
}
