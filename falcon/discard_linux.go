package falcon

import (
	"context"
	"fmt"

	"github.com/falcon-vm/falcon-go/falcon/internal/state"
)

// discard kills a node's server, with which its QEMU dies. A QEMU that quits in
// order takes its memory down on its own time first, and has its server wait for
// it; dead, the kernel takes all of it away at once.
func (h *linuxHost) discard(ctx context.Context, f *state.Folder, o state.Object) error {
	if o.Process != nil {
		// The kernel has the memory of a large guest to take down.
		ctx, cancel := context.WithTimeout(ctx, serverDeadline)
		defer cancel()
		vmm, _ := o.Process.Child(vmmPID(f, o.Name)) // nobody, when there is none
		if err := o.Process.Kill(ctx); err != nil {
			return err
		}
		// Another server's hypervisor (see Topology.Propolis) need not die
		// with it.
		if err := vmm.Kill(ctx); err != nil {
			return fmt.Errorf("its hypervisor has not ended: %w", err)
		}
	}
	return forgetServer(f, o.Name)
}
