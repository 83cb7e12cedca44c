package falcon

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/falcon-vm/falcon-go/falcon/internal/link"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
)

// longestDevice is IFNAMSIZ less the terminating zero and the "~" of a veth's
// inner side.
const longestDevice = 16 - 2

// kernelFabricIn returns the fabric of root in a state folder.
func kernelFabricIn(t testing.TB, dir, topology string) *kernelFabric {
	t.Helper()
	folder, err := state.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &kernelFabric{topology: topology, folder: folder}
}

func TestKernelDevicesAreNamedAfterTheirNodes(t *testing.T) {
	f := kernelFabricIn(t, "/lab", "duo")
	for want, c := range map[string]struct {
		node  string
		index int
	}{
		"violin-0":       {"violin", 0},
		"violin-27":      {"violin", 27},
		"twelve_bytes-0": {"twelve_bytes", 0},
	} {
		if got := f.device("duo_"+c.node, c.node, c.index, false); got != want {
			t.Errorf("interface %d of %s is %q, want %q", c.index, c.node, got, want)
		}
	}
}

// The names of a lab of many nodes whose names differ only where a
// device's name has no room.
func TestKernelDevicesOfLongNamesAreUnique(t *testing.T) {
	f := kernelFabricIn(t, "/lab", "big")
	owner := make(map[string]string)
	for n := range 1000 {
		node := fmt.Sprintf("spine_switch_of_the_rack_%04d", n)
		for _, index := range []int{0, 1, 10, 215} {
			full := fmt.Sprintf("big_%s_vn_vnic%d", node, index)
			name := f.device(full, node, index, false)
			if other, taken := owner[name]; taken {
				t.Fatalf("%s and %s are both %q", other, full, name)
			}
			owner[name] = full
		}
	}
}

func TestKernelDevicesOfAnyTopology(t *testing.T) {
	f := kernelFabricIn(t, "/lab", "duo")
	rapid.Check(t, func(t *rapid.T) {
		topo := drawTopology(t)
		first, err := plan(topo, factsOf(f))
		if err != nil {
			t.Fatal(err)
		}
		second, err := plan(topo, factsOf(f))
		if err != nil {
			t.Fatal(err)
		}
		devices := unique{}
		for i, np := range first.Nodes {
			for j, self := range np.Interfaces {
				if self.External == "user" {
					if self.Device != "" {
						t.Fatalf("%s needs no device and has %q", self.Name, self.Device)
					}
					continue
				}
				if n := len(self.Device); n == 0 || n > longestDevice || strings.ContainsAny(self.Device, "/: ~") {
					t.Fatalf("%s has the device %q of %d bytes, at most %d are allowed", self.Name, self.Device, n, longestDevice)
				}
				if len(self.Name) > link.MaxName {
					t.Fatalf("%q has %d bytes, at most %d are allowed", self.Name, len(self.Name), link.MaxName)
				}
				devices.add(t, self.Device, self.Name)
				if again := second.Nodes[i].Interfaces[j].Device; again != self.Device {
					t.Fatalf("%s has the device %q, then %q", self.Name, self.Device, again)
				}
			}
		}
	})
}

// Devices on host interfaces of all topologies are in one namespace.
func TestExternalDevicesOfTwoFoldersDiffer(t *testing.T) {
	const full = "duo_violin_vn_vnic0"
	dir := t.TempDir()
	first := kernelFabricIn(t, dir, "duo")
	list := state.Registry{Dir: dir + "/labs"}
	if err := errors.Join(list.Claim(first.folder, state.Identity{Home: dir}), first.folder.Establish()); err != nil {
		t.Fatal(err)
	}
	a := first.device(full, "violin", 0, true)
	b := kernelFabricIn(t, "/lab/b", "duo").device(full, "violin", 0, true)
	again := kernelFabricIn(t, dir, "duo").device(full, "violin", 0, true)
	if a == b || a != again || len(a) > longestDevice {
		t.Errorf("two folders have %q and %q, the first again %q", a, b, again)
	}
	inside := kernelFabricIn(t, dir, "duo").device(full, "violin", 0, false)
	if inside == a {
		t.Errorf("a cable and an external link both have %q", a)
	}
}
