package falcon

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
)

// TestDoctorFindsWhatKilledImageCommandsLeave, such as the memory of a guest that
// was to become a template.
func TestDoctorFindsWhatKilledImageCommandsLeave(t *testing.T) {
	home := t.TempDir()
	t.Setenv("FALCON_HOME", home)
	t.Setenv("FALCON_DATASET", image.NoDataset)
	t.Setenv(hostEnv, HostNative)
	left := map[string]string{
		filepath.Join(home, "tmp", ".warm-0123-00000001"): "ram",
		filepath.Join(home, "img", "one"):                 ".image.json.pending.new-123",
	}
	for dir, file := range left {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	labs, err := hosts("")
	if err != nil {
		t.Fatal(err)
	}
	// Not Doctor itself, which as root would also see the host's namespaces.
	found, err := labs[0].abandonedInStore(t.Context())
	if err != nil || len(found) != len(left) {
		t.Fatalf("found %+v, %v", found, err)
	}
	for _, l := range found {
		if left[l.Name] == "" || l.Reason == "" {
			t.Errorf("found %+v", l)
		}
		if err := l.remove(t.Context()); err != nil {
			t.Error(err)
		}
		if fileExists(l.Name) {
			t.Errorf("%s is still there", l.Name)
		}
	}
}
