package falcon_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/falcon"
)

// Mistakes of a declaration are kept, and told all at once.
func ExampleTopology_Validate() {
	topo := falcon.New("duo")
	violin := topo.Node("violin", "micro", 1, falcon.MiB(256))
	piano := topo.Node("piano", "micro", 0, falcon.MiB(256))
	violin.Mount("./cargo-bay", "opt")
	topo.Link(violin, piano).A.MAC("01:00:00:00:00:00")

	fmt.Println(topo.Validate(context.Background()))
	// Output:
	// 3 problems:
	//   - node piano: 0 cores are not within 1 to 255
	//   - node violin: mount target "opt" is not a clean absolute path below /
	//   - node violin: MAC address 01:00:00:00:00:00 is a multicast address
}

// In a test a topology lives as long as the test: when its context ends, and
// however the program ends, the topology is destroyed.
func ExampleTopology_Launch() {
	_ = func(t *testing.T) { // func TestViolinReachesPiano(t *testing.T)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()

		topo := falcon.New("duo")
		topo.Dir = t.TempDir()
		violin := topo.Node("violin", "micro", 1, falcon.MiB(256))
		piano := topo.Node("piano", "micro", 1, falcon.MiB(256))
		topo.Link(violin, piano)
		if err := topo.Launch(ctx); err != nil {
			t.Fatal(err)
		}

		run := func(n *falcon.Node, command ...string) string {
			r, err := n.Exec(ctx, strings.Join(command, " && "))
			if err != nil || r.Status != 0 {
				t.Fatalf("%s: status %d, %v\n%s", n.Name(), r.Status, err, r.Output)
			}
			return string(r.Output)
		}
		run(violin, "ip link set eth0 up", "ip address add 10.0.0.1/24 dev eth0")
		run(piano, "ip link set eth0 up", "ip address add 10.0.0.2/24 dev eth0")
		t.Log(run(violin, "ping -c 1 -W 5 10.0.0.2"))
	}
}
