package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/falcon-vm/falcon-go/propolis/internal/confine"
	"github.com/falcon-vm/falcon-go/propolis/internal/qemu"
)

// The ids that QEMU runs as if root starts it: IDs of them, from a first one on
// that is between FirstID and EndID, --id-base.
const (
	FirstID = confine.FirstID
	EndID   = confine.EndID
	IDs     = confine.IDs
)

// Lower takes from the thread, and so from the processes that it starts, the
// privileges that a server does not need.
func Lower() error { return confine.Lower() }

// LowerSelf has this process have no privileges but those that a server needs. For
// that it starts anew, before anything else if it is called first.
func LowerSelf() error { return confine.LowerSelf() }

// Host is what this host offers to instances.
type Host struct {
	// QEMU is the path of the QEMU binary and QEMUVersion its version, such
	// as "7.2.22"; both are empty if there is none.
	QEMU, QEMUVersion string
	// Accel is what runs guests, "kvm" or "tcg", and AccelReason is why. The
	// environment's FALCON_ACCEL has been heeded.
	Accel, AccelReason string
	// UEFI is the path of the host's OVMF, empty if there is none.
	UEFI string
	// Vsock tells whether instances can have a virtio_socket, and NoVsock
	// why not.
	Vsock   bool
	NoVsock error
	// Confinement says how QEMU is kept from the host here, and Unconfined why
	// not better; nil if it is as well as can be.
	Confinement string
	Unconfined  error
}

// HostInfo looks at what this host offers. The error joins what an ordinary
// instance misses, each with what to do about it; what was found is in Host
// all the same. Vsock, which few instances have, is not an error.
func HostInfo(ctx context.Context) (Host, error) {
	var host Host
	var missing [4]error
	host.QEMU, missing[0] = qemu.Find("")
	if host.QEMU != "" {
		host.QEMUVersion, missing[1] = qemu.Version(ctx, host.QEMU)
	}
	host.Accel, host.AccelReason, missing[2] = qemu.Acceleration("")
	firmware, err := qemu.FindUEFI()
	host.UEFI, missing[3] = firmware.Code, err
	host.NoVsock = qemu.Vsock()
	host.Vsock = host.NoVsock == nil
	level, why := confine.Probe()
	host.Confinement, host.Unconfined = level.String(), why
	return host, errors.Join(missing[:]...)
}

// VMM identifies what would run an instance here: the QEMU binary, by its file,
// which is replaced whenever QEMU is, and the acceleration. A template is good
// for the VMM that has made it.
func VMM() (string, error) {
	path, err := qemu.Find("")
	if err != nil {
		return "", err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	accel, _, err := qemu.Acceleration("")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s of %d bytes, written %s, %s", path, info.Size(), info.ModTime().UTC().Format(time.RFC3339Nano), accel), nil
}
