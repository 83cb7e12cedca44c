package link

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	bpflink "github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// tcxPrefix starts the names of our programs; the index of the device that a
// program redirects to follows.
const tcxPrefix = "falcon_"

// join redirects what enters either device out of the other, unless it stands
// already.
func (r *rtnl) join(a, b int, mode func() (Redirect, error)) error {
	return errors.Join(r.redirect(a, b, mode), r.redirect(b, a, mode))
}

func (r *rtnl) redirect(from, to int, mode func() (Redirect, error)) error {
	if ok, err := r.redirects(from, to); ok || err != nil {
		return err
	}
	m, err := mode()
	if err != nil {
		return err
	}
	if err := errors.Join(detachTCX(from), r.delIngress(from)); err != nil {
		return fmt.Errorf("remove a wrong redirect: %w", err)
	}
	switch m {
	case TCX:
		err = attachTCX(from, to)
	default:
		err = r.addMirred(from, to)
	}
	if err != nil {
		return err
	}
	if ok, err := r.redirects(from, to); err != nil || !ok {
		return errors.Join(errors.New("the redirect does not stand after it was made"), err)
	}
	return nil
}

// redirects tells whether everything that enters from leaves by to, by
// either means. TCX programs run first.
func (r *rtnl) redirects(from, to int) (bool, error) {
	names, err := tcxPrograms(from)
	if err != nil {
		return false, err
	}
	if len(names) > 0 {
		return names[0] == tcxName(to), nil
	}
	target, err := r.mirredTarget(from)
	return target == to, err
}

func tcxName(to int) string { return fmt.Sprintf("%s%d", tcxPrefix, to) }

// attachTCX attaches a program of four instructions. It is attached to the
// device, not held by a bpf_link, so it lives until the device goes.
func attachTCX(from, to int) error {
	prog, err := ebpf.NewProgramWithOptions(&ebpf.ProgramSpec{
		Name: tcxName(to),
		Type: ebpf.SchedCLS,
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R1, int32(to)),
			asm.Mov.Imm(asm.R2, 0), // out of the device, not into it
			asm.FnRedirect.Call(),
			asm.Return(),
		},
		License: "Apache-2.0",
	}, ebpf.ProgramOptions{LogDisabled: true})
	if err != nil {
		return fmt.Errorf("load the redirect program: %w", err)
	}
	defer func() { _ = prog.Close() }()
	err = bpflink.RawAttachProgram(bpflink.RawAttachProgramOptions{
		Target: from, Program: prog, Attach: ebpf.AttachTCXIngress})
	if tcxMissing(err) {
		return fmt.Errorf("attach the redirect program: TCX, which needs Linux 6.6, is %w: %w", ErrNotSupported, err)
	}
	if err != nil {
		return fmt.Errorf("attach the redirect program by TCX: %w", err)
	}
	return nil
}

// tcxMissing tells a kernel that does not know TCX.
func tcxMissing(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, ebpf.ErrNotSupported)
}

// tcxPrograms returns the names of the programs on a device's ingress; none
// on a kernel without TCX.
func tcxPrograms(index int) ([]string, error) {
	var names []string
	err := eachTCX(index, func(p *ebpf.Program) error {
		info, err := p.Info()
		if err == nil {
			names = append(names, info.Name)
		}
		return err
	})
	return names, err
}

func detachTCX(index int) error {
	return eachTCX(index, func(p *ebpf.Program) error {
		return bpflink.RawDetachProgram(bpflink.RawDetachProgramOptions{
			Target: index, Program: p, Attach: ebpf.AttachTCXIngress})
	})
}

func eachTCX(index int, do func(*ebpf.Program) error) error {
	found, err := bpflink.QueryPrograms(bpflink.QueryOptions{Target: index, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		if tcxMissing(err) {
			return nil
		}
		return fmt.Errorf("query TCX programs: %w", err)
	}
	for _, p := range found.Programs {
		prog, err := ebpf.NewProgramFromID(p.ID)
		if err != nil {
			return fmt.Errorf("open TCX program: %w", err)
		}
		err = do(prog)
		_ = prog.Close()
		if err != nil {
			return fmt.Errorf("TCX program: %w", err)
		}
	}
	return nil
}
