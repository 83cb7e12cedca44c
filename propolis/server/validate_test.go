package server

import (
	"context"
	"strings"
	"testing"

	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/falcon-vm/falcon-go/propolis/internal/qemu"
)

// plan is a start that goes as far as QEMU's command line, on a host that has
// all that a spec may name.
func plan(_ context.Context, props propolis.InstanceProperties, spec propolis.InstanceSpec) (Machine, error) {
	host := qemu.Host{QEMU: "qemu", Accel: "tcg", Files: map[string]qemu.File{"d.raw": {}, "/share": {Dir: true}}}
	_, err := qemu.CommandLine(qemu.Config{ID: props.ID, Spec: spec, Firmware: qemu.FirmwareBIOS}, host)
	if err != nil {
		return nil, err
	}
	return newFakeMachine(), nil
}

func TestSpecRules(t *testing.T) {
	at := func(device uint8) propolis.PCIPath { return propolis.PCIPath{Device: device} }
	disk := propolis.VirtioDisk{BackendID: "file", PCIPath: at(4)}
	file := propolis.FileStorageBackend{Path: "d.raw", BlockSize: 512}
	share := propolis.P9FS{Source: "/share", Target: "/opt/cargo-bay", PCIPath: at(5)}
	zero := uint64(0)
	type parts = propolis.Components
	with := func(more parts) func(*propolis.InstanceEnsureRequest) {
		return func(r *propolis.InstanceEnsureRequest) {
			for name, c := range more {
				r.Spec.Components[name] = c
			}
		}
	}
	tests := []struct {
		name   string
		change func(*propolis.InstanceEnsureRequest)
		want   string // part of the message; empty for accepted
	}{
		{"the least", with(nil), ""},
		{"a disk and a share", with(parts{"disk": disk, "file": file, "fs": share}), ""},
		{"two shares", with(parts{"fs": share, "fs2": propolis.P9FS{Source: "/share", Target: "b", PCIPath: at(6)}}), ""},
		{"boot order", with(parts{"disk": disk, "file": file, "boot": propolis.BootSettings{Order: []propolis.BootOrderEntry{{ID: "disk"}}}}), ""},
		{"no UUID", func(r *propolis.InstanceEnsureRequest) { r.Properties.ID = "1" }, "no UUID"},
		{"no CPU", func(r *propolis.InstanceEnsureRequest) { r.Spec.Board.CPUs = 0 }, "board"},
		{"no memory", func(r *propolis.InstanceEnsureRequest) { r.Spec.Board.MemoryMiB = 0 }, "board"},
		{"PCIe", func(r *propolis.InstanceEnsureRequest) { r.Spec.Board.Chipset.Value.EnablePCIe = true }, "board"},
		{"no COM1", func(r *propolis.InstanceEnsureRequest) { delete(r.Spec.Components, "com1") }, "com1"},
		{"COM1 twice", with(parts{"again": propolis.SerialPort{Num: "com1"}}), "com1"},
		{"COM5", with(parts{"com5": propolis.SerialPort{Num: "com5"}}), "com5"},
		{"PCI path twice", with(parts{"disk": disk, "file": file, "fs": propolis.P9FS{Source: "/share", Target: "t", PCIPath: at(4)}}), "0.4.0"},
		{"PCI device 32", with(parts{"fs": propolis.P9FS{Source: "/share", Target: "t", PCIPath: at(32)}}), "0.32.0"},
		{"PCI function 8", with(parts{"fs": propolis.P9FS{Source: "/share", Target: "t", PCIPath: propolis.PCIPath{Device: 4, Function: 8}}}), "0.4.8"},
		{"PCI device of the chipset", with(parts{"fs": propolis.P9FS{Source: "/share", Target: "t"}}), "0.0.0"},
		{"PCI bus that is not there", with(parts{"fs": propolis.P9FS{Source: "/share", Target: "t", PCIPath: propolis.PCIPath{Bus: 3, Device: 4}}}), "bus 3"},
		{"device named as its backend", with(parts{"file": propolis.VirtioDisk{BackendID: "file", PCIPath: at(4)}}), "name of its backend"},
		{"unknown backend", with(parts{"disk": disk}), `"file"`},
		{"backend of another kind", with(parts{"disk": disk, "file": propolis.VirtioNetworkBackend{VNICName: "user:?mac=02:00:00:00:00:01"}}), `"file"`},
		{"unused disk backend", with(parts{"file": file}), `"file"`},
		{"unused network backend", with(parts{"net": propolis.VirtioNetworkBackend{VNICName: "user:?mac=02:00:00:00:00:01"}}), `"net"`},
		{"backend used twice", with(parts{"disk": disk, "file": file, "disk2": propolis.NVMeDisk{BackendID: "file", PCIPath: at(6)}}), `"file"`},
		{"boot from what is not there", with(parts{"boot": propolis.BootSettings{Order: []propolis.BootOrderEntry{{ID: "disk"}}}}), `"disk"`},
		{"boot from a share", with(parts{"fs": share, "boot": propolis.BootSettings{Order: []propolis.BootOrderEntry{{ID: "fs"}}}}), `"fs"`},
		{"boot off bus 0", with(parts{
			"bridge": propolis.PCIBridge{DownstreamBus: 1, PCIPath: at(9)}, "file": file,
			"disk": propolis.VirtioDisk{BackendID: "file", PCIPath: propolis.PCIPath{Bus: 1, Device: 4}},
			"boot": propolis.BootSettings{Order: []propolis.BootOrderEntry{{ID: "disk"}}},
		}), "bus 0 only"},
		{"two boot orders", with(parts{"b1": propolis.BootSettings{}, "b2": propolis.BootSettings{}}), "already"},
		{"tag of 32 bytes", with(parts{"fs": propolis.P9FS{Source: "/share", Target: strings.Repeat("t", 32), PCIPath: at(5)}}), "tag"},
		{"tag of 31 bytes", with(parts{"fs": propolis.P9FS{Source: "/share", Target: strings.Repeat("t", 31), PCIPath: at(5)}}), ""},
		{"tag twice", with(parts{"fs": share, "fs2": propolis.P9FS{Source: "/share", Target: share.Target, PCIPath: at(6)}}), "tag"},
		{"blocks of 1024 bytes", with(parts{"disk": disk, "file": propolis.FileStorageBackend{Path: "d.raw", BlockSize: 1024}}), "1024"},
		{"no workers", with(parts{"disk": disk, "file": propolis.FileStorageBackend{Path: "d.raw", BlockSize: 512, Workers: &zero}}), "workers"},
		{"SoftNPU loader", with(parts{"x": propolis.SoftNPUP9{PCIPath: at(6)}}), `"x" (soft_npu_p9)`},
		{"SoftNPU port of the CPU", with(parts{"x": propolis.SoftNPUPCIPort{PCIPath: at(6)}}), ""},
		{"SoftNPU port", with(parts{"x": propolis.SoftNPUPort{LinkName: "l", BackendID: "y"}}), `"x" (soft_npu_port)`},
		{"DLPI backend", with(parts{"x": propolis.DLPINetworkBackend{VNICName: "v"}}), `"x" (dlpi_network_backend)`},
		{"Crucible", with(parts{"x": propolis.CrucibleStorageBackend{}}), `"x" (crucible_storage_backend)`},
		{"blob", with(parts{"x": propolis.BlobStorageBackend{}}), `"x" (blob_storage_backend)`},
		{"failing migrations", with(parts{"x": propolis.MigrationFailureInjector{}}), `"x" (migration_failure_injector)`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHarness(t, func(s *server) { s.start = plan })
			req := ensureRequest(nil)
			tt.change(&req)
			err := h.Ensure(h.ctx(), req)
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			e := refused(t, err, 400, "")
			if !strings.HasPrefix(e.Message, "failed to generate internal instance spec: ") || !strings.Contains(e.Message, tt.want) {
				t.Errorf("got message %q, want %q in it", e.Message, tt.want)
			}
		})
	}
}

func TestAllThatIsWrongIsToldAtOnce(t *testing.T) {
	zero := uint64(0)
	req := ensureRequest(propolis.Components{
		"file": propolis.FileStorageBackend{Workers: &zero},
		"disk": propolis.VirtioDisk{BackendID: "disk"},
	})
	err := validate(req)
	for _, want := range []string{`"file"`, `"disk"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}
