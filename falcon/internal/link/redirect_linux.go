package link

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// join redirects what enters either device out of the other, unless it does
// so already.
func (r *rtnl) join(a, b int, mode Redirect) error {
	if err := r.redirect(a, b, mode); err != nil {
		return err
	}
	return r.redirect(b, a, mode)
}

func (r *rtnl) redirect(from, to int, mode Redirect) error {
	if target, err := r.redirectTarget(from); err != nil || target == to {
		return err
	}
	if err := r.resetIngress(from); err != nil {
		return err
	}
	if err := r.addRedirect(from, to, mode); err != nil {
		return err
	}
	target, err := r.redirectTarget(from)
	if err == nil && target != to {
		err = errors.New("the redirect is not there after the kernel took it")
	}
	return err
}

func (r *rtnl) addRedirect(from, to int, mode Redirect) error {
	switch mode {
	case BPF:
		return r.addBPF(from, to)
	case Mirred:
		return r.addMirred(from, to)
	}
	// Trying costs less than finding out beforehand.
	bpfErr := r.addBPF(from, to)
	if bpfErr == nil {
		return nil
	}
	if err := r.addMirred(from, to); err != nil {
		return errors.Join(bpfErr, err)
	}
	return nil
}

// addBPF redirects by a program of four instructions. The filter holds the
// program, so both live for as long as the device does.
//
// TCX would do the same without a qdisc, but each attachment waits for an RCU
// grace period with all of the host's network configuration locked, and each
// removal again: 12 ms each, measured, 9 s for 200 links against 0.3 s, and
// frames pass no faster.
func (r *rtnl) addBPF(from, to int) error {
	prog, err := ebpf.NewProgramWithOptions(&ebpf.ProgramSpec{
		Name: "falcon_redirect",
		Type: ebpf.SchedCLS,
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R1, int32(to)),
			asm.Mov.Imm(asm.R2, 0), // out of the device, not into it
			asm.FnRedirect.Call(),
			asm.Return(),
		},
		License: "Apache-2.0",
	}, ebpf.ProgramOptions{LogDisabled: true})
	if errors.Is(err, ebpf.ErrNotSupported) {
		err = fmt.Errorf("%w by this kernel: %w", ErrNotSupported, err)
	}
	if err != nil {
		return fmt.Errorf("load the redirect program: %w", err)
	}
	defer func() { _ = prog.Close() }()
	return r.addBPFFilter(from, to, prog.FD())
}
