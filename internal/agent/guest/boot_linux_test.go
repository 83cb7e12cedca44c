package guest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/falcon-vm/falcon-go/internal/agent"
)

// What is kept for later boots is that of one machine: a disk may become another's.
func TestWhatIsKeptForABootIsTheMachinesOwn(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "new", "boot")
	uuid := write(t, dir, "uuid", "0AFA1CB7-5c3e-4d92-8b61-e7f20d94a385\n", 0o400)
	i := agent.Identity{Hostname: "violin", MachineID: "0afa1cb75c3e4d928b61e7f20d94a385", Mounts: []agent.Mount{{Tag: "t", Target: "/a b"}}}
	kept := i
	i.Entropy, i.SSHKeys = []byte("secret"), true
	check(t, keepBoot(file, i))
	check(t, keepBoot(file, i))
	if got, ok := keptBoot(file, uuid); !ok || cmp.Diff(got.Mounts, kept.Mounts) != "" || got.Hostname != "violin" || len(got.Entropy) > 0 {
		t.Errorf("kept is %+v, %v", got, ok)
	}
	i.MachineID = "11111111111111111111111111111111"
	check(t, keepBoot(file, i))
	if got, ok := keptBoot(file, uuid); ok {
		t.Errorf("kept of another machine is %+v", got)
	}
	i.Mounts = nil
	check(t, keepBoot(file, i))
	uuid = write(t, dir, "uuid", "11111111-1111-1111-1111-111111111111\n", 0o600)
	got, ok := keptBoot(file, uuid)
	if !ok || got.Hostname != "violin" || !got.SSHKeys || len(got.Mounts) > 0 {
		t.Errorf("what is kept of a node without mounts: %+v, %v", got, ok)
	}
	i.SSHKeys = false
	check(t, keepBoot(file, i))
	if got, _ := keptBoot(file, uuid); !got.SSHKeys {
		t.Error("keys that are still to be made are forgotten")
	}
	check(t, keptKeys(file, dir))
	if got, ok := keptBoot(file, uuid); !ok || got.SSHKeys {
		t.Errorf("when the keys are on the disk, kept is %+v, %v", got, ok)
	}
	check(t, os.WriteFile(file, []byte("\xff\xff\xff"), 0o600))
	if got, ok := keptBoot(file, uuid); ok {
		t.Errorf("kept in a damaged file is %+v", got)
	}
}

// A seed that was put into the memory of a clone is taken once.
func TestAClonesSeedIsSeenWhenItIsThere(t *testing.T) {
	h := &held{seed: make([]byte, os.Getpagesize()), was: agent.SeedMark()}
	copy(h.seed, h.was)
	for i := range h.was {
		h.was[i] = ^h.was[i]
	}
	if done, err := h.sow(); done || err != nil || h.changed() {
		t.Errorf("of a template: %v, %v", done, err)
	}
	h.seed[63] ^= 1
	if !h.changed() {
		t.Error("a seed is not seen")
	}
}
