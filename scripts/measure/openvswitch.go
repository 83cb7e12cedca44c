//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
)

// openVSwitch joins devices by a switch in the kernel, whose daemons run in the
// fabric's namespace, and end with it. Its datapath in user space is no match: it
// drops TCP of guests whose checksums are left to the device.
func (b *bench) openVSwitch(ctx context.Context, f *fabric, ports ...string) error {
	if _, err := netlink.GenlFamilyGet("ovs_datapath"); err != nil {
		return errors.New("this kernel has no Open vSwitch (no generic netlink family ovs_datapath)")
	}
	if err := b.missing("ovs-vswitchd", "ovsdb-server", "ovsdb-tool", "ovs-vsctl"); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(b.work, "o")
	if err != nil {
		return err
	}
	f.closers = append(f.closers, func() { os.RemoveAll(dir) })
	database, socket := filepath.Join(dir, "conf.db"), filepath.Join(dir, "db.sock")
	if err := b.do(ctx, "ovsdb-tool", "create", database, "/usr/share/openvswitch/vswitch.ovsschema"); err != nil {
		return err
	}
	control := func(ctx context.Context, args ...string) error {
		return b.do(ctx, "ovs-vsctl", append([]string{"--db=unix:" + socket, "--timeout=20"}, args...)...)
	}
	start := func(ready func(context.Context) error, program string, args ...string) error {
		d, err := b.startDaemon(ctx, filepath.Join(dir, program+".log"), ready,
			"nsenter", append([]string{"--net=" + f.path(), "env", "OVS_RUNDIR=" + dir, program}, args...)...)
		if err == nil {
			f.closers = append(f.closers, d.stop)
		}
		return err
	}
	err = start(func(ctx context.Context) error { return control(ctx, "--no-wait", "init") },
		"ovsdb-server", database, "--remote=punix:"+socket, "--unixctl="+filepath.Join(dir, "dbctl"))
	if err != nil {
		return err
	}
	// Its control answers once it has read the database.
	unixctl := filepath.Join(dir, "ctl")
	err = start(func(ctx context.Context) error { return b.do(ctx, "ovs-appctl", "--target="+unixctl, "version") },
		"ovs-vswitchd", "unix:"+socket, "--unixctl="+unixctl)
	if err != nil {
		return err
	}
	if err := control(ctx, "add-br", "br0"); err != nil {
		return err
	}
	for _, port := range ports {
		// It answers when the switch has the port, or has refused it.
		if err := control(ctx, "add-port", "br0", port); err != nil {
			return fmt.Errorf("the port %s: %w", port, err)
		}
	}
	return nil
}
