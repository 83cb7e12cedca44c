package falcon

import (
	"context"
	"fmt"
	"os/exec"
	"strings"

	"github.com/falcon-vm/falcon-go/falcon/internal/link"
	"github.com/falcon-vm/falcon-go/propolis/server"
)

// survey reports what this host and user can do.
func (h *linuxHost) survey(ctx context.Context) []Check {
	checks := hypervisorChecks(ctx)
	checks = append(checks, h.homeCheck(), Check{Name: "images", Detail: h.images.Why()})
	for _, tool := range []struct{ name, pkg, use string }{
		{"qemu-img", "qemu-utils", "importing and exporting images"},
		{"apt-get", "apt", "building images"},
		{"mke2fs", "e2fsprogs", "building images"},
		{"mmdebstrap", "mmdebstrap", "building debian-12"},
	} {
		checks = append(checks, toolCheck(tool.name, tool.pkg, tool.use))
	}
	return append(checks, linkChecks(ctx)...)
}

func toolCheck(name, pkg, use string) Check {
	path, err := exec.LookPath(name)
	if err != nil {
		return Check{Name: name, Err: fmt.Errorf("not installed, needed for %s: apt-get install %s", use, pkg)}
	}
	return Check{Name: name, Detail: path}
}

// hypervisorChecks says what runs guests here, and why.
func hypervisorChecks(ctx context.Context) []Check {
	host, missing := server.HostInfo(ctx)
	var checks []Check
	if host.QEMU != "" {
		checks = append(checks, Check{Name: "qemu", Detail: fmt.Sprintf("%s, version %s", host.QEMU, host.QEMUVersion)})
	}
	if host.Accel != "" {
		checks = append(checks, Check{Name: "acceleration", Detail: fmt.Sprintf("%s: %s", host.Accel, host.AccelReason)})
	}
	if host.UEFI != "" {
		checks = append(checks, Check{Name: "uefi firmware", Detail: host.UEFI})
	}
	confined := Check{Name: "QEMU's confinement", Detail: host.Confinement}
	if host.Unconfined != nil {
		confined.Detail += "; not more because of this: " + strings.ReplaceAll(host.Unconfined.Error(), "\n", "; ")
	}
	checks = append(checks, confined)
	vsock := Check{Name: "vsock", Detail: "guests can have it"}
	if host.NoVsock != nil {
		vsock.Detail = "guests cannot have it: " + host.NoVsock.Error()
	}
	if missing != nil {
		checks = append(checks, Check{Name: "hypervisor", Err: missing})
	}
	return append(checks, vsock)
}

func (h *linuxHost) homeCheck() Check {
	home := h.images.Home()
	c := Check{Name: "home", Detail: home}
	path := home
	if !fileExists(path) {
		path = "/"
	}
	if free, err := diskSpace(path); err == nil {
		c.Detail += fmt.Sprintf(", %s free", free)
	}
	return c
}

// linkChecks says which kind of links this user can make.
func linkChecks(ctx context.Context) []Check {
	if !mayMakeDevices() {
		return []Check{{Name: "links", Detail: "Unix sockets between hypervisors; root gets kernel devices, which are 2 to 3 times faster, and external links"}}
	}
	can, err := link.Probe(ctx)
	if err != nil {
		return []Check{{Name: "links", Err: err}}
	}
	var checks []Check
	for _, p := range []struct {
		name string
		err  error
	}{
		{"network namespaces", can.Namespace}, {"taps", can.Tap}, {"veth pairs", can.Veth},
		{"redirect by eBPF", can.BPF}, {"redirect by mirred", can.Mirred}, {"macvtap, for external links", can.Macvtap},
	} {
		checks = append(checks, Check{Name: p.name, Err: p.err})
	}
	return checks
}
