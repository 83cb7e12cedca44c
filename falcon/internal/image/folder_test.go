package image

import (
	"os"
	"path/filepath"
	"testing"
)

// TestAFolderThatIsTakenAwayIsMadeAgain pins that a disk can be made while the
// last other one of its topology is removed.
func TestAFolderThatIsTakenAwayIsMadeAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "topo")
	tries := 0
	err := InFolder(dir, func() error {
		if tries++; tries == 1 {
			if err := os.Remove(dir); err != nil {
				t.Fatal(err)
			}
		}
		return os.WriteFile(filepath.Join(dir, "disk"), nil, 0o600)
	})
	if err != nil || tries != 2 {
		t.Errorf("after %d tries: %v", tries, err)
	}
}
