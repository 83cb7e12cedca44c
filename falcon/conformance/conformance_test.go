package conformance_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/falcon/conformance"
)

// built is the folder with the programs any and falcon.
var built string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "fc-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	built = dir
	cmd := exec.Command("go", "build", "-o", dir+"/", "../../examples/testdata/any", "../../cmd/falcon")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n%s", cmd, err, out)
		return 1
	}
	if err := os.Chmod(dir, 0o755); err != nil { // other users run them too
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func platform() conformance.Platform {
	return conformance.Platform{
		Any: filepath.Join(built, "any"), Falcon: filepath.Join(built, "falcon"),
		Image: "micro", Login: 100 * time.Second, Command: 4 * time.Minute,
		Stands: func() ([]string, error) { return nil, nil },
	}
}

// native is the machine's own platform, whose guests are real.
func native(t *testing.T) conformance.Platform {
	t.Helper()
	if testing.Short() {
		t.Skip("it boots guests, which -short leaves out")
	}
	p := platform()
	if runtime.GOOS == "illumos" {
		p.Image, p.OneOfAName = "debian-11.0", true
	}
	out, err := exec.Command(p.Falcon, "image", "path", p.Image).CombinedOutput()
	if err != nil {
		t.Fatalf("the checks need the image %s (falcon image build %[1]s): %s", p.Image, out)
	}
	p.ImageDir = filepath.Dir(strings.TrimSpace(string(out)))
	p.Stands = standing
	out, err = exec.Command(p.Falcon, "image", "show", "--json", p.Image).Output()
	var image struct{ Agent string }
	if err := errors.Join(err, json.Unmarshal(out, &image)); err != nil {
		t.Fatal(err)
	}
	if p.Agent = image.Agent != ""; p.Agent {
		p.Without = []falcon.Stage{falcon.StageBoot, falcon.StageLogin} // they are clones
	}
	return p
}

// standing lists network namespaces of labs.
func standing() ([]string, error) { return filepath.Glob("/run/netns/falcon-*") }

// TestSim runs the checks on the simulated host, as the user who runs the tests.
func TestSim(t *testing.T) {
	p := platform()
	p.Env, p.Agent = []string{"FALCON_HOST=sim"}, true
	p.Slow = []string{"FALCON_SIM=disk:*=30ms link:*=30ms start:*=30ms boot:*=100ms login:*=100ms set-up:*=100ms"}
	conformance.Run(t, p)
}

// TestNative runs the checks on the machine's own platform, as the user who runs
// the tests. Where nodes can be clones of templates, they are.
func TestNative(t *testing.T) { conformance.Run(t, native(t)) }

// TestNativeCold runs them with nodes that boot.
func TestNativeCold(t *testing.T) {
	p := native(t)
	p.Launch = []string{"--cold"}
	p.Without = slices.DeleteFunc(p.Without, func(s falcon.Stage) bool { return s == falcon.StageBoot })
	conformance.Run(t, p)
}

// TestOrdinaryUser runs them as somebody without any privilege.
func TestOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("TestNative has done it; as another user it needs root")
	}
	if runtime.GOOS != "linux" {
		t.Skipf("on %s topologies need root", runtime.GOOS)
	}
	p := native(t)
	p.User = &syscall.Credential{Uid: 54321, Gid: 54321}
	conformance.Run(t, p)
}
