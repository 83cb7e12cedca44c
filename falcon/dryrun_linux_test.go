package falcon

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/falcon-vm/falcon-go/falcon/internal/illumos"
)

// The commands for links are run as they are printed: that they are the same
// as what a launch does is to be seen, not believed.
func TestTheCommandsForLinksOnLinuxCanBeGivenByHand(t *testing.T) {
	if !mayMakeDevices() {
		t.Skip("needs to be root")
	}
	topo := New("byhand")
	topo.Link(topo.Node("violin", "debian-12", 1, GiB(1)), topo.Node("piano", "debian-12", 1, GiB(1))).MTU(9000)
	fabric := kernelFabricIn(t, filepath.Join(t.TempDir(), "state"), "byhand")
	p := planned(t, topo, factsOf(fabric))
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "delete", p.Namespace).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	for _, c := range linuxLinks(p) {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", illumos.Command(c), err, out)
		}
	}
	status, err := fabric.inspect(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"byhand_violin_vn_vnic0", "byhand_piano_vn_vnic0"} {
		if _, ok := status[name]; !ok {
			t.Errorf("there is no device %s: %v", name, status)
		}
	}
}

func TestADryRunOnLinuxSaysThatItsCommandsAreEquivalents(t *testing.T) {
	dir := t.TempDir()
	modelHome(t, dir) // with an image
	t.Setenv("FALCON_HOME", filepath.Join(dir, "home"))
	t.Setenv("FALCON_DATASET", "none")
	topo := New("duo")
	topo.Dir = filepath.Join(dir, "state")
	topo.Node("violin", "guest", 1, MiB(64))
	steps, err := topo.DryRun(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(steps[0].Note, "these commands would do the same by hand") {
		t.Errorf("it begins with %q", steps[0])
	}
	var programs []string
	for _, s := range steps {
		if len(s.Command) > 0 {
			programs = append(programs, strings.Join(s.Command[:2], " "))
		}
	}
	if diff := cmp.Diff([]string{"qemu-img create", "propolis-server run"}, programs); diff != "" {
		t.Errorf("programs (-want +got):\n%s", diff)
	}
	if left, _ := os.ReadDir(topo.Dir); len(left) > 0 {
		t.Errorf("the dry run made %v", left)
	}
}
